//! Names and versions: write-once pointers to packages and to pinned pipelines. The same content again succeeds, other
//! content under the same name and version is refused.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dovetail_core::blobs::{BlobKind, StoreError, StoreErrorKind};
use dovetail_core::executor::{MISSING_ARTIFACT, MISSING_PACKAGE};
use dovetail_core::keys::{Capability, RevisionKey, VersionKey, reference_of, split_reference};
use dovetail_core::ledger::{Item, Kind, Listing, Record, Reply, Requirements};
use dovetail_core::pipeline::{
    self, Catalogue, Checked, Pipeline, Severity, Source, TaskVersion, Unresolved, diff, task_reference,
};
use dovetail_core::record::{Form, PluginRecord};
use dovetail_core::wit::names::nearest;
use semver::{Version, VersionReq};

use crate::truth::missing_artifact;
use crate::{FlowError, List, Ports, Unread};

/// What a publication did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is new.
    Created,
    /// The very same was there before.
    Same,
    /// The very same was there before, and its package was damaged or gone: it is stored anew.
    Mended,
}

/// A pipeline as it was published, with the plugin versions it is pinned to.
#[derive(Debug, Clone)]
pub struct Published {
    /// `name@version#revision`.
    pub key: String,
    /// 1 for the first; `pipeline update` makes the next.
    pub revision: u32,
    pub pipeline: Pipeline,
    /// What [`Published::has_packages`] found, for all copies of this value.
    packages_found: Arc<AtomicBool>,
}

impl Published {
    fn new(key: String, revision: u32, pipeline: Pipeline) -> Self {
        Self { key, revision, pipeline, packages_found: Arc::default() }
    }

