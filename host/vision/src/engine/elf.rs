//! A look at a shared library before it is opened. The dynamic linker maps a file as its headers say: a file that was
//! cut off kills the process with SIGBUS at the first page that is not there.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::library::open_regular;
use super::onnxruntime::OpenError;

/// The code of this machine's architecture in an ELF header (`e_machine`).
const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else {
    0
};

/// The most program headers that are read; real libraries have about ten.
const MAX_HEADERS: usize = 256;

/// Checks that the file is a whole shared library of 64 bits for this machine.
///
/// # Errors
/// `Unusable` with a sentence that says what is wrong; `Scarce`.
pub(super) fn check(path: &Path) -> Result<(), OpenError> {
    let mut file = open_regular(path)?;
    let length = file.metadata()?.len();
    check_headers(&mut file, length).map_err(OpenError::Unusable)
}

fn check_headers(file: &mut File, length: u64) -> Result<(), String> {
    let mut header = [0; 64];
    if file.read_exact(&mut header).is_err() || !header.starts_with(b"\x7fELF") {
        return Err("it is not a shared library (ELF)".to_owned());
    }
    let two = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let eight = |bytes: &[u8], at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(number)
    };
    // Class 2: 64 bits. Data 1: little-endian. Type 3: a shared object.
    let (class, order, kind, machine) = (header[4], header[5], two(&header, 16), two(&header, 18));
    if class != 2 || order != 1 || machine != MACHINE {
        return Err(format!("it is for another architecture than this {}", std::env::consts::ARCH));
    }
    if kind != 3 {
        return Err("it is a program or an object file, not a shared library".to_owned());
    }
    let (start, size, count) = (eight(&header, 32), two(&header, 54) as usize, two(&header, 56) as usize);
    if size < 56 || count == 0 || count > MAX_HEADERS {
        return Err("its headers are damaged".to_owned());
    }
    let cut = || format!("it is cut off: {length} bytes are there, and its headers ask for more");
    let mut headers = vec![0; size * count];
    file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut headers)).map_err(|_| cut())?;
    let ends_inside = |header: &[u8]| {
        // Type 1: a part that is mapped.
        let mapped = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) == 1;
        let end = eight(header, 8).checked_add(eight(header, 32));
        !mapped || end.is_some_and(|end| end <= length)
    };
    if headers.chunks_exact(size).all(ends_inside) { Ok(()) } else { Err(cut()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(bytes: &[u8]) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        of_path(file.path())
    }

    fn of_path(path: &Path) -> Result<(), String> {
        check(path).map_err(|error| match error {
            OpenError::Unusable(why) => why,
            OpenError::Scarce(_, why) => panic!("the system refused a resource: {why}"),
        })
    }

    /// A real shared library: the C library of this process.
    fn real() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc.so"));
        std::fs::read(path.expect("a test program is linked with the C library")).unwrap()
    }

    #[test]
    fn a_whole_library_of_this_machine_is_good_and_every_damaged_one_is_told() {
        let whole = real();
        assert_eq!(checked(&whole), Ok(()));
        let changed = |at: usize, to: u8| {
            let mut bytes = whole.clone();
            bytes[at] = to;
            bytes
        };
        for (bytes, says) in [
            (Vec::new(), "not a shared library"),
            (b"#!/bin/sh\n".repeat(20), "not a shared library"),
            (whole[..63].to_vec(), "not a shared library"),
            (whole[..80].to_vec(), "cut off"),
            (whole[..whole.len() / 2].to_vec(), "cut off"),
            (changed(18, 40), "another architecture"),
            (changed(4, 1), "another architecture"),
            (changed(16, 2), "not a shared library"),
            (changed(56, 0), "damaged"),
            (changed(39, 0x7f), "cut off"),
        ] {
            let error = checked(&bytes).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
        assert!(of_path(Path::new("/dev/null")).unwrap_err().contains("regular file"));
        assert!(of_path(Path::new("/no/such/file")).is_err());
    }
}
