//! Progress on standard error, for work that takes longer than a second: a line that is replaced on a terminal,
//! otherwise plain lines.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dovetail_service::words::count;
use dovetail_service::{Event, NodeId, Notice, Observer, RunId, RunState};

use crate::output::Output;

/// How long the work must last before progress is shown.
const PATIENCE: Duration = Duration::from_secs(1);
/// The time between two plain lines.
const PLAIN_ROUND: Duration = Duration::from_secs(5);

/// Counts events, and shows the counts.
pub(crate) struct Progress<'a> {
    output: &'a Output,
    /// Whether workers execute the runs. Then no events of steps arrive.
    others: bool,
    runs: usize,
    ended: usize,
    failed: usize,
    steps_ended: usize,
    /// Running steps and when they began.
    running: BTreeMap<(RunId, NodeId), Instant>,
    /// For a single run: the ends of its steps, to be printed as plain lines.
    step_ends: Vec<String>,
    began: Instant,
    shown: Option<Instant>,
}

impl<'a> Progress<'a> {
    /// Progress of this many runs, from now on. `others`: workers execute the runs, not this process.
    pub(crate) fn new(output: &'a Output, runs: usize, others: bool) -> Self {
        let began = Instant::now();
        Self {
            output,
            others,
            runs,
            ended: 0,
            failed: 0,
            steps_ended: 0,
            running: BTreeMap::new(),
            step_ends: Vec::new(),
            began,
            shown: None,
        }
    }

    /// Counts an event.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::StepStarted { run, step, .. } => {
                self.running.insert((run.clone(), step.clone()), Instant::now());
            }
            Event::StepFinished { run, step, failure, millis, .. } => {
                self.running.remove(&(run.clone(), step.clone()));
                self.steps_ended += 1;
                let how = match failure {
                    None => "done in",
                    Some(failure) if failure.stopped => "stopped after",
                    Some(_) => "failed after",
                };
                self.report(format!("{step} {how} {}", seconds(*millis)));
            }
            Event::StepSkipped { step, failed_step, .. } => {
                self.steps_ended += 1;
                self.report(format!("{step} skipped, since {failed_step} failed"));
            }
            Event::StepRetried { run, step, attempt, code, delay_ms } => {
                self.running.remove(&(run.clone(), step.clone()));
                self.report(format!("{step} failed ({code}) in attempt {attempt}, next one in {}", seconds(*delay_ms)));
            }
            Event::StepReleased { run, step, .. } => drop(self.running.remove(&(run.clone(), step.clone()))),
            Event::RunFinished { run, state } => {
                // A step that another worker recorded first has no event of its end.
                self.running.retain(|(of, _), _| of != run);
                self.ended += 1;
                self.failed += usize::from(*state != RunState::Succeeded);
            }
            Event::RunRecovered { .. } | Event::StoreFailed { .. } | Event::StoreAnswers { .. } => {}
        }
    }

    /// Keeps a line for [`Progress::show`], if lines are shown at all: of one run, without a terminal.
    fn report(&mut self, line: String) {
        if self.runs == 1 && !self.output.interactive {
            self.step_ends.push(line);
        }
    }

    /// Shows the progress, if enough time has passed.
    pub(crate) fn show(&mut self, now: Instant) {
        let since = now.duration_since(self.began);
        if since < PATIENCE {
            return;
        }
        if self.output.interactive {
            self.output.in_place(&self.line(now));
        } else if self.runs == 1 {
            for line in std::mem::take(&mut self.step_ends) {
                self.output.note(&line);
            }
        } else if self.shown.is_none_or(|shown| now.duration_since(shown) >= PLAIN_ROUND) {
            self.shown = Some(now);
            self.output.note(&self.line(now));
        }
    }

    fn line(&self, now: Instant) -> String {
        let since = seconds(u64::try_from(now.duration_since(self.began).as_millis()).unwrap_or(u64::MAX));
        if self.runs == 1 && self.others {
            return format!("{since}  waiting for the workers");
        }
        if self.runs == 1 {
            let running: Vec<String> = self.running.keys().map(|(_, step)| step.to_string()).collect();
            let running =
                if running.is_empty() { "waiting".to_owned() } else { format!("running {}", running.join(", ")) };
            return format!("{since}  {} done, {running}", count(self.steps_ended, "step"));
        }
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let running =
            if self.others { String::new() } else { format!(", {} running", count(self.running.len(), "step")) };
        format!("{since}  {} of {} over{failed}{running}", self.ended, count(self.runs, "run"))
    }
}

