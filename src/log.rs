//! Where the log goes: standard error, as text or JSON, at a level that SIGHUP can change.

mod lines;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal as _;
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use settings::options::Checked;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use self::lines::Lines;
use crate::report::Reading;

/// Lines that were dropped, as standard error was not read.
static DROPPED: AtomicU64 = AtomicU64::new(0);

settings::options! {
    /// `[log]`.
    #[derive(PartialEq, Eq)]
    pub struct LogOptions {
        /// The least severe level that is logged: error, warn, info, debug or trace; or directives by
        /// module, such as "info,carbon=debug". The environment variable RUST_LOG takes precedence.
        level: String = "info".to_owned() => check_level;
        /// "text", or "json" for one object per line.
        format: LogFormat = LogFormat::Text;
    }
}

fn check_level(level: &str, checked: &mut Checked<'_>) {
    if let Err(why) = check(level) {
        checked.say(why);
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line of text.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// The running log; changes its level.
#[derive(Debug)]
pub struct Log(reload::Handle<EnvFilter, Registry>);

impl Log {
    /// Starts logging, panics included. `env` is `RUST_LOG`, which goes over the configuration.
    ///
    /// # Errors
    /// The level is unknown, a logger is installed already, or there is no thread for the log.
    pub fn start(options: &LogOptions, env: Option<&str>) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(parse(options, env)?);
        let lines = Lines::start(&DROPPED).context("starting the thread of the log")?;
        let mut layer = fmt::layer().with_writer(lines);
        // Colours on a terminal, unless NO_COLOR is set.
        if !std::io::stderr().is_terminal() {
            layer.set_ansi(false);
        }
        let registry = tracing_subscriber::registry().with(filter);
        match options.format {
            LogFormat::Text => registry.with(layer.with_target(false)).try_init()?,
            LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
        }
        // The hook of the standard library waits for the reader of standard error.
        panic::set_hook(Box::new(log_panic));
        Ok(Self(handle))
    }

    /// Takes the level of `options` from now on.
    ///
    /// # Errors
    /// The level is unknown.
    pub fn reload(&self, options: &LogOptions, env: Option<&str>) -> anyhow::Result<()> {
        Ok(self.0.reload(parse(options, env)?)?)
    }
}

/// What the log counts.
pub fn reading() -> Reading {
    Reading::count(
        "log",
        "dropped",
        "Lines of the log that were dropped because standard error was not read. If this grows, look at what collects the log.",
        DROPPED.load(Ordering::Relaxed),
    )
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!("thread {name} {panic}\n{backtrace}"),
        _ => tracing::error!("thread {name} {panic}"),
    }
}

/// Checks a level, or directives as in `RUST_LOG`.
///
/// # Errors
/// What is wrong and what to write.
pub fn check(text: &str) -> Result<(), String> {
    filter(text).map(drop)
}

/// The filter in `text`. `EnvFilter` takes any word for the name of a module, and shows nothing of
/// the others then; here a word alone must be a level.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let refuse = |word: &str| {
        format!("{word:?} is not a log level, write \"info\", \"debug\" or \"info,carbon=debug\"")
    };
    if text.trim().is_empty() {
        return Err(refuse(text));
    }
    for directive in text.split(',').filter(|text| !text.trim().is_empty()) {
        let level = directive
            .rsplit_once('=')
            .map_or(directive, |(_, level)| level);
        if level.trim().parse::<LevelFilter>().is_err() {
            return Err(refuse(level.trim()));
        }
    }
    EnvFilter::builder().parse(text).map_err(|_| refuse(text))
}

fn parse(options: &LogOptions, env: Option<&str>) -> anyhow::Result<EnvFilter> {
    let (key, text) = match env {
        Some(text) if !text.is_empty() => ("RUST_LOG", text),
        _ => ("log.level", options.level.as_str()),
    };
    filter(text).map_err(|why| anyhow!("{key}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_alone_must_be_a_level() {
        for good in [
            "info",
            "TRACE",
            "off",
            "info,carbon=debug",
            "warn,statsd::receive=trace,",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "verbose", "bogus", "info,verbose", "carbon=verbose"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
