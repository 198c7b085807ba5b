//! `bench`: measurement and output. The tests check no speed.

use serde_json::Value;

use crate::support::{Home, valid};

fn names(document: &Value) -> Vec<&str> {
    document["figures"].as_array().unwrap().iter().map(|figure| figure["name"].as_str().unwrap()).collect()
}

#[test]
fn every_figure_of_one_machine_is_measured() {
    let home = Home::new();
    let temporary = home.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let args = ["bench", "--quick", "--rounds", "1", "--size", "40", "--output", "json"];
    // Neither `bench` nor the processes that it starts use the settings of a fleet.
    let mut command = home.command(&args);
    command.env("TMPDIR", &temporary).env("DOVETAIL_WORKER_JOBS", "3");
    let ran = crate::support::Ran::of(&command.output().unwrap(), &args).exits(0);
    let document = ran.json();
    valid("bench.schema.json", &document);
    let all = [
        "call_overhead_us",
        "call_overhead_no_std_us",
        "embedded_steps_per_s",
        "embedded_one_step_per_s",
        "embedded_fork_join_per_s",
        "cli_noop_ms",
        "submit_to_result_p50_ms",
        "worker_idle_mb",
    ];
    assert_eq!(names(&document), all);
    for figure in document["figures"].as_array().unwrap() {
        let [low, value, high] = ["low", "value", "high"].map(|key| figure[key].as_f64().unwrap());
        assert!(0.0 < low && low <= value && value <= high, "{figure}");
    }
    assert_eq!((&document["machine"]["queue"], &document["machine"]["jobs"]), (&"sqlite:".into(), &3.into()));
    // A new data folder has no face pipeline: its figures are named, with a remedy.
    let missing = document["not_measured"].as_array().unwrap();
    assert_eq!(missing.iter().map(|missing| missing["name"].as_str().unwrap()).collect::<Vec<_>>(), OF_FACES);
    assert!(missing.iter().all(|missing| missing["help"].as_str().unwrap().contains("--data")), "{missing:?}");
    // Nothing is left behind, neither in the folder of the measurement nor in the user's data folder.
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    assert!(!home.path("data").is_dir());
}

/// The figures of the face pipeline.
const OF_FACES: [&str; 3] = ["worker_vision_mb", "pipeline_native_cpu_ratio", "pipeline_native_wall_ratio"];

#[test]
fn growth_is_measured() {
    let home = Home::new();
    let document = home.run(&["bench", "--growth", "--quick", "--rounds", "1", "--output", "json"]).exits(0).json();
    valid("bench.schema.json", &document);
    let value = |name: &str| {
        document["figures"].as_array().unwrap().iter().find(|figure| figure["name"] == name).unwrap()["value"]
            .as_f64()
            .unwrap()
    };
    assert_eq!(names(&document).len(), 13, "all but those of faces");
    // Carrying four megabytes takes time, so that both values were really transferred.
    assert!(value("value_4mb_ms") > value("value_1kb_ms"), "{document}");
    assert_eq!(document["not_measured"].as_array().unwrap().len(), 4);
}

#[test]
fn one_figure_is_measured_and_shown_to_people() {
    let home = Home::new();
    let ran = home.run(&["bench", "--quick", "--rounds", "1", "--only", "call_overhead_us"]).exits(0);
    assert!(ran.stdout.contains("\ncall_overhead_us ") && ran.stdout.contains("cores: "), "{}", ran.stdout);
    assert!(!ran.stdout.contains("cli_noop_ms"), "{}", ran.stdout);
}

#[test]
fn what_cannot_be_measured_is_told_before_anything_is() {
    let home = Home::new();
    let code = |args: &[&str]| {
        let args: Vec<&str> = ["bench", "--output", "json"].iter().chain(args).copied().collect();
        let error = home.run(&args).exits(2).json();
        valid("error.schema.json", &error);
        error["error"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(&["--only", "call_overhead"]), "unknown_figure");
    assert_eq!(code(&["--only", "noop_steps_per_s"]), "unknown_figure");
    assert_eq!(code(&["--only", "worker_vision_mb"]), "no_face_pipeline");
    assert_eq!(code(&["--servers"]), "no_servers");
    assert_eq!(code(&["--workers", "2"]), "usage");
    assert_eq!(code(&["--servers", "--growth"]), "usage");
}
