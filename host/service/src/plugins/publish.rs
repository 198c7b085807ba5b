//! Publishing of plugins: a version never changes once it is published.

use std::path::{Path, PathBuf};

use dovetail_core::Digest;
use dovetail_core::record::PluginRecord;
use dovetail_flow::Pushed;
use dovetail_runtime::{Package, Parts, Refusal};

use super::allowed::{all_asked_for, allowed, asked, recorded};
use super::folder::Stale;
use super::inspect::{Good, look};
use crate::documents::{PushedTask, SignatureDocument, TaskDocument, TaskFinding, TaskName, TaskSummary};
use crate::runs::Listed;
use crate::{Error, Notice, Observer, Service};

/// The same package with a component that has no names.
///
/// # Errors
/// If it is no package.
pub fn stripped(package: &[u8]) -> Result<Vec<u8>, Refusal> {
    let package = Package::read(package)?;
    let component = dovetail_runtime::strip(&package.component)?;
    dovetail_runtime::pack(Parts {
        manifest: &package.manifest_text,
        component: &component,
        wit: &package.wit,
        readme: package.readme.as_deref(),
        examples: &package.examples,
    })
}

impl Service {
    /// Looks at a plugin (a folder, a component beside its `plugin.toml`, or a package); the reasons if it is refused.
    ///
    /// # Errors
    /// Only a failure to look.
    pub fn look_at_plugin(
        &self,
        path: &Path,
        component: Option<&Path>,
        stale: Stale,
    ) -> Result<Result<Good, Vec<TaskFinding>>, Error> {
        look(&self.compiler()?, path, component, stale)
    }

    /// Publishes plugins; `given` are the grants that the caller allows. All are looked at before the first one is
    /// published; `refused` gets each plugin that is refused, with the reasons. None: some are refused, so that none is
    /// published.
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
        // The data folder is made first, so that code that is compiled here is kept for the first run.
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
        // First: a misspelt grant is the reason why one is missing.
        all_asked_for(given, &good.iter().flat_map(|plugin| asked(&plugin.manifest.grants)).collect::<Vec<_>>())?;
        let before = Listed::of(dovetail_flow::plugins(ports)?, |record| record);
        for (name, error) in &before.unread {
            observer.notice(&Notice::Unreadable { what: "task", name: name.clone(), error: error.chain() });
        }
        for Good { manifest, .. } in &good {
            // The newest version before it, whatever was granted to that: a new version needs a yes of its own.
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

    fn push_plugin(&self, Good { manifest, description, package }: Good) -> Result<PushedTask, Error> {
        let ports = self.ports()?;
        let record = PluginRecord {
            name: manifest.name,
            version: manifest.version,
            package: Digest::of(&package),
            description: manifest.description,
            signature: description.signature,
            limits: manifest.limits,
            grants: crate::documents::grants(&manifest.grants),
            pure: description.pure,
            model_kinds: if manifest.models.is_some() {
                Vec::new()
            } else {
                description.opens.iter().map(|kind| kind.name().to_owned()).collect()
            },
            models: manifest.models.unwrap_or_default(),
            pushed_ms: ports.clock.wall_ms(),
        };
        let pushed = dovetail_flow::push_plugin(ports, &record, &package)?;
        Ok(PushedTask {
            name: record.name,
            version: record.version,
            package: record.package,
            created: pushed == Pushed::Created,
            repaired: pushed == Pushed::Mended,
        })
    }

    /// Every published task.
    ///
    /// # Errors
    /// A store's failure.
    pub fn list_tasks(&self) -> Result<Listed<TaskSummary>, Error> {
        Ok(Listed::of(dovetail_flow::plugins(self.ports_to_read()?)?, |record| TaskSummary::of(&record)))
    }

    /// A published task (NAME, NAME@1.0.0 or NAME@^1), and its signature in words.
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
    /// Of NAME@VERSION.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let (name, version) = key.split_once('@').unwrap_or((key, ""));
        Self { name: name.to_owned(), version: version.to_owned() }
    }
}
