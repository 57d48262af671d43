//! `plumbago config`: the effective configuration, as a configuration file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use carbon::conf::{Findings, Loaded, Missing, Problem, load};
use carbon::rules::{aggregate, lists, rewrite};
use carbon::schema::{load_aggregations, load_schemas};

use crate::config::{Config, Sources};
use crate::terminal::say;

/// Arguments of `plumbago config`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago config > plumbago.toml         # every key with its default and its meaning\n  plumbago config --check plumbago.toml   # reports errors with their line"
)]
pub struct Args {
    /// Checks FILE, the rule files that it names and the dashboards of its data directory, and
    /// reports everything that is wrong.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    check: Option<PathBuf>,
    /// The configuration file to read.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a key, as in `--set statsd.flush_interval=1s`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Prints or checks.
///
/// # Errors
/// Everything that is wrong with the file or an override.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Args { check, config, set } = args;
    let sources = Sources {
        file: check.as_ref().or(config.as_ref()).cloned(),
        overrides: set.clone(),
        data: None,
    };
    let loaded = sources.read();
    match check {
        Some(path) => {
            let rules = rule_files(loaded.config());
            say(&rules)?;
            loaded.flawless()?;
            say(&format!("{}: ok\n", path.display()))?;
        }
        None => {
            let text = loaded.usable()?.print();
            say(&text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The rule files that `config` names and that can be used: path, number of rules and warnings, a
/// line each. Faults are in what the check of the options reports.
fn rule_files(config: &Config) -> String {
    let carbon = &config.carbon;
    let mut text = String::new();
    let mut add = |path: &str, described: &dyn Fn(&Path) -> String| {
        if !path.is_empty() {
            text += &described(Path::new(path));
        }
    };
    add(&carbon.schemas, &|path| {
        let loaded = load_schemas(path, config.statsd.flush_interval);
        described(path, loaded, |schemas| rules(schemas.rules().len()))
    });
    add(&carbon.aggregation, &|path| {
        let loaded = load_aggregations(path);
        described(path, loaded, |aggregations| {
            rules(aggregations.rules().len())
        })
    });
    let lists = [(&carbon.allow, true), (&carbon.deny, false)];
    for (list, allows) in lists {
        add(list, &|path| {
            let loaded = match allows {
                true => read(path, lists::parse_allowed),
                false => read(path, lists::parse),
            };
            described(path, loaded, |list| counted(list.len(), "pattern"))
        });
    }
    add(&carbon.rewrite_rules, &|path| {
        let loaded = read(path, rewrite::parse);
        described(path, loaded, |rewrites| {
            let (pre, post) = (rewrites.pre.len(), rewrites.post.len());
            format!("{} ({pre} in [pre], {post} in [post])", rules(pre + post))
        })
    });
    add(&carbon.aggregation_rules, &|path| {
        let loaded = read(path, aggregate::parse);
        described(path, loaded, |aggregates| rules(aggregates.len()))
    });
    text
}

/// Reads a file of rules that act on received names.
fn read<T>(path: &Path, parse: fn(&str, &mut Findings) -> T) -> Result<Loaded<T>, Vec<Problem>> {
    load(path, Missing::Empty, parse)
}

fn rules(n: usize) -> String {
    counted(n, "rule")
}

/// `1 rule`, `2 rules`.
fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn described<T>(
    path: &Path,
    loaded: Result<Loaded<T>, Vec<Problem>>,
    summary: impl Fn(&T) -> String,
) -> String {
    let Ok(loaded) = loaded else {
        return String::new();
    };
    let mut text = format!("{}: {}\n", path.display(), summary(&loaded.value));
    for warning in &loaded.warnings {
        text += &format!("warning: {warning}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_files_are_described_with_their_warnings() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let mut config = Config::default();
        assert_eq!(rule_files(&config), "");
        config.carbon.schemas = write(
            "s",
            "[a]\npattern = ^a\nretentions = 10s:1h\n[stats]\npriority = 1\npattern = ^stats\nretentions = 60:1440\n",
        );
        config.carbon.aggregation = write("a", "[b]\npattern = b\naggregationMethod = max\n");
        let shown = rule_files(&config).replace(&directory.path().display().to_string(), "D");
        assert_eq!(
            shown,
            "D/s: 2 rules\n\
             warning: D/s:5: [stats] priority: has no effect, as in carbon: the sections apply in the order of the file\n\
             warning: D/s:4: [stats] retentions: the finest step of 60 s is longer than the flush interval of 10 s: of several flushes in one step only the last is kept\n\
             D/a: 1 rule\n"
        );
        config.carbon = carbon::options::Options {
            allow: write("allow", "# nothing yet\n"),
            deny: write("deny", "^tmp\\.\n"),
            rewrite_rules: write("rewrite", "[pre]\na = b\nb = c\nd -> e\n[post]\na = b\n"),
            aggregation_rules: write("rules", "o (10) = sum a\no (60) = sum b\n"),
            ..carbon::options::Options::default()
        };
        let shown = rule_files(&config).replace(&directory.path().display().to_string(), "D");
        assert_eq!(
            shown,
            "D/allow: 0 patterns\n\
             warning: D/allow: the list has no pattern: every name is allowed\n\
             D/deny: 1 pattern\n\
             D/rewrite: 3 rules (2 in [pre], 1 in [post])\n\
             D/rules: 2 rules\n\
             warning: D/rules:2: o (60) = sum b: line 1 makes \"o\" with another frequency or method: \
             the first point decides which of the two is used for all\n"
        );
        // A fault is reported by the check itself.
        config.carbon.schemas = write("s", "[a]\npattern = (\nretentions = 10s:1h\n");
        assert!(!rule_files(&config).contains("D/s"));
    }
}
