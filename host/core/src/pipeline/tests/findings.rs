//! Every kind of finding with its place, alone and together with others.

use serde_json::json;

use super::*;

/// Small tasks.
fn tasks() -> ListCatalogue {
    ListCatalogue(vec![
        task("make", "1.0.0", &["seed: option<u32>"], &["point: record { x: f32, y: f32 }", "n: u32"]),
        task("make", "1.2.0", &["seed: option<u32>"], &["point: record { x: f32, y: f32 }", "n: u32"]),
        task(
            "take",
            "1.0.0",
            &["point: record { x: f32, y: f64 }", "n: option<u64>", "names: option<list<string>>"],
            &["text: string"],
        ),
        task("pick", "1.0.0", &["text: string", "mode: option<enum { fast, exact-only }>"], &["text: string"]),
        task("tell", "1.0.0", &["text: string"], &[]),
    ])
}

/// Each finding as `line:column code pointer: message`.
fn found(text: &str) -> Vec<String> {
    let checked = check(text, &tasks());
    let refused = checked.findings.iter().any(|finding| finding.severity == Severity::Error);
    assert_eq!(checked.pipeline.is_none(), refused, "a pipeline exactly if there is no error");
    checked.findings.iter().for_each(|finding| stands_there(text, finding));
    checked
        .findings
        .iter()
        .map(|f| format!("{}:{} {} {}: {}", f.line, f.column, f.code.as_str(), f.pointer, f.message))
        .collect()
}

/// Checks that the finding's place is the last key of its pointer, or the value of that key. If the key does not exist,
/// the place is the key before.
fn stands_there(text: &str, finding: &Finding) {
    let line: Vec<char> = text.lines().nth(finding.line as usize - 1).unwrap_or_default().chars().collect();
    let (before, at) = line.split_at(finding.column as usize - 1);
    let (before, at) = (before.iter().collect::<String>(), at.iter().collect::<String>());
    let named = |name: &str| {
        at.starts_with(&format!("\"{name}\"")) || before.trim_end_matches([':', ' ']).ends_with(&format!("\"{name}\""))
    };
    let is_item = |name: &str| name.parse::<usize>().is_ok() && before.ends_with([' ', '[']);
    let mut names = finding.pointer.rsplit('/');
    let found = finding.pointer.is_empty() || names.by_ref().take(2).any(|name| named(name) || is_item(name));
    assert!(found, "{finding} points at `{at}`");
}

/// A file with these steps and this output on separate lines. The steps begin on line 3.
fn file(inputs: &str, steps: &str, output: &str) -> String {
    format!(
        "{{ \"name\": \"p\", \"version\": \"1.0.0\", \"inputs\": {{{inputs}}},\n\"steps\": {{\n{steps}\n}}, \
         \"output\": {{{output}}} }}"
    )
}

const MAKE: &str = r#""make": {"number": 1, "task": "make"}"#;

#[test]
fn nothing_wrong() {
    let good = file(
        "",
        &format!("{MAKE},\n\"take\": {{\"number\": 2, \"task\": \"take\", \"inputs\": {{\"point\": \"make.point\"}}}}"),
        r#""text": "take.text""#,
    );
    assert_eq!(found(&good), [""; 0]);
    // The step is pinned to the newest matching version.
    assert_eq!(check(&good, &tasks()).pipeline.unwrap().steps[0].version.to_string(), "1.2.0");
}

#[test]
fn syntax() {
    assert_eq!(found("{\n  \"name\": \"p\",\n}"), ["3:1 syntax : this is not valid JSON: trailing comma"]);
    assert_eq!(found(""), ["1:1 syntax : this is not valid JSON: EOF while parsing a value"]);
    assert_eq!(found("[]"), ["1:1 bad_value : a pipeline is an object, and this is an array of 0"]);
}

