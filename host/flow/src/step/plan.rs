//! What the steps of every run of a pipeline ask again and again, computed once.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_core::ledger::Job;
use dovetail_core::pipeline::Pipeline;

use crate::recover::job;

/// A pipeline with what every step of every run of it asks again and again.
pub(crate) struct Plan {
    pub(crate) pipeline: Pipeline,
    children: BTreeMap<String, Vec<Job>>,
    /// Steps that have all the others as ancestors: when one of them succeeds, the run is over.
    closers: BTreeSet<String>,
}

impl Plan {
    pub(crate) fn new(pipeline: Pipeline) -> Self {
        let mut ancestors: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut children: BTreeMap<String, Vec<Job>> = BTreeMap::new();
        // Steps stand in an order in which each comes after those it needs.
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

    /// Whether the run is over when this step succeeds.
    pub(super) fn closes(&self, step: &str) -> bool {
        self.closers.contains(step)
    }

    /// The steps that need this one, as jobs.
    pub(super) fn children(&self, step: &str) -> Vec<Job> {
        self.children.get(step).cloned().unwrap_or_default()
    }
}
