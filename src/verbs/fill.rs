//! `plumbago fill`: copies values that this server does not have from another one.
//!
//! 1. Both servers are asked for the same range of the same series in carbonapi's protocol, archive by
//!    archive; what the other one knows and this one does not is sent here as carbon lines. Known values are
//!    never sent, so none is overwritten.
//! 2. The running server writes the files, as it writes all others.
//! 3. After each batch the values are looked for again: a batch is done when they are there, or when the
//!    server has had [`PATIENCE`] to take them. The state file then has the last name of the batch, and a
//!    run that is interrupted goes on behind it, with the same range.

use std::collections::HashMap;
use std::fs;
use std::io::{IsTerminal, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use render::budget::Budget;
use render::protobuf::v3::FetchResponse;
use serde::{Deserialize, Serialize};
use settings::Span;

use crate::peers::machine::{Machine, is_pattern};
use crate::terminal::say;

/// Series in a request.
const BATCH: usize = 100;
/// How long the server may take to make the values of a batch visible.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Copies values that this server does not have from another one.
///
/// Both servers must be running. Values that are known here are not changed. Without patterns all series of
/// the other server are compared. An interrupted run goes on where it was when it is started again.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  plumbago fill --from http://graphite-b:8080 --to 127.0.0.1:2013 --since 2h 'servers.*.cpu.*'"
)]
pub struct Args {
    /// The URL of the server that has the values.
    #[arg(long, value_name = "URL")]
    from: String,
    /// The URL of this server.
    #[arg(
        long,
        value_name = "URL",
        env = "PLUMBAGO_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    url: String,
    /// Where this server takes carbon lines: an address of carbon.relay_line_tcp, from which values are not
    /// sent on to other servers, or of carbon.line_tcp.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2013")]
    to: String,
    /// How far back values are compared.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    since: Span,
    /// How far back comparing ends: values that are newer may still be on their way.
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    until: Span,
    /// Most values sent per second; 0: no limit.
    #[arg(long, value_name = "VALUES", default_value_t = 100_000)]
    rate: u32,
    /// The file that remembers how far the run is.
    #[arg(long, value_name = "FILE", default_value = "plumbago-fill.json")]
    state: PathBuf,
    /// Say what is missing, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Patterns of the series to compare, such as "servers.*.cpu.*"; "**" stands for any number of nodes.
    patterns: Vec<String>,
}

/// What a run was about, and how far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    from: String,
    url: String,
    patterns: Vec<String>,
    since: i64,
    until: i64,
    /// The last name of the last batch that is done.
    done: String,
}

#[derive(Debug, Default)]
struct Counts {
    series: u64,
    sent: u64,
    /// Values that the server did not take: they are outside of what its files keep.
    not_taken: u64,
}

