//! Runs whose values are files: artifacts that one step writes and the next step reads, maybe on another machine, and
//! pictures that are decoded and cropped. The files of each run are new, so that no cache has them.

use std::sync::atomic::{AtomicU64, Ordering};

use dovetail_core::Digest;
use dovetail_core::blobs::{ArtifactRef, BlobKind, Blobs, StoreError};
use serde_json::{Value, json};

/// The size of an artifact in bytes: several messages on the network, and quick to make.
const SIZE: usize = 150_000;
const WIDTH: u32 = 160;
const HEIGHT: u32 = 120;

/// Two copies, of which the second copies the first one's output, and two crops, of which the second crops the first
/// one's picture.
pub(crate) fn pipeline() -> Value {
    let areas = json!([{ "bbox": { "x": 8, "y": 8, "width": 64, "height": 48 } }]);
    let copy = |number: u32, from: &str| {
        json!({ "number": number, "task": "copy-artifact@^1",
        "inputs": { "artifact": from } })
    };
    let cut = |number: u32, from: &str| {
        let inputs = json!({ "image": from, "areas": {"value": areas} });
        json!({ "number": number, "task": "crop-faces@^1", "inputs": inputs })
    };
    json!({ "name": "files", "version": "1.0.0", "inputs": { "file": {}, "picture": {} },
        "steps": { "copy": copy(1, "input.file"), "again": copy(2, "copy.upper"),
            "cut": cut(3, "input.picture"), "anew": cut(4, "cut.image") },
        "output": { "upper": "again.upper", "size": "again.size", "sizes": "anew.sizes" } })
}

/// Pseudorandom bytes that no other call returns.
fn noise(bytes: usize) -> Vec<u8> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let mut state = (u64::try_from(time).unwrap() ^ COUNT.fetch_add(1, Ordering::SeqCst) << 48)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// A BMP file with three bytes a pixel, whose rows need no padding.
fn picture() -> Vec<u8> {
    let pixels = noise((WIDTH * HEIGHT * 3) as usize);
    let length = u32::try_from(pixels.len()).unwrap();
    let mut file = b"BM".to_vec();
    for number in [54 + length, 0, 54, 40, WIDTH, HEIGHT, 1 | 24 << 16, 0, length, 2835, 2835, 0, 0] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(&pixels);
    file
}

/// Stores new files, and returns the inputs of a run over them.
pub(crate) fn inputs(blobs: &dyn Blobs) -> Result<Value, StoreError> {
    let store = |bytes: &[u8], media_type: &str| -> Result<Value, StoreError> {
        let digest = blobs.put(BlobKind::Artifact, bytes)?;
        Ok(ArtifactRef { digest, media_type: media_type.to_owned(), name: None }.to_json())
    };
    Ok(json!({ "file": store(&noise(SIZE), "application/octet-stream")?, "picture": store(&picture(), "image/bmp")? }))
}

/// The expected output of a run with these inputs.
pub(crate) fn expected(blobs: &dyn Blobs, inputs: &Value) -> Value {
    let file = ArtifactRef::from_json(&inputs["file"]).unwrap();
    let bytes = blobs.get(BlobKind::Artifact, &file.digest, SIZE as u64).unwrap();
    json!({ "upper": Digest::of(&bytes.to_ascii_uppercase()) })
}
