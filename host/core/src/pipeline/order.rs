//! The order of steps: the prerequisites of each step, the steps that are ready, and an order in which all can run.

use std::collections::{BTreeMap, BTreeSet};

use super::{Pipeline, Source, Step};

impl Step {
    /// The names of the step's prerequisites: the steps whose outputs it reads.
    #[must_use]
    pub fn needs(&self) -> BTreeSet<&str> {
        self.inputs
            .iter()
            .filter_map(|binding| match &binding.source {
                Source::Output { step, .. } => Some(step.as_str()),
                Source::Input { .. } | Source::Literal { .. } => None,
            })
            .collect()
    }
}

impl Pipeline {
    /// The names of the prerequisites of `step`.
    #[must_use]
    pub fn needs<'s>(&self, step: &'s Step) -> BTreeSet<&'s str> {
        step.needs()
    }

    /// The steps by stages. Each step is in the first stage in which all its prerequisites have run. Steps of one stage
    /// can run at the same time.
    #[must_use]
    pub fn stages(&self) -> Vec<Vec<&Step>> {
        let mut round: BTreeMap<&str, usize> = BTreeMap::new();
        let mut stages: Vec<Vec<&Step>> = Vec::new();
        // `steps` is sorted: each step comes after its prerequisites.
        for step in &self.steps {
            let at = step.needs().iter().filter_map(|need| round.get(need)).map(|round| round + 1).max().unwrap_or(0);
            round.insert(&step.name, at);
            if stages.len() <= at {
                stages.resize(at + 1, Vec::new());
            }
            stages[at].push(step);
        }
        stages
    }
}

/// The steps that may run now: those that are not in `done` and whose prerequisites all are.
///
/// The function is pure and monotone: a ready step stays ready until it is done, whatever else becomes done. So workers
/// may decide from the outcomes that they know, in any order, and the decision is never wrong.
#[must_use]
pub fn ready<'p>(pipeline: &'p Pipeline, done: &BTreeSet<String>) -> Vec<&'p Step> {
    pipeline
        .steps
        .iter()
        .filter(|step| !done.contains(&step.name) && step.needs().iter().all(|need| done.contains(*need)))
        .collect()
}

/// The steps in an order in which each comes after its prerequisites; otherwise by number. Steps of a cycle are left
/// out, but a pipeline that passed the check has no cycles.
pub(super) fn sorted(mut steps: Vec<Step>) -> Vec<Step> {
    steps.sort_by_key(|step| step.number);
    let mut placed: BTreeSet<String> = BTreeSet::new();
    let mut order = Vec::with_capacity(steps.len());
    while let Some(next) = steps.iter().position(|step| step.needs().iter().all(|need| placed.contains(*need))) {
        let step = steps.remove(next);
        placed.insert(step.name.clone());
        order.push(step);
    }
    order
}

/// Disjoint cycles of a graph, each as a walk along `needs`. Without their nodes, the graph has no cycle.
pub(super) fn cycles(needs: &BTreeMap<usize, BTreeSet<usize>>) -> Vec<Vec<usize>> {
    let mut left: BTreeMap<usize, BTreeSet<usize>> = needs.clone();
    let mut cycles = Vec::new();
    loop {
        // A node without needs in the rest of the graph is in no cycle. Remove such nodes until every node has a need
        // left.
        loop {
            let nodes: BTreeSet<usize> = left.keys().copied().collect();
            for needs in left.values_mut() {
                needs.retain(|need| nodes.contains(need));
            }
            let before = left.len();
            left.retain(|_, needs| !needs.is_empty());
            if left.len() == before {
                break;
            }
        }
        let Some((&start, _)) = left.first_key_value() else { return cycles };
        let mut walk = vec![start];
        let cycle = loop {
            let next = walk.last().and_then(|node| left.get(node)?.first().copied()).unwrap_or(start);
            if let Some(again) = walk.iter().position(|node| *node == next) {
                break walk.split_off(again);
            }
            walk.push(next);
        };
        // Rotate the cycle to begin at its smallest node, so that the result does not depend on where the walk began.
        let smallest = (0..cycle.len()).min_by_key(|at| cycle[*at]).unwrap_or(0);
        for node in &cycle {
            left.remove(node);
        }
        cycles.push([&cycle[smallest..], &cycle[..smallest]].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn graph(edges: &[(usize, &[usize])]) -> BTreeMap<usize, BTreeSet<usize>> {
        edges.iter().map(|(node, needs)| (*node, needs.iter().copied().collect())).collect()
    }

    #[test]
    fn cycles_are_told_once_each() {
        assert!(cycles(&graph(&[(1, &[0]), (2, &[0, 1])])).is_empty());
        assert_eq!(cycles(&graph(&[(0, &[0])])), [[0]]);
        // 3 and 4 lead into a cycle without being part of it.
        assert_eq!(
            cycles(&graph(&[(0, &[2, 9]), (1, &[0]), (2, &[1]), (3, &[2]), (4, &[3]), (5, &[6]), (6, &[5])])),
            [vec![0, 2, 1], vec![5, 6]]
        );
    }

    proptest! {
        #[test]
        fn a_graph_is_sorted_exactly_if_it_has_no_cycle(
            edges in prop::collection::vec((0_usize..8, 0_usize..8), 0..12),
        ) {
            let mut needs: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
            for (from, to) in edges {
                needs.entry(from).or_default().insert(to);
            }
            let found = cycles(&needs);
            for cycle in &found {
                for (at, node) in cycle.iter().enumerate() {
                    prop_assert!(needs[node].contains(&cycle[(at + 1) % cycle.len()]));
                }
            }
            let mut placed = BTreeSet::new();
            let is_ready = |n: &usize, placed: &BTreeSet<usize>| {
                !placed.contains(n) && needs.get(n).is_none_or(|needs| needs.is_subset(placed))
            };
            while let Some(next) = (0..8).find(|n| is_ready(n, &placed)) {
                placed.insert(next);
            }
            prop_assert_eq!(found.is_empty(), placed.len() == 8);
        }
    }
}
