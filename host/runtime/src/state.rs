//! The host's data of one attempt: the facts, the handles, the budgets and the log. It lives as long as the attempt's
//! store.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use dovetail_core::blobs::{ArtifactRef, BlobKind, Blobs, StoreError, StoreErrorKind};
use dovetail_core::executor::{Attempt, Failure, FailureKind, HostError, MISSING_ARTIFACT, ModelUse};
use dovetail_core::limits::LEAST_ARTIFACT;
use dovetail_core::stop::{Stop, StopReason};
use dovetail_core::vision::{self, Vision, VisionError};
use wasmtime::component::{Resource, ResourceTable, ResourceTableError};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::bindings::dovetail::task::types::{self, TaskError};
use crate::handles::{Artifact, Fault, Image};
use crate::limiter::Memory;
use crate::log::SharedLog;
use crate::memory_budget::{Denied, Share};
use crate::outcome::{AttemptEnd, host_error, scarce_error};
use crate::ticker::Beat;
use crate::warnings::Warnings;

/// The most bytes that one call may move between task and host. Every value inside a dynamic record or list counts 40.
pub(crate) const HOSTCALL_FUEL: usize = 32 << 20;
/// The most WASI handles (streams, pollables) of an attempt. They do not count towards `limits.handles`.
pub(crate) const WASI_HANDLES: usize = 1024;

/// The host's memory budgets for attempts, which no manifest can change. In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Decoded pictures that an attempt may hold at once.
    pub images: u64,
    /// Bytes in unfinished writers and in artifacts held for reading that an attempt may hold at once.
    pub artifacts: u64,
    /// The part of pictures and artifacts that each attempt may hold without a claim on the shared budget.
    pub own: u64,
    /// The shared budget: what all attempts together may hold beyond their own parts. It does not limit an attempt that
    /// runs alone.
    pub shared: u64,
}

impl Default for Budgets {
    /// The largest picture that is decoded has 192 MiB. A photograph of ten megapixels fits into an attempt's own part.
    fn default() -> Self {
        Self { images: 256 << 20, artifacts: 256 << 20, own: 32 << 20, shared: 256 << 20 }
    }
}

/// The result of a host function whose errors the guest may see.
pub(crate) type HostResult<T> = Result<T, Fault>;

impl From<ResourceTableError> for Fault {
    fn from(error: ResourceTableError) -> Self {
        Self::End(error.into())
    }
}

impl From<wasmtime::Error> for Fault {
    fn from(error: wasmtime::Error) -> Self {
        Self::End(error)
    }
}

impl From<AttemptEnd> for Fault {
    fn from(ended: AttemptEnd) -> Self {
        Self::End(wasmtime::Error::new(ended))
    }
}

/// The task's report of its progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The finished part, 0..=1.
    pub fraction: f32,
    /// A note for people.
    pub note: Option<String>,
}

/// Receives the task's progress, at most ten times a second.
pub(crate) type ProgressSink = Box<dyn Fn(Progress) + Send + Sync>;

/// The data of an attempt's store.
pub(crate) struct State {
    pub(crate) attempt: Attempt,
    pub(crate) stop: Stop,
    /// When the host first saw the cancellation.
    pub(crate) cancelled_at: Option<Instant>,
    /// The reason to stop that ended a guest's sleep early, if one did.
    pub(crate) sleep_cut: Arc<OnceLock<StopReason>>,
    /// The reason to stop of which the guest learned, if it did.
    pub(crate) reported_stop: Option<StopReason>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) vision: Arc<dyn Vision>,
    pub(crate) budgets: Budgets,
    /// The guest's handles; `limits.handles` bounds them.
    pub(crate) table: ResourceTable,
    /// Bytes of decoded pictures that the attempt holds.
    pub(crate) image_bytes: u64,
    /// Bytes of artifacts that the attempt holds: in unfinished writers, and for reading.
    pub(crate) artifact_bytes: u64,
    /// The attempt's part of the process's memory budget: pictures and artifacts together.
    share: Share,
    /// Bytes stored as artifacts so far; `limits.artifacts` bounds them.
    stored: u64,
    pub(crate) memory: Memory,
    pub(crate) log: SharedLog,
    pub(crate) progress: Option<ProgressSink>,
    pub(crate) progress_last: Option<Instant>,
    pub(crate) models: Vec<ModelUse>,
    pub(crate) warnings: Warnings,
    /// How often each host function was called.
    pub(crate) calls: BTreeMap<&'static str, u64>,
    /// Nanoseconds spent in host functions.
    pub(crate) host_ns: u128,
    pub(crate) beat: Arc<Beat>,
    /// The zero of the guest's monotonic clock, set at its first use.
    pub(crate) clock_zero: Option<Instant>,
    wasi: Option<WasiCtx>,
    wasi_table: ResourceTable,
}

