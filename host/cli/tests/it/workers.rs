//! Daemons on one data folder: `worker`, `run --detach`, `runs watch|cancel|retry`, `workers list`.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Home;

/// A worker process, which is killed at the end of the test if it still runs.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts a worker and waits until `workers list` shows it.
    pub(crate) fn start(home: &Home, name: &str, more: &[&str]) -> Self {
        let mut args = vec!["worker", "--name", name];
        args.extend(more);
        let log = std::fs::File::create(home.path(&format!("{name}.log"))).unwrap();
        let child = home.command(&args).stderr(log).stdout(Stdio::null()).spawn().unwrap();
        wait("the worker is listed", || names(home).contains(&name.to_owned()));
        Self(child)
    }

    /// Stops the worker by SIGTERM, and gives the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM)
            .unwrap();
        wait("the worker ends", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn many_are_submitted_without_waiting() {
    let home = Home::new();
    home.push(&["add"]).pipeline(
        "adding",
        &json!({ "name": "adding", "version": "1.0.0", "inputs": { "a": {} },
            "steps": { "sum": { "number": 1, "task": "add@^1", "inputs": { "a": "input.a", "b": {"value": 1} } } },
            "output": { "sum": "sum.sum" } }),
    );
    for n in 0..5 {
        home.write(&format!("in/{n}.json"), n.to_string());
    }
    let run = ["run", "adding", "--each", "a=@in", "--detach"];
    let refused = home.run(&[&run[..], &["--output", "json"]].concat()).exits(2);
    assert_eq!(refused.json()["error"]["code"], "no_worker");
    assert_eq!(home.run(&["runs", "list", "--output", "json"]).exits(0).json(), json!([]), "nothing was recorded");
    let daemon = Daemon::start(&home, "one", &[]);
    let printed = home.run(&run).exits(0).stdout;
    let listed = home.run(&[&run[..], &["--output", "json"]].concat()).exits(0).json();
    let lines = home.run(&[&run[..], &["--output", "ndjson"]].concat()).exits(0).stdout;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |runs: &[Value]| runs.iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let sets = [printed.lines().map(str::to_owned).collect(), named(listed["runs"].as_array().unwrap()), named(&lines)];
    for runs in sets {
        assert_eq!(runs.len(), 5, "{runs:?}");
        for (n, run) in runs.iter().enumerate() {
            let document = home.run(&["runs", "watch", run, "--output", "json"]).exits(0).json();
            assert_eq!(document["output"]["sum"], json!(n + 1), "in the order of the files");
        }
    }
    assert!(lines[4]["file"].as_str().unwrap().ends_with("4.json"), "{lines:?}");
    assert_eq!(daemon.stop(), Some(0));
}

fn names(home: &Home) -> Vec<String> {
    let listed = home.run(&["workers", "list", "--output", "json"]).exits(0).json();
    listed.as_array().unwrap().iter().map(|worker| worker["name"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
pub(crate) fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let began = Instant::now();
    while !until() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: it does not");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn home(steps: &Value, output: &str) -> Home {
    let home = Home::new();
    let pipeline =
        json!({ "name": "it", "version": "1.0.0", "inputs": {}, "steps": steps, "output": { "it": output } });
    home.push(&["add", "probe"]).pipeline("it", &pipeline);
    home
}

fn adding() -> Home {
    home(
        &json!({ "sum": { "number": 1, "task": "add@^1", "inputs": { "a": {"value": 1}, "b": {"value": 2} } } }),
        "sum.sum",
    )
}

fn endless() -> Home {
    let inputs = json!({ "behaviour": {"value": {"tag": "endless_loop"}} });
    let steps = json!({ "go": { "number": 1, "task": "probe", "inputs": inputs } });
    home(&steps, "go.count")
}

fn submitted(home: &Home) -> String {
    home.run(&["run", "it", "--detach", "--output", "json"]).exits(0).json()["run_id"].as_str().unwrap().to_owned()
}

fn state(home: &Home, run: &str) -> String {
    home.run(&["runs", "show", run, "--output", "json"]).exits(0).json()["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_daemon_works_on_what_others_submit_and_drains_on_sigterm() {
    let home = adding();
    let refused = home.run(&["run", "it", "--detach", "--output", "json"]).exits(2);
    assert_eq!(refused.json()["error"]["code"], "no_worker");
    assert!(home.run(&["workers", "list"]).exits(0).stdout.contains("no worker is alive"));
    let daemon = Daemon::start(&home, "one", &[]);
    let listed = home.run(&["workers", "list", "--output", "json"]).exits(0).json();
    assert_eq!((&listed[0]["slots"], &listed[0]["version"]), (&json!(10), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(listed[0]["models"], 0);
    assert!(home.run(&["workers", "list"]).exits(0).stdout.contains(" clocks random 0 models "));
    assert!(
        listed[0]["memory"].as_u64().unwrap() > 1 << 20
            && listed[0]["able"].as_array().unwrap().contains(&json!("clocks")),
        "{listed}"
    );
    let run = submitted(&home);
    let document = home.run(&["runs", "watch", &run, "--output", "json"]).exits(0).json();
    assert_eq!((&document["state"], &document["output"]), (&json!("succeeded"), &json!({ "it": 3 })));
    assert_eq!(document["processing_summary"]["steps"][0]["attempts"][0]["worker"], "one");
    assert_eq!(daemon.stop(), Some(0));
    assert!(names(&home).is_empty(), "a stopped worker is not listed");
    let log = std::fs::read_to_string(home.path("one.log")).unwrap();
    assert!(log.contains("step succeeded") && log.contains(&run), "one line an event:\n{log}");
}

#[test]
fn the_work_of_a_killed_daemon_is_done_by_another() {
    let home = endless();
    let first = Daemon::start(&home, "first", &[]);
    let run = submitted(&home);
    let worker = || {
        let document = home.run(&["runs", "show", &run, "--output", "json"]).exits(0).json();
        document["processing_summary"]["steps"][0]["worker"].clone()
    };
    wait("the step runs", || state(&home, &run) == "running");
    assert_eq!(worker(), "first");
    assert!(home.run(&["runs", "show", &run]).exits(0).stdout.contains("running on first "));
    drop(first);
    wait("no worker executes the step", || state(&home, &run) == "queued");
    assert_eq!(worker(), Value::Null);
    let _second = Daemon::start(&home, "second", &[]);
    wait("the step runs again", || state(&home, &run) == "running");
    assert_eq!(worker(), "second");
    home.run(&["runs", "cancel", &run]).exits(0);
    home.run(&["runs", "watch", &run]).exits(1);
    // The stopped attempt counts the lost worker, which could not record its own attempt.
    let step = || {
        home.run(&["runs", "show", &run, "--output", "json"]).exits(0).json()["processing_summary"]["steps"][0].clone()
    };
    wait("the attempt is recorded", || step()["state"] == "stopped");
    let attempts = step()["attempts"].clone();
    assert_eq!(
        (attempts.as_array().unwrap().len(), &attempts[0]["worker"], &attempts[0]["lost_workers"]),
        (1, &json!("second"), &json!(1))
    );
    let shown = home.run(&["runs", "show", &run]).exits(0);
    assert!(shown.stdout.contains("started again after 1 lost worker"), "{}", shown.stdout);
}

#[test]
fn a_run_is_cancelled_while_it_runs_and_run_again_by_retry() {
    let home = endless();
    let _daemon = Daemon::start(&home, "one", &[]);
    let run = submitted(&home);
    wait("the step runs", || state(&home, &run) == "running");
    let open = home.run(&["runs", "retry", &run, "--output", "json"]).exits(2);
    assert_eq!(open.json()["error"]["code"], "run_open");
    let cancelled = home.run(&["runs", "cancel", &run, "--output", "json"]).exits(0).json();
    assert_eq!(cancelled, json!({ "run_id": run, "cancelled": true }));
    assert_eq!(state(&home, &run), "cancelled");
    // The slot is free when the outcome of the stopped attempt is recorded.
    let stopped = || {
        home.run(&["runs", "show", &run, "--output", "json"]).exits(0).json()["processing_summary"]["steps"][0]["state"]
            == "stopped"
    };
    wait("the attempt ends", stopped);
    let again = home.run(&["runs", "cancel", &run, "--output", "json"]).exits(0).json();
    assert_eq!(again["cancelled"], false);
    home.run(&["runs", "retry", &run, "--detach"]).exits(0);
    wait("the step runs again", || state(&home, &run) == "running");
    home.run(&["runs", "cancel", &run]).exits(0);
    assert_eq!(state(&home, &run), "cancelled");
}

/// `runs watch` shows the outcomes of running steps, although the end of the run is recorded before them.
#[test]
fn runs_watch_shows_the_attempts_that_were_stopped() {
    let endless =
        json!({ "number": 1, "task": "probe", "inputs": { "behaviour": {"value": {"tag": "endless_loop"}} } });
    // One step fails while the other step runs.
    let failing = json!({ "number": 2, "task": "probe",
        "inputs": { "behaviour": {"value": {"tag": "fail", "val": "failed_retryable"}} },
        "retry": { "max_attempts": 2, "backoff": "1s" } });
    for (fails, expected) in [(false, "cancelled"), (true, "failed")] {
        let steps = if fails { json!({ "go": endless, "fail": failing }) } else { json!({ "go": endless }) };
        let home = home(&steps, "go.count");
        let _daemon = Daemon::start(&home, "one", &[]);
        for _ in 0..3 {
            let run = submitted(&home);
            let notes = home.path("notes");
            let args = ["runs", "watch", &run, "--output", "json"];
            let watch = home
                .command(&args)
                .stdout(Stdio::piped())
                .stderr(std::fs::File::create(&notes).unwrap())
                .spawn()
                .unwrap();
            if !fails {
                wait("it is told that the step runs", || {
                    std::fs::read_to_string(&notes).unwrap().contains("001  running")
                });
                home.run(&["runs", "cancel", &run]).exits(0);
            }
            let document = crate::support::Ran::of(&watch.wait_with_output().unwrap(), &args).exits(1).json();
            let step = &document["processing_summary"]["steps"][0];
            assert_eq!((&document["state"], &step["state"]), (&json!(expected), &json!("stopped")), "{document:#}");
            assert_eq!(step["attempts"].as_array().unwrap().len(), 1, "{document:#}");
            assert!(step["attempts"][0]["usage"]["wall_us"].as_u64().unwrap() > 0, "{document:#}");
            let told = std::fs::read_to_string(&notes).unwrap();
            assert!(!told.contains("not_run") && told.contains("001  stopped"), "{told}");
        }
    }
}

/// `runs watch` does not wait for a step of a cancelled run that never started. A killed worker never records the
/// outcome of its attempt.
#[test]
fn runs_watch_does_not_wait_for_steps_that_never_record_an_outcome() {
    let home = endless();
    home.write("dovetail.toml", "worker = { lease = \"2s\" }\n");
    let daemon = Daemon::start(&home, "one", &[]);
    let run = submitted(&home);
    let notes = home.path("notes");
    let args = ["runs", "watch", &run, "--output", "json"];
    let watch =
        home.command(&args).stdout(Stdio::piped()).stderr(std::fs::File::create(&notes).unwrap()).spawn().unwrap();
    wait("it is told that the step runs", || std::fs::read_to_string(&notes).unwrap().contains("001  running"));
    drop(daemon);
    home.run(&["runs", "cancel", &run]).exits(0);
    let document = crate::support::Ran::of(&watch.wait_with_output().unwrap(), &args).exits(1).json();
    assert_eq!(document["processing_summary"]["steps"][0]["state"], "not_run");
    let began = Instant::now();
    home.run(&["runs", "watch", &run]).exits(1);
    assert!(began.elapsed() < Duration::from_secs(30), "it is long over");
}

#[test]
fn several_runs_are_cancelled_at_once() {
    let home = endless();
    let runs = [crate::support::open_run(&home, "it"), crate::support::open_run(&home, "it")];
    let left = crate::support::open_run(&home, "it");
    // If one name is wrong, no run is cancelled.
    home.run(&["runs", "cancel", &runs[0], "ffff0000"]).exits(2);
    assert_eq!(state(&home, &runs[0]), "queued");
    home.run(&["runs", "cancel"]).exits(2);
    let cancelled = home.run(&["runs", "cancel", &runs[0], &runs[1], &runs[0], "--output", "json"]).exits(0).json();
    assert_eq!(cancelled, json!([{ "run_id": runs[0], "cancelled": true }, { "run_id": runs[1], "cancelled": true }]));
    assert_eq!((state(&home, &runs[1]).as_str(), state(&home, &left).as_str()), ("cancelled", "queued"));
    let again = home.run(&["runs", "cancel", &runs[0], &left]).exits(0).stdout;
    assert_eq!(again, format!("{}  was over before\n{left}  cancelled\n", runs[0]));
}

/// The log says why a step failed. A stopped step is not logged as a failure.
#[test]
fn the_log_says_why_a_step_failed_and_that_one_was_stopped() {
    let fails =
        json!({ "sum": { "number": 1, "task": "add@^1", "inputs": { "a": {"value": 1}, "b": {"value": i64::MAX} } } });
    let (home, stopped) = (home(&fails, "sum.sum"), endless());
    let log = |home: &Home| std::fs::read_to_string(home.path("one.log")).unwrap();
    let daemon = Daemon::start(&home, "one", &[]);
    let run = submitted(&home);
    home.run(&["runs", "watch", &run]).exits(1);
    let error = home.run(&["runs", "show", &run, "--output", "json"]).exits(0).json()["error"].clone();
    assert_eq!(daemon.stop(), Some(0));
    let text = log(&home);
    let line = text.lines().find(|line| line.contains("step failed")).unwrap_or_else(|| panic!("{text}"));
    let says = |what: &Value| line.contains(what.as_str().unwrap());
    assert!(line.contains("WARN") && says(&error["code"]) && says(&error["message"]), "{line}\n{error:#}");

    let daemon = Daemon::start(&stopped, "one", &[]);
    let run = submitted(&stopped);
    wait("the step runs", || state(&stopped, &run) == "running");
    stopped.run(&["runs", "cancel", &run]).exits(0);
    wait("it is logged", || log(&stopped).contains("step stopped"));
    assert_eq!(daemon.stop(), Some(0));
    let text = log(&stopped);
    assert!(
        text.lines().any(|line| line.contains("INFO") && line.contains("step stopped"))
            && !text.contains("step failed"),
        "{text}"
    );
}

#[test]
fn a_retry_takes_over_what_had_succeeded() {
    let steps = json!({
        "sum": { "number": 1, "task": "add@^1", "inputs": { "a": {"value": 1}, "b": {"value": 2} } },
        "go": { "number": 2, "task": "add@^1", "inputs": { "a": "sum.sum", "b": {"value": i64::MAX} } } });
    let home = home(&steps, "go.sum");
    let failed = home.run(&["run", "it", "--output", "json"]).exits(1).json();
    let run = failed["run_id"].as_str().unwrap();
    let again = home.run(&["runs", "retry", run, "--output", "json"]).exits(1).json();
    let step = |document: &Value, n: usize| document["processing_summary"]["steps"][n].clone();
    assert_eq!(step(&again, 0), step(&failed, 0), "the success stands as it was");
    assert_eq!(step(&again, 1)["state"], "failed");
    assert_ne!(again["finished_at"], failed["finished_at"], "the rest was tried anew");
    let show = |which: &str| home.run(&["runs", "show", which, "--output", "json"]);
    assert_eq!((show(run).exits(0).json(), &again["generation"]), (again.clone(), &json!(1)));
    // The earlier generation can still be shown.
    assert_eq!((show(&format!("{run}@0")).exits(0).json(), &failed["generation"]), (failed.clone(), &json!(0)));
    let made = |which: &str| {
        home.run(&["runs", "lineage", which, "--output", "json"]).exits(0).json()["steps"][0]["produced"][0]["output"]
            .clone()
    };
    assert_eq!(
        (made(&format!("{run}@0")), made(run)),
        (json!(format!("{run}/output_001_sum")), json!(format!("{run}@1/output_001_sum")))
    );
    let refused = show(&format!("{run}@2")).exits(2).json();
    assert_eq!(refused["error"]["code"], "unknown_generation");
    assert_eq!(refused["error"]["help"], format!("it has: {run}@1, {run}@0"));
}

#[test]
fn a_step_waits_for_a_worker_that_may_run_it_and_the_run_says_so() {
    let home = Home::new();
    let steps = json!({ "now": { "number": 1, "task": "clock@^1", "inputs": {} } });
    let packed = home.path("clock.zip").display().to_string();
    let plugin = crate::support::plugin("clock").display().to_string();
    home.run(&["task", "pack", &plugin, "-o", &packed]).exits(0);
    home.run(&["task", "push", &packed, "--grant", "clocks"]).exits(0);
    let output = json!({ "it": "now.milliseconds" });
    let pipeline = json!({ "name": "it", "version": "1.0.0", "inputs": {}, "steps": steps, "output": output });
    home.pipeline("it", &pipeline);
    home.write("dovetail.toml", "worker = { grants = [\"random\"] }\n");
    let _poor = Daemon::start(&home, "poor", &[]);
    let run = submitted(&home);
    let show = || home.run(&["runs", "show", &run, "--output", "json"]).exits(0).json();
    let document = show();
    let step = &document["processing_summary"]["steps"][0];
    assert_eq!((&document["state"], &step["state"]), (&json!("queued"), &json!("ready")));
    assert_eq!(step["waits_for"], json!(["clocks"]));
    assert!(
        document["warnings"][0].as_str().unwrap().contains("no living worker has the grant clocks"),
        "{document:#}"
    );
    crate::support::valid("run.schema.json", &document);
    let checks = home.run(&["doctor", "--output", "json"]).json()["checks"].clone();
    let said = |what: &str| {
        checks
            .as_array()
            .unwrap()
            .iter()
            .any(|check| check["warning"] == true && check["found"].as_str().unwrap().contains(what))
    };
    assert!(
        said("1 of the oldest 100 open runs waits for capabilities that no living worker has: the grant clocks"),
        "{checks:#}"
    );
    std::fs::remove_file(home.path("dovetail.toml")).unwrap();
    let _rich = Daemon::start(&home, "rich", &[]);
    wait("the run ends", || show()["state"] == "succeeded");
    assert_eq!(show()["processing_summary"]["steps"][0]["attempts"][0]["worker"], "rich");
}
