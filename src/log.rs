//! Where log records go: stderr or a file rotated by size, as text or JSON, from six levels.
//!
//! Shell code writes through the macros that are exported here (`defmt-or-log`, and [`critical`]), events first and
//! `key=value` after: `info!("peer discovered node={} address={}", node, address)`. The sink never waits for a reader
//! that has stopped reading and never panics: a line that cannot be written is counted and said later. So are repeated
//! events, of which ten a minute are written.

mod line;
mod repeats;
mod sink;

pub(crate) use defmt_or_log::{debug, error, info, trace, warn};

use crate::Error;
use crate::clock;
use crate::config::{LogFormat, LogLevel};
use ::log::{LevelFilter, Log, Metadata, Record};
use repeats::{Repeats, Summary};
use sink::Sink;
use std::path::Path;
use std::string::String;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

/// The target that makes an error record a critical one.
pub(crate) const CRITICAL_TARGET: &str = "cbddc::critical";

/// Records an event that puts a promise of the node in danger: an error record that carries a marker.
macro_rules! critical {
    ($text:literal $(, $value:expr)* $(,)?) => {
        ::log::error!(target: $crate::log::CRITICAL_TARGET, $text $(, $value)*)
    };
}
pub(crate) use critical;

static LOGGER: Logger = Logger { level: AtomicU8::new(LogLevel::Information as u8), output: Mutex::new(None) };

/// Begins to write records. Called again, it changes level, format and destination.
///
/// # Errors
/// [`Error::Configuration`] where the file cannot be opened, or the embedding program has a logger of its own.
pub(crate) fn start(level: LogLevel, format: LogFormat, path: Option<&Path>) -> Result<(), Error> {
    let sink = match path {
        Some(path) => Sink::file(path)?,
        None => Sink::stderr(),
    };
    {
        let mut output = LOGGER.output();
        // What was counted so far is said where the lines before it went.
        let repeats = output.as_mut().map(|before| std::mem::take(&mut before.repeats)).unwrap_or_default();
        *output = Some(Output { format, sink, repeats });
    }
    set_level(level);
    match ::log::set_logger(&LOGGER) {
        Ok(()) => Ok(()),
        Err(_) if std::ptr::addr_eq(::log::logger(), &LOGGER) => Ok(()),
        Err(_) => Err(Error::configuration("CBDDC.Logging: this process has a logger already; leave logging to it")),
    }
}

/// Changes the level of a running node.
pub(crate) fn set_level(level: LogLevel) {
    LOGGER.level.store(level as u8, Ordering::Relaxed);
    ::log::set_max_level(match level {
        LogLevel::Trace => LevelFilter::Trace,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Information => LevelFilter::Info,
        LogLevel::Warning => LevelFilter::Warn,
        LogLevel::Error | LogLevel::Critical => LevelFilter::Error,
    });
}

/// Says how many events of the last minute were left out. To be called now and then, since nothing else may be logged.
pub(crate) fn sweep() {
    if let Some(output) = LOGGER.output().as_mut() {
        let summaries = output.repeats.ended(clock::monotonic_ms());
        output.say(summaries);
    }
}

/// Says what is left to be said, before the process ends.
pub(crate) fn finish() {
    if let Some(output) = LOGGER.output().as_mut() {
        let summaries = output.repeats.all();
        output.say(summaries);
    }
}

struct Logger {
    level: AtomicU8,
    output: Mutex<Option<Output>>,
}

struct Output {
    format: LogFormat,
    sink: Sink,
    repeats: Repeats,
}

impl Output {
    fn write(&mut self, level: LogLevel, message: &str) {
        let (now, format) = (clock::wall_ms(), self.format);
        self.sink.write(level, |journal| line::render(format, journal, now, level, message));
    }
    fn say(&mut self, summaries: Vec<Summary>) {
        summaries.into_iter().for_each(|summary| self.write(summary.level, &summary.message));
    }
}

impl Logger {
    fn output(&self) -> MutexGuard<'_, Option<Output>> {
        // A thread that panicked while it logged leaves nothing half done that matters.
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn level_of(metadata: &Metadata<'_>) -> LogLevel {
    match metadata.level() {
        ::log::Level::Trace => LogLevel::Trace,
        ::log::Level::Debug => LogLevel::Debug,
        ::log::Level::Info => LogLevel::Information,
        ::log::Level::Warn => LogLevel::Warning,
        ::log::Level::Error if metadata.target() == CRITICAL_TARGET => LogLevel::Critical,
        ::log::Level::Error => LogLevel::Error,
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = level_of(metadata);
        // What libraries say below a warning is for their authors.
        let ours = metadata.target().starts_with("cbddc") || level >= LogLevel::Warning;
        ours && level as u8 >= self.level.load(Ordering::Relaxed)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = level_of(record.metadata());
        let mut message = String::new();
        // A value whose `Display` fails costs its message, not the program.
        if std::fmt::Write::write_fmt(&mut message, *record.args()).is_err() {
            message.push_str(" (message cut: a value could not be shown)");
        }
        if let Some(output) = self.output().as_mut() {
            let now = clock::monotonic_ms();
            let summaries = output.repeats.ended(now);
            output.say(summaries);
            // Without a place, which no macro leaves out, each message would be the same event: it is written.
            let place = record.file_static().zip(record.line());
            if place.is_none_or(|place| output.repeats.takes(now, place, level, &message)) {
                output.write(level, &message);
            }
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(logger: &Logger, level: ::log::Level, target: &str) -> bool {
        logger.enabled(&Metadata::builder().level(level).target(target).build())
    }
    fn at(level: LogLevel) -> Logger {
        Logger { level: AtomicU8::new(level as u8), output: Mutex::new(None) }
    }

    #[test]
    fn critical_is_an_error_with_a_marker_and_a_level_of_its_own() {
        let logger = at(LogLevel::Critical);
        assert!(enabled(&logger, ::log::Level::Error, CRITICAL_TARGET));
        assert!(!enabled(&logger, ::log::Level::Error, "cbddc::node"));
    }

    #[test]
    fn the_level_can_change_while_running() {
        let logger = at(LogLevel::Information);
        assert!(!enabled(&logger, ::log::Level::Debug, "cbddc::node"));
        logger.level.store(LogLevel::Debug as u8, Ordering::Relaxed);
        assert!(enabled(&logger, ::log::Level::Debug, "cbddc::node"));
    }

    #[test]
    fn libraries_are_heard_from_warnings_upwards() {
        let logger = at(LogLevel::Trace);
        assert!(!enabled(&logger, ::log::Level::Info, "polling::epoll"));
        assert!(enabled(&logger, ::log::Level::Warn, "polling::epoll"));
    }

    #[test]
    fn the_macros_take_events_with_fields() {
        let node = "gateway-01";
        info!("peer discovered node={} address={}", node, "10.0.0.2:5000");
        critical!("database damaged path={}", "data/cbddc.db");
        trace!("t");
        debug!("d");
        warn!("w");
        error!("e");
    }
}
