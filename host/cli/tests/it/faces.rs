//! The face pipeline with real models on real photographs: the documented contract, bad photographs, `demo`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dovetail_core::ledger::Kind;
use dovetail_core::record::{Form as _, RunRecord, StoredValue};
use serde_json::{Value, json};

use crate::support::{Home, Ran, command, plugin, root, valid};
use crate::workers::{Daemon, wait};

/// The unpacked model package.
fn package() -> PathBuf {
    let folder =
        std::env::var_os("DOVETAIL_FACE_API").map_or_else(|| root().join("target/face-api/package"), PathBuf::from);
    assert!(folder.join("model").is_dir(), "{} holds no models: run `./justw setup`", folder.display());
    folder
}

/// The wheel of ONNX Runtime.
pub(crate) fn wheel() -> PathBuf {
    let folder = root().join("target/onnxruntime");
    let files = std::fs::read_dir(&folder).into_iter().flatten().map(|file| file.unwrap().path());
    let wheel = files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheel.unwrap_or_else(|| panic!("{} has no wheel: run `./justw setup`", folder.display()))
}

pub(crate) fn photograph(n: u32) -> PathBuf {
    package().join(format!("demo/sample{n}.jpg"))
}

/// A data folder with models, the four plugins and the pipeline, set up once by ordinary commands.
pub(crate) fn data() -> &'static Path {
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    DATA.get_or_init(|| {
        let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-faces");
        if data.is_dir() {
            std::fs::remove_dir_all(&data).unwrap();
        }
        std::fs::create_dir_all(&data).unwrap();
        let plugins = ["face-detection", "face-attributes", "face-features", "face-report"]
            .map(|name| plugin(name).display().to_string());
        let set_up = |args: &[&str]| drop(Ran::of(&command(&data, &data, args).output().unwrap(), args).exits(0));
        let (package, wheel) = (package().display().to_string(), wheel().display().to_string());
        set_up(&["models", "pull", "--from", &package, "--engine", &wheel, "--photographs", "photographs"]);
        set_up(&["task", "push", &plugins[0], &plugins[1], &plugins[2], &plugins[3]]);
        set_up(&["pipeline", "push", &root().join("pipelines/face-processing.json").display().to_string()]);
        data
    })
}

fn run(args: &[&str]) -> Ran {
    Ran::of(&command(data(), data(), args).output().unwrap(), args)
}

fn faces(image: &Path, more: &[&str]) -> Ran {
    let image = format!("image=@{}", image.display());
    let args: Vec<&str> = ["run", "face-processing", "--output", "json", "--input", &image]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    run(&args)
}

