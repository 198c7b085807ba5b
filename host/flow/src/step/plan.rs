//! Facts of a pipeline that every step of every run needs, computed once.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_core::ledger::Job;
use dovetail_core::pipeline::Pipeline;

use crate::recover::job;

/// A pipeline, with the facts that every step of its runs needs.
pub(crate) struct Plan {
    pub(crate) pipeline: Pipeline,
    /// By the name of a step: the jobs of the steps that need it.
    children: BTreeMap<String, Vec<Job>>,
    /// Steps that have all other steps as ancestors: when such a step succeeds, the run has succeeded.
    closers: BTreeSet<String>,
}

impl Plan {
    pub(crate) fn new(pipeline: Pipeline) -> Self {
        let mut ancestors: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut children: BTreeMap<String, Vec<Job>> = BTreeMap::new();
        // The steps are in topological order.
        for step in &pipeline.steps {
            let needs = pipeline.needs(step);
            let mut above: BTreeSet<&str> =
                needs.iter().flat_map(|need| ancestors.get(need).into_iter().flatten().copied()).collect();
            above.extend(&needs);
            ancestors.insert(&step.name, above);
            for need in needs {
                children.entry(need.to_owned()).or_default().push(job(&pipeline, step));
            }
        }
        let others = pipeline.steps.len() - 1;
        let closers =
            ancestors.iter().filter(|(_, above)| above.len() == others).map(|(name, _)| (*name).to_owned()).collect();
        Self { children, closers, pipeline }
    }

    /// Whether the run has succeeded when this step succeeds.
    pub(super) fn closes(&self, step: &str) -> bool {
        self.closers.contains(step)
    }

    /// The jobs of the steps that need `step`.
    pub(super) fn children(&self, step: &str) -> Vec<Job> {
        self.children.get(step).cloned().unwrap_or_default()
    }
}
