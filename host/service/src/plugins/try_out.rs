//! Execution of a single task under the limits that it has in a pipeline. Nothing is recorded: packages and artifacts
//! go to a temporary folder.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use dovetail_core::Digest;
use dovetail_core::blobs::{ArtifactRef, BlobKind, Blobs};
use dovetail_core::executor::{Attempt, Executor as _, LogLine, Models, Outcome, Report};
use dovetail_core::keys::{NodeId, VersionKey};
use dovetail_core::limits::Limits;
use dovetail_core::record::PluginRecord;
use dovetail_core::stop::Canceller;
use dovetail_core::wit::Signature;
use dovetail_core::wit::json::check_record;
use dovetail_runtime::Live;
use dovetail_stores::FileBlobs;
use serde_json::Value;
use tempfile::TempDir;

use super::allowed::{all_asked_for, allowed, asked};
use super::folder::Stale;
use super::overlay::Overlay;
use crate::documents::{TaskFinding, TaskRun, TaskRunFormat, TaskRunState};
use crate::files::temporary;
use crate::inputs::{InputTypes, Inputs};
use crate::media::extension;
use crate::paths::Shown as _;
use crate::submit::missing_artifact;
use crate::{Error, Service, grants, start_thread};

/// The largest artifact of an output that is read to be saved, in bytes.
const MAX_SAVED: u64 = 1 << 30;

/// A task to try.
#[derive(Debug, Clone, Copy)]
pub enum TaskToTry<'a> {
    /// NAME or NAME@VERSION of a published task.
    Published(&'a str),
    /// A plugin folder, a component, or a package.
    Plugin(&'a Path),
}

impl<'a> TaskToTry<'a> {
    /// A name that has a slash, begins with a dot, or has the extension `.zip` or `.wasm` is a path. Any other name is
    /// that of a published task.
    ///
    /// # Errors
    /// `unknown_task` for a name that is not UTF-8.
    pub fn of(typed: &'a OsStr) -> Result<Self, Error> {
        let path = Path::new(typed);
        let is_path = typed.as_bytes().contains(&b'/')
            || typed.as_bytes().starts_with(b".")
            || path.extension().is_some_and(|extension| extension == "zip" || extension == "wasm");
        if is_path {
            return Ok(Self::Plugin(path));
        }
        typed.to_str().map(Self::Published).ok_or_else(|| {
            Error::usage("unknown_task", format!("`{}` is not a valid name of a task", typed.shown()))
                .help("see `dovetail task list`; for a folder, write ./FOLDER")
        })
    }
}

/// A task that can be tried.
pub struct Trial<'a> {
    service: &'a Service,
    /// NAME@VERSION
    name: String,
    signature: Signature,
    /// The limits of an attempt.
    pub limits: Limits,
    package: Digest,
    /// The kinds of models that the component opens.
    model_kinds: Vec<String>,
    blobs: Arc<dyn Blobs>,
    // The last field is dropped last: the folder is removed after the stores are closed.
    _folder: TempDir,
}

/// The result of an attempt.
pub struct Attempted {
    /// The document of the attempt.
    pub run: TaskRun,
    /// Whether the attempt was cancelled.
    pub cancelled: bool,
}

impl Service {
    /// Prepares a task to be tried, with the grants that the caller allows. The inner error has the findings if the
    /// plugin is refused.
    ///
    /// # Errors
    /// `unknown_task`, `bad_grant`, `grant_needed`, `grant_withheld`; a store's failure.
    pub fn trial(&self, task: TaskToTry<'_>, given: &[String]) -> Result<Result<Trial<'_>, Vec<TaskFinding>>, Error> {
        let folder = temporary("dovetail-")?;
        let above: Arc<dyn Blobs> = Arc::new(FileBlobs::new(folder.path()));
        let below = Arc::new(FileBlobs::new(&self.settings.data));
        let blobs: Arc<dyn Blobs> = Arc::new(Overlay { above, below });
        let path = match task {
            TaskToTry::Published(name) => {
                let record = dovetail_flow::plugin(self.ports_to_read()?, name)?;
                // The grants of a published task were decided when it was published.
                all_asked_for(given, &[])?;
                let name = VersionKey::new(&record.name, &record.version).to_string();
                grants::of_task(&self.settings, &name, record.grants.keys().cloned())?;
                let PluginRecord { signature, limits, package, model_kinds, .. } = record;
                let service = self;
                return Ok(Ok(Trial {
                    service,
                    name,
                    signature,
                    limits,
                    package,
                    model_kinds,
                    blobs,
                    _folder: folder,
                }));
            }
            TaskToTry::Plugin(path) => path,
        };
        let good = match self.look_at_plugin(path, None, Stale::Warned)? {
            Ok(good) => good,
            Err(findings) => return Ok(Err(findings)),
        };
        all_asked_for(given, &asked(&good.manifest.grants))?;
        allowed(&good.manifest.name, &good.manifest.grants, given, None)?;
        grants::of_task(&self.settings, &good.manifest.name, given.iter().cloned())?;
        let package = blobs.put(BlobKind::Package, &good.package)?;
        Ok(Ok(Trial {
            service: self,
            name: good.reference(),
            signature: good.description.signature,
            limits: good.manifest.limits,
            package,
            model_kinds: good.description.opens.iter().map(|kind| kind.name().to_owned()).collect(),
            blobs,
            _folder: folder,
        }))
    }
}

impl Trial<'_> {
    /// The types of the task's inputs.
    #[must_use]
    pub fn types(&self) -> InputTypes {
        InputTypes::of_task(&self.name, &self.signature)
    }

