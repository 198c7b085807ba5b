//! A guest's log: bounded lines without control characters, and the panic among them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use dovetail_core::executor::LogLine;
use dovetail_core::sync::lock;
use serde_json::Value;

use crate::text::{clean, detail_value};

/// Bytes that every line counts besides its text, so that the number of empty lines is bounded as well.
const LINE_OVERHEAD: u64 = 16;
/// The longest unfinished line of standard output that is kept, in bytes.
const MAX_PARTIAL: usize = 8 << 10;

/// The place and the message of a guest's panic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u64>,
}

/// Receives every line that is kept, while the guest runs.
pub(crate) type LineSink = Box<dyn Fn(&LogLine) + Send + Sync>;

/// The log of one attempt.
pub(crate) struct Log {
    /// The lines that were kept.
    pub(crate) lines: Vec<LogLine>,
    /// The number of lines beyond the limit.
    pub(crate) dropped: u64,
    /// The guest's panic, as the SDK's hook reported it.
    pub(crate) panic: Option<Panic>,
    /// Bytes left of the limit.
    left: u64,
    began: Instant,
    sink: Option<LineSink>,
    /// The unfinished lines of standard output and standard error.
    partial: [Vec<u8>; 2],
    /// The guest's panic, as standard error shows it without the SDK.
    std_panic: Option<Panic>,
}

/// The log, shared with the guest's output streams.
#[derive(Clone)]
pub(crate) struct SharedLog(Arc<Mutex<Log>>);

