//! The conformance suites of the ports on the embedded backend, and tests of its own abilities: it survives its
//! process, and processes share its folder.

#![expect(clippy::unwrap_used, reason = "a failing test panics")]

use std::sync::Arc;
use std::time::Duration;

use dovetail_core::blobs::{BlobKind, Blobs, StoreErrorKind};
use dovetail_core::conformance;
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Job, Kind, Ledger, Operation, Record, Requirements, RunKey, Scope, Wait};
use dovetail_core::memory::ManualClock;
use dovetail_core::retention::{RemovableBlobs, YOUNG};
use dovetail_core::{Digest, RunId};
use dovetail_stores::{FileBlobs, SqliteLedger};

const LEASE: Duration = Duration::from_secs(10);

#[test]
fn sqlite_keeps_the_promises() {
    let folders = std::sync::Mutex::new(Vec::new());
    conformance::ledger(&conformance::with_manual_clock(|clock| {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Arc::new(SqliteLedger::open(folder.path(), clock).unwrap());
        folders.lock().unwrap().push(folder);
        ledger
    }));
}

#[test]
fn files_keep_the_promises() {
    let folder = tempfile::tempdir().unwrap();
    conformance::blobs(&|| Arc::new(FileBlobs::new(folder.path())));
}

#[test]
fn what_is_kept_here_can_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let files = FileBlobs::new(folder.path());
    conformance::removable_blobs(&files, &files);
    let ledger = SqliteLedger::open(folder.path(), Arc::new(ManualClock::default())).unwrap();
    conformance::archive(&ledger, &|records| drop(dovetail_core::meta::MetaStore::put(&ledger, records).unwrap()));
}

#[test]
fn files_know_whose_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let new = || Arc::new(FileBlobs::new(folder.path())) as Arc<dyn RemovableBlobs>;
    let put = || assert_eq!(FileBlobs::new(folder.path()).put(BlobKind::Log, b"x").unwrap(), Digest::of(b"x"));
    let owner = conformance::owned(&new, &put, 8);
    let note = folder.path().join("blobs/owner");
    assert_eq!(std::fs::read_to_string(&note).unwrap(), format!("{owner}\n"));
    assert_eq!(std::fs::read_dir(note.parent().unwrap()).unwrap().count(), 2, "nothing half-written is left");
    for damaged in ["", "\n", "two words", "\u{e4}", &"x".repeat(1000)] {
        std::fs::write(&note, damaged).unwrap();
        let error = new().own("late").unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt, "{damaged:?}");
        let why = error.source.as_ref().unwrap().to_string();
        assert!(error.operation.contains("blobs/owner") && why.contains("remove it"), "{error:?}");
    }
}

/// One walk reads the folder once, however many files it has. A walk page by page took 2 s for each thousand of 100,000
/// files.
#[test]
fn a_walk_reads_the_folder_once() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = FileBlobs::new(folder.path());
    let first = blobs.put(BlobKind::Log, b"x").unwrap();
    let kind = blobs.path(BlobKind::Log, &first).parent().unwrap().to_owned();
    for n in 0..30_000_u32 {
        std::fs::write(kind.join(Digest::of(&n.to_le_bytes()).hex()), b"").unwrap();
    }
    let (mut visited, started) = (0, std::time::Instant::now());
    blobs
        .walk(BlobKind::Log, &mut |_, _| {
            visited += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(visited, 30_001);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

fn backdate(path: &std::path::Path, by: Duration) {
    std::fs::File::open(path).unwrap().set_modified(std::time::SystemTime::now() - by).unwrap();
}

#[test]
fn a_blob_that_is_stored_again_is_young_again() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = FileBlobs::new(folder.path());
    let digest = blobs.put(BlobKind::Log, b"said").unwrap();
    backdate(&blobs.path(BlobKind::Log, &digest), 3 * YOUNG);
    assert!(blobs.age(BlobKind::Log, &digest).unwrap().unwrap() > 2 * YOUNG);
    blobs.put(BlobKind::Log, b"said").unwrap();
    assert!(!blobs.remove(BlobKind::Log, &digest, 2 * YOUNG).unwrap(), "the new writer is about to refer to it");
    assert_eq!(blobs.get(BlobKind::Log, &digest, 9).unwrap(), b"said");
}

/// An old blob is stored and removed at once. The process that stored it must find it there.
#[test]
fn storing_and_removing_do_not_cross() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = FileBlobs::new(folder.path());
    let bytes = b"contested";
    let digest = blobs.put(BlobKind::Log, bytes).unwrap();
    let path = blobs.path(BlobKind::Log, &digest);
    let (mut removed, rounds) = (0, 300);
    for _ in 0..rounds {
        backdate(&path, 3 * YOUNG);
        let gone = std::thread::scope(|s| {
            let remover = s.spawn(|| blobs.remove(BlobKind::Log, &digest, 2 * YOUNG).unwrap());
            blobs.put(BlobKind::Log, bytes).unwrap();
            remover.join().unwrap()
        });
        assert_eq!(blobs.size(BlobKind::Log, &digest).unwrap(), Some(9), "the stored blob exists");
        removed += u32::from(gone);
    }
    println!("removed before it was stored again in {removed} of {rounds} rounds");
}

