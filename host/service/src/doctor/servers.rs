//! Checks of a fleet's servers, and of the packages and models in them. If one server fails, the others are checked all
//! the same.

use std::collections::BTreeMap;

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use dovetail_core::keys::VersionKey;
use dovetail_flow::{Ownership, SystemClock, ownership};
use dovetail_runtime::MAX_PACKAGE;
use dovetail_stores::{FileBlobs, S3Blobs, ServerReport};

use super::{DEFAULT_MODELS, Finding, failed, good, problem, warning};
use crate::models::share;
use crate::paths::Shown as _;
use crate::words::count;
use crate::{Error, Service};

/// How many names of a long list are shown.
const SHOWN: usize = 5;
/// How much of the packages in an S3 store is read without `--deep`, in bytes.
const FETCHED: u64 = 64 << 20;

/// Which servers can be used for further checks.
pub(super) struct Servers {
    /// Queue and records work, so that their content can be checked.
    pub(super) records: bool,
    /// The S3 store, without this machine's cache. None if there is none or if it does not work.
    blobs: Option<S3Blobs>,
}

/// Checks each server that the settings name.
pub(super) fn check(service: &Service, findings: &mut Vec<Finding>) -> Servers {
    let config = &service.settings;
    let mut records = true;
    if config.is_fleet() {
        let checked = add_findings("queue", dovetail_stores::check_window(config.queue.url(), &SystemClock), findings);
        records &= checked.is_some_and(|report| report.is_usable());
    }
    if config.meta.scheme() != "sqlite" {
        let checked = add_findings(
            "records",
            dovetail_stores::check_meta(config.meta.url(), &config.fleet, &SystemClock),
            findings,
        );
        // A database that no fleet uses has no content to check.
        records &= checked.is_some_and(|report| report.is_usable() && !report.unused);
    }
    let mut blobs = None;
    if config.meta.scheme() != "sqlite" && !config.has_far_blobs() {
        let found = format!(
            "in {}, while the records are on a server: processes with another data folder do not find them",
            config.data.shown()
        );
        findings.push(warning(
            "blobs",
            found,
            "name an S3 store (`blobs = \"s3://BUCKET?endpoint=...\"`), or give every process this data folder",
        ));
    }
    if config.has_far_blobs() {
        let checked = match dovetail_stores::check_blobs(config.blobs.url(), &SystemClock) {
            Ok((report, far)) => {
                blobs = Some(far);
                Ok(report)
            }
            Err(error) => {
                // With an invalid setting of the blob store no store opens, and every other line would repeat the
                // error.
                records &= error.kind != StoreErrorKind::Invalid;
                Err(error)
            }
        };
        add_findings("blobs", checked, findings);
    }
    if records && config.is_fleet() {
        match service.ports() {
            Ok(_) => findings.push(workers(service)),
            // Each server works, but they do not belong together. Every other line would repeat the error.
            Err(error) => {
                findings.push(failed("records", error));
                records = false;
            }
        }
    }
    Servers { records, blobs }
}

/// Adds a line for the server, and a line for each remark about it. Gives the look if the server answered.
fn add_findings(
    what: &'static str,
    checked: Result<ServerReport, StoreError>,
    findings: &mut Vec<Finding>,
) -> Option<ServerReport> {
    match checked {
        Ok(report) => {
            findings.push(good(what, report.found.clone()));
            for issue in &report.issues {
                let new = if issue.grave { problem } else { warning };
                findings.push(new(what, issue.found.clone(), issue.remedy.clone()));
            }
            Some(report)
        }
        Err(error) => {
            // The error's text ends with the remedy. The general remedy only says to run doctor.
            findings.push(Finding { remedy: String::new(), ..failed(what, error.into()) });
            None
        }
    }
}

fn workers(service: &Service) -> Finding {
    match service.ports().and_then(|ports| Ok(ports.ledger.workers()?)) {
        Ok(living) if living.is_empty() => warning(
            "workers",
            "no worker is alive: runs wait",
            "start one with `dovetail worker` on any machine of the fleet",
        ),
        Ok(living) => {
            good("workers", format!("{} (see `dovetail workers list`)", count(living.len(), "living worker")))
        }
        Err(error) => failed("workers", error),
    }
}

