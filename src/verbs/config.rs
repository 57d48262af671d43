//! `plumbago config`: what is in effect, printed so that it reads back.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Sources;

/// Arguments of `plumbago config`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago config > plumbago.toml         # every key, its default and what it means\n  plumbago config --check plumbago.toml   # says what is wrong with it, and where"
)]
pub struct Args {
    /// Checks FILE and the dashboards of its data directory, and reports everything that is wrong.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    check: Option<PathBuf>,
    /// The configuration file to start from.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets a key, as in `--set statsd.flush_interval=1s`.
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
