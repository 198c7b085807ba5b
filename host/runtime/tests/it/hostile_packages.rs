//! Packages made to harm their reader. The module `packages` tests the limits from both sides; this module tests
//! tricks.

use std::io::{Cursor, Write as _};

use dovetail_core::blobs::{BlobKind, Blobs as _};
use dovetail_core::executor::Executor as _;
use dovetail_core::limits::Limits;
use dovetail_core::stop::Stop;
use dovetail_runtime::{LoadError, Package, Refusal};
use serde_json::json;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::refusals::compiler;
use crate::support::{Bench, attempt, manifest, number_guest};

/// A zip that contains only these entries.
pub(crate) fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn with(manifest: &str, entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all: Vec<(&str, &[u8])> = vec![("plugin.toml", manifest.as_bytes()), ("component.wasm", b"x")];
    all.extend(entries);
    zip_of(&all)
}

/// Checks that the package is refused, also by a runtime that finds it in its store: nothing is compiled or written.
#[track_caller]
fn refused(package: &[u8], words: &str) -> Refusal {
    let refusal = Package::read(package).unwrap_err();
    assert!(refusal.message.contains(words), "`{words}` is not in {refusal:?}");
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::with(|options| options.cache_dir = folder.path().join("code"));
    let digest = bench.blobs.put(BlobKind::Package, package).unwrap();
    match bench.runtime.preload(&digest) {
        Err(LoadError::Refused(same)) => assert_eq!(same, refusal),
        other => panic!("{other:?}"),
    }
    bench.runtime.execute(&attempt(digest, json!({ "n": 1 }), Limits::DEFAULT), &Stop::never()).unwrap_err();
    let code = std::fs::read_dir(folder.path().join("code")).unwrap().map(|entry| entry.unwrap().path());
    let code: Vec<_> =
        code.filter(|path| path.extension().is_some_and(|ending| ending == "cwasm" || ending == "wasm")).collect();
    assert!(code.is_empty(), "{code:?}");
    assert_eq!(bench.blobs.0.lock().unwrap().len(), 1, "something was stored");
    refusal
}

/// The signatures of a local header and of a directory entry.
const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";

fn nth(bytes: &[u8], magic: &[u8], n: usize) -> usize {
    bytes.windows(4).enumerate().filter(|(_, window)| *window == magic).nth(n).map(|(at, _)| at).unwrap()
}

#[test]
fn names_that_differ_in_case_only() {
    for names in
        [["wit/a.wit", "wit/A.wit"], ["wit/dir/a.wit", "wit/DIR/b.wit"], ["examples/ä.json", "examples/Ä.json"]]
    {
        refused(&with(&manifest("probe", ""), &[(names[0], b"x"), (names[1], b"x")]), "only in case");
    }
    let both = with(&manifest("probe", ""), &[("wit/a/x.wit", b"x"), ("wit/a/y.wit", b"x"), ("wit/ab.wit", b"x")]);
    assert_eq!(Package::read(&both).unwrap().wit.len(), 3);
}

#[test]
fn four_gibibytes_of_zeroes() {
    // The declared size is not trusted: reading stops at the limit of the entry's size or ratio.
    let mut bomb = with(&manifest("probe", ""), &[("README.md", &vec![0; 32 << 20])]);
    refused(&bomb, "the entry `README.md` is larger than 1MiB");
    let (local, central) = (nth(&bomb, LOCAL, 2), nth(&bomb, CENTRAL, 2));
    bomb[local + 22..local + 26].copy_from_slice(&u32::MAX.to_le_bytes());
    bomb[central + 24..central + 28].copy_from_slice(&u32::MAX.to_le_bytes());
    let refusal = Package::read(&bomb).unwrap_err();
    assert_eq!(refusal.code, "bad_package", "{refusal:?}");
    // The same bomb as a component, which may be large.
    let text = manifest("probe", "");
    let zeroes = vec![0; 63 << 20];
    refused(&zip_of(&[("plugin.toml", text.as_bytes()), ("component.wasm", &zeroes)]), "packed more than 200 to 1");
}

#[test]
fn entries_that_share_their_bytes() {
    // The directory's third entry points at the data of the second entry.
    let mut bytes = with(&manifest("probe", ""), &[("wit/a.wit", b"first"), ("wit/b.wit", b"second")]);
    let second = u32::try_from(nth(&bytes, LOCAL, 2)).unwrap();
    let third = nth(&bytes, CENTRAL, 3);
    bytes[third + 42..third + 46].copy_from_slice(&second.to_le_bytes());
    refused(&bytes, "contradicts itself");
}

