//! Finds a source that is newer than the component. Cargo lists the sources in a file beside the component; without the
//! list the usual folders are checked.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A source that was changed after the component was built.
pub(crate) fn newer_source(component: &Path, folder: &Path) -> Option<PathBuf> {
    let built = changed(component)?;
    let newer = |source: &PathBuf| changed(source).is_some_and(|time| time > built);
    let listed = listed(component);
    // A file that only tests use is not in cargo's list: cargo would not rebuild the component for it either.
    if listed.is_empty() { in_folders(folder).into_iter().find(newer) } else { listed.into_iter().find(newer) }
}

fn changed(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|meta| meta.modified()).ok()
}

/// The existing sources in cargo's `NAME.d`, including those of dependencies in the same repository.
fn listed(component: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(component.with_extension("d")).unwrap_or_default();
    // A line has make's form `OUTPUT: SOURCE SOURCE...`; spaces in names are escaped.
    let of_component = text.lines().filter_map(|line| line.split_once(".wasm: ")).map(|(_, sources)| sources);
    of_component.flat_map(words).map(PathBuf::from).filter(|source| source.is_absolute() && source.is_file()).collect()
}

fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut escaped) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            ' ' if !escaped => words.push(std::mem::take(&mut word)),
            c => {
                // Cargo escapes only spaces. Any other backslash is part of a name.
                if escaped && c != ' ' {
                    word.push('\\');
                }
                word.push(c);
                escaped = false;
            }
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

fn in_folders(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.join("src"), folder.join("wit")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn write(path: &Path, content: &str, age: u64) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        std::fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(SystemTime::now() - Duration::from_secs(age))
            .unwrap();
    }

    #[test]
    fn cargos_list_decides_where_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let component = at("target/it.wasm");
        write(&component, "", 100);
        write(&at("src/lib.rs"), "", 200);
        assert_eq!(newer_source(&component, dir.path()), None);
        write(&at("src/tests.rs"), "", 50);
        assert_eq!(newer_source(&component, dir.path()), Some(at("src/tests.rs")), "no list: every file counts");
        let list =
            |shared: &str| format!("{}: {} {shared} /gone.rs\n", component.display(), at("src/lib.rs").display());
        write(&at("shared folder/lib.rs"), "", 200);
        let shared = at("shared folder/lib.rs").display().to_string().replace(' ', "\\ ");
        write(&at("target/it.d"), &list(&shared), 100);
        assert_eq!(newer_source(&component, dir.path()), None, "a file that is not in the list does not count");
        write(&at("shared folder/lib.rs"), "", 10);
        assert_eq!(newer_source(&component, dir.path()), Some(at("shared folder/lib.rs")));
    }

    #[test]
    fn names_are_read_as_make_reads_them() {
        assert_eq!(words("/a/b.rs  /c\\ d.rs /e\\f.rs"), ["/a/b.rs", "/c d.rs", "/e\\f.rs"]);
        assert_eq!(words(""), Vec::<String>::new());
    }
}