#[test]
fn what_a_killed_writer_left_is_removed_when_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = FileBlobs::new(folder.path());
    blobs.put(BlobKind::Package, b"whole").unwrap();
    let half = folder.path().join("blobs/packages/sha256/.new-abc");
    std::fs::write(&half, b"hal").unwrap();
    assert_eq!(blobs.remove_abandoned(false).unwrap(), 0, "its writer may live");
    backdate(&half, 2 * YOUNG);
    assert_eq!(blobs.remove_abandoned(true).unwrap(), 3);
    assert!(half.try_exists().unwrap(), "it was only looked at");
    assert_eq!(blobs.remove_abandoned(false).unwrap(), 3);
    assert!(!half.try_exists().unwrap());
    let mut left = 0;
    blobs
        .walk(BlobKind::Package, &mut |_, _| {
            left += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(left, 1);
}

#[test]
fn a_damaged_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = FileBlobs::new(folder.path());
    let digest = blobs.put(BlobKind::Model, b"weights").unwrap();
    std::fs::write(blobs.path(BlobKind::Model, &digest), b"weighty").unwrap();
    assert_eq!(blobs.get(BlobKind::Model, &digest, 100).unwrap_err().kind, StoreErrorKind::Corrupt);
}

#[test]
fn a_damaged_package_is_replaced_by_the_next_put() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = FileBlobs::new(folder.path());
    let whole: Vec<u8> = (0..200_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let digest = blobs.put(BlobKind::Package, &whole).unwrap();
    let path = blobs.path(BlobKind::Package, &digest);
    let mut flipped = whole.clone();
    flipped[150_000] ^= 1;
    for damaged in [flipped.as_slice(), &whole[..whole.len() - 1], b"", &[whole.as_slice(), b"x"].concat()] {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(blobs.put(BlobKind::Package, &whole).unwrap(), digest);
        assert!(std::fs::read(&path).unwrap() == whole, "{} bytes were left as they were", damaged.len());
    }
    let written = std::fs::metadata(&path).unwrap();
    blobs.put(BlobKind::Package, &whole).unwrap();
    let kept = std::fs::metadata(&path).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::ino(&kept),
        std::os::unix::fs::MetadataExt::ino(&written),
        "a whole one is not written again"
    );
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = FileBlobs::new(folder.path());
    // A file stands where the folder of packages must be made.
    std::fs::create_dir_all(blobs.path(BlobKind::Log, &Digest::of(b"x")).parent().unwrap()).unwrap();
    std::fs::write(folder.path().join("blobs/packages"), b"in the way").unwrap();
    blobs.put(BlobKind::Package, b"x").unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path().join("blobs/logs/sha256")).unwrap().count(), 0);
}

fn submit(ledger: &SqliteLedger) -> RunKey {
    submit_as(ledger, 1)
}

