//! Events as other stores export them: any lines are refused or imported, what is exported then
//! is what a second store imports and exports, and importing it once more changes nothing.
#![no_main]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use render::events::{Event, Options, Store, lines};

fn stores() -> &'static [Arc<Store>; 2] {
    static STORES: OnceLock<[Arc<Store>; 2]> = OnceLock::new();
    STORES.get_or_init(|| {
        [1, 2].map(|n| {
            let path = format!(
                "/dev/shm/plumbago-fuzz-events-{}-{n}.db",
                std::process::id()
            );
            Store::open(&PathBuf::from(path), &Options::default()).unwrap()
        })
    })
}

/// All events of `store`.
fn exported(store: &Store) -> Vec<Event> {
    let n_bytes = 1 << 30;
    store.export(0, n_bytes).unwrap()
}

fn without_ids(events: &[Event]) -> Vec<Event> {
    let strip = |event: &Event| Event {
        id: 0,
        rollback_of: None,
        ..event.clone()
    };
    events.iter().map(strip).collect()
}

fuzz_target!(|text: &str| {
    let [first, second] = stores();
    let Ok(events) = lines::read(text) else {
        return;
    };
    if events.len() > 20 {
        return;
    }
    let Ok(n_new) = first.import(events.clone()) else {
        assert!(exported(first).is_empty(), "refused, and some are there");
        return;
    };
    let stored = exported(first);
    assert_eq!(stored.len(), n_new);
    let wanted = without_ids(&events);
    assert!(
        without_ids(&stored)
            .iter()
            .all(|event| wanted.contains(event))
    );
    let text: String = stored.iter().map(lines::write).collect();
    let read = lines::read(&text).expect("what was exported is read");
    assert_eq!(read, stored);
    assert_eq!(
        second
            .import(read.clone())
            .expect("what was exported is taken"),
        n_new
    );
    assert_eq!(exported(second), stored);
    assert_eq!(second.import(read).expect("what was exported is taken"), 0);
    assert_eq!(exported(second), stored);
    for store in [first, second] {
        for event in exported(store) {
            store.remove(event.id).unwrap();
        }
    }
});
