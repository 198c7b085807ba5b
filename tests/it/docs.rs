//! The documents: their links name existing files and headings, and the README's commands and examples are those that
//! the tests run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{files, root, text};

fn readme() -> String {
    text(Path::new("README.md"))
}

/// The fenced blocks of this language, in their order.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let opens = format!("```{language}\n");
    let found = page.split(&opens).skip(1).filter_map(|rest| rest.split("```").next());
    found.map(str::to_owned).collect()
}

/// The page without its fenced blocks and inline code: brackets mean links only outside of them.
fn prose(page: &str) -> String {
    let outside = page.split("```").step_by(2).collect::<String>();
    outside.split('`').step_by(2).collect()
}

/// The targets of a page's links. A link is `](TARGET)`.
fn targets(page: &str) -> Vec<String> {
    let prose = prose(page);
    let found = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    found.map(str::to_owned).collect()
}

/// The anchors of a page, as GitHub makes them of headings.
fn anchors(page: &str) -> Vec<String> {
    let outside = page.split("```").step_by(2).collect::<String>();
    let headings = outside.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings.map(|h| h.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// The fault of a link on `page`; `None` if its target exists.
fn broken(page: &Path, target: &str) -> Option<String> {
    if target.contains("://") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if path.is_empty() { page.to_owned() } else { page.parent().unwrap_or(Path::new("")).join(path) };
    if !root().join(&file).try_exists().unwrap_or(false) {
        return Some(format!("{}: `{target}` names no file", page.display()));
    }
    let known = anchor.is_empty() || anchors(&text(&file)).iter().any(|known| known == anchor);
    (!known).then(|| format!("{}: `{target}` names no heading", page.display()))
}

#[test]
fn every_link_leads_somewhere() {
    let pages = files(".", ".md");
    assert!(pages.len() > 20, "only {} pages were found", pages.len());
    let links: Vec<(PathBuf, String)> =
        pages.iter().flat_map(|page| targets(&text(page)).into_iter().map(|target| (page.clone(), target))).collect();
    assert!(links.len() > 50, "only {} links were found", links.len());
    let broken: Vec<String> = links.iter().filter_map(|(page, target)| broken(page, target)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let page = Path::new("docs/fleet.md");
    assert_eq!(broken(page, "figures.md#a-fleet"), None);
    assert_eq!(broken(page, "https://example.com/x"), None);
    assert!(broken(page, "figure.md").is_some_and(|why| why.contains("names no file")));
    assert!(broken(page, "figures.md#a-flee").is_some_and(|why| why.contains("names no heading")));
    assert_eq!(targets("[a](b.md) and `[no](code.md)`\n```text\n[no](block.md)\n```\n![c](d.jpg)"), ["b.md", "d.jpg"]);
}

#[test]
fn the_readme_begins_with_the_demo_and_names_what_ci_runs() {
    let commands = blocks(&readme(), "sh");
    assert_eq!(commands.first().map(|first| first.trim()), Some("./justw demo"));
    let ci = text(Path::new(".ci/run"));
    let run: Vec<&str> = ci.lines().filter(|line| line.starts_with("./justw")).collect();
    assert!(!run.is_empty(), ".ci/run runs nothing");
    for command in run {
        assert!(commands.iter().any(|block| block.trim() == command), "the README has no block with `{command}` alone");
    }
}

#[test]
fn the_page_of_settings_has_every_variable() {
    let page = text(Path::new("docs/settings.md"));
    // Tests set wrong variables on purpose.
    let tests =
        |file: &PathBuf| file.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")));
    let sources = files("host", ".rs").into_iter().filter(|file| !tests(file));
    let mut names: Vec<String> = sources.flat_map(|file| variables(&text(&file))).collect();
    names.sort();
    names.dedup();
    assert!(names.len() > 14, "only {names:?} were found");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "docs/settings.md does not name {name}");
    }
}

/// The variables that a source file reads: the whole strings `"DOVETAIL_..."`. Names that end in `_` are prefixes, and
/// `DOVETAIL_FACE_API` belongs to the test suites.
fn variables(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let ends = code.split("\"DOVETAIL_").skip(1).filter_map(|rest| rest.split('"').next());
    let whole = |end: &&str| end.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let ours = |end: &&str| !end.is_empty() && !end.ends_with('_') && *end != "FACE_API";
    ends.filter(whole).filter(ours).map(|end| format!("DOVETAIL_{end}")).collect()
}

#[test]
fn the_tests_that_reliability_names_are_there() {
    let page = text(Path::new("docs/reliability.md"));
    let sources: Vec<String> = ["tests", "host"].iter().flat_map(|f| files(f, ".rs")).map(|f| text(&f)).collect();
    let functions: Vec<&str> = sources.iter().flat_map(|source| functions(source)).collect();
    let mut named = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let test = row.rsplit('|').nth(1).unwrap_or_default();
        for name in test.split('`').skip(1).step_by(2).filter_map(|span| span.rsplit("::").next()) {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '*');
            if name.contains('_') && name.chars().all(plain) {
                named += 1;
                assert!(functions.iter().any(|function| is_named(function, name)), "there is no test `{name}`");
            }
        }
    }
    assert!(named > 50, "only {named} tests were found");
    assert!(is_named("redis_far_away", "redis_*") && is_named("redis_far_away", "*_away"));
    assert!(!is_named("redis_far_away", "redis_near_...") && !is_named("redis_far_away", "redis_far"));
}

/// The names of the functions of a source file.
fn functions(source: &str) -> impl Iterator<Item = &str> {
    source.split("fn ").skip(1).filter_map(|rest| rest.split('(').next())
}

/// Whether a document's name means this function; `...` or `*` in the name stands for any part.
fn is_named(function: &str, name: &str) -> bool {
    let name = name.replace("...", "*");
    match name.split_once('*') {
        None => function == name,
        Some((begin, end)) => function.strip_prefix(begin).is_some_and(|rest| rest.ends_with(end)),
    }
}

#[test]
fn the_readmes_pipeline_is_good() {
    let file = "pipelines/people.json";
    let shown = blocks(&readme(), "json");
    assert!(shown.contains(&text(Path::new(file))), "the README does not show {file} as it is");
    let program = root().join("target/release/dovetail");
    assert!(program.is_file(), "{} is missing; run `cargo build --release -p dovetail`", program.display());
    let data = tempfile::tempdir().expect("a folder can be made");
    let dovetail = |arguments: &[&str]| -> Output {
        let mut command = Command::new(&program);
        command.current_dir(root()).arg("--data").arg(data.path()).args(arguments).output().expect("the program starts")
    };
    let pushed = dovetail(&["task", "push", "plugins/face-detection", "plugins/face-attributes"]);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let checked = dovetail(&["pipeline", "check", file]);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.contains("people@1.0.0 is good: 2 steps"), "{said}");
    // The mistake that the README shows.
    let wrong = text(Path::new(file)).replace("find.faces_array", "input.photo");
    let mistake = data.path().join("people.json");
    std::fs::write(&mistake, wrong).expect("a file can be written");
    let checked = dovetail(&["pipeline", "check", &mistake.display().to_string()]);
    let said = String::from_utf8_lossy(&checked.stdout);
    let example = blocks(&readme(), "text").into_iter().find(|block| block.contains("error[type_mismatch]"));
    let example = example.expect("the README shows a mistake");
    let example = example.strip_prefix("people.json").expect("the example is about people.json");
    assert!(said.contains(example), "the README shows\n{example}\nand the program says\n{said}");
}