    /// That the packages of the steps, and the artifacts that the pipeline itself names, are stored. Found once, they
    /// are not looked for again.
    ///
    /// # Errors
    /// `missing_package`, `missing_artifact`; a store's failure.
    pub(crate) fn has_packages(&self, parts: &Ports) -> Result<(), FlowError> {
        if self.packages_found.load(Ordering::Relaxed) {
            return Ok(());
        }
        let of = self.pipeline.reference();
        for step in &self.pipeline.steps {
            if parts.blobs.size(BlobKind::Package, &step.package)?.is_none() {
                let task = step.task_reference();
                let what = format!("find the package of {task}, which {of} needs for its step `{}`", step.name);
                let source = StoreError::plain(StoreErrorKind::Missing, what);
                return Err(FlowError::Missing { code: MISSING_PACKAGE, source });
            }
            for binding in &step.inputs {
                let Source::Literal { value } = &binding.source else { continue };
                if let Some(artifact) = missing_artifact(parts, value)? {
                    let place = step.input_field_id(&binding.field);
                    return Err(FlowError::refused(
                        MISSING_ARTIFACT,
                        format!("{of} names the artifact {} as `{place}`, which is not stored", artifact.digest),
                        "store the artifact again, or publish a version of the pipeline without it",
                    ));
                }
            }
        }
        self.packages_found.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// What moving a pipeline to the newest plugins came to.
#[derive(Debug)]
pub struct Update {
    pub old: Published,
    /// None: it would be the same, or it does not check (then `checked` has errors).
    pub new: Option<Published>,
    pub differences: Vec<String>,
    pub checked: Checked,
}

fn every(parts: &Ports, kind: Kind, prefix: String) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    parts.ledger.list(kind, &Listing { prefix, limit: usize::MAX, newest_first: false })
}

/// Publishes a version of a plugin; its package becomes available to every worker.
///
/// # Errors
/// `version_exists` if this version has another package; a store's failure.
pub fn push_plugin(parts: &Ports, record: &PluginRecord, package: &[u8]) -> Result<Pushed, FlowError> {
    let key = VersionKey::new(&record.name, &record.version).to_string();
    let known = parts.ledger.get(Kind::Plugin, std::slice::from_ref(&key))?.pop().flatten().is_some();
    let whole = !known || parts.blobs.is_whole(BlobKind::Package, &record.package, package.len() as u64)? == Some(true);
    let digest = parts.blobs.put(BlobKind::Package, package)?;
    debug_assert_eq!(digest, record.package, "the record is of this package");
    let put = Item::Put { record: Record { kind: Kind::Plugin, key: key.clone(), value: record.encode() } };
    match parts.ledger.commit(&[put])?.pop() {
        Some(Reply::Exists(bytes)) => {
            let before = PluginRecord::decode(&bytes, &format!("plugin {key}"))?;
            if before.package == record.package && before.grants == record.grants {
                return Ok(if whole { Pushed::Same } else { Pushed::Mended });
            }
            let message =
                format!("{key} is published with another package ({}), this one is {}", before.package, record.package);
            Err(FlowError::refused(
                "version_exists",
                message,
                "a published version never changes: raise `version` in plugin.toml",
            ))
        }
        _ => Ok(Pushed::Created),
    }
}

fn decode_plugin(key: &str, bytes: &[u8]) -> Result<PluginRecord, FlowError> {
    Ok(PluginRecord::decode(bytes, &format!("plugin {key}"))?)
}

/// Every version of every plugin, in the order of publication.
///
/// # Errors
/// A store's failure.
pub fn plugins(parts: &Ports) -> Result<List<PluginRecord>, FlowError> {
    let mut found = List::default();
    for (key, bytes) in every(parts, Kind::Plugin, String::new())? {
        found.take(&key, decode_plugin(&key, &bytes))?;
    }
    Ok(found)
}

/// The newest version of a plugin that `reference` (`name`, `name@1.0.0`, `name@^1`) allows.
///
/// # Errors
/// `unknown_task`, `unknown_version`, `bad_reference`; a store's failure, or that this very version cannot be read.
pub fn plugin(parts: &Ports, reference: &str) -> Result<PluginRecord, FlowError> {
    let (name, wanted) = task_reference(reference)
        .map_err(|why| FlowError::refused("bad_reference", why, "write NAME, NAME@1.0.0 or NAME@^1"))?;
    let rows = every(parts, Kind::Plugin, String::new())?;
    let known: Vec<Version> = rows
        .iter()
        .filter_map(|(key, _)| VersionKey::parse(key))
        .filter(|k| k.name == name)
        .map(|k| k.version)
        .collect();
    if known.is_empty() {
        let names = rows.iter().filter_map(|(key, _)| VersionKey::parse(key)).map(|key| key.name);
        let near = nearest(&name, names).map_or_else(String::new, |n| format!("did you mean `{n}`? "));
        let help = format!("{near}see `dovetail task list`; publish one with `dovetail task push`");
        return Err(FlowError::refused("unknown_task", format!("no task `{name}` is published"), help));
    }
    let newest = pipeline::newest(&known, &wanted).map(|version| VersionKey::new(&name, version).to_string());
    let row = newest.and_then(|newest| rows.iter().find(|(key, _)| *key == newest));
    let (key, bytes) = row.ok_or_else(|| {
        let versions: Vec<String> = known.iter().map(Version::to_string).collect();
        FlowError::refused(
            "unknown_version",
            format!("`{name}` has no version that matches {wanted}"),
            format!("published: {}", versions.join(", ")),
        )
    })?;
    decode_plugin(key, bytes)
}

/// Checks a pipeline file against the published tasks.
///
/// # Errors
/// A store's failure, or that a version which the file asks for cannot be read: an older one in its place would be a
/// guess.
pub fn check(parts: &Ports, text: &str) -> Result<Checked, FlowError> {
    let List { read, unread } = plugins(parts)?;
    let version = |p: PluginRecord| {
        let grants = p.grants.keys().map(|name| Capability::Grant(name));
        let models = p.models.iter().map(|name| Capability::Model(name));
        let kinds = p.model_kinds.iter().map(|kind| Capability::ModelKind(kind));
        let lane = Requirements::of(grants.chain(models).chain(kinds).map(|capability| capability.to_string()));
        TaskVersion {
            name: p.name,
            version: p.version,
            package: p.package,
            signature: p.signature,
            limits: p.limits,
            lane,
        }
    };
    let readable = pipeline::Listed(read.into_iter().map(version).collect());
    let catalogue = Registered { readable, unread: &unread, asked: Cell::new(None) };
    let checked = pipeline::check(text, &catalogue);
    let asked = catalogue.asked.get();
    match asked.and_then(|asked| unread.into_iter().nth(asked)) {
        Some(Unread { error, .. }) => Err(error.into()),
        None => Ok(checked),
    }
}

/// The published tasks, and whether one was asked for that cannot be read.
struct Registered<'a> {
    readable: pipeline::Listed,
    unread: &'a [Unread],
    asked: Cell<Option<usize>>,
}

