//! What anybody may upload, read from anything: packages, and the types of a component. Refused or taken, within bounds, and never a panic.

#[path = "../../../../tests/fuzz/mutator.rs"]
mod mutator;

use std::collections::BTreeMap;

use dovetail_core::manifest::Grants;
use dovetail_runtime::{CompileLimits, Compiler, CompilerOptions, LoadError, MAX_ENTRIES, MAX_TEXT, Package, Parts, pack};
use mutator::{files, fuzz};

use crate::echo::echo_guest;
use crate::hostile_packages::zip_of;
use crate::support::{manifest, number_guest};

#[test]
fn packages() {
    let texts: BTreeMap<String, String> = BTreeMap::from([("world.wit".to_owned(), "package a:b;".to_owned())]);
    let parts = Parts { manifest: &manifest("probe", ""), component: b"\0asm", wit: &texts, readme: Some("# Probe"), examples: &BTreeMap::new() };
    let text = manifest("probe", "");
    let corpus = [pack(parts).unwrap(), zip_of(&[("plugin.toml", text.as_bytes()), ("component.wasm", b"x"), ("wit/a.wit", &[b'a'; 3000])])];
    fuzz("packages", env!("CARGO_TARGET_TMPDIR"), &corpus, 20_000, |input| match Package::read(input) {
        Ok(package) => {
            let names: Vec<_> = package.wit.keys().chain(package.examples.keys()).collect();
            assert!(names.len() < MAX_ENTRIES && names.iter().all(|name| !name.split('/').any(|part| matches!(part, "" | "." | ".."))), "{names:?}");
            assert!(package.wit.values().all(|text| text.len() as u64 <= MAX_TEXT));
        }
        Err(refusal) => assert!(!refusal.message.is_empty() && refusal.message.len() < 64 << 10, "{refusal:?}"),
    });
}

#[test]
fn types() {
    let folder = tempfile::tempdir().unwrap();
    let options = CompilerOptions { cache_dir: folder.path().join("code"), cache_bytes: 16 << 20, program: None, limits: CompileLimits::default() };
    let compiler = Compiler::new(options).unwrap();
    let nested = files("tests/hostile").into_iter().filter(|text| text.starts_with(b";; A task in a component in a component"));
    let corpus: Vec<_> = nested
        .map(|text| wat::parse_bytes(&text).unwrap().into_owned())
        .chain([
            number_guest("", "(call $ok (i32.const 1))"),
            echo_guest("enum colour { red, green }", "the-value: list<option<tuple<colour, string>>>"),
        ])
        .collect();
    assert_eq!(corpus.len(), 3);
    fuzz("types", env!("CARGO_TARGET_TMPDIR"), &corpus, 300, |input| match compiler.describe(input, &Grants::default()) {
        Ok(description) => assert!(description.signature.interface.contains('/'), "{description:?}"),
        Err(LoadError::Refused(refusal)) => assert!(!refusal.message.is_empty() && refusal.message.len() < 64 << 10, "{refusal:?}"),
        Err(LoadError::Host(error)) => panic!("the host's failure: {error:?}"),
    });
}
