//! `gc`: removed and kept content of a data folder.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::{Home, valid};
use crate::workers::Daemon;

fn home() -> Home {
    let home = Home::new();
    let steps =
        json!({ "copy": { "number": 1, "task": "copy-artifact@1.0.0", "inputs": { "artifact": "input.file" } } });
    let inputs = json!({ "file": {} });
    let output = json!({ "it": "copy.upper" });
    let pipeline = json!({ "name": "copying", "version": "1.0.0", "inputs": inputs, "steps": steps, "output": output });
    home.push(&["copy-artifact"]).pipeline("copying", &pipeline);
    home
}

fn run(home: &Home) -> Value {
    let file = home.write("letter.bin", "dear reader");
    home.run(&["run", "copying", "--input", &format!("file=@{file}"), "--output", "json"]).exits(0).json()
}

fn gc(home: &Home, more: &[&str]) -> Value {
    let args: Vec<&str> = ["gc", "--output", "json"].iter().chain(more).copied().collect();
    let document = home.run(&args).exits(0).json();
    valid("gc.schema.json", &document);
    document
}

/// Makes everything under `folder` look as if it had been written two days ago.
fn age(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            age(&path);
        } else {
            std::fs::File::open(&path)
                .unwrap()
                .set_modified(SystemTime::now() - Duration::from_secs(2 * 24 * 3600))
                .unwrap();
        }
    }
}

fn runs(home: &Home) -> usize {
    home.run(&["runs", "list", "--output", "json"]).exits(0).json().as_array().unwrap().len()
}

#[test]
fn where_there_is_nothing_nothing_is_made() {
    let home = Home::new();
    assert_eq!(gc(&home, &[])["runs"], 0);
    assert!(!home.path("data").try_exists().unwrap());
}

#[test]
fn old_runs_go_with_their_blobs_and_what_is_published_stays() {
    let home = home();
    let document = run(&home);
    let kept = gc(&home, &[]);
    assert_eq!(
        (&kept["runs"], &kept["blobs"]["artifacts"]["number"], &kept["compiled"]["number"]),
        (&json!(0), &json!(0), &json!(0))
    );
    let shown = home.run(&["runs", "show", document["run_id"].as_str().unwrap(), "--output", "json"]).exits(0).json();
    assert_eq!(shown, document);

    // The run's blobs are too young to be removed: a running step might refer to them.
    let would = gc(&home, &["--keep-runs", "0s", "--dry-run"]);
    assert_eq!((&would["runs"], &would["blobs"]["artifacts"]["number"], runs(&home)), (&json!(1), &json!(0), 1));
    age(&home.path("data/blobs"));
    let would = gc(&home, &["--keep-runs", "0s", "--dry-run"]);
    let gone = gc(&home, &["--keep-runs", "0s"]);
    assert_eq!(
        (&would["blobs"], &would["records"], &would["dry_run"]),
        (&gone["blobs"], &gone["records"], &json!(true))
    );
    assert_eq!((&gone["runs"], &gone["blobs"]["artifacts"]), (&json!(1), &json!({ "number": 2, "bytes": 22 })));
    assert_eq!(gone["blobs"]["packages"]["number"], 0);
    assert_eq!(runs(&home), 0);
    let error = home.run(&["runs", "show", document["run_id"].as_str().unwrap()]).exits(2);
    assert!(error.stderr.contains("there is no run"), "{}", error.stderr);
    run(&home);
}

#[test]
fn compiled_code_that_nobody_uses_goes_and_comes_again() {
    let home = home();
    run(&home);
    let gone = gc(&home, &["--keep-compiled", "0s"]);
    assert!(gone["compiled"]["number"] == 1 && gone["compiled"]["bytes"].as_u64().unwrap() > 1000, "{gone}");
    assert_eq!(gc(&home, &["--keep-compiled", "0s"])["compiled"]["number"], 0);
    run(&home);
    assert_eq!(gc(&home, &["--keep-compiled", "0s"])["compiled"]["number"], 1);
}

#[test]
fn fresh_blobs_stay_while_somebody_works() {
    let home = home();
    run(&home);
    let worker = Daemon::start(&home, "busy", &[]);
    let refused = home.run(&["gc", "--keep-blobs", "59m"]).exits(2);
    assert!(
        refused.stderr.contains("too_soon") || refused.stderr.contains("could remove a blob that a running step"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("1h or more"), "{}", refused.stderr);
    gc(&home, &["--keep-blobs", "1h", "--keep-runs", "0s"]);
    worker.stop();
    let gone = gc(&home, &["--keep-blobs", "0s", "--keep-runs", "0s"]);
    assert_eq!(gone["blobs"]["artifacts"]["number"], 2);
}

#[test]
fn a_time_that_is_none_is_refused() {
    let refused = Home::new().run(&["gc", "--keep-runs", "soon"]).exits(2);
    assert!(refused.stderr.contains("soon") && refused.stderr.contains("30s"), "{}", refused.stderr);
}

/// Blobs that belong to other records, as if two machines with separate records named one bucket.
#[test]
fn blobs_of_other_records_are_neither_removed_nor_added_to() {
    let (ours, theirs) = (home(), home());
    run(&ours);
    run(&theirs);
    std::fs::remove_dir_all(ours.path("data/blobs")).unwrap();
    std::fs::rename(theirs.path("data/blobs"), ours.path("data/blobs")).unwrap();
    age(&ours.path("data/blobs"));
    let count = || std::fs::read_dir(ours.path("data/blobs/artifacts/sha256")).unwrap().count();
    let before = count();
    let file = ours.write("other.bin", "another letter");
    let input = format!("file=@{file}");
    for args in [&["gc"][..], &["gc", "--dry-run"], &["run", "copying", "--input", &input]] {
        let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        let out = ours.run(&args);
        assert_ne!(out.code, 0, "{args:?}");
        let error = &out.json()["error"];
        let text = error.to_string();
        assert!(text.contains("belong to other records than these") && text.contains("data/blobs"), "{args:?}: {text}");
        assert!(text.contains("name another prefix") && text.contains("--data"), "{args:?}: {text}");
        if args[0] == "gc" {
            assert_eq!(error["code"], "foreign_blobs");
        }
    }
    assert_eq!(count(), before);
    let checks = ours.run(&["doctor", "--output", "json"]).json();
    let told = checks["checks"].as_array().unwrap().iter().find(|check| check["what"] == "blobs").unwrap();
    assert!(told["ok"] == false && told["found"].as_str().unwrap().contains("other records"), "{told}");
}

/// A data folder without an owner of blobs, from an earlier version, is collected.
#[test]
fn an_old_data_folder_is_collected() {
    let home = home();
    run(&home);
    std::fs::remove_file(home.path("data/blobs/owner")).unwrap();
    age(&home.path("data/blobs"));
    assert_eq!(gc(&home, &["--keep-runs", "0s", "--dry-run"])["runs"], 1);
    assert!(!home.path("data/blobs/owner").try_exists().unwrap(), "to look is not to take");
    assert_eq!(gc(&home, &["--keep-runs", "0s"])["runs"], 1);
    assert!(home.path("data/blobs/owner").try_exists().unwrap());
}