fn submit_as(ledger: &SqliteLedger, number: u8) -> RunKey {
    let run = RunKey { run: RunId::from_bytes([number; 16]), generation: 0 };
    let record = Record { kind: Kind::Run, key: run.run.to_string(), value: b"run".to_vec() };
    ledger
        .commit(&[Operation::Submit {
            run: run.clone(),
            record,
            jobs: vec![Job {
                step: NodeId::of_step("a"),
                needs: vec![],
                attempt: 1,
                requirements: Requirements::default(),
            }],
            steps: [NodeId::of_step("a")].into(),
        }])
        .unwrap();
    run
}

#[test]
fn what_is_committed_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let run = submit(&SqliteLedger::open(folder.path(), clock.clone()).unwrap());
    let ledger = SqliteLedger::open(folder.path(), clock).unwrap();
    assert_eq!(ledger.open_runs(9).unwrap(), [run]);
    assert_eq!(ledger.claim(&Scope::All, 9, LEASE, Wait::NONE).unwrap().len(), 1);
}

/// The number of transactions in the database's log.
fn commits(data: &std::path::Path) -> usize {
    let log = std::fs::read(data.join("dovetail.db-wal")).unwrap();
    let page = u32::from_be_bytes(log[8..12].try_into().unwrap()) as usize;
    // The last page of each transaction tells the size of the database after it.
    log[32..].chunks_exact(24 + page).filter(|frame| frame[4..8] != [0; 4]).count()
}

#[test]
fn a_claimer_that_waits_gets_its_jobs_with_the_change_that_makes_them_ready() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(folder.path(), Arc::new(ManualClock::default())).unwrap();
    let waits = Wait { seen: ledger.wakes(), at_most: Duration::from_secs(20) };
    let before = commits(folder.path());
    std::thread::scope(|threads| {
        let claimer = threads.spawn(|| ledger.claim(&Scope::All, 9, LEASE, waits).unwrap());
        // Wait until the claimer has looked and waits.
        std::thread::sleep(Duration::from_millis(300));
        submit(&ledger);
        assert_eq!(claimer.join().unwrap().len(), 1);
    });
    assert_eq!(commits(folder.path()), before + 1, "the submission and the claim are one transaction");
}

#[test]
fn what_another_process_submits_is_found_by_a_claimer_that_waits() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let (here, there) =
        (SqliteLedger::open(folder.path(), clock.clone()).unwrap(), SqliteLedger::open(folder.path(), clock).unwrap());
    // The claimer knows that there is no job, and its clock stands still.
    assert!(here.claim(&Scope::All, 9, LEASE, Wait::NONE).unwrap().is_empty());
    let waits = Wait { seen: here.wakes(), at_most: Duration::from_secs(20) };
    std::thread::scope(|threads| {
        let claimer = threads.spawn(|| here.claim(&Scope::All, 9, LEASE, waits).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        submit(&there);
        assert_eq!(claimer.join().unwrap().len(), 1);
    });
}

/// A ledger that looks for changes of other processes less often than any test takes.
fn ledger_without_looks(data: &std::path::Path, clock: &Arc<ManualClock>) -> SqliteLedger {
    SqliteLedger::open(data, clock.clone()).unwrap().looking_every(Duration::from_secs(600))
}

/// Much longer than any step takes if nothing hangs.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_claimer_that_waits_hears_what_another_process_submits_and_needs_no_look() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let (here, there) = (ledger_without_looks(folder.path(), &clock), ledger_without_looks(folder.path(), &clock));
    // In the first round the claimer waits long enough to subscribe. In the second it is subscribed, and its earlier
    // answer "no job" must not be used again.
    for round in 1..=2 {
        let waits = Wait { seen: here.wakes(), at_most: LONG };
        std::thread::scope(|threads| {
            let claimer = threads.spawn(|| here.claim(&Scope::All, 9, LEASE, waits).unwrap());
            std::thread::sleep(Duration::from_millis(300));
            let run = submit_as(&there, round);
            let jobs = claimer.join().unwrap();
            assert_eq!(jobs.len(), 1, "round {round}");
            assert_eq!(jobs[0].lease.run, run);
        });
    }
    let mut sockets: Vec<_> =
        std::fs::read_dir(folder.path().join("bells")).unwrap().map(|socket| socket.unwrap().file_name()).collect();
    assert_eq!(sockets.len(), 1, "a process that only submits has no socket: {sockets:?}");
    drop(here);
    sockets =
        std::fs::read_dir(folder.path().join("bells")).unwrap().map(|socket| socket.unwrap().file_name()).collect();
    assert!(sockets.is_empty(), "{sockets:?}");
    // No process listens any more, and the submission succeeds all the same.
    submit_as(&there, 3);
}

