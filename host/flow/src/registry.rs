//! The registry: write-once records that map names and versions to packages and to pinned pipelines. Publishing the
//! same content again succeeds; other content under the same name and version is refused.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dovetail_core::blobs::{BlobKind, StoreError, StoreErrorKind};
use dovetail_core::executor::{MISSING_ARTIFACT, MISSING_PACKAGE};
use dovetail_core::keys::{Capability, RevisionKey, VersionKey, reference_of, split_reference};
use dovetail_core::ledger::{Kind, Listing, Operation, Record, Reply, Requirements};
use dovetail_core::pipeline::{
    self, Catalogue, Checked, Pipeline, Source, TaskVersion, Unresolved, diff, task_reference,
};
use dovetail_core::record::{Form, PluginRecord};
use dovetail_core::wit::names::nearest;
use semver::{Version, VersionReq};

use crate::truth::missing_artifact;
use crate::{FlowError, List, Ports, UnreadRecord};

/// The result of a publication or a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Created,
    /// The same content existed before.
    Same,
    /// The same version existed before, but its package was damaged or missing and has been stored again.
    Mended,
}

/// A published pipeline, with the plugin versions that it is pinned to.
#[derive(Debug, Clone)]
pub struct Published {
    /// `name@version#revision`.
    pub key: String,
    /// 1 for the first revision. `pipeline update` makes the next one.
    pub revision: u32,
    pub pipeline: Pipeline,
    /// [`Published::has_packages`] has succeeded. Shared by all clones of this value.
    packages_found: Arc<AtomicBool>,
}

impl Published {
    fn new(key: String, revision: u32, pipeline: Pipeline) -> Self {
        Self { key, revision, pipeline, packages_found: Arc::default() }
    }

