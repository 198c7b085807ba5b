//! Logs of the program itself, to standard error. What tasks log is kept with their runs.

use tracing_subscriber::filter::LevelFilter;

use crate::config::{Config, LogFormat, LogLevel};

/// From now on; once a process.
pub(crate) fn start(config: &Config, default: LogLevel) {
    let level = match config.log_level.unwrap_or(default) {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
    }
}
