//! Where the log goes: standard error, as text or JSON, at a level that SIGHUP can change.

use std::io::IsTerminal as _;

use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use settings::options::Checked;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

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
    /// Starts logging. `env` is `RUST_LOG`, which goes over the configuration.
    ///
    /// # Errors
    /// The level is unknown, or a logger is installed already.
    pub fn start(options: &LogOptions, env: Option<&str>) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(parse(options, env)?);
        let mut layer = fmt::layer().with_writer(std::io::stderr);
        // Colours on a terminal, unless NO_COLOR is set.
        if !std::io::stderr().is_terminal() {
            layer.set_ansi(false);
        }
        let registry = tracing_subscriber::registry().with(filter);
        match options.format {
            LogFormat::Text => registry.with(layer.with_target(false)).try_init()?,
            LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
        }
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
