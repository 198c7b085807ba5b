//! Lists in which some records cannot be read: those are named, and hide no other.

use dovetail_flow::{List, Unread};
use serde_json::Value;

use crate::error::Error;
use crate::wire::App;

/// Prints a list. What cannot be read is a line on standard error and, where machines listen, an entry with `key` and
/// `"unreadable"`, behind the others.
pub(crate) fn print_list<T>(
    app: &App,
    list: &List<T>,
    what: &str,
    key: impl Fn(&str) -> Value,
    json: impl Fn(&T) -> Value,
    text: impl Fn(&[T]) -> String,
) {
    let unread: Vec<(String, Error)> = list.unread.iter().map(told).collect();
    print(app, (&list.read, &unread), what, key, json, text);
}

/// The same of what was read and what could not be.
pub(crate) fn print<T>(
    app: &App,
    (read, unread): (&[T], &[(String, Error)]),
    what: &str,
    key: impl Fn(&str) -> Value,
    json: impl Fn(&T) -> Value,
    text: impl Fn(&[T]) -> String,
) {
    say(app, what, unread);
    let unreadable = |(name, error): &(String, Error)| {
        let mut entry = key(name);
        entry["unreadable"] = error.to_json()["error"].clone();
        entry
    };
    app.output.result(
        || read.iter().map(json).chain(unread.iter().map(unreadable)).collect(),
        // That there are none would not be true.
        || if read.is_empty() && !unread.is_empty() { String::new() } else { text(read) },
    );
}

/// A line on standard error for each.
pub(crate) fn say_unread(app: &App, what: &str, unread: &[Unread]) {
    say(app, what, &unread.iter().map(told).collect::<Vec<_>>());
}

fn say(app: &App, what: &str, unread: &[(String, Error)]) {
    for (name, error) in unread {
        app.output.note(&format!("warning: the {what} {name} cannot be read: {}", error.chain()));
    }
}

fn told(unread: &Unread) -> (String, Error) {
    (unread.name.clone(), unread.error.again().into())
}
