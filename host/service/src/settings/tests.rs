//! Sources of settings, their precedence, and errors in settings.

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
}

fn resolve(flags: Overrides, pairs: &[(&str, &str)], file: Option<&str>) -> Result<Settings, Error> {
    Settings::resolve(
        &flags,
        &environment(pairs),
        file.map(|text| (text, Path::new("/etc/d/dovetail.toml"))),
        Path::new("/here"),
    )
}

const HOME: (&str, &str) = ("HOME", "/home/me");

#[test]
fn flags_beat_variables_beat_the_file_beat_defaults() {
    let file = "data = \"file-data\"\nworker = { jobs = 3 }\nlog = { level = \"error\" }";
    let data = |flags, pairs: &[_], file| resolve(flags, pairs, file).unwrap().data;
    let flag = Overrides { data: Some("flag".into()), ..Overrides::default() };
    assert_eq!(data(flag, &[HOME, ("DOVETAIL_DATA", "set")], Some(file)), Path::new("/here/flag"));
    assert_eq!(data(Overrides::default(), &[HOME, ("DOVETAIL_DATA", "set")], Some(file)), Path::new("/here/set"));
    assert_eq!(data(Overrides::default(), &[HOME], Some(file)), Path::new("/etc/d/file-data"));
    assert_eq!(data(Overrides::default(), &[HOME], Some("data = \"~/x\"")), Path::new("/home/me/x"));
    assert_eq!(data(Overrides::default(), &[HOME], None), Path::new("/home/me/.local/share/dovetail"));
    assert_eq!(data(Overrides::default(), &[HOME, ("XDG_DATA_HOME", "/xdg")], None), Path::new("/xdg/dovetail"));
    assert_eq!(
        data(Overrides::default(), &[HOME, ("XDG_DATA_HOME", "not/absolute")], None),
        Path::new("/home/me/.local/share/dovetail")
    );
    let config = resolve(Overrides::default(), &[HOME, ("DOVETAIL_LOG_LEVEL", "debug")], Some(file)).unwrap();
    assert_eq!((config.jobs, config.log_level, config.lease), (3, Some(LogLevel::Debug), Duration::from_secs(10)));
    let config =
        resolve(Overrides::default(), &[HOME, ("DOVETAIL_WORKER_JOBS", "5"), ("DOVETAIL_DATA", "")], Some(file))
            .unwrap();
    assert_eq!((config.jobs, config.log_level), (5, Some(LogLevel::Error)));
}

#[test]
fn the_file_of_the_design_is_read() {
    let file = r#"
        data = "~/.local/share/dovetail"
        fleet = "default"
        queue = "sqlite:"
        meta = "sqlite:"
        blobs = "file:"
        worker = { jobs = 10, lease = "10s" }
        vision = { threads = 2, images = "256MiB" }
        log = { format = "text", level = "info" }
    "#;
    let config = resolve(Overrides::default(), &[HOME], Some(file)).unwrap();
    assert_eq!((config.image_cache, config.vision_threads, config.log_level), (256 << 20, 2, Some(LogLevel::Info)));
}

#[test]
fn what_is_deployed_is_read_and_says_the_defaults() {
    let file = include_str!("../../../../deploy/dovetail.toml");
    // A line `# key = value` shows a default. Any other comment is a sentence.
    let shown: String = file
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line).to_owned() + "\n")
        .collect();
    let resolved = resolve(Overrides::default(), &[HOME], Some(file)).unwrap();
    assert!(resolved.is_fleet() && resolved.has_far_blobs() && resolved.meta.scheme() == "mongodb");
    assert_ne!(shown, file);
    assert_eq!(
        resolve(Overrides::default(), &[HOME], Some(&shown)).unwrap(),
        Settings { log_level: Some(LogLevel::Info), ..resolved }
    );
    // The deployed variables with passwords are variables that the program knows.
    let set: Vec<(&str, &str)> = include_str!("../../../../deploy/worker.env")
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='))
        .collect();
    let set: Vec<(&str, &str)> =
        std::iter::once(HOME).chain(set.into_iter().filter(|(name, _)| name.starts_with("DOVETAIL_"))).collect();
    let resolved = resolve(Overrides::default(), &set, Some(file)).unwrap();
    assert!(set.len() == 5 && resolved.queue.url().starts_with("rediss://dovetail:CHANGE_ME@"), "{set:?}");
}

#[test]
fn grants_that_are_set_to_nothing_are_none() {
    let grants = |pairs: &[(&str, &str)]| resolve(Overrides::default(), pairs, None).unwrap().grants;
    assert_eq!(grants(&[HOME]), GRANTS);
    assert_eq!(grants(&[HOME, ("DOVETAIL_WORKER_GRANTS", "random")]), ["random"]);
    assert_eq!(grants(&[HOME, ("DOVETAIL_WORKER_GRANTS", "")]), [""; 0]);
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    let error = resolve(Overrides::default(), &[HOME], Some("data = \"x\"\n[worker]\njobz = 3\n")).unwrap_err();
    assert_eq!((error.code, error.blame), ("bad_config", crate::Blame::Usage));
    assert!(error.message.starts_with("/etc/d/dovetail.toml:3:1: unknown field `jobz`"), "{}", error.message);
}

