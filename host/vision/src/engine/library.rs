//! The pinned release of ONNX Runtime, and the places where its library may be.

use std::fs::File;
use std::io;
use std::path::Path;
#[cfg(feature = "opencv")]
use std::path::PathBuf;

use dovetail_core::id::Digest;

/// The pinned version. Later official builds (1.29 was the first) contain an uploader of usage events that is on by
/// default; this one has none.
pub const ONNXRUNTIME_VERSION: &str = "1.28.0";
/// The name of the pinned library's file.
pub const LIBRARY: &str = "libonnxruntime.so.1.28.0";

/// The pinned release for one architecture: a wheel of Python's package `onnxruntime`, and the library in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// The platform in the name of the wheel.
    pub platform: &'static str,
    /// The sha256 of the wheel, 64 hex digits.
    pub wheel: &'static str,
    /// The sha256 of the library, 64 hex digits.
    pub library: &'static str,
}

/// The pinned release for this machine. `None` if the release has no library for the machine's architecture.
#[must_use]
pub fn release() -> Option<Release> {
    let of = |platform, wheel, library| Some(Release { platform, wheel, library });
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => of(
            "manylinux_2_28_x86_64",
            "a166b78ee04f3a37fa1ef82034b6a3ce96d9684e582d4d30b296de83e9998bb5",
            "aa4079d18f4ea7a5f3a94d80cd4bbe0f2740436626622d64d793803a20381083",
        ),
        ("linux", "aarch64") => of(
            "manylinux_2_28_aarch64",
            "8d66f9ceb29909c70839e4e4fb3435c7b490050d8f162bd5f3aba4ca01ee517f",
            "23a37c2994bc273e1d59a4f49af6cba5bf1cfbc29f04907ec27df375aba50a7d",
        ),
        _ => None,
    }
}

impl Release {
    /// The digest of the library.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.library.parse().ok()
    }
}

/// Opens a file to read. Refuses pipes and devices: a pipe would keep the opener waiting for a writer, and a device may
/// have no end.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    if path.metadata()?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

/// The sha256 of a regular file. Holds 64 KiB of it at a time.
///
/// # Errors
/// The file cannot be read, or is a pipe, a device or a folder.
pub fn file_digest(path: &Path) -> io::Result<Digest> {
    Digest::of_reader(&mut open_regular(path)?)
}

/// The library in the folder of engines.
#[cfg(feature = "opencv")]
pub(super) fn installed(folder: &Path) -> PathBuf {
    folder.join(LIBRARY)
}

/// The file of the system's library: the first of the dynamic linker's usual folders that has it.
#[cfg(feature = "opencv")]
pub(super) fn of_system() -> Option<PathBuf> {
    const NAME: &str = "libonnxruntime.so.1";
    let variable = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let named = std::env::split_paths(&variable).filter(|folder| folder.is_absolute());
    let usual = ["/usr/local/lib", "/usr/lib", "/lib", "/usr/lib64", "/lib64"].map(PathBuf::from);
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    named
        .chain(std::iter::once(multiarch.into()))
        .chain(usual)
        .map(|folder| folder.join(NAME))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_release_is_whole() {
        let release = release().expect("the machines that run the tests have a release");
        assert!(release.digest().is_some() && release.wheel.parse::<Digest>().is_ok(), "{release:?}");
        assert_eq!(LIBRARY, format!("libonnxruntime.so.{ONNXRUNTIME_VERSION}"));
    }
}
