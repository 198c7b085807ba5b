//! Lists in which some records cannot be read: those are named, and hide no other.

use dovetail_service::documents::{Entry, Unreadable};
use dovetail_service::runs::Listed;
use dovetail_service::{Error, Notice, Observer as _};
use serde::Serialize;

use crate::app::App;

/// Prints a list. A record that cannot be read is a line on standard error and, as JSON, an entry with its name and
/// `"unreadable"`, behind the others.
pub(crate) fn print_list<T, D: Serialize, K: Serialize>(
    app: &App,
    list: &Listed<T>,
    what: &'static str,
    key: impl Fn(&str) -> K,
    document: impl Fn(&T) -> D,
    text: impl FnOnce(&[T]) -> String,
) {
    say_unread(app, what, &list.unread);
    let unreadable =
        |(name, error): &(String, Error)| Entry::Unreadable(Unreadable { key: key(name), unreadable: error.body() });
    let readable = list.read.iter().map(|one| Entry::Readable(document(one)));
    let entries: Vec<Entry<D, K>> = readable.chain(list.unread.iter().map(unreadable)).collect();
    // An empty list would say that there are none.
    let text = || if list.read.is_empty() && !list.unread.is_empty() { String::new() } else { text(&list.read) };
    app.output.result(&entries, text);
}

/// A line on standard error for each.
fn say_unread(app: &App, what: &'static str, unread: &[(String, Error)]) {
    for (name, error) in unread {
        app.output.notice(&Notice::Unreadable { what, name: name.clone(), error: error.chain() });
    }
}