impl Catalogue for Registered<'_> {
    fn resolve(&self, task: &str, req: &VersionReq) -> Result<TaskVersion, Unresolved> {
        let resolved = self.readable.resolve(task, req);
        let newer = |version: &Version| resolved.as_ref().map_or(true, |known| known.version < *version);
        let better = |one: &Unread| {
            VersionKey::parse(&one.name).is_some_and(|k| k.name == task && req.matches(&k.version) && newer(&k.version))
        };
        if let Some(at) = self.unread.iter().position(better) {
            self.asked.set(Some(at));
        }
        resolved
    }
}

fn decode(key: &str, bytes: &[u8]) -> Result<Published, FlowError> {
    let what = || format!("read the pipeline {key}");
    let corrupt = |why: String| StoreError::new(StoreErrorKind::Corrupt, what(), why);
    let RevisionKey { revision, .. } =
        RevisionKey::parse(key).ok_or_else(|| corrupt("its key is not NAME@VERSION#REVISION".into()))?;
    let json = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
    let pipeline = Pipeline::from_json(&json).map_err(|e| match e {
        pipeline::FormatError::Newer { .. } => StoreError::new(StoreErrorKind::Newer, what(), e.to_string()),
        other @ pipeline::FormatError::Malformed(_) => corrupt(other.to_string()),
    })?;
    Ok(Published::new(key.to_owned(), revision, pipeline))
}

/// The pipeline that a run is pinned to.
pub(crate) fn pinned(parts: &Ports, key: &str) -> Result<Pipeline, FlowError> {
    let missing = || StoreError::plain(StoreErrorKind::Missing, format!("read the pipeline {key}"));
    let bytes = parts.ledger.get(Kind::Pipeline, &[key.to_owned()])?.pop().flatten().ok_or_else(missing)?;
    Ok(decode(key, &bytes)?.pipeline)
}

/// Publishes a checked pipeline, pinned as it is.
///
/// # Errors
/// `version_exists` if this version was published from another file, or pinned otherwise; a store's failure.
pub fn push_pipeline(parts: &Ports, pipeline: &Pipeline) -> Result<(Published, Pushed), FlowError> {
    if let Some(newest) = revisions(parts, &VersionKey::new(&pipeline.name, &pipeline.version))?.pop() {
        if newest.pipeline.is_the_same(pipeline) {
            return Ok((newest, Pushed::Same));
        }
        let name = &pipeline.name;
        if !newest.pipeline.is_of_the_same_file(pipeline) {
            let message = format!("{} is published with another content", pipeline.reference());
            return Err(FlowError::refused(
                "version_exists",
                message,
                "a published version never changes: raise `version` in the file",
            ));
        }
        let message = format!("{} is published and pinned to other plugin versions", pipeline.reference());
        let help = format!("move it to the newest ones with `dovetail pipeline update {name}`");
        return Err(FlowError::refused("version_exists", message, help));
    }
    let published = put_revision(parts, pipeline, 1)?;
    Ok((published, Pushed::Created))
}

fn put_revision(parts: &Ports, pipeline: &Pipeline, revision: u32) -> Result<Published, FlowError> {
    let of = VersionKey::new(&pipeline.name, &pipeline.version);
    let key = RevisionKey { pipeline: of, revision }.to_string();
    let value = pipeline.to_json().to_string().into_bytes();
    let put = Item::Put { record: Record { kind: Kind::Pipeline, key: key.clone(), value: value.clone() } };
    match parts.ledger.commit(&[put])?.pop() {
        Some(Reply::Exists(bytes)) if bytes != value => {
            let there = decode(&key, &bytes)?;
            if there.pipeline.is_the_same(pipeline) {
                return Ok(there);
            }
            let message = format!("somebody else has just published {key} with another content");
            Err(FlowError::refused(
                "version_exists",
                message,
                "look at it with `dovetail pipeline show`, then publish again",
            ))
        }
        _ => Ok(Published::new(key, revision, pipeline.clone())),
    }
}

