//! The tools that write.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use whisper::header::checked_factor;
use whisper::resize::Target;
use whisper::retention::numbers;
use whisper::{
    Aggregation, Allocation, CreateOptions, Error, File, Gaps, Header, Lock, Point, ResizeOptions,
    Retention, Timestamp,
};

use super::numbers::repr;
use super::{Context, Time, beside, resize_tree, retentions};

/// `whisper create`.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  plumbago whisper create --aggregationMethod sum web/hits.wsp 10s:6h 1m:7d\n  plumbago whisper create --estimate 10s:6h,1m:7d,1h:1y"
)]
pub(super) struct Create {
    /// The fraction of known points needed to roll up.
    #[arg(
        long = "xFilesFactor",
        alias = "xff",
        default_value_t = 0.5,
        value_name = "FACTOR"
    )]
    x_files_factor: f64,
    /// The method that rolls up points.
    #[arg(
        long = "aggregationMethod",
        alias = "aggregation",
        default_value = "average",
        value_name = "METHOD"
    )]
    aggregation: String,
    /// Replace an existing file.
    #[arg(long)]
    overwrite: bool,
    /// Print the disk space that such files need, and create no file.
    #[arg(long)]
    estimate: bool,
    /// Do not reserve disk space.
    #[arg(long)]
    sparse: bool,
    /// Reserve disk space without writing it.
    #[arg(long)]
    fallocate: bool,
    /// The file, then retentions such as 60:1440 (seconds:points) or 1m:7d.
    #[arg(required = true, value_name = "PATH, STEP:LENGTH")]
    args: Vec<String>,
}

impl Create {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        if self.estimate {
            return self.estimate(context);
        }
        let [path, definitions @ ..] = &self.args[..] else {
            bail!("the path is missing")
        };
        if definitions.is_empty() {
            bail!("{path}: the retentions are missing, for example 60:1440 or 1m:7d");
        }
        let path = PathBuf::from(path);
        let mut options = CreateOptions {
            x_files_factor: self.x_files_factor,
            // As in Python's tool, fallocate takes precedence over sparse.
            allocation: match (self.fallocate, self.sparse) {
                (true, _) => Allocation::Reserved,
                (false, true) => Allocation::Sparse,
                (false, false) => Allocation::Zeroes,
            },
            ..CreateOptions::new(retentions(definitions)?)
        };
        let overwritten = path.exists() && self.overwrite;
        if overwritten {
            writeln!(context.out, "Overwriting existing file: {}", path.display())?;
        }
        // Unlike Python's tool: invalid options are refused before the old file is removed.
        Header::new(&options.retentions, 0.5, Aggregation::default())?;
        if path.exists() && !overwritten {
            return Err(Error::Exists { path }.into());
        }
        options.aggregation = method(&self.aggregation)?;
        checked_factor(options.x_files_factor)?;
        if overwritten {
            std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        whisper::create(&path, &options)?;
        let size = std::fs::metadata(&path)?.len();
        writeln!(context.out, "Created: {} ({size} bytes)", path.display())?;
        Ok(ExitCode::SUCCESS)
    }

