//! Jobs: when they start, how often they are claimed, and which worker may give them back.

use std::time::Duration;

use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Job, Requirements, Scope};
use dovetail_core::window::{Status, Window as _, WindowLease, WindowRenewal};
use redis::Commands as _;

use super::{
    Caller, Change, Stage, Verdict, below_a, fail, finish, handed, held, holds, id, job, join, lease, run, same,
    scenarios, started, value,
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
    a_late_renewal_does_not_take_what_was_given_back
    a_late_renewal_does_not_take_what_another_gave_back
    a_lease_that_lapsed_goes_back_to_its_own_worker_alone
    what_was_given_back_before_a_restore_goes_back_to_its_living_worker
    a_renewal_of_before_a_loss_takes_nothing_after_it
    a_renewal_without_a_token_takes_nothing
    what_was_given_back_after_a_loss_is_not_taken_by_a_late_renewal
    what_was_given_back_before_a_rebuild_is_not_taken_by_a_late_renewal
    many_jobs_that_are_given_back_while_they_are_renewed_stay_back
    only_its_owner_gives_a_job_back
    a_job_that_was_put_off_comes_later_as_the_next_attempt
    a_job_waits_for_a_worker_with_its_capabilities
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
    same("the output of a", called.jobs[0].values.clone(), vec![(NodeId::of_step("a"), value("a"))])?;
    let (b, c) = (lease(&called.jobs[0].lease, "b"), lease(&called.jobs[0].lease, "c"));
    same("after one branch", handed(&w.call(1, &[finish(&b, &join())])?), vec![])?;
    let called = w.call(1, &[finish(&c, &join())])?;
    same("after both branches", handed(&called), vec![("d", false)])?;
    same(
        "the outputs of both branches",
        called.jobs[0].values.clone(),
        vec![(NodeId::of_step("b"), value("b")), (NodeId::of_step("c"), value("c"))],
    )
}

/// The worker recorded `a` and stopped. Another worker rebuilt the run, and ran `b`. Now the first worker's call
/// arrives.
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
    same("the other queued jobs", listed, 0)
}

fn a_child_that_has_failed_is_not_enqueued(stage: &Stage) -> Verdict {
    let mut s = stage.caller("s")?;
    let Change::Open { run, stamp, envelope, .. } = s.open(&run(1), 2, &[], vec![], true) else {
        return Err("no opening".into());
    };
    let done = vec![(NodeId::of_step("a"), None)];
    let jobs = vec![job("a", &[]), job("b", &["a"])];
    s.one(Change::Open { run, stamp, verify: true, envelope, steps: 2, done, jobs })?;
    same("a run in which a step has failed", handed(&s.call(9, &[])?), vec![])
}

fn a_lapsed_lease_is_counted_and_verified(stage: &Stage) -> Verdict {
    let (_s, _w, _a) = started(stage)?;
    stage.lapse(&run(1), "a");
    let mut z = stage.caller("z")?;
    let called = z.call(1, &[])?;
    same("the claim", handed(&called), vec![("a", true)])?;
    same("crashes", called.jobs[0].crashes, 1)
}

fn a_lease_that_has_not_lapsed_is_nobody_elses(stage: &Stage) -> Verdict {
    let (_s, _w, _a) = started(stage)?;
    // A rebuild between a claim and the adoption of its lease leaves such a stale entry in the list.
    stage.raw().rpush::<_, _, ()>(stage.key("q:"), id(&run(1), "a")).map_err(|e| e.to_string())?;
    stage.raw().sadd::<_, _, ()>(stage.key("lanes"), "").map_err(|e| e.to_string())?;
    let mut z = stage.caller("z")?;
    same("another worker's claim", handed(&z.call(9, &[])?), vec![])
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
    same("only its children", handed(&w.call(9, &[finish(&a.lease, &below_a())])?), vec![("b", false), ("c", false)])?;
    holds("the job is gone", !stage.has_job(&run(1), "a"))
}

