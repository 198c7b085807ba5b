//! An S3 server that is slow, refuses, breaks off, sends other bytes than it has, or is cut off, with workers that have
//! data folders of their own and runs over files: packages, artifacts, pictures and values go through it. Nothing that
//! is wrong comes out, no attempt is charged, and everything ends when it works again.

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
    /// Whether a log of a worker says this anywhere.
    pub(crate) fn is_said(&self, words: &str) -> bool {
        self.said(words) > 0
    }

    /// How often the logs of the workers say it.
    pub(crate) fn said(&self, words: &str) -> usize {
        let logs = self.workers.iter().map(|worker| &worker.log).chain(&self.ended);
        logs.map(|log| std::fs::read_to_string(log).unwrap().matches(words).count()).sum()
    }

    /// Attempts that are on record beyond the first one of their step: none of these faults is a task's.
    fn charged(&self) -> Vec<String> {
        let all = self.meta.list(Kind::Outcome, &ALL).unwrap();
        let charged = |(key, value): (String, Vec<u8>)| {
            (OutcomeRecord::decode(&value, &key).unwrap().attempts.len() > 1).then_some(key)
        };
        all.into_iter().filter_map(charged).collect()
    }
}

/// The fault, so many times, under load; each time a worker begins that has nothing yet. The logs say each of these.
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
        assert!(struck > 0, "nothing passed while it lasted");
    }
    fleet.progress(10);
    load.stop();
    assert_eq!(fleet.all_work(), Vec::<String>::new());
    // What the store fails is begun again each second.
    fleet.holds(times * 4);
    assert_eq!(fleet.charged(), Vec::<String>::new(), "an attempt was charged");
    for words in said {
        assert!(fleet.is_said(words), "no log says `{words}`: this has shown nothing");
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

/// Every object is damaged, each time it is read: that is told, and nobody works with it.
#[test]
fn packages_that_never_come_whole_are_not_run() {
    let mut fleet = Fleet::new(FAR);
    fleet.to_s3.as_ref().unwrap().set(Spoil::FlipBytes { of: 1 });
    fleet.workers(1);
    fleet.user.load(2);
    let told = |line: &str| line.contains("a step could not be run") && line.contains("its content has another digest");
    wait("the reason is told", LONG, || std::fs::read_to_string(&fleet.workers[0].log).unwrap().lines().any(told));
    assert_eq!(fleet.meta.list(Kind::Outcome, &ALL).unwrap(), Vec::new(), "nothing ran");
    fleet.to_s3.as_ref().unwrap().set(Spoil::Nothing);
    fleet.holds(1);
    assert_eq!(fleet.charged(), Vec::<String>::new(), "an attempt was charged");
}

/// A value that is too large for its record goes through S3 as artifacts and packages do, and is asked for again as
/// soon as they are.
#[test]
fn a_step_whose_value_is_refused_is_tried_again_soon() {
    let mut fleet = Fleet::new(FAR);
    fleet.workers(1);
    let large = |bytes: u32| json!({ "behaviour": { "tag": "huge_output", "val": bytes } });
    // It has the package by then.
    let first = fleet.user.submit("probe", &large(20_000));
    wait("it ends", LONG, || fleet.is_over(&first));
    fleet.to_s3.as_ref().unwrap().set(Spoil::Refuse);
    let run = fleet.user.submit("probe", &large(20_001));
    wait("it is refused", LONG, || fleet.is_said("a step could not be run"));
    fleet.to_s3.as_ref().unwrap().set(Spoil::Nothing);
    let began = Instant::now();
    wait("it ends", LONG, || fleet.is_over(&run));
    let took = began.elapsed();
    println!("over {took:.1?} after S3 worked again");
    assert!(
        took < Duration::from_secs(15),
        "over {took:.1?} after S3 worked again: it was put off as if that did not pass"
    );
    fleet.holds(20);
    assert_eq!(fleet.charged(), Vec::<String>::new(), "an attempt was charged");
}
