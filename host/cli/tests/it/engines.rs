//! The engine of the networks as a user meets it: installing the library, `doctor`, the records, and a library that
//! cannot be used.

use std::path::Path;

use serde_json::{Value, json};

use crate::faces::{data, photograph, wheel};
use crate::support::{Home, Ran, command, root, valid};
use crate::workers::{Daemon, wait};

/// Runs the face pipeline on a photograph in the shared data folder, with these variables.
fn faces(photograph: &Path, variables: &[(&str, &str)], more: &[&str]) -> Ran {
    let image = format!("image=@{}", photograph.display());
    let args = [&["run", "face-processing", "--output", "json", "--input", &image], more].concat();
    let ran = command(data(), data(), &args).envs(variables.iter().copied()).output().unwrap();
    Ran::of(&ran, &args)
}

/// The engine of each model of the run, by the model's name.
fn engines(document: &Value) -> Vec<(String, String, String)> {
    let steps = document["processing_summary"]["steps"].as_array().unwrap();
    let attempts = steps.iter().flat_map(|step| step["attempts"].as_array().unwrap());
    let models = attempts.flat_map(|attempt| attempt["models"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    models.map(|m| (text(&m["name"]), text(&m["engine"]["name"]), text(&m["engine"]["version"]))).collect()
}

#[test]
fn every_attempt_records_its_engine_and_both_engines_agree() {
    let fast = faces(&photograph(2), &[], &[]).exits(0).json();
    let slow = faces(&photograph(2), &[("DOVETAIL_VISION_ENGINE", "opencv")], &[]).exits(0).json();
    for (document, name, version) in [(&fast, "onnxruntime", "1.28.0"), (&slow, "opencv", "4.")] {
        valid("run.schema.json", document);
        let engines = engines(document);
        assert_eq!(engines.len(), 6, "{engines:?}");
        for (model, engine, of) in &engines {
            assert!(engine == name && of.starts_with(version), "{model}: {engine} {of}");
        }
        let lineage = ["runs", "lineage", document["run_id"].as_str().unwrap(), "--output", "json"];
        let lineage = Ran::of(&command(data(), data(), &lineage).output().unwrap(), &lineage).exits(0).json();
        assert_eq!(lineage["steps"][0]["models"][0]["engine"]["name"], json!(name), "{lineage:#}");
    }
    let vectors = |document: &Value| -> Vec<f64> {
        let faces = document["output"]["faces"].as_array().unwrap();
        let all = faces.iter().flat_map(|face| face["features"]["feature_vector"].as_array().unwrap());
        all.map(|number| number.as_f64().unwrap()).collect()
    };
    let (fast, slow) = (vectors(&fast), vectors(&slow));
    assert_eq!(fast.len(), slow.len());
    assert!(fast.iter().zip(&slow).all(|(a, b)| (a - b).abs() < 1e-4), "the engines differ by rounding only");
    assert!(fast != slow, "two engines ran");
}

#[test]
fn the_library_is_installed_from_a_file_checked_and_named_by_doctor() {
    let home = Home::new();
    let package = root().join("target/face-api/package").display().to_string();
    let pull = |more: &[&str]| home.run(&[&["models", "pull", "--from", &package, "--output", "json"], more].concat());
    // Without a network and without the file, the networks run in OpenCV, and the command says how to change that.
    let without = pull(&[]).exits(0);
    assert_eq!(without.json()["engine"], Value::Null);
    assert!(without.stderr.contains("--engine WHEEL") && without.stderr.contains("sha256"), "{}", without.stderr);
    let doctor = || {
        let document = home.run(&["doctor", "--output", "json"]).json();
        let checks = document["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["what"] == "engine").expect("doctor checks the engine")
    };
    assert!(doctor()["found"].as_str().unwrap().starts_with("opencv 4."), "{}", doctor());
    // Another file is refused.
    let other = home.write("other.whl", b"PK\x03\x04 not a wheel");
    let refused = pull(&["--engine", &other]).exits(2).json();
    assert_eq!(refused["error"]["code"], json!("bad_engine"), "{refused:#}");
    assert!(!home.path("data/engines").is_dir());

    let wheel = wheel().display().to_string();
    for installed in [true, false] {
        let document = pull(&["--engine", &wheel]).exits(0).json();
        valid("pulled-models.schema.json", &document);
        assert_eq!(document["engine"]["installed"], json!(installed), "{document:#}");
    }
    let library = home.path("data/engines/libonnxruntime.so.1.28.0");
    assert!(home.path("data/engines/LICENSE").is_file() && home.path("data/engines/ThirdPartyNotices.txt").is_file());
    let found = doctor()["found"].as_str().unwrap().to_owned();
    assert!(found.starts_with("onnxruntime 1.28.0, ") && found.contains("sha256:"), "{found}");

    // A damaged library: OpenCV and a warning in `auto`, an error where it is asked for, and `pull` repairs it.
    std::fs::write(&library, b"damaged").unwrap();
    let check = doctor();
    assert_eq!((&check["ok"], &check["warning"]), (&json!(true), &json!(true)), "{check:#}");
    let asked = home.command(&["doctor", "--output", "json"]).env("DOVETAIL_VISION_ENGINE", "onnxruntime").output();
    let asked = Ran::of(&asked.unwrap(), &["doctor"]).json();
    let checks = asked["checks"].as_array().unwrap();
    let engine = checks.iter().find(|check| check["what"] == "engine").unwrap();
    assert!(engine["ok"] == json!(false) && engine["found"].as_str().unwrap().contains("damaged"), "{engine:#}");
    assert_eq!(pull(&["--engine", &wheel]).exits(0).json()["engine"]["installed"], json!(true));
    assert!(doctor()["found"].as_str().unwrap().starts_with("onnxruntime 1.28.0"), "{}", doctor());
}

#[test]
fn an_engine_that_is_asked_for_and_cannot_be_used_is_the_hosts_fault() {
    let home = Home::new();
    let broken = home.write("broken.so", b"not a library");
    let key = ["--key", "engine-asked-for"];
    let ran = faces(&photograph(6), &[("DOVETAIL_VISION_ONNXRUNTIME", &broken)], &key).exits(3);
    assert!(ran.stderr.contains("not a shared library") && ran.stderr.contains("vision.onnxruntime"), "{}", ran.stderr);
    // With a good library the same run goes on.
    let resumed = faces(&photograph(6), &[], &key).exits(0).json();
    assert_eq!(engines(&resumed).len(), 6, "{resumed:#}");
    for step in resumed["processing_summary"]["steps"].as_array().unwrap() {
        assert_eq!(step["attempts"].as_array().unwrap().len(), 1, "no attempt was charged: {step:#}");
    }
}

#[test]
fn a_run_that_requires_an_engine_waits_for_a_worker_with_it() {
    let home = Home::new();
    let (from, wheel) = (root().join("target/face-api/package").display().to_string(), wheel().display().to_string());
    home.run(&["models", "pull", "--from", &from, "--engine", &wheel]).exits(0);
    home.run(&["task", "push", &root().join("plugins/face-detection").display().to_string()]).exits(0);
    let steps = json!({ "detect": { "number": 1, "task": "face-detection@^1", "inputs": { "image": "input.image" } } });
    home.pipeline(
        "it",
        &json!({ "name": "it", "version": "1.0.0", "inputs": { "image": {} }, "steps": steps,
            "output": { "faces": "detect.faces_array" } }),
    );
    let image = format!("image=@{}", photograph(6).display());
    let requiring = |more: &[&str]| {
        let args = [&["run", "it", "--input", &image, "--output", "json"], more].concat();
        let ran = home.command(&args).env("DOVETAIL_VISION_REQUIRED_ENGINE", "opencv").output().unwrap();
        Ran::of(&ran, &args)
    };
    let refused = |error: &Value| {
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("requires the engine opencv") && message.contains("onnxruntime 1.28.0"), "{error:#}");
    };
    // A program that runs its own runs does not have the engine, and says so before it records anything.
    refused(&requiring(&[]).exits(3).json()["error"]);
    assert_eq!(home.run(&["runs", "list", "--output", "json"]).exits(0).json(), json!([]));

    let other = Daemon::start(&home, "other", &[]);
    let run = requiring(&["--key", "k", "--detach"]).exits(0).json()["run_id"].as_str().unwrap().to_owned();
    let show = || home.run(&["runs", "show", &run, "--output", "json"]).exits(0).json();
    wait("the run says what it waits for", || show()["warnings"].to_string().contains("the engine opencv"));
    // A program that resumes the run itself asks for no capability. The result of the other engine is refused.
    refused(&home.run(&["runs", "resume", &run, "--output", "json"]).exits(3).json()["error"]);
    home.write("dovetail.toml", "[vision]\nengine = \"opencv\"\n");
    let _worker = Daemon::start(&home, "same", &[]);
    let document = home.run(&["runs", "watch", &run, "--output", "json"]).exits(0).json();
    assert_eq!(engines(&document).len(), 1, "{document:#}");
    assert!(engines(&document).iter().all(|(_, engine, _)| engine == "opencv"), "{document:#}");
    let attempts = document["processing_summary"]["steps"][0]["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[0]["worker"]), (1, &json!("same")), "{document:#}");
    assert_eq!(other.stop(), Some(0));
    let log = std::fs::read_to_string(home.path("other.log")).unwrap();
    assert!(!log.contains("a step could not be run"), "the other worker has claimed no step: {log}");
}

/// A number as protocol buffers write it: seven bits in a byte, and a bit that says that more follow.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field of bytes in a protocol buffer.
fn field(id: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(id << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A field of a number in a protocol buffer.
fn number(id: u64, value: u64) -> Vec<u8> {
    [varint(id << 3), varint(value)].concat()
}

/// An ONNX file with these nodes and initializers, whose input is `x` and whose output is `y` (`onnx.proto`).
fn onnx(nodes: &[Vec<u8>], initializers: &[Vec<u8>]) -> Vec<u8> {
    let dims: Vec<u8> = [1, 3, 16, 16].iter().flat_map(|side| field(1, &number(1, *side))).collect();
    let float = |name: &[u8]| {
        let tensor = [number(1, 1), field(2, &dims)].concat();
        [field(1, name), field(2, &field(1, &tensor))].concat()
    };
    let mut graph: Vec<u8> = nodes.iter().flat_map(|node| field(1, node)).collect();
    graph.extend(field(2, b"it"));
    graph.extend(initializers.iter().flat_map(|initializer| field(5, initializer)));
    graph.extend([field(11, &float(b"x")), field(12, &float(b"y"))].concat());
    [number(1, 8), field(7, &graph), field(8, &number(2, 13))].concat()
}

/// A node of an ONNX graph.
fn node(op: &str, inputs: &[&str], output: &str, cast_to: Option<u64>) -> Vec<u8> {
    let mut node: Vec<u8> = inputs.iter().flat_map(|input| field(1, input.as_bytes())).collect();
    node.extend([field(2, output.as_bytes()), field(4, op.as_bytes())].concat());
    if let Some(to) = cast_to {
        node.extend(field(5, &[field(1, b"to"), number(3, to), number(20, 2)].concat()));
    }
    node
}

#[test]
fn a_network_that_ends_its_process_is_refused_and_not_the_command_ended() {
    let home = Home::new();
    let library = root().join("target/onnxruntime").join("libonnxruntime.so.1.28.0").display().to_string();
    let manifest = "kind = 'embedder'\nname = 'hostile'\noutput = 'vector'\nbatch = 1\n[input]\nside = 16\n\
                    mean = [0.0, 0.0, 0.0]\nscale = 1.0\n[crop]\nfrom = 'detection'\n";
    home.write("model.toml", manifest);
    let add = |variables: &[(&str, &str)], bytes: &[u8]| {
        home.write("hostile.onnx", bytes);
        let args = ["models", "add", "hostile.onnx", "--manifest", "model.toml", "--output", "json"];
        let ran = home.command(&args).envs(variables.iter().copied()).output().unwrap();
        Ran::of(&ran, &args)
    };
    let onnxruntime = [("DOVETAIL_VISION_ONNXRUNTIME", library.as_str())];
    // The least whole number divided by -1: the quotient is no 64-bit number. x86-64 traps; others give some quotient.
    let whole =
        |name: &[u8], value: i64| [number(1, 1), number(2, 7), field(8, name), field(9, &value.to_le_bytes())].concat();
    let divides = onnx(
        &[
            node("Cast", &["x"], "zeros", Some(7)),
            node("Add", &["zeros", "least"], "a", None),
            node("Add", &["zeros", "minus-one"], "b", None),
            node("Div", &["a", "b"], "q", None),
            node("Cast", &["q"], "y", Some(1)),
        ],
        &[whole(b"least", i64::MIN), whole(b"minus-one", -1)],
    );
    if cfg!(target_arch = "x86_64") {
        let error = add(&onnxruntime, &divides).exits(2).json()["error"].clone();
        assert_eq!(error["code"], "unusable_model", "{error:#}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("hostile.onnx") && message.contains("SIGFPE"), "{error:#}");
        // The bytes that are tried are those that would be loaded, also if the file can be read only once.
        let mut piped = std::process::Command::new("sh");
        let add = home.command(&["models", "add", "/dev/stdin", "--manifest", "model.toml"]);
        piped.args(["-c", "cat hostile.onnx | exec \"$@\"", "sh"]).arg(add.get_program()).args(add.get_args());
        let piped = piped.current_dir(add.get_current_dir().unwrap()).env_clear();
        let piped = piped.envs(add.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let ran = piped.env("PATH", std::env::var_os("PATH").unwrap()).envs(onnxruntime).output().unwrap();
        assert!(String::from_utf8_lossy(&ran.stderr).contains("SIGFPE"), "{ran:?}");
    }
    // A tensor that declares 12 GiB and has four bytes.
    let sides: Vec<u8> = [1, 3, 1 << 15, 1 << 15].iter().flat_map(|side| number(1, *side)).collect();
    let declared = [sides, number(2, 1), field(8, b"w"), field(9, &[0; 4])].concat();
    let declares = onnx(&[node("Add", &["x", "w"], "y", None)], &[declared]);
    for variables in [&onnxruntime[..], &[("DOVETAIL_VISION_ENGINE", "opencv")]] {
        let error = add(variables, &declares).exits(2).json()["error"].clone();
        assert_eq!(error["code"], "unusable_model", "{error:#}");
        assert!(error["message"].as_str().unwrap().contains("8 GiB of address space"), "{error:#}");
    }
    assert_eq!(home.run(&["models", "list", "--output", "json"]).exits(0).json(), json!([]), "nothing is installed");
    // The same file with a node that does no harm is taken.
    add(&onnxruntime, &onnx(&[node("Identity", &["x"], "y", None)], &[])).exits(0);
}

/// The calls of the program and its threads that match `calls`, one in a line, by strace.
/// Each thread has its own log (`-ff`): a log of all threads splits a call that another thread's call interrupts.
fn traced(calls: &str, args: &[&str]) -> String {
    let home = Home::new();
    let logs = home.path("strace");
    std::fs::create_dir(&logs).unwrap();
    let program = command(data(), data(), args);
    let mut strace = std::process::Command::new("strace");
    strace
        .args(["-ff", "-qq", "-e", calls, "-o"])
        .arg(logs.join("thread"))
        .arg(program.get_program())
        .args(program.get_args());
    strace.current_dir(data()).env_clear().env("HOME", data()).env("PATH", std::env::var_os("PATH").unwrap());
    let ran = strace.output().expect("strace is installed: run `./justw setup`");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let threads = std::fs::read_dir(logs).unwrap().map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap());
    threads.collect()
}

#[test]
fn the_engine_opens_no_connection_and_writes_no_file_outside_the_data_folder() {
    let image = format!("image=@{}", photograph(6).display());
    let log = traced(
        "trace=%network,openat,?open,?creat,?rename,renameat,renameat2,?mkdir,mkdirat,?unlink,unlinkat",
        &["run", "face-processing", "--output", "json", "--input", &image],
    );
    assert!(log.lines().any(|line| line.contains("libonnxruntime.so.1.28.0")), "the engine was opened");
    // The processes of one data folder wake each other by sockets in that folder.
    let sockets: Vec<&str> =
        log.lines().filter(|line| line.contains("socket(") && !line.contains("socket(AF_UNIX,")).collect();
    assert!(sockets.is_empty(), "{sockets:?}");
    let folder = data().display().to_string();
    let writes = |line: &&str| {
        ["O_WRONLY", "O_RDWR", "O_CREAT", "creat(", "rename", "mkdir", "unlink"].iter().any(|flag| line.contains(flag))
    };
    let ours = |line: &&str| {
        [folder.as_str(), "/dev/null", "/dev/shm", "/proc/self", "/tmp/.tmp"].iter().any(|path| line.contains(path))
    };
    let foreign: Vec<&str> =
        log.lines().filter(writes).filter(|line| !ours(line) && !line.contains("ENOENT")).collect();
    assert!(foreign.is_empty(), "{foreign:#?}");
}

#[test]
fn the_library_is_not_opened_where_no_network_runs() {
    for args in [&["--version"][..], &["runs", "list"], &["models", "list"], &["task", "list"]] {
        let log = traced("trace=openat,?open,execve", args);
        assert!(log.contains("execve("), "strace sees the program: {args:?}");
        assert!(!log.contains("libonnxruntime"), "{args:?}");
    }
}
