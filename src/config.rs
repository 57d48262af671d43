//! The configuration: one TOML file, each crate's options as a section of it.
//!
//! 1. Every key is in [`SECTIONS`] with its comment; a test holds the list against the options.
//! 2. A key that nobody knows is an error that names it, its file and line, and the nearest one.
//! 3. `--set KEY=VALUE` goes over the file; what [`Config::print`] prints reads back equal.
//! 4. Nothing reads the environment here: what is not in the file or in `--set` is a default.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use carbon::options::{JournalOptions, Key};
use render::http::guard;
use serde::{Deserialize, Serialize};
use toml::Value;
use toml::de::DeTable;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// What is logged, and how.
    pub log: LogOptions,
    /// What we report about ourselves.
    pub stats: StatsOptions,
    /// Datagrams in, aggregates out.
    pub statsd: statsd::Options,
    /// Lines in, files out.
    pub carbon: carbon::options::Options,
    /// What makes a crash lose nothing.
    pub journal: JournalOptions,
    /// Questions and answers.
    pub render: render::options::Options,
    /// Deploys and other changes.
    pub events: render::events::Options,
    /// Who may write over HTTP.
    pub auth: guard::Options,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// The least severe level that is logged, or directives as in `RUST_LOG`.
    pub level: String,
    /// Text for people or JSON for machines.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line of text.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// `[stats]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatsOptions {
    /// Whether our own counters are kept as series in our own store.
    #[serde(rename = "self")]
    pub own: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("plumbago-data"),
            log: LogOptions::default(),
            stats: StatsOptions::default(),
            statsd: statsd::Options::default(),
            carbon: carbon::options::Options::default(),
            journal: JournalOptions::default(),
            render: render::options::Options::default(),
            events: render::events::Options::default(),
            auth: guard::Options::default(),
        }
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

impl Default for StatsOptions {
    fn default() -> Self {
        Self { own: true }
    }
}

/// A table of the file and the keys it may hold.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name; empty for the keys above all tables.
    pub name: &'static str,
    /// The keys, in the order in which they are printed.
    pub keys: &'static [Key],
}

/// Every section, in the order in which they are printed.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "",
        keys: &[Key {
            name: "data",
            help: "The data directory, created if missing: whisper files, journal, index, events, dashboards. One running server per directory.",
        }],
    },
    Section {
        name: "log",
        keys: &[
            Key {
                name: "level",
                help: "The least severe level that is logged: error, warn, info, debug, trace; or directives such as \"info,carbon=debug\". RUST_LOG, when set, goes over it.",
            },
            Key {
                name: "format",
                help: "\"text\", or \"json\" for one object a line.",
            },
        ],
    },
    Section {
        name: "stats",
        keys: &[Key {
            name: "self",
            help: "Keep our own counters as series (stats.statsd.*, carbon.agents.*) in our own store.",
        }],
    },
    Section {
        name: "statsd",
        keys: statsd::KEYS,
    },
    Section {
        name: "carbon",
        keys: carbon::options::KEYS,
    },
    Section {
        name: "journal",
        keys: carbon::options::JOURNAL_KEYS,
    },
    Section {
        name: "render",
        keys: render::options::KEYS,
    },
    Section {
        name: "events",
        keys: render::events::options::KEYS,
    },
    Section {
        name: "auth",
        keys: guard::KEYS,
    },
];

/// A mistake on the command line: the exit code is 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl Config {
    /// The defaults, then what `file` says, then each `KEY=VALUE` of `overrides` in turn.
    ///
    /// A value is TOML; what is not TOML is taken as a string (`data=/var/lib/plumbago`), and
    /// where a list is wanted a single value is a list of one (`statsd.udp=127.0.0.1:0`), nothing
    /// at all the empty list (`statsd.admin=`).
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has an unknown key or a value of the wrong kind:
    /// file, line and key are named. [`Usage`] for the same in `overrides`.
    pub fn load(file: Option<&Path>, overrides: &[String]) -> anyhow::Result<Self> {
        let mut table = match file {
            Some(path) => read(path)?,
            None => toml::Table::new(),
        };
        for text in overrides {
            set(&mut table, text)?;
        }
        let config: Self = Value::Table(table)
            .try_into()
            .map_err(|error: toml::de::Error| Usage(error.message().to_owned()))?;
        Ok(config)
    }

    /// The whole configuration as TOML, each key below its comment.
    pub fn print(&self) -> String {
        let table = match Value::try_from(self) {
            Ok(Value::Table(table)) => table,
            _ => toml::Table::new(),
        };
        let mut out = String::from(
            "# Every key of plumbago with the value in effect. A file needs only the keys that differ\n\
             # from the defaults. Durations: \"10s\"; sizes: \"64MiB\"; a listener is a list of addresses,\n\
             # the empty list turns it off.\n",
        );
        for section in SECTIONS {
            let values = if section.name.is_empty() {
                Some(&table)
            } else {
                out.push_str(&format!("\n[{}]\n", section.name));
                table.get(section.name).and_then(Value::as_table)
            };
            for key in section.keys {
                let Some(value) = values.and_then(|values| values.get(key.name)) else {
                    continue;
                };
                out.push('\n');
                for line in wrap(key.help, 96) {
                    out.push_str(&format!("# {line}\n"));
                }
                out.push_str(&format!("{} = {value}\n", key.name));
            }
        }
        out
    }

    /// Reads the Graphite files that the configuration names, to find what is wrong with them.
    /// What it returns is odd but not wrong.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn check_files(&self) -> anyhow::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// The table in `path`, with every key known and every value of the right kind.
