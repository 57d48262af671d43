//! `plumbago whisper`: the tools for whisper files.
//!
//! The tools that Python's whisper has too take the same arguments and print the same bytes to
//! standard output, so that scripts continue to work. `verify`, `explain` and `delete-range` exist
//! only here. `--now` replaces the clock in all tools.

mod edit;
mod look;
mod numbers;
mod resize_tree;
mod step;
mod verify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Subcommand;
use jiff::tz::TimeZone;
use whisper::{Retention, Timestamp};

/// Seconds of a day.
const DAY: u32 = 86_400;

/// Arguments of `plumbago whisper`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  plumbago whisper create web/hits.wsp 10s:6h 1m:7d")]
pub struct Args {
    /// Use this epoch instead of the clock.
    #[arg(long, global = true, value_name = "EPOCH")]
    now: Option<u32>,
    #[command(subcommand)]
    tool: Tool,
}

/// The tools.
#[derive(Subcommand)]
enum Tool {
    /// Creates a file, or estimates the disk space that such files need.
    Create(edit::Create),
    /// Prints the header of a file.
    Info(look::Info),
    /// Prints every slot of a file.
    Dump(look::Dump),
    /// Prints the points of an interval.
    Fetch(look::Fetch),
    /// Writes points, from the arguments or from standard input.
    Update(edit::Update),
    /// Changes a file's retentions; safe while a server is running.
    Resize(edit::Resize),
    /// Writes the points of one file into another, replacing existing points.
    Merge(edit::Merge),
    /// Fills the gaps of one file with the points of another.
    Fill(edit::Fill),
    /// Prints the differences between two files.
    Diff(look::Diff),
    /// Sets the xFilesFactor: the fraction of known points needed to roll up.
    SetXff(edit::SetXff),
    /// Sets the aggregation method; existing points are not recomputed.
    SetAggregation(edit::SetAggregation),
    /// Finds damaged files.
    Verify(verify::Verify),
    /// Explains why a file has its step, which archive answers a request and why values are absent.
    Explain(look::Explain),
    /// Erases the points of an interval.
    DeleteRange(edit::DeleteRange),
}

/// The environment of a tool.
pub struct Context<'a> {
    /// The time when the tool began.
    pub now: Timestamp,
    /// The clock; `None`: it stands at `now`.
    pub clock: Option<fn() -> anyhow::Result<Timestamp>>,
    /// The zone in which `--pretty` shows times.
    pub zone: TimeZone,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error, for what Python's tools do not say.
    pub notes: &'a mut dyn Write,
}

impl Context<'_> {
    /// The time by the clock.
    fn time(&self) -> Timestamp {
        let time = self.clock.and_then(|clock| clock().ok());
        time.unwrap_or(self.now)
    }
}

/// The time by the process's clock.
fn clock() -> anyhow::Result<Timestamp> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let now = u32::try_from(since.as_secs()).context("the clock is after 2106")?;
    Ok(Timestamp(now))
}

/// Runs a tool with the process's clock, zone and output.
///
/// # Errors
/// The reason why the tool failed. A closed pipe (`| head`) is not an error.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let context = Context {
        now: clock()?,
        clock: Some(clock),
        zone: TimeZone::system(),
        out: &mut out,
        notes: &mut io::stderr(),
    };
    let done = run_with(args, context).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match done {
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let found = error.downcast_ref::<io::Error>();
    found.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Runs a tool in the given environment.
///
/// # Errors
/// The reason why the tool failed.
pub fn run_with(args: Args, mut context: Context<'_>) -> anyhow::Result<ExitCode> {
    let Args { now, tool } = args;
    if let Some(now) = now {
        (context.now, context.clock) = (Timestamp(now), None);
    }
    let context = &mut context;
    match tool {
        Tool::Create(tool) => tool.run(context),
        Tool::Info(tool) => tool.run(context),
        Tool::Dump(tool) => tool.run(context),
        Tool::Fetch(tool) => tool.run(context),
        Tool::Update(tool) => tool.run(context),
        Tool::Resize(tool) => tool.run(context),
        Tool::Merge(tool) => tool.run(context),
        Tool::Fill(tool) => tool.run(context),
        Tool::Diff(tool) => tool.run(context),
        Tool::SetXff(tool) => tool.run(context),
        Tool::SetAggregation(tool) => tool.run(context),
        Tool::Verify(tool) => tool.run(context),
        Tool::Explain(tool) => tool.run(context),
        Tool::DeleteRange(tool) => tool.run(context),
    }
}

/// A time on the command line: an epoch, or one of Graphite's such as `-1h` and `now-2d`.
#[derive(Clone, Debug)]
struct Time(String);

impl Time {
    /// As in Python's tools, every plain number is an epoch.
    fn read(text: &str, zone: &TimeZone, now: Timestamp) -> anyhow::Result<Timestamp> {
        if let Ok(epoch) = text.parse() {
            return Ok(Timestamp(epoch));
        }
        let seconds = render::attime::parse(text, zone, i64::from(now.0))?;
        let seconds = u32::try_from(seconds);
        seconds
            .map(Timestamp)
            .with_context(|| format!("{text:?} is not between 1970 and 2106"))
    }

    /// The time by the clock and in the zone of `context`.
    fn at(&self, context: &Context<'_>) -> anyhow::Result<Timestamp> {
        Self::read(&self.0, &context.zone, context.now)
    }
}

impl FromStr for Time {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        // Any clock shows whether it is a time.
        Self::read(text, &TimeZone::UTC, Timestamp(u32::MAX / 2))?;
        Ok(Self(text.to_owned()))
    }
}

/// The interval of a tool that reads points.
#[derive(clap::Args)]
struct Interval {
    /// Print points after this time, an epoch or `-1h`; default: 24 hours ago.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<Time>,
    /// Print points up to this time; default: now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<Time>,
}

impl Interval {
    fn at(&self, context: &Context<'_>) -> anyhow::Result<(Timestamp, Timestamp)> {
        let Self { from, until } = self;
        let now = context.now;
        let at = |time: &Option<Time>, default| match time {
            Some(time) => time.at(context),
            None => Ok(default),
        };
        let day_ago = Timestamp(now.0.saturating_sub(DAY));
        Ok((at(from, day_ago)?, at(until, now)?))
    }
}

/// How times are printed.
#[derive(clap::Args)]
struct Times {
    /// Print times in readable form instead of epochs.
    #[arg(long)]
    pretty: bool,
    /// The strftime format of readable times.
    #[arg(short = 't', long, value_name = "FORMAT")]
    time_format: Option<String>,
}

impl Times {
    /// A timestamp in the chosen form. Without a format it is Python's `ctime`.
    fn show(&self, at: Timestamp, zone: &TimeZone) -> anyhow::Result<String> {
        if !self.pretty {
            return Ok(at.to_string());
        }
        let time = jiff::Timestamp::from_second(i64::from(at.0))?.to_zoned(zone.clone());
        let format = self
            .time_format
            .as_deref()
            .unwrap_or("%a %b %e %H:%M:%S %Y");
        Ok(jiff::fmt::strtime::format(format, &time)?)
    }
}

/// The retentions in the arguments of a command line.
fn retentions(definitions: &[String]) -> whisper::Result<Vec<Retention>> {
    definitions
        .iter()
        .map(|text| Retention::parse_whisper(text))
        .collect()
}

/// `path` with `suffix` appended.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
