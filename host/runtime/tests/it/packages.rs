//! Packages: the same bytes everywhere, read within limits.

use std::collections::BTreeMap;
use std::io::Cursor;

use dovetail_runtime::{LoadError, MAX_ENTRIES, MAX_RATIO, MAX_TEXT, Package, PackageContent, pack};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::hostile_packages::zip_of;
use crate::support::{manifest, number_guest};

fn texts(names: &[&str]) -> BTreeMap<String, String> {
    names.iter().map(|name| ((*name).to_owned(), format!("text of {name}"))).collect()
}

fn sample() -> Vec<u8> {
    let (wit, examples) = (texts(&["world.wit", "deps/other/other.wit"]), texts(&["one.json"]));
    pack(PackageContent {
        manifest: &manifest("probe", ""),
        component: b"\0asm component",
        wit: &wit,
        readme: Some("# Probe"),
        examples: &examples,
    })
    .unwrap()
}

/// A package with a manifest, a component and these entries.
fn with(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let manifest = manifest("probe", "");
    let mut all: Vec<(&str, &[u8])> = vec![("plugin.toml", manifest.as_bytes()), ("component.wasm", b"x")];
    all.extend(entries);
    zip_of(&all)
}

#[track_caller]
fn refuses(package: &[u8], words: &str) {
    let refusal = Package::read(package).unwrap_err();
    assert!(refusal.message.contains(words), "`{words}` is not in {refusal:?}");
}

#[test]
fn what_was_packed_is_read() {
    let package = Package::read(&sample()).unwrap();
    assert_eq!((package.manifest.name.as_str(), package.component.as_slice()), ("probe", &b"\0asm component"[..]));
    assert_eq!(package.wit.keys().collect::<Vec<_>>(), ["deps/other/other.wit", "world.wit"]);
    assert_eq!(
        (package.readme.as_deref(), package.examples["one.json"].as_str()),
        (Some("# Probe"), "text of one.json")
    );
}

#[test]
fn the_same_parts_give_the_same_bytes() {
    assert_eq!(sample(), sample());
    // Pinned: with another digest, every package would change its identity.
    let digest = dovetail_core::Digest::of(&sample()).hex();
    assert_eq!(digest, PINNED, "a new version of the packer");
}

const PINNED: &str = "7c9a0de47fb7b8e25b08a0c8f3058b167b877fc8169c00c50bc18260b6c07e3a";

#[test]
fn what_is_no_package() {
    refuses(b"", "is not a zip file");
    refuses(b"PK\x03\x04 and then nothing", "is not a zip file");
    refuses(&zip_of(&[("component.wasm", b"x")]), "no `plugin.toml`");
    refuses(&zip_of(&[("plugin.toml", manifest("probe", "").as_bytes())]), "no `component.wasm`");
    let refusal = Package::read(&zip_of(&[("plugin.toml", b"name = 5"), ("component.wasm", b"x")])).unwrap_err();
    assert_eq!(refusal.code, "bad_manifest");
}

#[test]
fn entries_that_lead_elsewhere() {
    for name in ["../x", "wit/../../x.wit", "/etc/passwd", "wit//x.wit", "wit/./x.wit", "wit\\x.wit", "C:x"] {
        let refusal = Package::read(&with(&[(name, b"x")])).unwrap_err();
        assert_eq!(refusal.code, "bad_package", "{name}: {refusal:?}");
    }
    refuses(&with(&[("../x", b"x")]), "leads out of the package");
    refuses(&with(&[("wit/../../", b"")]), "leads out of the package");
    refuses(&with(&[("wit/", b"")]), "`wit/` is a folder");
    refuses(&with(&[("/x", b"x")]), "not a plain relative path");
    // An error quotes only the beginning of a long name, whatever the fault is.
    for name in
        ["x".repeat(60_000), format!("../{}", "ä".repeat(120)), format!("{}/", "x".repeat(200)), "x".repeat(250)]
    {
        let refusal = Package::read(&with(&[(&name, b"x")])).unwrap_err();
        assert!(
            refusal.message.len() < 300 && refusal.message.contains("x…`") | refusal.message.contains("ä…`"),
            "{}",
            refusal.message
        );
    }
}

#[test]
fn entries_that_nobody_knows() {
    for name in [
        "other.txt",
        "component.cwasm",
        "nested.zip",
        "wit/x.zip",
        "examples/x.zip",
        "examples/deep/x.json",
        "src/lib.rs",
    ] {
        refuses(&with(&[(name, b"x")]), "is none of plugin.toml");
    }
}

