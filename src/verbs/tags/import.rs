//! `plumbago tags import`: registers the names of tagged series.

use std::collections::HashSet;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use carbon::options::Span;
use carbon::{Carbon, Setup, series};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::names;
use crate::client::{self, Client};
use crate::config::Sources;
use crate::lock::DataLock;
use crate::terminal::{complain, say};

/// Names registered at a time.
const BATCH: usize = 1_000;
/// Refused names that are printed; all are counted.
const SHOWN: usize = 20;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago tags import http://old-graphite:8080 --dry-run\n  plumbago tags import http://old-graphite:8080\n  curl -s 'https://old-graphite/tags/findSeries?expr=name=~.' | plumbago tags import - --token \"$TOKEN\"\n  plumbago tags import names.txt --data /var/lib/plumbago    # stop the server first"
)]
pub(super) struct Import {
    /// The server that knows the names (http://, its /tags/findSeries), a file, or - for standard
    /// input. A file has a name per line (metric;tag=value;tag=value), or is a JSON list of names.
    #[arg(value_name = "URL|FILE")]
    source: String,
    /// A token for the server that knows the names.
    #[arg(long, value_name = "TOKEN")]
    source_token: Option<String>,
    #[command(flatten)]
    target: client::Args,
    /// Register into a data directory instead of a running server.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The configuration file that the data directory belongs to.
    #[arg(long, value_name = "FILE", requires = "data")]
    config: Option<PathBuf>,
    /// Set a key, as in `--set carbon.whisper_dir=/opt/graphite/storage/whisper`.
    #[arg(long, value_name = "KEY=VALUE", requires = "data")]
    set: Vec<String>,
    /// Count what would be registered, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What became of the names.
#[derive(Debug, Default)]
struct Outcome {
    added: usize,
    known: usize,
    /// Without tags: their files say their names.
    plain: usize,
    refused: usize,
    /// The first of the refused names, with the reason.
    shown: Vec<String>,
}

impl Outcome {
    fn refuse(&mut self, name: &str, why: &dyn std::fmt::Display) {
        self.refused += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(format!("{name}: {why}"));
        }
    }
}

pub(super) fn run(import: Import) -> anyhow::Result<ExitCode> {
    let Import {
        source,
        source_token,
        target,
        data,
        config,
        set,
        dry_run,
    } = import;
    let read = names::read(&source, source_token)?;
    let mut outcome = Outcome::default();
    let names = tagged(read, &mut outcome);
    if data.is_some() {
        let sources = Sources {
            file: config,
            overrides: set,
            data,
        };
        into_directory(sources, &names, dry_run, &mut outcome)?;
    } else {
        into_server(&names::client(&target)?, &names, dry_run, &mut outcome)?;
    }
    let Outcome {
        added,
        known,
        plain,
        refused,
        shown,
    } = outcome;
    for line in shown {
        complain(format_args!("refused: {line}"));
    }
    let verb = if dry_run { "to add" } else { "added" };
    say(&format!(
        "{added} {verb}, {known} known already, {plain} without tags, {refused} refused\n"
    ))?;
    Ok(match refused {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The tagged ones of `names` in canonical form, each once.
fn tagged(names: Vec<String>, outcome: &mut Outcome) -> Vec<String> {
    let mut tagged = Vec::with_capacity(names.len());
    for name in names {
        match series::canonical(name.as_bytes()) {
            Ok(name) if series::is_tagged(&name) => tagged.push(name.into_owned()),
            Ok(_) => outcome.plain += 1,
            Err(why) => outcome.refuse(&name, &why),
        }
    }
    tagged.sort_unstable();
    tagged.dedup();
    tagged
}

fn into_server(
    client: &Client,
    names: &[String],
    dry_run: bool,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let known: HashSet<String> = names::of_server(client)?.into_iter().collect();
    let new: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !known.contains(*name))
        .collect();
    outcome.known = names.len() - new.len();
    if dry_run {
        outcome.added = new.len();
        return Ok(());
    }
    let bar = progress(new.len());
    for batch in new.chunks(BATCH) {
        match register(client, batch) {
            Ok(()) => outcome.added += batch.len(),
            Err(error) => {
                // A name of the batch is refused, unless the server does not answer at all.
                client.get("/tags?limit=1").map_err(|_| error)?;
                for name in batch {
                    match register(client, &[name]) {
                        Ok(()) => outcome.added += 1,
                        Err(error) => outcome.refuse(name, &error),
                    }
                }
            }
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

fn register(client: &Client, names: &[&str]) -> anyhow::Result<()> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for name in names {
        form.append_pair("path", name);
    }
    client.post_form("/tags/tagMultiSeries", &form.finish())?;
    Ok(())
}

fn into_directory(
    sources: Sources,
    names: &[String],
    dry_run: bool,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let mut config = sources.read().usable()?;
    if !config.data.is_dir() {
        bail!("data directory {}: not found", config.data.display());
    }
    // No background work beside this.
    config.carbon.expire_after = Span::default();
    let mut setup = Setup::new(config.carbon, config.journal, config.statsd.flush_interval);
    let _lock = match dry_run {
        true => {
            setup.access = carbon::Access::Inspect;
            None
        }
        false => Some(DataLock::take(&config.data)?),
    };
    let carbon = Carbon::open(setup, &config.data).context("carbon")?;
    if dry_run {
        let known: HashSet<String> = carbon.index().tagged_names().into_iter().collect();
        outcome.known = names.iter().filter(|name| known.contains(*name)).count();
        outcome.added = names.len() - outcome.known;
        return Ok(());
    }
    let bar = progress(names.len());
    for batch in names.chunks(BATCH) {
        let registered = carbon.index().import(batch).context("carbon")?;
        outcome.added += registered.added;
        outcome.known += registered.known;
        for (name, why) in registered.refused {
            outcome.refuse(&name, &why);
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    carbon.drain(|_| {}).context("carbon")
}

fn progress(names: usize) -> ProgressBar {
    let bar = ProgressBar::new(names as u64);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} names, {eta}") {
        bar.set_style(style);
    }
    bar
}
