//! Parsing of inputs: values by type, files, standard input, whole objects, and errors.

use super::*;
use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs as _};
use dovetail_core::wit::Field;

fn args(list: &[&str]) -> Vec<String> {
    list.iter().map(|arg| (*arg).to_owned()).collect()
}

fn option(ty: Type) -> Type {
    Type::Option(Box::new(ty))
}

fn types() -> InputTypes {
    let types = [
        ("image", Type::Image),
        ("detector", option(Type::String)),
        ("min_confidence", option(Type::F32)),
        ("names", Type::List(Box::new(Type::String))),
        ("pages", Type::List(Box::new(Type::Record(vec![Field { name: "the-page".into(), ty: option(Type::Image) }])))),
    ];
    InputTypes { of: "p@1.0.0".into(), types: types.into_iter().map(|(name, ty)| (name.to_owned(), ty)).collect() }
}

fn read(list: &[&str]) -> Result<Inputs, Error> {
    read_inputs(&Given::parse(&args(list))?, &types())
}

fn code(list: &[&str]) -> &'static str {
    let error = read(list).unwrap_err();
    assert_eq!(crate::exit::exit_code(&error), 2, "{list:?}");
    error.code
}

#[test]
fn values_follow_their_types() {
    let loaded = read(&["detector=0.5", "min_confidence=0.5", "names=[\"a\"]"]).unwrap();
    assert_eq!(
        Value::from(loaded.values),
        serde_json::json!({ "detector": "0.5", "min_confidence": 0.5, "names": ["a"] })
    );
    assert_eq!(read(&["detector=@@me"]).unwrap().values["detector"], "@me");
    assert_eq!(read(&["detector=a=b"]).unwrap().values["detector"], "a=b");
    assert_eq!(read(&["detector="]).unwrap().values["detector"], "");
}

#[test]
fn a_file_becomes_an_artifact_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("photo.jpg");
    std::fs::write(&file, b"\xff\xd8\xffrest").unwrap();
    let loaded = read(&[&format!("image=@{}", file.display())]).unwrap();
    let digest = Digest::of(b"\xff\xd8\xffrest");
    assert_eq!(
        loaded.values["image"],
        serde_json::json!({ "$artifact": digest, "media_type": "image/jpeg", "name": "photo.jpg" })
    );
    let blobs = dovetail_stores::FileBlobs::new(dir.path());
    assert_eq!(blobs.size(BlobKind::Artifact, &digest).unwrap(), None, "reading stores nothing");
    loaded.store(&blobs).unwrap();
    assert_eq!(blobs.size(BlobKind::Artifact, &digest).unwrap(), Some(7));
}

#[test]
fn files_in_a_json_file_are_relative_to_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    std::fs::write(dir.path().join("in/a.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let json = dir.path().join("in/all.json");
    std::fs::write(
        &json,
        r#"{"image": "@a.png", "pages": [{"the_page": "@../in/a.png"}, {"the_page": null}], "detector": "@a.png"}"#,
    )
    .unwrap();
    let loaded = read(&[&format!("@{}", json.display())]).unwrap();
    assert_eq!(loaded.values["image"]["media_type"], "image/png");
    assert_eq!(loaded.values["pages"][0]["the_page"]["name"], "a.png");
    assert_eq!(loaded.values["detector"], "@a.png", "a string is a string");
    let both = read(&[&format!("@{}", json.display()), "detector=ssd"]).unwrap_err();
    assert_eq!(both.code, "input_twice");
    std::fs::write(&json, r#"{"detector": "a", "detector": "b"}"#).unwrap();
    assert_eq!(code(&[&format!("@{}", json.display())]), "input_twice");
    std::fs::write(&json, "[]").unwrap();
    let error = read(&[&format!("@{}", json.display())]).unwrap_err();
    assert!(error.code == "bad_input" && error.message.contains("all.json"), "{error:?}");
    std::fs::write(&json, r#"{"image": "@none.png"}"#).unwrap();
    let error = read(&[&format!("@{}", json.display())]).unwrap_err();
    assert_eq!(
        (error.code, error.help.as_deref()),
        ("missing_file", Some("a path in a JSON file is relative to that file"))
    );
}

#[test]
fn what_is_wrong_is_told() {
    for (list, expected) in [
        (&["detector=a", "detector=b"][..], "input_twice"),
        (&["dtector=a"], "unknown_input"),
        (&["detector"], "bad_input"),
        (&["=x"], "bad_input"),
        (&["min_confidence=much"], "bad_input"),
        (&["image=photo.jpg"], "bad_input"),
        (&["image=@no/such.jpg"], "missing_file"),
        (&["image=@/"], "not_a_file"),
        (&["image=@-", "detector=@-"], "stdin_twice"),
        (&["@a.json", "@b.json"], "input_twice"),
    ] {
        assert_eq!(code(list), expected, "{list:?}");
    }
    assert_eq!(read(&["image=photo.jpg"]).unwrap_err().help.as_deref(), Some("for a file, write image=@photo.jpg"));
    assert_eq!(read(&["image=@@photo.jpg"]).unwrap_err().help.as_deref(), Some("for a file, write image=@photo.jpg"));
    assert_eq!(read(&["image=@@"]).unwrap_err().help.as_deref(), Some("for a file, write image=@FILE"));
    assert_eq!(
        read(&["min_confidence=much"]).unwrap_err().help.as_deref(),
        Some("write JSON, such as min_confidence=0.5, or min_confidence=@FILE.json")
    );
    assert_eq!(read(&["dtector=a"]).unwrap_err().help.as_deref(), Some("did you mean `detector`?"));
}

#[test]
fn each_takes_folders_globs_and_files_in_order() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.jpg", "a.jpg", "c.png", ".hidden.jpg"] {
        std::fs::write(dir.path().join(name), b"x").unwrap();
    }
    std::fs::create_dir(dir.path().join("sub.jpg")).unwrap();
    let names = |list: &[String]| -> Vec<String> {
        let files = Each::parse(list).unwrap().unwrap().files;
        files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    let at = |rest: &str| format!("image=@{}{rest}", dir.path().display());
    assert_eq!(names(&[at("")]), ["a.jpg", "b.jpg", "c.png"]);
    assert_eq!(names(&[at("/*.jpg")]), ["a.jpg", "b.jpg"]);
    assert_eq!(names(&[at("/c.png"), at("/*.jpg"), at("/a.jpg")]), ["a.jpg", "b.jpg", "c.png"]);
    for (bad, expected) in [
        (vec![at("/*.gif")], "no_files"),
        (vec![at("/none.jpg")], "missing_file"),
        (vec!["image=photo.jpg".to_owned()], "bad_input"),
        (vec![at(""), at("").replace("image", "other")], "bad_input"),
    ] {
        assert_eq!(Each::parse(&bad).unwrap_err().code, expected, "{bad:?}");
    }
    assert_eq!(Each::parse(&[] as &[&str]).unwrap(), None);
}
