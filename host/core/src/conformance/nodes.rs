//! Cases of [`super::ledger`] about the names of steps: indices are kept, and a name that cannot be read harms no other
//! job.

use std::time::{Duration, Instant};

use super::cases::Case;
use super::{job, node, outcome, record, run};
use crate::keys::NodeId;
use crate::ledger::{Claimed, Job, Kind, Operation, Renewal, Reply, RunKey, Scope, Wait};

pub(super) const LEDGER: &[Case] = &[
    ("a node keeps its path of indices", |b| {
        let nodes: std::sync::Arc<[_]> = ["a[0]", "a[1]", "a[10][2]", "c", "a"].map(node).into();
        let jobs = ["a[0]", "a[1]", "a[10][2]"].map(|step| job(step, &[]));
        let first = run(1);
        let submitted = record(Kind::Run, first.run.to_string());
        let submit =
            Operation::Submit { run: first.clone(), record: submitted, jobs: jobs.to_vec(), steps: nodes.clone() };
        assert_eq!(b.one(submit), Reply::Created);
        let mut claimed = b.claim(9);
        let steps = |claimed: &[Claimed]| claimed.iter().map(|c| c.lease.step.to_string()).collect::<Vec<_>>();
        assert_eq!(steps(&claimed), ["a[0]", "a[1]", "a[10][2]"], "three jobs of one step");
        let paths: Vec<Vec<u32>> = claimed.iter().map(|c| c.lease.step.path().collect()).collect();
        assert_eq!(paths, [&[0][..], &[1], &[10, 2]], "with their indices");
        let held = b.ledger.held(&first).expect("held works").into_iter().map(|held| held.step.to_string());
        assert_eq!(held.collect::<std::collections::BTreeSet<_>>().len(), 3, "each is held for itself");
        assert_eq!(b.renew(&claimed[2].lease), Renewal::Renewed);
        // The second attempt at one of them leaves the others alone.
        let second = claimed.remove(1);
        let key = first.attempt(&second.lease.step, 2);
        let attempt = record(Kind::Attempt, key.clone());
        let retry = Operation::Retry { lease: second.lease, record: attempt, delay: Duration::ZERO };
        assert_eq!(b.one(retry), Reply::Created);
        assert!(b.ledger.get(Kind::Attempt, &[key]).expect("get works")[0].is_some());
        let second = b.claim(9).remove(0);
        assert_eq!((second.lease.step.as_str(), second.attempt), ("a[1]", 2));
        // A child that needs two of them starts after both.
        let child = [job("c", &["a[0]", "a[1]"])];
        assert_eq!(b.finish(&claimed[0].lease, &child), Reply::Created);
        assert_eq!(b.steps(9), [""; 0]);
        assert_eq!(b.finish(&second.lease, &child), Reply::Created);
        let joined = b.claim(9).remove(0);
        let needed = ["a[0]", "a[1]"].map(|step| (node(step), outcome(first.step(step), true).value));
        assert_eq!((joined.lease.step.as_str(), &joined.needs[..]), ("c", &needed[..]));
        // A recovery enqueues the jobs that have neither an outcome nor a lease, and no others.
        (b.advance)(b.lease * 5 / 4);
        let recover = |run: &RunKey, jobs: &[Job]| {
            b.one(Operation::Recover { run: run.clone(), jobs: jobs.to_vec(), steps: nodes.clone() })
        };
        assert_eq!(recover(&first, &jobs), Reply::Created);
        let mut again = steps(&b.claim(9));
        again.sort_unstable();
        assert_eq!(again, ["a[10][2]", "c"]);
        // A re-run takes over the step that succeeded, and runs the others.
        assert_eq!(b.close(&first), Reply::Created);
        let rerun = RunKey { generation: 1, ..first };
        let reopen = Operation::Reopen { run: rerun.clone(), record: record(Kind::Generation, rerun.key()) };
        assert_eq!(b.one(reopen), Reply::Created);
        assert_eq!(b.one(Operation::Inherit { record: outcome(rerun.step("a[0]"), true) }), Reply::Created);
        assert_eq!(recover(&rerun, &[&jobs[..], &[job("c", &["a[0]"])]].concat()), Reply::Created);
        let mut again = b.claim(9);
        again.sort_by(|one, other| one.lease.step.cmp(&other.lease.step));
        assert_eq!(steps(&again), ["a[1]", "a[10][2]", "c"]);
        assert_eq!(again[2].needs, [(node("a[0]"), outcome(rerun.step("a[0]"), true).value)]);
    }),
    ("a job that this version cannot read keeps no other job from being claimed", |b| {
        let unreadable = Job { step: NodeId::of_step("Not-A-Step"), ..job("x", &[]) };
        let run = b.submit(1, &[unreadable, job("a", &[]), job("b", &[])]);
        // A claim that finds the unreadable job alone comes back empty. A backend that stores no text can read the job.
        let claimed: Vec<Claimed> =
            (0..9).flat_map(|_| b.claim(1)).filter(|job| job.lease.step != "Not-A-Step").collect();
        let facts: Vec<_> = claimed.iter().map(|job| (job.lease.step.as_str(), job.crashes)).collect();
        assert_eq!(facts, [("a", 0), ("b", 0)]);
        let held = b.ledger.held(&run).expect("held works");
        let held: Vec<_> = held.iter().map(|held| held.step.as_str()).filter(|step| *step != "Not-A-Step").collect();
        assert_eq!(held.len(), 2, "{held:?}");
    }),
    ("a claim that waits finds the jobs behind one that this version cannot read at once", |b| {
        let unreadable = Job { step: NodeId::of_step("Not-A-Step"), ..job("x", &[]) };
        b.submit(1, &[unreadable, job("a", &[])]);
        let began = Instant::now();
        let claim = || {
            let wait = Wait { seen: b.ledger.wakes(), at_most: Duration::from_secs(20) };
            b.ledger.claim(&Scope::All, 1, b.lease, wait).expect("claim works").remove(0)
        };
        let mut claimed = claim();
        if claimed.lease.step == "Not-A-Step" {
            claimed = claim();
        }
        assert_eq!(claimed.lease.step, "a");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }),
];
