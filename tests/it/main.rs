//! The rules of ARCHITECTURE.md as tests: which crate may name which, which libraries the program links, and the form
//! of source files and documents.

#![expect(clippy::panic, reason = "a failing test panics")]

mod arrows;
mod binary;
mod bombs;
mod docs;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate stands in the workspace").to_owned()
}

/// The files below `folder` with this ending that git tracks, or would add.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "--", folder];
    let out = Command::new("git").args(list).current_dir(root()).output().expect("git runs");
    assert!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    let names = String::from_utf8(out.stdout).expect("file names are UTF-8");
    let found = names.lines().filter(|name| name.ends_with(ending)).map(PathBuf::from);
    found.filter(|name| root().join(name).is_file()).collect()
}

/// The text of a file.
fn text(file: &Path) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}
