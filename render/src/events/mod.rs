//! Events: deploys and other changes, each a vertical line on every graph.
//!
//! An event is sent once (by HTTP, datagram, webhook, command line or as a metric), is on disk
//! before its sender hears "yes", and is from then on part of every picture that asks for its tags:
//!
//! ```text
//! POST /events/, webhooks, annotations ─┐
//! statsd `_e{…}` datagrams ─────────────┼─> Draft ──> Store (SQLite) ──> overlay() ──> pictures, meta=1
//! carbon metrics named by a rule ───────┘                       └─────> Graphite's rules ──> events(), /events/get_data
//! ```
//!
//! Two ways to select by tags live side by side and are never mixed: [`expr`] is ours and means
//! what it says; [`graphite`] reproduces graphite-web's, which forgives unknown words.

pub mod draft;
pub mod expr;
mod file;
pub mod graphite;
pub mod lines;
pub mod metrics;
pub mod observer;
pub mod options;
mod overlay;
mod python;
pub mod revision;
pub mod rules;
mod schema;
mod select;
mod stats;
pub mod store;
pub mod webhook;
mod words;

use serde::{Deserialize, Serialize};

use crate::impact::Report;

pub use draft::Draft;
pub use expr::TagQuery;
pub use graphite::GraphiteTags;
pub use options::Options;
pub use revision::{Changes, Mark, Revision};
pub use rules::Rules;
pub use stats::Stats;
pub use store::{Saved, Store, There};

/// How long a change that was started and never ended counts as still under way, in seconds.
///
/// Longer than any deploy, short enough that a forgotten one does not shade a week.
pub const OPEN_AT_MOST: f64 = 86_400.0;

/// How a change went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The sender gave none.
    #[default]
    Unstated,
    /// Under way: a band that is still open, or a change whose end is not reported.
    Started,
    /// It went well.
    Succeeded,
    /// It did not.
    Failed,
    /// It was undone later.
    RolledBack,
}

impl Status {
    /// Every status that a sender can give, in the order of a deploy's life.
    pub const GIVEN: [Self; 4] = [
        Self::Started,
        Self::Succeeded,
        Self::Failed,
        Self::RolledBack,
    ];

    /// The word for it in JSON, in the database and on the command line; empty without a status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unstated => "",
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
        }
    }

    /// Whether the sender gave none.
    pub fn is_unstated(&self) -> bool {
        *self == Self::Unstated
    }

    /// The status called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::GIVEN.into_iter().find(|status| status.name() == name)
    }
}

/// What the rules say about the look of an event, and what it stands for on a picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// Colour text (a name or hex digits) of the first rule that has one for these tags.
    pub color: Option<String>,
    /// The short text beside the line, from the first rule that has one.
    pub label: Option<String>,
    /// How many further events of the same release this one stands for: a fleet's deploys merge.
    pub merged: usize,
}

/// Something that happened: graphite-web's fields, then ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// The store's number for it.
    pub id: i64,
    /// One line: what happened.
    pub what: String,
    /// Any text: who, why, which revision.
    pub data: String,
    /// Words to select it by, for example `deploy`, `web`, `env:prod`. None holds a blank.
    pub tags: Vec<String>,
    /// When, in Unix seconds (fractions are kept, Graphite's answers cut them).
    pub when: f64,
    /// When it ended; an event with an end is drawn as a band.
    pub until: Option<f64>,
    /// How it went.
    #[serde(skip_serializing_if = "Status::is_unstated")]
    pub status: Status,
    /// The id of the event that this one undoes.
    pub rollback_of: Option<i64>,
    /// Where to read more: `http` or `https` only.
    pub link: Option<String>,
    /// The sender's own key: a second event with the same key updates the first.
    pub key: Option<String>,
    /// How it is drawn; filled in by [`Store::overlay`], never stored.
    #[serde(skip)]
    pub look: Look,
    /// What it changed, with the strongest series only ([`Store::impact`] has all). Kept beside the
    /// event; exports leave it out.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub impact: Option<Box<Report>>,
}