#[test]
fn an_unknown_variable_is_an_error_with_the_near_one() {
    let error = resolve(Overrides::default(), &[HOME, ("DOVETAIL_DTA", "x")], None).unwrap_err();
    assert_eq!(error.code, "unknown_setting");
    assert_eq!(error.help.as_deref(), Some("did you mean `DOVETAIL_DATA`?"));
    assert!(resolve(Overrides::default(), &[HOME, ("DOVETAIL_FACE_API", "x")], None).is_ok());
}

#[test]
fn the_keys_of_a_bucket_are_known_and_no_other_variable_of_their_kind() {
    for known in ["DOVETAIL_S3_ACCESS_KEY", "DOVETAIL_S3_SECRET_KEY", "DOVETAIL_S3_SESSION_TOKEN"] {
        assert!(resolve(Overrides::default(), &[HOME, (known, "x")], None).is_ok());
    }
    for unknown in ["DOVETAIL_S3_SECRET", "DOVETAIL_S3_ENDPOINT", "DOVETAIL_S3_REGION", "DOVETAIL_S3_"] {
        let error = resolve(Overrides::default(), &[HOME, (unknown, "x")], None).unwrap_err();
        assert_eq!(error.code, "unknown_setting", "{unknown}");
        assert!(error.chain().contains(unknown) && error.help.is_some());
    }
    let error = resolve(Overrides::default(), &[HOME, ("DOVETAIL_S3_SECRET_KEYS", "x")], None).unwrap_err();
    assert_eq!(error.help.as_deref(), Some("did you mean `DOVETAIL_S3_SECRET_KEY`?"));
}

#[test]
fn the_folder_has_no_parameters() {
    for (key, value) in
        [("blobs", "file:?x=1"), ("blobs", "file:/tmp"), ("meta", "sqlite:?mode=ro"), ("queue", "sqlite:x")]
    {
        let file = format!("{key} = \"{value}\"");
        let error = resolve(Overrides::default(), &[HOME], Some(&file)).unwrap_err();
        assert_eq!(error.code, "bad_setting", "{value}");
        assert!(error.help.is_some_and(|help| help.contains("leave")), "{value}");
    }
}

#[test]
fn shared_stores_are_named_by_url() {
    let file = "fleet = \"mine\"\nqueue = \"redis://u:secret@h:1/0\"\nmeta = \"mongodb://u:secret@h/d\"\nblobs = \
        \"s3://K:secret@b?endpoint=http://h:9\"";
    let config = resolve(Overrides::default(), &[HOME], Some(file)).unwrap();
    assert_eq!(
        (config.fleet.as_str(), config.queue.scheme(), config.meta.scheme(), config.blobs.scheme()),
        ("mine", "redis", "mongodb", "s3")
    );
    assert_eq!(
        format!("{:?} {:?} {:?}", config.queue, config.meta, config.blobs),
        "redis://h:1/0 mongodb://h/d s3://b?endpoint=http://h:9"
    );
    // No password is shown, neither of a malformed URL nor of an endpoint.
    for url in [
        "s3://K:secret@b?endpoint=http://u:secret@h:9",
        "s3://b?endpoint=http%3A%2F%2Fu%3Asecret%40h",
        "s3://b?key=secret#endpoint=secret",
    ] {
        assert!(!format!("{:?}", StoreUrl::of(url)).contains("secret"), "{:?}", StoreUrl::of(url));
    }
    let flag = Overrides { queue: Some("redis://other:2/0".into()), ..Overrides::default() };
    let config = resolve(flag, &[HOME, ("DOVETAIL_QUEUE", "redis://set:1/0")], Some(file)).unwrap();
    assert_eq!(config.queue.url(), "redis://other:2/0");
}