/// Runs the verb.
///
/// # Errors
/// A server cannot be reached or refuses a request.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let other = Machine::new(&args.from, TIMEOUT).context("--from")?;
    let here = Machine::new(&args.url, TIMEOUT).context("--url")?;
    let mut state = args.state()?;
    let mut names = names(&other, &args.patterns)?;
    let all = names.len();
    names.retain(|name| *name > state.done);
    if names.len() < all {
        // The work is done although this cannot be said.
        let _ = say(&format!(
            "going on behind {}, {} of {all} series are left\n",
            state.done,
            names.len()
        ));
    }
    let mut filler = Filler {
        args,
        other,
        here,
        lines: None,
        counts: Counts::default(),
        begun: Instant::now(),
    };
    let bar = progress(names.len() as u64);
    for batch in names.chunks(BATCH) {
        filler.fill(batch, &state)?;
        bar.inc(batch.len() as u64);
        bar.set_message(format!("{} values", filler.counts.sent));
        if let (Some(last), false) = (batch.last(), args.dry_run) {
            state.done.clone_from(last);
            write(&args.state, &state)?;
        }
    }
    bar.finish_and_clear();
    if !args.dry_run {
        // The next run compares all series again.
        let _ = fs::remove_file(&args.state);
    }
    let Counts {
        series,
        sent,
        not_taken,
    } = filler.counts;
    let what = if args.dry_run { "missing" } else { "filled" };
    say(&format!(
        "{sent} values of {series} series {what}, {} series compared\n",
        names.len()
    ))?;
    if not_taken > 0 {
        say(&format!(
            "{not_taken} values were not taken: they are outside of what the files here keep\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// The state of an interrupted run of the same kind, or a new one.
    fn state(&self) -> anyhow::Result<State> {
        let now = now();
        let seconds = |span: &Span| span.0.as_secs() as i64;
        let new = State {
            from: self.from.clone(),
            url: self.url.clone(),
            patterns: self.patterns.clone(),
            since: now - seconds(&self.since),
            until: now - seconds(&self.until),
            done: String::new(),
        };
        if new.since >= new.until {
            bail!(
                "--since {} must be further back than --until {}",
                self.since,
                self.until
            );
        }
        let path = self.state.display();
        let text = match fs::read(&self.state) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(new),
            Err(error) => return Err(anyhow!("{path}: {error}")),
        };
        let old: State = serde_json::from_slice(&text)
            .map_err(|error| anyhow!("{path} is not the state of a run, remove it: {error}"))?;
        let same = (&old.from, &old.url, &old.patterns) == (&new.from, &new.url, &new.patterns);
        if !same {
            bail!(
                "{path} is of another run (from {}): remove it, or choose another --state",
                old.from
            );
        }
        Ok(old)
    }
}

/// The names of the series to compare, sorted.
fn names(other: &Machine, patterns: &[String]) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let all = ["**".to_owned()];
    let wanted = if patterns.is_empty() {
        &all[..]
    } else {
        patterns
    };
    for pattern in wanted {
        let found = other
            .find(pattern, &Budget::unlimited())?
            .content
            .into_iter();
        // Files of tagged series go by the names of the series.
        let plain = found.filter(|node| node.is_leaf && !node.path.starts_with("_tagged."));
        names.extend(plain.map(|node| node.path));
    }
    if patterns.is_empty() {
        let asked = [("expr", "name=~.+"), ("local", "1")];
        let tagged = other.json("/tags/findSeries", &asked, &Budget::unlimited())?;
        let tagged: Vec<String> = tagged.content;
        names.extend(tagged);
    }
    names.retain(|name| !is_pattern(name));
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

struct Filler<'a> {
    args: &'a Args,
    other: Machine,
    here: Machine,
    lines: Option<TcpStream>,
    counts: Counts,
    begun: Instant,
}

/// Values that are missing here: a name, and values with their times.
type Missing = Vec<(String, Vec<(i64, f64)>)>;

