//! Printing of lists. A record that cannot be read is named, and the others are printed all the same.

use dovetail_service::documents::{Entry, Unreadable};
use dovetail_service::runs::ReadableList;
use dovetail_service::{Error, Notice, Observer as _};
use serde::Serialize;

use crate::app::App;

/// Prints a list. A record that cannot be read gives a line on standard error. In JSON it is also an entry with its
/// name and `"unreadable"`, after the others.
pub(crate) fn print_list<T, D: Serialize, K: Serialize>(
    app: &App,
    list: &ReadableList<T>,
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
    // The text of an empty list says that there are no records.
    let text = || if list.read.is_empty() && !list.unread.is_empty() { String::new() } else { text(&list.read) };
    app.output.result(&entries, text);
}

/// Prints a line on standard error for each record that cannot be read.
fn say_unread(app: &App, what: &'static str, unread: &[(String, Error)]) {
    for (name, error) in unread {
        app.output.notice(&Notice::Unreadable { what, name: name.clone(), error: error.chain() });
    }
}
