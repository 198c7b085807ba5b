//! Decoded pictures by content digest, bounded in bytes, and what is remembered about each: the landmarks found in it.
//!
//! Two callers that ask for one picture at the same time decode it once: the first works, the others wait for it. A
//! picture that takes more than the whole bound is not kept. The least recently used ones make room.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crossbeam_channel::{Receiver, Sender};
use dovetail_core::id::Digest;
use dovetail_core::vision::{Image, Rect};

/// Points in f64, because crops are floored: a rounding to f32 in between could move one by a pixel.
pub(crate) type Points = Arc<Vec<(f64, f64)>>;

/// Faces whose landmarks are remembered for each picture; 68 points take 1.1 KB.
const MAX_REMEMBERED: usize = 256;

/// Landmarks by model and the box's bits. (Bits: a box that is not the same to the last one may have other landmarks.)
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

struct Kept {
    image: Image,
    remembered: Arc<Remembered>,
    /// The value of `DecodedPictures::clock` when it was last asked for.
    used: u64,
}

#[derive(Default)]
struct DecodedPictures {
    kept: HashMap<Digest, Kept>,
    /// Being decoded; the receiver closes when that ends, well or badly.
    flights: HashMap<Digest, Receiver<Infallible>>,
    bytes: u64,
    clock: u64,
    /// Not kept, or not any more, and still in somebody's hands.
    elsewhere: Vec<(Weak<()>, u64)>,
}

pub(crate) struct Pictures {
    shelf: Mutex<DecodedPictures>,
    max_bytes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics with the lock held but for want of memory.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to do about a picture.
pub(crate) enum Found {
    Here(Image),
    /// Somebody decodes it: wait for this to close, then look again.
    Wait(Receiver<Infallible>),
    /// Nobody does: decode it and say so with [`DecodeTicket::land`]. Dropping it lets the next one try.
    Decode(DecodeTicket),
}

/// The right to decode one picture.
pub(crate) struct DecodeTicket {
    pictures: Arc<Pictures>,
    digest: Digest,
    /// Closed on drop: whoever waits looks again.
    _closes: Sender<Infallible>,
}

impl DecodeTicket {
    /// Keeps the picture for the next one that asks.
    pub(crate) fn land(self, image: &Image) {
        self.pictures.keep(self.digest, image);
    }
}

impl Drop for DecodeTicket {
    fn drop(&mut self) {
        lock(&self.pictures.shelf).flights.remove(&self.digest);
    }
}

impl Pictures {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { shelf: Mutex::default(), max_bytes }
    }

    pub(crate) fn find(self: &Arc<Self>, digest: &Digest) -> Found {
        let mut shelf = lock(&self.shelf);
        shelf.clock += 1;
        let now = shelf.clock;
        if let Some(kept) = shelf.kept.get_mut(digest) {
            kept.used = now;
            return Found::Here(kept.image.clone());
        }
        if let Some(flight) = shelf.flights.get(digest) {
            return Found::Wait(flight.clone());
        }
        let (closes, closed) = crossbeam_channel::bounded(0);
        shelf.flights.insert(*digest, closed);
        Found::Decode(DecodeTicket { pictures: Arc::clone(self), digest: *digest, _closes: closes })
    }

    fn keep(&self, digest: Digest, image: &Image) {
        let size = image.pixels().len() as u64;
        let mut shelf = lock(&self.shelf);
        if size > self.max_bytes {
            shelf.elsewhere.push((image.watch(), size));
            return;
        }
        while shelf.bytes + size > self.max_bytes {
            let Some(oldest) = shelf.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(digest, _)| *digest) else {
                break;
            };
            if let Some(gone) = shelf.kept.remove(&oldest) {
                let size = gone.image.pixels().len() as u64;
                shelf.bytes -= size;
                shelf.elsewhere.push((gone.image.watch(), size));
            }
        }
        shelf.clock += 1;
        let kept = Kept { image: image.clone(), remembered: Arc::default(), used: shelf.clock };
        shelf.bytes += size;
        if let Some(old) = shelf.kept.insert(digest, kept) {
            shelf.bytes -= old.image.pixels().len() as u64;
        }
    }

    /// Where results about this picture are remembered, as long as it is kept here. One that is not (a crop, or one
    /// that had to make room) has no such place; then things are computed again.
    pub(crate) fn remembered(&self, image: &Image) -> Option<Arc<Remembered>> {
        lock(&self.shelf).kept.values().find(|kept| kept.image.same(image)).map(|kept| Arc::clone(&kept.remembered))
    }

    /// Decoded pictures that somebody works on, and their bytes: those apart that are only kept for the next one who
    /// asks.
    pub(crate) fn in_use(&self) -> (usize, u64) {
        let mut shelf = lock(&self.shelf);
        shelf.elsewhere.retain(|(picture, _)| picture.strong_count() > 0);
        let kept =
            shelf.kept.values().filter(|kept| kept.image.holders() > 1).map(|kept| kept.image.pixels().len() as u64);
        let each = shelf.elsewhere.iter().map(|(_, size)| *size).chain(kept);
        each.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }

    /// Bytes of pixels kept.
    #[cfg(test)]
    fn bytes(&self) -> u64 {
        lock(&self.shelf).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_core::vision::Size;

    fn picture(side: u32) -> Image {
        Image::new(vec![0; (side * side * 3) as usize].into(), Size { width: side, height: side }).unwrap()
    }

    fn fly(pictures: &Arc<Pictures>, name: &str, side: u32) {
        match pictures.find(&Digest::of(name.as_bytes())) {
            Found::Decode(flight) => flight.land(&picture(side)),
            _ => panic!("{name} is there already"),
        }
    }

    fn has(pictures: &Arc<Pictures>, name: &str) -> bool {
        matches!(pictures.find(&Digest::of(name.as_bytes())), Found::Here(_))
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
                Found::Decode(flight) => flight.land(image),
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
        let Found::Decode(flight) = pictures.find(&digest) else { panic!("nobody decodes it") };
        let Found::Wait(closed) = pictures.find(&digest) else { panic!("somebody decodes it") };
        drop(flight);
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
