//! DogStatsD's events and service checks, on their way into the event store.

use std::sync::Arc;

use render::events::{Draft, Store};
use statsd::{Event, EventSink};

/// Hands events to the event store, which counts what it refuses or has no room for.
pub struct IntoEvents(pub Arc<Store>);

impl EventSink for IntoEvents {
    fn event(&self, event: Event) {
        let Event {
            what,
            data,
            tags,
            when,
            key,
        } = event;
        self.0
            .insert_later(Draft::from_mark(what, data, tags, when, key));
    }
}

#[cfg(test)]
mod tests {
    use render::events::{Options, TagQuery};

    use super::*;

    #[test]
    fn a_mark_becomes_an_event() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("events.db"), &Options::default()).unwrap();
        IntoEvents(store.clone()).event(Event {
            what: "app 2".to_owned(),
            data: "by ann".to_owned(),
            tags: vec!["deploy".to_owned()],
            when: Some(1_700_000_000),
            key: Some("app-2".to_owned()),
        });
        // Answered after whatever was handed over before it.
        store.insert(Draft::new("later", &["other"])).unwrap();
        let query: TagQuery = "deploy".parse().unwrap();
        let found = store.query(&query, 1.6e9, 1.8e9, 10).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].what.as_str(), found[0].when), ("app 2", 1.7e9));
    }
}