/// The parts of a [`State`].
pub(crate) struct Setting {
    pub(crate) attempt: Attempt,
    pub(crate) stop: Stop,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) vision: Arc<dyn Vision>,
    pub(crate) budgets: Budgets,
    pub(crate) share: Share,
    pub(crate) log: SharedLog,
    pub(crate) progress: Option<ProgressSink>,
    pub(crate) beat: Arc<Beat>,
}

impl State {
    pub(crate) fn new(setting: Setting) -> Self {
        let Setting { attempt, stop, blobs, vision, budgets, share, log, progress, beat } = setting;
        let (mut table, mut wasi_table) = (ResourceTable::new(), ResourceTable::new());
        table.set_max_capacity(attempt.limits.handles as usize);
        wasi_table.set_max_capacity(WASI_HANDLES);
        Self {
            memory: Memory::new(attempt.limits.memory),
            attempt,
            stop,
            cancelled_at: None,
            sleep_cut: Arc::default(),
            reported_stop: None,
            blobs,
            vision,
            budgets,
            table,
            image_bytes: 0,
            artifact_bytes: 0,
            share,
            stored: 0,
            log,
            progress,
            progress_last: None,
            models: Vec::new(),
            warnings: Warnings::default(),
            calls: BTreeMap::new(),
            host_ns: 0,
            beat,
            clock_zero: None,
            wasi: None,
            wasi_table,
        }
    }

