//! Untrusted uploads: packages, and the types of components. The reader accepts or refuses them within its limits, and
//! never panics.

#[path = "../../../../tests/fuzz/mutator.rs"]
mod mutator;

use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};
use std::path::Path;

use dovetail_core::manifest::Grants;
use dovetail_runtime::{
    CompileLimits, Compiler, CompilerOptions, LoadError, MAX_ENTRIES, MAX_TEXT, Package, PackageContent, pack,
};
use mutator::{files, fuzz};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::echo::echo_guest;
use crate::hostile_packages::zip_of;
use crate::support::{manifest, number_guest};

const PACKAGES: &str = "tests/fuzz/packages";
const TYPES: &str = "tests/fuzz/types";

#[test]
fn packages() {
    let texts: BTreeMap<String, String> = BTreeMap::from([("world.wit".to_owned(), "package a:b;".to_owned())]);
    let parts = PackageContent {
        manifest: &manifest("probe", ""),
        component: b"\0asm",
        wit: &texts,
        readme: Some("# Probe"),
        examples: &BTreeMap::new(),
    };
    let text = manifest("probe", "");
    let built = [
        pack(parts).unwrap(),
        zip_of(&[("plugin.toml", text.as_bytes()), ("component.wasm", b"x"), ("wit/a.wit", &[b'a'; 3000])]),
    ];
    let corpus: Vec<_> = built.into_iter().chain(files(PACKAGES)).collect();
    fuzz("packages", env!("CARGO_TARGET_TMPDIR"), &corpus, 20_000, |input| match Package::read(input) {
        Ok(package) => {
            let names: Vec<_> = package.wit.keys().chain(package.examples.keys()).collect();
            assert!(
                names.len() < MAX_ENTRIES
                    && names.iter().all(|name| !name.split('/').any(|part| matches!(part, "" | "." | ".."))),
                "{names:?}"
            );
            assert!(package.wit.values().all(|text| text.len() as u64 <= MAX_TEXT));
        }
        Err(refusal) => assert!(!refusal.message.is_empty() && refusal.message.len() < 64 << 10, "{refusal:?}"),
    });
}

#[test]
fn types() {
    let folder = tempfile::tempdir().unwrap();
    let options = CompilerOptions {
        cache_dir: folder.path().join("code"),
        cache_bytes: 16 << 20,
        program: None,
        limits: CompileLimits::default(),
    };
    let compiler = Compiler::new(options).unwrap();
    let built = [
        number_guest("", "(call $ok (i32.const 1))"),
        echo_guest("enum colour { red, green }", "the-value: list<option<tuple<colour, string>>>"),
    ];
    let corpus: Vec<_> = built.into_iter().chain(files(TYPES)).collect();
    fuzz("types", env!("CARGO_TARGET_TMPDIR"), &corpus, 300, |input| {
        match compiler.describe(input, &Grants::default()) {
            Ok(description) => assert!(description.signature.interface.contains('/'), "{description:?}"),
            Err(LoadError::Refused(refusal)) => {
                assert!(!refusal.message.is_empty() && refusal.message.len() < 64 << 10, "{refusal:?}");
            }
            Err(LoadError::Host(error)) => panic!("the host's failure: {error:?}"),
        }
    });
}

/// The entries of a package, as the writer `write` writes them.
fn zipped(write: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>, &[(&str, &[u8])])) -> Vec<u8> {
    let (text, component) =
        (manifest("probe", "[limits]\nmemory = \"8MiB\""), number_guest("", "(call $ok (local.get 0))"));
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    write(
        &mut zip,
        &[
            ("plugin.toml", text.as_bytes()),
            ("component.wasm", &component),
            ("wit/world.wit", b"package acme:probe@1.0.0;"),
        ],
    );
    zip.finish().unwrap().into_inner()
}