    /// Checks the values against the task's types, and stores the artifacts in the temporary folder.
    ///
    /// # Errors
    /// `bad_input`, `missing_artifact`; a store's failure.
    pub fn take(&self, inputs: &Inputs) -> Result<Value, Error> {
        let values = check_record(&self.signature.input, &Value::from(inputs.values.clone()))
            .map_err(|errors| self.types().misfits(&errors))?;
        for artifact in ArtifactRef::all_in(&values) {
            if !inputs.brings(&artifact.digest) && self.blobs.size(BlobKind::Artifact, &artifact.digest)?.is_none() {
                return Err(missing_artifact(&artifact.digest.to_string()));
            }
        }
        inputs.store(self.blobs.as_ref())?;
        Ok(values)
    }

    /// Makes one attempt. `logged` is called with each log line as soon as the task writes the line. `canceller` stops
    /// the attempt.
    ///
    /// # Errors
    /// The host's failure.
    pub fn attempt(
        &self,
        input: Value,
        canceller: &Canceller,
        mut logged: impl FnMut(&LogLine),
    ) -> Result<Attempted, Error> {
        let (sender, lines) = std::sync::mpsc::channel::<LogLine>();
        let report = std::thread::scope(|threads| {
            let stop = canceller.stop();
            let (runtime, attempt) = self.prepare(input, sender)?;
            let working = start_thread(threads, "task", move || {
                let report = runtime.execute(&attempt, &stop);
                // The runtime holds the sender of log lines. Dropping the runtime ends the loop below.
                drop(runtime);
                report
            })?;
            for line in lines {
                logged(&line);
            }
            let report = working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, Error>(report?)
        })?;
        Ok(Attempted { run: self.document(report), cancelled: canceller.stop().cancelled() })
    }

    fn prepare(&self, input: Value, sender: Sender<LogLine>) -> Result<(dovetail_runtime::Runtime, Attempt), Error> {
        let live: dovetail_runtime::LiveSink = Arc::new(move |_: &Attempt, live: Live<'_>| {
            if let Live::Log(line) = live {
                drop(sender.send(line.clone()));
            }
        });
        let runtime = self.service.runtime(self.blobs.clone(), 1, Some(live))?;
        let run = dovetail_flow::new_run_id();
        let kinds: Vec<&str> = self.model_kinds.iter().map(String::as_str).collect();
        let attempt = Attempt {
            idempotency_key: run.to_string(),
            run,
            step: NodeId::of_step("task"),
            number: 1,
            package: self.package,
            input,
            origins: BTreeMap::new(),
            limits: self.limits,
            models: Models {
                by_kind: runtime.choose_models(&kinds)?,
                engine: self.service.settings.required_engine.clone(),
            },
        };
        Ok((runtime, attempt))
    }

    fn document(&self, report: Report) -> TaskRun {
        let (state, output, error) = match report.outcome {
            Outcome::Succeeded { output } => (TaskRunState::Succeeded, output, None),
            Outcome::Failed { failure } => (TaskRunState::Failed, Value::Null, Some(failure)),
        };
        TaskRun {
            format: TaskRunFormat::V1,
            task: self.name.clone(),
            package: self.package,
            state,
            output,
            error,
            usage: report.usage,
            models: report.models,
            warnings: report.warnings,
            log: report.log,
            log_dropped: report.log_dropped,
            saved: Vec::new(),
        }
    }

    /// Each artifact of an output with a file name: 16 hex digits of its digest, and an extension for its media type.
    ///
    /// # Errors
    /// A store's failure.
    pub fn artifacts(&self, output: &Value) -> Result<Vec<(PathBuf, Vec<u8>)>, Error> {
        let mut artifacts = Vec::new();
        for artifact in ArtifactRef::all_in(output) {
            let content = self.blobs.get(BlobKind::Artifact, &artifact.digest, MAX_SAVED)?;
            let name = format!("{}.{}", &artifact.digest.hex()[..16], extension(&artifact.media_type));
            artifacts.push((PathBuf::from(name), content));
        }
        artifacts.dedup();
        Ok(artifacts)
    }
}
