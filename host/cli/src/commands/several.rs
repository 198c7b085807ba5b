//! Several runs in one command, of `run --each` and of `runs resume`: they are submitted in batches while others are
//! worked on, and their documents are printed in order, each as soon as all before it have been.
//!
//! Once the first of them has been submitted there is a document on standard output for all of them, and it is closed
//! whatever happens: an error stands inside it.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::time::Instant;

use dovetail_core::RunId;
use dovetail_flow::Shutdown;
use serde_json::{Value, json};

use crate::error::{Blame, Error, Exit};
use crate::output::{Format, pretty};
use crate::paths::Shown;
use crate::patience::Patience;
use crate::table::{count, table};
use crate::wire::App;
use crate::work::{BATCH, Session, start};

/// The first batch is small, so that the first results come soon; each is four times the one before, up to what one
/// worker looks at.
const FIRST_BATCH: usize = 16;
/// Refusals that are told one by one.
const SHOWN: usize = 10;

/// Which runs.
pub(crate) enum Several<'a> {
    /// One for each of these files. With a key, the same command again makes the same runs.
    Files { files: &'a [PathBuf], keyed: bool },
    /// These, which were submitted before.
    Open(&'a [RunId]),
}

impl Several<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Files { files, .. } => files.len(),
            Self::Open(runs) => runs.len(),
        }
    }

    fn file(&self, n: usize) -> Option<&Path> {
        match self {
            Self::Files { files, .. } => files.get(n).map(PathBuf::as_path),
            Self::Open(_) => None,
        }
    }
}

/// The n-th run, by its place among all of them.
type Numbered = (usize, RunId);

/// Submits all of them and works on them until they are over. `submit` makes the n-th run ready to be worked on: an
/// error that is the user's is about this run only, any other ends the submission.
pub(crate) fn run_all(
    app: &App,
    several: &Several<'_>,
    jobs: u32,
    submit: impl Fn(usize) -> Result<RunId, Error> + Send,
) -> Result<Exit, Error> {
    let mut session = Session::begin(app, several.len(), jobs)?;
    let shutdown = session.shutdown();
    let mut results = Results::new(app, several, shutdown.clone());
    // One batch is worked on, one waits, one is being submitted: so much is held, however many there are.
    let (send, batches) = mpsc::sync_channel::<Vec<Numbered>>(1);
    let (submitted, worked) = std::thread::scope(|threads| {
        let (count, stop) = (several.len(), shutdown.clone());
        let submitting = start(threads, "submit", move || submit_all(count, &submit, &stop, &send));
        let mut worked = Ok(());
        for batch in batches {
            let runs: Vec<RunId> = batch.iter().map(|(_, run)| run.clone()).collect();
            results.expect(batch);
            if worked.is_ok() {
                worked = session.work(&runs, |run| results.ended(run));
            }
            if worked.is_err() {
                // What has been submitted meanwhile still comes, to be listed as open.
                shutdown.drain();
            }
        }
        let submitted = match submitting {
            Ok(submitting) => submitting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Submitted { reached: 0, refused: Vec::new(), fault: Some(error) },
        };
        (submitted, worked)
    });
    if let Several::Open(runs) = several {
        // Those that were not looked at any more are open as well.
        results.expect((submitted.reached..runs.len()).map(|n| (n, runs[n].clone())).collect());
    }
    let any = results.any();
    let worked = worked.and_then(|()| submitted.fault.map_or(Ok(()), Err));
    // Whatever can still be read is listed.
    let worked = if any { worked.and(results.rest()) } else { worked };
    let error = worked.err().or_else(|| refusals(several, submitted.refused, any));
    match error {
        Some(error) if !any => Err(error),
        error => results.close(several, submitted.reached, session.interrupted(), error),
    }
}

