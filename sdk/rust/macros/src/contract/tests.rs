//! The contract of a task's WIT, and the messages for authors if no code can be generated.

use std::path::PathBuf;

use super::{Contract, read};

const IMPORTS: &str = "include dovetail:task/imports@0.1.0;";
const RUN: &str = "use dovetail:task/types@0.1.0.{task-error}; record input { a: u32 } record output { b: u32 } run: \
                   func(input: input) -> result<output, task-error>;";

/// The folder of a crate with `wit/world.wit` (and more files below `wit/`). It is removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let this = Self(std::env::temp_dir().join(format!("dovetail-sdk-{}-{name}", std::process::id())));
        for (path, text) in files {
            let path = this.0.join("wit").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        this
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn task(name: &str, wit: &str) -> Result<Contract, String> {
    let folder = Folder::new(name, &[("world.wit", &format!("package acme:a-task@1.2.0; {wit}"))]);
    read(&folder.0, None)
}

#[test]
fn a_task_is_read() {
    let wit = format!(
        "interface my-run {{
            use dovetail:task/types@0.1.0.{{task-error}}; use dovetail:vision/images@0.1.0.{{image, rect}};
            record one {{ photo: image, area: rect }} record many {{ all: list<one> }} record plain {{ n: u32 }}
            run: func(input: many) -> result<plain, task-error>;
        }}
        world any-name {{ {IMPORTS} export my-run; }}"
    );
    let contract = task("read", &wit).unwrap();
    assert_eq!(contract.world, "acme:a-task/any-name@1.2.0");
    assert_eq!(contract.interface, ["acme", "a_task", "my_run"]);
    // The host's types come from the SDK, and are not declared again.
    assert_eq!(contract.types, ["One", "Many", "Plain"]);
    assert_eq!((contract.input.as_str(), contract.output.as_deref()), ("Many", Some("Plain")));
    for holds in ["one", "many"] {
        assert!(contract.incomparable.iter().any(|n| n == holds), "{holds} holds an image");
    }
    assert!(!contract.incomparable.iter().any(|n| n == "plain" || n == "rect"));
    let images =
        ("dovetail:vision/images@0.1.0".to_owned(), ["dovetail", "vision", "images"].map(str::to_owned).to_vec());
    assert!(
        contract.host.contains(&images),
        "an interface that is only used for its types is bound, too: {:?}",
        contract.host
    );
    assert_eq!(contract.folders.len(), 3);
}

#[test]
fn a_task_may_return_nothing() {
    let run = RUN.replace("result<output, task-error>", "result<_, task-error>");
    let contract =
        task("nothing", &format!("interface task {{ {run} }} world w {{ {IMPORTS} export task; }}")).unwrap();
    assert_eq!(contract.output, None);
}

#[test]
fn the_hosts_packages_may_stand_in_deps() {
    let own = format!("package acme:a-task@1.2.0; interface task {{ {RUN} }} world w {{ {IMPORTS} export task; }}");
    let host = include_str!("../../wit/task/task.wit");
    let folder = Folder::new("deps", &[("world.wit", &own), ("deps/dovetail-task/package.wit", host)]);
    assert_eq!(read(&folder.0, None).unwrap().folders.len(), 1);
}

#[test]
fn of_several_worlds_one_is_chosen() {
    let own = format!(
        "package acme:a-task@1.2.0; interface task {{ {RUN} }} world one {{ export task; }} world two {{ export task; \
         }}"
    );
    let folder = Folder::new("worlds", &[("world.wit", &own)]);
    let error = read(&folder.0, None).unwrap_err();
    assert!(error.contains("several worlds (`one`, `two`)") && error.contains("world = \"name\""), "{error}");
    assert_eq!(read(&folder.0, Some("two")).unwrap().world, "acme:a-task/two@1.2.0");
    assert!(read(&folder.0, Some("three")).unwrap_err().contains("no world `three`"));
}

#[test]
fn what_is_no_task_is_refused_with_what_it_should_be() {
    let other = RUN.replace("run:", "walk:");
    let cases = [
        ("no-world", format!("interface task {{ {RUN} }}"), "has no world"),
        ("no-export", format!("world w {{ {IMPORTS} }}"), "exports no interface with `run: func(input: input)"),
        ("bare", format!("world w {{ {IMPORTS} export run: func(); }}"), "exports `run` by itself"),
        (
            "two",
            format!("interface a {{ {RUN} }} interface b {{ {RUN} }} world w {{ export a; export b; }}"),
            "2 interfaces with a `run`",
        ),
        ("other", format!("interface a {{ {other} }} world w {{ export a; }}"), "has a function `walk`"),
        ("args", "interface a { run: func() -> result; } world w { export a; }".into(), "takes 0 arguments"),
        (
            "no-record",
            "interface a { run: func(a: u32) -> result; } world w { export a; }".into(),
            "takes an input that is not a record",
        ),
        (
            "no-result",
            "interface a { record i { a: u32 } run: func(a: i); } world w { export a; }".into(),
            "returns no result",
        ),
        (
            "error",
            "interface a { record i { a: u32 } run: func(a: i) -> result<i, string>; } world w { export a; }".into(),
            "has another error type",
        ),
        ("syntax", "interface a {".into(), "expected"),
    ];
    for (name, wit, expected) in cases {
        let error = task(name, &wit).unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let missing = read("nowhere".as_ref(), None).unwrap_err();
    assert!(missing.contains("there is no folder nowhere/wit"), "{missing}");
}
