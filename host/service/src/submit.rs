//! Submission: makes a recorded run from the name of a pipeline and inputs, with all checks. Every front door submits
//! this way.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::blobs::{ArtifactRef, BlobKind};
use dovetail_core::executor::{MISSING_ARTIFACT, Models};
use dovetail_core::pipeline::Severity;
use dovetail_flow::{Published, Pushed};
use serde_json::{Value, json};

use crate::documents::FindingDocument;
use crate::inputs::{InputTypes, Inputs};
use crate::models::required;
use crate::models::share::chosen;
use crate::paths::Shown as _;
use crate::{Error, Notice, Observer, Service, grants};

/// Each living worker sends a heartbeat within this time: the interval of heartbeats is 5 s.
const HEARD: Duration = Duration::from_secs(7);
/// How often the queue is asked for workers during that time.
const ASK: Duration = Duration::from_secs(1);

/// The name of a pipeline as the caller gives it.
#[derive(Debug, Clone, Copy)]
pub enum PipelineName<'a> {
    /// A pipeline file.
    File(&'a Path),
    /// NAME or NAME@VERSION of a published pipeline.
    Published(&'a str),
}

impl<'a> PipelineName<'a> {
    /// A name with a slash or the extension `.json` is that of a file. Any other name is that of a published pipeline.
    ///
    /// # Errors
    /// `unknown_pipeline` for a name that is not UTF-8.
    pub fn of(typed: &'a OsStr) -> Result<Self, Error> {
        let path = Path::new(typed);
        if typed.as_bytes().contains(&b'/') || path.extension().is_some_and(|extension| extension == "json") {
            return Ok(Self::File(path));
        }
        typed.to_str().map(Self::Published).ok_or_else(|| {
            Error::usage("unknown_pipeline", format!("`{}` is not a valid name of a pipeline", typed.shown()))
                .help("see `dovetail pipeline list`; for a file, write ./FILE")
        })
    }
}

/// A pipeline for which runs are submitted.
pub struct Submission<'a> {
    service: &'a Service,
    /// The published pipeline.
    pub published: Published,
    /// The types of the pipeline's inputs.
    pub types: InputTypes,
    /// The models of all runs, chosen before the first run is submitted.
    models: OnceLock<Models>,
}

impl Service {
    /// A submission to the pipeline of this name. A pipeline file is checked and published first.
    ///
    /// # Errors
    /// `unknown_pipeline`, `bad_pipeline`; a store's failure.
    pub fn submission(&self, name: PipelineName<'_>) -> Result<Submission<'_>, Error> {
        let published = match name {
            PipelineName::Published(name) => dovetail_flow::pipeline(self.ports_to_read()?, name)?,
            PipelineName::File(file) => self.published_file(file)?,
        };
        let types = InputTypes::of_pipeline(&published.pipeline);
        Ok(Submission { service: self, published, types, models: OnceLock::new() })
    }

    fn published_file(&self, file: &Path) -> Result<Published, Error> {
        let checked = self.check_pipeline_file(file)?;
        if let Some(pipeline) = checked.pipeline {
            return Ok(dovetail_flow::push_pipeline(self.ports()?, &pipeline)?.0);
        }
        let reference = file.shown();
        let errors: Vec<_> = checked.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
        let mut message = format!("the pipeline `{reference}` has errors");
        for finding in &errors {
            message.push_str(&format!("\n{reference}:{finding}"));
        }
        let found: Vec<FindingDocument> = errors.iter().map(|finding| FindingDocument::of(finding)).collect();
        Err(Error::usage("bad_pipeline", message)
            .help("correct the file; `dovetail pipeline check` lists the same errors")
            .detail("errors", json!(found)))
    }

    /// Checks that a worker lives, for a run that the caller does not wait for. A queue that has just lost its data
    /// lists no worker until the next heartbeats, so that in a fleet this waits for up to 7 s.
    ///
    /// # Errors
    /// `no_worker`; a store's failure.
    pub fn needs_worker(&self, observer: &dyn Observer) -> Result<(), Error> {
        let ledger = &self.ports()?.ledger;
        let until = Instant::now() + if self.settings.is_fleet() { HEARD } else { Duration::ZERO };
        let mut noticed = false;
        while ledger.workers()?.is_empty() {
            if Instant::now() >= until {
                return Err(Error::usage("no_worker", "no worker is alive, so no process would execute the run")
                    .help("start one with `dovetail worker`, or wait for the run"));
            }
            if !std::mem::replace(&mut noticed, true) {
                observer.notice(&Notice::WorkersUnknown);
            }
            std::thread::sleep(ASK);
        }
        Ok(())
    }

    /// Stores the artifacts of inputs that several runs share.
    ///
    /// # Errors
    /// A store's failure.
    pub fn store_inputs(&self, inputs: &Inputs) -> Result<(), Error> {
        inputs.store(self.ports()?.blobs.as_ref())
    }

    /// Checks that each artifact that `values` name is stored, or comes with `inputs`.
    ///
    /// # Errors
    /// `missing_artifact`; a store's failure.
    pub fn look_for_artifacts(&self, inputs: &Inputs, values: &Value) -> Result<(), Error> {
        let blobs = &self.ports()?.blobs;
        for artifact in ArtifactRef::all_in(values) {
            let digest = artifact.digest;
            if !inputs.brings(&digest) && blobs.size(BlobKind::Artifact, &digest)?.is_none() {
                return Err(missing_artifact(&digest.to_string()));
            }
        }
        Ok(())
    }
}

pub(crate) fn missing_artifact(digest: &str) -> Error {
    Error::usage(MISSING_ARTIFACT, format!("the artifact {digest} is not stored"))
        .help("give the file itself: NAME=@FILE")
        .detail("digest", digest)
}

impl Submission<'_> {
    /// Refuses a pipeline if this process would execute the steps, and withholds a grant that they ask for or has not
    /// the engine that the settings require.
    ///
    /// # Errors
    /// `grant_withheld`, `engine_unavailable`.
    pub fn may_run_here(&self) -> Result<(), Error> {
        let steps = &self.published.pipeline.steps;
        grants::of_steps(&self.service.settings, steps)?;
        required::is_here(self.service, steps)
    }

