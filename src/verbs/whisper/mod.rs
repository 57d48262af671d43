//! `plumbago whisper`: the tools for whisper files.
//!
//! Arguments and output of those that Python's whisper has too are Python's, byte for byte on
//! standard output, so that scripts go on working; `verify`, `explain` and `delete-range` are
//! ours. `--now` takes the place of the clock in all of them.

mod edit;
mod look;
mod verify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Subcommand;
use jiff::tz::TimeZone;
use whisper::{Retention, Timestamp};

/// What to do with which file.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  plumbago whisper create web/hits.wsp 10s:6h 1m:7d")]
pub struct Args {
    /// An epoch that takes the place of the clock.
    #[arg(long, global = true, value_name = "EPOCH")]
    now: Option<u32>,
    #[command(subcommand)]
    tool: Tool,
}

/// The tools.
#[derive(Subcommand)]
enum Tool {
    /// Creates a file, or estimates what files of its kind would take.
    Create(edit::Create),
    /// Prints what a file's header says.
    Info(look::Info),
    /// Prints every slot of a file.
    Dump(look::Dump),
    /// Prints the points of an interval.
    Fetch(look::Fetch),
    /// Writes points, from the arguments or from standard input.
    Update(edit::Update),
    /// Gives a file other archives, beside a running server too.
    Resize(edit::Resize),
    /// Writes the points of one file over those of another.
    Merge(edit::Merge),
    /// Fills the gaps of one file with the points of another.
    Fill(edit::Fill),
    /// Prints where two files differ.
    Diff(look::Diff),
    /// Changes the share of known points that it takes to make a coarser one.
    SetXff(edit::SetXff),
    /// Changes how points are made coarser; history stays as it is.
    SetAggregation(edit::SetAggregation),
    /// Looks for damaged files.
    Verify(verify::Verify),
    /// Says which archive answers a request, and why values are absent.
    Explain(look::Explain),
    /// Erases the points of an interval.
    DeleteRange(edit::DeleteRange),
}

/// What a tool has of the world.
pub struct Context<'a> {
    /// The clock.
    pub now: Timestamp,
    /// The zone in which `--pretty` shows times.
    pub zone: TimeZone,
    /// Standard output.
    pub out: &'a mut dyn Write,
}

/// Runs a tool with the process's clock, zone and output.
///
/// # Errors
/// What the tool could not do. A reader that goes away (`| head`) is none.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let now = Timestamp(u32::try_from(since.as_secs()).context("the clock is after 2106")?);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let context = Context {
        now,
        zone: TimeZone::system(),
        out: &mut out,
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

/// Runs a tool in a world that is handed in.
///
/// # Errors
/// What the tool could not do.
pub fn run_with(args: Args, mut context: Context<'_>) -> anyhow::Result<ExitCode> {
    let Args { now, tool } = args;
    context.now = now.map_or(context.now, Timestamp);
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

/// How times are printed.
#[derive(clap::Args)]
struct Times {
    /// Show readable times instead of epochs.
    #[arg(long)]
    pretty: bool,
    /// The format of readable times, as in strftime.
    #[arg(short = 't', long, value_name = "FORMAT")]
    time_format: Option<String>,
}

impl Times {
    /// A time as asked for. `ctime` is what Python prints without a format.
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

/// The archives of the definitions on a command line.
fn retentions(definitions: &[String]) -> whisper::Result<Vec<Retention>> {
    definitions
        .iter()
        .map(|text| Retention::parse_whisper(text))
        .collect()
}

/// A path with something put behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
