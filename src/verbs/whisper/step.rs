//! `whisper explain`: why a file has its step.
//!
//! The file does not say which rule made it. So the choice of [`Schema`] is repeated for the name
//! and the points of the file, as if the file were not there, and compared with the file.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use carbon::conf::Problem;
use carbon::schema::built_in::is_built_in;
use carbon::schema::{Chosen, New, Reason, Schema};
use whisper::{File, Header, Point, Retention};

use super::resize_tree::series_name;
use crate::config::Config;

/// Why `file`, opened from `path`, has its step and its aggregation, by what `config` says: a line
/// each.
///
/// # Errors
/// The file cannot be read, or a file of rules cannot be used.
pub(super) fn why(path: &Path, file: &File, config: &Config) -> anyhow::Result<Vec<String>> {
    let header = file.header();
    let retentions = header.retentions();
    let step = header.archives()[0].step;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let root = match config.carbon.whisper_dir.as_str() {
        "" => config.data.join("whisper"),
        tree => PathBuf::from(tree),
    };
    let Some(inside) = inside(directory, path, &root) else {
        return Ok(vec![format!(
            "step {step} s: the file is not below {}, so the name of its series is not known; give \
             --config, or --set carbon.whisper_dir=DIR",
            root.display()
        )]);
    };
    let Some(name) = series_name(&inside) else {
        return Ok(vec![format!(
            "step {step} s: the file's name is the hash of a tagged name, which rules are not matched with"
        )]);
    };
    let refused = |problems: Vec<Problem>| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow!("{}", lines.join("\n"))
    };
    let schema = Schema::without(&config.carbon, config.statsd.flush_interval, path);
    let slots = file.slots(0)?;
    let points: Vec<Point> = slots.into_iter().filter(|point| point.at.0 > 0).collect();
    let chosen = schema.map_err(refused)?.choose_now(New {
        name: &name,
        directory,
        points: &points,
        interval: None,
    });
    let options = &chosen.options;
    let new = Header::new(
        &options.retentions,
        options.x_files_factor,
        options.aggregation,
    )?;
    let reason = archives_by(&chosen, config);
    let first = if new.retentions() == retentions {
        format!("step {step} s, as a new file would have: {reason}")
    } else {
        let origin = match is_built_in(&retentions) {
            true => "built-in archives for a sender of that interval",
            false => "from other rules, another program or a resize",
        };
        let wanted = shown(&new.retentions());
        format!("step {step} s: {origin}; a new file would have {wanted}: {reason}")
    };
    let aggregates = |header: &Header| {
        let factor = render::python::general_to(f64::from(header.x_files_factor), 6);
        format!("{} with xFilesFactor {factor}", header.aggregation)
    };
    let (has, wanted) = (aggregates(header), aggregates(&new));
    let reason = aggregation_by(&chosen, config);
    let second = match has == wanted {
        true => format!("{has}, as a new file would have: {reason}"),
        false => format!("{has}; a new file would have {wanted}: {reason}"),
    };
    Ok(vec![first, second])
}

/// The path of the file below the tree, whatever links lead there.
fn inside(directory: &Path, path: &Path, root: &Path) -> Option<PathBuf> {
    let real = directory.canonicalize().ok()?.join(path.file_name()?);
    let below = real.strip_prefix(root.canonicalize().ok()?).ok()?;
    Some(below.to_owned())
}

fn archives_by(chosen: &Chosen, config: &Config) -> String {
    let schemas = &config.carbon.schemas;
    match &chosen.reason {
        Reason::Rule { section, line } => format!("{schemas}:{line}: [{section}]"),
        Reason::CarbonDefault => {
            format!(
                "no section of {schemas} matches, and carbon.infer_step is off: carbon's default"
            )
        }
        Reason::Siblings { example } => format!(
            "as the files beside it, such as {} (carbon.infer_siblings)",
            example.display()
        ),
        Reason::Source(seconds) => format!("the server writes it every {seconds} s"),
        Reason::Interval(seconds) => {
            format!("its points are {seconds} s apart (carbon.infer_step)")
        }
        Reason::BuiltIn if chosen.is_assumed => {
            "it has fewer than two timestamps: built-in archives".to_owned()
        }
        Reason::BuiltIn => "carbon.infer_step is off: built-in archives".to_owned(),
        Reason::Fixed => "fixed by the program".to_owned(),
    }
}

