//! Loss, restoration and late messages: no caller acts unverified on a state that was lost, restored from an old copy,
//! or reported late.

use dovetail_core::window::{Stamp, Status};
use redis::Commands as _;

use super::{Change, Stage, Verdict, below_a, finish, handed, held, holds, id, job, run, same, scenarios, started};

scenarios! {
    a_reply_that_is_asked_for_again_is_the_same
    a_late_copy_of_an_earlier_call_claims_nothing
    a_lost_window_is_told_and_a_rebuild_heals_it
    a_lost_window_gets_no_field_of_a_run
    a_run_that_was_lost_alone_keeps_its_outbox
    jobs_of_a_server_that_was_restarted_are_verified
    children_of_a_lost_timeline_are_verified
    children_of_a_caller_that_was_forgotten_are_verified
    a_rewind_is_seen_by_the_number_of_a_call
    a_rewind_is_seen_by_the_tick
    what_was_read_before_a_loss_is_not_written_after_it
    a_first_submission_that_comes_after_a_loss_is_refused
    a_dropped_tombstone_raises_the_horizon
    what_a_rebuild_enqueues_is_verified
    sleeping_workers_are_woken_and_the_end_is_published
    a_heartbeat_wakes_sleepers_beside_an_expired_lease
    a_lost_window_wakes_the_sleeping_workers
    a_server_that_stood_still_lets_its_workers_renew_first
    a_silent_worker_is_not_listed
    everybody_hears_that_runs_were_refused
    time_goes_on_where_the_clock_is_set_back
}

fn a_reply_that_is_asked_for_again_is_the_same(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    let first = w.call(1, &[finish(&a.lease, &below_a())])?;
    same("its answer", (first.statuses.clone(), first.jobs.len()), (vec![Status::Ok], 1))?;
    let claimed = format!("{}/{}", run(1).key(), first.jobs[0].lease.step);
    let (statuses, jobs) = stage.repeat(&w, w.number)?;
    same("the answer again", (statuses, jobs), (vec!["ok".to_owned()], vec![claimed]))
}

fn a_late_copy_of_an_earlier_call_claims_nothing(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    w.call(0, &[finish(&a.lease, &below_a())])?;
    w.call(0, &[])?;
    let (statuses, jobs) = stage.repeat(&w, w.number - 1)?;
    same("the copy", (statuses, jobs), (vec!["old".to_owned()], Vec::new()))
}

fn a_lost_window_is_told_and_a_rebuild_heals_it(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.forget();
    let lost = w.call(9, &[finish(&a.lease, &below_a())])?;
    same("the end of the step", lost.statuses, vec![Status::Lost])?;
    let rebuild = w.open(&run(1), 4, &["a"], below_a().to_vec(), true);
    same("the rebuild", w.one(rebuild)?, Status::Ok)?;
    same("its jobs", handed(&w.call(9, &[])?), vec![("b", true), ("c", true)])
}

fn a_lost_window_gets_no_field_of_a_run(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.forget();
    w.call(0, &[finish(&a.lease, &below_a())])?;
    holds("the end of a step makes no run", !stage.has_run(&run(1)))?;
    same("its children", handed(&w.call(9, &[])?), vec![])
}

fn a_run_that_was_lost_alone_keeps_its_outbox(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.raw().del::<_, ()>(stage.key(&format!("h:{}", run(1).key()))).map_err(|e| e.to_string())?;
    same("the answer", w.one(finish(&a.lease, &below_a()))?, Status::Lost)?;
    holds("the job stays, so that its next worker finds the run", stage.has_job(&run(1), "a"))
}

fn jobs_of_a_server_that_was_restarted_are_verified(stage: &Stage) -> Verdict {
    let mut s = stage.caller("s")?;
    let open = s.open(&run(1), 4, &[], vec![job("a", &[])], false);
    same("the submission", s.one(open)?, Status::Ok)?;
    stage.restarted();
    let mut w = stage.caller("w")?;
    holds("the epoch is new", w.stamp.epoch != s.stamp.epoch)?;
    same("the claimed jobs", handed(&w.call(1, &[])?), vec![("a", true)])
}

