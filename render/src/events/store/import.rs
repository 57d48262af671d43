//! An import, stored in portions with the changes of others between them.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use std::vec;

use rusqlite::Connection;

use super::failed;
use crate::events::schema::{self, Change};
use crate::events::{Draft, Error, Event};

/// How long a portion takes, unless a single event takes longer. Changes that wait come after it.
const PORTION: Duration = Duration::from_millis(100);

/// The events of a file that are not stored yet, and what became of the others.
pub(super) struct Import {
    events: vec::IntoIter<Event>,
    /// The ids here of events that have other ones in the file.
    renamed: HashMap<i64, i64>,
    /// Each event here stands for one of the file, so that equal ones in the file stay as many.
    taken: HashSet<i64>,
    /// How many were new, in all and in the last portion.
    n_new: [usize; 2],
    within: Duration,
}

impl Import {
    /// The import of `events`, all of which make sense.
    ///
    /// # Errors
    /// [`Error::Refused`] if one of them does not.
    pub(super) fn new(mut events: Vec<Event>) -> Result<Self, Error> {
        for event in &mut events {
            let id = event.id.max(0);
            let draft = Draft::from(std::mem::take(event));
            draft.check()?;
            *event = Event {
                id,
                ..draft.create(0.0)?
            };
        }
        Ok(Self {
            events: events.into_iter(),
            renamed: HashMap::new(),
            taken: HashSet::new(),
            n_new: [0; 2],
            within: PORTION,
        })
    }

    /// How many of the events were new, in all and in the last portion.
    pub(super) fn n_new(&self) -> [usize; 2] {
        self.n_new
    }

    /// Whether all of it is stored.
    pub(super) fn is_over(&self) -> bool {
        self.events.as_slice().is_empty()
    }

    /// Stores the next portion.
    pub(super) fn portion_stored(mut self: Box<Self>, db: &Connection) -> Result<Box<Self>, Error> {
        let began = Instant::now();
        self.n_new[1] = 0;
        while let Some(event) = self.events.next() {
            self.store(db, event).map_err(failed("importing events"))?;
            if began.elapsed() >= self.within {
                break;
            }
        }
        Ok(self)
    }

    fn store(&mut self, db: &Connection, mut event: Event) -> rusqlite::Result<()> {
        let old_id = event.id;
        event.rollback_of = event
            .rollback_of
            .map(|id| self.renamed.get(&id).copied().unwrap_or(id));
        let in_place = match event.id {
            0 => None,
            id => schema::find(db, id)?,
        };
        let same_key = match &event.key {
            Some(key) => schema::find_key(db, key)?,
            None => None,
        };
        if let Some(known) = &same_key {
            self.renamed.insert(old_id, known.id);
            return Ok(());
        }
        match in_place {
            Some(known)
                if Event {
                    impact: None,
                    ..known.clone()
                } == event
                    && !self.taken.contains(&known.id) =>
            {
                self.taken.insert(known.id);
                return Ok(());
            }
            Some(_) => event.id = 0,
            None => {}
        }
        if event.id == 0
            && let Some(id) = schema::find_equal(db, &event, &self.taken)?
        {
            self.taken.insert(id);
            self.renamed.insert(old_id, id);
            return Ok(());
        }
        let id = schema::write(db, &mut event, Change::Own)?;
        self.taken.insert(id);
        if id != old_id {
            self.renamed.insert(old_id, id);
        }
        self.n_new = self.n_new.map(|n| n + 1);
        Ok(())
    }

    /// Every event is a portion.
    #[cfg(test)]
    pub(super) fn in_small_portions(mut self) -> Self {
        self.within = Duration::ZERO;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Options, Store};

    #[test]
    fn an_import_that_was_cut_off_goes_on_where_it_ended() {
        let event = |id, what: &str| Event {
            id,
            what: what.to_owned(),
            when: 5.0,
            ..Event::default()
        };
        let mut keyed = event(4, "keyed");
        keyed.key = Some("k".to_owned());
        let mut undoing = event(9, "undoing");
        undoing.rollback_of = Some(1);
        // 1 has another event here, so that it gets a new id. Equal ones stay as many.
        let mut events = vec![event(1, "a"), event(7, "b"), keyed, undoing];
        events.extend([0; 3].map(|id| event(id, "alike")));
        let store = |cut: usize| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("events.db");
            let store = Store::open(&path, &Options::default()).unwrap();
            assert_eq!(store.import(vec![event(1, "here")]).unwrap(), 1);
            let first = store.import(events[..cut].to_vec()).unwrap();
            let all = store.import(events.clone()).unwrap();
            assert_eq!((first, all), (cut, events.len() - cut));
            store.export(0, usize::MAX).unwrap()
        };
        let whole = store(0);
        assert_eq!(whole.len(), 1 + events.len());
        for cut in 1..=events.len() {
            assert_eq!(store(cut), whole, "cut after {cut}");
        }
    }
}
