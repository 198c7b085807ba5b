//! A package whose stored bytes no longer match its digest. The package is refused before any part of it is
//! compiled, and interrupted runs can be resumed after the package is stored again.

use std::path::PathBuf;

use serde_json::json;

use crate::support::Home;

fn files(folder: PathBuf) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// Doctor's finding about packages, and its remedy.
fn packages(home: &Home) -> (String, String) {
    // The exit code is ignored: models may be missing on this machine, which is another line.
    let seen = home.run(&["doctor", "--output", "json"]).json();
    let line = seen["checks"].as_array().unwrap().iter().find(|check| check["what"] == "packages").unwrap();
    let text = |name: &str| line[name].as_str().unwrap().to_owned();
    (text("found"), text("remedy"))
}

#[test]
fn a_package_that_was_damaged_is_refused_before_it_is_compiled() {
    let home = Home::new();
    let steps = json!({ "go": { "number": 1, "task": "add@^1", "inputs": { "a": {"value": 1}, "b": {"value": 2} } } });
    home.push(&["add"]).pipeline(
        "it",
        &json!({ "name": "it", "version": "1.0.0", "inputs": {}, "steps": steps, "output": { "sum": "go.sum" } }),
    );
    let stored = files(home.path("data/blobs/packages/sha256"));
    let [package] = stored.as_slice() else { panic!("{stored:?}") };
    let whole = std::fs::read(package).unwrap();
    // Flip one bit in the component, in the manifest, or in the directory of the zip file.
    for at in [whole.len() / 2, 40, whole.len() - 30] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(package, &damaged).unwrap();
        for compiled_before in [true, false] {
            if !compiled_before {
                std::fs::remove_dir_all(home.path("data/compiled")).unwrap();
            }
            let before = files(home.path("data/compiled"));
            let error = home.run(&["run", "it", "--output", "json"]).exits(3).json()["error"].clone();
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("another digest") && message.contains(&*package.to_string_lossy()), "{error:#}");
            assert!(message.contains("store it again") && message.contains("task push"), "{error:#}");
            let code: Vec<_> =
                files(home.path("data/compiled")).into_iter().filter(|file| !before.contains(file)).collect();
            assert!(
                code.iter().all(|file| file.extension().is_none_or(|of| of != "cwasm" && of != "wasm")),
                "it was compiled: {code:?}"
            );
            let alone = home
                .run(&["task", "run", "add", "--input", "a=1", "--input", "b=2", "--output", "json"])
                .exits(3)
                .json();
            assert_eq!(alone["error"]["code"], error["code"]);
        }
        let (found, remedy) = packages(&home);
        assert!(found.starts_with("damaged: add@") && found.contains("(of it@1.0.0"), "{found}");
        assert!(remedy.contains("task push"), "{remedy}");
        // Both errors name this remedy. It prints what it repaired.
        let pushed = |repaired: bool| {
            let again = home.again(&["add"], "json").json();
            assert_eq!((&again[0]["created"], &again[0]["repaired"]), (&json!(false), &json!(repaired)), "{again:#}");
        };
        pushed(true);
        pushed(false);
        std::fs::remove_file(package).unwrap();
        assert!(
            home.again(&["add"], "text")
                .stdout
                .contains("was published before; its stored package was damaged or missing, and was repaired")
        );
        assert!(home.again(&["add"], "text").stdout.contains("was published before, unchanged"));
        assert_eq!(std::fs::read(package).unwrap(), whole);
        assert!(packages(&home).0.starts_with("all 1 are stored"), "{:?}", packages(&home));
        let resumed = home.run(&["runs", "resume", "--all", "--output", "json"]).exits(0).json();
        let runs = resumed["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2, "{resumed:#}");
        assert!(runs.iter().all(|run| run["state"] == "succeeded" && run["output"]["sum"] == 3), "{resumed:#}");
    }
}
