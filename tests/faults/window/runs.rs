//! Runs: which worker closes them, and that no open run is left without a job.

use dovetail_core::ledger::RunKey;
use dovetail_core::window::{Status, Window as _};
use redis::Commands as _;

use super::{
    Change, Stage, Verdict, below_a, fail, finish, handed, held, holds, id, job, join, lease, run, same, scenarios,
    started,
};

scenarios! {
    a_closed_run_drops_children
    a_closed_run_drops_a_late_opening
    a_run_that_was_removed_opens_when_it_is_submitted_anew
    a_closed_run_leaves_nothing
    a_job_of_a_closed_run_is_not_handed_out
    a_cancelled_run_drops_children_and_keeps_its_jobs_to_be_verified
    the_last_one_keeps_the_outbox
    the_last_one_is_told_where_a_step_has_failed
    no_one_is_the_last_while_a_job_is_left
    a_rebuild_drops_the_jobs_of_recorded_steps
    a_rebuild_keeps_the_last_job_as_the_outbox
    a_rebuild_waits_for_what_its_jobs_need
    a_run_without_a_job_is_lost
    generations_are_apart
}

fn a_closed_run_drops_children(stage: &Stage) -> Verdict {
    let (mut s, mut w, a) = started(stage)?;
    s.one(Change::Close { run: run(1) })?;
    let called = w.call(9, &[finish(&a.lease, &below_a())])?;
    same("a late end", (called.statuses.clone(), handed(&called)), (vec![Status::Closed], vec![]))
}

fn a_closed_run_drops_a_late_opening(stage: &Stage) -> Verdict {
    let (mut s, mut w, _a) = started(stage)?;
    let late = w.open(&run(1), 4, &[], vec![job("a", &[])], true);
    s.one(Change::Close { run: run(1) })?;
    same("the opening", w.one(late)?, Status::Closed)?;
    holds("nothing of the run is stored", !stage.has_run(&run(1)) && !stage.has_job(&run(1), "a"))
}

/// The run was removed with its records, and is submitted again under its key. The window still has the run's
/// tombstone, and no other run's end drops the tombstone.
fn a_run_that_was_removed_opens_when_it_is_submitted_anew(stage: &Stage) -> Verdict {
    let (mut s, mut w, _a) = started(stage)?;
    let late = w.open(&run(1), 4, &["a"], vec![job("b", &["a"])], true);
    s.one(Change::Close { run: run(1) })?;
    std::thread::sleep(std::time::Duration::from_millis(5));
    s.call(0, &[])?;
    let anew = s.open(&run(1), 4, &[], vec![job("a", &[])], false);
    same("the submission", s.one(anew)?, Status::Ok)?;
    same("an opening from before the first run's end", w.one(late)?, Status::Stale)?;
    same("a claim", handed(&w.call(9, &[])?), vec![("a", false)])
}

fn a_closed_run_leaves_nothing(stage: &Stage) -> Verdict {
    let (mut s, mut w, a) = started(stage)?;
    let b = w.call(1, &[finish(&a.lease, &below_a())])?.jobs.remove(0);
    w.one(Change::Back { lease: b.lease, attempt: 2, verify: false, delay: std::time::Duration::from_secs(60) })?;
    w.call(1, &[])?;
    s.one(Change::Close { run: run(1) })?;
    // A claim skips the closed run's entries in the list.
    same("a claim", handed(&w.call(9, &[])?), vec![])?;
    let short = |key: &String| {
        key.rsplit_once("}:")
            .map_or_else(String::new, |(_, name)| name.split(':').next().unwrap_or_default().to_owned())
    };
    let left: Vec<String> = stage
        .keys()
        .iter()
        .map(short)
        .filter(|name| !matches!(name.as_str(), "meta" | "tomb" | "rq" | "idle"))
        .collect();
    same("the remaining keys", left, Vec::<String>::new())
}

/// A restored copy may have such a job: the job is there, and its run is not.
fn a_job_of_a_closed_run_is_not_handed_out(stage: &Stage) -> Verdict {
    let (mut s, mut w, _a) = started(stage)?;
    let body: String = stage.raw().hget(stage.key("body"), id(&run(1), "a")).map_err(|e| e.to_string())?;
    s.one(Change::Close { run: run(1) })?;
    let mut raw = stage.raw();
    raw.hset::<_, _, _, ()>(stage.key("body"), id(&run(1), "a"), body).map_err(|e| e.to_string())?;
    raw.rpush::<_, _, ()>(stage.key("q:"), id(&run(1), "a")).map_err(|e| e.to_string())?;
    raw.sadd::<_, _, ()>(stage.key("lanes"), "").map_err(|e| e.to_string())?;
    same("a claim", handed(&w.call(9, &[])?), vec![])?;
    holds("the job is gone", !stage.has_job(&run(1), "a"))
}

