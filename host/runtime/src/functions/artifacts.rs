//! `dovetail:task/artifacts`: bytes that outlive the attempt.

use std::sync::Arc;

use dovetail_core::blobs::{BlobKind, StoreError, StoreErrorKind};
use wasmtime::component::Resource;

use crate::bindings::dovetail::task::artifacts;
use crate::bindings::dovetail::task::types::TaskError;
use crate::handles::{Artifact, Fault, Writer};
use crate::state::{HostResult, State, end, show, store_fault, wit_failure};

/// The most bytes that one call reads or writes.
const MAX_CHUNK: usize = 1 << 20;

fn failed(code: &str, message: String) -> Fault {
    Fault::Task(TaskError::Failed(wit_failure(code, message, false)))
}

/// Whether the text is a media type: `type/subtype`, optionally with parameters, printable ASCII, at most 255 bytes.
fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or(text).trim();
    let token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    text.len() <= 255
        && text.bytes().all(|b| (b' '..=b'~').contains(&b))
        && essence.split_once('/').is_some_and(|(a, b)| token(a) && token(b))
}

impl State {
    fn artifact_size(&mut self, this: &Resource<Artifact>) -> HostResult<u64> {
        let artifact = self.table.get(this)?;
        if let Some(size) = artifact.size {
            return Ok(size);
        }
        let digest = artifact.reference.digest;
        let size = self.blobs.size(BlobKind::Artifact, &digest).map_err(store_fault)?;
        let size = size.ok_or_else(|| {
            store_fault(StoreError::plain(StoreErrorKind::Missing, format!("find the artifact {digest}")))
        })?;
        self.table.get_mut(this)?.size = Some(size);
        Ok(size)
    }

    fn artifact_content(&mut self, this: &Resource<Artifact>) -> HostResult<Arc<Vec<u8>>> {
        let artifact = self.table.get(this)?;
        if let Some(bytes) = &artifact.bytes {
            return Ok(bytes.clone());
        }
        let digest = artifact.reference.digest;
        let size = self.artifact_size(this)?;
        if !self.hold_bytes(size)? {
            return Err(failed(
                "artifact_too_large",
                format!(
                    "the task may hold {} of artifacts at once; this one has {size} bytes",
                    show(self.budgets.artifacts)
                ),
            ));
        }
        let bytes = match self.blobs.get(BlobKind::Artifact, &digest, size) {
            Ok(bytes) => Arc::new(bytes),
            Err(error) => {
                self.release_bytes(size);
                return Err(store_fault(error));
            }
        };
        self.table.get_mut(this)?.bytes = Some(bytes.clone());
        Ok(bytes)
    }
}

impl artifacts::Host for State {}

impl artifacts::HostArtifact for State {
    fn digest(&mut self, this: Resource<Artifact>) -> wasmtime::Result<String> {
        self.host("dovetail:task/artifacts.artifact.digest", |state| {
            Ok(state.table.get(&this)?.reference.digest.to_string())
        })
    }

    fn media_type(&mut self, this: Resource<Artifact>) -> wasmtime::Result<String> {
        self.host("dovetail:task/artifacts.artifact.media-type", |state| {
            Ok(state.table.get(&this)?.reference.media_type.clone())
        })
    }

    fn size(&mut self, this: Resource<Artifact>) -> wasmtime::Result<u64> {
        self.host("dovetail:task/artifacts.artifact.size", |state| state.artifact_size(&this).map_err(end))
    }

    fn read(&mut self, this: Resource<Artifact>, offset: u64, max: u32) -> HostResult<Vec<u8>> {
        self.host("dovetail:task/artifacts.artifact.read", |state| {
            state.check_stop()?;
            let bytes = state.artifact_content(&this)?;
            let start = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
            let length = (max as usize).min(MAX_CHUNK).min(bytes.len() - start);
            Ok(bytes[start..start + length].to_vec())
        })
    }

    fn drop(&mut self, this: Resource<Artifact>) -> wasmtime::Result<()> {
        let artifact = self.table.delete(this)?;
        self.release_bytes(artifact.bytes.map_or(0, |bytes| bytes.len() as u64));
        Ok(())
    }
}

impl artifacts::HostWriter for State {
    fn new(&mut self, media_type: String) -> wasmtime::Result<Resource<Writer>> {
        self.host("dovetail:task/artifacts.writer", |state| {
            // `finish` refuses a media type that is too long, so only its beginning is kept.
            let media_type = media_type.chars().take(256).collect();
            Ok(state.table.push(Writer { media_type, bytes: Vec::new() })?)
        })
    }

    fn write(&mut self, this: Resource<Writer>, chunk: Vec<u8>) -> HostResult<()> {
        self.host("dovetail:task/artifacts.writer.write", |state| {
            state.check_stop()?;
            if chunk.len() > MAX_CHUNK {
                return Err(failed(
                    "chunk_too_large",
                    format!("one call writes at most 1 MiB; this chunk has {} bytes", chunk.len()),
                ));
            }
            state.table.get(&this)?;
            if !state.hold_bytes(chunk.len() as u64)? {
                return Err(failed(
                    "artifact_too_large",
                    format!("the task may hold {} of unfinished artifacts at once", show(state.budgets.artifacts)),
                ));
            }
            state.table.get_mut(&this)?.bytes.extend_from_slice(&chunk);
            Ok(())
        })
    }

    /// The guest passes the writer by value: it has no handle left, and `drop` is not called for the writer.
    fn finish(&mut self, this: Resource<Writer>) -> HostResult<Resource<Artifact>> {
        self.host("dovetail:task/artifacts.writer.finish", |state| {
            let Writer { media_type, bytes } = state.table.delete(this)?;
            state.release_bytes(bytes.len() as u64);
            state.check_stop()?;
            if !is_media_type(&media_type) {
                let shown: String = crate::text::clean(&media_type).chars().take(80).collect();
                return Err(failed(
                    "bad_media_type",
                    format!("`{shown}` is not a media type: expected `type/subtype`, as in `text/plain`"),
                ));
            }
            state.store_artifact(media_type, &bytes)
        })
    }

    fn drop(&mut self, this: Resource<Writer>) -> wasmtime::Result<()> {
        let writer = self.table.delete(this)?;
        self.release_bytes(writer.bytes.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::is_media_type;

    #[test]
    fn media_types() {
        for good in ["text/plain", "image/svg+xml", "application/vnd.x.y-z; charset=utf-8"] {
            assert!(is_media_type(good), "{good}");
        }
        for bad in ["", "text", "/", "text/", "a b/c", "text/pl\u{1b}ain", &format!("a/{}", "b".repeat(300))] {
            assert!(!is_media_type(bad), "{bad}");
        }
    }
}