impl Filler<'_> {
    /// Compares and fills a batch of series.
    fn fill(&mut self, names: &[String], state: &State) -> anyhow::Result<()> {
        for window in self.windows(names, state)? {
            let missing = self.missing(names, window)?;
            if missing.is_empty() {
                continue;
            }
            let values: usize = missing.iter().map(|(_, values)| values.len()).sum();
            self.counts.series += missing.len() as u64;
            self.counts.sent += values as u64;
            if self.args.dry_run {
                continue;
            }
            self.send(&missing)?;
            self.counts.not_taken += self.wait(names, window)? as u64;
            self.rest();
        }
        Ok(())
    }

    /// The ranges of the archives of the other server between the ends of the run: coarse ones first, so that
    /// finer values decide what coarse ones are made of.
    fn windows(&self, names: &[String], state: &State) -> anyhow::Result<Vec<(i64, i64)>> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut reaches: Vec<i64> = self
            .other
            .info(&names, &Budget::unlimited())?
            .content
            .iter()
            .flat_map(|info| &info.retentions)
            .map(|archive| {
                archive
                    .seconds_per_point
                    .saturating_mul(archive.number_of_points)
            })
            .collect();
        reaches.sort_unstable();
        reaches.dedup();
        let now = now();
        let mut windows = Vec::new();
        let mut until = state.until;
        for reach in reaches {
            let from = (now - reach).max(state.since);
            if from < until {
                windows.push((from, until));
                until = from;
            }
        }
        if windows.is_empty() {
            windows.push((state.since, state.until));
        }
        windows.reverse();
        Ok(windows)
    }

    /// What the other server knows in `window` and this one does not.
    fn missing(&self, names: &[String], (from, until): (i64, i64)) -> anyhow::Result<Missing> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let budget = Budget::unlimited();
        let theirs = self.other.fetch(&names, (from, until), &budget)?.content;
        let ours = self
            .here
            .fetch(&names, (from, until), &budget)?
            .content
            .into_iter();
        let ours: HashMap<String, FetchResponse> =
            ours.map(|series| (series.name.clone(), series)).collect();
        let all = theirs.into_iter().filter_map(|series| {
            let values = unknown(&series, ours.get(&series.name), (from, until));
            (!values.is_empty()).then_some((series.name, values))
        });
        Ok(all.collect())
    }

    fn send(&mut self, missing: &Missing) -> anyhow::Result<()> {
        let mut text = String::new();
        for (name, values) in missing {
            for (at, value) in values {
                text.push_str(&format!("{name} {value} {at}\n"));
            }
        }
        // A receiver may have closed a connection that was silent for long.
        for last in [false, true] {
            let to = &self.args.to;
            if self.lines.is_none() {
                let stream = TcpStream::connect(to).with_context(|| format!("--to {to}"))?;
                stream.set_nodelay(true)?;
                self.lines = Some(stream);
            }
            let Some(stream) = &mut self.lines else {
                continue;
            };
            match stream.write_all(text.as_bytes()) {
                Ok(()) => return Ok(()),
                Err(error) if last => return Err(error).with_context(|| format!("--to {to}")),
                Err(_) => self.lines = None,
            }
        }
        Ok(())
    }

    /// Waits until the values are there; how many are not.
    fn wait(&self, names: &[String], window: (i64, i64)) -> anyhow::Result<usize> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(5);
        loop {
            let missing = self.missing(names, window)?;
            let left = missing.iter().map(|(_, values)| values.len()).sum();
            if left == 0 || begun.elapsed() > PATIENCE {
                return Ok(left);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Pauses as long as --rate demands.
    fn rest(&self) {
        if self.args.rate > 0 {
            let due = Duration::from_secs_f64(self.counts.sent as f64 / f64::from(self.args.rate));
            std::thread::sleep(due.saturating_sub(self.begun.elapsed()));
        }
    }
}

/// The known values of `theirs` in `(from, until]` at whose times `ours` knows nothing.
fn unknown(
    theirs: &FetchResponse,
    ours: Option<&FetchResponse>,
    (from, until): (i64, i64),
) -> Vec<(i64, f64)> {
    let knows = |at: i64| {
        let Some(ours) = ours.filter(|ours| ours.step_time > 0 && at >= ours.start_time) else {
            return false;
        };
        let place = usize::try_from((at - ours.start_time) / ours.step_time).unwrap_or(usize::MAX);
        ours.values.get(place).is_some_and(|value| !value.is_nan())
    };
    let times = (0..).map(|n: i64| theirs.start_time + n * theirs.step_time);
    let values = times
        .zip(&theirs.values)
        .filter(|(at, value)| value.is_finite() && *at > from && *at <= until && !knows(*at));
    values.map(|(at, value)| (at, *value)).collect()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

/// Writes the state, complete or not at all.
fn write(path: &Path, state: &State) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, serde_json::to_vec_pretty(state)?)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| path.display().to_string())
}

fn progress(series: u64) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(series), target);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {pos}/{len} series, {msg}, {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(start: i64, step: i64, values: &[f64]) -> FetchResponse {
        FetchResponse {
            start_time: start,
            step_time: step,
            values: values.to_vec(),
            ..FetchResponse::default()
        }
    }

    #[test]
    fn only_what_is_not_known_here_is_sent() {
        const N: f64 = f64::NAN;
        let theirs = series(100, 10, &[1.0, 2.0, N, 4.0, 5.0]);
        let all = (0, 1_000);
        let ours = series(100, 10, &[9.0, N, 9.0, N]);
        assert_eq!(
            unknown(&theirs, Some(&ours), all),
            [(110, 2.0), (130, 4.0), (140, 5.0)]
        );
        assert_eq!(unknown(&theirs, Some(&ours), (110, 130)), [(130, 4.0)]);
        assert_eq!(unknown(&theirs, None, all).len(), 4);
        // A coarser value here stands for all times of its step.
        let ours = series(60, 60, &[N, 3.0]);
        assert_eq!(unknown(&theirs, Some(&ours), all), [(100, 1.0), (110, 2.0)]);
    }
}
