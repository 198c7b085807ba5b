//! Measures whole photographs: detection, then attributes and features in sequence or in parallel, with 1 and 2 OpenCV
//! threads.
//!
//! `cargo run --release -p dovetail-vision --example measure -- MODELS PHOTO...`: MODELS is a folder of installed
//! models. For each photograph it prints the median and the minimum of 15 rounds in milliseconds; the variants
//! alternate. It also prints the peak memory after one warm-up round. Decoding is not measured.

use std::io::Write;
use std::time::Instant;

use dovetail_core::Digest;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{DetectOptions, Image, ModelKind, Rect, Vision, VisionError};
use dovetail_vision::{EngineOptions, Opencv, Options};

const ROUNDS: usize = 15;

fn attributes(vision: &Opencv, image: &Image, faces: &[Rect]) -> Result<(), VisionError> {
    let stop = Stop::never();
    vision.estimate(&vision.model(ModelKind::AgeGenderEstimator, None)?, image, faces, 2, &stop)?;
    vision.classify(&vision.model(ModelKind::EmotionClassifier, None)?, image, faces, &stop)?;
    Ok(())
}

fn features(vision: &Opencv, image: &Image, faces: &[Rect]) -> Result<(), VisionError> {
    let stop = Stop::never();
    vision.locate(&vision.model(ModelKind::Landmarker, None)?, image, faces, &stop)?;
    vision.embed(&vision.model(ModelKind::Embedder, None)?, image, faces, &stop)?;
    Ok(())
}

/// Milliseconds of the detection and of the remaining work. The caller passes a new file each time, so that the picture
/// is decoded again and no landmarks are remembered.
fn round(vision: &Opencv, file: &[u8], side_by_side: bool) -> Result<[f64; 2], VisionError> {
    let stop = Stop::never();
    let image = vision.open(&Digest::of(file), &mut || Ok(file.to_vec()), &stop)?;
    let began = Instant::now();
    let found = vision.detect(&vision.model(ModelKind::Detector, None)?, &image, DetectOptions::default(), &stop)?;
    let faces: Vec<Rect> = found.iter().map(|d| d.bbox).collect();
    let detected = began.elapsed();
    if side_by_side {
        std::thread::scope(|s| {
            let other = s.spawn(|| features(vision, &image, &faces));
            attributes(vision, &image, &faces)?;
            other.join().map_err(|_| VisionError::unavailable("crashed", "the other thread panicked"))?
        })?;
    } else {
        attributes(vision, &image, &faces)?;
        features(vision, &image, &faces)?;
    }
    Ok([detected.as_secs_f64() * 1e3, (began.elapsed() - detected).as_secs_f64() * 1e3])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let models = args.next().ok_or("usage: measure MODELS PHOTO...")?;
    let mut out = std::io::stdout();
    for path in args {
        let file = std::fs::read(&path)?;
        let variants = [(1, false), (1, true), (2, false), (2, true)];
        let mut times = vec![Vec::new(); variants.len()];
        let make = |threads| {
            let engine = EngineOptions::opencv(threads);
            Opencv::new(Options { engine, image_cache_bytes: 64 << 20, ..Options::new(&models) })
        };
        let vision = make(1)?;
        round(&vision, &file, true)?;
        let status = std::fs::read_to_string("/proc/self/status")?;
        writeln!(out, "{path}: {}", status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or("VmHWM: unknown"))?;
        for n in 0..ROUNDS {
            for ((threads, side_by_side), times) in variants.iter().zip(&mut times) {
                // The number of OpenCV threads is global to the process: making another `Opencv` sets it, and the warm
                // `vision` does the work.
                drop(make(*threads)?);
                // Extra bytes after the end make another file with the same picture.
                let mut copy = file.clone();
                copy.extend([0_u8, n as u8, *threads as u8, u8::from(*side_by_side)]);
                times.push(round(&vision, &copy, *side_by_side)?);
            }
        }
        for ((threads, side_by_side), times) in variants.iter().zip(times) {
            let median = |of: fn(&[f64; 2]) -> f64| {
                let mut all: Vec<f64> = times.iter().map(of).collect();
                all.sort_by(f64::total_cmp);
                (all[all.len() / 2], all[0])
            };
            let how = if *side_by_side { "side by side" } else { "in sequence " };
            let (detect, rest, all) = (median(|t| t[0]), median(|t| t[1]), median(|t| t[0] + t[1]));
            let ((d, d0), (r, r0), (a, a0)) = (detect, rest, all);
            writeln!(
                out,
                "  {threads} OpenCV threads, {how}: detection {d:5.0} ({d0:4.0})  attributes and features {r:5.0} \
                 ({r0:4.0})  all {a:5.0} ({a0:4.0}) ms"
            )?;
        }
    }
    Ok(())
}
