//! The models of a fleet: the machine that installs a model publishes it with its files, and every worker installs the
//! models that it lacks. Machines that share no blob store share no models, and nothing of this happens.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dovetail_core::blobs::BlobKind;
use dovetail_core::executor::{ModelUse, Models};
use dovetail_core::ledger::{Item, Kind, Listing, MODEL, MODEL_KIND, Record, Reply, exact_model};
use dovetail_core::pipeline::Pipeline;
use dovetail_core::record::{Form, ModelFile, ModelRecord};
use dovetail_core::vision::ModelKind;
use dovetail_flow::{FlowError, List, Ports, Unread};
use dovetail_vision::{Installed, ModelStore, default_models};

use crate::{Error, Service};

/// Publishes installed models. The same again has no effect; another model of the same name is refused.
pub fn publish(service: &Service, store: &ModelStore, models: &[Installed]) -> Result<(), Error> {
    if !service.settings.has_far_blobs() {
        return Ok(());
    }
    let parts = service.ports()?;
    for model in models {
        let (manifest, files) = store.export(model)?;
        let mut stored = Vec::with_capacity(files.len());
        for bytes in &files {
            stored.push(ModelFile { digest: parts.blobs.put(BlobKind::Model, bytes)?, bytes: bytes.len() as u64 });
        }
        let name = &model.model.name;
        let record = ModelRecord { manifest: manifest.clone(), files: stored, pushed_ms: parts.clock.wall_ms() };
        let record = Record { kind: Kind::Model, key: name.clone(), value: record.encode() };
        if let Some(Reply::Exists(bytes)) = parts.ledger.commit(&[Item::Put { record }])?.pop()
            && ModelRecord::decode(&bytes, &format!("model {name}"))?.manifest != manifest
        {
            return Err(Error::usage("name_taken", format!("the fleet has another model of the name `{name}`"))
                .help("a published model never changes: give yours another name"));
        }
    }
    Ok(())
}

/// Every published model.
pub fn published(parts: &Ports) -> Result<List<(String, ModelRecord)>, Error> {
    let mut found = List::default();
    for (name, bytes) in
        parts.ledger.list(Kind::Model, &Listing { prefix: String::new(), limit: usize::MAX, newest_first: false })?
    {
        let record = ModelRecord::decode(&bytes, &format!("model {name}")).map_err(FlowError::from);
        found.take(&name, record.map(|record| (name.clone(), record)))?;
    }
    Ok(found)
}

/// The models of a new run: of a fleet that shares models those that it has published, else those of this machine.
/// Kinds of which there is none are left out: the run waits for a worker that has one.
pub fn chosen(service: &Service, pipeline: &Pipeline) -> Result<Models, Error> {
    let kinds = dovetail_flow::model_kinds(pipeline);
    if kinds.is_empty() {
        return Ok(Models::new());
    }
    let store = service.models_to_read()?;
    if !(service.settings.is_fleet() && service.settings.has_far_blobs()) {
        // What cannot be read is told by whoever opens it.
        return Ok(default_models(&store.look()?.0, kinds));
    }
    // One that only a newer dovetail can read is no choice of ours, and keeps nobody from submitting.
    let published = published(service.ports_to_read()?)?.read;
    let models: Vec<_> = published.iter().filter_map(|(_, record)| store.describe(&record.manifest).ok()).collect();
    Ok(default_models(&models, kinds))
}

/// Brings the models of a fleet to this machine, now and then.
pub struct Sync {
    parts: Ports,
    folder: PathBuf,
    far: bool,
    seen: Mutex<InstalledModels>,
}

/// What was installed at the last look.
#[derive(Default)]
struct InstalledModels {
    models: usize,
    kinds: BTreeSet<ModelKind>,
    able: Vec<String>,
    /// Of the fleet's, those that could not be read.
    unread: BTreeSet<String>,
}

impl Sync {
    pub fn new(service: &Service) -> Result<Self, Error> {
        let store = service.models()?;
        Ok(Self {
            parts: service.ports()?.clone(),
            folder: store.dir().to_owned(),
            far: service.settings.has_far_blobs(),
            seen: Mutex::default(),
        })
    }

    fn seen(&self) -> MutexGuard<'_, InstalledModels> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The capabilities that come with what is installed, as of the last look: each model by its names and by its
    /// content, and the kinds.
    pub fn able(&self) -> Vec<String> {
        self.seen().able.clone()
    }

    /// Whether there is a model of each kind, as of the last look.
    pub fn has_all_kinds(&self) -> bool {
        self.seen().kinds.len() == ModelKind::ALL.len()
    }

    /// How many models are installed, as of the last look.
    pub fn models(&self) -> usize {
        self.seen().models
    }

    /// Says once of each that it cannot be read: whoever looks now and then would say it for ever.
    fn tell_unread(&self, unread: Vec<Unread>) {
        let mut seen = self.seen();
        for Unread { name, error } in unread {
            if seen.unread.insert(name.clone()) {
                tracing::warn!(
                    model = name,
                    err = Error::from(error).chain(),
                    "a model of the fleet cannot be read, and is not installed"
                );
            }
        }
    }

    /// Installs what is missing here.
    pub fn once(&self) -> Result<(), Error> {
        let store = ModelStore::open(&self.folder)?;
        let mut installed = store.list()?;
        // Also where the fleet's cannot be read now.
        self.see(&installed);
        if self.far {
            let List { read, unread } = published(&self.parts)?;
            self.tell_unread(unread);
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
            // Workers that were started together lack the same ones: one of them fetches each.
            let _turn = store.take_turn()?;
            installed = store.list()?;
            for (name, record, digest) in missing {
                if installed.iter().any(|one| one.model.digest == digest) {
                    continue;
                }
                let mut files = Vec::with_capacity(record.files.len());
                for file in &record.files {
                    files.push(self.parts.blobs.get(BlobKind::Model, &file.digest, file.bytes)?);
                }
                let model = store.adopt(&record.manifest, &files)?;
                tracing::info!(model = name, digest = %model.digest, "model installed from the fleet");
            }
            self.see(&store.list()?);
        }
        Ok(())
    }

    fn see(&self, installed: &[Installed]) {
        let models = installed.len();
        let kinds: BTreeSet<ModelKind> = installed.iter().map(|one| one.model.kind).collect();
        let names = installed.iter().flat_map(|one| std::iter::once(&one.model.name).chain(&one.model.aliases));
        let exact = installed
            .iter()
            .map(|one| exact_model(&ModelUse { name: one.model.name.clone(), digest: one.model.digest }));
        let able = names
            .map(|name| format!("{MODEL}{name}"))
            .chain(exact)
            .chain(kinds.iter().map(|kind| format!("{MODEL_KIND}{}", kind.name())))
            .collect();
        let mut seen = self.seen();
        (seen.models, seen.kinds, seen.able) = (models, kinds, able);
    }
}