impl Event {
    /// Bytes that it takes, about.
    pub(crate) fn text_len(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let tags = self.tags.iter().map(|tag| tag.len() + 24).sum::<usize>();
        let impact = self.impact.as_ref().map_or(0, |impact| impact.text_len());
        let texts = self.what.len() + self.data.len();
        texts + optional(&self.link) + optional(&self.key) + tags + impact + 64
    }

    /// Where its band ends, seen at `now`, or `None` if it is a line.
    ///
    /// A change that is still under way reaches to `now`, but not further than
    /// [`OPEN_AT_MOST`] from its start.
    pub fn band_end(&self, now: f64) -> Option<f64> {
        match (self.until, self.status) {
            (Some(until), _) => Some(until.max(self.when)),
            (None, Status::Started) if now > self.when => Some(now.min(self.when + OPEN_AT_MOST)),
            _ => None,
        }
    }

    /// The event as [`Event::to_graphite_json`] prints it, with what it changed once that is known.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = self.to_graphite_json();
        if let Some(impact) = &self.impact {
            json["impact"] = serde_json::to_value(impact).unwrap_or_default();
        }
        json
    }

    /// The event as Graphite prints it (`when` in whole seconds), and of our own fields those
    /// that its sender has set: a client that knows only Graphite's sees exactly Graphite's.
    pub fn to_graphite_json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({
            "id": self.id,
            "what": self.what,
            "data": self.data,
            "tags": self.tags,
            "when": self.when.floor() as i64,
        });
        if let Some(until) = self.until {
            json["until"] = (until.floor() as i64).into();
        }
        if !self.status.is_unstated() {
            json["status"] = self.status.name().into();
        }
        if let Some(id) = self.rollback_of {
            json["rollback_of"] = id.into();
        }
        if let Some(link) = &self.link {
            json["link"] = link.as_str().into();
        }
        if let Some(key) = &self.key {
            json["key"] = key.as_str().into();
        }
        json
    }
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The event or the question is wrong: the answer is a 400.
    #[error("{0}")]
    Refused(String),
    /// There is no event with this id: a 404.
    #[error("there is no event {0}")]
    NotFound(i64),
    /// More events match than one answer may hold: a 413.
    #[error("more than {0} events match: narrow the range or the tags")]
    TooMany(usize),
    /// The events that match are more than an answer may be long: a 413.
    #[error(
        "the events that match are more than {} MiB of text: narrow the range or the tags",
        .0 >> 20
    )]
    TooLarge(usize),
    /// The file of the database, or one beside it, cannot be used.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The database was written by a newer version.
    #[error(
        "{path}: the database has schema {found}, this program supports {known}: use a newer version"
    )]
    Newer {
        /// The file.
        path: std::path::PathBuf,
        /// The layout found.
        found: i64,
        /// The newest layout understood.
        known: i64,
    },
    /// The database failed: a 500 with a counter.
    #[error("event store: while {action}")]
    Failed {
        /// What was being done.
        action: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Another program is writing to the database and does not come to an end: a 503.
    #[error("{}: another program holds the database for writing: try again later", .0.display())]
    Locked(std::path::PathBuf),
    /// The store is closed: the program is shutting down.
    #[error("the event store is closed")]
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_ends_where_it_was_ended_or_now() {
        let mut event = Event {
            when: 1000.0,
            ..Event::default()
        };
        assert_eq!(event.band_end(5000.0), None);
        event.status = Status::Started;
        assert_eq!(event.band_end(5000.0), Some(5000.0));
        assert_eq!(event.band_end(999.0), None);
        assert_eq!(event.band_end(1e9), Some(1000.0 + OPEN_AT_MOST));
        event.until = Some(1500.0);
        assert_eq!(event.band_end(5000.0), Some(1500.0));
    }

    #[test]
    fn graphite_clients_see_graphites_fields() {
        let mut event = Event {
            id: 7,
            what: "deploy".to_owned(),
            when: -0.5,
            ..Event::default()
        };
        assert_eq!(
            event.to_json(),
            serde_json::json!({"id": 7, "what": "deploy", "data": "", "tags": [], "when": -1})
        );
        event.status = Status::Failed;
        assert_eq!(event.to_json()["status"], "failed");
        for status in Status::GIVEN {
            assert_eq!(Status::parse(status.name()), Some(status));
        }
    }
}
