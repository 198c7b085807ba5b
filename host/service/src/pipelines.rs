//! Pipelines: checked, published, moved to newer plugins, listed and drawn.

use std::path::Path;

use dovetail_core::ledger::{MODEL, MODEL_KIND, is_grant};
use dovetail_flow::Pushed;

pub use dovetail_core::pipeline::{Checked, Finding, Pipeline, Severity, Source, Step};
pub use dovetail_flow::{Published, Update};

use crate::documents::{
    CapabilitiesDocument, CheckDocument, PinnedStep, PipelineDocument, PipelineSummary, PushedPipeline,
    StepCapabilities, UpdatedPipeline,
};
use crate::files::read;
use crate::paths::Shown as _;
use crate::runs::Listed;
use crate::submit::PipelineName;
use crate::{Error, Service};

/// The JSON Schema of pipeline files.
#[must_use]
pub fn file_schema() -> serde_json::Value {
    dovetail_core::pipeline::schema::schema()
}

/// What publishing a pipeline came to.
pub struct PipelinePush {
    pub published: Published,
    pub created: bool,
}

impl Service {
    /// The text of a pipeline file, checked against the published tasks.
    ///
    /// # Errors
    /// A store's failure; findings are no error.
    pub fn check_pipeline(&self, text: &str) -> Result<Checked, Error> {
        Ok(dovetail_flow::check(self.ports_to_read()?, text)?)
    }

    /// A file, checked against the published tasks.
    ///
    /// # Errors
    /// `bad_pipeline` if it is no text; if it cannot be read; a store's failure.
    pub fn check_pipeline_file(&self, file: &Path) -> Result<Checked, Error> {
        // More than is taken, so that the check itself says that the file is too long.
        let most = dovetail_core::pipeline::MAX_SOURCE as u64 * 2;
        let text = String::from_utf8(read(file, most)?).map_err(|e| {
            Error::usage("bad_pipeline", format!("`{}` is not UTF-8 text", file.shown()))
                .cause(e)
                .help("a pipeline is a JSON file")
        })?;
        self.check_pipeline(&text)
    }

    /// Publishes a checked pipeline, pinned to exact plugins.
    ///
    /// # Errors
    /// If another pipeline of its name and version is published; a store's failure.
    pub fn push_pipeline(&self, pipeline: &Pipeline) -> Result<PipelinePush, Error> {
        let (published, pushed) = dovetail_flow::push_pipeline(self.ports()?, pipeline)?;
        Ok(PipelinePush { published, created: pushed == Pushed::Created })
    }

    /// Moves a published pipeline to the newest plugins that its file allows.
    ///
    /// # Errors
    /// `unknown_pipeline`; a store's failure.
    pub fn update_pipeline(&self, reference: &str) -> Result<Update, Error> {
        Ok(dovetail_flow::update_pipeline(self.ports_to_read()?, reference)?)
    }

    /// Every published pipeline.
    ///
    /// # Errors
    /// A store's failure.
    pub fn list_pipelines(&self) -> Result<Listed<Published>, Error> {
        Ok(Listed::of(dovetail_flow::pipelines(self.ports_to_read()?)?, |published| published))
    }

    /// A published pipeline: NAME or NAME@VERSION.
    ///
    /// # Errors
    /// `unknown_pipeline`; a store's failure.
    pub fn pipeline(&self, reference: &str) -> Result<Published, Error> {
        Ok(dovetail_flow::pipeline(self.ports_to_read()?, reference)?)
    }

    /// A pipeline to be looked at: a published one, or a file. What was found in the file if it has errors.
    ///
    /// # Errors
    /// As [`Service::pipeline`] and [`Service::check_pipeline_file`].
    pub fn pipeline_or_file(&self, name: PipelineName<'_>) -> Result<Result<Pipeline, Checked>, Error> {
        let file = match name {
            PipelineName::Published(name) => return Ok(Ok(self.pipeline(name)?.pipeline)),
            PipelineName::File(file) => file,
        };
        let mut checked = self.check_pipeline_file(file)?;
        Ok(checked.pipeline.take().ok_or(checked))
    }
}

impl PushedPipeline {
    /// Of a pipeline that was published.
    #[must_use]
    pub fn of(checked: &Checked, pushed: &PipelinePush) -> Self {
        Self {
            check: CheckDocument::of(checked),
            pipeline: pushed.published.pipeline.reference(),
            revision: pushed.published.revision,
            created: pushed.created,
        }
    }
}

impl UpdatedPipeline {
    /// Of what an update came to.
    #[must_use]
    pub fn of(update: &Update) -> Self {
        Self {
            check: CheckDocument::of(&update.checked),
            pipeline: update.old.pipeline.reference(),
            revision: update.new.as_ref().map_or(update.old.revision, |new| new.revision),
            updated: update.new.is_some(),
            differences: update.differences.clone(),
        }
    }
}

impl PipelineSummary {
    /// Of a published pipeline.
    #[must_use]
    pub fn of(published: &Published) -> Self {
        let pipeline = &published.pipeline;
        let step = |step: &Step| PinnedStep {
            id: step.id(),
            step: step.name.clone(),
            task: step.task_reference(),
            package: step.package,
        };
        Self {
            pipeline: pipeline.reference(),
            revision: published.revision,
            description: pipeline.description.clone(),
            steps: pipeline.steps.iter().map(step).collect(),
        }
    }
}

impl PipelineDocument {
    /// Of a published pipeline.
    #[must_use]
    pub fn of(published: &Published) -> Self {
        Self { pipeline: published.pipeline.clone(), revision: published.revision }
    }
}

impl StepCapabilities {
    fn of(step: &Step) -> Self {
        let named = |prefix: &'static str| {
            let needs = step.lane.needs().filter_map(move |need| need.strip_prefix(prefix));
            needs.map(str::to_owned).collect()
        };
        Self {
            id: step.id(),
            step: step.name.clone(),
            task: step.task_reference(),
            grants: step.lane.needs().filter(|need| is_grant(need)).map(str::to_owned).collect(),
            models: named(MODEL),
            model_kinds: named(MODEL_KIND),
        }
    }
}

impl CapabilitiesDocument {
    /// Of a published pipeline.
    #[must_use]
    pub fn of(published: &Published) -> Self {
        let steps: Vec<_> = published.pipeline.steps.iter().map(StepCapabilities::of).collect();
        Self {
            pipeline: published.pipeline.reference(),
            revision: published.revision,
            grants: steps.iter().flat_map(|step| step.grants.iter().cloned()).collect(),
            steps,
        }
    }
}
