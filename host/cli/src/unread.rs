//! Lists in which some records cannot be read: those are named, and hide no other.

use dovetail_flow::{List, Unread};
use serde_json::Value;

use crate::error::Error;
use crate::wire::App;

/// Prints a list. What cannot be read is a line on standard error and, where machines listen, an entry with `key` and `"unreadable"`, behind the
/// others.
pub(crate) fn print_list<T>(
    app: &App,
    list: &List<T>,
    what: &str,
    key: impl Fn(&Unread) -> Value,
    json: impl Fn(&T) -> Value,
    text: impl Fn(&[T]) -> String,
) {
    say_unread(app, what, &list.unread);
    let unreadable = |unread: &Unread| {
        let mut entry = key(unread);
        entry["unreadable"] = told(unread).to_json()["error"].clone();
        entry
    };
    app.output.result(
        || list.read.iter().map(json).chain(list.unread.iter().map(unreadable)).collect(),
        // That there are none would not be true.
        || if list.read.is_empty() && !list.unread.is_empty() { String::new() } else { text(&list.read) },
    );
}

/// A line on standard error for each.
pub(crate) fn say_unread(app: &App, what: &str, unread: &[Unread]) {
    for one in unread {
        app.output.note(&format!("warning: the {what} {} cannot be read: {}", one.name, told(one).chain()));
    }
}

fn told(unread: &Unread) -> Error {
    unread.error.again().into()
}
