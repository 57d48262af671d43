//! `whisper resize --schemas`: gives the files of a tree the retentions that rules say.
//!
//! A run may be interrupted and repeated: files that have their retentions already are left alone.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use carbon::conf::Problem;
use carbon::options::Span;
use carbon::schema::{Aggregations, Schemas, load_aggregations, load_schemas};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use whisper::resize::Target;
use whisper::{Aggregation, Allocation, Header, ResizeOptions, Retention};

use super::{Context, beside};

/// What a run does.
pub(super) struct Job<'a> {
    pub(super) schemas: &'a Path,
    pub(super) aggregation: Option<&'a Path>,
    pub(super) tree: &'a Path,
    pub(super) dry_run: bool,
    /// Files per second; 0: no limit.
    pub(super) rate: u32,
    pub(super) backup: bool,
    pub(super) sparse: bool,
}

/// What became of the files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    resized: u64,
    unchanged: u64,
    without_rule: u64,
    nameless: u64,
    failed: u64,
    bytes_before: u64,
    bytes_after: u64,
    carried: usize,
}

/// The rules of a run.
struct Rules {
    schemas: Schemas,
    aggregations: Option<Aggregations>,
}

/// What a file is to become.
struct Wanted {
    retentions: Vec<Retention>,
    factor: f64,
    method: Aggregation,
}

impl Job<'_> {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let rules = self.rules()?;
        let mut counts = Counts::default();
        let progress = progress();
        let mut waiting = vec![self.tree.to_owned()];
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                match entries(&path) {
                    Ok(inside) => waiting.extend(inside),
                    Err(error) => {
                        counts.failed += 1;
                        writeln!(context.out, "Unreadable: {}: {error}", path.display())?;
                    }
                }
                continue;
            }
            progress.inc(1);
            if let Err(error) = self.one(&path, &rules, &mut counts, context) {
                counts.failed += 1;
                writeln!(context.out, "Not resized: {error:#}")?;
            }
        }
        progress.finish_and_clear();
        self.sum_up(&counts, context.out)?;
        Ok(match counts.failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }

    fn rules(&self) -> anyhow::Result<Rules> {
        let refused = |problems: Vec<Problem>| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow!("{}", lines.join("\n"))
        };
        // The interval matters to warnings only.
        let schemas = load_schemas(self.schemas, Span::seconds(10)).map_err(refused)?;
        let aggregations = self.aggregation.map(load_aggregations).transpose();
        let aggregations = aggregations.map_err(refused)?;
        Ok(Rules {
            schemas: schemas.value,
            aggregations: aggregations.map(|loaded| loaded.value),
        })
    }

    fn one(
        &self,
        path: &Path,
        rules: &Rules,
        counts: &mut Counts,
        context: &mut Context<'_>,
    ) -> anyhow::Result<()> {
        let Some(name) = series_name(path.strip_prefix(self.tree).unwrap_or(path)) else {
            counts.nameless += 1;
            return Ok(());
        };
        let header = Header::read(path)?;
        let Some(wanted) = rules.wanted(&name, &header) else {
            counts.without_rule += 1;
            return Ok(());
        };
        let target = Header::new(&wanted.retentions, wanted.factor, wanted.method)?;
        if target == header {
            counts.unchanged += 1;
            return Ok(());
        }
        let (before, after) = (shown(&header), shown(&target));
        writeln!(context.out, "{}: {before} -> {after}", path.display())?;
        counts.resized += 1;
        counts.bytes_before += header.file_size();
        counts.bytes_after += target.file_size();
        if self.dry_run {
            return Ok(());
        }
        let begun = Instant::now();
        let options = ResizeOptions {
            retentions: wanted.retentions,
            x_files_factor: Some(wanted.factor),
            aggregation: Some(wanted.method),
            allocation: match self.sparse {
                true => Allocation::Sparse,
                false => Allocation::Reserved,
            },
            target: Target::Replace {
                backup: self.backup.then(|| beside(path, ".bak")),
            },
        };
        let resized = whisper::resize(path, || context.time(), &options).inspect_err(|_| {
            counts.resized -= 1;
        })?;
        counts.carried += resized.carried;
        if self.rate > 0 {
            let each = Duration::from_secs(1) / self.rate;
            std::thread::sleep(each.saturating_sub(begun.elapsed()));
        }
        Ok(())
    }

    fn sum_up(&self, counts: &Counts, out: &mut dyn Write) -> std::io::Result<()> {
        let Counts {
            resized,
            unchanged,
            without_rule,
            nameless,
            failed,
            bytes_before,
            bytes_after,
            carried,
        } = counts;
        let verb = if self.dry_run {
            "would be resized"
        } else {
            "resized"
        };
        writeln!(
            out,
            "{resized} files {verb} ({bytes_before} bytes before, {bytes_after} after), {unchanged} have \
             their retentions, {without_rule} match no rule, {nameless} are tagged and have no known \
             name, {failed} failed; {carried} points carried over that were written in the meantime"
        )
    }
}