#[test]
fn the_document_is_what_the_contract_says() {
    let document = faces(&photograph(1), &[]).exits(0).json();
    valid("run.schema.json", &document);
    assert_eq!(
        (&document["pipeline"], &document["inputs"]["detector"]),
        (&json!("face-processing@1.0.0"), &json!("ssd"))
    );
    assert_eq!(
        (&document["inputs"]["image"]["name"], &document["inputs"]["image"]["media_type"]),
        (&json!("sample1.jpg"), &json!("image/jpeg"))
    );
    let faces = document["output"]["faces"].as_array().unwrap();
    assert_eq!(faces.len(), 3);
    for (n, face) in faces.iter().enumerate() {
        assert_eq!(face["face_id"], n);
        assert_eq!(face["detection"]["bbox"].as_array().unwrap().len(), 4);
        assert_eq!(face["detection"]["source"], "output_001_faces_array");
        assert_eq!(face["attributes"]["source"], "output_002_faces_with_attributes");
        assert_eq!(face["features"]["source"], "output_003_faces_with_features");
        assert_eq!(
            (face["features"]["feature_vector"].as_array().unwrap().len(), &face["features"]["feature_dimension"]),
            (128, &json!(128))
        );
        assert_eq!(face["features"]["landmarks"].as_array().unwrap().len(), 68);
        assert!(
            face["attributes"]["age"]["estimated_age"].is_number()
                && face["attributes"]["gender"]["predicted_gender"].is_string()
        );
        assert_eq!(face["attributes"]["emotion"]["probabilities"].as_object().unwrap().len(), 7);
    }
    let summary = &document["processing_summary"];
    let lineage: Vec<&str> = summary["data_lineage"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for edge in [
        "face_detection -> output_001_faces_array",
        "output_001_faces_array -> input_002_faces_array",
        "output_001_faces_array -> input_003_faces_array",
    ] {
        assert!(lineage.contains(&edge), "{edge} is not among {lineage:?}");
    }
    let ids: Vec<&str> = summary["steps"].as_array().unwrap().iter().filter_map(|step| step["id"].as_str()).collect();
    assert_eq!(ids, ["face_detection_001", "face_attributes_002", "face_features_003", "face_report_004"]);
    assert_eq!(summary["steps"][0]["models"][0]["name"], "ssd_mobilenetv1");
    let id = document["run_id"].as_str().unwrap();
    assert_eq!(run(&["runs", "show", id, "--output", "json"]).exits(0).json(), document);
}

#[test]
fn the_detector_is_chosen_and_no_face_is_a_success() {
    let used = |document: &Value| document["processing_summary"]["steps"][0]["models"][0]["name"].clone();
    for (detector, model) in [("tiny", "tiny_face_detector"), ("haar", "haar")] {
        let document = faces(&photograph(3), &["--input", &format!("detector={detector}")]).exits(0).json();
        assert_eq!(used(&document), model);
    }
    let none = faces(&photograph(3), &["--input", "min_confidence=1"]).exits(0).json();
    assert_eq!(none["output"], json!({"faces": []}));
    let unknown = faces(&photograph(3), &["--input", "detector=best"]).exits(1).json();
    assert_eq!((&unknown["error"]["code"], &unknown["error"]["step"]), (&json!("unknown_model"), &json!("detect")));
}

#[test]
fn a_bad_photograph_is_a_recorded_failed_run() {
    let dir = tempfile::tempdir().unwrap();
    let good = std::fs::read(photograph(1)).unwrap();
    // A valid header of 60000 x 60000 pixels.
    let mut huge = b"BM".to_vec();
    huge.extend([0x36, 0, 0, 0, 0, 0, 0, 0, 0x36, 0, 0, 0, 40, 0, 0, 0]);
    huge.extend(60_000_u32.to_le_bytes());
    huge.extend(60_000_u32.to_le_bytes());
    huge.extend([1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let cases: [(&str, &[u8], &[&str]); 4] = [
        ("cut.jpg", &good[..good.len() / 2], &["undecodable"]),
        ("empty.jpg", b"", &["undecodable"]),
        ("text.jpg", b"this is a text, whatever its name says", &["unsupported_format", "undecodable"]),
        ("huge.bmp", &huge, &["too_large"]),
    ];
    for (name, bytes, codes) in cases {
        let file = dir.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let document = faces(&file, &[]).exits(1).json();
        valid("run.schema.json", &document);
        let error = &document["error"];
        assert!(codes.contains(&error["code"].as_str().unwrap()), "{name}: {error:#}");
        assert_eq!(
            (&document["state"], &error["step"], &document["inputs"]["image"]["name"]),
            (&json!("failed"), &json!("detect"), &json!(name))
        );
        let id = document["run_id"].as_str().unwrap();
        assert_eq!(run(&["runs", "show", id, "--output", "json"]).exits(0).json()["state"], "failed");
    }
    let missing = faces(&dir.path().join("missing.jpg"), &[]).exits(2).json();
    assert_eq!(missing["error"]["code"], "missing_file");
}

#[test]
fn a_photograph_without_its_end_marker_is_worked_on_and_the_run_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("no-end.jpg");
    let good = std::fs::read(photograph(1)).unwrap();
    std::fs::write(&file, &good[..good.len() - 2]).unwrap();
    let (document, whole) = (faces(&file, &[]).exits(0).json(), faces(&photograph(1), &[]).exits(0).json());
    valid("run.schema.json", &document);
    assert_eq!((&document["output"]["faces"], &whole["warnings"]), (&whole["output"]["faces"], &json!([])));
    let warning = "picture `no-end.jpg`: libjpeg warned: Premature end of JPEG file";
    let told: Vec<&str> = document["warnings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    // The warning comes once for each step that opened the photograph.
    let expected: Vec<String> = ["face_detection_001", "face_attributes_002", "face_features_003"]
        .iter()
        .map(|step| format!("{step}: {warning}"))
        .collect();
    assert_eq!(told, expected);
    let shown = run(&["runs", "show", document["run_id"].as_str().unwrap()]).exits(0);
    assert!(shown.stdout.contains(&format!("warning: face_detection_001: {warning}")), "{}", shown.stdout);
    let image = format!("image=@{}", file.display());
    let detection = plugin("face-detection").display().to_string();
    let alone = run(&["task", "run", &detection, "--input", &image]).exits(0);
    assert!(alone.stdout.contains(&format!("warning: {warning}")), "{}", alone.stdout);
    let alone = run(&["task", "run", &detection, "--input", &image, "--output", "json"]).exits(0).json();
    assert_eq!(alone["warnings"], json!([warning]));
}

#[test]
fn one_bad_file_among_good_ones_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(photograph(3), dir.path().join("a.jpg")).unwrap();
    std::fs::write(dir.path().join("b.jpg"), "no picture").unwrap();
    std::fs::copy(photograph(6), dir.path().join("c.jpg")).unwrap();
    let each = format!("image=@{}", dir.path().display());
    let all = run(&["run", "face-processing", "--each", &each, "--input", "detector=tiny", "--output", "json"])
        .exits(1)
        .json();
    let states: Vec<&str> = all["runs"].as_array().unwrap().iter().filter_map(|run| run["state"].as_str()).collect();
    assert_eq!(states, ["succeeded", "failed", "succeeded"]);
    assert_eq!((&all["summary"]["succeeded"], &all["summary"]["failed"]), (&json!(2), &json!(1)));
}

#[test]
fn the_demonstration_writes_results_and_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let photographs = dir.path().join("in");
    std::fs::create_dir(&photographs).unwrap();
    std::fs::copy(photograph(6), photographs.join("six.jpg")).unwrap();
    let out = dir.path().join("out");
    let text = run(&["demo", "--photographs", &photographs.display().to_string(), "--out", &out.display().to_string()])
        .exits(0)
        .stdout;
    assert!(text.starts_with("six.jpg: 4 faces in ") && text.contains("1 photograph, 4 faces in "), "{text}");
    let document: Value = serde_json::from_slice(&std::fs::read(out.join("six.json")).unwrap()).unwrap();
    valid("run.schema.json", &document);
    let (drawn, given) = (std::fs::read(out.join("six.jpg")).unwrap(), std::fs::read(photograph(6)).unwrap());
    assert!(drawn.starts_with(b"\xff\xd8\xff") && drawn != given);
}

#[test]
fn the_demonstration_replaces_no_file_that_it_did_not_make() {
    let dir = tempfile::tempdir().unwrap();
    let (photographs, out) = (dir.path().join("in"), dir.path().join("out"));
    std::fs::create_dir(&photographs).unwrap();
    let original = std::fs::read(photograph(6)).unwrap();
    // Two photographs of one stem, and one whose stem is the whole name of another.
    for name in ["a.jpg", "a.png", "a.jpg.bmp"] {
        std::fs::write(photographs.join(name), &original).unwrap();
    }
    let demo = |out: &Path, more: &[&str]| {
        let (photographs, out) = (photographs.display().to_string(), out.display().to_string());
        let args = ["demo", "--photographs", &photographs, "--out", &out, "--output", "json"];
        run(&[&args[..], more].concat())
    };
    let names = |folder: &Path| {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for more in [&[][..], &["--force"]] {
        let error = demo(&photographs, more).exits(2).json();
        assert_eq!(error["error"]["code"], "same_folder", "{error:#}");
    }
    assert_eq!(names(&photographs), ["a.jpg", "a.jpg.bmp", "a.png"]);
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("a.png.json"), "mine").unwrap();
    let error = demo(&out, &[]).exits(2).json();
    valid("error.schema.json", &error);
    assert_eq!(error["error"]["code"], "would_replace", "{error:#}");
    assert!(error["error"]["message"].as_str().unwrap().contains("out/a.png.json`"), "{error:#}");
    assert_eq!(names(&out), ["a.png.json"], "nothing was written");
    demo(&out, &["--force"]).exits(0);
    let results =
        [".dovetail-demo", "a.jpg.bmp.jpg", "a.jpg.bmp.json", "a.jpg.jpg", "a.jpg.json", "a.png.jpg", "a.png.json"];
    assert_eq!(names(&out), results);
    for name in ["a.jpg", "a.png", "a.jpg.bmp"] {
        let document: Value =
            serde_json::from_slice(&std::fs::read(out.join(format!("{name}.json"))).unwrap()).unwrap();
        assert_eq!(document["inputs"]["image"]["name"], name);
        assert_eq!(std::fs::read(photographs.join(name)).unwrap(), original);
    }
    // The same command again replaces its own results.
    demo(&out, &[]).exits(0);
    assert_eq!(names(&out), results);
    // A link would lead the result to another file of the user.
    std::fs::write(dir.path().join("mine"), "mine").unwrap();
    std::fs::remove_file(out.join("a.jpg.json")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("mine"), out.join("a.jpg.json")).unwrap();
    assert_eq!(demo(&out, &["--force"]).exits(2).json()["error"]["code"], "not_a_file");
    assert_eq!(std::fs::read_to_string(dir.path().join("mine")).unwrap(), "mine");
}

#[test]
fn photographs_are_not_copied_over_other_files() {
    let home = Home::new();
    let from = package().display().to_string();
    let own = home.write("own/sample1.jpg", "my own picture");
    let pull = ["models", "pull", "--from", &from, "--photographs", "own", "--output", "json"];
    let error = home.run(&pull).exits(2).json();
    assert_eq!(error["error"]["code"], "would_replace", "{error:#}");
    assert_eq!(std::fs::read_to_string(&own).unwrap(), "my own picture");
    assert_eq!(std::fs::read_dir(home.path("own")).unwrap().count(), 1, "no other photograph was copied");
    assert_eq!(home.run(&["models", "list", "--output", "json"]).json(), json!([]), "nothing was installed");
    home.run(&[&pull[..], &["--force"]].concat()).exits(0);
    assert_eq!(std::fs::read(&own).unwrap(), std::fs::read(photograph(1)).unwrap());
    // Existing copies are no obstacle.
    assert_eq!(home.run(&pull).exits(0).json()["photographs"].as_array().unwrap().len(), 6);
}

#[test]
fn doctor_is_content_and_examples_run() {
    let report = run(&["doctor", "--output", "json"]).exits(0).json();
    assert_eq!(report["ok"], true, "{report:#}");
    assert_eq!(run(&["models", "list", "--output", "json"]).json().as_array().unwrap().len(), 7);
    // An example names its picture relative to itself.
    let dir = tempfile::tempdir().unwrap();
    let example = dir.path().join("ssd.json");
    std::fs::copy(plugin("face-detection").join("examples/ssd.json"), &example).unwrap();
    std::fs::copy(photograph(1), dir.path().join("sample1.jpg")).unwrap();
    let ran =
        run(&["task", "run", "face-detection", "--input", &format!("@{}", example.display()), "--output", "json"])
            .exits(0)
            .json();
    assert_eq!(
        (ran["output"]["faces_array"].as_array().unwrap().len(), &ran["models"][0]["name"]),
        (3, &json!("ssd_mobilenetv1"))
    );
    assert_eq!(ran["usage"]["host_calls"]["dovetail:vision/faces.detector.detect"], 1);
}

#[test]
fn a_model_of_ones_own_is_used_by_its_name() {
    let home = Home::new();
    // The manifest in the documentation.
    let page = std::fs::read_to_string(root().join("docs/models.md")).unwrap();
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    home.write("model.toml", example);
    let cascade = format!("{}/haarcascade_frontalface_alt2.xml", dovetail_vision::HAAR_FOLDER);
    let add = ["models", "add", &cascade, "--manifest", "model.toml"];
    assert!(home.run(&add).exits(0).stdout.starts_with("installed frontal_alt2  sha256:"));
    let (image, task) = (format!("image=@{}", photograph(6).display()), plugin("face-detection").display().to_string());
    let ran = home
        .run(&["task", "run", &task, "--input", &image, "--input", "detector=alt2", "--output", "json"])
        .exits(0)
        .json();
    assert_eq!(ran["models"][0]["name"], "frontal_alt2");
    assert!(!ran["output"]["faces_array"].as_array().unwrap().is_empty(), "{ran:#}");
    // A model that does not fit its manifest is refused with a remedy, and nothing is installed.
    home.write("other.toml", example.replace("alt2", "alt3").replace("cascade", "boxes"));
    let refused = home.run(&["models", "add", &cascade, "--manifest", "other.toml"]).exits(2).stderr;
    assert!(refused.contains("`[input]`") && refused.contains("help: docs/models.md"), "{refused}");
    home.write("third.toml", example.replace("alt2", "alt3"));
    let refused = home.run(&["models", "add", "model.toml", "--manifest", "third.toml"]).exits(2).stderr;
    assert!(
        refused.contains("cannot be used as model `frontal_alt3`")
            && refused.contains("help: use a network or a cascade"),
        "{refused}"
    );
    assert_eq!(home.run(&["models", "list", "--output", "json"]).exits(0).json().as_array().unwrap().len(), 1);
}

/// A damaged or missing file of the host is no fault of the attempt: no attempt is charged, and interrupted runs
/// can be resumed.
#[test]
fn a_damaged_model_is_the_hosts_fault_and_is_named_and_repaired() {
    let home = Home::new();
    home.run(&["task", "push", &plugin("face-detection").display().to_string()]).exits(0);
    let inputs = json!({ "image": "input.image", "detector": "input.detector" });
    let steps = json!({ "detect": { "number": 1, "task": "face-detection@^1", "inputs": inputs } });
    let inputs = json!({ "image": {}, "detector": {"default": "alt2"} });
    let output = json!({ "faces": "detect.faces_array" });
    let pipeline = json!({ "name": "it", "version": "1.0.0", "inputs": inputs, "steps": steps, "output": output });
    home.pipeline("it", &pipeline);
    let page = std::fs::read_to_string(root().join("docs/models.md")).unwrap();
    home.write("model.toml", page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap());
    let cascade = format!("{}/haarcascade_frontalface_alt2.xml", dovetail_vision::HAAR_FOLDER);
    let added = |(installed, repaired): (bool, bool)| {
        let model =
            home.run(&["models", "add", &cascade, "--manifest", "model.toml", "--output", "json"]).exits(0).json();
        assert_eq!((&model["installed"], &model["repaired"]), (&json!(installed), &json!(repaired)), "{model:#}");
    };
    added((true, false));
    added((false, false));
    let image = format!("image=@{}", photograph(6).display());
    let run = ["run", "it", "--input", &image, "--output", "json"];
    let attempts = |run: &str| {
        let document = home.run(&["runs", "show", run, "--output", "json"]).exits(0).json();
        let step = document["processing_summary"]["steps"][0].clone();
        (document["state"].as_str().unwrap().to_owned(), step["attempts"].as_array().unwrap().len())
    };
    // A guest that asks for an unknown model still fails by its own fault.
    let unknown = home.run(&[&run[..], &["--input", "detector=none"]].concat()).exits(1).json();
    assert_eq!((&unknown["error"]["code"], &unknown["error"]["attempt"]), (&json!("unknown_model"), &json!(1)));
    let [file] = &std::fs::read_dir(home.path("data/models/files"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect::<Vec<_>>()[..]
    else {
        panic!("one file")
    };
    let whole = std::fs::read(file).unwrap();
    for gone in [false, true] {
        if gone {
            std::fs::remove_file(file).unwrap();
        } else {
            let mut damaged = whole.clone();
            damaged[whole.len() / 2] ^= 1;
            std::fs::write(file, damaged).unwrap();
        }
        let path = file.display().to_string();
        let checks = home.run(&["doctor", "--output", "json"]).exits(1).json()["checks"].clone();
        let line = checks.as_array().unwrap().iter().find(|check| check["what"] == "models").unwrap();
        assert!(line["found"].as_str().unwrap().contains(&format!("frontal_alt2 ({path})")), "{line:#}");
        assert!(line["remedy"].as_str().unwrap().contains("models add"), "{line:#}");
        let error = home.run(&run).exits(3).json()["error"].clone();
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("frontal_alt2") && message.contains(&path) && message.contains("models pull"),
            "{error:#}"
        );
        let newest = home.run(&["runs", "list", "--output", "json"]).json()[0]["run_id"].as_str().unwrap().to_owned();
        assert_eq!(attempts(&newest), ("queued".to_owned(), 0), "nothing is charged");
        // A worker gives such a step back until the model is repaired.
        let worker = Daemon::start(&home, "one", &[]);
        wait("the step is put back", || {
            std::fs::read_to_string(home.path("one.log")).unwrap().matches("a step could not be run").count()
                > usize::from(gone)
        });
        assert_eq!(attempts(&newest).1, 0);
        added((false, true));
        added((false, false));
        assert_eq!(std::fs::read(file).unwrap(), whole);
        assert_eq!(home.run(&["runs", "watch", &newest, "--output", "json"]).exits(0).json()["state"], "succeeded");
        assert_eq!(attempts(&newest), ("succeeded".to_owned(), 1));
        assert_eq!(worker.stop(), Some(0));
    }
}

#[test]
fn models_that_were_damaged_are_pulled_again() {
    let home = Home::new();
    let (from, wheel) = (package().display().to_string(), wheel().display().to_string());
    let pull = || home.run(&["models", "pull", "--from", &from, "--engine", &wheel]).exits(0).stdout;
    let first = pull();
    assert_eq!(first.matches(" installed ").count(), 7, "{first}");
    let files = std::fs::read_dir(home.path("data/models/files")).unwrap().map(|entry| entry.unwrap().path());
    let largest = files.max_by_key(|file| std::fs::metadata(file).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4].fill(0xa5);
    std::fs::write(&largest, &bytes).unwrap();
    let again = pull();
    assert_eq!((again.matches(" repaired ").count(), again.matches(" already installed  ").count()), (1, 6), "{again}");
    let nothing = home.run(&["models", "pull"]).exits(0).stdout;
    let engine = "\nengine onnxruntime 1.28.0 already installed: ";
    assert!(nothing.starts_with("all 7 models are installed already") && nothing.contains(engine), "{nothing}");
}

#[test]
fn a_step_waits_for_a_worker_with_a_model_of_the_kind_that_its_task_opens() {
    let home = Home::new();
    let plugin = plugin("face-detection").display().to_string();
    let checked = home.run(&["task", "check", &plugin, "--output", "json"]).exits(0).json();
    assert_eq!(checked["model_kinds"], json!(["detector"]), "{checked:#}");
    home.run(&["task", "push", &plugin]).exits(0);
    let inputs = json!({ "image": "input.image", "detector": {"value": "alt2"} });
    let steps = json!({ "detect": { "number": 1, "task": "face-detection@^1", "inputs": inputs } });
    home.pipeline(
        "it",
        &json!({ "name": "it", "version": "1.0.0", "inputs": { "image": {} }, "steps": steps,
            "output": { "faces": "detect.faces_array" } }),
    );
    let shown = home.run(&["pipeline", "show", "it", "--capabilities", "--output", "json"]).exits(0).json();
    assert_eq!((&shown["grants"], &shown["steps"][0]["model_kinds"]), (&json!([]), &json!(["detector"])));
    let image = format!("image=@{}", photograph(6).display());
    // A command that waits for the run names the reason at once.
    let failed = home.run(&["run", "it", "--input", &image, "--output", "json"]).exits(1).json();
    assert_eq!(failed["error"]["code"], "models_missing", "{failed:#}");
    let _worker = Daemon::start(&home, "worker", &[]);
    let submitted = home.run(&["run", "it", "--input", &image, "--detach", "--output", "json"]).exits(0).json();
    let run = submitted["run_id"].as_str().unwrap();
    let show = || home.run(&["runs", "show", run, "--output", "json"]).exits(0).json();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let document = show();
    assert_eq!(
        (&document["state"], &document["processing_summary"]["steps"][0]["waits_for"]),
        (&json!("queued"), &json!(["model_kind:detector"]))
    );
    assert!(
        document["warnings"][0].as_str().unwrap().contains("no living worker has a model of the kind detector"),
        "{document:#}"
    );
    valid("run.schema.json", &document);
    // The run goes on as soon as such a model is installed.
    let page = std::fs::read_to_string(root().join("docs/models.md")).unwrap();
    home.write("model.toml", page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap());
    let cascade = format!("{}/haarcascade_frontalface_alt2.xml", dovetail_vision::HAAR_FOLDER);
    home.run(&["models", "add", &cascade, "--manifest", "model.toml"]).exits(0);
    wait("the run ends", || show()["state"] == "succeeded");
}

#[test]
fn a_run_keeps_the_model_that_was_chosen_when_it_was_submitted() {
    let home = Home::new();
    home.run(&["task", "push", &plugin("face-detection").display().to_string()]).exits(0);
    let steps = json!({ "detect": { "number": 1, "task": "face-detection@^1", "inputs": { "image": "input.image" } } });
    home.pipeline(
        "it",
        &json!({ "name": "it", "version": "1.0.0", "inputs": { "image": {} }, "steps": steps,
            "output": { "faces": "detect.faces_array" } }),
    );
    let page = std::fs::read_to_string(root().join("docs/models.md")).unwrap();
    let manifest = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let cascade = format!("{}/haarcascade_frontalface_alt2.xml", dovetail_vision::HAAR_FOLDER);
    let add = |manifest: String| {
        home.write("model.toml", manifest);
        let add = ["models", "add", &cascade, "--manifest", "model.toml", "--output", "json"];
        home.run(&add).exits(0).json()["digest"].as_str().unwrap().to_owned()
    };
    let (image, old) = (format!("image=@{}", photograph(6).display()), add(manifest.to_owned()));
    let used = |document: &Value| document["processing_summary"]["steps"][0]["models"][0]["name"].clone();
    let first = home.run(&["run", "it", "--input", &image, "--output", "json"]).exits(0).json();
    assert_eq!(used(&first), "frontal_alt2");
    let clock = Arc::new(dovetail_flow::SystemClock);
    let data = home.path("data");
    let ledger = Arc::new(dovetail_stores::SqliteLedger::open(&data, clock.clone()).unwrap());
    let ports = dovetail_flow::Ports { ledger, blobs: Arc::new(dovetail_stores::FileBlobs::new(&data)), clock };
    let record = ports.ledger.get(Kind::Run, &[first["run_id"].as_str().unwrap().to_owned()]).unwrap().remove(0);
    let record = RunRecord::decode(&record.unwrap(), "it").unwrap();
    let StoredValue::Inline(inputs) = record.inputs else { panic!("a picture is an artifact") };
    let chosen: Vec<_> =
        record.models.by_kind.iter().map(|(kind, one)| (kind.as_str(), one.digest.to_string())).collect();
    assert_eq!(chosen, [("detector", old)], "`run` has chosen, and recorded it");
    // Submit another run, then install a model that comes first by name before the run is executed.
    let published = dovetail_flow::pipeline(&ports, "it").unwrap();
    let run = dovetail_flow::new_run_id();
    let again = vec![(run.clone(), inputs.clone())];
    dovetail_flow::submit_with(&ports, &published, &record.models, again).unwrap().remove(0).unwrap();
    add(manifest.replace("alt2", "aaa"));
    let resumed = home.run(&["runs", "resume", run.as_str(), "--output", "json"]).exits(0).json();
    assert_eq!(used(&resumed), "frontal_alt2", "{resumed:#}");
    let new = home.run(&["run", "it", "--input", &image, "--output", "json"]).exits(0).json();
    assert_eq!(used(&new), "frontal_aaa", "{new:#}");
    // If the chosen model is removed, no other model replaces it, and the run stays open.
    let run = dovetail_flow::new_run_id();
    let again = vec![(run.clone(), inputs)];
    dovetail_flow::submit_with(&ports, &published, &record.models, again).unwrap().remove(0).unwrap();
    std::fs::remove_file(home.path("data/models/frontal_alt2.toml")).unwrap();
    let refused = home.run(&["runs", "resume", run.as_str()]).exits(3).stderr;
    assert!(refused.contains("`frontal_alt2`") && refused.contains("chosen for this run"), "{refused}");
    let shown = home.run(&["runs", "show", run.as_str(), "--output", "json"]).exits(0).json();
    assert_eq!((&shown["state"], &shown["error"]), (&json!("queued"), &Value::Null), "{shown:#}");
}

#[test]
fn the_pipeline_is_measured_against_the_library_alone() {
    let figures = ["worker_vision_mb", "pipeline_native_cpu_ratio", "pipeline_native_wall_ratio"];
    let only: Vec<&str> = figures.iter().flat_map(|name| ["--only", name]).collect();
    let named = |folder: &str| {
        run(&[&["bench", "--quick", "--rounds", "1", "--output", "json", "--photographs", folder][..], &only].concat())
    };
    let document = named("photographs").exits(0).json();
    valid("bench.schema.json", &document);
    let measured = document["figures"].as_array().unwrap();
    assert_eq!(measured.iter().map(|figure| figure["name"].as_str().unwrap()).collect::<Vec<_>>(), figures);
    // The bound leaves room for other load: networks of 70 MB are loaded, and the pipeline does all that the library
    // does.
    let value = |n: usize| measured[n]["value"].as_f64().unwrap();
    assert!(value(0) > 70.0 && value(1) > 0.5 && value(2) > 0.2, "{measured:?}");
    assert_eq!(document["not_measured"], json!([]));
    assert_eq!(named("files").exits(2).json()["error"]["code"], "missing_file");
    std::fs::create_dir_all(data().join("no-photographs")).unwrap();
    assert_eq!(named("no-photographs").exits(2).json()["error"]["code"], "no_photographs");
}

#[test]
fn photographs_are_taken_from_runs_where_none_are_named() {
    faces(&photograph(2), &["--input", "detector=tiny"]).exits(0);
    let document =
        run(&["bench", "--quick", "--rounds", "1", "--output", "json", "--only", "pipeline_native_wall_ratio"])
            .exits(0)
            .json();
    assert_eq!(document["figures"][0]["name"], "pipeline_native_wall_ratio");
}