#[test]
fn a_directory_that_says_otherwise_than_the_entries() {
    // The local header of `wit/a.wit` has the name `wit/../..`.
    let mut bytes = with(&manifest("probe", ""), &[("wit/a.wit", b"first")]);
    let local = nth(&bytes, LOCAL, 2);
    bytes[local + 30..local + 39].copy_from_slice(b"wit/../..");
    refused(&bytes, "contradicts itself");
}

#[test]
fn bytes_that_are_not_those_of_their_checksum() {
    let mut bytes = with(&manifest("probe", ""), &[("README.md", b"what it says")]);
    let (local, central) = (nth(&bytes, LOCAL, 2), nth(&bytes, CENTRAL, 2));
    bytes[local + 14] ^= 1;
    bytes[central + 16] ^= 1;
    refused(&bytes, "cannot be unpacked");
}

#[test]
fn entries_that_are_no_files_by_their_mode() {
    let package = |mode: u32| {
        let mut bytes = with(&manifest("probe", ""), &[("README.md", b"what it says")]);
        let central = nth(&bytes, CENTRAL, 2);
        // The entry declares that it was made on Unix, with this mode.
        bytes[central + 5] = 3;
        bytes[central + 38..central + 42].copy_from_slice(&(mode << 16).to_le_bytes());
        bytes
    };
    // A FIFO, devices, a folder, a link, a socket, and a type that does not exist.
    for kind in [0o010_000, 0o020_000, 0o060_000, 0o040_000, 0o120_000, 0o140_000, 0o150_000] {
        refused(&package(kind | 0o644), "the entry `README.md` is not a regular file");
    }
    for mode in [0o100_644, 0o644, 0] {
        assert_eq!(Package::read(&package(mode)).unwrap().readme.as_deref(), Some("what it says"), "{mode:o}");
    }
}

#[test]
fn bytes_around_the_zip() {
    let whole = with(&manifest("probe", ""), &[]);
    assert!(Package::read(&whole).is_ok());
    let word = "belong to no entry";
    for more in [&b"x"[..], b"\0", &[0; 5000], b"PK\x05\x06"] {
        refused(&[&whole, more].concat(), word);
        refused(&[more, &whole].concat(), word);
    }
    // Two packages: the directory lacks the entries of the first one.
    refused(&[whole.as_slice(), &whole].concat(), "contradicts itself");
    // Bytes between the entries and their directory, whose offset is corrected.
    let (directory, end) = (nth(&whole, CENTRAL, 0), whole.len() - 22);
    let mut within = [&whole[..directory], &[0; 25], &whole[directory..]].concat();
    within[end + 25 + 16..end + 25 + 20].copy_from_slice(&u32::try_from(directory + 25).unwrap().to_le_bytes());
    refused(&within, word);
    // A comment hides bytes as well, also a comment that is longer than declared.
    let mut comment = [&whole[..], b"hidden"].concat();
    refused(&comment, word);
    comment[whole.len() - 2] = 6;
    refused(&comment, word);
    // A second end record within a comment: readers disagree on which one counts.
    let mut two = [&whole[..], &whole[whole.len() - 22..]].concat();
    two[whole.len() - 2] = 22;
    refused(&two, word);
}

#[test]
fn manifests_that_are_none() {
    refused(&zip_of(&[("component.wasm", b"x")]), "no `plugin.toml`");
    refused(&with(&manifest("probe", &"# and so on\n".repeat(100_000)), &[]), "larger than 1MiB");
    assert_eq!(refused(&with(&manifest("probe", "[limits]\nmemry = \"1MiB\""), &[]), "memry").code, "bad_manifest");
    assert_eq!(
        refused(&with(&manifest("probe", "[grants]\neverything = true"), &[]), "everything").code,
        "bad_manifest"
    );
    assert_eq!(refused(&with(&manifest("../probe", ""), &[]), "plugin.toml").code, "bad_manifest");
    assert_eq!(refused(&with("\0\0\0", &[]), "plugin.toml").code, "bad_manifest");
}

#[test]
fn native_code_instead_of_a_component() {
    let (compiler, folder) = compiler();
    let text = manifest("probe", "");
    let native =
        wasmtime::Engine::default().precompile_component(&number_guest("", "(call $ok (i32.const 1))")).unwrap();
    let package = Package::read(&zip_of(&[("plugin.toml", text.as_bytes()), ("component.wasm", &native)])).unwrap();
    match compiler.describe_package(&package) {
        Err(LoadError::Refused(refusal)) => assert_eq!(refusal.code, "native_code", "{refusal:?}"),
        other => panic!("{other:?}"),
    }
    let code = std::fs::read_dir(folder.path().join("code")).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(code.filter(|path| path.extension().is_some_and(|ending| ending == "cwasm")).count(), 0);
}
