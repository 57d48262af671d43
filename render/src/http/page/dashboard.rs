//! Dashboards: TOML files in a directory, and a built-in one.
//!
//! ```toml
//! title = "End-User (1 hour)"
//! from = "-1h"                  # how far back the panels look
//! refresh = "10s"               # "0s": never
//! events = "deploy"             # which events are drawn, as in /render's `events`
//!
//! [[panels]]
//! title = "Logins"
//! targets = ["stats.shop.logins"]
//! needs = "stats.shop.logins"   # shown only when this pattern finds a series
//! except = ["carbon"]           # series with these first nodes do not count for `needs`
//! params = { areaMode = "stacked", yMin = "0" }   # any further parameter of /render
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use serde::Deserialize;
use settings::{Complaint, Place, Problems, Span, document};

use crate::error::Error;
use crate::events::TagQuery;
use crate::query::{self, Argument, Base, Call, Expression};
use crate::{attime, functions};

/// The name of the dashboard that `/` shows.
pub const FRONT: &str = "end-user";

const END_USER: &str = include_str!("end-user.toml");

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
    /// The panels, in order.
    #[serde(default)]
    pub panels: Vec<Panel>,
}

/// A picture with a heading.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Panel {
    /// The heading.
    pub title: String,
    /// The targets that are drawn.
    pub targets: Vec<String>,
    /// The panel is shown only when this pattern finds a series; empty: always.
    #[serde(default)]
    pub needs: String,
    /// Series that do not count for that: those whose first node is one of these.
    #[serde(default)]
    pub except: Vec<String>,
    /// Further parameters of `/render`.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
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
        "title" | "panels.title" => "\"Logins\"",
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

    /// Looks for what would make a panel show an error, or nothing.
    fn check(&self, problems: &mut Problems) {
        let Self {
            title: _,
            note: _,
            from,
            refresh,
            events,
            panels,
        } = self;
        if attime::parse(from, &TimeZone::UTC, 1_000_000_000).is_err() {
            problems.refuse("from", format!("{from:?} is not a time"), "\"-1h\"");
        }
        if !refresh.0.is_zero() && *refresh < Span::seconds(1) {
            let wrong = format!("\"{refresh}\" is too short");
            problems.refuse("refresh", wrong, "\"1s\" or more, or \"0s\" for never");
        }
        if !["none", ""].contains(&events.as_str())
            && let Err(why) = events.parse::<TagQuery>()
        {
            problems.say("events", format!("{events:?}: {why}"));
        }
        for (n, panel) in panels.iter().enumerate() {
            if panel.targets.is_empty() {
                let wrong = "a panel without targets shows nothing";
                problems.refuse(("panels", n, "targets"), wrong, "[\"stats.shop.logins\"]");
            }
            for (i, text) in panel.targets.iter().enumerate() {
                if let Err(why) = check_target(text) {
                    problems.say(("panels", n, "targets", i), format!("{text:?}: {why}"));
                }
            }
        }
    }
}

/// Whether all of `text` is a target, with functions that there are.
fn check_target(text: &str) -> Result<(), String> {
    let parsed = match query::parse(text) {
        Ok(parsed) => parsed,
        Err(Error::Target { message, .. }) => return Err(message),
        Err(error) => return Err(error.to_string()),
    };
    if let Some(rest) = parsed.rest {
        let rest = text.get(rest..).unwrap_or_default();
        return Err(format!("not a target from {rest:?} on"));
    }
    check_expression(&parsed.expression)
}

fn check_expression(expression: &Expression) -> Result<(), String> {
    check_base(&expression.base)?;
    expression.piped.iter().try_for_each(check_call)
}

fn check_base(base: &Base) -> Result<(), String> {
    match base {
        Base::Path(_) => Ok(()),
        Base::Call(call) => check_call(call),
        Base::Template(template) => check_base(&template.body),
    }
}

fn check_call(call: &Call) -> Result<(), String> {
    functions::named(&call.name).map_err(|error| error.to_string())?;
    let arguments = call
        .args
        .iter()
        .chain(call.keywords.iter().map(|(_, argument)| argument));
    for argument in arguments {
        if let Argument::Expression(expression) = argument {
            check_expression(expression)?;
        }
    }
    Ok(())
}

/// All dashboards by name.
#[derive(Clone, Debug)]
pub struct Dashboards(BTreeMap<String, Dashboard>);

impl Dashboards {
    /// The built-in one and every `NAME.toml` in `directory`, which may be missing. A file that
    /// cannot be read is left out: [`Dashboards::check`] says why.
    pub fn load(directory: &Path) -> Self {
        Self::read(directory).0
    }

    /// What is wrong with the files in `directory`, a line each: file, line, key, what is wrong
    /// and what to write.
    pub fn check(directory: &Path) -> Vec<String> {
        Self::read(directory).1
    }

    fn read(directory: &Path) -> (Self, Vec<String>) {
        let mut all = BTreeMap::new();
        let mut lines = Vec::new();
        let mut take = |name: &str, file: &str, text: &str| {
            let (dashboard, complaints) = Dashboard::parse(text);
            lines.extend(shown(file, &complaints));
            if let Some(dashboard) = dashboard {
                all.insert(name.to_owned(), dashboard);
            }
        };
        take(FRONT, "the built-in dashboard", END_USER);
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = files.map(|file| file.path()).collect();
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        });
        paths.sort();
        let mut unreadable = Vec::new();
        for path in paths {
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
                continue;
            };
            let file = path.display().to_string();
            match fs::read_to_string(&path) {
                Ok(text) => take(name, &file, &text),
                Err(error) => unreadable.push(format!("{file}: cannot be read: {error}")),
            }
        }
        lines.append(&mut unreadable);
        (Self(all), lines)
    }

    /// The dashboard called `name`.
    pub fn get(&self, name: &str) -> Option<&Dashboard> {
        self.0.get(name)
    }

    /// Names and dashboards, the front page first, then by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Dashboard)> {
        let front = self.0.get_key_value(FRONT);
        let rest = self.0.iter().filter(|(name, _)| *name != FRONT);
        front
            .into_iter()
            .chain(rest)
            .map(|(name, dashboard)| (name.as_str(), dashboard))
    }
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
        assert_eq!(names, ["end-user", "a"]);
        assert_eq!(all.get(FRONT).unwrap().title, "Mine");
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