fn read(path: &Path) -> anyhow::Result<toml::Table> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("configuration file {shown}"))?;
    let line = |offset: usize| {
        let upto = text.get(..offset).unwrap_or(&text);
        upto.bytes().filter(|byte| *byte == b'\n').count() + 1
    };
    let parsed = DeTable::parse(&text).map_err(|error| {
        let at = line(error.span().map_or(0, |span| span.start));
        anyhow!("{shown}:{at}: {}", error.message())
    })?;
    for (key, value) in parsed.get_ref() {
        let name = key.get_ref().as_ref();
        let at = line(key.span().start);
        let Some(section) = SECTIONS.iter().find(|section| section.name == name) else {
            if !is_known(name) {
                return Err(anyhow!("{shown}:{at}: {}", unknown(name)));
            }
            continue;
        };
        let Some(keys) = value.get_ref().as_table() else {
            return Err(anyhow!(
                "{shown}:{at}: `{name}` is a section: write [{name}]"
            ));
        };
        for key in keys.keys() {
            if !section.keys.iter().any(|known| known.name == key.get_ref()) {
                let name = format!("{}.{}", section.name, key.get_ref());
                let at = line(key.span().start);
                return Err(anyhow!("{shown}:{at}: {}", unknown(&name)));
            }
        }
    }
    if let Err(error) = toml::from_str::<Config>(&text) {
        let offset = error.span().map_or(0, |span| span.start);
        let key = key_at(parsed.get_ref(), offset)
            .map(|key| format!("{key}: "))
            .unwrap_or_default();
        return Err(anyhow!(
            "{shown}:{}: {key}{}",
            line(offset),
            error.message()
        ));
    }
    text.parse().with_context(|| shown.to_string())
}

/// The key in whose value `offset` lies.
fn key_at(table: &DeTable<'_>, offset: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        if let Some(inner) = value.get_ref().as_table() {
            return key_at(inner, offset).map(|below| format!("{name}.{below}"));
        }
        (key.span().start <= offset && offset < value.span().end).then(|| name.to_string())
    })
}

/// Puts one `KEY=VALUE` into `table`.
fn set(table: &mut toml::Table, text: &str) -> Result<(), Usage> {
    let refuse = |why: String| Usage(format!("--set {text}: {why}"));
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| refuse("not KEY=VALUE".to_owned()))?;
    let key = key.trim();
    if !is_known(key) {
        return Err(refuse(unknown(key)));
    }
    let value = value.trim();
    let mut value = format!("value = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut parsed| {
            (parsed.len() == 1)
                .then(|| parsed.remove("value"))
                .flatten()
        })
        .unwrap_or_else(|| Value::String(value.to_owned()));
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let fits = |value: &Value| {
        let mut alone = toml::Table::new();
        insert(&mut alone, section, name, value.clone());
        Value::Table(alone)
            .try_into::<Config>()
            .map_err(|error: toml::de::Error| error.message().to_owned())
    };
    if let Err(why) = fits(&value) {
        let list = match &value {
            Value::String(text) if text.is_empty() => Value::Array(Vec::new()),
            single => Value::Array(vec![single.clone()]),
        };
        // A number where a string belongs: `log.level=0`, a directory called 2024.
        let quoted = Value::String(text[text.find('=').unwrap_or(0) + 1..].trim().to_owned());
        value = [list, quoted]
            .into_iter()
            .find(|other| fits(other).is_ok())
            .ok_or_else(|| refuse(why))?;
    }
    insert(table, section, name, value);
    Ok(())
}

fn insert(table: &mut toml::Table, section: &str, name: &str, value: Value) {
    if section.is_empty() {
        table.insert(name.to_owned(), value);
        return;
    }
    let inner = table
        .entry(section)
        .or_insert_with(|| Value::Table(toml::Table::new()));
    if let Value::Table(inner) = inner {
        inner.insert(name.to_owned(), value);
    }
}

