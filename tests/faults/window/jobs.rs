//! Jobs: when they start, how often they are handed out, who may give them back.

use std::time::Duration;

use dovetail_core::ledger::{Job, Lane, Scope};
use dovetail_core::window::{Held, Status, WindowLease};
use redis::Commands as _;

use super::{
    Change, Stage, Verdict, below_a, fail, finish, handed, holds, id, job, join, lease, run, same, scenarios, started,
    value,
};

scenarios! {
    a_join_waits_for_all_that_it_needs
    a_child_that_is_done_is_not_enqueued
    a_child_that_is_queued_is_not_enqueued_again
    a_child_that_has_failed_is_not_enqueued
    a_lapsed_lease_is_counted_and_verified
    a_lease_that_has_not_lapsed_is_nobody_elses
    a_job_that_stands_twice_is_handed_out_once
    a_job_whose_lease_lapsed_as_it_was_acknowledged_is_gone
    what_becomes_of_a_lease_that_is_renewed
    a_job_that_was_queued_again_goes_back_to_its_living_worker
    only_its_owner_gives_a_job_back
    a_job_that_was_put_off_comes_later_as_the_next_attempt
    a_job_waits_for_somebody_who_is_able
    lanes_take_turns
    what_follows_is_handed_out_first_whatever_its_lane
    what_has_begun_is_finished_first
    a_need_whose_value_is_missing_is_verified
    a_recorded_step_that_is_queued_all_the_same_is_verified
}

fn a_join_waits_for_all_that_it_needs(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    let called = w.call(2, &[finish(&a.lease, &below_a())])?;
    same("both branches", handed(&called), vec![("b", false), ("c", false)])?;
    same("what a gave", called.jobs[0].values.clone(), vec![("a".to_owned(), value("a"))])?;
    let (b, c) = (lease(&called.jobs[0].lease, "b"), lease(&called.jobs[0].lease, "c"));
    same("after one of two", handed(&w.call(1, &[finish(&b, &join())])?), vec![])?;
    let called = w.call(1, &[finish(&c, &join())])?;
    same("after both", handed(&called), vec![("d", false)])?;
    same(
        "what both gave",
        called.jobs[0].values.clone(),
        vec![("b".to_owned(), value("b")), ("c".to_owned(), value("c"))],
    )
}

/// Its worker recorded `a` and stopped; another one rebuilt, and ran `b`; the first one's call comes now.
fn a_child_that_is_done_is_not_enqueued(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    let mut z = stage.caller("z")?;
    let rebuild = z.open(&run(1), 4, &["a"], below_a().to_vec(), true);
    z.one(rebuild)?;
    let called = z.call(2, &[])?;
    same("the rebuilt jobs", handed(&called), vec![("b", true), ("c", true)])?;
    z.one(finish(&lease(&called.jobs[0].lease, "b"), &join()))?;
    same("the late end of a", handed(&w.call(9, &[finish(&a.lease, &below_a())])?), vec![])
}

fn a_child_that_is_queued_is_not_enqueued_again(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    let mut z = stage.caller("z")?;
    let rebuild = z.open(&run(1), 4, &["a"], below_a().to_vec(), true);
    z.one(rebuild)?;
    same("the late end of a", handed(&w.call(9, &[finish(&a.lease, &below_a())])?), vec![("b", true), ("c", true)])?;
    let listed: usize = stage.raw().llen(stage.key("q:")).map_err(|e| e.to_string())?;
    same("what else is queued", listed, 0)
}

fn a_child_that_has_failed_is_not_enqueued(stage: &Stage) -> Verdict {
    let mut s = stage.caller("s")?;
    let Change::Open { run, stamp, envelope, .. } = s.open(&run(1), 2, &[], vec![], true) else {
        return Err("no opening".into());
    };
    let done = vec![("a".to_owned(), None)];
    let jobs = vec![job("a", &[]), job("b", &["a"])];
    s.one(Change::Open { run, stamp, verify: true, envelope, steps: 2, done, jobs })?;
    same("a run in which a step has failed", handed(&s.call(9, &[])?), vec![])
}

fn a_lapsed_lease_is_counted_and_verified(stage: &Stage) -> Verdict {
    let (_s, _w, _a) = started(stage)?;
    stage.lapse(&run(1), "a");
    let mut z = stage.caller("z")?;
    let called = z.call(1, &[])?;
    same("who takes it", handed(&called), vec![("a", true)])?;
    same("crashes", called.jobs[0].crashes, 1)
}