fn children_of_a_lost_timeline_are_verified(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.restarted();
    same("the children", handed(&w.call(9, &[finish(&a.lease, &below_a())])?), vec![("b", true), ("c", true)])
}

/// The window does not remember the caller's last call. So the window may have been restored from a copy from before
/// that call, whose tick has advanced since.
fn children_of_a_caller_that_was_forgotten_are_verified(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.raw().del::<_, ()>(stage.key("rq:w")).map_err(|e| e.to_string())?;
    same("the children", handed(&w.call(9, &[finish(&a.lease, &below_a())])?), vec![("b", true), ("c", true)])
}

fn a_rewind_is_seen_by_the_number_of_a_call(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    let (before, copy) = (w.stamp.epoch.clone(), stage.copy());
    w.call(0, &[finish(&a.lease, &below_a())])?;
    stage.restore(&copy);
    // Other callers move the tick beyond the tick that `w` saw.
    for n in 0..9 {
        stage.caller(&format!("n{n}"))?;
    }
    w.call(0, &[])?;
    holds("the epoch is new", w.stamp.epoch != before)
}

fn a_rewind_is_seen_by_the_tick(stage: &Stage) -> Verdict {
    let (_s, w, _a) = started(stage)?;
    let (before, copy) = (w.stamp.epoch.clone(), stage.copy());
    let mut z = stage.caller("z")?;
    z.call(0, &[])?;
    stage.restore(&copy);
    let after = dovetail_core::window::Window::peek(&z.window).map_err(|e| format!("{e:?}"))?;
    holds("the epoch is new", after.epoch != before)
}

fn what_was_read_before_a_loss_is_not_written_after_it(stage: &Stage) -> Verdict {
    let (_s, mut w, _a) = started(stage)?;
    let stale = w.open(&run(1), 4, &[], vec![job("a", &[])], true);
    stage.forget();
    stage.caller("k")?;
    same("the rebuild", w.one(stale)?, Status::Stale)
}

fn a_first_submission_that_comes_after_a_loss_is_refused(stage: &Stage) -> Verdict {
    let (mut s, mut z) = (stage.caller("s")?, stage.caller("z")?);
    let late = s.open(&run(1), 4, &[], vec![job("a", &[])], false);
    same("the run's end", z.one(Change::Close { run: run(1) })?, Status::Ok)?;
    stage.forget();
    same("the submission", s.one(late)?, Status::Stale)
}

fn a_dropped_tombstone_raises_the_horizon(stage: &Stage) -> Verdict {
    let mut z = stage.caller("z")?;
    z.one(Change::Close { run: run(1) })?;
    // The tombstone becomes very old, and the next end of a run drops it.
    stage.raw().zadd::<_, _, _, ()>(stage.key("tomb"), run(1).key(), 1000).map_err(|e| e.to_string())?;
    z.one(Change::Close { run: run(2) })?;
    let left: Vec<String> = stage.raw().zrange(stage.key("tomb"), 0, -1).map_err(|e| e.to_string())?;
    same("the tombstones", left, vec![run(2).key()])?;
    let open = |now| Change::Open {
        run: run(1),
        stamp: Stamp { now, ..z.stamp.clone() },
        verify: false,
        envelope: Vec::new(),
        steps: 1,
        done: Vec::new(),
        jobs: vec![job("a", &[])],
    };
    let (old, new) = (open(1000), open(z.stamp.now));
    same("an opening whose records were read before the drop", z.one(old)?, Status::Stale)?;
    same("an opening whose records were read after the drop", z.one(new)?, Status::Ok)
}

fn what_a_rebuild_enqueues_is_verified(stage: &Stage) -> Verdict {
    let mut s = stage.caller("s")?;
    let open = s.open(&run(1), 4, &[], vec![job("a", &[])], true);
    s.one(open)?;
    same("the claim", handed(&s.call(1, &[])?), vec![("a", true)])
}

