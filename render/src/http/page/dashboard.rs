//! Dashboards: TOML files in a directory, and a built-in one.
//!
//! ```toml
//! title = "End-User (1 hour)"
//! from = "-1h"                  # how far back the panels look
//! refresh = "10s"               # "0s": never
//! events = "deploy"             # which events are drawn, as in /render's `events`
//!
//! [[panels]]
//! title = "Logins ({last})"     # with figures of the first series
//! targets = ["stats.shop.logins"]
//! needs = "stats.shop.logins"   # shown only when this pattern (or each of several) finds a series
//! params = { areaMode = "stacked", yMin = "0" }   # any further parameter of /render
//! ```
//!
//! `docs/dashboards.md` describes every key.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use settings::{Complaint, Place, Problems, Span, document};

mod check;

/// The name of the dashboard that `/` shows.
pub const FRONT: &str = "end-user";

/// The name of the dashboard of machines.
pub(super) const HOSTS: &str = "hosts";

/// The built-in dashboards; a file of the same name replaces one.
const BUILT_IN: &[(&str, &str)] = &[
    (FRONT, include_str!("end-user.toml")),
    (HOSTS, include_str!("hosts.toml")),
    ("deploys", include_str!("deploys.toml")),
    ("plumbago", include_str!("plumbago.toml")),
];

/// A page of panels.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dashboard {
    /// Shown on top.
    pub title: String,
    /// A sentence below the title.
    #[serde(default)]
    pub note: String,
    /// How far back the panels look, for example `-1h`.
    #[serde(default = "an_hour")]
    pub from: String,
    /// How often the pictures are redrawn; 0 for never.
    #[serde(default = "ten_seconds")]
    pub refresh: Span,
    /// The events drawn on every panel.
    #[serde(default = "every_event")]
    pub events: String,
    /// What targets, titles and `needs` say as `$NAME`.
    #[serde(default)]
    pub variables: Vec<Variable>,
    /// Links beside the title.
    #[serde(default)]
    pub links: Vec<Link>,
    /// The panels, in order.
    #[serde(default)]
    pub panels: Vec<Panel>,
}

/// A variable of a dashboard: its values are the names that a pattern finds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// The name: letters, digits and underscores.
    pub name: String,
    /// A pattern; the last node of each name that it finds is a value.
    pub values: String,
    /// The value of a page that chooses none; by default the first one found.
    #[serde(default)]
    pub default: String,
}

/// A link to somewhere else.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Its text.
    pub title: String,
    /// `http`, `https`, or a path of this server.
    pub url: String,
}

/// The direction of a series that is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Good {
    /// More is better.
    Up,
    /// Less is better.
    Down,
}

impl Good {
    /// As it stands in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A picture with a heading.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Panel {
    /// The heading.
    pub title: String,
    /// The targets that are drawn.
    pub targets: Vec<String>,
    /// The panel is shown only when this pattern finds a series, or each of several patterns with
    /// blanks between them; empty: always.
    #[serde(default)]
    pub needs: String,
    /// Series that do not count for that: those whose first node is one of these, or whose whole name
    /// one of these globs matches.
    #[serde(default)]
    pub except: Vec<String>,
    /// The unit of the values, written behind each.
    #[serde(default)]
    pub unit: String,
    /// The direction that is good news.
    #[serde(default)]
    pub good: Option<Good>,
    /// Values beyond this one are worth a look: above it, or below it if more is better.
    #[serde(default)]
    pub warn: Option<f64>,
    /// Values beyond this one are alarming.
    #[serde(default)]
    pub critical: Option<f64>,
    /// The events on this panel, instead of those of the dashboard.
    #[serde(default)]
    pub events: Option<String>,
    /// How long before its own time each series is drawn a second time, for example `7d`.
    #[serde(default)]
    pub compare: Option<String>,
    /// Links beside the title.
    #[serde(default)]
    pub links: Vec<Link>,
    /// Further parameters of `/render`.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
}

