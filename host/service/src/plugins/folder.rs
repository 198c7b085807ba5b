//! Makes a package from a plugin on the disk: a folder, a component beside its `plugin.toml`, or a package.
//!
//! The component is looked for where cargo puts it. The runtime inspects its content, not this file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dovetail_core::manifest::{Manifest, ManifestErrors};
use dovetail_runtime::{MAX_COMPONENT, MAX_PACKAGE, MAX_TEXT, PackageContent, componentize, pack};

use super::freshness::newer_source;
use crate::Error;
use crate::files::read;
use crate::paths::Shown as _;

/// The targets for which cargo and cargo-component build components, the preferred one first.
const TARGETS: [&str; 3] = ["wasm32-wasip2", "wasm32-wasip1", "wasm32-unknown-unknown"];
/// The command that builds a component.
const BUILD: &str = "cargo build --release --target wasm32-wasip2";

/// How to treat a component that is older than its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Log a warning: the component is only inspected or tried.
    Warned,
    /// Refuse it: the component is packed or published, and a published version cannot be changed.
    Refused,
}

/// A plugin on the disk.
#[derive(Debug)]
pub(crate) enum PluginSource {
    Package(Vec<u8>),
    Folder(Folder),
}

/// The folder of a plugin.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The text of `plugin.toml`.
    pub manifest: String,
    /// The file of the component, if the caller named it.
    component: Option<PathBuf>,
}

/// Finds out whether `path` is a folder, a component or a package.
pub(crate) fn find(path: &Path, component: Option<&Path>) -> Result<PluginSource, Error> {
    let meta = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
    let named = component.map(Path::to_owned);
    if meta.is_dir() {
        return folder(path, named).map(PluginSource::Folder);
    }
    if path.extension().is_some_and(|extension| extension == "wasm") {
        if named.is_some() {
            return Err(Error::usage("bad_option", format!("`{}` is a component itself", path.shown()))
                .help("leave --component out"));
        }
        let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return folder(beside, Some(path.to_owned())).map(PluginSource::Folder);
    }
    if named.is_some() {
        return Err(Error::usage(
            "bad_option",
            format!("`{}` is not a plugin folder, so --component has no effect", path.shown()),
        )
        .help("leave --component out"));
    }
    Ok(PluginSource::Package(read(path, MAX_PACKAGE)?))
}

/// Opens the folder of a plugin, and reads its manifest.
pub(crate) fn folder(path: &Path, component: Option<PathBuf>) -> Result<Folder, Error> {
    let manifest = own(path, &path.join("plugin.toml")).map_err(|e| {
        if e.code == "missing_file" {
            e.help("a plugin's folder has a `plugin.toml` with its name, version and description")
        } else {
            e
        }
    })?;
    Ok(Folder { path: path.to_owned(), manifest, component })
}

impl Folder {
    /// The manifest, or all its errors.
    pub(crate) fn parsed(&self) -> Result<Manifest, ManifestErrors> {
        Manifest::parse(&self.manifest)
    }

    /// The component, as cargo built it or made from a core module. The age of a file that the caller named is not
    /// checked: the caller has chosen the file.
    pub(crate) fn component(&self, name: &str, stale: Stale) -> Result<Vec<u8>, Error> {
        let file = match &self.component {
            Some(file) => file.clone(),
            None => {
                let file = self.built(name)?;
                self.check_age(&file, stale)?;
                file
            }
        };
        let bytes = read(&file, MAX_COMPONENT)?;
        // A core module was built for wasm32-unknown-unknown, with its WIT in a custom section.
        if bytes.starts_with(b"\0asm\x01\0\0\0") {
            return componentize(&bytes).map_err(|refusal| Error::from(refusal).of_file(&file));
        }
        Ok(bytes)
    }

    /// The component that cargo built: the newest file of the first target with any file. Ages of different targets are
    /// not compared: a task may import other interfaces on another target, and the choice must not depend on which
    /// target was built last.
    fn built(&self, name: &str) -> Result<PathBuf, Error> {
        let names = [format!("{}.wasm", name.replace('-', "_")), format!("{name}.wasm")];
        let targets = self.target_folders()?;
        let of_target = |target: &str| {
            let files = targets
                .iter()
                .flat_map(|folder| names.iter().map(move |name| folder.join(target).join("release").join(name)));
            files.filter_map(|file| Some((std::fs::metadata(&file).and_then(|meta| meta.modified()).ok()?, file))).max()
        };
        let newest = TARGETS.into_iter().find_map(of_target);
        newest.map(|(_, file)| file).ok_or_else(|| {
            let looked = targets.iter().map(|folder| folder.text()).collect::<Vec<_>>().join(", ");
            let (file, of) = (&names[0], TARGETS.join(", "));
            let message = format!("the component of `{name}` is not built: there is no {file} for {of} under {looked}");
            Error::usage("not_built", message).help(format!(
                "build it in its folder with `{BUILD}`; or make a package with `dovetail task pack --component FILE`, \
                 and use the package"
            ))
        })
    }