    /// The values with defaults added, checked against the types of the pipeline's inputs.
    ///
    /// # Errors
    /// `bad_input`, with one line for each misfit.
    pub fn check(&self, inputs: &Inputs) -> Result<Value, Error> {
        self.published.pipeline.resolve_inputs(&inputs.values).map_err(|errors| self.types.misfits(&errors))
    }

    /// Submits a run with checked values ([`Submission::check`]). The artifacts of `inputs` are stored first. The ID of
    /// a run with a key is made from the key, so that a second submission with the key gives the first run.
    ///
    /// # Errors
    /// `missing_artifact`, `missing_package`, `input_too_large`, `run_differs`, ...; a store's failure.
    pub fn submit(&self, inputs: &Inputs, values: Value, key: Option<&[u8]>) -> Result<RunId, Error> {
        let ports = self.service.ports()?;
        let models = self.models()?;
        inputs.store(ports.blobs.as_ref())?;
        let run = match key {
            Some(key) => dovetail_flow::keyed_run_id(&self.published.pipeline.name, key),
            None => dovetail_flow::new_run_id(),
        };
        let answers = dovetail_flow::submit_with(ports, &self.published, models, vec![(run.clone(), values)])?;
        let pushed = answers.into_iter().next().unwrap_or(Ok(Pushed::Created))?;
        if pushed == Pushed::Same {
            tracing::info!(%run, "submitted before");
        }
        Ok(run)
    }

    /// Chooses the models of the runs now, so that an error comes before anything is stored.
    ///
    /// # Errors
    /// If the models cannot be read.
    pub fn choose_models(&self) -> Result<(), Error> {
        self.models().map(drop)
    }

    /// The models that are recorded for each run: the same for all runs of this submission.
    fn models(&self) -> Result<&Models, Error> {
        if let Some(models) = self.models.get() {
            return Ok(models);
        }
        let models = chosen(self.service, &self.published.pipeline)?;
        Ok(self.models.get_or_init(|| models))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Overrides, Settings};
    use dovetail_core::Digest;

    #[test]
    fn an_artifact_that_is_only_named_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let overrides = Overrides { data: Some(folder.path().join("data")), ..Overrides::default() };
        let service = Service::new(Settings::load(&overrides, &Default::default(), folder.path()).unwrap());
        let named = |digest: Digest| json!({ "image": { "$artifact": digest, "media_type": "image/png" } });
        let error = service.look_for_artifacts(&Inputs::default(), &named(Digest::of(b"x"))).unwrap_err();
        assert_eq!((error.code, error.blame), ("missing_artifact", crate::Blame::Usage));
        let mut brought = Inputs::default();
        brought.artifact(b"x".to_vec(), None);
        service.look_for_artifacts(&brought, &named(Digest::of(b"x"))).unwrap();
        service.store_inputs(&brought).unwrap();
        service.look_for_artifacts(&Inputs::default(), &named(Digest::of(b"x"))).unwrap();
    }
}