fn aggregation_by(chosen: &Chosen, config: &Config) -> String {
    let file = &config.carbon.aggregation;
    match &chosen.aggregation_rule {
        Some((section, line)) => format!("{file}:{line}: [{section}]"),
        None if file.is_empty() => "by its name (carbon.aggregation is empty)".to_owned(),
        None => format!("no section of {file} matches: carbon's default"),
    }
}

/// `10:2160,60:10080`, seconds and points.
fn shown(retentions: &[Retention]) -> String {
    let shown = |r: &Retention| format!("{}:{}", r.step, r.points);
    let all: Vec<String> = retentions.iter().map(shown).collect();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use whisper::{CreateOptions, Lock, Timestamp};

    /// A tree with a file, and rules.
    struct Rig {
        directory: tempfile::TempDir,
        config: Config,
    }

    impl Rig {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut config = Config::default();
            config.carbon.whisper_dir = directory.path().display().to_string();
            std::fs::create_dir(directory.path().join("web")).unwrap();
            Self { directory, config }
        }

        fn create(&self, name: &str, archives: &str) -> PathBuf {
            let path = self.directory.path().join(name);
            let retentions = Retention::parse_carbon_list(archives).unwrap();
            whisper::create(&path, &CreateOptions::new(retentions)).unwrap();
            path
        }

        fn rules(&self, name: &str, text: &str) -> String {
            let path = self.directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        }

        fn why(&self, path: &Path) -> Vec<String> {
            let lines = why(path, &File::open(path).unwrap(), &self.config).unwrap();
            let root = self.directory.path().display().to_string();
            lines.iter().map(|line| line.replace(&root, "D")).collect()
        }
    }

    #[test]
    fn a_rule_is_named_with_file_line_and_section() {
        let mut rig = Rig::new();
        let path = rig.create("web/hits.wsp", "60s:1d");
        rig.config.carbon.schemas = rig.rules(
            "s",
            "[other]\npattern = ^other\nretentions = 1s:1h\n[web]\npattern = ^web\\.\nretentions = 60s:1d\n",
        );
        rig.config.carbon.aggregation =
            rig.rules("a", "[h]\npattern = hits$\naggregationMethod = sum\n");
        assert_eq!(
            rig.why(&path),
            [
                "step 60 s, as a new file would have: D/s:4: [web]",
                "average with xFilesFactor 0.5; a new file would have sum with xFilesFactor 0.5: D/a:1: [h]",
            ]
        );
        rig.config.carbon.schemas = rig.rules("s", "[web]\npattern = ^web\nretentions = 10s:1h\n");
        assert_eq!(
            rig.why(&path)[0],
            "step 60 s: from other rules, another program or a resize; a new file would have 10:360: D/s:1: [web]"
        );
    }

    #[test]
    fn a_file_is_not_its_own_neighbour() {
        let rig = Rig::new();
        let path = rig.create("web/a.wsp", "20s:1h");
        assert!(
            rig.why(&path)[0].ends_with(": it has fewer than two timestamps: built-in archives")
        );
        rig.create("web/b.wsp", "20s:1h");
        assert_eq!(
            rig.why(&path)[0],
            "step 20 s, as a new file would have: as the files beside it, such as D/web/b.wsp \
             (carbon.infer_siblings)"
        );
    }

    #[test]
    fn the_sender_decides_where_nothing_else_does() {
        let rig = Rig::new();
        let path = rig.create("web/c.wsp", "60s:7d,10m:5y");
        let now = Timestamp(1_700_000_400);
        let points: Vec<Point> = (1..5)
            .map(|n| Point {
                at: Timestamp(now.0 - 60 * n),
                value: 1.0,
            })
            .collect();
        let mut file = File::open_mut(&path, Lock::None).unwrap();
        file.update_many(now, &points).unwrap();
        drop(file);
        assert_eq!(
            rig.why(&path)[0],
            "step 60 s, as a new file would have: its points are 60 s apart (carbon.infer_step)"
        );
    }

    #[test]
    fn a_file_outside_of_the_tree_has_no_known_name() {
        let mut rig = Rig::new();
        let path = rig.create("c.wsp", "60s:7d");
        rig.config.carbon.whisper_dir = rig.directory.path().join("web").display().to_string();
        let said = rig.why(&path);
        assert!(said[0].contains("is not below D/web"), "{said:?}");
        rig.config.carbon.whisper_dir = rig.directory.path().display().to_string();
        std::fs::create_dir_all(rig.directory.path().join("_tagged/a/b")).unwrap();
        let tagged = rig.create("_tagged/a/b/abc.wsp", "60s:7d");
        assert!(rig.why(&tagged)[0].contains("hash of a tagged name"));
    }
}
