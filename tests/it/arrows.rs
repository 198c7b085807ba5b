//! The compile-time dependencies of ARCHITECTURE.md: `cli -> {service, bench}`, `bench -> service`, `service -> {flow,
//! stores, runtime, vision} -> core`. The four in the middle never name one another, and each heavy library has one
//! crate that may name it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::{files, root, text};

/// Every crate with its dependencies, without those that only its tests need.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output();
    let out = out.expect("cargo metadata runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    let needs = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies are a list");
        all.iter().filter(|d| d["kind"] != "dev").map(|d| d["name"].as_str().expect("a name").to_owned()).collect()
    };
    packages.iter().map(|p| (p["name"].as_str().expect("a name").to_owned(), needs(p))).collect()
}

/// The crates that the service joins.
const ENGINE: &[&str] = &["dovetail-core", "dovetail-flow", "dovetail-stores", "dovetail-runtime", "dovetail-vision"];
/// The crates that the measurements name: they measure each part by itself, beside the service.
const MEASURES: &[&str] =
    &["dovetail-core", "dovetail-flow", "dovetail-stores", "dovetail-runtime", "dovetail-vision", "dovetail-service"];

#[test]
fn our_crates_name_only_those_below_them() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("dovetail-core", &[][..]),
        ("dovetail-flow", &["dovetail-core"]),
        ("dovetail-stores", &["dovetail-core"]),
        ("dovetail-runtime", &["dovetail-core"]),
        ("dovetail-vision", &["dovetail-core"]),
        ("dovetail-service", ENGINE),
        ("dovetail-bench", MEASURES),
        ("dovetail", &["dovetail-service", "dovetail-bench"]),
        ("dovetail-tests", &[]),
    ]);
    for (name, needs) in dependencies() {
        let allowed = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is new: give it its arrows here and in ARCHITECTURE.md"));
        let ours: Vec<&String> = needs.iter().filter(|n| n.starts_with("dovetail")).collect();
        assert!(ours.iter().all(|n| allowed.contains(&n.as_str())), "{name} names {ours:?}, it may name {allowed:?}");
    }
}

#[test]
fn each_heavy_library_has_one_crate_that_names_it() {
    let owners = [
        ("wasmtime", "dovetail-runtime"),
        ("wasmtime-wasi", "dovetail-runtime"),
        ("wit-component", "dovetail-runtime"),
        ("opencv", "dovetail-vision"),
        ("ort", "dovetail-vision"),
        ("libloading", "dovetail-vision"),
        ("turbojpeg", "dovetail-vision"),
        ("image", "dovetail-vision"),
        ("rusqlite", "dovetail-stores"),
    ];
    for (name, needs) in dependencies() {
        for (library, owner) in owners {
            assert!(name == owner || !needs.contains(library), "{name} names {library}; only {owner} may");
        }
        let networks = ["tokio", "redis", "mongodb", "rust-s3", "hyper", "reqwest"];
        let found: Vec<_> = networks.iter().filter(|n| needs.contains(**n)).collect();
        assert!(
            name == "dovetail-stores" || found.is_empty(),
            "{name} names {found:?}; only dovetail-stores speaks to a network"
        );
    }
}

/// A front door prints, or speaks HTTP. The service does neither, so that every front door can use it.
#[test]
fn the_service_neither_prints_nor_reads_arguments() {
    let needs = dependencies();
    for library in ["clap", "clap_complete", "tracing-subscriber", "signal-hook", "hyper", "axum"] {
        assert!(!needs["dovetail-service"].contains(library), "dovetail-service names {library}");
    }
    // clippy's `print_stdout` and `print_stderr` forbid the macros; this test forbids the handles.
    for file in files("host/service/src", ".rs") {
        let text = text(&file);
        for handle in ["stdout()", "stderr()", "stdin()"] {
            assert!(!text.contains(handle), "{} uses {handle}", file.display());
        }
    }
}