/// Submits all of them for whoever works, and prints the ID of each.
pub(crate) fn submit_only(
    app: &App,
    several: &Several<'_>,
    submit: impl Fn(usize) -> Result<RunId, Error>,
) -> Result<Exit, Error> {
    let (mut submitted, mut runs, mut refused, mut fault) = (0, Vec::new(), Vec::new(), None);
    for n in 0..several.len() {
        match submit(n) {
            Ok(run) => {
                submitted += 1;
                let said = json!({ "run_id": run, "file": several.file(n).map(Shown::text) });
                match app.output.format {
                    Format::Json => runs.push(said),
                    Format::Ndjson => app.output.text(&said.to_string()),
                    Format::Text => app.output.text(run.as_str()),
                }
            }
            Err(error) if error.blame == Blame::Usage => refused.push((n, error)),
            Err(error) => {
                fault = Some(error);
                break;
            }
        }
    }
    let error = fault.or_else(|| refusals(several, refused, submitted > 0));
    if submitted == 0
        && let Some(error) = error
    {
        return Err(error);
    }
    if app.output.format == Format::Json {
        let mut document = json!({ "runs": runs });
        if let (Some(error), Some(document)) = (&error, document.as_object_mut()) {
            document.insert("error".into(), error.to_json()["error"].clone());
            app.output.note(&error.to_text());
        }
        app.output.text(&pretty(&document));
        // What was submitted stays so: it is no longer a wrong usage.
        return Ok(if error.is_some() { Exit::HostFailed } else { Exit::Done });
    }
    match error {
        Some(mut error) => {
            error.blame = Blame::Host;
            Err(error)
        }
        None => Ok(Exit::Done),
    }
}

/// How far the submission came.
struct Submitted {
    /// Those before have been tried.
    reached: usize,
    refused: Vec<(usize, Error)>,
    fault: Option<Error>,
}

fn submit_all(
    count: usize,
    submit: &dyn Fn(usize) -> Result<RunId, Error>,
    shutdown: &Shutdown,
    send: &SyncSender<Vec<Numbered>>,
) -> Submitted {
    let mut submitted = Submitted { reached: 0, refused: Vec::new(), fault: None };
    let mut size = FIRST_BATCH;
    let goes_on =
        |submitted: &Submitted| submitted.reached < count && submitted.fault.is_none() && !shutdown.draining();
    while goes_on(&submitted) {
        let mut batch = Vec::with_capacity(size);
        while batch.len() < size && goes_on(&submitted) {
            let n = submitted.reached;
            match submit(n) {
                Ok(run) => batch.push((n, run)),
                Err(error) if error.blame == Blame::Usage => submitted.refused.push((n, error)),
                Err(error) => submitted.fault = Some(error),
            }
            submitted.reached += usize::from(submitted.fault.is_none());
        }
        // Nobody listens any more only if the one who works panicked.
        if !batch.is_empty() && send.send(batch).is_err() {
            break;
        }
        size = (size * 4).min(BATCH);
    }
    submitted
}

/// Files that were good when the command began and could not be submitted: the others were.
fn refusals(several: &Several<'_>, mut refused: Vec<(usize, Error)>, any: bool) -> Option<Error> {
    if refused.len() < 2 && !any {
        return refused.pop().map(|(_, error)| error);
    }
    let code = refused.first()?.1.code;
    let (what, others) = match several {
        Several::Files { .. } => {
            ("files could not be submitted", "the others were submitted; mend these and run them again")
        }
        Several::Open(_) => ("runs could not be resumed", "the others were; mend what these lack and resume them"),
    };
    let mut message = format!("{} of {} {what}", refused.len(), several.len());
    for (_, error) in refused.iter().take(SHOWN) {
        message.push_str(&format!("\n  {}", error.chain()));
    }
    if refused.len() > SHOWN {
        message.push_str(&format!("\n  and {} more", refused.len() - SHOWN));
    }
    let detail = |(n, error): &(usize, Error)| match several {
        Several::Files { files, .. } => {
            json!({ "path": files.get(*n).map(|file| file.text()), "code": error.code, "message": error.chain() })
        }
        Several::Open(runs) => json!({ "run_id": runs.get(*n), "code": error.code, "message": error.chain() }),
    };
    let details: Vec<Value> = refused.iter().map(detail).collect();
    let help = match several {
        _ if any => others,
        Several::Files { .. } => "mend them and run them again",
        Several::Open(_) => "mend what they lack and resume them",
    };
    let details_of = if matches!(several, Several::Files { .. }) { "files" } else { "runs" };
    Some(Error::usage(code, message).help(help).detail(details_of, details))
}

