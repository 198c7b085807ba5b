//! What the host keeps for one attempt: the facts, the handles, the budgets and the log. It lives as long as the
//! attempt's store.

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
use crate::memory_budget::{NoRoom, Share};
use crate::outcome::{Ended, host_error, scarce_error};
use crate::ticker::Beat;
use crate::warnings::Warnings;

/// What one call may move between task and host, in bytes; every value inside a dynamic record or list counts 40.
pub(crate) const HOSTCALL_FUEL: usize = 32 << 20;
/// WASI's own handles (streams, pollables) of an attempt, apart from those of `limits.handles`.
pub(crate) const WASI_HANDLES: usize = 1024;

/// Budgets of attempts that are the host's own affair, not the manifest's. In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Decoded pictures that an attempt holds at once.
    pub images: u64,
    /// Bytes written by writers that are not finished, and artifacts held for reading, of an attempt.
    pub artifacts: u64,
    /// Of both, what each attempt holds without asking whether there is room.
    pub own: u64,
    /// What all attempts hold of both beyond that. An attempt alone is not bounded by it.
    pub shared: u64,
}

impl Default for Budgets {
    /// The largest picture that is decoded has 183 MiB; a photograph of ten megapixels fits into an attempt's own part.
    fn default() -> Self {
        Self { images: 256 << 20, artifacts: 256 << 20, own: 32 << 20, shared: 256 << 20 }
    }
}

pub(crate) type Answer<T> = Result<T, Fault>;

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

impl From<Ended> for Fault {
    fn from(ended: Ended) -> Self {
        Self::End(wasmtime::Error::new(ended))
    }
}

/// How far the task says it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// 0..=1.
    pub fraction: f32,
    /// For people.
    pub note: Option<String>,
}

/// Called with what the task says of its progress, at most ten times a second.
pub(crate) type ProgressSink = Box<dyn Fn(Progress) + Send + Sync>;

/// The data of an attempt's store.
pub(crate) struct State {
    pub(crate) attempt: Attempt,
    pub(crate) stop: Stop,
    /// When the cancellation was first seen.
    pub(crate) cancelled_at: Option<Instant>,
    /// Why a sleep of the guest ended early, if one did.
    pub(crate) sleep_cut: Arc<OnceLock<StopReason>>,
    /// Why the guest was told to end, once it was.
    pub(crate) told: Option<StopReason>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) vision: Arc<dyn Vision>,
    pub(crate) budgets: Budgets,
    /// Handles of `limits.handles`.
    pub(crate) table: ResourceTable,
    pub(crate) image_bytes: u64,
    pub(crate) artifact_bytes: u64,
    /// Both together, of what the process has room for.
    share: Share,
    /// Stored as artifacts so far, of `limits.artifacts`.
    stored: u64,
    pub(crate) memory: Memory,
    pub(crate) log: SharedLog,
    pub(crate) progress: Option<ProgressSink>,
    pub(crate) progress_last: Option<Instant>,
    pub(crate) models: Vec<ModelUse>,
    pub(crate) warnings: Warnings,
    pub(crate) calls: BTreeMap<&'static str, u64>,
    pub(crate) host_ns: u128,
    pub(crate) beat: Arc<Beat>,
    /// Where the guest's monotonic clock begins, once it looked at it.
    pub(crate) clock_zero: Option<Instant>,
    wasi: Option<WasiCtx>,
    wasi_table: ResourceTable,
}

