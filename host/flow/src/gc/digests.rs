//! A set of digests that may be larger than memory: a million runs name tens of millions of digests.
//!
//! External merge sort: digests are gathered in a bounded buffer, written to files in sorted runs, and merged into one
//! sorted file. A look-up reads one block of that file. A small set stays in memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use dovetail_core::Digest;
use dovetail_core::blobs::{StoreError, StoreErrorKind};

/// The digests that are held in memory before they are written to a file: 8 MiB.
const HELD: usize = 256 << 10;
/// The number of files of a set at which they are merged into one.
const FILES: usize = 32;
/// The digests of one block of the sorted file: 4 KiB. The first digest of each block is held in memory.
const BLOCK: usize = 128;
/// The size of a digest, in bytes.
const SIZE: usize = 32;

/// A set that is being gathered.
pub(super) struct Digests {
    scratch: PathBuf,
    held: Vec<Digest>,
    most: usize,
    files: Vec<File>,
}

impl Digests {
    /// An empty set. Its files are made in the folder `scratch`, or, if that folder cannot be written, in the folder
    /// for temporary files.
    pub(super) fn new(scratch: &Path) -> Self {
        Self { scratch: scratch.to_owned(), held: Vec::new(), most: HELD, files: Vec::new() }
    }

    pub(super) fn insert(&mut self, digest: Digest) -> Result<(), StoreError> {
        if self.held.len() == self.most {
            // Most digests occur in many records, so removing repetitions often makes enough room.
            self.held.sort_unstable();
            self.held.dedup();
            if self.held.len() > self.most / 2 {
                self.spill().map_err(|e| self.failed(e))?;
            }
        }
        self.held.push(digest);
        Ok(())
    }

    fn failed(&self, error: io::Error) -> StoreError {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
            _ => StoreErrorKind::Unavailable,
        };
        StoreError::new(kind, format!("write digests to a scratch file in {}", self.scratch.display()), error)
    }

    fn spill(&mut self) -> io::Result<()> {
        let mut file = BufWriter::new(self.new_file()?);
        for digest in self.held.drain(..) {
            file.write_all(digest.bytes())?;
        }
        self.files.push(finished(file)?);
        if self.files.len() == FILES {
            let merged = self.merge(|_| {})?;
            self.files.push(merged);
        }
        Ok(())
    }

    /// A file without a name, which ends with the process.
    fn new_file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.scratch).or_else(|_| tempfile::tempfile())
    }

    /// Merges all files into one, without repetitions. Calls `visit` with each digest, in order.
    fn merge(&mut self, mut visit: impl FnMut(&Digest)) -> io::Result<File> {
        let mut readers: Vec<BufReader<File>> =
            self.files.drain(..).map(|f| BufReader::with_capacity(64 << 10, f)).collect();
        let mut heads = BinaryHeap::new();
        for (at, reader) in readers.iter_mut().enumerate() {
            heads.extend(next(reader)?.map(|digest| Reverse((digest, at))));
        }
        let mut out = BufWriter::new(self.new_file()?);
        let mut last = None;
        while let Some(Reverse((digest, at))) = heads.pop() {
            if last != Some(digest) {
                out.write_all(digest.bytes())?;
                visit(&digest);
                last = Some(digest);
            }
            heads.extend(next(&mut readers[at])?.map(|digest| Reverse((digest, at))));
        }
        finished(out)
    }

    /// Sorts the set for look-ups.
    pub(super) fn sorted(mut self) -> Result<Sorted, StoreError> {
        self.held.sort_unstable();
        self.held.dedup();
        if self.files.is_empty() {
            return Ok(Sorted { held: self.held, file: None });
        }
        let sorted = (|| {
            self.spill()?;
            let (mut firsts, mut number) = (Vec::new(), 0_usize);
            let file = self.merge(|digest| {
                if number.is_multiple_of(BLOCK) {
                    firsts.push(*digest);
                }
                number += 1;
            })?;
            Ok(Sorted { held: firsts, file: Some(file) })
        })();
        sorted.map_err(|e| self.failed(e))
    }
}

fn finished(file: BufWriter<File>) -> io::Result<File> {
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

fn next(reader: &mut BufReader<File>) -> io::Result<Option<Digest>> {
    let mut bytes = [0; SIZE];
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(Digest::from_bytes(bytes))),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

/// A complete, sorted set.
pub(super) struct Sorted {
    /// Without a file: all digests, sorted. With a file: the first digest of each block.
    held: Vec<Digest>,
    file: Option<File>,
}

impl Sorted {
    pub(super) fn contains(&self, digest: &Digest) -> Result<bool, StoreError> {
        let place = self.held.binary_search(digest);
        let (Some(file), Err(after)) = (&self.file, place) else { return Ok(place.is_ok()) };
        let Some(block) = after.checked_sub(1) else { return Ok(false) };
        let mut bytes = [0; BLOCK * SIZE];
        let mut read = 0;
        while read < bytes.len() {
            match file.read_at(&mut bytes[read..], (block * BLOCK * SIZE + read) as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    return Err(StoreError::new(StoreErrorKind::Unavailable, "read digests from a scratch file", e));
                }
            }
        }
        let (found, _) = bytes[..read].as_chunks::<SIZE>();
        Ok(found.binary_search(digest.bytes()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u32) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    #[test]
    fn what_was_put_in_is_in_it_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for (number, most) in [(0, 8), (5, 8), (8, 8), (9, 8), (1000, 8), (20_000, 64), (300, 1000)] {
            let mut set = Digests { most, ..Digests::new(folder.path()) };
            for n in (0..number).chain(0..number / 2) {
                set.insert(digest(n)).unwrap();
                assert!(set.held.len() <= most && set.files.len() < FILES, "{number} {most}");
            }
            let sorted = set.sorted().unwrap();
            let announced = number + number / 2;
            assert_eq!(sorted.file.is_some(), announced as usize > most, "{number} {most}");
            for n in 0..number + 500 {
                assert_eq!(sorted.contains(&digest(n)).unwrap(), n < number, "{n} of {number}, {most} at once");
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the set's files have no names");
    }

    #[test]
    fn the_same_again_and_again_takes_no_room() {
        let mut set = Digests { most: 8, ..Digests::new(Path::new("/nowhere")) };
        for n in 0..1000 {
            set.insert(digest(n % 3)).unwrap();
        }
        assert!(set.files.is_empty());
        assert!(set.sorted().unwrap().contains(&digest(2)).unwrap());
    }

    #[test]
    fn where_nothing_can_be_written_the_temporary_folder_is_used() {
        let mut set = Digests { most: 8, ..Digests::new(Path::new("/nowhere")) };
        for n in 0..100 {
            set.insert(digest(n)).unwrap();
        }
        assert!(!set.files.is_empty());
        let sorted = set.sorted().unwrap();
        assert!(sorted.contains(&digest(99)).unwrap() && !sorted.contains(&digest(100)).unwrap());
    }
}