/// There is none.
pub(crate) fn none(app: &App) -> Exit {
    app.output
        .result(|| json!({ "runs": [], "summary": Tally::default().to_json(0) }), || "no run is open\n".to_owned());
    Exit::Done
}

/// Prints documents in order, and counts.
struct Results<'a> {
    app: &'a App,
    several: &'a Several<'a>,
    shutdown: Shutdown,
    began: Instant,
    /// Submitted and not yet printed, in order.
    waiting: VecDeque<Numbered>,
    /// Of those, what is over.
    over: BTreeSet<RunId>,
    tally: Tally,
    rows: Vec<Vec<String>>,
}

impl<'a> Results<'a> {
    fn new(app: &'a App, several: &'a Several<'a>, shutdown: Shutdown) -> Self {
        let (waiting, over, tally, rows) = (VecDeque::new(), BTreeSet::new(), Tally::default(), Vec::new());
        Self { app, several, shutdown, began: Instant::now(), waiting, over, tally, rows }
    }

    /// There are so many more.
    fn expect(&mut self, runs: Vec<Numbered>) {
        self.waiting.extend(runs);
    }

    /// Whether there is any run at all.
    fn any(&self) -> bool {
        self.tally.total() + self.waiting.len() > 0
    }

    /// This one is over: it is printed when all before it have been.
    fn ended(&mut self, run: &RunId) -> Result<(), Error> {
        self.over.insert(run.clone());
        while let Some((n, run)) = self.waiting.pop_front_if(|(_, run)| self.over.contains(run)) {
            if !self.print(n, &run)? {
                return Ok(());
            }
            self.over.remove(&run);
        }
        Ok(())
    }