fn sleeping_workers_are_woken_and_the_end_is_published(stage: &Stage) -> Verdict {
    let (mut s, mut w) = (stage.caller("s")?, stage.caller("w")?);
    same("a claim of the empty window", handed(&w.call(9, &[])?), vec![])?;
    let mut listening = stage.raw();
    listening.set_read_timeout(Some(std::time::Duration::from_secs(2))).map_err(|e| e.to_string())?;
    let mut subscription = listening.as_pubsub();
    subscription.subscribe(stage.key("bell")).map_err(|e| e.to_string())?;
    let mut next = |what: &str| -> Result<String, String> {
        let message = subscription.get_message().map_err(|e| format!("no notification of {what}: {e}"))?;
        message.get_payload().map_err(|e| e.to_string())
    };
    let open = s.open(&run(1), 1, &[], vec![job("a", &[])], false);
    s.one(open)?;
    same("work", next("work")?, "jobs".to_owned())?;
    let a = w.call(1, &[])?.jobs.pop().ok_or("no job")?;
    w.one(Change::Back { lease: a.lease, attempt: 2, verify: false, delay: std::time::Duration::ZERO })?;
    same("a job that was given back", next("a job that was given back")?, "jobs".to_owned())?;
    s.one(Change::Cancel { run: run(1) })?;
    same("a cancellation", next("a cancellation")?, format!("cancel {}", run(1).key()))?;
    s.one(Change::Close { run: run(1) })?;
    same("an end", next("an end")?, format!("over {}", run(1).key()))
}

/// If all workers sleep and no call comes, a heartbeat finds the expired lease.
fn a_heartbeat_wakes_sleepers_beside_an_expired_lease(stage: &Stage) -> Verdict {
    use dovetail_core::window::Window as _;
    let (_s, _w, _a) = started(stage)?;
    let mut z = stage.caller("z")?;
    same("a claim while `a` is leased", handed(&z.call(1, &[])?), vec![])?;
    stage.lapse(&run(1), "a");
    let mut listening = stage.raw();
    listening.set_read_timeout(Some(std::time::Duration::from_secs(2))).map_err(|e| e.to_string())?;
    let mut subscription = listening.as_pubsub();
    subscription.subscribe(stage.key("bell")).map_err(|e| e.to_string())?;
    z.window.beat("z", b"about", std::time::Duration::from_secs(60)).map_err(|e| format!("{e:?}"))?;
    let message = subscription.get_message().map_err(|e| format!("no notification of an expired lease: {e}"))?;
    same("the notification", message.get_payload::<String>().map_err(|e| e.to_string())?, "jobs".to_owned())?;
    same("the claim of the worker that wakes", handed(&z.call(1, &[])?), vec![("a", true)])
}

/// The list of sleeping workers is lost with the window, so a later job would send no notification.
fn a_lost_window_wakes_the_sleeping_workers(stage: &Stage) -> Verdict {
    use dovetail_core::window::Window as _;
    let (s, mut w) = (stage.caller("s")?, stage.caller("w")?);
    same("a claim of the empty window", handed(&w.call(9, &[])?), vec![])?;
    let mut listening = stage.raw();
    listening.set_read_timeout(Some(std::time::Duration::from_secs(2))).map_err(|e| e.to_string())?;
    let mut subscription = listening.as_pubsub();
    subscription.subscribe(stage.key("bell")).map_err(|e| e.to_string())?;
    stage.forget();
    s.window.beat("s", b"about", std::time::Duration::from_secs(60)).map_err(|e| format!("{e:?}"))?;
    let message = subscription.get_message().map_err(|e| format!("no notification of a new epoch: {e}"))?;
    same("the notification", message.get_payload::<String>().map_err(|e| e.to_string())?, "jobs".to_owned())
}

fn a_server_that_stood_still_lets_its_workers_renew_first(stage: &Stage) -> Verdict {
    let (_s, w, a) = started(stage)?;
    stage.lapse(&run(1), "a");
    // No caller was heard for longer than a lease.
    stage.raw().hset::<_, _, _, ()>(stage.key("meta"), "seen", 1).map_err(|e| e.to_string())?;
    let mut z = stage.caller("z")?;
    same("another worker's claim", handed(&z.call(1, &[])?), vec![])?;
    same("the renewal by the owner", w.renew(&a.lease)?, dovetail_core::window::WindowRenewal::Renewed)
}

