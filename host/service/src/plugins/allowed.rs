//! Grants of a plugin: the manifest asks for them, and the caller who publishes the plugin allows them.

use std::collections::BTreeMap;

use dovetail_core::manifest::{Grant, Grants};

use crate::Error;

/// The grants that a manifest asks for, as values of `--grant`.
#[must_use]
pub fn asked(grants: &Grants) -> Vec<String> {
    let flag = |on: bool, name: &str| on.then(|| name.to_owned());
    flag(grants.clocks, "clocks")
        .into_iter()
        .chain(flag(grants.random, "random"))
        .chain(grants.http.iter().map(|origin| format!("http={origin}")))
        .collect()
}

/// Refuses a plugin that asks for a grant that the caller did not allow: the caller decides, not the author of the
/// manifest.
///
/// `before` is the newest earlier version that is published, with its grants.
pub(crate) fn allowed(
    name: &str,
    grants: &Grants,
    given: &[String],
    before: Option<&(String, Vec<String>)>,
) -> Result<(), Error> {
    let asked = asked(grants);
    let missing: Vec<&String> = asked.iter().filter(|grant| !given.contains(grant)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.iter().map(|grant| format!("`{grant}`")).collect::<Vec<_>>().join(", ");
    let difference = before.map_or_else(String::new, |(version, had)| {
        let names =
            |names: Vec<&String>| names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let new: Vec<&String> = asked.iter().filter(|grant| !had.contains(grant)).collect();
        let had = if had.is_empty() { "no grants".to_owned() } else { names(had.iter().collect()) };
        let more =
            if new.is_empty() { "this one asks for no more".to_owned() } else { format!("new is {}", names(new)) };
        format!(" (version {version} had {had}; {more})")
    });
    let error = Error::usage("grant_needed", format!("`{name}` asks for {list} without permission{difference}"));
    Err(error
        .help("publish it again with these grants if you allow them")
        .detail("grants", missing.into_iter().cloned().collect::<Vec<_>>()))
}

/// Recorded grants as values of `--grant`.
pub(crate) fn recorded(grants: &BTreeMap<String, Grant>) -> Vec<String> {
    let all = grants.iter().flat_map(|(name, grant)| match grant {
        Grant::Given(true) | Grant::Other(_) => vec![name.clone()],
        Grant::Given(false) => Vec::new(),
        Grant::Origins(origins) => origins.iter().map(|origin| format!("{name}={origin}")).collect(),
    });
    let mut all: Vec<String> = all.collect();
    // Whole capabilities come first, as in `asked`.
    all.sort_by_key(|grant| grant.contains('='));
    all
}

/// Refuses a grant that no plugin asks for: it would have no effect.
pub(crate) fn all_asked_for(given: &[String], asked: &[String]) -> Result<(), Error> {
    match given.iter().find(|grant| !asked.contains(grant)) {
        None => Ok(()),
        Some(grant) => {
            let known = matches!(grant.as_str(), "clocks" | "random") || grant.starts_with("http=");
            let why = if known { "no plugin asks for this grant in its [grants]" } else { "there is no such grant" };
            Err(Error::usage("bad_grant", format!("grant `{grant}`: {why}"))
                .help("the grants are clocks and random; leave out grants that no plugin asks for"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_decides() {
        let grants = Grants { clocks: true, random: false, http: vec!["https://a".into()] };
        assert_eq!(asked(&grants), ["clocks", "http=https://a"]);
        let error = allowed("x", &grants, &["clocks".into()], None).unwrap_err();
        assert_eq!(
            (error.code, error.help.as_deref()),
            ("grant_needed", Some("publish it again with these grants if you allow them"))
        );
        let known = recorded(&[("clocks".to_owned(), Grant::Given(true))].into());
        let error = allowed("x", &grants, &["clocks".into()], Some(&("0.9.0".to_owned(), known))).unwrap_err();
        assert!(error.chain().contains("(version 0.9.0 had `clocks`; new is `http=https://a`)"), "{}", error.chain());
        assert_eq!(recorded(&grants.recorded()), asked(&grants), "recorded grants read back as requested");
        assert!(allowed("x", &grants, &asked(&grants), None).is_ok());
        assert!(allowed("x", &Grants::default(), &[], None).is_ok());
    }

    #[test]
    fn a_grant_that_nobody_asked_for_is_refused() {
        assert!(all_asked_for(&["clocks".into()], &["clocks".into()]).is_ok());
        assert_eq!(all_asked_for(&["clocks".into()], &[]).unwrap_err().code, "bad_grant");
        assert!(all_asked_for(&["cloks".into()], &[]).unwrap_err().message.contains("no such grant"));
    }
}
