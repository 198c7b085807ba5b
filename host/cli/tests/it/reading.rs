//! Commands that only read. Without a data folder they find nothing, and make no folder.

use serde_json::json;

use crate::support::{Home, plugin, root};

#[test]
fn a_data_folder_is_made_by_what_writes() {
    let home = Home::new();
    let folder = plugin("add").display().to_string();
    let pipeline = root().join("pipelines/face-processing.json").display().to_string();
    for list in [&["runs", "list"][..], &["task", "list"], &["pipeline", "list"], &["models", "list"]] {
        let json: Vec<&str> = list.iter().copied().chain(["--output", "json"]).collect();
        assert_eq!(home.run(&json).exits(0).json(), json!([]), "{list:?}");
        assert!(home.run(list).exits(0).stdout.starts_with("no "), "{list:?}");
    }
    let cases: &[(&[&str], &str)] = &[
        (&["runs", "show", "0000"], "unknown_run"),
        (&["runs", "lineage", "0000"], "unknown_run"),
        (&["runs", "logs", "0000"], "unknown_run"),
        (&["runs", "resume", "0000"], "unknown_run"),
        (&["task", "show", "add"], "unknown_task"),
        (&["task", "run", "add"], "unknown_task"),
        (&["pipeline", "show", "face-processing"], "unknown_pipeline"),
        (&["pipeline", "graph", "face-processing"], "unknown_pipeline"),
        (&["pipeline", "update", "face-processing"], "unknown_pipeline"),
        (&["run", "face-processing"], "unknown_pipeline"),
        (&["run", &pipeline], "bad_pipeline"),
        (&["models", "pull", "--from", "nowhere.tgz"], "missing_file"),
        (&["models", "add", "none.onnx", "--manifest", "none.toml"], "missing_file"),
    ];
    for (args, code) in cases {
        let json: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        assert_eq!(home.run(&json).exits(2).json()["error"]["code"], *code, "{args:?}");
    }
    home.run(&["runs", "resume", "--all"]).exits(0);
    home.run(&["pipeline", "check", &pipeline]).exits(1);
    home.run(&["task", "check", &folder]).exits(0);
    home.run(&["task", "pack", &folder, "-o", "add.zip"]).exits(0);
    home.run(&["task", "run", &folder, "--input", "a=1", "--input", "b=2"]).exits(0);
    assert!(!home.path("data").try_exists().unwrap(), "none of them makes the data folder");
    // A folder with other files is not made a data folder either.
    home.write("data/letter.txt", "not yours");
    home.run(&["runs", "list"]).exits(0);
    home.run(&["models", "list"]).exits(0);
    assert_eq!(std::fs::read_dir(home.path("data")).unwrap().count(), 1);
    home.run(&["task", "push", "add.zip"]).exits(0);
    assert!(home.path("data/dovetail.db").is_file());
    assert_eq!(home.run(&["task", "list", "--output", "json"]).exits(0).json()[0]["name"], "add");
}

#[test]
fn doctor_says_that_the_data_folder_can_be_made() {
    let home = Home::new();
    let found = |what: &str| {
        let report = home.run(&["doctor", "--output", "json"]).json();
        report["checks"].as_array().unwrap().iter().find(|check| check["what"] == what).unwrap().clone()
    };
    let folder = found("data folder");
    assert_eq!(folder["ok"], true, "{folder:#}");
    assert!(folder["found"].as_str().unwrap().ends_with("data does not exist yet, and can be made"), "{folder:#}");
    assert_eq!((&found("database")["ok"], &found("database")["found"]), (&json!(true), &json!("none yet")));
    assert!(!home.path("data").try_exists().unwrap());
    home.push(&["add"]);
    assert!(found("data folder")["found"].as_str().unwrap().ends_with("data is writable"));
    assert_eq!(found("database")["found"], "opens, no open runs");
}