/// Checks that the blobs belong to the records. Does not write an owner.
pub(super) fn owner(service: &Service, servers: &Servers) -> Result<Option<Finding>, Error> {
    const WHAT: &str = "blobs";
    // An S3 store that does not work has a line already.
    if service.settings.has_far_blobs() && servers.blobs.is_none() {
        return Ok(None);
    }
    let ledger = &*service.ports_to_read()?.ledger;
    let standing = match &servers.blobs {
        Some(far) => ownership(ledger, far)?,
        None => ownership(ledger, &FileBlobs::new(&service.settings.data))?,
    };
    let shared = !service.settings.is_together();
    Ok(match standing {
        Ownership::Ours if shared => Some(good(WHAT, "they belong to these records")),
        Ownership::Nobodys { empty: true } if shared => {
            Some(good(WHAT, "they belong to no records yet: the first records that store a blob own them"))
        }
        Ownership::Nobodys { empty: false } if shared => Some(warning(
            WHAT,
            "the store has blobs but no owner: the first records that store a blob own them, and `gc` waits for that",
            "start a worker of the fleet that they belong to, or publish from one of its machines \
             (`dovetail task push`)",
        )),
        Ownership::Ours | Ownership::Nobodys { .. } => None,
        Ownership::OfOthers => Some(problem(
            WHAT,
            "they belong to other records: this machine stores nothing there, and `gc` removes nothing",
            "name another prefix (`blobs`) or another data folder; or, to join the fleet that owns the blobs, name its \
             `queue` and `meta` as well",
        )),
    })
}

/// Checks that the blob store holds the packages of all published tasks and pipelines, and the fleet's models.
pub(super) fn contents(service: &Service, servers: &Servers, deep: bool, findings: &mut Vec<Finding>) {
    // An S3 store that does not work has a line already.
    if service.settings.has_far_blobs() && servers.blobs.is_none() {
        return;
    }
    let left = if servers.blobs.is_some() && !deep { FETCHED } else { u64::MAX };
    findings.push(packages(service, servers, left).unwrap_or_else(|error| failed("packages", error)));
    if service.settings.has_far_blobs() {
        findings.push(models(service, servers, deep).unwrap_or_else(|error| failed("fleet's models", error)));
    }
}

impl Servers {
    /// The blob store, without a cache.
    fn store<'a>(&'a self, service: &'a Service) -> Result<&'a dyn Blobs, Error> {
        Ok(match &self.blobs {
            Some(far) => far,
            None => &*service.ports_to_read()?.blobs,
        })
    }
}

/// The names of missing and of damaged blobs.
#[derive(Default)]
struct Holes {
    missing: Vec<String>,
    damaged: Vec<String>,
}

impl Holes {
    /// Notes a result of [`Blobs::is_whole`]: None for a missing blob, false for a damaged one.
    fn note(&mut self, name: &str, whole: Option<bool>) {
        match whole {
            None => self.missing.push(name.to_owned()),
            Some(false) => self.damaged.push(name.to_owned()),
            Some(true) => {}
        }
    }

    fn finding(&self, what: &'static str, remedy: &str) -> Option<Finding> {
        let named = [("not in the blob store", &self.missing), ("damaged", &self.damaged)];
        let found: Vec<String> = named
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(how, names)| format!("{how}: {}", listed(names)))
            .collect();
        (!found.is_empty()).then(|| problem(what, found.join("; "), remedy))
    }
}

/// Checks packages and reads at most `left` bytes. Gives the missing and damaged ones, and the number of packages of
/// which only the size was checked.
fn look_through(
    store: &dyn Blobs,
    packages: &BTreeMap<Digest, String>,
    mut left: u64,
) -> Result<(Holes, usize), StoreError> {
    let (mut holes, mut unread) = (Holes::default(), 0);
    for (digest, name) in packages {
        let size = store.size(BlobKind::Package, digest)?;
        match size.and_then(|size| left.checked_sub(size)) {
            Some(rest) => {
                left = rest;
                holes.note(name, store.is_whole(BlobKind::Package, digest, MAX_PACKAGE)?);
            }
            None => {
                unread += usize::from(size.is_some());
                holes.note(name, size.map(|size| size <= MAX_PACKAGE));
            }
        }
    }
    Ok((holes, unread))
}