fn a_lease_that_has_not_lapsed_is_nobody_elses(stage: &Stage) -> Verdict {
    let (_s, _w, _a) = started(stage)?;
    // A stale entry of the list, as a rebuild between a claim and its adoption leaves one.
    stage.raw().rpush::<_, _, ()>(stage.key("q:"), id(&run(1), "a")).map_err(|e| e.to_string())?;
    stage.raw().sadd::<_, _, ()>(stage.key("lanes"), "").map_err(|e| e.to_string())?;
    let mut z = stage.caller("z")?;
    same("another claim", handed(&z.call(9, &[])?), vec![])
}

fn a_job_that_stands_twice_is_handed_out_once(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    let mut z = stage.caller("z")?;
    z.one(finish(&a.lease, &below_a()))?;
    stage.raw().rpush::<_, _, ()>(stage.key("q:"), id(&run(1), "b")).map_err(|e| e.to_string())?;
    same("both branches", handed(&w.call(9, &[])?), vec![("b", false), ("c", false)])
}

fn a_job_whose_lease_lapsed_as_it_was_acknowledged_is_gone(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.lapse(&run(1), "a");
    same("its children alone", handed(&w.call(9, &[finish(&a.lease, &below_a())])?), vec![("b", false), ("c", false)])?;
    holds("it is gone", !stage.has_job(&run(1), "a"))
}

fn what_becomes_of_a_lease_that_is_renewed(stage: &Stage) -> Verdict {
    let (mut s, w, a) = started(stage)?;
    same("the owner", w.renew(&a.lease)?, Held::Renewed)?;
    let other = WindowLease { token: "another#1".into(), ..a.lease.clone() };
    same("another", w.renew(&other)?, Held::Gone)?;
    s.one(Change::Cancel { run: run(1) })?;
    same("of a cancelled run", w.renew(&a.lease)?, Held::Gone)?;
    stage.forget();
    same("after a loss", w.renew(&a.lease)?, Held::Unknown)?;
    s.one(Change::Close { run: run(1) })?;
    same("of a closed run", w.renew(&a.lease)?, Held::Gone)
}

fn a_job_that_was_queued_again_goes_back_to_its_living_worker(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.forget();
    w.call(0, &[])?;
    let rebuild = w.open(&run(1), 4, &[], vec![job("a", &[])], true);
    same("the rebuild", w.one(rebuild)?, Status::Ok)?;
    same("its worker", w.renew(&a.lease)?, Held::Renewed)?;
    let mut z = stage.caller("z")?;
    same("somebody else", handed(&z.call(9, &[])?), vec![])
}

fn back(lease: &WindowLease, delay: Duration) -> Change {
    Change::Back { lease: lease.clone(), attempt: 2, verify: false, delay }
}

fn only_its_owner_gives_a_job_back(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.lapse(&run(1), "a");
    let mut z = stage.caller("z")?;
    same("the lease passes on", handed(&z.call(1, &[])?), vec![("a", true)])?;
    same("the zombie's", w.one(back(&a.lease, Duration::ZERO))?, Status::NotOwner)?;
    same("a second delivery", handed(&w.call(9, &[])?), vec![])
}

fn a_job_that_was_put_off_comes_later_as_the_next_attempt(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    same("put off", w.one(back(&a.lease, Duration::from_secs(60)))?, Status::Ok)?;
    same("at once", handed(&w.call(9, &[])?), vec![])?;
    stage.raw().zadd::<_, _, _, ()>(stage.key("delay"), id(&run(1), "a"), 1).map_err(|e| e.to_string())?;
    let called = w.call(9, &[])?;
    same(
        "later",
        (handed(&called), called.jobs.first().map(|j| (j.attempt, j.crashes))),
        (vec![("a", false)], Some((2, 0))),
    )
}

fn in_lane(step: &str, lane: &str) -> Job {
    Job { lane: Lane::parse(lane), ..job(step, &[]) }
}