/// Prints notices and progress while a session works.
pub(crate) struct Watcher<'a> {
    output: &'a Output,
    progress: RefCell<Progress<'a>>,
    /// Whether the work has begun. The time for opening the stores is not counted.
    begun: Cell<bool>,
}

impl<'a> Watcher<'a> {
    /// A watcher of this many runs. `others`: workers execute the runs, not this process.
    pub(crate) fn new(output: &'a Output, runs: usize, others: bool) -> Self {
        Self { output, progress: RefCell::new(Progress::new(output, runs, others)), begun: Cell::new(false) }
    }
}

impl<'a> Watcher<'a> {
    fn begun(&self) -> RefMut<'_, Progress<'a>> {
        let mut progress = self.progress.borrow_mut();
        if !self.begun.replace(true) {
            progress.began = Instant::now();
        }
        progress
    }
}

impl Observer for Watcher<'_> {
    fn notice(&self, notice: &Notice) {
        self.output.note(&notice.to_string());
    }

    fn event(&self, event: &Event) {
        self.begun().event(event);
    }

    fn tick(&self, now: Instant) {
        self.begun().show(now);
    }

    fn rest(&self) {
        self.output.clear();
    }
}

impl Observer for Output {
    fn notice(&self, notice: &Notice) {
        self.note(&notice.to_string());
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;
    use dovetail_service::StepFailure;

    #[test]
    fn one_line_says_how_far_it_is() {
        let output = Output::new(Format::Json);
        let mut progress = Progress::new(&output, 2, false);
        let run = RunId::from_bytes([1; 16]);
        progress.event(&Event::StepStarted { run: run.clone(), step: NodeId::of_step("detect"), attempt: 1 });
        assert!(
            progress.line(progress.began).ends_with("0 of 2 runs over, 1 step running"),
            "{}",
            progress.line(progress.began)
        );
        let failure = Some(StepFailure { code: "x".into(), message: "y".into(), stopped: false });
        progress.event(&Event::StepFinished {
            run: run.clone(),
            step: NodeId::of_step("detect"),
            attempt: 1,
            failure,
            millis: 1500,
        });
        progress.event(&Event::RunFinished { run, state: RunState::Failed });
        assert!(progress.line(progress.began).ends_with("1 of 2 runs over, 1 failed, 0 steps running"));
        assert!(progress.step_ends.is_empty(), "of several runs the line is shown alone");
    }

    #[test]
    fn of_one_run_every_step_is_a_line_and_a_step_without_an_end_is_forgotten_with_its_run() {
        let output = Output::new(Format::Json);
        let mut progress = Progress::new(&output, 1, false);
        let run = RunId::from_bytes([1; 16]);
        let step = NodeId::of_step("detect");
        for (name, millis) in [(&step, 1500), (&NodeId::of_step("report"), 200)] {
            progress.event(&Event::StepStarted { run: run.clone(), step: name.clone(), attempt: 1 });
            let (run, step) = (run.clone(), step.clone());
            progress.event(&Event::StepFinished { run, step, attempt: 1, failure: None, millis });
        }
        assert_eq!(progress.step_ends, ["detect done in 1.5 s", "detect done in 0.2 s"]);
        assert_eq!(progress.running.len(), 1, "`report` has no event of its end");
        progress.event(&Event::RunFinished { run, state: RunState::Succeeded });
        assert!(progress.running.is_empty());
    }

    #[test]
    fn of_the_steps_of_others_nothing_is_said() {
        let output = Output::new(Format::Json);
        let mut progress = Progress::new(&output, 3, true);
        progress.event(&Event::RunFinished { run: RunId::from_bytes([1; 16]), state: RunState::Succeeded });
        assert!(progress.line(progress.began).ends_with("1 of 3 runs over"), "{}", progress.line(progress.began));
        let one = Progress::new(&output, 1, true);
        assert!(one.line(one.began).ends_with("waiting for the workers"), "{}", one.line(one.began));
    }
}
