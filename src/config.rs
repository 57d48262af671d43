//! The configuration: one TOML file, each crate's options as a section of it.
//!
//! 1. Every key is in [`SECTIONS`] with its comment; a test holds the list against the options.
//! 2. Everything that is wrong is reported at once, a line each: file, line, key, what is wrong and
//!    what to write. An unknown key is reported with the nearest one.
//! 3. What a value means is checked by the crate that owns it (`Options::check`), what several
//!    sections mean together here. What passes can be started.
//! 4. `--set KEY=VALUE` takes precedence over the file; what [`Config::print`] prints reads back
//!    equal.
//! 5. Nothing reads the environment here: what is not in the file or in `--set` is a default.

use std::fs;
use std::io::ErrorKind;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

use carbon::options::JournalOptions;
use render::http::guard;
use render::http::page::Dashboards;
use serde::{Deserialize, Serialize};
use settings::{Complaint, Key, Kind, Node, Place, Problem, Problems, Table, document};
use toml::Value;

use crate::bound;
use crate::log::LogOptions;
use crate::report::StatsOptions;

mod foreign;
mod print;
mod store;

use foreign::Foreign;
pub use store::{Engine, StoreOptions};

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
    /// Where the points end.
    pub store: StoreOptions,
    /// Questions and answers.
    pub render: render::options::Options,
    /// Deploys and other changes.
    pub events: render::events::Options,
    /// What deploys changed.
    pub impact: render::verdicts::Options,
    /// Who may write over HTTP.
    pub auth: guard::Options,
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
            store: StoreOptions::default(),
            render: render::options::Options::default(),
            events: render::events::Options::default(),
            impact: render::verdicts::Options::default(),
            auth: guard::Options::default(),
        }
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
        keys: LogOptions::KEYS,
    },
    Section {
        name: "stats",
        keys: StatsOptions::KEYS,
    },
    Section {
        name: "statsd",
        keys: statsd::KEYS,
    },
    Section {
        name: "carbon",
        keys: carbon::options::Options::KEYS,
    },
    Section {
        name: "journal",
        keys: JournalOptions::KEYS,
    },
    Section {
        name: "store",
        // The other is the section below.
        keys: StoreOptions::KEYS.split_at(1).0,
    },
    Section {
        name: "store.clickhouse",
        keys: clickhouse::Options::KEYS,
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
        name: "impact",
        keys: render::verdicts::options::KEYS,
    },
    Section {
        name: "auth",
        keys: guard::KEYS,
    },
];

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// `KEY=VALUE` from the command line; they take precedence over the file.
    pub overrides: Vec<String>,
    /// The data directory from the command line.
    pub data: Option<PathBuf>,
}

/// A configuration as far as it could be read, and everything that is wrong with it.
#[derive(Debug)]
pub struct Loaded {
    /// What was refused has its default here.
    config: Config,
    refused: Vec<(Place, String)>,
    warnings: Vec<(Place, String)>,
    /// What the start says itself, as a warning.
    ignored: Vec<(Place, String)>,
}

/// Everything that keeps a configuration from being used, a line each: file, line, key, what is
/// wrong and what to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines.join("; "))]
pub struct Refused {
    /// In the order of the file, the command line after it.
    pub lines: Vec<String>,
    /// Whether all of it is on the command line: the exit code is 2 then.
    pub is_usage: bool,
}

impl Refused {
    /// A mistake on the command line, in one line.
    pub fn usage(line: &str) -> Self {
        Self {
            lines: vec![line.to_owned()],
            is_usage: true,
        }
    }
}

impl Loaded {
    /// Nothing could be taken from the file, for the reason in `line`.
    fn unreadable(line: String) -> Self {
        Self {
            config: Config::default(),
            refused: vec![(Place::Default, line)],
            warnings: Vec::new(),
            ignored: Vec::new(),
        }
    }