    fn estimate(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let definitions: Vec<&str> = match &self.args[..] {
            [list] => list.split(',').collect(),
            definitions => definitions.iter().map(String::as_str).collect(),
        };
        let mut size = 16;
        for (i, definition) in definitions.iter().enumerate() {
            let (step, points) = numbers(definition)?;
            writeln!(
                context.out,
                "Archive {i}: {points} points of {step}s precision"
            )?;
            size += 12 + u128::from(points) * 12;
        }
        let on_disk = size.next_multiple_of(4096);
        writeln!(
            context.out,
            "\nEstimated Whisper DB Size: {} ({on_disk} bytes on disk with 4k blocks)\n",
            in_units(size)
        )?;
        for thousands in [1, 5, 10, 50, 100, 500] {
            let all = in_units(thousands * 1000 * on_disk);
            writeln!(
                context.out,
                "Estimated storage requirement for {thousands}k metrics: {all}"
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn in_units(bytes: u128) -> String {
    let mut size = bytes as f64;
    for unit in ["bytes", "KB", "MB"] {
        if size < 1024.0 {
            return format!("{size:.3}{unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.3}GB")
}

fn method(name: &str) -> Result<Aggregation, Error> {
    Aggregation::parse(name).ok_or_else(|| Error::Method(name.to_owned()))
}

/// `whisper update`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  plumbago whisper update web/hits.wsp N:42 1763640000:17.5")]
pub(super) struct Update {
    path: PathBuf,
    /// Points as EPOCH:VALUE, or N:VALUE for now. Without points, the tool reads them from standard
    /// input, one per line.
    #[arg(value_name = "EPOCH:VALUE")]
    points: Vec<String>,
}

impl Update {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let read = |text: &String| point(text, context.now);
        let points: Vec<Point> = if self.points.is_empty() {
            let lines = std::io::stdin().lock().lines();
            lines
                .map(|line| read(&line?))
                .collect::<anyhow::Result<_>>()?
        } else {
            self.points
                .iter()
                .map(read)
                .collect::<anyhow::Result<_>>()?
        };
        let mut file = File::open_mut(&self.path, Lock::Exclusive)?;
        match points[..] {
            [point] => file.update(context.now, point)?,
            ref points => drop(file.update_many(context.now, points)?),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn point(text: &str, now: Timestamp) -> anyhow::Result<Point> {
    let refuse = || anyhow!("{text:?} is not EPOCH:VALUE, e.g. 1763640000:17.5");
    let (at, value) = text.trim().split_once(':').ok_or_else(refuse)?;
    let at = match at {
        "N" => now,
        at => Timestamp(at.trim().parse().map_err(|_| refuse())?),
    };
    Ok(Point {
        at,
        value: value.trim().parse().map_err(|_| refuse())?,
    })
}

/// `whisper resize`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago whisper resize web/hits.wsp 10s:1d 1m:30d 1h:5y\n  plumbago whisper resize --schemas storage-schemas.conf --dry-run /var/lib/graphite/whisper"
)]
pub(super) struct Resize {
    /// The file; with --schemas the tree of files.
    path: PathBuf,
    /// The new retentions, such as 60:1440 (seconds:points) or 1m:7d.
    #[arg(
        required_unless_present = "schemas",
        conflicts_with = "schemas",
        value_name = "STEP:LENGTH"
    )]
    definitions: Vec<String>,
    /// Give each file of the tree the retentions of the first rule of this storage-schemas.conf that
    /// matches its name; files that match none stay as they are. Can be interrupted and repeated.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["newfile", "x_files_factor"])]
    schemas: Option<PathBuf>,
    /// With --schemas: print what would be changed, and change nothing.
    #[arg(long, requires = "schemas")]
    dry_run: bool,
    /// With --schemas: resize at most so many files per second; 0: no limit.
    #[arg(long, value_name = "FILES", requires = "schemas", default_value_t = 0)]
    rate: u32,
    /// Change the fraction of known points needed to roll up.
    #[arg(long = "xFilesFactor", alias = "xff", value_name = "FACTOR")]
    x_files_factor: Option<f64>,
    /// Change the method that rolls up points; with --schemas a storage-aggregation.conf.
    #[arg(
        long = "aggregationMethod",
        alias = "aggregation",
        value_name = "METHOD"
    )]
    aggregation: Option<String>,
    /// Write a new file and leave the old file unchanged.
    #[arg(long, value_name = "PATH")]
    newfile: Option<PathBuf>,
    /// Do not keep a copy of the old file as PATH.bak.
    #[arg(long)]
    nobackup: bool,
    /// Do not reserve disk space.
    #[arg(long)]
    sparse: bool,
    /// Accepted for compatibility with scripts: points are always aggregated if the step changes.
    #[arg(long, hide = true)]
    aggregate: bool,
    /// Accepted for compatibility with scripts.
    #[arg(long, hide = true)]
    force: bool,
}

impl Resize {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        if let Some(schemas) = &self.schemas {
            let job = resize_tree::Job {
                schemas,
                aggregation: self.aggregation.as_deref().map(Path::new),
                tree: &self.path,
                dry_run: self.dry_run,
                rate: self.rate,
                backup: !self.nobackup,
                sparse: self.sparse,
            };
            return job.run(context);
        }
        let backup = (!self.nobackup).then(|| beside(&self.path, ".bak"));
        let options = ResizeOptions {
            retentions: retentions(&self.definitions)?,
            x_files_factor: self.x_files_factor,
            aggregation: self.aggregation.as_deref().map(method).transpose()?,
            allocation: if self.sparse {
                Allocation::Sparse
            } else {
                Allocation::Reserved
            },
            target: match &self.newfile {
                Some(path) => Target::New(path.clone()),
                None => Target::Replace {
                    backup: backup.clone(),
                },
            },
        };
        let resized = whisper::resize(&self.path, || context.time(), &options)?;
        let new = self.newfile.as_ref().unwrap_or(&self.path);
        let (out, size) = (&mut *context.out, resized.size);
        writeln!(out, "Created: {} ({size} bytes)", new.display())?;
        let mut written: Vec<Retention> = options.retentions;
        written.sort_by_key(|retention| retention.step);
        for (i, (retention, known)) in written.iter().zip(&resized.points).enumerate() {
            let Retention { step, points } = retention;
            writeln!(
                out,
                "Archive {i}: {known} of {points} points of {step}s precision"
            )?;
        }
        if resized.carried > 0 {
            let carried = resized.carried;
            writeln!(
                out,
                "Carried over: {carried} points that were written in the meantime"
            )?;
        }
        if let (Some(backup), None) = (backup, &self.newfile) {
            writeln!(out, "Old file: {}", backup.display())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `whisper merge`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  plumbago whisper merge there/hits.wsp here/hits.wsp")]
pub(super) struct Merge {
    /// Merge points from this time on, an epoch or `-1h`; default: all points.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<Time>,
    /// Merge points up to this time; default: now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<Time>,
    /// The file to read points from.
    from_path: PathBuf,
    /// The file to write to.
    to_path: PathBuf,
}

impl Merge {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let source = File::open(&self.from_path)?;
        let mut target = File::open_mut(&self.to_path, Lock::Exclusive)?;
        let at = |time: &Option<Time>| time.as_ref().map(|time| time.at(context)).transpose();
        let (from, until) = (at(&self.from)?, at(&self.until)?);
        whisper::merge(&source, &mut target, context.now, from, until)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `whisper fill`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  plumbago whisper fill there/hits.wsp here/hits.wsp")]
pub(super) struct Fill {
    /// Accepted for compatibility with scripts: the written file is always locked.
    #[arg(long, hide = true)]
    lock: bool,
    /// Fill gaps of one point too and keep stored zeroes, unlike whisper-fill.
    #[arg(long)]
    every_gap: bool,
    /// The file to read points from.
    src: PathBuf,
    /// The file to write to.
    dst: PathBuf,
}

impl Fill {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let source = File::open(&self.src)?;
        let mut target = File::open_mut(&self.dst, Lock::Exclusive)?;
        let gaps = if self.every_gap {
            Gaps::Every
        } else {
            Gaps::Reference
        };
        whisper::fill(&source, &mut target, context.now, gaps)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `whisper set-xff`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  plumbago whisper set-xff web/hits.wsp 0")]
pub(super) struct SetXff {
    path: PathBuf,
    /// The new xFilesFactor, 0 to 1.
    x_files_factor: f64,
}

impl SetXff {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let mut file = File::open_mut(&self.path, Lock::Exclusive)?;
        let (_, old) = file.set(None, Some(self.x_files_factor))?;
        let (old, new) = (repr(f64::from(old)), repr(self.x_files_factor));
        writeln!(
            context.out,
            "Updated xFilesFactor: {} ({old} -> {new})",
            self.path.display()
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `whisper set-aggregation`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  plumbago whisper set-aggregation web/errors.wsp sum")]
pub(super) struct SetAggregation {
    path: PathBuf,
    /// The method: average, sum, last, max, min, avg_zero, absmax or absmin.
    method: String,
    /// Also set the xFilesFactor, 0 to 1.
    #[arg(value_name = "X_FILES_FACTOR")]
    x_files_factor: Option<String>,
}

impl SetAggregation {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let mut file = File::open_mut(&self.path, Lock::Exclusive)?;
        let new = method(&self.method)?;
        let number = |text: &String| {
            let refused = |_| Error::XFilesFactorText(text.clone());
            text.trim().parse().map_err(refused)
        };
        let factor = self.x_files_factor.as_ref().map(number).transpose()?;
        let (old, old_factor) = file.set(Some(new), factor)?;
        let path = self.path.display();
        writeln!(
            context.out,
            "Updated aggregation method: {path} ({old} -> {new})"
        )?;
        if let Some(factor) = factor {
            let (old, new) = (repr(f64::from(old_factor)), repr(factor));
            writeln!(
                context.notes,
                "Updated xFilesFactor: {path} ({old} -> {new})"
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `whisper delete-range`.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  plumbago whisper delete-range web/hits.wsp --from 1763640000 --until 1763643600"
)]
pub(super) struct DeleteRange {
    path: PathBuf,
    /// The time of the first point to erase, an epoch or `-1h`.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Time,
    /// The time of the last point to erase.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Time,
}

impl DeleteRange {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let (from, until) = (self.from.at(context)?, self.until.at(context)?);
        if from > until {
            let (from, until) = (from.0, until.0);
            return Err(Error::Interval { from, until }.into());
        }
        let mut file = File::open_mut(&self.path, Lock::Exclusive)?;
        let erased = whisper::erase(&mut file, from, until)?;
        let (emptied, recomputed) = (erased.emptied, erased.recomputed);
        let path = self.path.display();
        writeln!(
            context.out,
            "Erased: {path} ({emptied} slots, {recomputed} recomputed)"
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