    fn check_age(&self, component: &Path, stale: Stale) -> Result<(), Error> {
        let Some(source) = newer_source(component, &self.path) else { return Ok(()) };
        let (component, source) = (component.text(), source.text());
        if stale == Stale::Warned {
            tracing::warn!(component, source, "the component is older than its source: build it again");
            return Ok(());
        }
        Err(Error::usage("stale_component", format!("the component `{component}` is older than its source `{source}`"))
            .help(format!(
                "build it again in its folder with `{BUILD}`; to use the component as it is, make a package with \
                 `dovetail task pack --component FILE`, and use the package"
            ))
            .detail("component", component)
            .detail("source", source))
    }

    /// CARGO_TARGET_DIR, and the folder `target` in the plugin's folder and in each folder above it up to the
    /// workspace.
    fn target_folders(&self) -> Result<Vec<PathBuf>, Error> {
        let mut folders: Vec<PathBuf> = std::env::var_os("CARGO_TARGET_DIR").into_iter().map(PathBuf::from).collect();
        let path = self.path.canonicalize().map_err(|e| Error::file(&self.path, e))?;
        for above in path.ancestors() {
            folders.push(above.join("target"));
            let manifest = std::fs::read_to_string(above.join("Cargo.toml")).unwrap_or_default();
            if manifest.lines().any(|line| line.trim() == "[workspace]") {
                break;
            }
        }
        Ok(folders)
    }

    /// The task's own WIT files, by their paths below `wit/`.
    pub(crate) fn wit(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut wit = BTreeMap::new();
        let folder = self.path.join("wit");
        if folder.is_dir() {
            collect(&self.path, &folder, "", &mut wit)?;
        }
        Ok(wit)
    }

    /// The package. The same files give the same bytes.
    pub(crate) fn pack(&self, component: &[u8]) -> Result<Vec<u8>, Error> {
        let wit = self.wit()?;
        let mut examples = BTreeMap::new();
        let folder = self.path.join("examples");
        if folder.is_dir() {
            for file in crate::files::folder(&folder)?
                .into_iter()
                .filter(|file| file.extension().is_some_and(|extension| extension == "json"))
            {
                examples.insert(name_of(&file)?, own(&self.path, &file)?);
            }
        }
        let readme = match own(&self.path, &self.path.join("README.md")) {
            Ok(text) => Some(text),
            Err(error) if error.code == "missing_file" => None,
            Err(error) => return Err(error),
        };
        Ok(pack(PackageContent {
            manifest: &self.manifest,
            component,
            wit: &wit,
            readme: readme.as_deref(),
            examples: &examples,
        })?)
    }
}

/// Collects the task's own WIT files at any depth. `deps` is left out: the host has these interfaces.
fn collect(root: &Path, folder: &Path, below: &str, wit: &mut BTreeMap<String, String>) -> Result<(), Error> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>())
        .map_err(|e| Error::file(folder, e))?;
    entries.sort();
    for path in entries {
        let name = format!("{below}{}", name_of(&path)?);
        if path.is_dir() {
            if name != "deps" {
                collect(root, &path, &format!("{name}/"), wit)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "wit") {
            wit.insert(name, own(root, &path)?);
        }
    }
    Ok(())
}

/// A file's name in a package. The name must be UTF-8: a lossy conversion could give two files the same name.
fn name_of(path: &Path) -> Result<String, Error> {
    let name = path.file_name().unwrap_or_default();
    name.to_str().map(str::to_owned).ok_or_else(|| {
        Error::usage("bad_package", format!("the name of `{}` is not UTF-8, which a package requires", path.shown()))
            .help("rename it")
            .detail("path", path.text())
    })
}

/// The text of a file in the plugin's folder. A link may lead to another file of the folder. A link that leads out of
/// the folder is refused: it could publish a private file.
fn own(root: &Path, path: &Path) -> Result<String, Error> {
    let real = path.canonicalize().map_err(|e| Error::file(path, e))?;
    if real.starts_with(root.canonicalize().map_err(|e| Error::file(root, e))?) {
        return text(path);
    }
    let message = format!("`{}` is a link that leads out of the plugin's folder, to `{}`", path.shown(), real.shown());
    Err(Error::usage("link_out_of_folder", message)
        .help("replace the link by a copy to publish the content, or remove the link")
        .detail("path", path.text()))
}