    /// The configuration as far as it could be read: what was refused has its default.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The configuration, if nothing is wrong with it that matters to a start.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn usable(mut self) -> Result<Config, Refused> {
        if self.refused.is_empty() {
            return Ok(self.config);
        }
        self.refused.sort_by_key(|(place, _)| *place);
        let on_command_line = |(place, _): &(Place, String)| matches!(place, Place::Override(_));
        Err(Refused {
            is_usage: self.refused.iter().all(on_command_line),
            lines: self.refused.into_iter().map(|(_, line)| line).collect(),
        })
    }

    /// What a running server can live with: a dashboard that cannot be shown, a remote host whose
    /// name is not known now.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.iter().map(|(_, line)| line.as_str())
    }

    /// The configuration, if nothing at all is wrong with it.
    ///
    /// # Errors
    /// All that is wrong: warnings, and lines of rule files that have no effect, included.
    pub fn flawless(mut self) -> Result<Config, Refused> {
        self.refused.append(&mut self.warnings);
        self.refused.append(&mut self.ignored);
        self.usable()
    }
}

impl Sources {
    /// Reads the defaults, then what the file says, then each override in order, and checks the
    /// result: every configuration of [`Loaded::usable`] can be started.
    ///
    /// The value of an override is TOML; what is not TOML is taken as a string
    /// (`data=/var/lib/plumbago`). Where a list is wanted a single value is a list of one, and
    /// nothing at all is the empty list (`statsd.admin=`).
    ///
    /// The file may be a pipe (`--config <(…)`), which is waited for.
    pub fn read(&self) -> Loaded {
        self.read_by(carbon::conf::text_or_pipe)
    }

    /// As [`Sources::read`], of a regular file: a server that runs cannot wait.
    pub fn read_again(&self) -> Loaded {
        self.read_by(carbon::conf::text)
    }

    fn read_by(&self, text: fn(&Path) -> Result<String, String>) -> Loaded {
        let mut tree = Node::default();
        let mut complaints = Vec::new();
        if let Some(path) = &self.file {
            let shown = path.display();
            let text = match text(path) {
                Ok(text) => text,
                Err(why) => return Loaded::unreadable(format!("{shown}: {why}")),
            };
            if let Some(foreign) = Foreign::recognise(&text) {
                return Loaded::unreadable(foreign.advice(path));
            }
            match document::parse(&text) {
                Ok(read) => tree = read,
                Err(found) => complaints.extend(found),
            }
        }
        weed(&mut tree, &mut complaints);
        for (n, text) in self.overrides.iter().enumerate() {
            if let Err(message) = set(&mut tree, text, n) {
                complaints.push(Complaint {
                    place: Place::Override(n),
                    key: String::new(),
                    message,
                });
            }
        }
        if let (Some(data), Some(table)) = (&self.data, tree.as_table_mut()) {
            let text = Kind::Text(data.display().to_string());
            let place = Place::Override(self.overrides.len());
            table.set("data", Node::new(place, text));
        }
        let config = settings::read::<Config>(&mut tree, &example, &mut complaints);
        let mut config = config.unwrap_or_default();
        if let Some(data) = &self.data {
            // Names of directories need not be UTF-8, unlike TOML.
            config.data.clone_from(data);
        }
        let located = |problem: Problem| Complaint {
            place: tree.place_of(&problem.path),
            key: problem.path.key(),
            message: problem.message,
        };
        complaints.extend(config.problems().into_iter().map(located));
        let lines = |found: Vec<Complaint>| -> Vec<(Place, String)> {
            let found = found.iter();
            found
                .map(|complaint| (complaint.place, self.line(complaint)))
                .collect()
        };
        let mut warnings = lines(config.unreachable().into_iter().map(located).collect());
        let dashboards = Dashboards::check(&config.dashboards());
        warnings.extend(dashboards.into_iter().map(|line| (Place::Default, line)));
        Loaded {
            refused: lines(complaints),
            ignored: lines(config.ignored_rules().into_iter().map(located).collect()),
            warnings,
            config,
        }
    }