impl Panel {
    /// A panel of `targets` and nothing else.
    pub(super) fn of(targets: Vec<String>) -> Self {
        Self {
            title: targets.join(", "),
            targets,
            needs: String::new(),
            except: Vec::new(),
            unit: String::new(),
            good: None,
            warn: None,
            critical: None,
            events: None,
            compare: None,
            links: Vec::new(),
            params: BTreeMap::new(),
        }
    }

    /// The targets, and after them those of an earlier time, grey and dashed.
    pub(super) fn drawn(&self) -> Vec<String> {
        let mut all = self.targets.clone();
        if let Some(back) = &self.compare {
            let back = back.trim_start_matches('-');
            all.extend(self.targets.iter().map(|target| {
                // The name is the series' own: `dashed` and `timeShift` would add theirs.
                format!(
                    "color(aliasSub(dashed(timeShift({target}, '{back}')), \
                     '^dashed[(]timeShift[(](.*), [^,]*[)], [^,]*[)]$', '\\1, {back} ago'), '8a94a0')"
                )
            }));
        }
        all
    }
}

fn an_hour() -> String {
    "-1h".to_owned()
}

fn ten_seconds() -> Span {
    Span::seconds(10)
}

fn every_event() -> String {
    "*".to_owned()
}

/// `file:12: panels.targets: …`
fn shown(file: &str, complaints: &[Complaint]) -> Vec<String> {
    let line = |complaint: &Complaint| {
        let Complaint {
            place,
            key,
            message,
        } = complaint;
        let place = match place {
            Place::Line(line) => format!("{file}:{line}"),
            Place::Override(_) | Place::Default => file.to_owned(),
        };
        match key.as_str() {
            "" => format!("{place}: {message}"),
            key => format!("{place}: {key}: {message}"),
        }
    };
    complaints.iter().map(line).collect()
}

/// A good value for a key of a dashboard.
fn example(key: &str) -> Option<String> {
    let text = match key {
        "title" | "panels.title" | "links.title" | "panels.links.title" => "\"Logins\"",
        "variables" => "{name = \"app\", values = \"stats.*\"}",
        "variables.name" => "\"app\"",
        "variables.values" => "\"stats.*\"",
        "variables.default" => "\"shop\"",
        "links" | "panels.links" => "{title = \"Runbook\", url = \"https://wiki.example.com/\"}",
        "links.url" | "panels.links.url" => "\"https://wiki.example.com/\"",
        "panels.unit" => "\"ms\"",
        "panels.good" => "\"up\" or \"down\"",
        "panels.warn" | "panels.critical" => "99.5",
        "panels.events" => "\"deploy\"",
        "panels.compare" => "\"7d\"",
        "note" => "\"Per second\"",
        "from" => "\"-1h\"",
        "refresh" => "\"10s\"",
        "events" => "\"deploy\"",
        "panels" => "{title = \"Logins\", targets = [\"stats.shop.logins\"]}",
        "panels.targets" | "panels.needs" => "\"stats.shop.logins\"",
        "panels.except" => "\"carbon\"",
        "panels.params" => "{yMin = \"0\"}",
        key if key.starts_with("panels.params.") => "the value in quotes, such as \"0\"",
        _ => return None,
    };
    Some(text.to_owned())
}

impl Dashboard {
    /// The dashboard in `text`, if it can be read, and everything that is wrong with it: a panel
    /// whose target is wrong does not hide the others.
    fn parse(text: &str) -> (Option<Self>, Vec<Complaint>) {
        let mut tree = match document::parse(text) {
            Ok(tree) => tree,
            Err(complaints) => return (None, complaints),
        };
        let mut complaints = Vec::new();
        let read: Option<Self> = settings::read(&mut tree, &example, &mut complaints);
        let is_whole = complaints.is_empty();
        if let Some(dashboard) = &read {
            let mut problems = Problems::default();
            dashboard.check(&mut problems);
            complaints.extend(problems.into_iter().map(|problem| Complaint {
                place: tree.place_of(&problem.path),
                key: problem.path.key(),
                message: problem.message,
            }));
        }
        complaints.sort_by_key(|complaint| complaint.place);
        (read.filter(|_| is_whole), complaints)
    }
}