#[test]
fn a_job_that_is_put_back_for_later_is_heard_of_by_other_processes() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let (here, there) = (ledger_without_looks(folder.path(), &clock), ledger_without_looks(folder.path(), &clock));
    submit_as(&there, 1);
    // The lease is so long that its end does not wake the claimer.
    let held = there.claim(&Scope::All, 9, Duration::from_secs(600), Wait::NONE).unwrap();
    let waits = Wait { seen: here.wakes(), at_most: LONG };
    std::thread::scope(|threads| {
        let claimer = threads.spawn(|| here.claim(&Scope::All, 9, LEASE, waits).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        there.commit(&[Operation::Release { lease: held[0].lease.clone(), delay: Duration::from_millis(50) }]).unwrap();
        clock.advance(Duration::from_millis(50));
        assert_eq!(claimer.join().unwrap().len(), 1);
    });
}

#[test]
fn a_waiting_caller_hears_that_another_process_ended_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let (here, there) = (ledger_without_looks(folder.path(), &clock), ledger_without_looks(folder.path(), &clock));
    for round in 1..=2 {
        let run = submit_as(&there, round);
        let (waits, began) = (Wait { seen: here.wakes(), at_most: LONG }, std::time::Instant::now());
        std::thread::scope(|threads| {
            let waiter = threads.spawn(|| here.over(std::slice::from_ref(&run), waits).unwrap());
            // A claimer whose scope is a set of runs returns without jobs, to check whether these runs are over.
            let claimer =
                threads.spawn(|| here.claim(&Scope::Runs(vec![RunId::from_bytes([99; 16])]), 9, LEASE, waits).unwrap());
            std::thread::sleep(Duration::from_millis(300));
            let record = Record { kind: Kind::RunOutcome, key: run.key(), value: b"{}".to_vec() };
            there.commit(&[Operation::Close { run: run.clone(), record }]).unwrap();
            assert_eq!(waiter.join().unwrap(), std::slice::from_ref(&run), "round {round}");
            assert!(claimer.join().unwrap().is_empty());
            assert!(began.elapsed() < LONG, "round {round}");
        });
    }
}

#[test]
fn the_jobs_of_a_process_that_ended_are_free_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let first = SqliteLedger::open(folder.path(), clock.clone()).unwrap();
    let second = SqliteLedger::open(folder.path(), clock).unwrap();
    submit(&first);
    assert_eq!(first.claim(&Scope::All, 9, LEASE, Wait::NONE).unwrap().len(), 1);
    assert!(second.claim(&Scope::All, 9, LEASE, Wait::NONE).unwrap().is_empty(), "its holder lives");
    drop(first);
    let again = second.claim(&Scope::All, 9, LEASE, Wait::NONE).unwrap();
    assert_eq!((again.len(), again[0].crashes, again[0].verify), (1, 1, true));
}

#[test]
fn a_newer_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteLedger::open(folder.path(), Arc::new(ManualClock::default())).unwrap());
    rusqlite::Connection::open(folder.path().join("dovetail.db"))
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = SqliteLedger::open(folder.path(), Arc::new(ManualClock::default())).map(drop).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Newer);
    assert!(error.source.unwrap().to_string().contains("99"));
}

#[test]
fn what_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("dovetail.db"),
        b"this is a letter, not a database, and it is long enough to look at".repeat(40),
    )
    .unwrap();
    let error = SqliteLedger::open(folder.path(), Arc::new(ManualClock::default())).map(drop).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
}

