//! Decoded pictures by content digest, bounded in bytes, and the landmarks found in each picture.
//!
//! If two callers ask for the same picture at the same time, the first caller decodes it and the second waits. A
//! picture that is larger than the whole bound is not kept. The least recently used pictures are evicted first.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, Weak};

use crossbeam_channel::{Receiver, Sender};
use dovetail_core::id::Digest;
use dovetail_core::sync::lock;
use dovetail_core::vision::{Image, Rect};

/// Points in f64: crops are floored, so a rounding to f32 in between could move a crop by a pixel.
pub(crate) type Points = Arc<Vec<(f64, f64)>>;

/// The most faces whose landmarks are remembered for each picture; 68 points take 1.1 KB.
const MAX_REMEMBERED: usize = 256;

/// Landmarks by model and by the bits of the face's box. The key has the bits because a box that differs in its last
/// bit may have other landmarks.
#[derive(Default)]
pub(crate) struct Remembered(Mutex<HashMap<(Digest, [u32; 4]), Points>>);

fn key(model: &Digest, b: Rect) -> (Digest, [u32; 4]) {
    (*model, [b.x, b.y, b.width, b.height].map(f32::to_bits))
}

impl Remembered {
    pub(crate) fn get(&self, model: &Digest, face: Rect) -> Option<Points> {
        lock(&self.0).get(&key(model, face)).cloned()
    }

    pub(crate) fn put(&self, model: &Digest, face: Rect, points: &Points) {
        let mut all = lock(&self.0);
        if all.len() < MAX_REMEMBERED {
            all.insert(key(model, face), Arc::clone(points));
        }
    }
}

struct CachedPicture {
    image: Image,
    remembered: Arc<Remembered>,
    /// The value of `DecodedPictures::clock` at the last request for the picture.
    used: u64,
}

#[derive(Default)]
struct DecodedPictures {
    kept: HashMap<Digest, CachedPicture>,
    /// Pictures that are being decoded. The receiver closes when the decoding ends, also if it fails.
    decoding: HashMap<Digest, Receiver<Infallible>>,
    /// Bytes of pixels in `kept`.
    bytes: u64,
    clock: u64,
    /// Pictures that are not in `kept`, or no longer, but that callers may still hold; with their bytes.
    evicted: Vec<(Weak<()>, u64)>,
}

/// The cache of decoded pictures.
pub(crate) struct Pictures {
    /// While this lock is held, only a failed allocation can panic, so the cache is usable after a panic.
    decoded: Mutex<DecodedPictures>,
    max_bytes: u64,
}

/// The answer to a request for a picture.
pub(crate) enum PictureLookup {
    Here(Image),
    /// Another caller decodes the picture. Wait until the receiver closes, then ask again.
    Wait(Receiver<Infallible>),
    /// No caller decodes the picture. Decode it and call [`DecodeTicket::complete`]. Dropping the ticket lets the next
    /// caller try.
    Decode(DecodeTicket),
}

/// The right to decode one picture.
pub(crate) struct DecodeTicket {
    pictures: Arc<Pictures>,
    digest: Digest,
    /// Closed on drop, which wakes the callers that wait for this decode.
    _closes: Sender<Infallible>,
}

impl DecodeTicket {
    /// Keeps the picture for later requests.
    pub(crate) fn complete(self, image: &Image) {
        self.pictures.keep(self.digest, image);
    }
}

impl Drop for DecodeTicket {
    fn drop(&mut self) {
        lock(&self.pictures.decoded).decoding.remove(&self.digest);
    }
}

