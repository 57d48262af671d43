//! `plumbago config`: the effective configuration, as a configuration file.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Sources;

/// Arguments of `plumbago config`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago config > plumbago.toml         # every key with its default and its meaning\n  plumbago config --check plumbago.toml   # reports errors with their line"
)]
pub struct Args {
    /// Checks FILE and the dashboards of its data directory, and reports everything that is wrong.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    check: Option<PathBuf>,
    /// The configuration file to read.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a key, as in `--set statsd.flush_interval=1s`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Prints or checks.
///
/// # Errors
/// Everything that is wrong with the file or an override.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Args { check, config, set } = args;
    let sources = Sources {
        file: check.as_ref().or(config.as_ref()).cloned(),
        overrides: set.clone(),
        data: None,
    };
    let loaded = sources.read();
    match check {
        Some(path) => {
            loaded.flawless()?;
            println!("{}: ok", path.display());
        }
        None => {
            let text = loaded.usable()?.print();
            std::io::stdout().lock().write_all(text.as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