/// Every key as it is written after `--set`.
pub fn keys() -> impl Iterator<Item = String> {
    SECTIONS.iter().flat_map(|section| {
        section.keys.iter().map(|key| match section.name {
            "" => key.name.to_owned(),
            name => format!("{name}.{}", key.name),
        })
    })
}

fn is_known(name: &str) -> bool {
    keys().any(|key| key == name)
}

fn unknown(name: &str) -> String {
    let sections = SECTIONS.iter().map(|section| section.name.to_owned());
    let nearest = keys()
        .chain(sections)
        .filter(|known| !known.is_empty())
        .map(|known| {
            let whole = distance(name, &known);
            // `flush_interval` at the top level means `statsd.flush_interval`.
            let last = known.rsplit('.').next().unwrap_or(&known);
            let part = distance(name.rsplit('.').next().unwrap_or(name), last) + 1;
            (whole.min(part), known)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2 + name.len() / 5);
    match nearest {
        Some((_, known)) => format!("unknown key `{name}`; did you mean `{known}`?"),
        None => format!("unknown key `{name}`; `plumbago config` prints all keys"),
    }
}

/// How many letters must be inserted, removed or changed to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// `text` in lines of at most `width` letters, broken at blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn from_text(text: &str) -> anyhow::Result<Config> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let loaded = Config::load(Some(file.path()), &[]);
        let shown = file.path().display().to_string();
        loaded.map_err(|error| anyhow!(format!("{error:#}").replace(&shown, "FILE")))
    }

    fn refusal(text: &str) -> String {
        from_text(text).unwrap_err().to_string()
    }

    #[test]
    fn every_key_has_a_comment_and_every_comment_a_key() {
        let Value::Table(table) = Value::try_from(Config::default()).unwrap() else {
            panic!("a configuration is a table");
        };
        let mut real: Vec<String> = Vec::new();
        for (name, value) in &table {
            match value {
                Value::Table(inner) => real.extend(inner.keys().map(|key| format!("{name}.{key}"))),
                _ => real.push(name.clone()),
            }
        }
        let mut listed: Vec<String> = keys().collect();
        real.sort();
        listed.sort();
        assert_eq!(real, listed);
        for section in SECTIONS {
            for key in section.keys {
                assert!(key.help.len() > 10, "{}: say what it means", key.name);
            }
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        let config = Config::load(
            None,
            &["log.format=json".into(), "data=/srv/a \"b\"".into()],
        )
        .unwrap();
        assert_eq!(from_text(&config.print()).unwrap(), config);
        assert_eq!(
            from_text(&Config::default().print()).unwrap(),
            Config::default()
        );
    }

    #[test]
    fn refusals_name_file_line_and_key() {
        assert_eq!(
            refusal("data = \"x\"\n\n[log]\nlevl = \"info\"\n"),
            "FILE:4: unknown key `log.levl`; did you mean `log.level`?"
        );
        assert_eq!(
            refusal("[lg]\nlevel = \"info\"\n"),
            "FILE:1: unknown key `lg`; did you mean `log`?"
        );
        assert_eq!(
            refusal("[quux]\nzyzzyva = 1\n"),
            "FILE:1: unknown key `quux`; `plumbago config` prints all keys"
        );
        assert!(refusal("log = 3\n").starts_with("FILE:1: `log` is a section"));
        assert!(refusal("data = \n").starts_with("FILE:1: "));
        let wrong = refusal("[stats]\n# a comment\nself = \"yes\"\n");
        assert!(wrong.starts_with("FILE:3: stats.self: "), "{wrong}");
    }

    #[test]
    fn overrides_take_toml_bare_words_and_say_what_is_wrong() {
        let set = |text: &str| Config::load(None, &[text.to_owned()]);
        assert_eq!(set("data=/a/b").unwrap().data, Path::new("/a/b"));
        assert_eq!(set("data=\"/a b\"").unwrap().data, Path::new("/a b"));
        assert_eq!(set("data=2024").unwrap().data, Path::new("2024"));
        assert!(!set("stats.self=false").unwrap().stats.own);
        for (text, why) in [
            ("data", "--set data: not KEY=VALUE"),
            (
                "log.lvel=x",
                "--set log.lvel=x: unknown key `log.lvel`; did you mean `log.level`?",
            ),
        ] {
            let error = set(text).unwrap_err();
            assert!(error.is::<Usage>());
            assert_eq!(error.to_string(), why);
        }
        let error = set("stats.self=perhaps").unwrap_err().to_string();
        assert!(error.starts_with("--set stats.self=perhaps: "), "{error}");
    }

    #[test]
    fn distance_counts_single_letters() {
        assert_eq!(distance("level", "level"), 0);
        assert_eq!(distance("levl", "level"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