impl Pictures {
    /// An empty cache that keeps at most `max_bytes` bytes of pixels.
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { decoded: Mutex::default(), max_bytes }
    }

    /// Looks up the picture with this content digest.
    pub(crate) fn find(self: &Arc<Self>, digest: &Digest) -> PictureLookup {
        let mut decoded = lock(&self.decoded);
        decoded.clock += 1;
        let now = decoded.clock;
        if let Some(kept) = decoded.kept.get_mut(digest) {
            kept.used = now;
            return PictureLookup::Here(kept.image.clone());
        }
        if let Some(closed) = decoded.decoding.get(digest) {
            return PictureLookup::Wait(closed.clone());
        }
        let (closes, closed) = crossbeam_channel::bounded(0);
        decoded.decoding.insert(*digest, closed);
        PictureLookup::Decode(DecodeTicket { pictures: Arc::clone(self), digest: *digest, _closes: closes })
    }

    fn keep(&self, digest: Digest, image: &Image) {
        let size = image.pixels().len() as u64;
        let mut decoded = lock(&self.decoded);
        if size > self.max_bytes {
            decoded.evicted.push((image.watch(), size));
            return;
        }
        while decoded.bytes + size > self.max_bytes {
            let Some(oldest) = decoded.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(digest, _)| *digest) else {
                break;
            };
            if let Some(gone) = decoded.kept.remove(&oldest) {
                let size = gone.image.pixels().len() as u64;
                decoded.bytes -= size;
                decoded.evicted.push((gone.image.watch(), size));
            }
        }
        decoded.clock += 1;
        let kept = CachedPicture { image: image.clone(), remembered: Arc::default(), used: decoded.clock };
        decoded.bytes += size;
        if let Some(old) = decoded.kept.insert(digest, kept) {
            decoded.bytes -= old.image.pixels().len() as u64;
        }
    }

    /// The landmarks that are remembered for this picture. `None` if the cache does not keep the picture (a crop, or an
    /// evicted picture); the caller then computes the landmarks again.
    pub(crate) fn remembered(&self, image: &Image) -> Option<Arc<Remembered>> {
        lock(&self.decoded).kept.values().find(|kept| kept.image.same(image)).map(|kept| Arc::clone(&kept.remembered))
    }

    /// The number of decoded pictures that callers hold, and their bytes. Pictures that only the cache holds do not
    /// count.
    pub(crate) fn in_use(&self) -> (usize, u64) {
        let mut decoded = lock(&self.decoded);
        decoded.evicted.retain(|(picture, _)| picture.strong_count() > 0);
        let kept =
            decoded.kept.values().filter(|kept| kept.image.holders() > 1).map(|kept| kept.image.pixels().len() as u64);
        let each = decoded.evicted.iter().map(|(_, size)| *size).chain(kept);
        each.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }

    /// Bytes of pixels in the cache.
    #[cfg(test)]
    fn bytes(&self) -> u64 {
        lock(&self.decoded).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_core::vision::Size;

    fn picture(side: u32) -> Image {
        Image::new(vec![0; (side * side * 3) as usize], Size { width: side, height: side }).unwrap()
    }

    fn fly(pictures: &Arc<Pictures>, name: &str, side: u32) {
        match pictures.find(&Digest::of(name.as_bytes())) {
            PictureLookup::Decode(ticket) => ticket.complete(&picture(side)),
            _ => panic!("{name} is there already"),
        }
    }

    fn has(pictures: &Arc<Pictures>, name: &str) -> bool {
        matches!(pictures.find(&Digest::of(name.as_bytes())), PictureLookup::Here(_))
    }

    #[test]
    fn the_bound_holds_and_the_least_recently_used_goes() {
        let pictures = Arc::new(Pictures::new(3 * 300));
        for name in ["a", "b", "c"] {
            fly(&pictures, name, 10);
        }
        assert_eq!(pictures.bytes(), 900);
        assert!(has(&pictures, "a"));
        fly(&pictures, "d", 10);
        assert_eq!(pictures.bytes(), 900);
        assert!(has(&pictures, "a") && !has(&pictures, "b") && has(&pictures, "d"));
    }

    #[test]
    fn pictures_in_use_are_those_that_somebody_else_holds() {
        let pictures = Arc::new(Pictures::new(600));
        let held = [picture(10), picture(10), picture(20)];
        for (name, image) in ["a", "b", "too-large-to-be-kept"].into_iter().zip(&held) {
            match pictures.find(&Digest::of(name.as_bytes())) {
                PictureLookup::Decode(ticket) => ticket.complete(image),
                _ => panic!("{name} is there already"),
            }
        }
        assert_eq!(pictures.in_use(), (3, 1800));
        let [a, b, large] = held;
        drop(b);
        drop(large);
        assert_eq!(pictures.in_use(), (1, 300), "the second one was dropped, too, and only kept");
        drop(a);
        assert_eq!((pictures.in_use(), pictures.bytes()), ((0, 0), 600));
    }

    #[test]
    fn a_picture_larger_than_the_bound_is_not_kept() {
        let pictures = Arc::new(Pictures::new(299));
        fly(&pictures, "a", 10);
        assert_eq!(pictures.bytes(), 0);
        assert!(!has(&pictures, "a"));
    }

    #[test]
    fn a_second_caller_waits_and_a_failed_flight_lets_the_next_one_try() {
        let pictures = Arc::new(Pictures::new(1 << 20));
        let digest = Digest::of(b"a");
        let PictureLookup::Decode(ticket) = pictures.find(&digest) else { panic!("no thread decodes the picture yet") };
        let PictureLookup::Wait(closed) = pictures.find(&digest) else { panic!("a thread decodes the picture") };
        drop(ticket);
        assert!(closed.recv().is_err());
        fly(&pictures, "a", 10);
        assert!(has(&pictures, "a"));
    }

    #[test]
    fn landmarks_are_bounded_and_tell_boxes_and_models_apart() {
        let remembered = Remembered::default();
        let (model, other) = (Digest::of(b"m"), Digest::of(b"n"));
        let face = |x| Rect { x, y: 0.0, width: 1.0, height: 1.0 };
        for i in 0..MAX_REMEMBERED + 10 {
            remembered.put(&model, face(i as f32), &Arc::new(vec![(i as f64, 0.0)]));
        }
        assert_eq!(lock(&remembered.0).len(), MAX_REMEMBERED);
        assert_eq!(remembered.get(&model, face(3.0)).unwrap()[0].0, 3.0);
        assert!(remembered.get(&other, face(3.0)).is_none());
        assert!(remembered.get(&model, face(3.5)).is_none());
    }
}