fn text(path: &Path) -> Result<String, Error> {
    String::from_utf8(read(path, MAX_TEXT)?)
        .map_err(|e| Error::usage("bad_package", format!("`{}` is not UTF-8 text", path.shown())).cause(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("echo-it");
        std::fs::create_dir_all(at.join("wit/deps/task")).unwrap();
        std::fs::write(dir.path().join("Cargo.toml"), "[workspace]\nmembers = []\n").unwrap();
        std::fs::write(at.join("plugin.toml"), "name = \"echo-it\"\nversion = \"1.0.0\"\ndescription = \"x\"\n")
            .unwrap();
        std::fs::write(at.join("wit/world.wit"), "package a:b;").unwrap();
        std::fs::write(at.join("wit/deps/task/task.wit"), "package a:c;").unwrap();
        dir
    }

    #[test]
    fn what_is_not_built_says_how_to_build_it() {
        let dir = plugin();
        let folder = folder(&dir.path().join("echo-it"), None).unwrap();
        let error = folder.component("echo-it", Stale::Warned).unwrap_err();
        assert_eq!((error.code, error.blame), ("not_built", crate::Blame::Usage));
        assert!(error.help.unwrap().contains("cargo build --release --target wasm32-wasip2"));
    }

    #[test]
    fn the_newest_build_of_the_preferred_target_is_found_in_the_workspace() {
        let dir = plugin();
        let build = |place: &str, content: &str, age: u64| {
            let folder = dir.path().join(place).join("release");
            std::fs::create_dir_all(&folder).unwrap();
            let file = folder.join("echo_it.wasm");
            std::fs::write(&file, content).unwrap();
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
            std::fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
        };
        let folder = folder(&dir.path().join("echo-it"), None).unwrap();
        build("target/wasm32-unknown-unknown", "other", 0);
        assert_eq!(folder.component("echo-it", Stale::Warned).unwrap(), b"other");
        build("echo-it/target/wasm32-wasip2", "old", 100);
        assert_eq!(folder.component("echo-it", Stale::Warned).unwrap(), b"old");
        build("target/wasm32-wasip2", "new", 50);
        assert_eq!(folder.component("echo-it", Stale::Warned).unwrap(), b"new");
    }

    #[test]
    fn a_link_that_leads_out_of_the_folder_is_refused() {
        let link = |to: &str, at: &str| {
            let dir = plugin();
            std::fs::write(dir.path().join("secret.txt"), "package secret:s;").unwrap();
            std::fs::create_dir_all(dir.path().join("elsewhere")).unwrap();
            std::fs::write(dir.path().join("elsewhere/more.wit"), "package secret:s;").unwrap();
            let at = dir.path().join("echo-it").join(at);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(to, &at).unwrap();
            let packed = folder(&dir.path().join("echo-it"), None).and_then(|folder| folder.pack(b"\0asm\x0d\0\x01\0"));
            (packed, at, dir)
        };
        for (to, at) in [
            ("../secret.txt", "README.md"),
            ("../../secret.txt", "examples/one.json"),
            ("../../secret.txt", "wit/other.wit"),
            ("../../elsewhere", "wit/more"),
        ] {
            let (packed, at, _dir) = link(to, at);
            let error = packed.unwrap_err();
            assert_eq!((error.code, error.blame), ("link_out_of_folder", crate::Blame::Usage));
            assert!(error.message.contains(&at.display().to_string()), "{}", error.message);
        }
        let (packed, _, _dir) = link("wit/world.wit", "README.md");
        assert_eq!(dovetail_runtime::Package::read(&packed.unwrap()).unwrap().readme.as_deref(), Some("package a:b;"));
    }

    #[test]
    fn a_package_holds_the_tasks_own_wit_and_the_same_bytes_each_time() {
        let dir = plugin();
        let folder = folder(&dir.path().join("echo-it"), None).unwrap();
        let packed = folder.pack(b"\0asm\x0d\0\x01\0").unwrap();
        let package = dovetail_runtime::Package::read(&packed).unwrap();
        assert_eq!(package.wit.keys().collect::<Vec<_>>(), ["world.wit"]);
        assert_eq!(folder.pack(b"\0asm\x0d\0\x01\0").unwrap(), packed);
    }
}
