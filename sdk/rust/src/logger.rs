//! The `log` crate on the host's log, and the host's log with fields. Both work on every target, because they do not
//! use standard output.
//!
//! The structured fields of `log` itself (its feature `kv`) are not supported: they add 9 KB to every component, mostly
//! code that prints floats.

use crate::Json;
use crate::bindings::dovetail::task::logging as host;

struct HostLog;

/// Connects the macros of `log` with the host. A second call has no effect.
pub(crate) fn install() {
    // In a second call `set_logger` fails, and everything is set already.
    if log::set_logger(&HostLog).is_ok() {
        // The host decides which levels it keeps. The logger asks at each record, so that no attempt pays for levels
        // that it does not use.
        log::set_max_level(log::LevelFilter::Trace);
    }
}

fn as_host(level: log::Level) -> host::Level {
    match level {
        log::Level::Trace => host::Level::Trace,
        log::Level::Debug => host::Level::Debug,
        log::Level::Info => host::Level::Info,
        log::Level::Warn => host::Level::Warn,
        log::Level::Error => host::Level::Error,
    }
}

/// Whether the host keeps lines of this level.
#[must_use]
pub fn enabled(level: log::Level) -> bool {
    host::enabled(as_host(level))
}

/// Writes one line: a constant message, and its facts as fields.
///
/// ```ignore
/// logging::log(log::Level::Info, "detected", &[("faces", faces.len().into()), ("model", model.name.into())]);
/// ```
pub fn log(level: log::Level, message: &str, fields: &[(&str, Json)]) {
    let fields: Vec<_> = fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone().into_text())).collect();
    host::log(as_host(level), message, &fields);
}

impl log::Log for HostLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        enabled(metadata.level())
    }

    fn log(&self, record: &log::Record<'_>) {
        // Check first, so that the message of a dropped line is not formatted.
        if !enabled(record.level()) {
            return;
        }
        match record.args().as_str() {
            Some(constant) => host::log(as_host(record.level()), constant, &[]),
            None => host::log(as_host(record.level()), &record.args().to_string(), &[]),
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::{as_host, host};

    #[test]
    fn levels_keep_their_order() {
        let levels: Vec<u8> = log::Level::iter().map(|level| as_host(level) as u8).collect();
        assert_eq!(
            levels,
            [host::Level::Error, host::Level::Warn, host::Level::Info, host::Level::Debug, host::Level::Trace]
                .map(|l| l as u8)
        );
    }
}
