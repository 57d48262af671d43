//! Events and stores of them, in few words.

#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must say where"
)]

use std::path::Path;
use std::sync::Arc;

use render::events::{Draft, Event, Options, Store, TagQuery};
use render::impact::{Outcome, Report, SeriesReport};

pub(crate) fn open(directory: &Path) -> Arc<Store> {
    Store::open(&directory.join("made/events.db"), &Options::default()).unwrap()
}

pub(crate) fn draft(what: &str, tags: &str, when: f64) -> Draft {
    Draft {
        when: Some(when),
        ..Draft::new(what, &[tags])
    }
}

pub(crate) fn band(what: &str, tags: &str, when: f64, until: f64) -> Draft {
    Draft {
        until: Some(Some(until)),
        ..draft(what, tags, when)
    }
}

pub(crate) fn query(text: &str) -> TagQuery {
    text.parse().unwrap()
}

pub(crate) fn whats(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.what.as_str()).collect()
}

pub(crate) fn verdict(sentence: &str) -> Report {
    Report {
        verdict: Outcome::Worse,
        sentence: sentence.to_owned(),
        series: vec![SeriesReport::default(); 5],
        ..Report::default()
    }
}
