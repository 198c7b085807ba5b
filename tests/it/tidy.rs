//! Small rules that keep the code readable.

use std::path::Path;

use crate::{files, text};

/// The files with more than 500 lines that are allowed, each with its reason.
const LONG: &[(&str, &str)] = &[];

fn rust() -> Vec<std::path::PathBuf> {
    ["host", "sdk", "plugins", "tests"].iter().flat_map(|folder| files(folder, ".rs")).collect()
}

#[test]
fn source_files_are_short() {
    for file in rust() {
        let limit =
            if file.components().any(|c| c.as_os_str() == "tests") || file.ends_with("tests.rs") { 800 } else { 500 };
        let lines = text(&file).lines().count();
        let excused = LONG.iter().any(|(name, _)| Path::new(name) == file);
        assert!(lines <= limit || excused, "{} has {lines} lines, the limit is {limit}: split it", file.display());
    }
}

#[test]
fn lines_have_at_most_120_characters() {
    const LIMIT: usize = 120;
    let endings = [".rs", ".lua", ".toml", ".wit", ".py", ".js", ".go", ".c", "justfile", "justw"];
    let sources = endings.iter().flat_map(|ending| files(".", ending));
    // The shell scripts, whose names have no ending.
    let scripts = ["scripts", ".ci", "benches/against-reference", "tests/servers/ferretdb/build"];
    let mut long = Vec::new();
    for file in sources.chain(scripts.iter().flat_map(|place| files(place, ""))) {
        for (number, line) in text(&file).lines().enumerate() {
            let length = line.chars().count();
            if length > LIMIT {
                long.push(format!("{}:{}: {length} characters", file.display(), number + 1));
            }
        }
    }
    assert!(long.is_empty(), "these lines have more than {LIMIT} characters, break them:\n{}", long.join("\n"));
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for file in rust() {
        let text = text(&file);
        let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!")).unwrap_or_default();
        assert!(first.starts_with("//!"), "{} does not open with `//!`", file.display());
    }
}

/// The files that may contain one of the words, each with its reason.
const EXCUSED: &[(&str, &str)] = &[
    ("host/runtime/tests/it/bombs.rs", "a test runs the ignored test itself, in a process whose memory is measured"),
    ("host/runtime/tests/it/hostile.rs", "a test runs the ignored test itself, in a process whose memory is measured"),
    (
        "host/runtime/tests/it/scarce.rs",
        "tests run the ignored tests themselves, in processes with limits of their own",
    ),
    ("host/runtime/tests/it/cache.rs", "the tests run the ignored test themselves, as their compiling child process"),
];

#[test]
fn nothing_is_left_undone_in_silence() {
    // The words are put together here, so that the test does not find itself.
    let words = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    for file in rust() {
        if EXCUSED.iter().any(|(name, _)| Path::new(name) == file) {
            continue;
        }
        let text = text(&file);
        for word in words {
            assert!(!text.contains(word), "{} has {word}", file.display());
        }
    }
}

#[test]
fn every_item_of_the_hosts_wit_is_documented() {
    for file in files("wit", ".wit") {
        let text = text(&file);
        let mut documented = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with("///") {
                documented = true;
            } else if line.starts_with('@') || line.is_empty() {
                // A feature gate may stand between an item and its documentation.
            } else {
                let opens = [
                    "package ",
                    "interface ",
                    "world ",
                    "record ",
                    "resource ",
                    "variant ",
                    "enum ",
                    "flags ",
                    "type ",
                ];
                let item = opens.iter().any(|word| line.starts_with(word))
                    || line.contains(": func(")
                    || line.contains(": static func(");
                assert!(!item || documented, "{}:{}: `{line}` has no documentation", file.display(), number + 1);
                documented = false;
            }
        }
    }
}
