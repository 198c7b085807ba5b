//! Paths in options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

/// A parser of paths in which `~/x` is a path below the home folder. A shell replaces `~` only at the beginning of a
/// word, so not in `--out=~/x`.
pub(crate) fn option() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|typed| below_home(typed.into(), std::env::var_os("HOME")))
}

fn below_home(path: PathBuf, home: Option<OsString>) -> Result<PathBuf, &'static str> {
    match (path.strip_prefix("~"), home.filter(|home| !home.is_empty())) {
        (Err(_), _) => Ok(path),
        (Ok(rest), Some(home)) => Ok(Path::new(&home).join(rest)),
        (Ok(_), None) => Err("the path is below the home folder, and HOME is not set"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_home_is_one_wherever_it_stands() {
        let at = |path: &str, home: Option<&str>| below_home(path.into(), home.map(OsString::from));
        assert_eq!(at("~/x", Some("/home/me")), Ok("/home/me/x".into()));
        assert_eq!(at("~", Some("/home/me")), Ok("/home/me".into()));
        for plain in ["./~/x", "x/~", "~x", "/~"] {
            assert_eq!(at(plain, Some("/home/me")), Ok(plain.into()));
        }
        assert!(at("~/x", None).is_err() && at("~/x", Some("")).is_err());
    }
}