fn what_becomes_of_a_lease_that_is_renewed(stage: &Stage) -> Verdict {
    let (mut s, w, a) = started(stage)?;
    same("a renewal by the owner", w.renew(&a.lease)?, WindowRenewal::Renewed)?;
    let other = WindowLease { token: "another#1".into(), ..a.lease.clone() };
    same("a renewal by another worker", w.renew(&other)?, WindowRenewal::Gone)?;
    s.one(Change::Cancel { run: run(1) })?;
    same("a renewal in a cancelled run", w.renew(&a.lease)?, WindowRenewal::Gone)?;
    stage.forget();
    same("a renewal after a loss", w.renew(&a.lease)?, WindowRenewal::Unknown)?;
    s.one(Change::Close { run: run(1) })?;
    same("a renewal in a closed run", w.renew(&a.lease)?, WindowRenewal::Gone)
}

fn a_job_that_was_queued_again_goes_back_to_its_living_worker(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.forget();
    w.call(0, &[])?;
    let rebuild = w.open(&run(1), 4, &[], vec![job("a", &[])], true);
    same("the rebuild", w.one(rebuild)?, Status::Ok)?;
    same("the renewal by the living worker", w.renew(&a.lease)?, WindowRenewal::Renewed)?;
    let mut z = stage.caller("z")?;
    same("another worker's claim", handed(&z.call(9, &[])?), vec![])
}

fn back(lease: &WindowLease, delay: Duration) -> Change {
    Change::Back { lease: lease.clone(), attempt: 2, verify: false, delay }
}

/// Checks that the job becomes due as this attempt, and that the time between counts as no crash.
fn comes_back(stage: &Stage, caller: &mut Caller, attempt: u32, verify: bool) -> Verdict {
    same("before it is due", handed(&caller.call(9, &[])?), vec![])?;
    stage.raw().zadd::<_, _, _, ()>(stage.key("delay"), id(&run(1), "a"), 1).map_err(|e| e.to_string())?;
    let called = caller.call(9, &[])?;
    same("when it is due", handed(&called), vec![("a", verify)])?;
    let facts = called.jobs.first().map(|job| (job.attempt, job.crashes));
    same("its attempt and its crashes", facts, Some((attempt, 0)))
}

fn a_late_renewal_does_not_take_what_was_given_back(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    same("put off", w.one(back(&a.lease, Duration::from_secs(60)))?, Status::Ok)?;
    same("a renewal that comes late", w.renew(&a.lease)?, WindowRenewal::Gone)?;
    same("the leased steps", held(&w)?, vec![])?;
    comes_back(stage, &mut w, 2, false)
}

/// The first worker was silent for a while, and does not know yet that its lease has passed to another worker.
fn a_late_renewal_does_not_take_what_another_gave_back(stage: &Stage) -> Verdict {
    let (_s, w, a) = started(stage)?;
    let mut z = stage.caller("z")?;
    stage.lapse(&run(1), "a");
    let other = z.call(1, &[])?.jobs.pop().ok_or("no job")?;
    same("put off by the other worker", z.one(back(&other.lease, Duration::from_secs(60)))?, Status::Ok)?;
    same("the first worker's renewal", w.renew(&a.lease)?, WindowRenewal::Gone)?;
    same("the other worker's renewal", w.renew(&other.lease)?, WindowRenewal::Gone)?;
    same("the leased steps", held(&w)?, vec![])
}

/// No able worker has claimed the job since its lease expired.
fn a_lease_that_lapsed_goes_back_to_its_own_worker_alone(stage: &Stage) -> Verdict {
    let (mut w, mut z) = (stage.caller("w")?, stage.caller("z")?);
    let open = w.open(&run(1), 1, &[], vec![in_lane("a", "clocks")], false);
    w.one(open)?;
    let a = w.call(1, &[])?.jobs.pop().ok_or("no job")?;
    stage.lapse(&run(1), "a");
    same("the claim of an unable worker", handed(&z.call_able(1, &[], &Scope::Able(vec![]))?), vec![])?;
    let zombie = WindowLease { token: "zombie#1".into(), ..a.lease.clone() };
    same("the renewal by an earlier owner", w.renew(&zombie)?, WindowRenewal::Gone)?;
    same("the renewal by the last owner", w.renew(&a.lease)?, WindowRenewal::Renewed)?;
    stage.lapse(&run(1), "a");
    let called = z.call(1, &[])?;
    same("crashes", called.jobs.first().map(|job| (job.lease.step.to_string(), job.crashes)), Some(("a".into(), 1)))
}