    /// Checks that the packages of the steps, and the artifacts that the pipeline itself names, are stored. After one
    /// success the stores are not asked again.
    ///
    /// # Errors
    /// `missing_package`, `missing_artifact`; a store's failure.
    pub(crate) fn has_packages(&self, ports: &Ports) -> Result<(), FlowError> {
        if self.packages_found.load(Ordering::Relaxed) {
            return Ok(());
        }
        let of = self.pipeline.reference();
        for step in &self.pipeline.steps {
            if ports.blobs.size(BlobKind::Package, &step.package)?.is_none() {
                let task = step.task_reference();
                let what = format!("find the package of {task}, which {of} needs for its step `{}`", step.name);
                let source = StoreError::plain(StoreErrorKind::Missing, what);
                return Err(FlowError::Missing { code: MISSING_PACKAGE, source });
            }
            for binding in &step.inputs {
                let Source::Literal { value } = &binding.source else { continue };
                if let Some(artifact) = missing_artifact(ports, value)? {
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

/// The result of [`update_pipeline`].
#[derive(Debug)]
pub struct Update {
    pub old: Published,
    /// `None`: nothing would change, or the check found errors (in `checked`).
    pub new: Option<Published>,
    pub differences: Vec<String>,
    pub checked: Checked,
}

impl Update {
    /// Whether the pipeline keeps its old plugins because it does not fit the newest ones: the check found errors.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.checked.has_errors()
    }
}

/// All records of a kind whose keys begin with `prefix`, the oldest first.
fn every(ports: &Ports, kind: Kind, prefix: String) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    ports.ledger.list(kind, &Listing { prefix, limit: usize::MAX, newest_first: false })
}

/// Publishes a version of a plugin and stores its package, for every worker.
///
/// # Errors
/// `version_exists` if this version has another package; a store's failure.
pub fn push_plugin(ports: &Ports, record: &PluginRecord, package: &[u8]) -> Result<Pushed, FlowError> {
    let key = VersionKey::new(&record.name, &record.version).to_string();
    let known = ports.ledger.get(Kind::Plugin, std::slice::from_ref(&key))?.pop().flatten().is_some();
    let whole = !known || ports.blobs.is_whole(BlobKind::Package, &record.package, package.len() as u64)? == Some(true);
    let digest = ports.blobs.put(BlobKind::Package, package)?;
    debug_assert_eq!(digest, record.package, "the record is of this package");
    let put = Operation::Put { record: Record { kind: Kind::Plugin, key: key.clone(), value: record.encode() } };
    match ports.ledger.commit(&[put])?.pop() {
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
pub fn plugins(ports: &Ports) -> Result<List<PluginRecord>, FlowError> {
    let mut found = List::default();
    for (key, bytes) in every(ports, Kind::Plugin, String::new())? {
        found.take(&key, decode_plugin(&key, &bytes))?;
    }
    Ok(found)
}

/// The newest version of a plugin that `reference` (`name`, `name@1.0.0`, `name@^1`) allows.
///
/// # Errors
/// `unknown_task`, `unknown_version`, `bad_reference`; `Newer` or `Corrupt` if the record of this version cannot be
/// read; a store's failure.
pub fn plugin(ports: &Ports, reference: &str) -> Result<PluginRecord, FlowError> {
    let (name, wanted) = task_reference(reference)
        .map_err(|why| FlowError::refused("bad_reference", why, "write NAME, NAME@1.0.0 or NAME@^1"))?;
    let rows = every(ports, Kind::Plugin, String::new())?;
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
/// `Newer` or `Corrupt` if the record of the version that the file asks for cannot be read (an older version in its
/// place would be a guess); a store's failure. Errors of the file are findings in the result.
pub fn check(ports: &Ports, text: &str) -> Result<Checked, FlowError> {
    let List { read, unread } = plugins(ports)?;
    let version = |p: PluginRecord| {
        let grants = p.grants.keys().map(|name| Capability::Grant(name));
        let models = p.models.iter().map(|name| Capability::Model(name));
        let kinds = p.model_kinds.iter().map(|kind| Capability::ModelKind(kind));
        let requirements = Requirements::of(grants.chain(models).chain(kinds).map(|capability| capability.to_string()));
        TaskVersion {
            name: p.name,
            version: p.version,
            package: p.package,
            signature: p.signature,
            limits: p.limits,
            requirements,
        }
    };
    let readable = pipeline::ListCatalogue(read.into_iter().map(version).collect());
    let catalogue = Registered { readable, unread: &unread, asked: Cell::new(None) };
    let checked = pipeline::check(text, &catalogue);
    let asked = catalogue.asked.get();
    match asked.and_then(|asked| unread.into_iter().nth(asked)) {
        Some(UnreadRecord { error, .. }) => Err(error.into()),
        None => Ok(checked),
    }
}

/// The published tasks.
struct Registered<'a> {
    readable: pipeline::ListCatalogue,
    unread: &'a [UnreadRecord],
    /// The index in `unread` of a version that was asked for.
    asked: Cell<Option<usize>>,
}

impl Catalogue for Registered<'_> {
    fn resolve(&self, task: &str, req: &VersionReq) -> Result<TaskVersion, Unresolved> {
        let resolved = self.readable.resolve(task, req);
        let newer = |version: &Version| resolved.as_ref().map_or(true, |known| known.version < *version);
        let better = |one: &UnreadRecord| {
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
pub(crate) fn pinned(ports: &Ports, key: &str) -> Result<Pipeline, FlowError> {
    let missing = || StoreError::plain(StoreErrorKind::Missing, format!("read the pipeline {key}"));
    let bytes = ports.ledger.get(Kind::Pipeline, &[key.to_owned()])?.pop().flatten().ok_or_else(missing)?;
    Ok(decode(key, &bytes)?.pipeline)
}

/// Publishes a checked pipeline, with the plugin versions that it is pinned to.
///
/// # Errors
/// `version_exists` if this version was published from another file, or is pinned to other plugin versions; a store's
/// failure.
pub fn push_pipeline(ports: &Ports, pipeline: &Pipeline) -> Result<(Published, Pushed), FlowError> {
    if let Some(newest) = revisions(ports, &VersionKey::new(&pipeline.name, &pipeline.version))?.pop() {
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
    let published = put_revision(ports, pipeline, 1)?;
    Ok((published, Pushed::Created))
}

fn put_revision(ports: &Ports, pipeline: &Pipeline, revision: u32) -> Result<Published, FlowError> {
    let of = VersionKey::new(&pipeline.name, &pipeline.version);
    let key = RevisionKey { pipeline: of, revision }.to_string();
    let value = pipeline.to_json().to_string().into_bytes();
    let put = Operation::Put { record: Record { kind: Kind::Pipeline, key: key.clone(), value: value.clone() } };
    match ports.ledger.commit(&[put])?.pop() {
        Some(Reply::Exists(bytes)) if bytes != value => {
            let there = decode(&key, &bytes)?;
            if there.pipeline.is_the_same(pipeline) {
                return Ok(there);
            }
            let message = format!("another process has just published {key} with another content");
            Err(FlowError::refused(
                "version_exists",
                message,
                "look at it with `dovetail pipeline show`, then publish again",
            ))
        }
        _ => Ok(Published::new(key, revision, pipeline.clone())),
    }
}

fn revisions(ports: &Ports, of: &VersionKey<'_>) -> Result<Vec<Published>, FlowError> {
    let rows = every(ports, Kind::Pipeline, of.revisions())?;
    rows.iter().map(|(key, bytes)| decode(key, bytes)).collect()
}

/// The newest revision of each published version, in the order of publication.
///
/// # Errors
/// A store's failure.
pub fn pipelines(ports: &Ports) -> Result<List<Published>, FlowError> {
    // No older revision stands in for an unreadable one: a run of this version would use the newest revision.
    let mut newest: Vec<(String, String, Vec<u8>)> = Vec::new();
    for (key, bytes) in every(ports, Kind::Pipeline, String::new())? {
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

/// The newest revision of the pipeline version that `reference` (`name` or `name@1.0.0`) names. A name alone means the
/// newest version that is no prerelease, as with tasks.
///
/// # Errors
/// `unknown_pipeline`; `Newer` or `Corrupt` if the record of this revision cannot be read; a store's failure.
pub fn pipeline(ports: &Ports, reference: &str) -> Result<Published, FlowError> {
    let (name, version) = split_reference(reference);
    let rows = every(ports, Kind::Pipeline, String::new())?;
    let keys: Vec<VersionKey<'_>> =
        rows.iter().filter_map(|(key, _)| Some(RevisionKey::parse(key)?.pipeline)).collect();
    let known: BTreeSet<&Version> = keys.iter().filter(|key| key.name == name).map(|key| &key.version).collect();
    let newest = match version {
        None => pipeline::newest(known.iter().copied(), &VersionReq::STAR),
        Some(version) => known.iter().copied().find(|known| known.to_string() == version),
    };
    let only_prereleases = version.is_none() && newest.is_none() && !known.is_empty();
    let newest = newest.map(|version| VersionKey::new(name, version).revisions());
    // Rows are in the order of insertion, so the last matching one is the newest revision.
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
/// submitted before keep their revision.
///
/// # Errors
/// `unknown_pipeline`; a store's failure.
pub fn update_pipeline(ports: &Ports, reference: &str) -> Result<Update, FlowError> {
    let old = pipeline(ports, reference)?;
    let mut checked = check(ports, &old.pipeline.source)?;
    let (new, differences) = match checked.pipeline.take() {
        Some(next) if next != old.pipeline => {
            let differences = diff(&old.pipeline, &next);
            (Some(put_revision(ports, &next, old.revision + 1)?), differences)
        }
        _ => (None, Vec::new()),
    };
    Ok(Update { old, new, differences, checked })
}
