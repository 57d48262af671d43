//! Events: deploys and other changes, each a vertical line on every graph.

use serde::{Deserialize, Serialize};

/// How a change went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Under way: a band that is still open, or a change whose end nobody reports.
    Started,
    /// It went well; also what an event without a status is taken for.
    #[default]
    Succeeded,
    /// It did not.
    Failed,
    /// It was undone later.
    RolledBack,
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
    /// Words to select it by, for example `deploy`, `web`, `env:prod`.
    pub tags: Vec<String>,
    /// When, in Unix seconds (fractions are kept, Graphite's answers cut them).
    pub when: f64,
    /// When it ended; an event with an end is drawn as a band.
    pub until: Option<f64>,
    /// How it went.
    pub status: Status,
    /// The id of the event that this one undoes.
    pub rollback_of: Option<i64>,
    /// Where to read more: `http` or `https` only.
    pub link: Option<String>,
    /// The sender's own key: a second event with the same key updates the first.
    pub key: Option<String>,
}
