//! The servers of a fleet, and whether they hold what its pipelines need. One that fails is a line, and the others are
//! looked at all the same.

use std::collections::BTreeMap;

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use dovetail_flow::{Ownership, SystemClock, ownership};
use dovetail_runtime::MAX_PACKAGE;
use dovetail_stores::{FileBlobs, Look, S3Blobs};

use super::{DEFAULT_MODELS, Finding, failed, good, problem, warning};
use crate::models::share;
use crate::paths::Shown as _;
use crate::words::count;
use crate::{Error, Service};

/// How many names of a long list are shown.
const SHOWN: usize = 5;
/// The most that is read of the packages in a far store, unless all is to be read, in bytes.
const FETCHED: u64 = 64 << 20;

/// What the servers are good for.
pub(super) struct Servers {
    /// Queue and records work: what they hold can be looked at.
    pub(super) records: bool,
    /// The far blob store itself, without the cache of this machine.
    blobs: Option<S3Blobs>,
}

/// Looks at each server that the settings name.
pub(super) fn look(service: &Service, findings: &mut Vec<Finding>) -> Servers {
    let config = &service.settings;
    let mut records = true;
    if config.is_fleet() {
        let seen = told("queue", dovetail_stores::check_window(config.queue.url(), &SystemClock), findings);
        records &= seen.is_some_and(|look| look.is_usable());
    }
    if config.meta.scheme() != "sqlite" {
        let seen =
            told("records", dovetail_stores::check_meta(config.meta.url(), &config.fleet, &SystemClock), findings);
        // In a database that no fleet uses there is nothing more to see.
        records &= seen.is_some_and(|look| look.is_usable() && !look.unused);
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
        let seen = match dovetail_stores::check_blobs(config.blobs.url(), &SystemClock) {
            Ok((look, far)) => {
                blobs = Some(far);
                Ok(look)
            }
            Err(error) => {
                // Without a store that can be opened nothing can, and every other line would say this again.
                records &= error.kind != StoreErrorKind::Invalid;
                Err(error)
            }
        };
        told("blobs", seen, findings);
    }
    if records && config.is_fleet() {
        match service.ports() {
            Ok(_) => findings.push(workers(service)),
            // Each works, and they do not belong together: every other line that needs them would say this again.
            Err(error) => {
                findings.push(failed("records", error));
                records = false;
            }
        }
    }
    Servers { records, blobs }
}

/// One line for the server, one for each thing that should be otherwise.
fn told(what: &'static str, seen: Result<Look, StoreError>, findings: &mut Vec<Finding>) -> Option<Look> {
    match seen {
        Ok(look) => {
            findings.push(good(what, look.found.clone()));
            for remark in &look.remarks {
                let new = if remark.grave { problem } else { warning };
                findings.push(new(what, remark.found.clone(), remark.remedy.clone()));
            }
            Some(look)
        }
        Err(error) => {
            // What the chain says ends with the remedy; that doctor is to be asked is no help here.
            findings.push(Finding { remedy: String::new(), ..failed(what, error.into()) });
            None
        }
    }
}

fn workers(service: &Service) -> Finding {
    match service.ports().and_then(|parts| Ok(parts.ledger.workers()?)) {
        Ok(living) if living.is_empty() => {
            warning("workers", "none lives: runs wait", "start one with `dovetail worker` on any machine of the fleet")
        }
        Ok(living) => {
            good("workers", format!("{} (see `dovetail workers list`)", count(living.len(), "living worker")))
        }
        Err(error) => failed("workers", error),
    }
}

/// Whether the blobs belong to the records: nothing is written down by looking.
pub(super) fn owner(service: &Service, servers: &Servers) -> Result<Option<Finding>, Error> {
    const WHAT: &str = "blobs";
    // A far store that does not work was told.
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
            Some(good(WHAT, "they belong to no records yet: to the first that store one"))
        }
        Ownership::Nobodys { empty: false } if shared => Some(warning(
            WHAT,
            "it is not written down whose they are: the first records that store one there take them, and \
             `gc` waits for that",
            "start a worker of the fleet that they belong to, or publish from one of its machines \
             (`dovetail task push`)",
        )),
        Ownership::Ours | Ownership::Nobodys { .. } => None,
        Ownership::OfOthers => Some(problem(
            WHAT,
            "they belong to other records than these: nothing is stored there, and `gc` removes nothing",
            "name another prefix (`blobs`) or another data folder; or, if this machine is to be one of the fleet \
             that has them, name its `queue` and `meta`, too",
        )),
    })
}

/// Whether the blob store holds the packages of what is published, and the models.
pub(super) fn contents(service: &Service, servers: &Servers, deep: bool, findings: &mut Vec<Finding>) {
    // A far store that does not work was told.
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
    /// The blob store itself.
    fn store<'a>(&'a self, service: &'a Service) -> Result<&'a dyn Blobs, Error> {
        Ok(match &self.blobs {
            Some(far) => far,
            None => &*service.ports_to_read()?.blobs,
        })
    }
}

/// Names of what is not as it should be, by how.
#[derive(Default)]
struct Holes {
    missing: Vec<String>,
    damaged: Vec<String>,
}

impl Holes {
    /// Notes what `is_whole` said.
    fn note(&mut self, name: &str, whole: Option<bool>) {
        match whole {
            None => self.missing.push(name.to_owned()),
            Some(false) => self.damaged.push(name.to_owned()),
            Some(true) => {}
        }
    }

    fn told(&self, what: &'static str, remedy: &str) -> Option<Finding> {
        let named = [("not in the blob store", &self.missing), ("damaged", &self.damaged)];
        let found: Vec<String> = named
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(how, names)| format!("{how}: {}", listed(names)))
            .collect();
        (!found.is_empty()).then(|| problem(what, found.join("; "), remedy))
    }
}

/// What is wrong with these packages, and how many of them were not read because no more bytes than `left` may be.
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

/// `left`: how many bytes may be read.
fn packages(service: &Service, servers: &Servers, left: u64) -> Result<Finding, Error> {
    let (parts, store) = (service.ports_to_read()?, servers.store(service)?);
    // Each package once, by a name that a person knows.
    let mut packages: BTreeMap<Digest, String> = BTreeMap::new();
    for plugin in dovetail_flow::plugins(parts)?.read {
        packages.entry(plugin.package).or_insert(format!("{}@{}", plugin.name, plugin.version));
    }
    let mut used = 0;
    for published in dovetail_flow::pipelines(parts)?.read {
        for step in &published.pipeline.steps {
            used += 1;
            packages.insert(
                step.package,
                format!("{}@{} (of {})", step.task, step.version, published.pipeline.reference()),
            );
        }
    }
    let (holes, unread) = look_through(store, &packages, left)?;
    if packages.is_empty() {
        return Ok(good("packages", "none published yet"));
    }
    let remedy = "publish the very same packages again with `dovetail task push`";
    let unread = if unread == 0 { String::new() } else { format!("; {unread} of them not read (`--deep` reads all)") };
    let fine = || {
        good("packages", format!("all {} are stored, with those of {}{unread}", packages.len(), count(used, "step")))
    };
    Ok(holes.told("packages", remedy).unwrap_or_else(fine))
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
    if let Some(finding) = holes.told("fleet's models", "publish them again: `dovetail models pull`, or `models add`") {
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
            format!("{} stored, the {} default ones among them", models.len(), DEFAULT_MODELS.len()),
        ));
    }
    let found = format!("{} stored; not among them: {}", models.len(), listed(&unknown));
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
        // The last one that is looked at is damaged, and one more was never stored.
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
