//! Cancellation and deadlines: the caller leaves at once, at any point of the work, and the next call works.

use std::time::{Duration, Instant};

use dovetail_core::stop::{Canceller, Stop, StopReason};
use dovetail_core::vision::{DetectOptions, Image, ModelKind, Rect, Size, Vision, VisionError};
use dovetail_vision::{Opencv, Options};

use crate::common::{models, noise, photo};

#[test]
fn a_stopped_call_does_nothing() {
    let vision = Opencv::new(Options::new(models())).unwrap();
    let canceller = Canceller::new();
    canceller.cancel();
    let stop = canceller.stop();
    let model = vision.model(ModelKind::Detector, None).unwrap();
    let stopped = Err(VisionError::Stopped(StopReason::Cancelled));
    assert_eq!(vision.detect(&model, &photo("sample1.jpg"), DetectOptions::default(), &stop), stopped);
    let late = Stop::never().by(Instant::now());
    assert_eq!(
        vision.detect(&model, &photo("sample1.jpg"), DetectOptions::default(), &late),
        Err(VisionError::Stopped(StopReason::Deadline))
    );
}

#[test]
fn a_caller_leaves_a_pass_in_progress_within_100_ms() {
    let vision = Opencv::new(Options { threads: 1, ..Options::new(models()) }).unwrap();
    let image = photo("sample1.jpg");
    let embedder = vision.model(ModelKind::Embedder, None).unwrap();
    // 400 faces take some seconds.
    let faces: Vec<Rect> =
        (0..400).map(|i| Rect { x: 300.0 + i as f32, y: 300.0, width: 200.0, height: 250.0 }).collect();
    let canceller = Canceller::new();
    let stop = canceller.stop();
    let (left, asked) = std::thread::scope(|s| {
        let call = s.spawn(|| {
            let result = vision.embed(&embedder, &image, &faces, &stop);
            (result, Instant::now())
        });
        std::thread::sleep(Duration::from_millis(300));
        let asked = Instant::now();
        canceller.cancel();
        (call.join().unwrap(), asked)
    });
    assert_eq!(left.0, Err(VisionError::Stopped(StopReason::Cancelled)));
    assert!(left.1.duration_since(asked) < Duration::from_millis(100), "{:?}", left.1.duration_since(asked));
    // The pool's only thread stops between two batches, so it is soon free for the next call.
    let free = Instant::now();
    vision.resize(&image, Size { width: 10, height: 10 }, &Stop::never()).unwrap();
    assert!(free.elapsed() < Duration::from_secs(1), "{:?}", free.elapsed());
}

#[test]
fn a_deadline_ends_an_encoding_that_takes_longer() {
    let vision = Opencv::new(Options::new(models())).unwrap();
    let size = Size { width: 3000, height: 2000 };
    let image = Image::new(noise(size.width, size.height, 17), size).unwrap();
    let stop = Stop::never().by(Instant::now() + Duration::from_millis(5));
    assert_eq!(vision.encode(&image, "image/webp", None, &stop), Err(VisionError::Stopped(StopReason::Deadline)));
}