/// All dashboards by name.
#[derive(Clone, Debug, Default)]
pub struct Dashboards {
    all: BTreeMap<String, Dashboard>,
    /// What is wrong with the file of a name, a line each.
    wrong: BTreeMap<String, Vec<String>>,
}

impl Dashboards {
    /// The built-in ones and every `NAME.toml` in `directory`, which may be missing. A file that
    /// cannot be read has no dashboard: [`Dashboards::wrong`] says why.
    pub fn load(directory: &Path) -> Self {
        let mut dashboards = Self::default();
        for (name, text) in BUILT_IN {
            dashboards.take(name, "a built-in dashboard", text);
        }
        for path in files(directory) {
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
                continue;
            };
            let file = path.display().to_string();
            match carbon::conf::text(&path) {
                Ok(text) => dashboards.take(name, &file, &text),
                Err(why) => {
                    let line = format!("{file}: {why}");
                    dashboards.wrong.insert(name.to_owned(), vec![line]);
                }
            }
        }
        dashboards
    }

    fn take(&mut self, name: &str, file: &str, text: &str) {
        let (dashboard, complaints) = Dashboard::parse(text);
        let lines = shown(file, &complaints);
        if !lines.is_empty() {
            self.wrong.insert(name.to_owned(), lines);
        }
        if let Some(dashboard) = dashboard {
            self.all.insert(name.to_owned(), dashboard);
        }
    }

    /// What is wrong with the files in `directory`, a line each: file, line, key, what is wrong
    /// and what to write.
    pub fn check(directory: &Path) -> Vec<String> {
        Self::load(directory)
            .wrong
            .into_values()
            .flatten()
            .collect()
    }

    /// The dashboard called `name`.
    pub fn get(&self, name: &str) -> Option<&Dashboard> {
        self.all.get(name)
    }

    /// What is wrong with the file of the dashboard `name`, a line each.
    pub fn wrong(&self, name: &str) -> &[String] {
        self.wrong.get(name).map_or(&[], |lines| lines)
    }

    /// The names of files that give no dashboard.
    pub fn unreadable(&self) -> impl Iterator<Item = &str> {
        let names = self.wrong.keys().map(String::as_str);
        names.filter(|name| !self.all.contains_key(*name))
    }

    /// Names and dashboards, the front page first, then by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Dashboard)> {
        let front = self.all.get_key_value(FRONT);
        let rest = self.all.iter().filter(|(name, _)| *name != FRONT);
        front
            .into_iter()
            .chain(rest)
            .map(|(name, dashboard)| (name.as_str(), dashboard))
    }
}