fn a_job_waits_for_somebody_who_is_able(stage: &Stage) -> Verdict {
    let (mut s, mut w) = (stage.caller("s")?, stage.caller("w")?);
    let open = s.open(&run(1), 2, &[], vec![in_lane("plain", ""), in_lane("seeing", "clocks,model:x")], false);
    s.one(open)?;
    let able = |names: &[&str]| Scope::Able(names.iter().map(|n| (*n).to_owned()).collect());
    same("who has half of it", handed(&w.call_able(9, &[], &able(&["clocks"]))?), vec![("plain", false)])?;
    same(
        "who has all of it",
        handed(&w.call_able(9, &[], &able(&["http", "model:x", "clocks"]))?),
        vec![("seeing", false)],
    )
}

fn lanes_take_turns(stage: &Stage) -> Verdict {
    let (mut s, mut w) = (stage.caller("s")?, stage.caller("w")?);
    let of = |lane: &'static str| (0..8).map(move |n| in_lane(&format!("{lane}{n}"), lane));
    let open = s.open(&run(1), 16, &[], of("x").chain(of("y")).collect(), false);
    s.one(open)?;
    let mut first: Vec<String> = Vec::new();
    for _ in 0..4 {
        first.extend(w.call(1, &[])?.jobs.into_iter().map(|j| j.lease.step));
    }
    holds("both lanes are served", ["x", "y"].iter().all(|lane| first.iter().any(|step| step.starts_with(lane))))
}

/// As often as there are lanes: whose turn it is must not matter.
fn what_follows_is_handed_out_first_whatever_its_lane(stage: &Stage) -> Verdict {
    let (mut s, mut w) = (stage.caller("s")?, stage.caller("w")?);
    for n in 1..=4 {
        let open = s.open(&run(n), 2, &[], vec![job("a", &[])], false);
        s.one(open)?;
    }
    let begun = w.call(4, &[])?.jobs;
    let of = |lane: &'static str| (0..4).map(move |n| in_lane(&format!("{lane}{n}"), lane));
    let open = s.open(&run(5), 12, &[], of("x").chain(of("y")).chain(of("z")).collect(), false);
    s.one(open)?;
    for a in begun {
        let child = Job { lane: Lane::parse("k"), ..job("b", &["a"]) };
        same("what follows", handed(&w.call(1, &[finish(&a.lease, &[child])])?), vec![("b", false)])?;
    }
    Ok(())
}

fn what_has_begun_is_finished_first(stage: &Stage) -> Verdict {
    let (mut s, mut w, a) = started(stage)?;
    let open = s.open(&run(2), 1, &[], vec![job("new", &[])], false);
    s.one(open)?;
    let called = w.call(1, &[finish(&a.lease, &below_a())])?;
    same("a child of a run that has begun", handed(&called), vec![("b", false)])?;
    w.one(back(&called.jobs[0].lease, Duration::from_secs(60)))?;
    stage.raw().zadd::<_, _, _, ()>(stage.key("delay"), id(&run(1), "b"), 1).map_err(|e| e.to_string())?;
    same("what was put off", handed(&w.call(1, &[])?), vec![("b", false)])?;
    same("then the rest", handed(&w.call(9, &[])?), vec![("c", false), ("new", false)])
}

/// It was opened without what its own children need: whoever gets it reads the records.
fn a_need_whose_value_is_missing_is_verified(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    w.one(finish(&a.lease, &below_a()))?;
    stage.raw().hdel::<_, _, ()>(stage.key(&format!("h:{}", run(1).key())), "=a").map_err(|e| e.to_string())?;
    same("the claim", handed(&w.call(9, &[])?), vec![("b", true), ("c", true)])
}

fn a_recorded_step_that_is_queued_all_the_same_is_verified(stage: &Stage) -> Verdict {
    let mut s = stage.caller("s")?;
    let open = s.open(&run(1), 3, &[], vec![job("a", &[]), job("b", &[]), job("c", &[])], false);
    s.one(open)?;
    let hash = stage.key(&format!("h:{}", run(1).key()));
    stage.raw().hset_multiple::<_, _, _, ()>(hash, &[("=a", "1"), ("!b", "1")]).map_err(|e| e.to_string())?;
    let called = s.call(9, &[])?;
    same("the claim", handed(&called), vec![("a", true), ("b", true), ("c", false)])?;
    // One that failed is the last one only when none is left.
    let of = |step: &str| lease(&called.jobs[0].lease, step);
    same("ends", s.call(0, &[finish(&of("a"), &[]), fail(&of("b"))])?.statuses, vec![Status::Ok, Status::Ok])
}