/// In the copy, the job was given back; its worker claimed it again later, and lives.
fn what_was_given_back_before_a_restore_goes_back_to_its_living_worker(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    w.one(back(&a.lease, Duration::from_secs(60)))?;
    let copy = stage.copy();
    stage.raw().zadd::<_, _, _, ()>(stage.key("delay"), id(&run(1), "a"), 1).map_err(|e| e.to_string())?;
    let again = w.call(1, &[])?.jobs.pop().ok_or("no job")?;
    stage.restore(&copy);
    stage.restarted();
    w.call(0, &[])?;
    same("the renewal by the living worker", w.renew(&again.lease)?, WindowRenewal::Renewed)?;
    same("another claim", handed(&w.call(9, &[])?), vec![])
}

/// The renewal was sent before the job was given back, and arrives after a loss and a rebuild.
fn a_renewal_of_before_a_loss_takes_nothing_after_it(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    w.one(back(&a.lease, Duration::ZERO))?;
    stage.forget();
    let mut z = stage.caller("z")?;
    let rebuild = z.open(&run(1), 4, &[], vec![job("a", &[])], true);
    same("the rebuild", z.one(rebuild)?, Status::Ok)?;
    same("the late renewal", w.renew(&a.lease)?, WindowRenewal::Unknown)?;
    same("the leased steps", held(&w)?, vec![])?;
    same("the job", handed(&z.call(9, &[])?), vec![("a", true)])
}

fn a_renewal_without_a_token_takes_nothing(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    let nobody = WindowLease { token: String::new(), ..a.lease.clone() };
    w.one(back(&a.lease, Duration::from_secs(60)))?;
    same("a renewal of a job that was given back", w.renew(&nobody)?, WindowRenewal::Gone)?;
    stage.forget();
    w.call(0, &[])?;
    let rebuild = w.open(&run(1), 4, &[], vec![job("a", &[])], true);
    same("the rebuild", w.one(rebuild)?, Status::Ok)?;
    same("a renewal of a job that was queued again", w.renew(&nobody)?, WindowRenewal::Gone)?;
    same("the leased steps", held(&w)?, vec![])
}

/// The rebuild comes before the release, and enqueues the job with a later attempt.
fn what_was_given_back_after_a_loss_is_not_taken_by_a_late_renewal(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.forget();
    w.call(0, &[])?;
    let rebuild = w.open(&run(1), 4, &[], vec![Job { attempt: 3, ..job("a", &[]) }], true);
    same("the rebuild", w.one(rebuild)?, Status::Ok)?;
    same("put off", w.one(back(&a.lease, Duration::from_secs(60)))?, Status::Ok)?;
    same("a renewal that comes late", w.renew(&a.lease)?, WindowRenewal::Gone)?;
    comes_back(stage, &mut w, 3, true)
}

/// The window does not know the run when the job is given back; the rebuild comes a moment later.
fn what_was_given_back_before_a_rebuild_is_not_taken_by_a_late_renewal(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.forget();
    w.call(0, &[])?;
    same("given back", w.one(back(&a.lease, Duration::from_secs(60)))?, Status::NotOwner)?;
    let rebuild = w.open(&run(1), 4, &[], vec![job("a", &[])], true);
    same("the rebuild", w.one(rebuild)?, Status::Ok)?;
    same("a renewal that comes late", w.renew(&a.lease)?, WindowRenewal::Gone)?;
    same("the job", handed(&w.call(9, &[])?), vec![("a", true)])?;
    let mut raw = stage.raw();
    let left: i64 = redis::cmd("PTTL")
        .arg(stage.key(&format!("left:{} {}", id(&run(1), "a"), a.lease.token)))
        .query(&mut raw)
        .map_err(|e| e.to_string())?;
    holds("the remembered release expires by itself", left > 0)
}

