//! Keys of plugins and pipelines, which are published under a name and a version.

use std::fmt;

use semver::Version;

use super::number;

/// `NAME@VERSION`: the key of a plugin, and the reference to a version of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionKey<'a> {
    /// kebab-case.
    pub name: &'a str,
    /// The published version.
    pub version: Version,
}

impl<'a> VersionKey<'a> {
    /// The key of this name and version.
    #[must_use]
    pub fn new(name: &'a str, version: &Version) -> Self {
        Self { name, version: version.clone() }
    }

    /// Parses a key.
    #[must_use]
    pub fn parse(key: &'a str) -> Option<Self> {
        let (name, version) = key.split_once('@')?;
        Some(Self { name, version: version.parse().ok()? })
    }

    /// The prefix of the keys of all revisions of this version.
    #[must_use]
    pub fn revisions(&self) -> String {
        format!("{self}#")
    }
}

impl fmt::Display for VersionKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// `NAME@VERSION#REVISION`: the key of a pipeline with its pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionKey<'a> {
    /// The version of the pipeline.
    pub pipeline: VersionKey<'a>,
    /// The number of the set of pins, from 1.
    pub revision: u32,
}

impl<'a> RevisionKey<'a> {
    /// Parses a key.
    #[must_use]
    pub fn parse(key: &'a str) -> Option<Self> {
        let (pipeline, revision) = key.split_once('#')?;
        Some(Self { pipeline: VersionKey::parse(pipeline)?, revision: number(revision)? })
    }
}

impl fmt::Display for RevisionKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.pipeline, self.revision)
    }
}

/// The part `NAME@VERSION` of a pipeline's key, as text. The key is not checked.
#[must_use]
pub fn reference_of(key: &str) -> &str {
    key.split_once('#').map_or(key, |(reference, _)| reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_as_what_it_was_made_of() {
        for name in ["a", "face-detection", "x1"] {
            for version in ["0.0.0", "1.2.3", "1.0.0-rc.1", "1.0.0+build.5", "18446744073709551615.0.0-x-y.0"] {
                let version: Version = version.parse().unwrap();
                let plugin = VersionKey::new(name, &version);
                let key = plugin.to_string();
                assert_eq!(key, format!("{name}@{version}"));
                assert_eq!(VersionKey::parse(&key), Some(plugin.clone()));
                assert_eq!(RevisionKey::parse(&key), None, "a version has no revision");
                for revision in [1, 2, 10, u32::MAX] {
                    let pipeline = RevisionKey { pipeline: plugin.clone(), revision };
                    let key = pipeline.to_string();
                    assert_eq!(RevisionKey::parse(&key), Some(pipeline));
                    assert_eq!(VersionKey::parse(&key), None, "a revision is not a version");
                    assert_eq!(reference_of(&key), plugin.to_string());
                    assert!(key.starts_with(&plugin.revisions()));
                }
            }
        }
    }

    #[test]
    fn what_no_maker_makes_is_refused() {
        for key in ["", "a", "a@", "a@1", "a@1.0", "a@^1", "a@b@1.0.0"] {
            assert_eq!(VersionKey::parse(key), None, "{key}");
        }
        for key in ["a#1", "a@1.0.0#", "a@1.0.0#x", "a@1.0.0#01", "a@1.0.0#+1", "a@1.0.0#1#1", "a@1#1"] {
            assert_eq!(RevisionKey::parse(key), None, "{key}");
        }
    }
}
