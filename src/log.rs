//! Where the log goes: standard error, as text or JSON, at a level that SIGHUP can change.

use anyhow::anyhow;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{LogFormat, LogOptions};

/// The running log; changes its level.
#[derive(Debug)]
pub struct Log(reload::Handle<EnvFilter, Registry>);

impl Log {
    /// Starts logging. `env` is `RUST_LOG`, which goes over the configuration.
    ///
    /// # Errors
    /// A level that is none, or a process that logs already.
    pub fn start(options: &LogOptions, env: Option<&str>) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(parse(options, env)?);
        let layer = fmt::layer().with_writer(std::io::stderr);
        let registry = tracing_subscriber::registry().with(filter);
        match options.format {
            LogFormat::Text => registry
                .with(layer.with_ansi(false).with_target(false))
                .try_init()?,
            LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
        }
        Ok(Self(handle))
    }

    /// Takes the level of `options` from now on.
    ///
    /// # Errors
    /// A level that is none.
    pub fn reload(&self, options: &LogOptions, env: Option<&str>) -> anyhow::Result<()> {
        Ok(self.0.reload(parse(options, env)?)?)
    }
}

fn parse(options: &LogOptions, env: Option<&str>) -> anyhow::Result<EnvFilter> {
    let (key, text) = match env {
        Some(text) if !text.is_empty() => ("RUST_LOG", text),
        _ => ("log.level", options.level.as_str()),
    };
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| anyhow!("{key}: {text:?} is no level: {error}"))
}