/// Checks the packages of published tasks and pipelines. At most `left` bytes are read.
fn packages(service: &Service, servers: &Servers, left: u64) -> Result<Finding, Error> {
    let (ports, store) = (service.ports_to_read()?, servers.store(service)?);
    // Each package is checked once, under the name of a task, and of a pipeline that uses it.
    let mut packages: BTreeMap<Digest, String> = BTreeMap::new();
    for plugin in dovetail_flow::plugins(ports)?.read {
        packages.entry(plugin.package).or_insert(VersionKey::new(&plugin.name, &plugin.version).to_string());
    }
    let mut used = 0;
    for published in dovetail_flow::pipelines(ports)?.read {
        for step in &published.pipeline.steps {
            used += 1;
            packages.insert(step.package, format!("{} (of {})", step.task_reference(), published.pipeline.reference()));
        }
    }
    let (holes, unread) = look_through(store, &packages, left)?;
    if packages.is_empty() {
        return Ok(good("packages", "none published yet"));
    }
    let remedy = "publish the same packages again with `dovetail task push`";
    let unread = if unread == 0 { String::new() } else { format!("; {unread} of them not read (`--deep` reads all)") };
    let fine = || {
        good("packages", format!("all {} are stored, with those of {}{unread}", packages.len(), count(used, "step")))
    };
    Ok(holes.finding("packages", remedy).unwrap_or_else(fine))
}

fn models(service: &Service, servers: &Servers, deep: bool) -> Result<Finding, Error> {
    let store = servers.store(service)?;
    let models = share::published(service.ports_to_read()?)?.read;
    let mut holes = Holes::default();
    for (name, record) in &models {
        for file in &record.files {
            let whole = match store.size(BlobKind::Model, &file.digest)? {
                Some(size) if size == file.bytes && deep => {
                    store.is_whole(BlobKind::Model, &file.digest, file.bytes)?
                }
                size => size.map(|size| size == file.bytes),
            };
            holes.note(name, whole);
            if whole != Some(true) {
                break;
            }
        }
    }
    if let Some(finding) =
        holes.finding("fleet's models", "publish them again: `dovetail models pull`, or `models add`")
    {
        return Ok(finding);
    }
    let unknown: Vec<String> = DEFAULT_MODELS
        .iter()
        .filter(|name| models.iter().all(|(known, _)| known != *name))
        .map(|n| (*n).to_owned())
        .collect();
    if unknown.is_empty() {
        return Ok(good(
            "fleet's models",
            format!("{} stored, including the {} default models", models.len(), DEFAULT_MODELS.len()),
        ));
    }
    let found = format!("{} stored; missing default models: {}", models.len(), listed(&unknown));
    Ok(warning("fleet's models", found, "publish the default ones with `dovetail models pull`, once from any machine"))
}

pub(super) fn listed(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileBlobs::new(folder.path());
        let content: Vec<Vec<u8>> = (0..3).map(|n| vec![n; 100]).collect();
        let mut packages: BTreeMap<Digest, String> =
            content.iter().map(|bytes| (store.put(BlobKind::Package, bytes).unwrap(), bytes[0].to_string())).collect();
        let look = |packages: &BTreeMap<Digest, String>, left| {
            let (holes, unread) = look_through(&store, packages, left).unwrap();
            (holes.missing, holes.damaged, unread)
        };
        assert_eq!(look(&packages, 300), (vec![], vec![], 0));
        assert_eq!(look(&packages, 299), (vec![], vec![], 1));
        // The package that is read last is damaged, and one more package was never stored.
        let (last, name) = packages.iter().next_back().map(|(digest, name)| (*digest, name.clone())).unwrap();
        std::fs::write(store.path(BlobKind::Package, &last), [9; 100]).unwrap();
        packages.insert(Digest::of(b"never"), "gone".to_owned());
        assert_eq!(look(&packages, 300), (vec!["gone".to_owned()], vec![name], 0));
        assert_eq!(
            look(&packages, 200),
            (vec!["gone".to_owned()], vec![], 1),
            "its presence is told without reading it"
        );
        assert_eq!(look(&packages, 0).2, 3);
    }
}
