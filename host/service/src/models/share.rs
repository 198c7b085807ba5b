//! Models of a fleet. A machine that installs a model publishes the model with its files, and every worker installs the
//! published models that it lacks. Machines without a shared blob store share no models: then nothing is published.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use dovetail_core::blobs::BlobKind;
use dovetail_core::executor::{ModelUse, Models, ModelsByKind};
use dovetail_core::keys::{Capability, exact_model};
use dovetail_core::ledger::{Kind, Listing, Operation, Record, Reply};
use dovetail_core::pipeline::Pipeline;
use dovetail_core::record::{Form, ModelFile, ModelRecord};
use dovetail_core::sync::lock;
use dovetail_core::vision::ModelKind;
use dovetail_flow::{FlowError, List, Ports, UnreadRecord};
use dovetail_vision::{Installed, ModelStore, default_models};

use crate::{Error, Service};

/// Publishes installed models. Publishing a model again has no effect. Without a shared blob store nothing happens.
///
/// # Errors
/// `name_taken` if the fleet has another model of the name; if a model's files cannot be read; a store's failure.
pub(crate) fn publish(service: &Service, store: &ModelStore, models: &[Installed]) -> Result<(), Error> {
    if !service.settings.has_far_blobs() {
        return Ok(());
    }
    let ports = service.ports()?;
    for model in models {
        let (manifest, files) = store.export(model)?;
        let mut stored = Vec::with_capacity(files.len());
        for bytes in &files {
            stored.push(ModelFile { digest: ports.blobs.put(BlobKind::Model, bytes)?, bytes: bytes.len() as u64 });
        }
        let name = &model.model.name;
        let record = ModelRecord { manifest: manifest.clone(), files: stored, pushed_ms: ports.clock.wall_ms() };
        let record = Record { kind: Kind::Model, key: name.clone(), value: record.encode() };
        if let Some(Reply::Exists(bytes)) = ports.ledger.commit(&[Operation::Put { record }])?.pop()
            && ModelRecord::decode(&bytes, &format!("model {name}"))?.manifest != manifest
        {
            return Err(Error::usage("name_taken", format!("the fleet has another model of the name `{name}`"))
                .help("a published model never changes: give your model another name"));
        }
    }
    Ok(())
}

/// All published models, by name; and the names of records that cannot be read.
///
/// # Errors
/// A store's failure.
pub(crate) fn published(ports: &Ports) -> Result<List<(String, ModelRecord)>, Error> {
    let mut found = List::default();
    for (name, bytes) in
        ports.ledger.list(Kind::Model, &Listing { prefix: String::new(), limit: usize::MAX, newest_first: false })?
    {
        let record = ModelRecord::decode(&bytes, &format!("model {name}")).map_err(FlowError::from);
        found.take(&name, record.map(|record| (name.clone(), record)))?;
    }
    Ok(found)
}

/// Chooses a model for each kind of model that the pipeline's tasks open, and the engine of `vision.required_engine`
/// for all models. A fleet that shares models chooses among its
/// published models, otherwise this machine's models are used. A kind without any model is left out: the run then waits
/// for a worker that has a model of the kind.
///
/// # Errors
/// If the folder of the models cannot be read; a store's failure.
pub fn chosen(service: &Service, pipeline: &Pipeline) -> Result<Models, Error> {
    Ok(Models { by_kind: chosen_by_kind(service, pipeline)?, engine: service.settings.required_engine.clone() })
}

fn chosen_by_kind(service: &Service, pipeline: &Pipeline) -> Result<ModelsByKind, Error> {
    let kinds = dovetail_flow::model_kinds(pipeline);
    if kinds.is_empty() {
        return Ok(ModelsByKind::new());
    }
    let store = service.models_to_read()?;
    if !(service.settings.is_fleet() && service.settings.has_far_blobs()) {
        // An attempt that opens an unreadable model reports the error.
        return Ok(default_models(&store.look()?.0, kinds));
    }
    // A model whose record only a newer dovetail can read is not chosen, and does not prevent the submission.
    let published = published(service.ports_to_read()?)?.read;
    let models: Vec<_> = published.iter().filter_map(|(_, record)| store.describe(&record.manifest).ok()).collect();
    Ok(default_models(&models, kinds))
}