#[test]
fn opening_a_known_database_waits_for_no_writer() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    drop(SqliteLedger::open(folder.path(), clock.clone()).unwrap());
    // A writer in the middle of its change, which also holds the writer lock: if opening needed to write, it would wait
    // here forever.
    let writer_lock = std::fs::File::options().write(true).open(folder.path().join("dovetail.lock")).unwrap();
    writer_lock.lock().unwrap();
    let writer = rusqlite::Connection::open(folder.path().join("dovetail.db")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO facts VALUES ('test', '1')").unwrap();
    let ledger = SqliteLedger::open(folder.path(), clock).unwrap();
    assert!(ledger.open_runs(9).unwrap().is_empty());
}

#[test]
fn what_dead_processes_left_behind_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let processes = folder.path().join("processes");
    std::fs::create_dir(&processes).unwrap();
    std::fs::write(processes.join("1-1-0"), "locked while the process lives").unwrap();
    let living = std::fs::File::create(processes.join("2-2-0")).unwrap();
    living.lock().unwrap();
    let _ledger = SqliteLedger::open(folder.path(), Arc::new(ManualClock::default())).unwrap();
    let mut left: Vec<_> =
        std::fs::read_dir(&processes).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&"2-2-0".to_owned()), "the file of a living process stays: {left:?}");
}

#[test]
fn a_database_of_the_first_version_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let old = rusqlite::Connection::open(folder.path().join("dovetail.db")).unwrap();
    // The tables as the first version made them, with one open run.
    old.execute_batch(
        "PRAGMA user_version = 1;
        CREATE TABLE records (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
            succeeded INTEGER NOT NULL DEFAULT 0, UNIQUE (kind, key));
        CREATE INDEX records_by_kind ON records (kind, id);
        CREATE TABLE open_runs (id INTEGER PRIMARY KEY, run TEXT NOT NULL, generation INTEGER NOT NULL,
            UNIQUE (run, generation));
        CREATE TABLE jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, generation INTEGER NOT NULL,
            step TEXT NOT NULL, needs TEXT NOT NULL, attempt INTEGER NOT NULL, crashes INTEGER NOT NULL,
            verify INTEGER NOT NULL, due INTEGER NOT NULL, owner TEXT, token INTEGER NOT NULL DEFAULT 0,
            expires INTEGER NOT NULL DEFAULT 0, UNIQUE (run, generation, step));
        CREATE INDEX jobs_free ON jobs (id) WHERE owner IS NULL;
        CREATE INDEX jobs_leased ON jobs (owner) WHERE owner IS NOT NULL;
        CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        INSERT INTO facts VALUES ('token', '0'), ('boot', '');
        INSERT INTO records (kind, key, value)
            VALUES ('run', '01010101-0101-0101-0101-010101010101', CAST('the run' AS BLOB));
        INSERT INTO open_runs (run, generation) VALUES ('01010101-0101-0101-0101-010101010101', 0);
        INSERT INTO jobs (run, generation, step, needs, attempt, crashes, verify, due)
            VALUES ('01010101-0101-0101-0101-010101010101', 0, 'a', '[]', 1, 0, 0, 0);",
    )
    .unwrap();
    drop(old);
    let clock = Arc::new(ManualClock::default());
    let ledger = SqliteLedger::open(folder.path(), clock.clone()).unwrap();
    let claimed = ledger.claim(&Scope::Able(vec![]), 9, LEASE, Wait::NONE).unwrap();
    assert_eq!((claimed.len(), claimed[0].run.as_slice()), (1, b"the run".as_slice()));
    drop(ledger);
    let again = SqliteLedger::open(folder.path(), clock).unwrap();
    assert_eq!(again.open_runs(9).unwrap().len(), 1);
}

#[test]
fn an_open_run_that_this_version_cannot_read_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let ledger = SqliteLedger::open(folder.path(), clock).unwrap();
    let raw = rusqlite::Connection::open(folder.path().join("dovetail.db")).unwrap();
    raw.execute_batch(
        "INSERT INTO open_runs (run, generation) VALUES ('of-a-newer-form', 0);
        INSERT INTO open_runs (run, generation) VALUES ('01010101-0101-0101-0101-010101010101', 0);",
    )
    .unwrap();
    let open = ledger.open_runs(9).unwrap();
    assert_eq!(open.iter().map(RunKey::key).collect::<Vec<_>>(), ["01010101-0101-0101-0101-010101010101:0"]);
}
