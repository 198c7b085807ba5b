//! Installing models: the import from the package, and a damaged store. (The tests of a user's own models are unit
//! tests, where small networks can be made.)

use std::fs;
use std::path::Path;

use dovetail_core::stop::Stop;
use dovetail_core::vision::{DetectOptions, ModelKind, Vision, VisionError};
use dovetail_vision::{FACE_API_PACKAGE, HAAR_FOLDER, ModelError, ModelStore, Opencv, Options};

use crate::common::{package, photo};

fn copy_of_the_weights(to: &Path) {
    fs::create_dir_all(to.join("model")).unwrap();
    for entry in fs::read_dir(package().join("model")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join("model").join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn an_import_installs_everything_and_once_more_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::open(dir.path()).unwrap();
    assert!(store.list().unwrap().is_empty());
    let first = store.import_face_api(&package()).unwrap();
    store.import_haar(Path::new(HAAR_FOLDER)).unwrap();
    let names: Vec<String> = store.list().unwrap().into_iter().map(|m| m.model.name).collect();
    let expected = [
        "haar",
        "ssd_mobilenetv1",
        "tiny_face_detector",
        "face_landmark_68",
        "age_gender",
        "face_expression",
        "face_recognition",
    ];
    assert_eq!(names, expected);
    assert_eq!(store.import_face_api(&package()).unwrap(), first, "the same weights give the same digests");
    let ssd = store.list().unwrap().into_iter().find(|m| m.model.name == "ssd_mobilenetv1").unwrap();
    assert_eq!(ssd.manifest.source.as_deref(), Some(FACE_API_PACKAGE));
    assert_eq!(ssd.manifest.files.len(), 2, "the network and its anchors are both covered by digests");
    // The folder contains only files that are named by their digests.
    let names: Vec<_> = fs::read_dir(dir.path().join("files"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 9);
    assert!(names.iter().all(|name| name.len() == 64), "{names:?}");
}

#[test]
fn a_model_that_is_to_be_had_elsewhere_is_installed_when_it_is_asked_for() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let vision = Opencv::new(Options::new(dir.path())).unwrap();
    let missing = |name| {
        matches!(vision.model(ModelKind::Detector, name), Err(VisionError::Unavailable { code: "models_missing", .. }))
    };
    assert!(missing(None), "no search function is registered");
    let looked = Arc::new(AtomicU32::new(0));
    let (counted, folder) = (looked.clone(), dir.path().to_owned());
    vision.on_missing(Box::new(move || {
        // The second search installs the model.
        if counted.fetch_add(1, Ordering::SeqCst) == 1 {
            ModelStore::open(&folder).unwrap().import_haar(Path::new(HAAR_FOLDER)).unwrap();
        }
    }));
    assert!(missing(Some("haar")));
    (0..100).for_each(|_| drop(vision.model(ModelKind::Detector, Some("haar"))));
    assert!(looked.load(Ordering::SeqCst) <= 2, "a task that asks without end does not make it look without end");
    std::thread::sleep(std::time::Duration::from_millis(250));
    assert_eq!(vision.model(ModelKind::Detector, Some("haar")).unwrap().name, "haar");
    assert_eq!(looked.load(Ordering::SeqCst), 2);
    vision.model(ModelKind::Detector, Some("haar")).unwrap();
    assert_eq!(looked.load(Ordering::SeqCst), 2, "an installed model is not searched for");
}

#[test]
fn a_wrong_digest_installs_nothing() {
    let (copy, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy_of_the_weights(copy.path());
    let store = ModelStore::open(dir.path()).unwrap();
    // The last of the six networks is wrong. The other five are right and are not installed either.
    let weights = copy.path().join("model/face_recognition_model.bin");
    let mut bytes = fs::read(&weights).unwrap();
    bytes[1000] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let err = store.import_face_api(copy.path()).unwrap_err();
    assert!(matches!(&err, ModelError::WrongDigest { path, .. } if path == &weights), "{err}");
    assert!(err.to_string().contains("sha256:"), "{err}");
    assert!(store.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(dir.path().join("files")).unwrap().count(), 0);
    fs::remove_file(&weights).unwrap();
    assert!(matches!(store.import_face_api(copy.path()), Err(ModelError::Io { .. })));
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn without_models_the_error_says_how_to_get_them() {
    let dir = tempfile::tempdir().unwrap();
    let vision = Opencv::new(Options::new(dir.path())).unwrap();
    let err = vision.model(ModelKind::Detector, None).unwrap_err();
    assert!(
        matches!(&err, VisionError::Unavailable { code: "models_missing", message }
            if message.contains("dovetail models pull")),
        "{err:?}"
    );
}

#[test]
fn a_damaged_file_is_noticed_when_it_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::open(dir.path()).unwrap();
    store.import_face_api(&package()).unwrap();
    let tiny = store.list().unwrap().into_iter().find(|m| m.model.name == "tiny_face_detector").unwrap();
    let file = dir.path().join("files").join(tiny.manifest.files[0].digest.hex());
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let vision = Opencv::new(Options::new(dir.path())).unwrap();
    let detect = || vision.detect(&tiny.model, &photo("sample1.jpg"), DetectOptions::default(), &Stop::never());
    let err = detect().unwrap_err();
    assert!(
        matches!(&err, VisionError::Unavailable { code: "model_damaged", message }
            if message.contains("expected sha256:") && message.contains("models pull")),
        "{err:?}"
    );
    // Another import repairs the file, and the running process continues.
    store.import_face_api(&package()).unwrap();
    assert_eq!(detect().unwrap().len(), 3);
}

#[test]
fn a_manifest_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::open(dir.path()).unwrap();
    fs::write(dir.path().join("odd.toml"), "kind = 'detector'\nflavour = 3\n").unwrap();
    let err = store.list().unwrap_err();
    assert!(matches!(&err, ModelError::BadManifest { path, .. } if path.ends_with("odd.toml")), "{err}");
    assert!(err.to_string().contains("flavour"), "{err}");
}