/// A worker that drains gives many jobs back, while its leases are renewed on another connection.
fn many_jobs_that_are_given_back_while_they_are_renewed_stay_back(stage: &Stage) -> Verdict {
    const JOBS: usize = 400;
    let (mut s, mut w) = (stage.caller("s")?, stage.caller("w")?);
    let jobs = (0..JOBS).map(|n| job(&format!("s{n}"), &[])).collect();
    let open = s.open(&run(1), 1000, &[], jobs, false);
    s.one(open)?;
    let leases: Vec<WindowLease> = w.call(JOBS, &[])?.jobs.into_iter().map(|job| job.lease).collect();
    same("claimed", leases.len(), JOBS)?;
    let over = std::sync::atomic::AtomicBool::new(false);
    let renewer = RenewsAll { window: &w.window, leases: &leases };
    let given = std::thread::scope(|threads| {
        let renewing = threads.spawn(|| renewer.until(&over));
        let mut given = Ok(());
        for lease in &leases {
            let change =
                Change::Back { lease: lease.clone(), attempt: 1, verify: false, delay: Duration::from_secs(60) };
            let called = w.window.call(&[change], &Scope::All, 0, super::LEASE).map_err(|e| format!("{e:?}"));
            given = given.and(called.and_then(|called| same("given back", called.statuses, vec![Status::Ok])));
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        given.and(renewing.join().map_err(|_| "the renewals panicked".to_owned())?)
    });
    given?;
    same("the leased steps", held(&s)?, vec![])?;
    let delayed: usize = stage.raw().zcard(stage.key("delay")).map_err(|e| e.to_string())?;
    same("put off", delayed, JOBS)
}

/// Renews all leases again and again, as a worker does that does not know yet which leases are gone.
struct RenewsAll<'a> {
    window: &'a dovetail_stores::RedisWindow,
    leases: &'a [WindowLease],
}

impl RenewsAll<'_> {
    fn until(&self, over: &std::sync::atomic::AtomicBool) -> Verdict {
        while !over.load(std::sync::atomic::Ordering::SeqCst) {
            self.window.renew(self.leases, super::LEASE).map_err(|e| format!("{e:?}"))?;
        }
        Ok(())
    }
}

fn only_its_owner_gives_a_job_back(stage: &Stage) -> Verdict {
    let (_s, mut w, a) = started(stage)?;
    stage.lapse(&run(1), "a");
    let mut z = stage.caller("z")?;
    same("the claim after the lease expired", handed(&z.call(1, &[])?), vec![("a", true)])?;
    same("the release by the earlier owner", w.one(back(&a.lease, Duration::ZERO))?, Status::NotOwner)?;
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
    Job { requirements: Requirements::parse(lane), ..job(step, &[]) }
}

fn a_job_waits_for_a_worker_with_its_capabilities(stage: &Stage) -> Verdict {
    let (mut s, mut w) = (stage.caller("s")?, stage.caller("w")?);
    let open = s.open(&run(1), 2, &[], vec![in_lane("plain", ""), in_lane("seeing", "clocks,model:x")], false);
    s.one(open)?;
    let able = |names: &[&str]| Scope::Able(names.iter().map(|n| (*n).to_owned()).collect());
    same(
        "the claim of a worker with one ability",
        handed(&w.call_able(9, &[], &able(&["clocks"]))?),
        vec![("plain", false)],
    )?;
    same(
        "the claim of a worker with all abilities",
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
        first.extend(w.call(1, &[])?.jobs.into_iter().map(|j| j.lease.step.to_string()));
    }
    holds("both lanes are served", ["x", "y"].iter().all(|lane| first.iter().any(|step| step.starts_with(lane))))
}

/// The scenario claims as often as there are lanes, so that the lanes' turns cannot hide the rule.
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
        let child = Job { requirements: Requirements::parse("k"), ..job("b", &["a"]) };
        same("the step that follows", handed(&w.call(1, &[finish(&a.lease, &[child])])?), vec![("b", false)])?;
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
    same("the job that was put off", handed(&w.call(1, &[])?), vec![("b", false)])?;
    same("the remaining jobs", handed(&w.call(9, &[])?), vec![("c", false), ("new", false)])
}

/// The run was opened without the outputs that its children need: the worker must read the records.
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
    // A failed step is the last one only if the run has no other job.
    let of = |step: &str| lease(&called.jobs[0].lease, step);
    same("ends", s.call(0, &[finish(&of("a"), &[]), fail(&of("b"))])?.statuses, vec![Status::Ok, Status::Ok])
}