#[test]
fn what_cannot_take_effect_is_refused() {
    for (key, value) in [
        ("queue", "http://u:secret@h:1/0"),
        ("queue", "redis:secret"),
        ("queue", "mongodb://u:secret@h/d"),
        ("meta", "redis://u:secret@h:1/0"),
        ("meta", "mongodb://u:secret@h/d"),
        ("blobs", "file:///secret@here"),
        ("fleet", "mine"),
        ("fleet", "Mine!"),
    ] {
        let error = resolve(Overrides::default(), &[HOME], Some(&format!("{key} = \"{value}\""))).unwrap_err();
        assert_eq!(error.code, "bad_setting", "{key}");
        let text = format!("{} {}", error.chain(), error.help.unwrap_or_default());
        assert!(text.contains(key) && !text.contains("secret"), "{text}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
    for file in [
        "worker = { jobs = 0 }",
        "worker = { jobs = 1001 }",
        "worker = { lease = \"1ms\" }",
        "worker = { lease = \"soon\" }",
        "worker = { grants = [\"everything\"] }",
        "vision = { threads = 0 }",
        "vision = { images = \"much\" }",
        "log = { level = \"loud\" }",
        "data = 3",
        "data = ",
    ] {
        assert!(resolve(Overrides::default(), &[HOME], Some(file)).is_err(), "{file}");
    }
    // The remedy names the key and the variable, and gives an example.
    for (pair, example) in [
        (("DOVETAIL_WORKER_JOBS", "many"), "`worker.jobs = 10` in dovetail.toml or DOVETAIL_WORKER_JOBS=10"),
        (("DOVETAIL_WORKER_JOBS", "0"), "a whole number from 1 to 1000"),
        (("DOVETAIL_WORKER_LEASE", "soon"), "DOVETAIL_WORKER_LEASE=10s"),
        (("DOVETAIL_WORKER_LEASE", "2h"), "a time from 1s to 1h"),
        (("DOVETAIL_WORKER_GRANTS", "http"), "DOVETAIL_WORKER_GRANTS=clocks,random"),
        (("DOVETAIL_VISION_THREADS", "-1"), "DOVETAIL_VISION_THREADS=2"),
        (("DOVETAIL_VISION_ENGINE", "tensorflow"), "DOVETAIL_VISION_ENGINE=onnxruntime"),
        (("DOVETAIL_VISION_REQUIRED_ENGINE", "auto"), "DOVETAIL_VISION_REQUIRED_ENGINE=onnxruntime@1.28.0"),
        (("DOVETAIL_VISION_REQUIRED_ENGINE", "opencv@4,6"), "`vision.required_engine = \"onnxruntime@1.28.0\"`"),
        (("DOVETAIL_VISION_ENGINE_THREADS", "257"), "from 1 to 256"),
        (("DOVETAIL_VISION_IMAGES", "much"), "`vision.images = \"32MiB\"`"),
        (("DOVETAIL_LOG_LEVEL", "loud"), "DOVETAIL_LOG_LEVEL=info"),
        (("DOVETAIL_LOG_FORMAT", "xml"), "DOVETAIL_LOG_FORMAT=json"),
    ] {
        let error = resolve(Overrides::default(), &[HOME, pair], None).unwrap_err();
        assert!(
            error.code == "bad_setting" && error.help.as_deref().unwrap().contains(example),
            "{pair:?}: {}",
            error.chain()
        );
    }
}

#[test]
fn without_a_home_the_data_folder_must_be_named() {
    assert_eq!(resolve(Overrides::default(), &[], None).unwrap_err().code, "no_home");
}

#[test]
fn what_is_no_toml_is_told_without_a_list_of_keys() {
    let error = resolve(Overrides::default(), &[HOME], Some("data = \"x\"\nqueue = redis\n")).unwrap_err();
    assert!(error.message.starts_with("/etc/d/dovetail.toml:2:"), "{}", error.message);
    let help = error.help.unwrap();
    assert!(help.contains("TOML") && !help.contains("engine_threads"), "{help}");
}

#[test]
fn a_place_with_one_slash_is_shown_as_it_was_given_and_a_password_is_not() {
    let said = |queue: &str| {
        resolve(Overrides { queue: Some(queue.to_owned()), ..Overrides::default() }, &[HOME], None).unwrap_err().message
    };
    assert!(
        said("redis:/127.0.0.1:6379/0").contains("`redis:/127.0.0.1:6379/0`"),
        "{}",
        said("redis:/127.0.0.1:6379/0")
    );
    assert!(!said("redis:/u:hidden@h/0").contains("hidden"), "{}", said("redis:/u:hidden@h/0"));
}

#[test]
fn a_library_that_no_engine_would_open_is_refused_and_the_old_name_of_the_threads_is_known() {
    let file = |text: &str| resolve(Overrides::default(), &[HOME], Some(text));
    let both = file("[vision]\nengine = \"opencv\"\nonnxruntime = \"/lib/x.so\"\n").unwrap_err();
    assert!(both.code == "bad_setting" && both.message.contains("no effect"), "{}", both.chain());
    let both = [HOME, ("DOVETAIL_VISION_ENGINE", "opencv"), ("DOVETAIL_VISION_ONNXRUNTIME", "/lib/x.so")];
    assert_eq!(resolve(Overrides::default(), &both, None).unwrap_err().code, "bad_setting");
    // A variable for one command may differ from the file of the machine.
    let pairs = [HOME, ("DOVETAIL_VISION_ENGINE", "opencv")];
    let text = "[vision]\nonnxruntime = \"lib/x.so\"\n";
    let mixed = resolve(Overrides::default(), &pairs, Some(text)).unwrap();
    assert_eq!(mixed.onnxruntime.as_deref(), Some(Path::new("/etc/d/lib/x.so")), "relative to the file");

    assert_eq!(file("[vision]\nopencv_threads = 5\n").unwrap().engine_threads, 5);
    let old = ("DOVETAIL_VISION_OPENCV_THREADS", "5");
    assert_eq!(resolve(Overrides::default(), &[HOME, old], None).unwrap().engine_threads, 5);
    let both = [HOME, old, ("DOVETAIL_VISION_ENGINE_THREADS", "3")];
    assert_eq!(resolve(Overrides::default(), &both, None).unwrap().engine_threads, 3, "the new name wins");
}