fn revisions(parts: &Ports, of: &VersionKey<'_>) -> Result<Vec<Published>, FlowError> {
    let rows = every(parts, Kind::Pipeline, of.revisions())?;
    rows.iter().map(|(key, bytes)| decode(key, bytes)).collect()
}

/// The newest revision of each published version, in the order of publication.
///
/// # Errors
/// A store's failure.
pub fn pipelines(parts: &Ports) -> Result<List<Published>, FlowError> {
    // An older revision is none to fall back to: it is not what a run of this version would be.
    let mut newest: Vec<(String, String, Vec<u8>)> = Vec::new();
    for (key, bytes) in every(parts, Kind::Pipeline, String::new())? {
        let reference = reference_of(&key).to_owned();
        match newest.iter().position(|(known, ..)| *known == reference) {
            Some(at) => newest[at] = (reference, key, bytes),
            None => newest.push((reference, key, bytes)),
        }
    }
    let mut found = List::default();
    for (reference, key, bytes) in newest {
        found.take(&reference, decode(&key, &bytes))?;
    }
    Ok(found)
}

/// The newest version and revision that `reference` (`name` or `name@1.0.0`) means. As with tasks, a name alone means
/// no prerelease.
///
/// # Errors
/// `unknown_pipeline`; a store's failure, or that this very version cannot be read.
pub fn pipeline(parts: &Ports, reference: &str) -> Result<Published, FlowError> {
    let (name, version) = split_reference(reference);
    let rows = every(parts, Kind::Pipeline, String::new())?;
    let keys: Vec<VersionKey<'_>> =
        rows.iter().filter_map(|(key, _)| Some(RevisionKey::parse(key)?.pipeline)).collect();
    let known: BTreeSet<&Version> = keys.iter().filter(|key| key.name == name).map(|key| &key.version).collect();
    let newest = match version {
        None => pipeline::newest(known.iter().copied(), &VersionReq::STAR),
        Some(version) => known.iter().copied().find(|known| known.to_string() == version),
    };
    let only_prereleases = version.is_none() && newest.is_none() && !known.is_empty();
    let newest = newest.map(|version| VersionKey::new(name, version).revisions());
    // The last of its revisions.
    let row = newest.and_then(|newest| rows.iter().rev().find(|(key, _)| key.starts_with(&newest)));
    let (key, bytes) = row.ok_or_else(|| {
        let help = if known.is_empty() {
            let near = nearest(name, keys.iter().map(|key| key.name))
                .map_or_else(String::new, |n| format!("did you mean `{n}`? "));
            format!("{near}see `dovetail pipeline list`; publish one with `dovetail pipeline push FILE`")
        } else {
            format!("published versions: {}", known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        };
        let message = if only_prereleases {
            format!("`{name}` has only prereleases, and a name alone means none of them: write NAME@VERSION")
        } else {
            format!("no pipeline `{reference}` is published")
        };
        FlowError::refused("unknown_pipeline", message, help)
    })?;
    decode(key, bytes)
}

/// Moves a published pipeline to the newest plugin versions that its file allows, as a new revision. Runs that were
/// submitted before keep theirs.
///
/// # Errors
/// `unknown_pipeline`; a store's failure.
pub fn update_pipeline(parts: &Ports, reference: &str) -> Result<Update, FlowError> {
    let old = pipeline(parts, reference)?;
    let mut checked = check(parts, &old.pipeline.source)?;
    let broken = checked.findings.iter().any(|f| f.severity == Severity::Error);
    let (new, differences) = match checked.pipeline.take() {
        Some(next) if !broken && next != old.pipeline => {
            let differences = diff(&old.pipeline, &next);
            (Some(put_revision(parts, &next, old.revision + 1)?), differences)
        }
        _ => (None, Vec::new()),
    };
    Ok(Update { old, new, differences, checked })
}
