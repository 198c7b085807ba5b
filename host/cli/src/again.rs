//! Command lines in remedies: another command on the same stores.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::args::Global;
use dovetail_service::paths::Shown as _;

impl Global {
    /// A command line with the same options for stores. A URL that may hold a password is not repeated; the text names
    /// the option instead.
    pub(crate) fn again(&self, command: &str, data: Option<&PathBuf>) -> String {
        let text = |text: &String| OsString::from(text);
        let (fleet, queue) = (self.fleet.as_ref().map(text), self.queue.as_ref().map(text));
        let (meta, blobs) = (self.meta.as_ref().map(text), self.blobs.as_ref().map(text));
        let options = [
            ("data", data.map(|path| path.as_os_str())),
            ("config", self.config.as_ref().map(|path| path.as_os_str())),
            ("fleet", fleet.as_deref()),
            ("queue", queue.as_deref()),
            ("meta", meta.as_deref()),
            ("blobs", blobs.as_deref()),
        ];
        let (mut words, mut kept) = ("dovetail".to_owned(), Vec::new());
        for (name, value) in options {
            match value {
                Some(value) if may_hold_a_secret(&value.text()) && !matches!(name, "data" | "config") => {
                    kept.push(format!("--{name}"));
                }
                Some(value) => words.push_str(&format!(" --{name} {}", quoted(value))),
                None => {}
            }
        }
        let same = if kept.is_empty() { String::new() } else { format!("\nwith the same {} as now", kept.join(", ")) };
        format!("{words} {command}{same}")
    }
}

/// Whether a URL may hold a secret. Keys and passwords are before an `@`, or in a parameter with such a name.
fn may_hold_a_secret(url: &str) -> bool {
    let url = url.to_ascii_lowercase();
    ["@", "password", "secret", "token", "key"].iter().any(|word| url.contains(word))
}

/// A word for a shell, quoted if necessary.
fn quoted(word: &OsStr) -> String {
    let Some(word) = word.to_str() else {
        // `$'...'` can express bytes that are not UTF-8.
        return format!("$'{}'", escaped(word));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@%+~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The word within `$'...'`: a byte that is not UTF-8 is written as `\xe9`, and `\` and `'` follow a `\`.
fn escaped(word: &OsStr) -> String {
    let mut text = String::new();
    for chunk in word.as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            text.extend(matches!(c, '\\' | '\'').then_some('\\').into_iter().chain([c]));
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_goes_on_has_the_same_options_and_no_password() {
        let url = |text: &str| Some(text.to_owned());
        let typed = Global {
            config: Some("my settings.toml".into()),
            queue: url("redis://127.0.0.1:6379/0"),
            meta: url("mongodb://u:hidden@h/db"),
            blobs: url("s3://bucket?endpoint=http://h:9000"),
            fleet: url("blue"),
            ..Global::default()
        };
        let said = typed.again("runs watch r", None);
        assert_eq!(
            said,
            "dovetail --config 'my settings.toml' --fleet blue --queue redis://127.0.0.1:6379/0 --blobs \
             's3://bucket?endpoint=http://h:9000' runs watch r\nwith the same --meta as now"
        );
        assert_eq!(
            Global::default().again("runs resume --all", Some(&"/it's".into())),
            "dovetail --data '/it'\\''s' runs resume --all"
        );
        let latin = dovetail_service::paths::path_of(b"/caf\xe9's");
        assert_eq!(Global::default().again("runs list", Some(&latin)), r"dovetail --data $'/caf\xe9\'s' runs list");
    }
}