    /// Counts and times a host function. A panic in `work` ends the attempt and does not reach the guest's frames.
    pub(crate) fn host<T, E: From<wasmtime::Error>>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        *self.calls.entry(name).or_default() += 1;
        let began = Instant::now();
        let answer = catch_unwind(AssertUnwindSafe(|| work(self)));
        self.host_ns += began.elapsed().as_nanos();
        answer
            .unwrap_or_else(|panic| Err(wasmtime::Error::new(AttemptEnd::Host(panicked(name, panic.as_ref()))).into()))
    }

    /// Records that the guest learned of the stop, and returns the error for the guest.
    pub(crate) fn stopped(&mut self, reason: StopReason) -> Fault {
        self.reported_stop = Some(reason);
        Fault::Task(TaskError::Cancelled)
    }

    /// Returns an error if the attempt must end.
    pub(crate) fn check_stop(&mut self) -> HostResult<()> {
        match self.stop.reason(Instant::now()) {
            Some(reason) => Err(self.stopped(reason)),
            None => Ok(()),
        }
    }

    /// Converts an error of vision: into one that the guest sees, or into the attempt's end by the host's fault.
    pub(crate) fn vision_fault(&mut self, error: VisionError) -> Fault {
        match error {
            VisionError::Stopped(reason) => self.stopped(reason),
            VisionError::Invalid { code, message } => {
                Fault::Task(TaskError::InvalidInput(wit_failure(code, message, false)))
            }
            VisionError::Scarce { scarce, message } => {
                AttemptEnd::Host(scarce_error("look at a picture", scarce, &message)).into()
            }
            // A damaged model, a missing one, or one that the engine cannot load is not the attempt's fault, and
            // another attempt on this machine would fail as well.
            VisionError::Unavailable {
                code: vision::MODEL_DAMAGED | vision::MODEL_GONE | vision::ENGINE_UNAVAILABLE | vision::ENGINE_FAILED,
                message,
            } => AttemptEnd::Host(broken(&message)).into(),
            VisionError::Unavailable { code, message } => {
                let retryable = !matches!(code, "built_without_opencv" | "models_missing");
                Fault::Task(TaskError::Unavailable(wit_failure(code, message, retryable)))
            }
        }
    }

    /// The pixels of an image. The first call decodes them.
    pub(crate) fn pixels(&mut self, handle: &Resource<Image>) -> HostResult<vision::Image> {
        let image = self.table.get(handle)?;
        if let Some(decoded) = &image.decoded {
            return Ok(decoded.clone());
        }
        let reference = image
            .reference
            .clone()
            .ok_or_else(|| AttemptEnd::Host(broken("an image has neither pixels nor an artifact")))?;
        let decoded = self.hold_image(|state| state.decode(&reference))?;
        self.table.get_mut(handle)?.decoded = Some(decoded.clone());
        Ok(decoded)
    }

    /// Decodes an artifact, with vision's cache of pictures.
    pub(crate) fn decode(&mut self, reference: &ArtifactRef) -> HostResult<vision::Image> {
        let (blobs, max) = (self.blobs.clone(), self.budgets.artifacts.min(self.vision.max_file_bytes()));
        let mut store_error = None;
        let mut bytes = || {
            blobs.get(BlobKind::Artifact, &reference.digest, max).map_err(|error| {
                // Refuse the file by its size alone: ten steps would otherwise read gigabytes at once for the same
                // answer. If the store does not answer, it is not asked again.
                if error.kind == StoreErrorKind::Refused
                    && let Ok(Some(size)) = blobs.size(BlobKind::Artifact, &reference.digest)
                    && size > max
                {
                    return VisionError::file_too_large(size, max);
                }
                store_error = Some(error);
                VisionError::unavailable("store_unavailable", "the picture's bytes could not be read")
            })
        };
        let decoded = self.vision.open(&reference.digest, &mut bytes, &self.stop);
        if let Some(error) = store_error {
            return Err(store_fault(error));
        }
        let image = decoded.map_err(|error| self.vision_fault(error))?;
        if let Some(warning) = image.warning() {
            self.warnings.of_picture(reference, warning);
        }
        Ok(image)
    }

    /// Makes a picture and counts it. If the process has no memory for it, the picture is dropped, and made again once
    /// other attempts have released memory.
    fn hold_image(&mut self, make: impl Fn(&mut Self) -> HostResult<vision::Image>) -> HostResult<vision::Image> {
        let mut image = make(self)?;
        let bytes = image.pixels().len() as u64;
        if self.image_bytes.saturating_add(bytes) > self.budgets.images {
            let most = show(self.budgets.images);
            let message = format!(
                "the task held more than {most} of decoded pictures at once: drop those that are no longer needed"
            );
            return Err(AttemptEnd::limit("too_many_pixels", message).into());
        }
        if !self.share.try_grow(bytes) {
            drop(image);
            self.wait_for_memory(bytes)?;
            image = make(self).inspect_err(|_| self.share.shrink(bytes))?;
        }
        self.image_bytes += bytes;
        Ok(image)
    }

    fn wait_for_memory(&mut self, bytes: u64) -> HostResult<()> {
        self.share.grow(bytes, &self.stop).map_err(|denied| match denied {
            Denied::Stopped(reason) => self.stopped(reason),
            Denied::Exhausted => {
                let why = "other tasks of this process hold the whole memory budget";
                AttemptEnd::Host(host_error(format!("hold {} of pictures and artifacts", show(bytes)), true, why))
                    .into()
            }
        })
    }

    /// Makes a picture and gives it a handle.
    pub(crate) fn push_image(
        &mut self,
        make: impl Fn(&mut Self) -> HostResult<vision::Image>,
    ) -> HostResult<Resource<Image>> {
        let image = self.hold_image(make)?;
        Ok(self.table.push(Image { reference: None, decoded: Some(image) })?)
    }

    /// Releases the memory of an image's pixels.
    pub(crate) fn release_image(&mut self, image: &Image) {
        let bytes = image.decoded.as_ref().map_or(0, |decoded| decoded.pixels().len() as u64);
        self.image_bytes = self.image_bytes.saturating_sub(bytes);
        self.share.shrink(bytes);
    }

    /// Counts bytes held for artifacts. Returns false if they exceed the task's budget.
    pub(crate) fn hold_bytes(&mut self, more: u64) -> HostResult<bool> {
        let wanted = self.artifact_bytes.saturating_add(more);
        if wanted > self.budgets.artifacts {
            return Ok(false);
        }
        self.wait_for_memory(more)?;
        self.artifact_bytes = wanted;
        Ok(true)
    }

    /// Releases bytes that [`State::hold_bytes`] counted.
    pub(crate) fn release_bytes(&mut self, bytes: u64) {
        self.artifact_bytes = self.artifact_bytes.saturating_sub(bytes);
        self.share.shrink(bytes);
    }

    /// Stores bytes as an artifact and gives it a handle.
    pub(crate) fn store_artifact(&mut self, media_type: String, bytes: &[u8]) -> HostResult<Resource<Artifact>> {
        let reference = self.store_bytes(media_type, bytes)?;
        Ok(self.table.push(Artifact { reference, size: Some(bytes.len() as u64), bytes: None })?)
    }

    /// Stores bytes as an artifact. Stored bytes count even after the task drops their handle, because they stay in the
    /// store.
    pub(crate) fn store_bytes(&mut self, media_type: String, bytes: &[u8]) -> HostResult<ArtifactRef> {
        let limit = self.attempt.limits.artifacts;
        self.stored = self.stored.saturating_add((bytes.len() as u64).max(LEAST_ARTIFACT));
        if self.stored > limit {
            let message = format!(
                "the task wrote more than {} of artifacts (each counts {} at least): write less, or raise `artifacts` \
                 under `[limits]` in its plugin.toml",
                show(limit),
                show(LEAST_ARTIFACT)
            );
            return Err(AttemptEnd::limit("too_many_artifacts", message).into());
        }
        let digest = self.blobs.put(BlobKind::Artifact, bytes).map_err(store_fault)?;
        Ok(ArtifactRef { digest, media_type, name: None })
    }

    /// Records in the lineage that the attempt used a model and the model's companions.
    pub(crate) fn used(&mut self, model: &vision::Model) {
        let companions = self.vision.companions(model);
        for model in std::iter::once(model).chain(&companions) {
            let used = ModelUse::new(&*model.name, model.digest);
            if !self.models.contains(&used) {
                self.models.push(used);
            }
        }
    }

    /// An empty WASI context, created at its first use, because most guests never use one.
    fn wasi_context(&mut self) -> &mut WasiCtx {
        self.wasi.get_or_insert_with(|| WasiCtxBuilder::new().insecure_random_seed(1).max_random_size(64 << 10).build())
    }

    pub(crate) fn wasi_table(&mut self) -> &mut ResourceTable {
        &mut self.wasi_table
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi_context();
        WasiCtxView { ctx: self.wasi.as_mut().expect("it was made in the line above"), table: &mut self.wasi_table }
    }
}