    /// `plumbago.toml:12: statsd.udp: …`, `--set statsd.udp=x: …`
    fn line(&self, complaint: &Complaint) -> String {
        let Complaint {
            place,
            key,
            message,
        } = complaint;
        let place = match place {
            Place::Line(line) => match &self.file {
                Some(file) => format!("{}:{line}: ", file.display()),
                None => String::new(),
            },
            // Its key is in the text of the override.
            Place::Override(n) => {
                return match (self.overrides.get(*n), &self.data) {
                    (Some(text), _) => format!("--set {text}: {message}"),
                    (None, Some(data)) => format!("--data {}: {message}", data.display()),
                    (None, None) => message.clone(),
                };
            }
            Place::Default => String::new(),
        };
        match key.as_str() {
            "" => format!("{place}{message}"),
            key => format!("{place}{key}: {message}"),
        }
    }
}

impl Config {
    /// The configuration in `file` with `overrides`, checked.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Self, Refused> {
        let sources = Sources {
            file: file.map(Path::to_owned),
            overrides: overrides.to_vec(),
            data: None,
        };
        sources.read().usable()
    }

    /// The directory of the dashboards.
    pub fn dashboards(&self) -> PathBuf {
        self.data.join("dashboards")
    }

    /// Everything that would not start or would misbehave.
    fn problems(&self) -> Vec<Problem> {
        let Self {
            data,
            log: logging,
            stats,
            statsd,
            carbon,
            journal,
            store,
            render,
            events,
            impact,
            auth,
        } = self;
        let mut all = Vec::new();
        let mut section = |name: &str, check: &dyn Fn(&mut Problems)| {
            let mut found = Problems::default();
            check(&mut found);
            let below = |problem: Problem| Problem {
                path: name.rsplit('.').fold(problem.path, settings::Path::below),
                ..problem
            };
            all.extend(found.into_iter().map(below));
        };
        section("", &|problems| check_data(data, problems));
        section("log", &|problems| logging.check(problems));
        section("stats", &|problems| stats.check(problems));
        section("statsd", &|problems| statsd.check(problems));
        section("carbon", &|problems| carbon.check(problems));
        section("journal", &|problems| journal.check(problems));
        section("store.clickhouse", &|problems| {
            store.clickhouse.check(problems)
        });
        section("render", &|problems| render.check(problems));
        section("events", &|problems| events.check(problems));
        section("impact", &|problems| impact.check(problems));
        section("auth", &|problems| auth.check(problems));
        let routes = carbon::relay::check(carbon).into_iter();
        all.extend(routes.map(|problem| Problem {
            path: problem.path.below("carbon"),
            ..problem
        }));
        all.extend(bound::check(statsd, carbon, render));
        all.extend(self.check_engine());
        all
    }

    /// Remote hosts whose names are not known now. A server that starts before the network is up
    /// tries again later.
    fn unreachable(&self) -> Vec<Problem> {
        use statsd::options::Output;

        let outputs = self.statsd.output.iter().enumerate();
        let outputs = outputs.filter_map(|(n, output)| match output {
            Output::Tcp(address) | Output::Pickle(address) => Some(("output", n, address)),
            Output::Embedded | Output::Console | Output::Discard => None,
        });
        let repeaters = self.statsd.repeater.iter().enumerate();
        let repeaters = repeaters.map(|(n, address)| ("repeater", n, address));
        outputs
            .chain(repeaters)
            .filter(|(_, _, address)| settings::is_address(address))
            .filter_map(|(key, n, address)| {
                let error = address.to_socket_addrs().err()?;
                Some(Problem {
                    path: settings::Path::from((key, n)).below("statsd"),
                    message: format!("the address of {address:?} cannot be found: {error}"),
                })
            })
            .collect()
    }

    /// Lines of rule files that have no effect, as in carbon.
    fn ignored_rules(&self) -> Vec<Problem> {
        let key = "rewrite_rules";
        let ignored = self.carbon.ignored_rewrites().into_iter();
        let ignored = ignored.map(|line| Problem {
            path: settings::Path::from(key).below("carbon"),
            message: line.to_string(),
        });
        ignored.collect()
    }
}

