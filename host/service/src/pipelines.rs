//! Pipelines: checks, publishing, updates to newer plugins, and lists.

use std::path::Path;

use dovetail_core::keys::Capability;
use dovetail_flow::Pushed;

pub use dovetail_core::pipeline::{Checked, Finding, Pipeline, Severity, Source, Step};
pub use dovetail_flow::{Published, Update};

use crate::documents::{
    CapabilitiesDocument, CheckDocument, PinnedStep, PipelineDocument, PipelineSummary, PushedPipeline,
    StepCapabilities, UpdatedPipeline,
};
use crate::files::read;
use crate::paths::Shown as _;
use crate::runs::ReadableList;
use crate::submit::PipelineName;
use crate::{Error, Service};

/// The JSON Schema of pipeline files.
#[must_use]
pub fn file_schema() -> serde_json::Value {
    dovetail_core::pipeline::schema::schema()
}

/// The result of publishing a pipeline.
pub struct PipelinePush {
    /// The published pipeline.
    pub published: Published,
    /// False if the same pipeline was published before.
    pub created: bool,
}

impl Service {
    /// Checks the text of a pipeline file against the published tasks. Findings are part of the result, and no error.
    ///
    /// # Errors
    /// A store's failure.
    fn check_pipeline(&self, text: &str) -> Result<Checked, Error> {
        Ok(dovetail_flow::check(self.ports_to_read()?, text)?)
    }

    /// Checks a pipeline file against the published tasks. Findings are part of the result, and no error.
    ///
    /// # Errors
    /// `bad_pipeline` if the file is not UTF-8; if the file cannot be read; a store's failure.
    pub fn check_pipeline_file(&self, file: &Path) -> Result<Checked, Error> {
        // The limit is above that of the check, so that the check reports a file that is too long.
        let most = dovetail_core::pipeline::MAX_SOURCE as u64 * 2;
        let text = String::from_utf8(read(file, most)?).map_err(|e| {
            Error::usage("bad_pipeline", format!("`{}` is not UTF-8 text", file.shown()))
                .cause(e)
                .help("a pipeline is a JSON file")
        })?;
        self.check_pipeline(&text)
    }

    /// Publishes a checked pipeline with its pins: each step names an exact package.
    ///
    /// # Errors
    /// If another pipeline of the same name and version is published; a store's failure.
    pub fn push_pipeline(&self, pipeline: &Pipeline) -> Result<PipelinePush, Error> {
        let (published, pushed) = dovetail_flow::push_pipeline(self.ports()?, pipeline)?;
        Ok(PipelinePush { published, created: pushed == Pushed::Created })
    }

    /// Publishes a new revision of a pipeline, pinned to the newest plugins that its file allows.
    ///
    /// # Errors
    /// `unknown_pipeline`; a store's failure.
    pub fn update_pipeline(&self, reference: &str) -> Result<Update, Error> {
        Ok(dovetail_flow::update_pipeline(self.ports_to_read()?, reference)?)
    }

    /// All published pipelines.
    ///
    /// # Errors
    /// A store's failure.
    pub fn list_pipelines(&self) -> Result<ReadableList<Published>, Error> {
        Ok(ReadableList::of(dovetail_flow::pipelines(self.ports_to_read()?)?, |published| published))
    }

    /// The published pipeline of this reference: NAME or NAME@VERSION.
    ///
    /// # Errors
    /// `unknown_pipeline`; a store's failure.
    pub fn pipeline(&self, reference: &str) -> Result<Published, Error> {
        Ok(dovetail_flow::pipeline(self.ports_to_read()?, reference)?)
    }

    /// A published pipeline, or the pipeline in a file. The inner error has the findings if the file has errors.
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
    /// The document of a publication.
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
    /// The document of an update.
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
    /// The document of a published pipeline.
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
    /// The document of a published pipeline.
    #[must_use]
    pub fn of(published: &Published) -> Self {
        Self { pipeline: published.pipeline.clone(), revision: published.revision }
    }
}

impl StepCapabilities {
    fn of(step: &Step) -> Self {
        let (mut grants, mut models, mut model_kinds) = (Vec::new(), Vec::new(), Vec::new());
        for need in step.requirements.needs() {
            match Capability::parse(need) {
                Capability::Grant(name) => grants.push(name.to_owned()),
                Capability::Model(name) | Capability::ExactModel { name, .. } => models.push(name.to_owned()),
                Capability::ModelKind(kind) => model_kinds.push(kind.to_owned()),
                // An engine is required for a run, not by a pipeline.
                Capability::Engine(_) => {}
            }
        }
        Self { id: step.id(), step: step.name.clone(), task: step.task_reference(), grants, models, model_kinds }
    }
}

impl CapabilitiesDocument {
    /// The document of a published pipeline.
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
