//! Publishing of plugins. A published version never changes.

use std::path::{Path, PathBuf};

use dovetail_core::Digest;
use dovetail_core::keys::{VersionKey, split_reference};
use dovetail_core::manifest::Manifest;
use dovetail_core::record::PluginRecord;
use dovetail_flow::Pushed;
use dovetail_runtime::{Description, Package, PackageContent, Refusal};

use super::allowed::{all_asked_for, allowed, asked, recorded};
use super::folder::Stale;
use super::inspect::{AcceptedPlugin, look};
use crate::documents::{PushedTask, SignatureDocument, TaskDocument, TaskFinding, TaskName, TaskSummary};
use crate::runs::ReadableList;
use crate::{Error, Notice, Observer, Service};

/// The package with the names of functions removed from its component.
///
/// # Errors
/// If the bytes are not a valid package.
pub fn stripped(package: &[u8]) -> Result<Vec<u8>, Refusal> {
    let package = Package::read(package)?;
    let component = dovetail_runtime::strip(&package.component)?;
    dovetail_runtime::pack(PackageContent {
        manifest: &package.manifest_text,
        component: &component,
        wit: &package.wit,
        readme: package.readme.as_deref(),
        examples: &package.examples,
    })
}

/// The record of a plugin that is published at `pushed_ms`, in milliseconds since 1970.
#[must_use]
pub fn plugin_record(manifest: Manifest, description: Description, package: &[u8], pushed_ms: u64) -> PluginRecord {
    PluginRecord {
        name: manifest.name,
        version: manifest.version,
        package: Digest::of(package),
        description: manifest.description,
        signature: description.signature,
        limits: manifest.limits,
        grants: manifest.grants.recorded(),
        pure: description.pure,
        model_kinds: if manifest.models.is_some() {
            Vec::new()
        } else {
            description.opens.iter().map(|kind| kind.name().to_owned()).collect()
        },
        models: manifest.models.unwrap_or_default(),
        pushed_ms,
    }
}

impl Service {
    /// Inspects a plugin: a folder, a component beside its `plugin.toml`, or a package. The inner error has the
    /// findings if the plugin is refused.
    ///
    /// # Errors
    /// `missing_file`, `not_built`, `stale_component`, `bad_option`, ...; the host's failure.
    pub fn look_at_plugin(
        &self,
        path: &Path,
        component: Option<&Path>,
        stale: Stale,
    ) -> Result<Result<AcceptedPlugin, Vec<TaskFinding>>, Error> {
        look(&self.compiler()?, path, component, stale)
    }

    /// Publishes plugins; `given` are the grants that the caller allows. All plugins are inspected before the first one
    /// is published. `refused` is called with each refused plugin and its findings. None if a plugin was refused: then
    /// none is published.
    ///
    /// # Errors
    /// `bad_grant`, `grant_needed`, `version_taken`; a store's failure.
    pub fn push_plugins(
        &self,
        paths: &[PathBuf],
        given: &[String],
        observer: &dyn Observer,
        mut refused: impl FnMut(&Path, &[TaskFinding]),
    ) -> Result<Option<Vec<PushedTask>>, Error> {
        // The data folder is made first, so that the code that the inspection compiles is kept for the first run.
        let ports = self.ports()?;
        let compiler = self.compiler()?;
        let (mut good, mut broken) = (Vec::new(), false);
        for path in paths {
            match look(&compiler, path, None, Stale::Refused)? {
                Ok(plugin) => good.push(plugin),
                Err(findings) => {
                    refused(path, &findings);
                    broken = true;
                }
            }
        }
        if broken {
            return Ok(None);
        }
        // This check comes before the one for missing grants: a misspelt grant is the cause of a missing one.
        all_asked_for(given, &good.iter().flat_map(|plugin| asked(&plugin.manifest.grants)).collect::<Vec<_>>())?;
        let before = ReadableList::of(dovetail_flow::plugins(ports)?, |record| record);
        for (name, error) in &before.unread {
            observer.notice(&Notice::Unreadable { what: "task", name: name.clone(), error: error.chain() });
        }
        for AcceptedPlugin { manifest, .. } in &good {
            // The newest earlier version is only named in the message. Each version needs its own permission.
            let older =
                before.read.iter().filter(|known| known.name == manifest.name && known.version < manifest.version);
            let known = older
                .max_by(|a, b| a.version.cmp(&b.version))
                .map(|known| (known.version.to_string(), recorded(&known.grants)));
            allowed(&manifest.name, &manifest.grants, given, known.as_ref())?;
        }
        let mut tasks = Vec::new();
        for plugin in good {
            tasks.push(self.push_plugin(plugin)?);
        }
        Ok(Some(tasks))
    }

    fn push_plugin(
        &self,
        AcceptedPlugin { manifest, description, package }: AcceptedPlugin,
    ) -> Result<PushedTask, Error> {
        let ports = self.ports()?;
        let record = plugin_record(manifest, description, &package, ports.clock.wall_ms());
        let pushed = dovetail_flow::push_plugin(ports, &record, &package)?;
        Ok(PushedTask {
            name: record.name,
            version: record.version,
            package: record.package,
            created: pushed == Pushed::Created,
            repaired: pushed == Pushed::Mended,
        })
    }

    /// All published tasks.
    ///
    /// # Errors
    /// A store's failure.
    pub fn list_tasks(&self) -> Result<ReadableList<TaskSummary>, Error> {
        Ok(ReadableList::of(dovetail_flow::plugins(self.ports_to_read()?)?, |record| TaskSummary::of(&record)))
    }

    /// A published task (NAME, NAME@1.0.0 or NAME@^1), and its signature as text for people.
    ///
    /// # Errors
    /// `unknown_task`; a store's failure.
    pub fn task(&self, reference: &str) -> Result<(TaskDocument, String), Error> {
        let record = dovetail_flow::plugin(self.ports_to_read()?, reference)?;
        let signature = dovetail_core::wit::show::signature(&record.signature);
        let document = TaskDocument {
            summary: TaskSummary::of(&record),
            limits: record.limits,
            signature: SignatureDocument::of(&record.signature),
        };
        Ok((document, signature))
    }
}

impl TaskSummary {
    /// The name and the version: `face-detection@1.0.0`.
    #[must_use]
    pub fn reference(&self) -> String {
        VersionKey::new(&self.name, &self.version).to_string()
    }

    fn of(record: &PluginRecord) -> Self {
        Self {
            name: record.name.clone(),
            version: record.version.clone(),
            description: record.description.clone(),
            package: record.package,
            pure: record.pure,
            grants: record.grants.clone(),
        }
    }
}

impl TaskName {
    /// The name and version of a record's key, NAME@VERSION.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let (name, version) = split_reference(key);
        Self { name: name.to_owned(), version: version.unwrap_or_default().to_owned() }
    }
}