/// The files of dashboards in `directory`, by name.
fn files(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = files.map(|file| file.path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    paths
}

/// A number that changes when a file of a dashboard in `directory` changes.
pub(super) fn fingerprint(directory: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in files(directory) {
        let about = fs::metadata(&path).ok();
        let about = about.map(|about| (about.len(), about.modified().ok()));
        (path, about).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_dashboard_is_there_and_files_take_precedence() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert_eq!(Dashboards::check(&missing), [""; 0]);
        let all = Dashboards::load(&missing);
        assert_eq!(all.get(FRONT).unwrap().title, "End-User (1 hour)");

        fs::write(dir.path().join("a.toml"), "title = \"A\"\n").unwrap();
        fs::write(dir.path().join("end-user.toml"), "title = \"Mine\"\n").unwrap();
        fs::write(dir.path().join("broken.toml"), "title = \"B\"\ntilte = 1\n").unwrap();
        fs::write(dir.path().join("notes.txt"), "no dashboard").unwrap();
        let all = Dashboards::load(dir.path());
        let names: Vec<&str> = all.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["end-user", "a", "deploys", "hosts", "plumbago"]);
        assert_eq!(all.unreadable().collect::<Vec<_>>(), ["broken"]);
        assert_eq!(all.get(FRONT).unwrap().title, "Mine");
        let before = fingerprint(dir.path());
        assert_eq!(fingerprint(dir.path()), before);
        fs::write(dir.path().join("a.toml"), "title = \"AA\"\n").unwrap();
        assert_ne!(fingerprint(dir.path()), before);
        let file = dir.path().join("broken.toml");
        assert_eq!(
            Dashboards::check(dir.path()),
            [format!(
                "{}:2: tilte: unknown key; did you mean title?",
                file.display()
            )]
        );
    }

    #[test]
    fn every_key_is_read_and_checked() {
        let text = r#"
title = "A"
[[variables]]
name = "app"
values = "stats.*"
[[links]]
title = "Wiki"
url = "https://wiki.example.com/$app"
[[panels]]
title = "$app ({last:percent2})"
targets = ["stats.$app.a"]
unit = "%"
good = "up"
warn = 99.5
critical = 98
events = "deploy"
compare = "7d"
links = [{ title = "Log", url = "/dashboards/hosts" }]
"#;
        let (dashboard, complaints) = Dashboard::parse(text);
        assert_eq!(shown("x", &complaints), [""; 0]);
        let panel = dashboard.unwrap().panels.remove(0);
        assert_eq!((panel.good, panel.warn), (Some(Good::Up), Some(99.5)));
        let drawn = panel.drawn();
        assert_eq!(drawn.len(), 2);
        assert!(
            drawn[1].contains("timeShift(stats.$app.a, '7d')"),
            "{drawn:?}"
        );
        for (from, to, expected) in [
            ("{last:percent2}", "{lst}", "{lst} is not a figure"),
            ("\"7d\"", "\"soon\"", "\"soon\" is not a duration"),
            (
                "https://wiki",
                "javascript:",
                "is not an http or https address",
            ),
            ("\"app\"", "\"a b\"", "\"a b\" is not a name"),
            ("\"deploy\"", "\"deploy -\"", "stands alone"),
            ("\"up\"", "\"sideways\"", "good"),
        ] {
            let (_, complaints) = Dashboard::parse(&text.replacen(from, to, 1));
            let lines = shown("x", &complaints);
            assert!(
                lines.iter().any(|line| line.contains(expected)),
                "{to}: {lines:?}"
            );
        }
    }

    #[test]
    fn the_built_in_dashboards_have_no_mistakes() {
        for (name, text) in BUILT_IN {
            let (_, complaints) = Dashboard::parse(text);
            assert_eq!(shown(name, &complaints), [""; 0]);
        }
    }

    #[test]
    fn every_mistake_of_a_dashboard_is_reported_with_its_line() {
        let text = r#"title = 5
from = "lately"
refresh = 10
events = "deploy -"

[[panels]]
title = "A"
targets = [
    "stats.*",
    "sumSeries(stats.*",
    "skale(a, 2)",
]
params = { yMin = 0 }

[[panels]]
targets = "alias(a.b, 'c')"
"#;
        let (_, complaints) = Dashboard::parse(text);
        let lines = shown("x.toml", &complaints);
        assert_eq!(
            lines,
            [
                "x.toml:1: title: 5 is not text in quotes, write \"Logins\"",
                "x.toml:3: refresh: 10 is not a duration, write \"10s\"",
                "x.toml:13: panels.params.yMin: 0 is not text in quotes, write the value in quotes, such as \"0\"",
                "x.toml:15: panels: the key \"title\" is missing",
            ]
        );
        let sound = text
            .replace("title = 5", "title = \"T\"")
            .replace("= 10\n", "= \"10s\"\n")
            .replace("= 0 }", "= \"0\" }")
            .replace("[[panels]]\ntargets", "[[panels]]\ntitle = \"B\"\ntargets");
        let (dashboard, complaints) = Dashboard::parse(&sound);
        // The other panels are worth showing.
        assert_eq!(dashboard.unwrap().panels.len(), 2);
        let lines = shown("x.toml", &complaints);
        assert_eq!(
            lines,
            [
                "x.toml:2: from: \"lately\" is not a time, write \"-1h\"",
                "x.toml:4: events: \"deploy -\": a \"-\" stands alone: write the tag right after it, as in \"-canary\"",
                "x.toml:10: panels.targets: \"sumSeries(stats.*\": not a target from \"(stats.*\" on",
                "x.toml:11: panels.targets: \"skale(a, 2)\": Received request for unknown function: skale (did you mean scale?)",
            ]
        );
    }
}