/// Looks whether the data directory is one, or can be made.
fn check_data(data: &Path, problems: &mut Problems) {
    if data.as_os_str().is_empty() {
        problems.refuse(
            "data",
            "the data directory has no name",
            "\"plumbago-data\"",
        );
        return;
    }
    for directory in data.ancestors() {
        if directory.as_os_str().is_empty() {
            return;
        }
        match fs::metadata(directory) {
            Ok(found) if found.is_dir() => return,
            Ok(_) => {
                let message = format!("{} is not a directory", directory.display());
                problems.say("data", message);
                return;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            // The user of the check may not be the user of the server.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return,
            Err(error) => {
                problems.say("data", format!("{:?}: {error}", data.display().to_string()));
                return;
            }
        }
    }
}

/// Takes out of `tree` what no option is named like.
fn weed(tree: &mut Node, complaints: &mut Vec<Complaint>) {
    let Some(table) = tree.as_table_mut() else {
        return;
    };
    weed_section("", table, complaints);
}

/// Takes out of the section `above` what no option is named like.
fn weed_section(above: &str, table: &mut Table, complaints: &mut Vec<Complaint>) {
    table.entries.retain_mut(|(name, node)| {
        let name = match above {
            "" => name.clone(),
            above => format!("{above}.{name}"),
        };
        let place = node.place;
        let mut complain = |key: &str, message| {
            complaints.push(Complaint {
                place,
                key: key.to_owned(),
                message,
            });
        };
        if !SECTIONS.iter().any(|section| section.name == name) {
            let known = is_known(&name);
            if !known {
                complain(&name, unknown(&name));
            }
            return known;
        }
        let Some(keys) = node.as_table_mut() else {
            complain(&name, format!("a section, write [{name}]"));
            return false;
        };
        weed_section(&name, keys, complaints);
        true
    });
}

/// Puts the `KEY=VALUE` that is override number `n` into `tree`.
fn set(tree: &mut Node, text: &str, n: usize) -> Result<(), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| "not KEY=VALUE, write for example statsd.flush_interval=1s".to_owned())?;
    let key = key.trim();
    if !is_known(key) {
        return Err(unknown(key));
    }
    let (sections, name) = key.rsplit_once('.').unwrap_or(("", key));
    let sections = sections.split('.').filter(|section| !section.is_empty());
    let table = sections.fold(tree.as_table_mut(), |table, section| {
        table.and_then(|table| table.section(section))
    });
    if let Some(table) = table {
        table.set(name, document::typed(value.trim(), n));
    }
    Ok(())
}

/// A good value for `key`: what a first value of its default looks like.
fn example(key: &str) -> Option<String> {
    if key == "events.rules" {
        return Some("{tags = \"deploy\", color = \"red\"}".to_owned());
    }
    if key == "impact.rules" {
        return Some("{tags = \"deploy\", targets = [\"stats.**\"]}".to_owned());
    }
    let defaults = Value::try_from(Config::default()).ok()?;
    let mut value = &defaults;
    for name in key.split('.') {
        value = value.get(name)?;
    }
    if let Some(items) = value.as_array() {
        value = items.first()?;
    }
    match value {
        Value::String(text) if text.is_empty() => None,
        value => Some(value.to_string()),
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

/// What to say about a key that is not known.
fn unknown(name: &str) -> String {
    let sections = SECTIONS.iter().map(|section| section.name.to_owned());
    let last_of = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let nearest = keys()
        .chain(sections)
        .filter(|known| !known.is_empty())
        .map(|known| {
            let whole = strsim::damerau_levenshtein(name, &known);
            // The right name in the wrong section, or in none.
            let part = strsim::damerau_levenshtein(&last_of(name), &last_of(&known)) + 1;
            (whole.min(part), known)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2 + name.len() / 5);
    match nearest {
        Some((_, known)) => format!("unknown key; did you mean {known}?"),
        None => "unknown key; `plumbago config` prints all keys".to_owned(),
    }
}

#[cfg(test)]
mod tests;
