//! `plumbago config`: the effective configuration, as a configuration file.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;

/// Arguments of `plumbago config`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago config > plumbago.toml         # every key with its default and its meaning\n  plumbago config --check plumbago.toml   # reports errors with their line"
)]
pub struct Args {
    /// Checks FILE, and the Graphite .conf files that it names, instead of printing.
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
/// The first thing wrong with the file or an override.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let file = args.check.as_deref().or(args.config.as_deref());
    let config = Config::load(file, &args.set)?;
    match &args.check {
        Some(path) => {
            for warning in config.check_files()? {
                eprintln!("{}: {warning}", path.display());
            }
            println!("{}: ok", path.display());
        }
        None => {
            let text = config.print();
            std::io::stdout().lock().write_all(text.as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
