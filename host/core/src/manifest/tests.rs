//! A complete manifest, every error with its line, and each limit obeyed and exceeded.

use super::*;

const HEAD: &str = "name = \"face-attributes\"\nversion = \"1.0.0\"\ndescription = \"Age\"\n";

fn with(rest: &str) -> Result<Manifest, ManifestErrors> {
    Manifest::parse(&format!("{HEAD}{rest}"))
}

/// Each error as `line:column message`.
fn wrong(text: &str) -> Vec<String> {
    Manifest::parse(text).unwrap_err().0.iter().map(|e| format!("{}:{} {}", e.line, e.column, e.message)).collect()
}

#[test]
fn a_whole_manifest() {
    let manifest = with(
        "license = \"MIT\"\n[limits]\nmemory = \"128MiB\"\ntime = \"500ms\"\noutput = \"1 MiB\"\nlog = \
         \"1B\"\nhandles = 7\nartifacts = \"1GiB\"\n[grants]\nclocks = true\nhttp = [\"https://api.example.com:8443\"]",
    )
    .unwrap();
    assert_eq!((manifest.name.as_str(), manifest.version.to_string().as_str()), ("face-attributes", "1.0.0"));
    assert_eq!(manifest.license.as_deref(), Some("MIT"));
    assert_eq!(
        manifest.limits,
        Limits { memory: 128 << 20, time_ms: 500, output: 1 << 20, log: 1, handles: 7, artifacts: 1 << 30 }
    );
    assert_eq!(
        manifest.grants,
        Grants { clocks: true, random: false, http: vec!["https://api.example.com:8443".into()] }
    );
}

#[test]
fn what_is_left_out_is_the_default() {
    let manifest = with("[limits]\n").unwrap();
    assert_eq!((manifest.limits, manifest.grants, manifest.license), (Limits::DEFAULT, Grants::default(), None));
}

#[test]
fn every_mistake_is_found_with_its_line() {
    let text = "nam = \"x\"\nname = \"Face_Attributes\"\nversion = \"1.0\"\ndescription = \"\"\nlicense = \
                1\n[limits]\nmemory = \"64MB\"\ntime = 30\nmemroy = \"1B\"\nhandles = 0\n[grants]\nclocks = \
                \"yes\"\nhttp = [\"api.example.com\", \"https://a/b\"]\n";
    assert_eq!(
        wrong(text),
        [
            "1:1 unknown key `nam`; did you mean `name`?",
            "2:8 `Face_Attributes` is not a valid name: write 1 to 64 lower-case letters, digits and single `-` \
             between them, a letter first",
            "3:11 `1.0` is not a valid version (such as `1.0.0`): unexpected end of input while parsing minor version \
             number",
            "4:15 the description must have 1 to 500 characters",
            "5:11 `license` must be a string: put it in quotes",
            "7:10 `memory`: `64MB` is not a valid size: write a whole number and one of `B`, `KiB`, `MiB`, `GiB`, such \
             as `64MiB`",
            "8:8 `time` must be a string: put it in quotes",
            "9:1 unknown key `memroy` in [limits]; did you mean `memory`?",
            "10:11 `handles` must be a whole number from 1 to 10000",
            "12:10 `clocks` must be true or false",
            "13:9 `api.example.com` is not a valid origin: write scheme and host, without a path, such as \
             `https://api.example.com`",
            "13:28 `https://a/b` is not a valid origin: write scheme and host, without a path, such as \
             `https://api.example.com`",
        ]
    );
}

#[test]
fn what_is_missing_and_what_is_no_toml() {
    assert_eq!(wrong("").len(), 3);
    assert!(wrong("version = \"1.0.0\"\ndescription = \"ü\"\n")[0].starts_with("1:1 `name` is missing"));
    let broken = wrong("name = \"a\"\nversion = \n");
    assert!(broken.len() == 1 && broken[0].starts_with("2:") && broken[0].contains("not valid TOML"), "{broken:?}");
    assert!(
        wrong("name = \"a\"\nname = \"b\"\n")[0].contains("duplicate key"),
        "{:?}",
        wrong("name = \"a\"\nname = \"b\"\n")
    );
    assert!(with("limits = 3").unwrap_err().to_string().starts_with("line 4, column 10: `limits` must be a table"));
}

#[test]
fn limits_up_to_the_maxima() {
    let most = Limits::MAXIMA;
    let cases = [
        ("memory", show_size(most.memory), show_size(most.memory + 1)),
        ("time", show_duration_ms(most.time_ms), show_duration_ms(most.time_ms + 1)),
        ("output", show_size(most.output), show_size(most.output + 1)),
        ("log", show_size(most.log), show_size(most.log + 1)),
    ];
    for (key, obeyed, violated) in cases {
        assert!(with(&format!("[limits]\n{key} = \"{obeyed}\"")).is_ok(), "{key}");
        let error = with(&format!("[limits]\n{key} = \"{violated}\"")).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("line 5, column {}: `{key}` is {violated}, and the host allows at most {obeyed}", key.len() + 4)
        );
        let nought = if key == "time" { "0s" } else { "0B" };
        assert!(
            with(&format!("[limits]\n{key} = \"{nought}\""))
                .unwrap_err()
                .to_string()
                .ends_with("must be more than nought")
        );
    }
    assert_eq!(with("[limits]\nhandles = 10_000").unwrap().limits.handles, 10_000);
    assert!(with("[limits]\nhandles = 10001").is_err());
    assert_eq!(with("[limits]\nartifacts = \"4GiB\"").unwrap().limits.artifacts, 4 << 30);
    assert!(with("[limits]\nartifacts = \"5GiB\"").is_err());
}

#[test]
fn names_and_descriptions_have_a_longest() {
    let named = |n| Manifest::parse(&format!("name = \"{}\"\nversion = \"1.0.0\"\ndescription = \"x\"", "a".repeat(n)));
    assert!(named(64).is_ok() && named(65).is_err() && named(0).is_err());
    let described =
        |n| Manifest::parse(&format!("name = \"a\"\nversion = \"1.0.0\"\ndescription = \"{}\"", "ä".repeat(n)));
    assert!(described(500).is_ok() && described(501).is_err());
}

#[test]
fn origins() {
    for good in ["https://a.example.com", "http://localhost:8080"] {
        assert!(is_origin(good), "{good}");
    }
    for bad in [
        "https://",
        "ftp://a",
        "https://a/",
        "https://u@a",
        "https://a:0",
        "https://a:99999",
        "https://*.a",
        "https://a..b",
    ] {
        assert!(!is_origin(bad), "{bad}");
    }
}

#[test]
fn recorded_grants_are_read_in_every_form_also_of_later_versions() {
    let grants = Grants { clocks: true, random: false, http: vec!["https://a".into()] };
    let recorded = serde_json::to_value(grants.recorded()).unwrap();
    assert_eq!(recorded, serde_json::json!({ "clocks": true, "http": ["https://a"] }));
    let later = serde_json::json!({ "clocks": true, "gpu": {"mb": 512}, "net": "lan", "http": ["https://a"] });
    let read: BTreeMap<String, Grant> = serde_json::from_value(later.clone()).unwrap();
    assert_eq!(read["clocks"], Grant::Given(true));
    assert_eq!(read["http"], Grant::Origins(vec!["https://a".into()]));
    assert_eq!(read["gpu"].to_string(), r#"{"mb":512}"#);
    assert_eq!(serde_json::to_value(&read).unwrap(), later, "nothing is lost");
}