impl SharedLog {
    pub(crate) fn new(log: Log) -> Self {
        Self(Arc::new(Mutex::new(log)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Log> {
        lock(&self.0)
    }
}

/// One of the guest's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Out,
    Err,
}

impl Log {
    pub(crate) fn new(limit: u64, began: Instant, sink: Option<LineSink>) -> Self {
        Self {
            lines: Vec::new(),
            dropped: 0,
            panic: None,
            left: limit,
            began,
            sink,
            partial: Default::default(),
            std_panic: None,
        }
    }

    /// Whether the log can keep another line.
    pub(crate) fn has_room(&self) -> bool {
        self.left > LINE_OVERHEAD
    }

    /// Adds a record; counts it if it exceeds the limit.
    pub(crate) fn record(&mut self, level: &'static str, message: &str, fields: Vec<(String, String)>) {
        if level == "error" && message == "panic" {
            self.note_panic(&fields);
        }
        let size =
            LINE_OVERHEAD + message.len() as u64 + fields.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum::<u64>();
        // Check the size before the text is cleaned: a dropped record must cost nothing.
        if size > self.left {
            self.dropped += 1;
            return;
        }
        self.left -= size;
        let fields: BTreeMap<String, Value> =
            fields.into_iter().map(|(key, value)| (clean(&key), detail_value(&value))).collect();
        let at_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let line = LogLine { at_us, level: level.to_owned(), message: clean(message), fields };
        if let Some(sink) = &self.sink {
            sink(&line);
        }
        self.lines.push(line);
    }

    /// Adds bytes of standard output or standard error. Complete lines become records.
    pub(crate) fn write(&mut self, output: Output, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let mut line = std::mem::take(&mut self.partial[output as usize]);
            line.extend_from_slice(&rest[..end.min(MAX_PARTIAL)]);
            self.line(output, &line);
            rest = &rest[end + 1..];
        }
        let partial = &mut self.partial[output as usize];
        let room = MAX_PARTIAL.saturating_sub(partial.len());
        partial.extend_from_slice(&rest[..rest.len().min(room)]);
    }

    /// Adds the output that the guest left without a newline.
    pub(crate) fn finish(&mut self) {
        for output in [Output::Out, Output::Err] {
            let line = std::mem::take(&mut self.partial[output as usize]);
            if !line.is_empty() {
                self.line(output, &line);
            }
        }
        if self.panic.is_none() {
            self.panic = self.std_panic.take();
        }
    }

    fn line(&mut self, output: Output, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if output == Output::Err {
            self.watch_for_panic(&text);
        }
        if !text.is_empty() {
            self.record(if output == Output::Out { "info" } else { "warn" }, &text, Vec::new());
        }
    }

    /// The record of the SDK's hook has the fields `panic.message`, `panic.file` and `panic.line`.
    fn note_panic(&mut self, fields: &[(String, String)]) {
        let get = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| detail_value(value));
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), clean);
        let line = get("panic.line").and_then(|line| line.as_u64().or_else(|| line.as_str()?.parse().ok()));
        self.panic = Some(Panic {
            message: get("panic.message").map(text).unwrap_or_default(),
            file: get("panic.file").map(text),
            line,
        });
    }

    /// Without the SDK, the standard library prints `thread 'main' (1) panicked at src/lib.rs:7:5:`, then the message
    /// on the next lines.
    fn watch_for_panic(&mut self, text: &str) {
        if let Some((_, place)) = text.split_once(" panicked at ").filter(|_| text.starts_with("thread ")) {
            let mut parts = place.trim_end_matches(':').rsplitn(3, ':');
            let (_column, line, file) = (parts.next(), parts.next(), parts.next());
            self.std_panic =
                Some(Panic { message: String::new(), file: file.map(clean), line: line.and_then(|l| l.parse().ok()) });
        } else if let Some(panic) = &mut self.std_panic
            && panic.message.is_empty()
            && !text.is_empty()
            && !text.starts_with("note: ")
        {
            panic.message = clean(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(limit: u64) -> Log {
        Log::new(limit, Instant::now(), None)
    }

    #[test]
    fn lines_within_the_limit_are_kept_and_others_counted() {
        let mut log = log(100);
        for _ in 0..5 {
            log.record("info", "0123456789", Vec::new());
        }
        assert_eq!((log.lines.len(), log.dropped), (3, 2));
    }

    #[test]
    fn empty_lines_are_bounded() {
        let mut log = log(100);
        for _ in 0..1000 {
            log.record("info", "", Vec::new());
        }
        assert_eq!((log.lines.len() as u64, log.dropped + log.lines.len() as u64), (6, 1000));
    }

    #[test]
    fn output_becomes_lines() {
        let mut log = log(10_000);
        log.write(Output::Out, b"one\ntw");
        log.write(Output::Out, b"o\nthree");
        log.write(Output::Err, b"\x1b[31mred\xff\n");
        log.finish();
        let lines: Vec<_> = log.lines.iter().map(|l| (l.level.as_str(), l.message.as_str())).collect();
        assert_eq!(lines, [("info", "one"), ("info", "two"), ("warn", "[31mred\u{fffd}"), ("info", "three")]);
    }

    #[test]
    fn an_endless_line_is_bounded() {
        let mut log = log(1 << 20);
        for _ in 0..100 {
            log.write(Output::Out, &[b'x'; 4096]);
        }
        log.finish();
        assert_eq!(log.lines[0].message.len(), MAX_PARTIAL);
    }

    #[test]
    fn the_place_of_a_panic_is_read_from_standard_error() {
        let mut log = log(10_000);
        log.write(
            Output::Err,
            b"\nthread '<unnamed>' (1) panicked at src/my lib.rs:12:5:\nindex out of bounds\n\
              note: run with `RUST_BACKTRACE=1`\n",
        );
        log.finish();
        assert_eq!(
            log.panic,
            Some(Panic { message: "index out of bounds".into(), file: Some("src/my lib.rs".into()), line: Some(12) })
        );
    }

    #[test]
    fn the_hook_s_record_wins() {
        let mut log = log(10_000);
        let fields = [("panic.message", "\"no\""), ("panic.file", "\"src/lib.rs\""), ("panic.line", "7")];
        log.record("error", "panic", fields.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec());
        log.finish();
        assert_eq!(log.panic, Some(Panic { message: "no".into(), file: Some("src/lib.rs".into()), line: Some(7) }));
    }
}
