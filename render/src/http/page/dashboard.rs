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
use std::path::Path;

use carbon::options::Span;
use serde::Deserialize;

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

/// All dashboards by name.
#[derive(Clone, Debug)]
pub struct Dashboards(BTreeMap<String, Dashboard>);

impl Dashboards {
    /// The built-in one and every `NAME.toml` in `directory`, which may be missing. Files that
    /// cannot be read or understood are left out and come back as sentences.
    pub fn load(directory: &Path) -> (Self, Vec<String>) {
        let mut all = BTreeMap::new();
        let mut problems = Vec::new();
        match toml::from_str(END_USER) {
            Ok(dashboard) => {
                all.insert(FRONT.to_owned(), dashboard);
            }
            Err(error) => problems.push(format!("the built-in dashboard: {error}")),
        }
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        for path in files.map(|file| file.path()) {
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
                continue;
            };
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let read = fs::read_to_string(&path)
                .map_err(|error| error.to_string())
                .and_then(|text| toml::from_str(&text).map_err(|error| error.to_string()));
            match read {
                Ok(dashboard) => {
                    all.insert(name.to_owned(), dashboard);
                }
                Err(error) => problems.push(format!("{}: {}", path.display(), error.trim())),
            }
        }
        (Self(all), problems)
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
    fn the_built_in_dashboard_is_there_and_files_go_over_it() {
        let dir = tempfile::tempdir().unwrap();
        let (all, problems) = Dashboards::load(&dir.path().join("missing"));
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(all.get(FRONT).unwrap().title, "End-User (1 hour)");

        fs::write(dir.path().join("a.toml"), "title = \"A\"\n").unwrap();
        fs::write(dir.path().join("end-user.toml"), "title = \"Mine\"\n").unwrap();
        fs::write(dir.path().join("broken.toml"), "title = \"B\"\ntilte = 1\n").unwrap();
        fs::write(dir.path().join("notes.txt"), "no dashboard").unwrap();
        let (all, problems) = Dashboards::load(dir.path());
        let names: Vec<&str> = all.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["end-user", "a"]);
        assert_eq!(all.get(FRONT).unwrap().title, "Mine");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("broken.toml") && problems[0].contains("tilte"));
    }
}
