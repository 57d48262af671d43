//! `plumbago expire`: lists or removes series without recent points.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use carbon::expiry::{Expired, Idle};
use carbon::options::Span;
use carbon::{Access, Carbon, Setup, Timestamp};

use crate::config::{Refused, Sources};
use crate::lock::DataLock;

/// Arguments of `plumbago expire`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago expire --data /var/lib/plumbago --older-than 90d --dry-run   # age, size and name of each idle series\n  plumbago expire --data /var/lib/plumbago --older-than 90d             # removes them; stop the server first\n\nWith carbon.expire_after a running server removes idle series by itself."
)]
pub struct Args {
    /// List idle series and change nothing. Safe while a server is running, but the points in the
    /// server's cache are not seen.
    #[arg(long)]
    dry_run: bool,
    /// The configuration file of the server.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory: the same as `--set data=DIR`.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Set a key, as in `--set carbon.whisper_dir=/opt/graphite/storage/whisper`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The age of the newest point from which on a series is idle; default: carbon.expire_after.
    #[arg(long, value_name = "TIME")]
    older_than: Option<Span>,
    /// Remove idle series even if all series are idle.
    #[arg(long)]
    all: bool,
}

/// Lists or removes.
///
/// # Errors
/// The data directory is missing, in use or unreadable, or all series are idle without `--all`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        dry_run,
        config: file,
        data,
        set,
        older_than,
        all,
    } = args;
    let sources = Sources {
        file,
        overrides: set,
        data,
    };
    let mut config = sources.read().usable()?;
    let older_than = older_than.unwrap_or(config.carbon.expire_after).0;
    if older_than.is_zero() {
        let question = "plumbago: how long? --older-than TIME, or carbon.expire_after";
        return Err(Refused::usage(question).into());
    }
    if !config.data.is_dir() {
        bail!("data directory {}: not found", config.data.display());
    }
    let _lock = match dry_run {
        true => None,
        false => Some(DataLock::take(&config.data)?),
    };
    // The verb expires series itself: no background pass may run beside it.
    config.carbon.expire_after = Span::default();
    let mut setup = Setup::new(config.carbon, config.journal, config.statsd.flush_interval);
    if dry_run {
        setup.access = Access::Inspect;
    }
    let carbon = Carbon::open(setup, &config.data).context("carbon")?;
    let mut out = BufWriter::new(io::stdout().lock());
    let done = if dry_run {
        let mut written = Ok(());
        let found = carbon.idle_series(older_than, |idle| {
            if written.is_ok() {
                written = line(&mut out, carbon.now(), idle);
            }
        });
        written?;
        found
    } else {
        remove(&carbon, older_than, all, &mut out)?
    };
    let Expired {
        series,
        idle,
        removed,
        size_bytes,
        ..
    } = done;
    let (count, verb) = match dry_run {
        true => (idle, "idle"),
        false => (removed, "removed"),
    };
    let size = kibibytes(size_bytes);
    writeln!(out, "{count} of {series} series {verb}, {size}")?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn remove(
    carbon: &Carbon,
    older_than: Duration,
    all: bool,
    out: &mut impl Write,
) -> anyhow::Result<Expired> {
    carbon.reconcile().context("carbon")?;
    let found = carbon.idle_series(older_than, |_| {});
    if found.idle == found.series && found.idle > 0 && !all {
        bail!(
            "all {} series are idle: check the clock, or pass --all to remove them",
            found.series
        );
    }
    let mut written = Ok(());
    let done = carbon.expire(older_than, |idle| {
        if written.is_ok() {
            written = line(out, carbon.now(), idle);
        }
    });
    let drained = carbon.drain(|_| {});
    written?;
    drained.context("carbon")?;
    done.context("carbon")
}

/// Age, size and name of a series.
fn line(out: &mut impl Write, now: Timestamp, idle: &Idle) -> io::Result<()> {
    let hours = now.0.saturating_sub(idle.changed.0) / 3_600;
    let age = Span::seconds(u64::from(hours) * 3_600).to_string();
    let size = kibibytes(idle.size_bytes);
    writeln!(out, "{age:>8} {size:>10}  {}", idle.name)
}

fn kibibytes(bytes: u64) -> String {
    format!("{}KiB", bytes.div_ceil(1_024))
}