#[test]
fn duplicate_keys() {
    let text = file("", &format!("{MAKE},\n{MAKE}"), r#""n": "make.n""#);
    assert_eq!(found(&text), ["4:1 duplicate_key /steps/make: the key `make` stands here twice"]);
    // The error is deep inside a literal.
    let text = file(
        "",
        r#""make": {"number": 1, "task": "make", "inputs": {"seed": {"value": 1, "value": 2}}}"#,
        r#""n": "make.n""#,
    );
    assert_eq!(found(&text), ["3:71 duplicate_key /steps/make/inputs/seed/value: the key `value` stands here twice"]);
    let text = file(
        "",
        r#""make": {"number": 1, "task": "make", "inputs": {"seed": {"value": [{"a": {"k": 1, "k": 2}}]}}}"#,
        r#""n": "make.n""#,
    );
    let within = "3:84 duplicate_key /steps/make/inputs/seed/value/0/a/k: the key `k` stands here twice";
    assert!(found(&text).contains(&within.to_owned()), "{:?}", found(&text));
}

#[test]
fn unknown_keys() {
    let text = file(
        r#""a": {"defualt": 1}"#,
        concat!(
            r#""make": {"number": 1, "task": "make", "retries": 3, "#,
            r#""inputs": {"seed": "input.a"}, "retry": {"attempts": 2}}"#
        ),
        r#""n": "make.n""#,
    )
    .replacen("{ \"name\"", "{ \"onfailure\": 1, \"name\"", 1);
    assert_eq!(
        found(&text),
        [
            "1:3 unknown_key /onfailure: unknown key `onfailure`; did you mean `on_failure`?",
            "1:69 unknown_key /inputs/a/defualt: unknown key `defualt`; did you mean `default`?",
            "3:39 unknown_key /steps/make/retries: unknown key `retries`",
            "3:94 unknown_key /steps/make/retry/attempts: unknown key `attempts`",
        ]
    );
    let literal = file(
        "",
        r#""make": {"number": 1, "task": "make", "inputs": {"seed": {"value": 1, "type": "u32"}}}"#,
        r#""n": "make.n""#,
    );
    assert_eq!(found(&literal), ["3:71 unknown_key /steps/make/inputs/seed/type: unknown key `type`"]);
}

#[test]
fn unknown_steps() {
    for (source, message) in [
        ("mkae.n", "there is no step `mkae`; did you mean `make`?"),
        ("inputs.a", "there is no step `inputs`; did you mean `input`?"),
        ("output_007_n", "`output_007_n` does not exist: no step has the number 7"),
        ("output_1_n", "`output_1_n` is not a unique ID: numbers have three digits"),
        ("output_0001_n", "`output_0001_n` is not a unique ID: numbers have three digits"),
        ("take_output_001.n", "`take_output_001` does not exist: the step 1 runs make"),
        ("make_output_002.n", "`make_output_002` does not exist: no step has the number 2"),
    ] {
        let text = file("", MAKE, &format!("\"n\": \"{source}\", \"m\": \"make.n\""));
        assert_eq!(found(&text), [format!("4:20 unknown_step /output/n: {message}")], "{source}");
    }
    // The step that was probably meant is not reported as unused too.
    assert_eq!(found(&file("", MAKE, r#""n": "mkae.n""#)).len(), 1);
}

#[test]
fn unknown_fields() {
    for (source, message) in [
        ("make.m", "the output of make@1.2.0 has no field `m`; did you mean `n`?"),
        ("make.point.z", "`point` has no field `z`; did you mean `x`?"),
        ("make.n.x", "`n` has no field `x`: it is u32, not a record"),
        ("output_001_pint", "the output of make@1.2.0 has no field `pint`; did you mean `point`?"),
        ("make", "`make` names a whole step"),
        ("make_output_001", "`make_output_001` names a whole step"),
        ("input.a", "the pipeline has no input `a`"),
        ("input", "`input` alone names no input"),
    ] {
        let text = file("", MAKE, &format!("\"n\": \"{source}\", \"m\": \"make.n\""));
        assert_eq!(found(&text), [format!("4:20 unknown_field /output/n: {message}")], "{source}");
    }
    let text =
        file("", r#""make": {"number": 1, "task": "make", "inputs": {"sead": {"value": 1}}}"#, r#""n": "make.n""#);
    assert_eq!(
        found(&text),
        ["3:58 unknown_field /steps/make/inputs/sead: make@1.2.0 has no input `sead`; did you mean `seed`?"]
    );
}

#[test]
fn unknown_tasks_and_versions() {
    let text = file(
        "",
        "\"a\": {\"number\": 1, \"task\": \"maek\"},\n\"b\": {\"number\": 2, \"task\": \"make@^2\"}",
        r#""n": "a.n", "m": "b.n""#,
    );
    assert_eq!(
        found(&text),
        [
            "3:28 unknown_task /steps/a/task: there is no task `maek`; did you mean `make`?",
            "4:28 unknown_version /steps/b/task: `make` has no version that satisfies `^2`",
        ]
    );
    assert_eq!(check(&text, &tasks()).findings[1].details["available"], json!(["1.2.0", "1.0.0"]));
}

#[test]
fn type_mismatches() {
    let text = file(
        "",
        &format!("{MAKE},\n\"pick\": {{\"number\": 2, \"task\": \"pick\", \"inputs\": {{\"text\": \"make.point\"}}}}"),
        r#""t": "pick.text""#,
    );
    assert_eq!(
        found(&text),
        ["4:58 type_mismatch /steps/pick/inputs/text: `output_001_point` does not fit `input_002_text` of pick \
             (pick@1.0.0): record { x: f32, y: f32 } meets string: record is not compatible with string"]
    );
    let finding = &check(&text, &tasks()).findings[0];
    assert_eq!(json!(finding.details), json!({ "from": "record { x: f32, y: f32 }", "to": "string", "at": "" }));
    assert!(finding.to_string().ends_with("\n    gives  record { x: f32, y: f32 }\n    needs  string"), "{finding}");
    assert_eq!(
        (finding.code, finding.pointer.as_str(), finding.line),
        (Code::TypeMismatch, "/steps/pick/inputs/text", 4)
    );

    // The types differ deep inside: the message names that place.
    let wide = ListCatalogue(vec![
        task("make", "1.0.0", &[], &["faces: list<record { bbox: record { x: f64 } }>"]),
        task("take", "1.0.0", &["faces: list<record { bbox: record { x: f32 } }>"], &["n: u32"]),
    ]);
    let text = file(
        "",
        &format!("{MAKE},\n\"take\": {{\"number\": 2, \"task\": \"take\", \"inputs\": {{\"faces\": \"make.faces\"}}}}"),
        r#""n": "take.n""#,
    );
    let checked = check(&text, &wide);
    assert_eq!(checked.findings[0].details["at"], "[].bbox.x");
    assert!(
        checked.findings[0].message.ends_with("at `[].bbox.x`, f64 meets f32: not every f64 is a f32"),
        "{}",
        checked.findings[0].message
    );

    // Two steps need different types of one input.
    let steps = "\"make\": {\"number\": 1, \"task\": \"make\", \"inputs\": {\"seed\": \"input.a\"}},\n\"pick\": \
                 {\"number\": 2, \"task\": \"pick\", \"inputs\": {\"text\": \"input.a\"}}";
    let text = file("\"a\": {}", steps, r#""n": "make.n", "t": "pick.text""#);
    assert_eq!(
        found(&text),
        ["4:58 type_mismatch /steps/pick/inputs/text: the input `a` feeds `input_001_seed` of make (make@1.2.0) \
             and `input_002_text` of pick (pick@1.0.0), and no type fits both"]
    );
}

#[test]
fn cycles() {
    let text = file(
        "",
        "\"a\": {\"number\": 1, \"task\": \"pick\", \"inputs\": {\"text\": \"b.text\"}},\n\"b\": {\"number\": 2, \
         \"task\": \"pick\", \"inputs\": {\"text\": \"output_001_text\"}},\n\"c\": {\"number\": 3, \"task\": \
         \"pick\", \"inputs\": {\"text\": \"c.text\"}},\n\"d\": {\"number\": 4, \"task\": \"pick\", \"inputs\": \
         {\"text\": \"c.text\"}}",
        r#""t": "d.text""#,
    );
    assert_eq!(
        found(&text),
        [
            "3:55 cycle /steps/a/inputs/text: steps wait for one another: `a` waits for `b` waits for `a`",
            "5:55 cycle /steps/c/inputs/text: `c` waits for itself"
        ]
    );
    assert_eq!(check(&text, &tasks()).findings[0].details["steps"], json!(["a", "b"]));
}

#[test]
fn duplicate_numbers() {
    let text = file(
        "",
        &format!("{MAKE},\n\"more\": {{\"number\": 1, \"task\": \"make\"}}"),
        r#""n": "make.n", "m": "more.n""#,
    );
    assert_eq!(
        found(&text),
        ["4:20 duplicate_number /steps/more/number: the steps `make` and `more` have the same number, 1"]
    );
    assert_eq!(check(&text, &tasks()).findings[0].help.as_deref(), Some("unique IDs are made of it; 2 is free"));
}

#[test]
fn missing_inputs() {
    let text = file(
        "",
        "\"take\": {\"number\": 1, \"task\": \"take\", \"inputs\": {\"n\": {\"value\": 1}}},\n\"pick\": {\"number\": \
         2, \"task\": \"pick\"}",
        r#""t": "take.text", "u": "pick.text""#,
    );
    assert_eq!(
        found(&text),
        [
            "3:49 missing_input /steps/take/inputs: `point` of take@1.0.0 is not mapped, and it must be: it is record \
             { x: f32, y: f64 }",
            "4:9 missing_input /steps/pick/inputs: `text` of pick@1.0.0 is not mapped, and it must be: it is string",
        ]
    );
}

#[test]
fn bad_values() {
    // Each value at a place of its own, and its finding.
    let step = |rest: &str| file("", &format!("\"make\": {{{rest}}}"), r#""n": "make.n""#);
    for (text, pointer, message) in [
        (step(r#""number": 0, "task": "make""#), "/steps/make/number", "`number` cannot be the number 0"),
        (step(r#""number": 10000, "task": "make""#), "/steps/make/number", "`number` cannot be the number 10000"),
        (step(r#""number": "1", "task": "make""#), "/steps/make/number", "`number` cannot be the string \"1\""),
        (step(r#""task": "make""#), "/steps/make", "`number` is missing"),
        (step(r#""number": 1"#), "/steps/make", "`task` is missing"),
        (
            step(r#""number": 1, "task": "Make""#),
            "/steps/make/task",
            "`Make` is not a valid name of a task: write NAME or NAME@VERSION, such as `face-detection@^1`",
        ),
        (
            step(r#""number": 1, "task": "make", "timeout": "0s""#),
            "/steps/make/timeout",
            "`timeout` is 0s, which is not allowed",
        ),
        (
            step(r#""number": 1, "task": "make", "timeout": "601s""#),
            "/steps/make/timeout",
            "`timeout` is 601s, which is not allowed",
        ),
        (
            step(r#""number": 1, "task": "make", "timeout": 30"#),
            "/steps/make/timeout",
            "`timeout` must be a string, and this is the number 30",
        ),
        (
            step(r#""number": 1, "task": "make", "retry": {"max_attempts": 11}"#),
            "/steps/make/retry/max_attempts",
            "`max_attempts` cannot be the number 11",
        ),
        (
            step(r#""number": 1, "task": "make", "retry": {"max_attempts": 0}"#),
            "/steps/make/retry/max_attempts",
            "`max_attempts` cannot be the number 0",
        ),
        (
            step(r#""number": 1, "task": "make", "retry": {"backoff": "2h"}"#),
            "/steps/make/retry/backoff",
            "`backoff` is 2h, which is not allowed",
        ),
        (
            step(r#""number": 1, "task": "make", "retry": {"backoff": "2s", "max_backoff": "1s"}"#),
            "/steps/make/retry/max_backoff",
            "`max_backoff` is less than `backoff`, which is 2s",
        ),
        (
            step(r#""number": 1, "task": "make", "inputs": {"seed": 3}"#),
            "/steps/make/inputs/seed",
            "the number 3 is not a valid source",
        ),
        (
            step(r#""number": 1, "task": "make", "inputs": {"seed": "..n"}"#),
            "/steps/make/inputs/seed",
            "`..n` is not a valid source",
        ),
        (
            step(r#""number": 1, "task": "make", "inputs": []"#),
            "/steps/make/inputs",
            "`inputs` must be an object, and this is an array of 0",
        ),
        (
            step(r#""number": 1, "task": "make", "inputs": {"seed": {"value": -1}}"#),
            "/steps/make/inputs/seed/value",
            "the value does not fit `input_001_seed` of make (make@1.2.0): expected u32, found the number -1: write \
             an integer from 0 to 4294967295",
        ),
        (file("", MAKE, ""), "/output", "`output` is empty"),
        (
            file("", MAKE, r#""n": {"value": 1}, "m": "make.n""#),
            "/output/n",
            "a run's output comes from a step or an input, not from a literal",
        ),
        (file("", MAKE, r#""N": "make.n""#), "/output/N", "`N` is not a valid name of an output"),
        (
            file(r#""a": {}"#, MAKE, r#""n": "make.n""#),
            "/inputs/a",
            "no step reads the input `a`, so that it has no type",
        ),
        (
            file(r#""a": {}"#, MAKE, r#""n": "make.n", "a": "input.a""#),
            "/inputs/a",
            "no step reads the input `a`, so that it has no type",
        ),
        (
            file(
                r#""a": 1"#,
                &MAKE.replace("\"make\"}", "\"make\", \"inputs\": {\"seed\": \"input.a\"}}"),
                r#""n": "make.n""#,
            ),
            "/inputs/a",
            "an input is an object, and this is the number 1",
        ),
        (
            file(
                r#""a": {"default": "x"}"#,
                &MAKE.replace("\"make\"}", "\"make\", \"inputs\": {\"seed\": \"input.a\"}}"),
                r#""n": "make.n""#,
            ),
            "/inputs/a/default",
            "the default of `a` does not fit the connected steps: expected u32, found the string \"x\": write an \
             integer from 0 to 4294967295",
        ),
        (
            step(r#""number": 1, "task": "make""#).replace("\"p\"", "\"P\""),
            "/name",
            "`P` is not a valid name of a pipeline",
        ),
        (
            step(r#""number": 1, "task": "make""#).replace("1.0.0", "1"),
            "/version",
            "`1` is not a valid version: unexpected end of input while parsing major version number",
        ),
        (
            step(r#""number": 1, "task": "make""#).replace("{ \"name\"", "{ \"timeout\": \"8d\", \"name\""),
            "/timeout",
            "`timeout` is 8d, which is not allowed",
        ),
        (
            step(r#""number": 1, "task": "make""#).replace("{ \"name\"", "{ \"on_failure\": \"stop\", \"name\""),
            "/on_failure",
            "`stop` is not a valid policy",
        ),
        (
            "{\"version\": \"1.0.0\", \"steps\": {}, \"output\": {\"a\": {\"value\": 1}}}"
                .replace("{\"a\": {\"value\": 1}}", "3"),
            "",
            "`name` is missing",
        ),
    ] {
        let checked = check(&text, &tasks());
        let told: Vec<_> = checked.findings.iter().map(|f| (f.code, f.pointer.as_str(), f.message.as_str())).collect();
        assert!(told.contains(&(Code::BadValue, pointer, message)), "{pointer}: {told:?}");
        assert!(checked.pipeline.is_none());
        let errors = || checked.findings.iter().filter(|finding| finding.severity == Severity::Error);
        assert!(errors().all(|finding| finding.code == Code::BadValue), "nothing follows from it: {told:?}");
    }
}

#[test]
fn names_that_steps_may_not_have() {
    for name in ["input", "output_1_x", "input_001_a", "make_output_001"] {
        let text = file(
            "",
            &format!(
                "\"{name}\": {{\"number\": 1, \"task\": \"make\"}},\n\"b\": {{\"number\": 2, \"task\": \"make\"}}"
            ),
            r#""n": "b.n""#,
        );
        assert!(
            found(&text)[0].starts_with(&format!("3:1 bad_value /steps/{name}: `{name}` is reserved")),
            "{:?}",
            found(&text)
        );
    }
    let text = file("", "\"Make\": {\"number\": 1, \"task\": \"make\"}", r#""n": "Make.n""#);
    assert_eq!(found(&text), ["3:1 bad_value /steps/Make: `Make` is not a valid name of a step"]);
}

#[test]
fn unused_outputs_are_warnings() {
    let text = file(
        "",
        &format!(
            "{MAKE},\n\"more\": {{\"number\": 2, \"task\": \"make\"}},\n\"tell\": {{\"number\": 3, \"task\": \
             \"tell\", \"inputs\": {{\"text\": {{\"value\": \"x\"}}}}}}"
        ),
        r#""n": "make.n""#,
    );
    // A task without outputs runs for its effects.
    assert_eq!(
        found(&text),
        ["4:9 unused_output /steps/more: the pipeline uses no output of the step `more`: `point`, `n`"]
    );
    let checked = check(&text, &tasks());
    assert_eq!((checked.findings[0].severity, checked.pipeline.is_some()), (Severity::Warning, true));
}

#[test]
fn everything_at_once() {
    let text = r#"{
  "name": "all-wrong",
  "version": "1.0.0",
  "timeuot": "1m",
  "inputs": { "seed": {"default": "many"}, "idle": {} },
  "steps": {
    "make":  { "number": 1, "task": "make@^1", "inputs": { "seed": "input.seed" } },
    "take":  { "number": 1, "task": "take", "inputs": { "n": "make.point", "names": {"value": ["a", 2]} } },
    "gone":  { "number": 3, "task": "nowhere" },
    "old":   { "number": 4, "task": "make@^7" },
    "a":     { "number": 5, "task": "pick", "inputs": { "text": "b.text", "mode": {"value": "exact-only"} } },
    "b":     { "number": 6, "task": "pick", "inputs": { "text": "a.text", "text": "a.text" } },
    "lost":  { "number": 7, "task": "pick", "inputs": { "text": "nobody.text", "txt": "gone.text" } },
    "spare": { "number": 8, "task": "make", "timeout": "1h" }
  },
  "output": { "text": "take.txet" }
}"#;
    assert_eq!(
        found(text),
        [
            "4:3 unknown_key /timeuot: unknown key `timeuot`; did you mean `timeout`?",
            "5:35 bad_value /inputs/seed/default: the default of `seed` does not fit the connected steps: expected \
             u32, found the string \"many\": write an integer from 0 to 4294967295",
            "5:52 bad_value /inputs/idle: no step reads the input `idle`, so that it has no type",
            "8:26 duplicate_number /steps/take/number: the steps `make` and `take` have the same number, 1",
            "8:55 missing_input /steps/take/inputs: `point` of take@1.0.0 is not mapped, and it must be: it is record \
             { x: f32, y: f64 }",
            "8:62 type_mismatch /steps/take/inputs/n: `output_001_point` does not fit `input_001_n` of take \
             (take@1.0.0): record { x: f32, y: f32 } meets u64: record is not compatible with u64",
            "8:101 bad_value /steps/take/inputs/names/value/1: the value does not fit `input_001_names` of take \
             (take@1.0.0): expected string, found the number 2: put it in quotes",
            "9:37 unknown_task /steps/gone/task: there is no task `nowhere`",
            "10:37 unknown_version /steps/old/task: `make` has no version that satisfies `^7`",
            "11:65 cycle /steps/a/inputs/text: steps wait for one another: `a` waits for `b` waits for `a`",
            "11:93 bad_value /steps/a/inputs/mode/value: the value does not fit `input_005_mode` of a (pick@1.0.0): \
             `exact-only` is none of `fast`, `exact_only`; did you mean `exact_only`?",
            "12:75 duplicate_key /steps/b/inputs/text: the key `text` stands here twice",
            "13:14 unused_output /steps/lost: the pipeline uses no output of the step `lost`: `text`",
            "13:65 unknown_step /steps/lost/inputs/text: there is no step `nobody`",
            "13:87 unknown_field /steps/lost/inputs/txt: pick@1.0.0 has no input `txt`; did you mean `text`?",
            "14:14 unused_output /steps/spare: the pipeline uses no output of the step `spare`: `point`, `n`",
            "14:56 bad_value /steps/spare/timeout: `timeout` is 1h, which is not allowed",
            "16:23 unknown_field /output/text: the output of take@1.0.0 has no field `txet`; did you mean `text`?",
        ]
    );
}

#[test]
fn limits_of_a_file() {
    let steps = |n: usize| {
        (1..=n)
            .map(|i| {
                format!(
                    "\"s{i}\": {{\"number\": {i}, \"task\": \"tell\", \"inputs\": {{\"text\": {{\"value\": \"x\"}}}}}}"
                )
            })
            .collect::<Vec<_>>()
            .join(",\n")
    };
    let with = |n: usize| {
        file("", &format!("{MAKE},\n{}", steps(n).replace("\"number\": 1,", "\"number\": 9999,")), r#""n": "make.n""#)
    };
    assert_eq!(found(&with(MAX_STEPS - 1)), [""; 0]);
    assert_eq!(found(&with(MAX_STEPS)), ["2:10 bad_value /steps: there are 1001 steps"]);
    // Findings beyond the limit are counted.
    let many = file(
        "",
        &format!(
            "{MAKE},\n{}",
            steps(300).replace("\"tell\"", "\"nowhere\"").replace("\"number\": 1,", "\"number\": 9999,")
        ),
        r#""n": "make.n""#,
    );
    let checked = check(&many, &tasks());
    assert_eq!((checked.findings.len(), checked.omitted), (200, 100));
    assert_eq!(check(&with(3), &tasks()).omitted, 0);
    // Warnings never displace errors, wherever the errors are.
    let spare = (1..=300)
        .map(|i| format!("\"s{i}\": {{\"number\": {}, \"task\": \"make\"}}", i + 1))
        .collect::<Vec<_>>()
        .join(",\n");
    let gone = |at: &str| {
        file(
            "",
            &format!(
                "{MAKE},\n{}",
                spare.replace(&format!("\"s{at}\": {{"), &format!("\"s{at}\": {{\"timeuot\": 1, "))
            ),
            r#""n": "make.n""#,
        )
    };
    for at in ["1", "300"] {
        let checked = check(&gone(at), &tasks());
        let errors: Vec<_> = checked
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(|f| f.pointer.clone())
            .collect();
        assert_eq!((errors, checked.findings.len()), (vec![format!("/steps/s{at}/timeuot")], 200));
        assert!(checked.findings.is_sorted_by_key(|finding| (finding.line, finding.column)) && checked.omitted > 0);
    }
}