    /// Those that are left, as they are.
    fn rest(&mut self) -> Result<(), Error> {
        while let Some((n, run)) = self.waiting.pop_front() {
            if !self.print(n, &run)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The document of a run. One that cannot be read goes on waiting: false if no store answers and the user wants to
    /// stop.
    fn print(&mut self, n: usize, run: &RunId) -> Result<bool, Error> {
        let parts = self.app.parts()?;
        let tell = |note: String| self.app.output.note(&note);
        let asked = Patience::new(&self.shutdown, &tell).ask(|| dovetail_flow::document(parts, run));
        let Ok(Some(document)) = asked else {
            self.waiting.push_front((n, run.clone()));
            return Ok(asked.map(|_| false)?);
        };
        match self.app.output.format {
            Format::Ndjson => self.app.output.text(&document.to_string()),
            Format::Json => {
                let before = if self.tally.total() == 0 { "{\n  \"runs\": [\n" } else { ",\n" };
                self.app.output.raw(&format!("{before}    {}", pretty(&document).replace('\n', "\n    ")));
            }
            Format::Text => self.rows.push(row(self.several.file(n), run, &document)),
        }
        self.tally.count(document.get("state").and_then(Value::as_str).unwrap_or_default());
        Ok(true)
    }

    /// The end of the document, and what to do about what is not done.
    fn close(
        mut self,
        several: &Several<'_>,
        reached: usize,
        interrupted: bool,
        error: Option<Error>,
    ) -> Result<Exit, Error> {
        let wall_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Runs whose document cannot even be read are open, as far as anybody knows.
        self.tally.open += self.waiting.len();
        let submitted = self.tally.total();
        if let Several::Files { files, .. } = several {
            self.tally.not_submitted = files.len() - submitted;
        }
        match self.app.output.format {
            Format::Json => self.app.output.raw(&self.json_end(wall_ms, error.as_ref())),
            Format::Ndjson => {}
            Format::Text => self.app.output.text(&self.text(wall_ms)),
        }
        if interrupted || error.is_some() {
            self.say_how_to_go_on(several, reached, interrupted);
        }
        // Something has been recorded: whatever it is, it is no longer a wrong usage.
        let error = error.map(|mut error| {
            error.blame = Blame::Host;
            error
        });
        match error {
            Some(error) if self.app.output.format == Format::Json => {
                self.app.output.note(&error.to_text());
                Ok(Exit::HostFailed)
            }
            Some(error) => Err(error),
            None if interrupted && self.tally.open + self.tally.not_submitted > 0 => Ok(Exit::Interrupted),
            None if self.tally.failed + self.tally.cancelled > 0 => Ok(Exit::Failed),
            None => Ok(Exit::Done),
        }
    }

    fn json_end(&self, wall_ms: u64, error: Option<&Error>) -> String {
        let printed = self.tally.total() - self.waiting.len();
        let runs = if printed == 0 { "{\n  \"runs\": []" } else { "\n  ]" };
        let error = error.map_or_else(String::new, |error| {
            let error = pretty(&error.to_json()["error"]).replace('\n', "\n  ");
            format!(",\n  \"error\": {error}")
        });
        format!("{runs},\n  \"summary\": {}{error}\n}}\n", self.tally.to_json(wall_ms))
    }

    fn text(&self, wall_ms: u64) -> String {
        let first = if matches!(self.several, Several::Files { .. }) { "file" } else { "pipeline" };
        let table = table(&[first, "state", "time", "run", "error"], &self.rows);
        format!("{table}\n{} in {}.{} s\n", self.tally.to_text(), wall_ms / 1000, wall_ms % 1000 / 100)
    }

    fn say_how_to_go_on(&self, several: &Several<'_>, reached: usize, interrupted: bool) {
        let Tally { open, not_submitted, .. } = self.tally;
        let mut lines = Vec::new();
        if open > 0 {
            let (are, them) = if open == 1 { ("is", "it") } else { ("are", "them") };
            let how = if self.app.config.is_fleet() {
                format!("the workers go on; wait for {them} again with\n  {}", self.app.again("runs resume --all"))
            } else {
                format!("go on with {them} by\n  {}", self.app.again("runs resume --all"))
            };
            lines.push(format!("{} {are} open; {how}", count(open, "run")));
        }
        if let (Several::Files { files, keyed }, true) = (several, interrupted)
            && let Some(file) = files.get(reached).filter(|_| not_submitted > 0)
        {
            let how = if *keyed { "the same command goes on with them" } else { "run --each again with these" };
            let left = files.len() - reached;
            let were = if left == 1 { "was" } else { "were" };
            lines.push(format!("{} {were} not submitted, from `{}` on: {how}", count(left, "file"), file.shown()));
        }
        if !lines.is_empty() {
            let why = if interrupted { "interrupted; " } else { "" };
            self.app.output.note(&format!("{why}{}", lines.join("\n")));
        }
    }
}

fn row(file: Option<&Path>, run: &RunId, document: &Value) -> Vec<String> {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let error = match (text("/error/code"), text("/error/message")) {
        (code, _) if code.is_empty() => String::new(),
        (code, message) => format!("{code}: {message}"),
    };
    let first = file.map_or_else(|| text("/pipeline"), |file| file.text());
    vec![first, text("/state"), text("/processing_summary/total_time"), run.to_string(), error]
}

/// How many of which state.
#[derive(Debug, Default)]
struct Tally {
    succeeded: usize,
    failed: usize,
    cancelled: usize,
    open: usize,
    /// Files without a run.
    not_submitted: usize,
}

impl Tally {
    fn count(&mut self, state: &str) {
        match state {
            "succeeded" => self.succeeded += 1,
            "failed" => self.failed += 1,
            "cancelled" => self.cancelled += 1,
            _ => self.open += 1,
        }
    }

    fn total(&self) -> usize {
        self.succeeded + self.failed + self.cancelled + self.open
    }

    fn to_json(&self, wall_ms: u64) -> Value {
        json!({
            "total": self.total(), "succeeded": self.succeeded, "failed": self.failed, "cancelled": self.cancelled, "open": self.open,
            "not_submitted": self.not_submitted, "total_time_ms": wall_ms,
        })
    }

    fn to_text(&self) -> String {
        let mut text = format!("{}: {} succeeded", count(self.total(), "run"), self.succeeded);
        let rest = [
            (self.failed, "failed"),
            (self.cancelled, "cancelled"),
            (self.open, "open"),
            (self.not_submitted, "not submitted"),
        ];
        for (n, what) in rest.into_iter().filter(|(n, _)| *n > 0) {
            text.push_str(&format!(", {n} {what}"));
        }
        text
    }
}
