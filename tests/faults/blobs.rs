//! An S3 server that is slow, refuses requests, breaks off answers, changes bytes, or is cut off. The workers have data
//! folders of their own, and the runs use files: packages, artifacts, pictures and values go through the server. No
//! wrong value is recorded, no attempt is charged, and every run ends when the server works again.

use std::time::{Duration, Instant};

use dovetail_core::ledger::{Kind, Listing};
use dovetail_core::record::{Form as _, OutcomeRecord};
use serde_json::json;

use crate::fleet::{Fleet, LONG, Setup, wait};
use crate::http::Spoil;
use crate::storm::{Fault, Load, Random};

const FAR: Setup =
    Setup { mongodb: true, s3: true, proxies: true, apart: true, small: None, redis_clock: false, lease: 2, slots: 4 };

const ALL: Listing = Listing { prefix: String::new(), limit: usize::MAX, newest_first: false };

impl Fleet {
    /// Whether a worker's log contains these words.
    pub(crate) fn is_said(&self, words: &str) -> bool {
        self.said(words) > 0
    }

    /// How often the workers' logs contain these words.
    pub(crate) fn said(&self, words: &str) -> usize {
        let logs = self.workers.iter().map(|worker| &worker.log).chain(&self.ended);
        logs.map(|log| std::fs::read_to_string(log).unwrap().matches(words).count()).sum()
    }

    /// Steps with more than one recorded attempt. None of these faults is a task's, so there must be none.
    fn charged(&self) -> Vec<String> {
        let all = self.meta.list(Kind::Outcome, &ALL).unwrap();
        let charged = |(key, value): (String, Vec<u8>)| {
            (OutcomeRecord::decode(&value, &key).unwrap().attempts.len() > 1).then_some(key)
        };
        all.into_iter().filter_map(charged).collect()
    }
}

/// Strikes `times` times under load; each time a worker with an empty data folder starts. The logs must contain each of
/// the texts in `said`.
fn survives(fault: Fault, times: usize, said: &[&str]) {
    let (mut fleet, mut random) = (Fleet::new(FAR), Random::new());
    fleet.workers(2);
    let load = Load::start(&fleet.user, Duration::from_millis(60));
    for _ in 0..times {
        fleet.progress(10);
        let before = fleet.to_s3.as_ref().unwrap().struck();
        fleet.start_worker(&[]);
        fault.strike(&mut fleet, &mut random);
        let struck = fleet.to_s3.as_ref().unwrap().struck() - before;
        println!("{}: {struck} messages", fault.what());
        assert!(struck > 0, "no message passed while the fault lasted");
    }
    fleet.progress(10);
    load.stop();
    assert_eq!(fleet.all_work(), Vec::<String>::new());
    // A step that the store fails is begun again each second: at most four times for each fault.
    fleet.holds(times * 4);
    assert_eq!(fleet.charged(), Vec::<String>::new(), "an attempt was charged");
    for words in said {
        assert!(fleet.is_said(words), "no log says `{words}`, so the test has shown nothing");
    }
}

#[test]
fn minio_far_away() {
    survives(Fault::BlobsSlow, 2, &[]);
}

#[test]
fn minio_that_is_asked_too_much() {
    survives(Fault::BlobsRefuse, 2, &["HTTP 503 SlowDown"]);
}

#[test]
fn minio_whose_bodies_break_off() {
    survives(Fault::BlobsCutShort, 2, &["the answer broke off after"]);
}

#[test]
fn minio_whose_bodies_are_changed_on_their_way() {
    survives(Fault::BlobsDamaged, 2, &["its content has another digest", "HTTP 400 BadDigest"]);
}

#[test]
fn minio_cut_off_for_longer_than_a_lease() {
    survives(Fault::BlobsCutOff, 2, &[]);
}

/// Every object is damaged each time it is read: the workers report that, and run no step.
#[test]
fn packages_that_never_come_whole_are_not_run() {
    let mut fleet = Fleet::new(FAR);
    fleet.to_s3.as_ref().unwrap().set(Spoil::FlipBytes { of: 1 });
    fleet.workers(1);
    fleet.user.load(2);
    let reported =
        |line: &str| line.contains("a step could not be run") && line.contains("its content has another digest");
    wait("the reason is logged", LONG, || {
        std::fs::read_to_string(&fleet.workers[0].log).unwrap().lines().any(reported)
    });
    assert_eq!(fleet.meta.list(Kind::Outcome, &ALL).unwrap(), Vec::new(), "a step ran");
    fleet.to_s3.as_ref().unwrap().set(Spoil::Nothing);
    fleet.holds(1);
    assert_eq!(fleet.charged(), Vec::<String>::new(), "an attempt was charged");
}

/// A value that is too large for its record goes through S3, as artifacts and packages do. A step whose value was
/// refused is tried again as soon as a step whose artifact was refused.
#[test]
fn a_step_whose_value_is_refused_is_tried_again_soon() {
    let mut fleet = Fleet::new(FAR);
    fleet.workers(1);
    let large = |bytes: u32| json!({ "behaviour": { "tag": "huge_output", "val": bytes } });
    // After this run the worker has the package.
    let first = fleet.user.submit("probe", &large(20_000));
    wait("the first run ends", LONG, || fleet.is_over(&first));
    fleet.to_s3.as_ref().unwrap().set(Spoil::Refuse);
    let run = fleet.user.submit("probe", &large(20_001));
    wait("the value is refused", LONG, || fleet.is_said("a step could not be run"));
    fleet.to_s3.as_ref().unwrap().set(Spoil::Nothing);
    let began = Instant::now();
    wait("the second run ends", LONG, || fleet.is_over(&run));
    let took = began.elapsed();
    println!("over {took:.1?} after S3 worked again");
    assert!(
        took < Duration::from_secs(15),
        "over {took:.1?} after S3 worked again: the step was put off as if the cause would last"
    );
    fleet.holds(20);
    assert_eq!(fleet.charged(), Vec::<String>::new(), "an attempt was charged");
}