#[test]
fn links_and_folders() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink("wit/x.wit", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    refuses(&zip.finish().unwrap().into_inner(), "not a regular file");
}

#[test]
fn duplicate_entries() {
    let mut twice = with(&[("wit/a.wit", b"first"), ("wit/b.wit", b"second")]);
    // The writer refuses duplicates, so the second entry is renamed in place, in both of its headers.
    for at in 0..twice.len() - 9 {
        if &twice[at..at + 9] == b"wit/b.wit" {
            twice[at + 4] = b'a';
        }
    }
    assert_eq!(Package::read(&twice).unwrap_err().code, "bad_package");
}

#[test]
fn encrypted_entries() {
    let mut bytes = sample();
    // The flag in the central directory and in the local headers.
    for at in 0..bytes.len() - 10 {
        match &bytes[at..at + 4] {
            b"PK\x03\x04" => bytes[at + 6] |= 1,
            b"PK\x01\x02" => bytes[at + 8] |= 1,
            _ => {}
        }
    }
    refuses(&bytes, "encrypted");
}

#[test]
fn entries_within_their_number_and_over_it() {
    let names: Vec<String> = (0..MAX_ENTRIES - 2).map(|n| format!("wit/f{n}.wit")).collect();
    let mut entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    assert_eq!(Package::read(&with(&entries)).unwrap().wit.len(), MAX_ENTRIES - 2);
    entries.push(("README.md", b"x"));
    refuses(&with(&entries), "257 entries");
}

#[test]
fn an_entry_within_its_size_and_over_it() {
    // The text is hard to compress, so the limit of the ratio does not apply.
    let mut state = 1_u32;
    let mut text: String = (0..MAX_TEXT)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b' ' + (state >> 26) as u8)
        })
        .collect();
    assert!(Package::read(&with(&[("README.md", text.as_bytes())])).is_ok());
    text.push('x');
    refuses(&with(&[("README.md", text.as_bytes())]), "larger than 1MiB");
}

#[test]
fn a_package_over_its_size() {
    refuses(&vec![0; usize::try_from(dovetail_runtime::MAX_PACKAGE).unwrap() + 1], "at most 64MiB");
}

#[test]
fn a_ratio_within_its_bound_and_over_it() {
    let small = vec![b' '; 64 << 10];
    assert!(
        Package::read(&with(&[("README.md", &small)])).is_ok(),
        "small entries may be packed as tightly as they like"
    );
    let bomb = vec![b' '; 900 << 10];
    refuses(&with(&[("README.md", &bomb)]), &format!("{MAX_RATIO} to 1"));
}

#[test]
fn bytes_within_their_sum_and_over_it() {
    // Each part repeats 100-fold, which is below the limit of the ratio.
    let mut noise = Vec::new();
    let mut state = 1_u32;
    while noise.len() < 1 << 20 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.extend(std::iter::repeat_n(b' ' + (state >> 26) as u8, 50));
    }
    noise.truncate(1 << 20);
    let names: Vec<String> = (0..129).map(|n| format!("wit/f{n}.wit")).collect();
    let entries = |n: usize| names[..n].iter().map(|name| (name.as_str(), noise.as_slice())).collect::<Vec<_>>();
    assert!(Package::read(&with(&entries(127))).is_ok());
    refuses(&with(&entries(129)), "larger than 128MiB unpacked");
}

#[test]
fn a_component_of_another_name() {
    let (compiler, _folder) = crate::refusals::compiler();
    let (none, component) = (BTreeMap::new(), number_guest("", "(call $ok (i32.const 1))"));
    let package = |name: &str| {
        let bytes = pack(PackageContent {
            manifest: &manifest(name, ""),
            component: &component,
            wit: &none,
            readme: None,
            examples: &none,
        })
        .unwrap();
        Package::read(&bytes).unwrap()
    };
    assert!(compiler.describe_package(&package("probe")).is_ok());
    match compiler.describe_package(&package("other")) {
        Err(LoadError::Refused(refusal)) => {
            assert!(
                refusal.message.contains("`other`") && refusal.message.contains("acme:probe/task@1.0.0"),
                "{refusal:?}"
            );
        }
        other => panic!("{other:?}"),
    }
}