/// What a [`State`] is made from.
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
            told: None,
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

    /// Counts and times a host function, and keeps a panic in it from reaching the guest's frames.
    pub(crate) fn host<T, E: From<wasmtime::Error>>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        *self.calls.entry(name).or_default() += 1;
        let began = Instant::now();
        let answer = catch_unwind(AssertUnwindSafe(|| work(self)));
        self.host_ns += began.elapsed().as_nanos();
        answer.unwrap_or_else(|panic| Err(wasmtime::Error::new(Ended::Host(panicked(name, panic.as_ref()))).into()))
    }

    /// What the guest is told when the attempt must end, and the note that it was told.
    pub(crate) fn stopped(&mut self, reason: StopReason) -> Fault {
        self.told = Some(reason);
        Fault::Task(TaskError::Cancelled)
    }

    /// Ends a call early when the attempt must end anyway.
    pub(crate) fn check_stop(&mut self) -> Answer<()> {
        match self.stop.reason(Instant::now()) {
            Some(reason) => Err(self.stopped(reason)),
            None => Ok(()),
        }
    }

    /// An error of vision as the guest sees it.
    pub(crate) fn vision_fault(&mut self, error: VisionError) -> Fault {
        match error {
            VisionError::Stopped(reason) => self.stopped(reason),
            VisionError::Invalid { code, message } => {
                Fault::Task(TaskError::InvalidInput(wit_failure(code, message, false)))
            }
            VisionError::Scarce { scarce, message } => {
                Ended::Host(scarce_error("look at a picture", scarce, &message)).into()
            }
            // A file of ours that cannot be used is nothing that the attempt could help, and trying it again here would
            // not either.
            VisionError::Unavailable { code: vision::MODEL_DAMAGED | vision::MODEL_GONE, message } => {
                Ended::Host(broken(&message)).into()
            }
            VisionError::Unavailable { code, message } => {
                let retryable = !matches!(code, "built_without_opencv" | "models_missing");
                Fault::Task(TaskError::Unavailable(wit_failure(code, message, retryable)))
            }
        }
    }

    /// The pixels of an image, decoded now if it was not yet.
    pub(crate) fn pixels(&mut self, handle: &Resource<Image>) -> Answer<vision::Image> {
        let image = self.table.get(handle)?;
        if let Some(decoded) = &image.decoded {
            return Ok(decoded.clone());
        }
        let reference = image
            .reference
            .clone()
            .ok_or_else(|| Ended::Host(broken("an image has neither pixels nor an artifact")))?;
        let decoded = self.hold_image(|state| state.decode(&reference))?;
        self.table.get_mut(handle)?.decoded = Some(decoded.clone());
        Ok(decoded)
    }

    /// Decodes an artifact, through the cache of vision.
    pub(crate) fn decode(&mut self, reference: &ArtifactRef) -> Answer<vision::Image> {
        let (blobs, max) = (self.blobs.clone(), self.budgets.artifacts.min(self.vision.max_file_bytes()));
        let mut store_error = None;
        let mut bytes = || {
            blobs.get(BlobKind::Artifact, &reference.digest, max).map_err(|error| {
                // Refused by its size alone: ten steps at once would read gigabytes to say so. A store that does not
                // answer is not asked again.
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

    /// Makes a picture and counts it. Where the process has no room for it, it is let go again, and made anew once
    /// there is.
    fn hold_image(&mut self, make: impl Fn(&mut Self) -> Answer<vision::Image>) -> Answer<vision::Image> {
        let mut image = make(self)?;
        let bytes = image.pixels().len() as u64;
        if self.image_bytes.saturating_add(bytes) > self.budgets.images {
            let most = show(self.budgets.images);
            let message = format!(
                "the task held more than {most} of decoded pictures at once: drop those that are no longer needed"
            );
            return Err(Ended::limit("too_many_pixels", message).into());
        }
        if !self.share.try_grow(bytes) {
            drop(image);
            self.wait_for_room(bytes)?;
            image = make(self).inspect_err(|_| self.share.shrink(bytes))?;
        }
        self.image_bytes += bytes;
        Ok(image)
    }

    fn wait_for_room(&mut self, bytes: u64) -> Answer<()> {
        self.share.grow(bytes, &self.stop).map_err(|no| match no {
            NoRoom::Stopped(reason) => self.stopped(reason),
            NoRoom::Taken => {
                let why = "other tasks of this process hold as much as there is room for";
                Ended::Host(host_error(format!("hold {} of pictures and artifacts", show(bytes)), true, why)).into()
            }
        })
    }

    /// Makes a picture and gives it a handle.
    pub(crate) fn push_image(&mut self, make: impl Fn(&mut Self) -> Answer<vision::Image>) -> Answer<Resource<Image>> {
        let image = self.hold_image(make)?;
        Ok(self.table.push(Image { reference: None, decoded: Some(image) })?)
    }

    /// Forgets an image's pixels.
    pub(crate) fn release_image(&mut self, image: &Image) {
        let bytes = image.decoded.as_ref().map_or(0, |decoded| decoded.pixels().len() as u64);
        self.image_bytes = self.image_bytes.saturating_sub(bytes);
        self.share.shrink(bytes);
    }

    /// Counts bytes held for artifacts; false: they are more than the task may hold.
    pub(crate) fn hold_bytes(&mut self, more: u64) -> Answer<bool> {
        let wanted = self.artifact_bytes.saturating_add(more);
        if wanted > self.budgets.artifacts {
            return Ok(false);
        }
        self.wait_for_room(more)?;
        self.artifact_bytes = wanted;
        Ok(true)
    }

    /// Gives back bytes that [`State::hold_bytes`] counted.
    pub(crate) fn release_bytes(&mut self, bytes: u64) {
        self.artifact_bytes = self.artifact_bytes.saturating_sub(bytes);
        self.share.shrink(bytes);
    }

    /// Stores bytes as an artifact and gives it a handle.
    pub(crate) fn store_artifact(&mut self, media_type: String, bytes: &[u8]) -> Answer<Resource<Artifact>> {
        let reference = self.store_bytes(media_type, bytes)?;
        Ok(self.table.push(Artifact { reference, size: Some(bytes.len() as u64), bytes: None })?)
    }

    /// Stores bytes as an artifact. What was stored stays, held or not, so all of it counts.
    pub(crate) fn store_bytes(&mut self, media_type: String, bytes: &[u8]) -> Answer<ArtifactRef> {
        let limit = self.attempt.limits.artifacts;
        self.stored = self.stored.saturating_add((bytes.len() as u64).max(LEAST_ARTIFACT));
        if self.stored > limit {
            let message = format!(
                "the task wrote more than {} of artifacts (each counts {} at least): write less, or raise `artifacts` under `[limits]` in its plugin.toml",
                show(limit),
                show(LEAST_ARTIFACT)
            );
            return Err(Ended::limit("too_many_artifacts", message).into());
        }
        let digest = self.blobs.put(BlobKind::Artifact, bytes).map_err(store_fault)?;
        Ok(ArtifactRef { digest, media_type, name: None })
    }

    /// Records that a model, and whatever it uses, took part.
    pub(crate) fn used(&mut self, model: &vision::Model) {
        let companions = self.vision.companions(model);
        for model in std::iter::once(model).chain(&companions) {
            let used = ModelUse { name: model.name.clone(), digest: model.digest };
            if !self.models.contains(&used) {
                self.models.push(used);
            }
        }
    }

    /// An empty context, made only when a guest asks for something: most never do.
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

/// A failure as WIT has it.
pub(crate) fn wit_failure(code: impl Into<String>, message: impl Into<String>, retryable: bool) -> types::Failure {
    types::Failure { code: code.into(), message: message.into(), retryable, retry_after_ms: None, details: Vec::new() }
}

/// The end of an attempt, from a fault in a function that has no error to tell.
pub(crate) fn end(fault: Fault) -> wasmtime::Error {
    let (kind, failure) = match fault {
        Fault::End(error) => return error,
        Fault::Task(TaskError::Cancelled) => {
            return wasmtime::Error::new(Ended::Stopped(StopReason::Cancelled));
        }
        Fault::Task(TaskError::InvalidInput(failure)) => (FailureKind::InvalidInput, failure),
        Fault::Task(TaskError::Unavailable(failure)) => (FailureKind::Unavailable, failure),
        Fault::Task(TaskError::Failed(failure)) => (FailureKind::Failed, failure),
    };
    let retryable = failure.retryable;
    wasmtime::Error::new(Ended::Failed(Box::new(Failure {
        retryable,
        ..Failure::new(kind, failure.code, failure.message)
    })))
}

/// A store that fails is our own fault, and never the guest's: the attempt ends here, and is not charged.
pub(crate) fn store_fault(error: StoreError) -> Fault {
    let transient = error.kind == StoreErrorKind::Unavailable;
    let missing = (error.kind == StoreErrorKind::Missing).then_some(MISSING_ARTIFACT);
    Ended::Host(HostError { missing, ..host_error("use the artifact store", transient, error) }).into()
}

/// A panic in our own code, as an error.
pub(crate) fn panicked(what: &str, panic: &(dyn Any + Send)) -> HostError {
    HostError {
        operation: format!("{what}: the host panicked: {}", dovetail_core::panics::message(panic)),
        transient: false,
        missing: None,
        source: None,
    }
}

/// A state that cannot be.
pub(crate) fn broken(what: &str) -> HostError {
    HostError { operation: what.to_owned(), transient: false, missing: None, source: None }
}

pub(crate) fn show(bytes: u64) -> String {
    dovetail_core::manifest::show_size(bytes)
}