/// Installs the models of a fleet on this machine.
pub struct Sync {
    ports: Ports,
    folder: PathBuf,
    far: bool,
    installed_models: Mutex<InstalledModels>,
}

/// The installed models at the last look.
#[derive(Default)]
struct InstalledModels {
    models: usize,
    kinds: BTreeSet<ModelKind>,
    able: Vec<String>,
    /// The fleet's models whose records could not be read, and were logged.
    unread: BTreeSet<String>,
}

impl Sync {
    /// Opens the folder of the models and the stores. Call [`Sync::once`] to look for models.
    ///
    /// # Errors
    /// As [`Service::models`] and [`Service::ports`].
    pub fn new(service: &Service) -> Result<Self, Error> {
        let store = service.models()?;
        Ok(Self {
            ports: service.ports()?.clone(),
            folder: store.dir().to_owned(),
            far: service.settings.has_far_blobs(),
            installed_models: Mutex::default(),
        })
    }

    fn installed_models(&self) -> MutexGuard<'_, InstalledModels> {
        lock(&self.installed_models)
    }

    /// The capabilities of a worker with the installed models, as of the last look: for each model its name, its
    /// aliases and its exact content; and each kind.
    pub fn able(&self) -> Vec<String> {
        self.installed_models().able.clone()
    }

    /// Whether a model of each kind is installed, as of the last look.
    pub(crate) fn has_all_kinds(&self) -> bool {
        self.installed_models().kinds.len() == ModelKind::ALL.len()
    }

    /// The number of installed models, as of the last look.
    pub(crate) fn models(&self) -> usize {
        self.installed_models().models
    }

    /// Logs each unreadable record once, and not at every look.
    fn log_unread(&self, unread: Vec<UnreadRecord>) {
        let mut installed_models = self.installed_models();
        for UnreadRecord { name, error } in unread {
            if installed_models.unread.insert(name.clone()) {
                tracing::warn!(
                    model = name,
                    err = Error::from(error).chain(),
                    "a model of the fleet cannot be read, and is not installed"
                );
            }
        }
    }

    /// Looks for models, and installs the fleet's models that this machine lacks.
    ///
    /// # Errors
    /// If the folder of the models cannot be read or written; a store's failure.
    pub fn once(&self) -> Result<(), Error> {
        let store = ModelStore::open(&self.folder)?;
        let mut installed = store.list()?;
        // The installed models count also if the fleet's records cannot be read now.
        self.note_installed(&installed);
        if self.far {
            let List { read, unread } = published(&self.ports)?;
            self.log_unread(unread);
            let mut missing = Vec::new();
            for (name, record) in read {
                let digest = store.describe(&record.manifest)?.model.digest;
                if installed.iter().all(|one| one.model.digest != digest) {
                    missing.push((name, record, digest));
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            // Workers that start together lack the same models. The lock makes one of them download each model.
            let _lock = store.lock_installs()?;
            installed = store.list()?;
            for (name, record, digest) in missing {
                if installed.iter().any(|one| one.model.digest == digest) {
                    continue;
                }
                let mut files = Vec::with_capacity(record.files.len());
                for file in &record.files {
                    files.push(self.ports.blobs.get(BlobKind::Model, &file.digest, file.bytes)?);
                }
                let model = store.adopt(&record.manifest, &files)?;
                tracing::info!(model = name, digest = %model.digest, "model installed from the fleet");
            }
            self.note_installed(&store.list()?);
        }
        Ok(())
    }

    fn note_installed(&self, installed: &[Installed]) {
        let models = installed.len();
        let kinds: BTreeSet<ModelKind> = installed.iter().map(|one| one.model.kind).collect();
        let names = installed.iter().flat_map(|one| std::iter::once(&one.model.name).chain(&one.model.aliases));
        let exact = installed.iter().map(|one| exact_model(&ModelUse::new(&*one.model.name, one.model.digest)));
        let able = names
            .map(|name| Capability::Model(name).to_string())
            .chain(exact)
            .chain(kinds.iter().map(|kind| Capability::ModelKind(kind.name()).to_string()))
            .collect();
        let mut installed_models = self.installed_models();
        (installed_models.models, installed_models.kinds, installed_models.able) = (models, kinds, able);
    }
}