fn a_silent_worker_is_not_listed(stage: &Stage) -> Verdict {
    use dovetail_core::window::Window as _;
    let s = stage.caller("s")?;
    let beat = |name: &str, keep| s.window.beat(name, b"about", keep).map_err(|e| format!("{e:?}"));
    beat("alive", std::time::Duration::from_secs(60))?;
    // The list itself leaves the dead worker out; a later heartbeat also removes its entry.
    beat("dead", std::time::Duration::from_millis(1))?;
    std::thread::sleep(std::time::Duration::from_millis(20));
    let names: Vec<String> =
        s.window.workers().map_err(|e| format!("{e:?}"))?.into_iter().map(|(name, _)| name).collect();
    same("the living workers", names, vec!["alive".to_owned()])
}

/// A refused submitter may be gone: every answer of the window carries the count of refusals, so that a worker that
/// searches for lost runs sees it.
fn everybody_hears_that_runs_were_refused(stage: &Stage) -> Verdict {
    use dovetail_core::window::Window as _;
    let (mut s, mut w, z) = (stage.caller("s")?, stage.caller("w")?, stage.caller("z")?);
    let heard = |w: &mut super::Caller| -> Result<[u64; 3], String> {
        let called = w.call(0, &[])?.stamp.refused;
        let beat =
            z.window.beat("z", b"about", std::time::Duration::from_secs(60)).map_err(|e| format!("{e:?}"))?.refused;
        let looked = z.window.peek().map_err(|e| format!("{e:?}"))?.refused;
        Ok([called, beat, looked])
    };
    same("before", heard(&mut w)?, [0; 3])?;
    same("the report of the refusal", s.one(Change::Refused)?, Status::Ok)?;
    same("once", heard(&mut w)?, [1; 3])?;
    // The report may stand beside other changes, as when a call continues after a refused run.
    let statuses =
        s.call(0, &[Change::Cancel { run: run(1) }, Change::Refused, Change::Close { run: run(1) }])?.statuses;
    same("the answers", statuses, vec![Status::Ok; 3])?;
    same("twice", heard(&mut w)?, [2; 3])
}

/// The server's clock was an hour ahead until now. Leases from that time still expire, and a run can be opened.
fn time_goes_on_where_the_clock_is_set_back(stage: &Stage) -> Verdict {
    use dovetail_core::window::{Window as _, WindowRenewal};
    let (_s, mut w, a) = started(stage)?;
    let then = w.stamp.now + 3_600_000;
    stage
        .raw()
        .hset_multiple::<_, _, _, ()>(stage.key("meta"), &[("seen", then), ("hor", then - 60_000)])
        .map_err(|e| e.to_string())?;
    stage.raw().zadd::<_, _, _, ()>(stage.key("lease"), id(&run(1), "a"), then + 60_000).map_err(|e| e.to_string())?;
    let looked = || w.window.peek().map_err(|e| format!("{e:?}"));
    let first = looked()?.now;
    std::thread::sleep(std::time::Duration::from_millis(20));
    let second = looked()?.now;
    holds("time continues from there", first >= then && first < then + 60_000)?;
    holds("time does not stand still", second > first && second < first + 60_000)?;
    same("the leased steps", held(&w)?, vec![("a".to_owned(), None)])?;
    same("the renewal by the owner", w.renew(&a.lease)?, WindowRenewal::Renewed)?;
    w.call(0, &[])?;
    let open = w.open(&run(2), 1, &[], vec![job("a", &[])], false);
    same("the opening of another run", w.one(open)?, Status::Ok)?;
    let until: f64 = stage.raw().zscore(stage.key("lease"), id(&run(1), "a")).map_err(|e| e.to_string())?;
    holds("the renewed lease counts from there", until > then as f64 + 50_000.0)
}
