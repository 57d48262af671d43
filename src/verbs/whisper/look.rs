//! The tools that only read.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::ValueEnum;
use render::python;
use whisper::explain::{Below, Slot};
use whisper::{Archive, ArchiveDiff, File, Header, Timestamp, is_absent, present};

use super::numbers::{self, repr, repr_or};
use super::{Context, Interval, Times, step};
use crate::config::Sources;

/// `whisper info`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  plumbago whisper info web/hits.wsp maxRetention")]
pub(super) struct Info {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    path: PathBuf,
    /// Print this field only.
    field: Option<String>,
}

impl Info {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let header = Header::read(&self.path)?;
        let size = std::fs::metadata(&self.path)?.len();
        let out = &mut *context.out;
        let fields = [
            ("aggregationMethod", header.aggregation.to_string()),
            ("maxRetention", header.max_retention().to_string()),
            ("xFilesFactor", repr(f64::from(header.x_files_factor))),
            ("archives", archive_list(&header)),
            ("fileSize", size.to_string()),
        ];
        if let Some(wanted) = &self.field {
            let Some((_, value)) = fields.iter().find(|(name, _)| name == wanted) else {
                let names = fields.map(|(name, _)| name).join(",");
                writeln!(out, "Unknown field \"{wanted}\". Valid fields are {names}")?;
                return Ok(ExitCode::FAILURE);
            };
            writeln!(out, "{value}")?;
        } else if self.json {
            info_json(out, &header, &fields)?;
        } else {
            for (name, value) in fields.iter().filter(|(name, _)| *name != "archives") {
                writeln!(out, "{name}: {value}")?;
            }
            writeln!(out)?;
            for (i, archive) in header.archives().iter().enumerate() {
                writeln!(out, "Archive {i}")?;
                for (name, value) in archive_fields(archive) {
                    writeln!(out, "{name}: {value}")?;
                }
                writeln!(out)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn archive_fields(archive: &Archive) -> [(&'static str, u64); 5] {
    [
        ("offset", u64::from(archive.offset)),
        ("secondsPerPoint", u64::from(archive.step.seconds())),
        ("points", u64::from(archive.points)),
        ("retention", archive.retention()),
        ("size", archive.size()),
    ]
}

/// The archives as Python prints a list of dictionaries.
fn archive_list(header: &Header) -> String {
    let dictionary = |archive: &Archive| {
        let fields = archive_fields(archive).map(|(name, value)| format!("'{name}': {value}"));
        format!("{{{}}}", fields.join(", "))
    };
    let archives: Vec<String> = header.archives().iter().map(dictionary).collect();
    format!("[{}]", archives.join(", "))
}

fn info_json(
    out: &mut dyn Write,
    header: &Header,
    fields: &[(&'static str, String); 5],
) -> std::io::Result<()> {
    let [method, retention, factor, _, size] = fields;
    writeln!(out, "{{\n  \"{}\": \"{}\",", method.0, method.1)?;
    writeln!(out, "  \"{}\": {},", retention.0, retention.1)?;
    writeln!(out, "  \"{}\": {},\n  \"archives\": [", factor.0, factor.1)?;
    for (i, archive) in header.archives().iter().enumerate() {
        let fields =
            archive_fields(archive).map(|(name, value)| format!("      \"{name}\": {value}"));
        let end = if i + 1 < header.archives().len() {
            ","
        } else {
            ""
        };
        writeln!(out, "    {{\n{}\n    }}{end}", fields.join(",\n"))?;
    }
    writeln!(out, "  ],\n  \"{}\": {}\n}}", size.0, size.1)
}

/// `whisper dump`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  plumbago whisper dump --pretty web/hits.wsp")]
pub(super) struct Dump {
    #[command(flatten)]
    times: Times,
    /// Print only the points, in the format that `whisper update` reads.
    #[arg(short, long)]
    raw: bool,
    path: PathBuf,
}

impl Dump {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let dump = whisper::Dump::read(&self.path)?;
        let out = &mut *context.out;
        if !self.raw {
            dump_header(out, &dump.header)?;
        }
        for (i, slots) in dump.archives.iter().enumerate() {
            if !self.raw {
                writeln!(out, "Archive {i} data:")?;
            }
            for (slot, point) in slots.iter().enumerate() {
                let value = python::general_to(point.value, 35);
                if self.raw {
                    writeln!(out, "{}:{value}", point.at)?;
                } else {
                    let time = self.times.show(point.at, &context.zone)?;
                    writeln!(out, "{slot}: {time}, {value:>10}")?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn dump_header(out: &mut dyn Write, header: &Header) -> std::io::Result<()> {
    writeln!(
        out,
        "Meta data:\n  aggregation method: {}",
        header.aggregation
    )?;
    writeln!(out, "  max retention: {}", header.max_retention())?;
    writeln!(
        out,
        "  xFilesFactor: {}\n",
        python::general_to(f64::from(header.x_files_factor), 6)
    )?;
    for (i, archive) in header.archives().iter().enumerate() {
        writeln!(out, "Archive {i} info:")?;
        for (name, value) in archive_fields(archive) {
            let name = if name == "secondsPerPoint" {
                "seconds per point"
            } else {
                name
            };
            writeln!(out, "  {name}: {value}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// `whisper fetch`.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  plumbago whisper fetch --from -1h --pretty --drop nulls web/hits.wsp"
)]
pub(super) struct Fetch {
    #[command(flatten)]
    interval: Interval,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    times: Times,
    /// Omit absent values (nulls), zeroes, or both (empty).
    #[arg(long, value_name = "WHAT")]
    drop: Option<Drop>,
    path: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Drop {
    Nulls,
    Zeroes,
    Empty,
}

impl Drop {
    fn keeps(self, value: f64) -> bool {
        match self {
            Self::Nulls => !is_absent(value),
            Self::Zeroes => value != 0.0,
            Self::Empty => !is_absent(value) && value != 0.0,
        }
    }
}

impl Fetch {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let now = context.now;
        let (from, until) = self.interval.at(context)?;
        let Some(fetched) = File::open(&self.path)?.fetch(now, from, until)? else {
            bail!("No data in selected timerange");
        };
        let kept = |value: f64| self.drop.is_none_or(|drop| drop.keeps(value));
        let points: Vec<_> = fetched.points().filter(|(_, value)| kept(*value)).collect();
        let out = &mut *context.out;
        if self.json {
            let values: Vec<String> = points.iter().map(|(_, v)| repr_or(*v, "null")).collect();
            writeln!(
                out,
                "{{\n    \"start\" : {},\n    \"end\" : {},",
                fetched.start, fetched.end
            )?;
            writeln!(
                out,
                "    \"step\" : {},\n    \"values\" : [{}]\n  }}",
                fetched.step,
                values.join(", ")
            )?;
        } else {
            for (at, value) in points {
                let value = present(value)
                    .map_or_else(|| "None".to_owned(), |value| python::fixed(value, 6));
                writeln!(out, "{}\t{value}", self.times.show(at, &context.zone)?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `whisper diff`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  plumbago whisper diff --summary here/hits.wsp there/hits.wsp")]
pub(super) struct Diff {
    /// Print only the number of differences.
    #[arg(long)]
    summary: bool,
    /// Omit timestamps at which one of the files has no value.
    #[arg(long)]
    ignore_empty: bool,
    /// Print plain columns.
    #[arg(long)]
    columns: bool,
    /// Do not print headings.
    #[arg(long)]
    no_headers: bool,
    /// Compare the files up to this epoch; default: now.
    #[arg(long, value_name = "EPOCH")]
    until: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    path_a: PathBuf,
    path_b: PathBuf,
}

impl Diff {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let (a, b) = (File::open(&self.path_a)?, File::open(&self.path_b)?);
        let until = self.until.map(Timestamp);
        let diffs = whisper::diff(&a, &b, context.now, until, self.ignore_empty)?;
        match (self.json, self.summary) {
            (true, _) => self.print_json(context.out, &diffs)?,
            (false, true) => self.print_summary(context.out, &diffs)?,
            (false, false) => self.print(context.out, &diffs)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, out: &mut dyn Write, diffs: &[ArchiveDiff]) -> std::io::Result<()> {
        let line = |archive: &str, time: &str, a: &str, b: &str| match self.columns {
            true => format!("{archive} {time} {a} {b}"),
            false => format!("{archive:>7} {time:>11} {a:>13} {b:>13}"),
        };
        if !self.no_headers {
            writeln!(
                out,
                "{}",
                line("archive", "timestamp", "value_a", "value_b")
            )?;
        }
        for ArchiveDiff {
            archive,
            points,
            total,
        } in diffs
        {
            let archive = archive.to_string();
            if !self.columns {
                writeln!(
                    out,
                    "Archive {archive} ({} of {total} datapoints differ)",
                    points.len()
                )?;
                writeln!(out, "{}", line("", "timestamp", "value_a", "value_b"))?;
            }
            for &(at, a, b) in points {
                let archive = if self.columns { archive.as_str() } else { "" };
                let (a, b) = (repr_or(a, "None"), repr_or(b, "None"));
                writeln!(out, "{}", line(archive, &at.to_string(), &a, &b))?;
            }
        }
        Ok(())
    }

    fn print_summary(&self, out: &mut dyn Write, diffs: &[ArchiveDiff]) -> std::io::Result<()> {
        let line = |archive: &str, total: &str, differing: &str| match self.columns {
            true => format!("{archive} {total} {differing}"),
            false => format!("{archive:>7} {total:>9} {differing:>9}"),
        };
        if !self.no_headers {
            writeln!(out, "{}", line("archive", "total", "differing"))?;
        }
        for ArchiveDiff {
            archive,
            points,
            total,
        } in diffs
        {
            let numbers = [*archive, *total, points.len()].map(|n| n.to_string());
            writeln!(out, "{}", line(&numbers[0], &numbers[1], &numbers[2]))?;
        }
        Ok(())
    }

    fn print_json(&self, out: &mut dyn Write, diffs: &[ArchiveDiff]) -> anyhow::Result<()> {
        let points = |diff: &ArchiveDiff| {
            let point = |&(at, a, b): &(Timestamp, f64, f64)| {
                let (a, b) = (numbers::json(a), numbers::json(b));
                format!(
                    "        {{\n          \"timestamp\" : {at},\n          \"value_a\" : {a},\n          \
                     \"value_b\" : {b}\n        }}"
                )
            };
            let points: Vec<String> = diff.points.iter().map(point).collect();
            match points.is_empty() {
                true => "[]".to_owned(),
                false => format!("[\n{}\n      ]", points.join(",\n")),
            }
        };
        let archive = |diff: &ArchiveDiff| {
            let mut fields = vec![format!("\"archive\" : {}", diff.archive)];
            if !self.summary {
                fields.push(format!("\"datapoint\" : {}", points(diff)));
            }
            fields.push(format!("\"points\" : {}", diff.points.len()));
            fields.push(format!("\"total\" : {}", diff.total));
            format!("    {{\n      {}\n    }}", fields.join(",\n      "))
        };
        let archives: Vec<String> = diffs.iter().map(archive).collect();
        let name = |path: &PathBuf| serde_json::to_string(&path.to_string_lossy());
        writeln!(
            out,
            "{{\n  \"archives\" : [\n{}\n  ],",
            archives.join(",\n")
        )?;
        writeln!(
            out,
            "  \"path_a\" : {},\n  \"path_b\" : {}\n}}",
            name(&self.path_a)?,
            name(&self.path_b)?
        )?;
        Ok(())
    }
}

/// `whisper explain`.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  plumbago whisper explain web/hits.wsp --from 1763640000 --until 1763643600"
)]
pub(super) struct Explain {
    path: PathBuf,
    #[command(flatten)]
    interval: Interval,
    /// The configuration file of the server, which says what a new file would be like.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a key, as in `--set carbon.whisper_dir=/opt/graphite/storage/whisper`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    times: Times,
}

impl Explain {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let now = context.now;
        let (from, until) = self.interval.at(context)?;
        let file = File::open(&self.path)?;
        let sources = Sources {
            file: self.config.clone(),
            overrides: self.set.clone(),
            data: None,
        };
        for line in step::why(&self.path, &file, &sources.read().usable()?)? {
            writeln!(context.out, "{line}")?;
        }
        let header = file.header();
        let Some(explanation) = whisper::explain(&file, now, from, until)? else {
            let oldest = i64::from(now.0) - i64::from(header.max_retention());
            bail!("the interval is outside the file: at {now} it holds points after {oldest}");
        };
        let out = &mut *context.out;
        for (i, (archive, reach)) in header.archives().iter().zip(&explanation.reach).enumerate() {
            let verdict = match i.cmp(&explanation.archive) {
                std::cmp::Ordering::Less => format!("does not reach back to {from}"),
                std::cmp::Ordering::Equal => "answers".to_owned(),
                std::cmp::Ordering::Greater => "is coarser than necessary".to_owned(),
            };
            let step = archive.step;
            writeln!(
                out,
                "archive {i}, {step} s per point, reaches back to {reach}: {verdict}"
            )?;
        }
        let needed = python::general_to(f64::from(header.x_files_factor), 6);
        // Equal lines are one with their number: a file without points has thousands of them.
        let mut equal = Equal::default();
        for entry in &explanation.rows {
            let time = self.times.show(entry.at, &context.zone)?;
            let (value, mut why) = match entry.slot {
                Slot::Value(value) => (repr(value), String::new()),
                Slot::Empty => ("None".to_owned(), "its slot was never written".to_owned()),
                Slot::Other(at) => ("None".to_owned(), format!("its slot still holds {at}")),
                Slot::Beyond => (
                    "None".to_owned(),
                    "beyond the end of the archive".to_owned(),
                ),
            };
            if let Some(below) = entry.below {
                let index = explanation.archive - 1;
                let gap = if why.is_empty() { "" } else { "; " };
                why = format!("{why}{gap}{}", below_text(below, index, &needed));
            }
            let text = format!("{value}\t{why}");
            if text == equal.text {
                equal.more += 1;
                equal.until = time;
                continue;
            }
            equal.end(out)?;
            writeln!(out, "{time}\t{text}")?;
            equal.text = text;
        }
        equal.end(out)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Lines of an explanation that say the same of several timestamps.
#[derive(Default)]
struct Equal {
    text: String,
    /// Those after the first.
    more: usize,
    /// The timestamp of the last.
    until: String,
}

impl Equal {
    fn end(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        let (more, until) = (std::mem::take(&mut self.more), &self.until);
        match more {
            0 => Ok(()),
            1 => writeln!(out, "{until}\t{}", self.text),
            _ => writeln!(
                out,
                "{until}\t{}\t(the last of {more} more like it)",
                self.text
            ),
        }
    }
}

fn below_text(below: Below, index: usize, needed: &str) -> String {
    let Below {
        known,
        slots,
        enough,
        in_reach,
    } = below;
    if !in_reach {
        return format!("archive {index} no longer reaches back to it");
    }
    let verdict = if enough { "enough" } else { "not enough" };
    format!(
        "{known} of {slots} points of archive {index} known, {verdict} for xFilesFactor {needed}"
    )
}