fn put(zip: &mut ZipWriter<Cursor<Vec<u8>>>, entries: &[(&str, &[u8])], options: SimpleFileOptions) {
    for (name, bytes) in entries {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
}

/// The files of the corpora that are made here, by folder and name. `tests/fuzz/README.md` describes the other files.
fn made() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let plain = SimpleFileOptions::default();
    let texts = |name: &str, text: &str| BTreeMap::from([(name.to_owned(), text.to_owned())]);
    let (more, component) =
        ("[limits]\ntime = \"2s\"\nhandles = 8\n[grants]\nclocks = true", number_guest("", "(call $ok (local.get 0))"));
    let whole = pack(PackageContent {
        manifest: &manifest("probe", more),
        component: &component,
        wit: &texts("world.wit", "package acme:probe@1.0.0;"),
        readme: Some("# probe\n"),
        examples: &texts("one.json", r#"{"n": 1}"#),
    });
    // Two entries with one name. The writer refuses that, so one entry is renamed afterwards, in its local header and
    // in the directory.
    let twice = zipped(|zip, all| put(zip, &[all, &[("wit/wirld.wit", b"another")]].concat(), plain));
    let twice = twice
        .iter()
        .copied()
        .enumerate()
        .map(|(at, byte)| if twice[..at].ends_with(b"wit/w") && byte == b'i' { b'o' } else { byte });
    let everything = echo_guest(
        "record place { name: string, at: tuple<f64, f32> } variant shape { none, square(u8), named(place) } enum \
         colour { red, dark-green }
         flags access { read, run-it } type id = u64;",
        "a: list<place>, b: option<option<shape>>, c: result<colour, string>, d: access, e: list<u8>, f: char, g: id, \
         h: result, i: tuple<s8, s16, s64, bool>",
    );
    vec![
        (PACKAGES, "taken-whole.zip", whole.unwrap()),
        (
            PACKAGES,
            "taken-zip64-stored.zip",
            zipped(|zip, all| put(zip, all, plain.large_file(true).compression_method(zip::CompressionMethod::Stored))),
        ),
        (
            PACKAGES,
            "refused-commented.zip",
            zipped(|zip, all| {
                zip.set_comment("PK\x05\x06 is not where this archive ends").unwrap();
                put(zip, all, plain.unix_permissions(0o600));
            }),
        ),
        (
            PACKAGES,
            "refused-parent.zip",
            zipped(|zip, all| put(zip, &[all, &[("wit/../../outside.wit", b"x")]].concat(), plain)),
        ),
        (
            PACKAGES,
            "refused-link.zip",
            zipped(|zip, all| {
                put(zip, all, plain);
                zip.add_symlink("wit/link.wit", "/etc/passwd", plain).unwrap();
            }),
        ),
        (PACKAGES, "refused-twice.zip", twice.collect()),
        (TYPES, "taken-everything.wasm", everything),
        (
            TYPES,
            "taken-handles.wasm",
            echo_guest("record seen { picture: image, files: list<artifact> }", "seen: seen, best: option<image>"),
        ),
        (TYPES, "taken-nested.wasm", hostile("nested-components")),
        (TYPES, "refused-grants.wasm", crate::metering::granted_guest()),
        (TYPES, "refused-resource.wasm", echo_guest("resource mine;", "mine: option<mine>")),
    ]
}

/// A component whose text is in `tests/hostile`.
fn hostile(name: &str) -> Vec<u8> {
    wat::parse_file(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/hostile/{name}.wat"))).unwrap()
}

/// The corpora are files, so that they do not change with the code that writes packages and components. If
/// `DOVETAIL_WRITE_CORPORA` is set, the files are written again.
#[test]
fn the_corpora_are_what_their_names_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let made = made();
    if std::env::var_os("DOVETAIL_WRITE_CORPORA").is_some() {
        for (folder, name, bytes) in &made {
            std::fs::create_dir_all(root.join(folder)).unwrap();
            std::fs::write(root.join(folder).join(name), bytes).unwrap();
        }
    }
    let (compiler, _folder) = crate::refusals::compiler();
    let mut names = Vec::new();
    for folder in [PACKAGES, TYPES] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let (name, bytes) = (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap());
            let refused = if folder == PACKAGES {
                Package::read(&bytes).err().map(|refusal| refusal.message)
            } else {
                compiler.describe(&bytes, &Grants::default()).err().map(|error| error.to_string())
            };
            let taken = name.starts_with("taken-");
            assert!(taken || name.starts_with("refused-"), "{name} does not say what becomes of it");
            assert_eq!(refused.is_none(), taken, "{name}: {refused:?}");
            assert!(bytes.len() <= 8 << 10, "{name} is not small");
            names.push(name);
        }
    }
    for (_, name, _) in made {
        assert!(names.iter().any(|there| there == name), "{name} is missing");
    }
}
