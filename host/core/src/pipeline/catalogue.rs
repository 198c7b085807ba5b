//! The tasks that a check may use: their versions, and the types of their inputs and outputs. This module reads no
//! store; a caller fills a [`ListCatalogue`] from its store.

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::keys::{VersionKey, split_reference};
use crate::ledger::Requirements;
use crate::limits::Limits;
use crate::wit::Signature;
use crate::wit::names::{is_kebab, nearest};

/// One published version of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskVersion {
    /// In kebab-case.
    pub name: String,
    /// The published version.
    pub version: Version,
    /// The digest of the plugin's package.
    pub package: Digest,
    /// The types of the task's input and output.
    pub signature: Signature,
    /// The limits of one attempt, from the manifest.
    pub limits: Limits,
    /// The requirements on the worker that runs the task.
    #[serde(default, rename = "lane")]
    pub requirements: Requirements,
}

impl TaskVersion {
    /// The name and the version: `face-detection@1.0.0`.
    #[must_use]
    pub fn key(&self) -> VersionKey<'_> {
        VersionKey::new(&self.name, &self.version)
    }
}

/// A reference matches no version of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// No task has this name.
    NoSuchTask {
        /// Similar names that exist, the most similar first.
        similar: Vec<String>,
    },
    /// The task has no matching version.
    NoSuchVersion {
        /// The versions of the task, the newest first.
        available: Vec<Version>,
    },
}

/// Finds tasks by name and version.
pub trait Catalogue {
    /// The newest version of `task` that satisfies `req`.
    ///
    /// No task has the name, or no version of it matches.
    /// There is none.
    fn resolve(&self, task: &str, req: &VersionReq) -> Result<TaskVersion, Unresolved>;
}

/// The newest of `versions` that matches `req`. Tasks and pipelines use the same rule: a prerelease matches only a
/// requirement that names a prerelease of the same version.
pub fn newest<'v>(versions: impl IntoIterator<Item = &'v Version>, req: &VersionReq) -> Option<&'v Version> {
    versions.into_iter().filter(|version| req.matches(version)).max()
}

/// A catalogue in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListCatalogue(pub Vec<TaskVersion>);

impl Catalogue for ListCatalogue {
    fn resolve(&self, task: &str, req: &VersionReq) -> Result<TaskVersion, Unresolved> {
        let mut versions: Vec<&TaskVersion> = self.0.iter().filter(|version| version.name == task).collect();
        if versions.is_empty() {
            let similar = nearest(task, self.0.iter().map(|version| version.name.as_str()));
            return Err(Unresolved::NoSuchTask { similar: similar.map(str::to_owned).into_iter().collect() });
        }
        versions.sort_by(|a, b| b.version.cmp(&a.version));
        let newest = newest(versions.iter().map(|version| &version.version), req);
        match versions.iter().find(|version| Some(&version.version) == newest) {
            Some(version) => Ok((*version).clone()),
            None => Err(Unresolved::NoSuchVersion {
                available: versions.iter().map(|version| version.version.clone()).collect(),
            }),
        }
    }
}

/// Parses `NAME` (its newest version), `NAME@1.2.0` (exactly this version) or `NAME@REQUIREMENT` (`^1`, `~1.2`, `>=1,
/// <3`).
///
/// # Errors
/// What is wrong, as a sentence.
pub fn task_reference(text: &str) -> Result<(String, VersionReq), String> {
    let (name, req) = split_reference(text);
    let req = req.unwrap_or("*");
    if !is_kebab(name) {
        return Err(format!(
            "`{name}` is not a valid name of a task: write NAME or NAME@VERSION, such as `face-detection@^1`"
        ));
    }
    let exact = Version::parse(req).is_ok();
    let parsed = if exact { VersionReq::parse(&format!("={req}")) } else { VersionReq::parse(req) };
    let parsed =
        parsed.map_err(|error| format!("`{req}` is not a valid version (such as `^1` or `1.2.0`): {error}"))?;
    Ok((name.to_owned(), parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> ListCatalogue {
        let version = |name: &str, version: &str| TaskVersion {
            name: name.to_owned(),
            version: version.parse().unwrap(),
            package: Digest::of(version.as_bytes()),
            signature: Signature { interface: String::new(), input: vec![], output: vec![] },
            limits: Limits::DEFAULT,
            requirements: Requirements::default(),
        };
        ListCatalogue(vec![
            version("face-detection", "1.0.0"),
            version("face-detection", "1.10.0"),
            version("face-detection", "1.9.0"),
            version("face-detection", "2.0.0-rc.1"),
        ])
    }

    fn resolved(reference: &str) -> Result<String, Unresolved> {
        let (name, req) = task_reference(reference).unwrap();
        listed().resolve(&name, &req).map(|version| version.version.to_string())
    }

    #[test]
    fn the_newest_that_satisfies() {
        for (reference, version) in [
            ("face-detection", "1.10.0"),
            ("face-detection@^1", "1.10.0"),
            ("face-detection@1.9.0", "1.9.0"),
            ("face-detection@~1.9", "1.9.0"),
            ("face-detection@2.0.0-rc.1", "2.0.0-rc.1"),
            ("face-detection@<1.5", "1.0.0"),
        ] {
            assert_eq!(resolved(reference).as_deref(), Ok(version), "{reference}");
        }
    }

    #[test]
    fn a_prerelease_is_meant_only_where_it_is_named() {
        let versions: Vec<Version> =
            ["1.0.0", "1.1.0-rc.1", "1.1.0-rc.2", "2.0.0-rc.1"].iter().map(|text| text.parse().unwrap()).collect();
        for (req, expected) in [
            ("*", Some("1.0.0")),
            ("^1", Some("1.0.0")),
            ("=1.1.0-rc.1", Some("1.1.0-rc.1")),
            ("^1.1.0-rc.1", Some("1.1.0-rc.2")),
            ("^2", None),
        ] {
            let found = newest(&versions, &req.parse().unwrap()).map(ToString::to_string);
            assert_eq!(found.as_deref(), expected, "{req}");
        }
        assert_eq!(newest(&versions[1..], &VersionReq::STAR), None, "not even where there is nothing else");
    }

    #[test]
    fn what_is_not_there() {
        assert_eq!(resolved("face-detecton"), Err(Unresolved::NoSuchTask { similar: vec!["face-detection".into()] }));
        let Err(Unresolved::NoSuchVersion { available }) = resolved("face-detection@^3") else { panic!("found") };
        assert_eq!(
            available.iter().map(Version::to_string).collect::<Vec<_>>(),
            ["2.0.0-rc.1", "1.10.0", "1.9.0", "1.0.0"]
        );
    }

    #[test]
    fn what_is_no_reference() {
        for bad in ["", "Face", "a@", "a@one", "a@1.2.3.4", "@1", "a_b"] {
            assert!(task_reference(bad).is_err(), "{bad}");
        }
    }
}
