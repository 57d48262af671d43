//! `plumbago tags export`: the names of tagged series, for another server.

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use carbon::{Access, Carbon, Setup, series};

use super::names;
use crate::client;
use crate::config::Sources;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago tags export > names.txt                              # of the server at http://127.0.0.1:8080\n  plumbago tags export --data /var/lib/plumbago > names.txt     # of a data directory, with or without a server"
)]
pub(super) struct Export {
    #[command(flatten)]
    server: client::Args,
    /// Read a data directory instead of asking a server. Safe while a server is running.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The configuration file that the data directory belongs to.
    #[arg(long, value_name = "FILE", requires = "data")]
    config: Option<PathBuf>,
    /// Set a key, as in `--set carbon.whisper_dir=/opt/graphite/storage/whisper`.
    #[arg(long, value_name = "KEY=VALUE", requires = "data")]
    set: Vec<String>,
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(export: Export) -> anyhow::Result<ExitCode> {
    let Export {
        server,
        data,
        config,
        set,
        json,
    } = export;
    let mut found = match data {
        Some(_) => of_directory(Sources {
            file: config,
            overrides: set,
            data,
        })?,
        None => names::of_server(&names::client(&server)?)?,
    };
    found.retain(|name| series::is_tagged(name));
    found.sort_unstable();
    found.dedup();
    let mut out = BufWriter::new(std::io::stdout().lock());
    if json {
        serde_json::to_writer(&mut out, &found)?;
        writeln!(out)?;
    } else {
        for name in &found {
            writeln!(out, "{name}")?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The names that the index in a data directory has.
fn of_directory(sources: Sources) -> anyhow::Result<Vec<String>> {
    let config = sources.read().usable()?;
    if !config.data.is_dir() {
        bail!("data directory {}: not found", config.data.display());
    }
    let mut setup = Setup::new(config.carbon, config.journal, config.statsd.flush_interval);
    setup.access = Access::Inspect;
    let carbon = Carbon::open(setup, &config.data).context("carbon")?;
    Ok(carbon.index().tagged_names())
}
