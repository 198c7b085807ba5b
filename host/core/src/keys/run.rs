//! Keys of a run, and of the records and jobs that belong to it.

use super::{NodeId, number};
use crate::id::RunId;

/// A run in one of its generations: 0 for the submitted run, one more for each re-run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunKey {
    /// The submitted run.
    pub run: RunId,
    /// The number of re-runs before this one.
    pub generation: u32,
}

impl RunKey {
    /// `RUN:GENERATION`, the key of cancel and run-outcome records.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}:{}", self.run, self.generation)
    }

    /// Parses a key of the form `RUN:GENERATION`.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let (run, generation) = key.split_once(':')?;
        Some(Self { run: run.parse().ok()?, generation: number(generation)? })
    }

    /// `RUN:STEP:GENERATION`, the key of a step's outcome.
    #[must_use]
    pub fn step(&self, step: &(impl AsRef<str> + ?Sized)) -> String {
        format!("{}:{}:{}", self.run, step.as_ref(), self.generation)
    }

    /// Parses a key of an outcome into its run and step.
    #[must_use]
    pub fn of_outcome(key: &str) -> Option<(Self, NodeId)> {
        let (run, rest) = key.split_once(':')?;
        let (step, generation) = rest.rsplit_once(':')?;
        let run = Self { run: run.parse().ok()?, generation: number(generation)? };
        Some((run, step.parse().ok()?))
    }

    /// `RUN:STEP:GENERATION:NUMBER`, the key of an attempt.
    #[must_use]
    pub fn attempt(&self, step: &(impl AsRef<str> + ?Sized), number: u32) -> String {
        format!("{}:{}:{}:{number}", self.run, step.as_ref(), self.generation)
    }

    /// `RUN:GENERATION/STEP`, the key of a job in a queue that is a separate system.
    #[must_use]
    pub fn job(&self, step: &NodeId) -> String {
        format!("{}:{}/{step}", self.run, self.generation)
    }

    /// Parses a key of a job into its run and step.
    #[must_use]
    pub fn of_job(key: &str) -> Option<(Self, NodeId)> {
        let (run, step) = key.split_once('/')?;
        Some((Self::parse(run)?, step.parse().ok()?))
    }

    /// The form that people write and read: `RUN` for the submitted run, `RUN@1` for its first re-run, and so on.
    #[must_use]
    pub fn reference(&self) -> String {
        if self.generation == 0 { self.run.to_string() } else { self.numbered_reference() }
    }

    /// `RUN@GENERATION`, also for generation 0.
    #[must_use]
    pub fn numbered_reference(&self) -> String {
        format!("{}@{}", self.run, self.generation)
    }
}

/// `RUN:KIND`, the key of the model of a kind that was chosen for a run after the run's submission.
#[must_use]
pub fn model_choice(run: &RunId, kind: &str) -> String {
    format!("{run}:{kind}")
}

/// The prefix of all keys that belong to the run, except for the key of the run's own record, which is its ID.
#[must_use]
pub fn keys_of_run(run: &RunId) -> String {
    format!("{run}:")
}

/// The run's ID in a key, as text. The rest of the key is not checked.
#[must_use]
pub fn run_of(key: &str) -> &str {
    key.split_once(':').map_or(key, |(run, _)| run)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest ID, the largest ID and 200 others, each in several generations.
    fn runs() -> Vec<RunKey> {
        let ids = (0..200_u32)
            .map(|n| RunId::from_bytes(crate::Digest::of(&n.to_le_bytes()).bytes()[..16].try_into().unwrap()));
        let ids = ids.chain([RunId::from_bytes([0; 16]), RunId::from_bytes([255; 16])]);
        let generations = [0, 1, 9, 10, u32::MAX];
        ids.flat_map(|run| generations.map(|generation| RunKey { run: run.clone(), generation })).collect()
    }

    /// Steps; some names look like numbers or like other parts of a key.
    fn steps() -> [NodeId; 8] {
        ["a", "detect_faces", "step_0", "x1_2", "records", "a[0]", "a[12][4294967295]", "step_0[0]"]
            .map(|text| text.parse().unwrap())
    }

    #[test]
    fn every_key_is_read_as_what_it_was_made_of() {
        for run in runs() {
            assert_eq!(RunKey::parse(&run.key()), Some(run.clone()));
            for step in &steps() {
                assert_eq!(RunKey::of_outcome(&run.step(step)), Some((run.clone(), step.clone())));
                assert_eq!(RunKey::of_job(&run.job(step)), Some((run.clone(), step.clone())));
                for key in [run.step(step), run.key(), run.attempt(step, 2), model_choice(&run.run, "detector")] {
                    assert_eq!(run_of(&key), run.run.as_str());
                    assert!(key.starts_with(&keys_of_run(&run.run)), "{key}");
                }
            }
            assert_eq!(run_of(run.run.as_str()), run.run.as_str());
        }
    }

    #[test]
    fn two_things_have_two_keys() {
        let mut all = std::collections::BTreeSet::new();
        let mut count = 0;
        for run in runs() {
            let of_step = |step: &NodeId| [run.step(step), run.job(step), run.attempt(step, 2), run.attempt(step, 12)];
            let keys: Vec<String> = steps().iter().flat_map(of_step).chain([run.key()]).collect();
            count += keys.len();
            all.extend(keys);
        }
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_key_of_one_kind_is_none_of_another() {
        for run in runs() {
            for step in &steps() {
                let (outcome, attempt, job) = (run.step(step), run.attempt(step, 2), run.job(step));
                for key in [&outcome, &attempt, &job] {
                    assert_eq!(RunKey::parse(key), None, "{key}");
                }
                for key in [&run.key(), &attempt, &job] {
                    assert_eq!(RunKey::of_outcome(key), None, "{key}");
                }
                for key in [&run.key(), &outcome, &attempt] {
                    assert_eq!(RunKey::of_job(key), None, "{key}");
                }
            }
        }
    }

    #[test]
    fn what_no_maker_makes_is_refused() {
        let run = RunId::from_bytes([7; 16]);
        for rest in ["", ":", ":+1", ":01", ":1 ", ":a", ":1:1", "1"] {
            assert_eq!(RunKey::parse(&format!("{run}{rest}")), None, "{rest}");
        }
        for rest in ["::0", ":a:", ":a:x", ":a:01", ":a:0:1", ":a/b:0"] {
            assert_eq!(RunKey::of_outcome(&format!("{run}{rest}")), None, "{rest}");
        }
        for rest in [":0/", ":0", "/a", ":0/a/b", ":0/a:b", ":x/a"] {
            assert_eq!(RunKey::of_job(&format!("{run}{rest}")), None, "{rest}");
        }
        assert_eq!(RunKey::parse("no-run:0"), None);
    }

    #[test]
    fn the_first_generation_is_called_by_its_run() {
        let mut run = RunKey { run: RunId::from_bytes([7; 16]), generation: 0 };
        assert_eq!(run.reference(), run.run.as_str());
        assert_eq!(run.numbered_reference(), format!("{}@0", run.run));
        run.generation = 3;
        assert_eq!(run.reference(), format!("{}@3", run.run));
    }
}