fn a_cancelled_run_drops_children_and_keeps_its_jobs_to_be_verified(stage: &Stage) -> Verdict {
    let (mut s, mut w, a) = started(stage)?;
    let called = w.call(1, &[finish(&a.lease, &below_a())])?;
    let b = called.jobs[0].lease.clone();
    s.one(Change::Cancel { run: run(1) })?;
    let called = w.call(9, &[finish(&b, &join())])?;
    same("an end", called.statuses.clone(), vec![Status::Cancelled])?;
    same("the queued job", handed(&called).iter().map(|(_, verify)| *verify).collect::<Vec<_>>(), vec![true])?;
    holds("the ended step's job stays", stage.has_job(&run(1), b.step.as_str()))
}

fn the_last_one_keeps_the_outbox(stage: &Stage) -> Verdict {
    let (mut s, mut w) = (stage.caller("s")?, stage.caller("w")?);
    let open = s.open(&run(1), 2, &[], vec![job("a", &[]), job("b", &[])], false);
    s.one(open)?;
    let held = w.call(2, &[])?.jobs.remove(0).lease;
    let statuses = w.call(0, &[finish(&lease(&held, "a"), &[]), finish(&lease(&held, "b"), &[])])?.statuses;
    same("the ends", statuses, vec![Status::Ok, Status::Complete])?;
    holds("only the last step's job stays", stage.has_job(&run(1), "b") && !stage.has_job(&run(1), "a"))
}

fn the_last_one_is_told_where_a_step_has_failed(stage: &Stage) -> Verdict {
    let (mut s, mut w) = (stage.caller("s")?, stage.caller("w")?);
    let open = s.open(&run(1), 3, &[], vec![job("a", &[]), job("b", &[])], false);
    s.one(open)?;
    let held = w.call(2, &[])?.jobs.remove(0).lease;
    let statuses =
        w.call(0, &[fail(&lease(&held, "a")), finish(&lease(&held, "b"), &[job("c", &["a", "b"])])])?.statuses;
    same("the ends", statuses, vec![Status::Ok, Status::Last])?;
    holds("the last step's job stays", stage.has_job(&run(1), "b"))
}

fn no_one_is_the_last_while_a_job_is_left(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    let called = w.call(1, &[finish(&a.lease, &below_a())])?;
    // The other branch is still queued, and this branch has no job left.
    same("the end of one branch", w.one(finish(&called.jobs[0].lease, &[]))?, Status::Ok)?;
    same("the jobs of the other branch", handed(&w.call(9, &[])?).len(), 1)
}

fn a_rebuild_drops_the_jobs_of_recorded_steps(stage: &Stage) -> Verdict {
    let (_s, mut w, _a) = started(stage)?;
    let mut z = stage.caller("z")?;
    let rebuild = z.open(&run(1), 4, &["a"], below_a().to_vec(), true);
    z.one(rebuild)?;
    holds("the job of the recorded step is gone", !stage.has_job(&run(1), "a"))?;
    same("the remaining jobs", handed(&w.call(9, &[])?), vec![("b", true), ("c", true)])
}

fn a_rebuild_keeps_the_last_job_as_the_outbox(stage: &Stage) -> Verdict {
    let (_s, mut w, _a) = started(stage)?;
    let rebuild = w.open(&run(1), 1, &["a"], vec![], true);
    w.one(rebuild)?;
    holds("the last job stays", stage.has_job(&run(1), "a"))
}

fn a_rebuild_waits_for_what_its_jobs_need(stage: &Stage) -> Verdict {
    let mut s = stage.caller("s")?;
    let open = s.open(&run(1), 4, &["b"], vec![job("c", &[]), job("d", &["b", "c"])], true);
    s.one(open)?;
    same("the ready job", handed(&s.call(9, &[])?), vec![("c", true)])
}

fn a_run_without_a_job_is_lost(stage: &Stage) -> Verdict {
    let (_s, w, _a) = started(stage)?;
    let knows = || w.window.knows(&[run(1), run(2)]).map_err(|e| format!("{e:?}"));
    same("an open run, and an unknown run", knows()?, vec![true, false])?;
    same("the leased steps", held(&w)?, vec![("a".to_owned(), None)])?;
    stage.raw().del::<_, ()>(stage.key(&format!("j:{}", run(1).key()))).map_err(|e| e.to_string())?;
    same("a run without a job", knows()?, vec![false, false])
}

fn generations_are_apart(stage: &Stage) -> Verdict {
    let (mut s, mut w, a) = started(stage)?;
    let next = RunKey { generation: 1, ..run(1) };
    s.one(Change::Close { run: run(1) })?;
    let open = s.open(&next, 4, &[], vec![job("a", &[])], true);
    same("the next generation", s.one(open)?, Status::Ok)?;
    same("the end by the earlier generation's worker", w.one(finish(&a.lease, &below_a()))?, Status::Closed)?;
    holds("the next generation's job stays", stage.has_job(&next, "a"))?;
    same("the only job", handed(&w.call(9, &[])?), vec![("a", true)])
}