impl types::Host for State {
    fn convert_task_error(&mut self, fault: Fault) -> wasmtime::Result<TaskError> {
        match fault {
            Fault::Task(error) => Ok(error),
            Fault::End(error) => Err(error),
        }
    }
}

/// A failure in its WIT form.
pub(crate) fn wit_failure(code: impl Into<String>, message: impl Into<String>, retryable: bool) -> types::Failure {
    types::Failure { code: code.into(), message: message.into(), retryable, retry_after_ms: None, details: Vec::new() }
}

/// Converts a fault in a function that cannot return an error into the attempt's end.
pub(crate) fn end(fault: Fault) -> wasmtime::Error {
    let (kind, failure) = match fault {
        Fault::End(error) => return error,
        Fault::Task(TaskError::Cancelled) => {
            return wasmtime::Error::new(AttemptEnd::Stopped(StopReason::Cancelled));
        }
        Fault::Task(TaskError::InvalidInput(failure)) => (FailureKind::InvalidInput, failure),
        Fault::Task(TaskError::Unavailable(failure)) => (FailureKind::Unavailable, failure),
        Fault::Task(TaskError::Failed(failure)) => (FailureKind::Failed, failure),
    };
    let retryable = failure.retryable;
    wasmtime::Error::new(AttemptEnd::Failed(Box::new(Failure {
        retryable,
        ..Failure::new(kind, failure.code, failure.message)
    })))
}

/// An error of the store is the host's fault, never the guest's: the attempt ends here and is not charged.
pub(crate) fn store_fault(error: StoreError) -> Fault {
    let transient = error.kind == StoreErrorKind::Unavailable;
    let missing = (error.kind == StoreErrorKind::Missing).then_some(MISSING_ARTIFACT);
    AttemptEnd::Host(HostError { missing, ..host_error("use the artifact store", transient, error) }).into()
}

/// A panic in the host's own code, as an error.
pub(crate) fn panicked(what: &str, panic: &(dyn Any + Send)) -> HostError {
    HostError {
        operation: format!("{what}: the host panicked: {}", dovetail_core::panics::message(panic)),
        transient: false,
        missing: None,
        source: None,
    }
}

/// The error for a state that is impossible unless the host has a defect.
pub(crate) fn broken(what: &str) -> HostError {
    HostError { operation: what.to_owned(), transient: false, missing: None, source: None }
}

pub(crate) fn show(bytes: u64) -> String {
    dovetail_core::manifest::show_size(bytes)
}