impl Rules {
    /// What the file of `name` is to become; `None` if no rule matches.
    fn wanted(&self, name: &str, header: &Header) -> Option<Wanted> {
        let rule = self.schemas.find(name)?;
        let aggregation = self.aggregations.as_ref().and_then(|all| all.find(name));
        let factor = aggregation.and_then(|rule| rule.x_files_factor);
        let method = aggregation.and_then(|rule| rule.method);
        Some(Wanted {
            retentions: rule.retentions.clone(),
            factor: factor.unwrap_or(f64::from(header.x_files_factor)),
            method: method.unwrap_or(header.aggregation),
        })
    }
}

/// The name of the series whose file has the path `inside` below the tree; `None` for a tagged
/// series whose file name is a hash.
pub(super) fn series_name(inside: &Path) -> Option<String> {
    let path = inside.with_extension("");
    let nodes: Vec<&str> = path.iter().filter_map(|node| node.to_str()).collect();
    match nodes.as_slice() {
        ["_tagged", _, _, file] if file.contains(';') => Some(file.replace("_DOT_", ".")),
        ["_tagged", ..] => None,
        nodes => Some(nodes.join(".")),
    }
}

/// `10s:6h,1m:7d` as seconds and points, with factor and method.
pub(super) fn shown(header: &Header) -> String {
    let archives = header.retentions();
    let archives = archives.iter().map(|r| format!("{}:{}", r.step, r.points));
    let archives: Vec<String> = archives.collect();
    let (factor, method) = (header.x_files_factor, header.aggregation.name());
    format!("{} {factor} {method}", archives.join(","))
}

/// The directories and whisper files in a directory, so that the first by name comes last. Links to
/// directories are not followed.
fn entries(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut inside = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let is_whisper = path.extension().is_some_and(|extension| extension == "wsp");
        if entry.file_type()?.is_dir() || (is_whisper && !path.is_dir()) {
            inside.push(path);
        }
    }
    inside.sort_by(|a, b| b.cmp(a));
    Ok(inside)
}

fn progress() -> ProgressBar {
    let visible = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
    let target = match visible {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let style = ProgressStyle::with_template("{spinner} {pos} files, {per_sec}, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;
    use whisper::{CreateOptions, File, Lock, Point, Timestamp};

    const NOW: u32 = 1_700_000_000;

    #[test]
    fn names_come_from_paths() {
        for (path, name) in [
            ("a/b.c/d.wsp", Some("a.b.c.d")),
            (
                "_tagged/eff/aae/some_DOT_metric;a=b_DOT_c.wsp",
                Some("some.metric;a=b.c"),
            ),
            ("_tagged/eff/aae/effaae5b.wsp", None),
        ] {
            assert_eq!(series_name(Path::new(path)).as_deref(), name);
        }
    }

    fn run(job: &Job<'_>) -> String {
        let mut out = Vec::new();
        let mut context = Context {
            now: Timestamp(NOW),
            clock: Some(|| Ok(Timestamp(NOW + 130))),
            zone: TimeZone::UTC,
            out: &mut out,
            notes: &mut std::io::sink(),
        };
        assert_eq!(job.run(&mut context).unwrap(), ExitCode::SUCCESS);
        let text = String::from_utf8(out).unwrap();
        text.lines().last().unwrap().to_owned()
    }

    #[test]
    fn a_tree_gets_the_retentions_of_its_rules_once() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir_all(tree.join("web")).unwrap();
        let hits = tree.join("web/hits.wsp");
        for path in [&hits, &tree.join("other.wsp")] {
            let old = vec![Retention::new(60, 60).unwrap()];
            whisper::create(path, &CreateOptions::new(old)).unwrap();
        }
        // The second one came after the tool had started.
        let points = [(NOW - 120, 3.0), (NOW + 65, 4.0)];
        let points = points.map(|(at, value)| Point::new(at, value));
        let mut file = File::open_mut(&hits, Lock::None).unwrap();
        file.update_many(Timestamp(NOW + 65), &points).unwrap();
        drop(file);
        let schemas = directory.path().join("storage-schemas.conf");
        let text = "[web]\npattern = ^web\\.\nretentions = 60s:1d,5m:30d\n";
        std::fs::write(&schemas, text).unwrap();
        let mut job = Job {
            schemas: &schemas,
            aggregation: None,
            tree: &tree,
            dry_run: true,
            rate: 0,
            backup: false,
            sparse: true,
        };
        assert!(run(&job).starts_with("1 files would be resized"));
        assert_eq!(Header::read(&hits).unwrap().archives().len(), 1);
        job.dry_run = false;
        assert!(run(&job).starts_with("1 files resized"));
        assert_eq!(Header::read(&hits).unwrap().archives().len(), 2);
        let file = File::open(&hits).unwrap();
        let slots = file.slots(0).unwrap();
        for value in [3.0, 4.0] {
            assert!(slots.iter().any(|slot| slot.value == value), "{value}");
        }
        let again = run(&job);
        assert!(again.contains("0 files resized") && again.contains("1 have their retentions"));
        assert!(again.contains("1 match no rule"), "{again}");
    }
}
