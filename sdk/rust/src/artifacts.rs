//! Artifacts as `Read`, as `Write`, or as all their bytes at once. The host moves at most 1 MiB per call; this module
//! splits larger transfers.

use std::io;

use crate::{Artifact, Result, Writer, failed};

/// The most bytes that the host moves in one call.
const CHUNK: usize = 1 << 20;

/// Reads an artifact from its start.
#[derive(Debug)]
pub struct Reader<'a> {
    artifact: &'a Artifact,
    offset: u64,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let max = u32::try_from(into.len().min(CHUNK)).unwrap_or(CHUNK as u32);
        let bytes = self.artifact.read(self.offset, max).map_err(io::Error::other)?;
        into.get_mut(..bytes.len())
            .ok_or_else(|| io::Error::other("the host gave more than was asked for"))?
            .copy_from_slice(&bytes);
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }
}

impl Artifact {
    /// A [`std::io::Read`] of the artifact's bytes.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader { artifact: self, offset: 0 }
    }

    /// All bytes of the artifact, if there are at most `limit`. They count against the task's memory limit.
    ///
    /// # Errors
    /// `failed` with `artifact_too_large` if there are more, or with `artifact_too_short` if the artifact ends early;
    /// the host's error if reading fails.
    pub fn bytes(&self, limit: u64) -> Result<Vec<u8>> {
        let size = self.size();
        if size > limit {
            return Err(failed(
                "artifact_too_large",
                format!("the artifact has {size} bytes, at most {limit} are read"),
            ));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size)?);
        while (bytes.len() as u64) < size {
            let chunk = self.read(bytes.len() as u64, CHUNK as u32)?;
            if chunk.is_empty() {
                return Err(failed(
                    "artifact_too_short",
                    format!("the artifact ends after {} of {size} bytes", bytes.len()),
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Writes a new artifact with these bytes.
    ///
    /// # Errors
    /// The host's error if writing fails.
    pub fn new(media_type: &str, bytes: &[u8]) -> Result<Self> {
        let writer = Writer::new(media_type);
        for chunk in bytes.chunks(CHUNK) {
            writer.write(chunk)?;
        }
        Ok(Writer::finish(writer)?)
    }
}

/// Writes chunks of any size. Call [`Writer::finish`] at the end.
impl io::Write for &Writer {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let chunk = from.get(..CHUNK).unwrap_or(from);
        Writer::write(self, chunk).map_err(io::Error::other)?;
        Ok(chunk.len())
    }

    /// Does nothing, because this side has no buffer.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
