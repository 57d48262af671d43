//! The store: `events.db`, one writing thread, any number of readers.
//!
//! 1. An event is in the file and the file is synced (WAL, `synchronous=FULL`) before
//!    [`Store::insert`] returns. Senders that wait at the same time share one commit, and so one
//!    sync: a burst costs little more than a single event.
//! 2. Only the thread `events` writes. Each change stands in a savepoint of its own: one that fails
//!    is answered with its error and takes no neighbour with it.
//! 3. [`Store::generation`] changes after a commit and before its answers, so a request that reads it and
//!    then queries never pairs a new number with old events. Numbers do not repeat across restarts.
//! 4. Readers use connections of their own that cannot write; WAL lets them see the last commit
//!    while the next one is under way. Every call may touch the disk: make it where waiting is
//!    allowed, never on the async runtime.
//! 5. Nothing of the database is mapped: a file that is cut or cannot be read is an error for who
//!    asked, never a signal to the process.
//! 6. An import is stored in portions of a tenth of a second, with the changes of others between them.
//! 7. An answer holds [`MAX_ANSWER`] events and [`MAX_ANSWER_BYTES`] of text at most.

mod database;
mod impacts;
mod import;
mod sharing;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use carbon::{Alarm, OnDeath};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use self::database::{open_reader, open_sound};
use self::import::Import;
pub use self::sharing::There;
use self::writer::{Answer, Job, SWEEP, Shared, Writer};
use super::select::{Found, Range};
use super::{
    Draft, Error, Event, GraphiteTags, Options, Rules, Stats, TagQuery, file, overlay, schema,
    select,
};
use crate::verdicts::delivery;

/// Most events in one answer; more is [`Error::TooMany`] where all were asked for.
pub const MAX_ANSWER: usize = 100_000;
/// Most bytes of text in one answer; more is [`Error::TooLarge`].
pub const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Most bytes of text on one picture, the newest events first.
const MAX_OVERLAY_BYTES: usize = 16 << 20;
/// Most events on one picture, the newest; no picture has that many pixels.
pub const MAX_OVERLAY: usize = 10_000;
/// Most changes that wait for their commit.
const QUEUE: usize = 1024;
/// Most idle reading connections kept.
const MAX_READERS: usize = 8;

/// The characters of its data that an event keeps where only the beginning is shown.
const BEGINNING: usize = 1_000;

/// Leaves the beginning of the first line of `event`'s data.
fn shorten(event: &mut Event) {
    let line = event.data.trim().lines().next().unwrap_or_default();
    let end = line.char_indices().nth(BEGINNING);
    let line = &line[..end.map_or(line.len(), |(end, _)| end)];
    event.data = line.to_owned();
}

/// An event as it now stands in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// The event.
    pub event: Event,
    /// Whether it is new; else its key was known and the event was updated.
    pub created: bool,
}

/// The event store. See the module for its rules.
pub struct Store {
    path: PathBuf,
    rules: Rules,
    /// The writing thread holds the receiver; `None` once closed.
    queue: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
    readers: Mutex<Vec<Connection>>,
    /// How far other servers have the changes, by the names of their stores.
    askers: Mutex<HashMap<String, i64>>,
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the database at `path`, created if it is not there, with its directory. A damaged one
    /// is set aside as `events.db.corrupt`, and a new one begun.
    ///
    /// # Errors
    /// [`Error::Newer`] for a layout of a newer version, [`Error::Failed`] for what SQLite refuses
    /// (no permission, say), [`Error::File`] for what is no plain file, [`Error::Refused`] for a rule
    /// that makes no sense.
    pub fn open(path: &Path, options: &Options) -> Result<Arc<Self>, Error> {
        Self::open_watched(path, options, &carbon::alarm::silent())
    }

    /// As [`Store::open`]; `on_death` is called if the writing thread ends by a panic.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_watched(
        path: &Path,
        options: &Options,
        on_death: &OnDeath,
    ) -> Result<Arc<Self>, Error> {
        let Options {
            retention,
            rules,
            // Checked by the receiver of datagrams.
            allow_datagrams: _,
            max_per_second: _,
        } = options;
        let rules = Rules::new(rules)?;
        let path = file::resolved(path)?;
        let stats = Stats::default();
        let db = match open_sound(&path)? {
            Ok(db) => db,
            Err(damage) => {
                let aside = file::set_aside(&path)?;
                stats.set_aside.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    "{}: {damage}; set aside as {}, a new database is created",
                    path.display(),
                    aside.display()
                );
                open_sound(&path)?.map_err(|why| Error::File {
                    path: path.clone(),
                    why,
                })?
            }
        };
        let shared = Arc::new(Shared {
            generation: AtomicU64::new(clock_micros()),
            stats,
            retention: retention.0,
            is_stopping: AtomicBool::new(false),
        });
        let (queue, jobs) = sync_channel(QUEUE);
        let writer = Writer {
            db,
            place: file::Place::of(&path),
            shared: Arc::clone(&shared),
            sweep_every: SWEEP,
        };
        let alarm = Alarm::new("events", on_death);
        let writer = std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || {
                let _alarm = alarm;
                writer.run(&jobs);
            })
            .map_err(|_| Error::Closed)?;
        Ok(Arc::new(Self {
            path,
            rules,
            queue: Some(queue),
            writer: Some(writer),
            readers: Mutex::default(),
            askers: Mutex::default(),
            shared,
        }))
    }

    /// Stores an event; under a key that is known already, changes that event. On disk when this
    /// returns.
    ///
    /// # Errors
    /// [`Error::Refused`] if the draft makes no event.
    pub fn insert(&self, draft: Draft) -> Result<Saved, Error> {
        self.insert_at(draft, now())
    }

    /// As [`Store::insert`], `now` being the time of a draft without one.
    ///
    /// # Errors
    /// As [`Store::insert`].
    pub fn insert_at(&self, draft: Draft, now: f64) -> Result<Saved, Error> {
        self.ask(|answer| Job::Insert(Box::new(draft), now, Some(answer)))
    }

    /// Hands an event over without waiting; it is on disk soon after. For senders that hear no
    /// answer, such as datagrams. What is refused, or does not fit the queue, is counted.
    pub fn insert_later(&self, draft: Draft) {
        let job = Job::Insert(Box::new(draft), now(), None);
        let sent = self.queue.as_ref().map(|queue| queue.try_send(job));
        if !matches!(sent, Some(Ok(()))) {
            debug_assert!(!matches!(sent, Some(Err(TrySendError::Disconnected(_)))));
            self.shared.stats.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts what `draft` says over the event called `id`; the rest of it stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Refused`] if the result makes no sense.
    pub fn update(&self, id: i64, draft: Draft) -> Result<Event, Error> {
        self.update_at(id, draft, now())
    }

    /// As [`Store::update`], `now` being the end of a change that has ended.
    ///
    /// # Errors
    /// As [`Store::update`].
    pub fn update_at(&self, id: i64, draft: Draft, now: f64) -> Result<Event, Error> {
        self.ask(|answer| Job::Update(id, Box::new(draft), now, answer))
    }

    /// Removes the event called `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove(&self, id: i64) -> Result<(), Error> {
        self.ask(|answer| Job::Remove(id, answer))
    }

    /// Takes events of another store: each under its own id if that is free, under
    /// a new one if another event has it, and not at all if this very event is here already.
    /// Returns how many are new.
    ///
    /// Where it fails part of them is stored, and importing all of them again adds the others.
    ///
    /// # Errors
    /// [`Error::Refused`] if one of them makes no sense; none is stored then. [`Error::Closed`] after
    /// [`Store::shut_down`].
    pub fn import(&self, events: Vec<Event>) -> Result<usize, Error> {
        let mut import = Box::new(Import::new(events)?);
        while !import.is_over() {
            import = self.ask(|answer| Job::Import(import, answer))?;
        }
        let [n_new, _] = import.n_new();
        Ok(n_new)
    }

    /// Ends the import that is under way after the present portion, and refuses others: the process stops.
    pub fn shut_down(&self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
    }

    /// The event called `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn event(&self, id: i64) -> Result<Event, Error> {
        self.read("reading an event", |db| schema::find(db, id))?
            .ok_or(Error::NotFound(id))
    }

    /// The events from `from` to `until` (both inside) that undo the event called `id`, without their `data`, oldest
    /// first: at most a few dozen, which are more than there should be.
    ///
    /// # Errors
    /// [`Error::Failed`] only.
    pub fn undone_by(&self, id: i64, from: f64, until: f64) -> Result<Vec<Event>, Error> {
        self.read("reading what undoes an event", |db| {
            schema::find_undoing(db, id, from, until)
        })
    }

    /// The events that `query` selects from `from` to `until` (both inside), oldest first; if
    /// there are more than `limit`, the newest.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond [`MAX_ANSWER_BYTES`].
    pub fn query(
        &self,
        query: &TagQuery,
        from: f64,
        until: f64,
        limit: usize,
    ) -> Result<Vec<Event>, Error> {
        self.query_up_to(query, from, until, limit, MAX_ANSWER_BYTES)
    }

    /// As [`Store::query`], with an error beyond `n_bytes`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond that.
    pub fn query_up_to(
        &self,
        query: &TagQuery,
        from: f64,
        until: f64,
        limit: usize,
        n_bytes: usize,
    ) -> Result<Vec<Event>, Error> {
        self.query_into(query, Range { from, until }, limit, Found::up_to(n_bytes))
            .map_err(|cut| match cut {
                Error::TooLarge(_) => Error::TooLarge(n_bytes),
                other => other,
            })
    }

    /// As [`Store::query`], with the beginning of the first line of each event's data only.
    ///
    /// # Errors
    /// As [`Store::query`].
    pub fn brief(
        &self,
        query: &TagQuery,
        from: f64,
        until: f64,
        limit: usize,
    ) -> Result<Vec<Event>, Error> {
        let found = Found::up_to(MAX_ANSWER_BYTES).trimmed(shorten);
        self.query_into(query, Range { from, until }, limit, found)
    }

    fn query_into(
        &self,
        query: &TagQuery,
        range: Range,
        limit: usize,
        mut found: Found,
    ) -> Result<Vec<Event>, Error> {
        self.read("querying events", |db| {
            select::by_query(db, query, range, limit, &mut found)
        })?;
        if found.is_cut {
            return Err(Error::TooLarge(MAX_ANSWER_BYTES));
        }
        Ok(found.newest(limit))
    }

    /// The events that Graphite's rules select from `from` to `until` (both inside), oldest first.
    ///
    /// # Errors
    /// [`Error::TooMany`] beyond [`MAX_ANSWER`], [`Error::TooLarge`] beyond [`MAX_ANSWER_BYTES`].
    pub fn graphite(
        &self,
        tags: &GraphiteTags,
        from: f64,
        until: f64,
    ) -> Result<Vec<Event>, Error> {
        let range = Range { from, until };
        self.graphite_into(tags, range, Found::up_to(MAX_ANSWER_BYTES))
    }

    fn graphite_into(
        &self,
        tags: &GraphiteTags,
        range: Range,
        mut found: Found,
    ) -> Result<Vec<Event>, Error> {
        self.read("querying events", |db| {
            select::by_graphite(db, tags, range, MAX_ANSWER + 1, &mut found)
        })?;
        if found.is_cut {
            return Err(Error::TooLarge(MAX_ANSWER_BYTES));
        }
        let events = found.newest(MAX_ANSWER + 1);
        if events.len() > MAX_ANSWER {
            return Err(Error::TooMany(MAX_ANSWER));
        }
        Ok(events)
    }

    /// The values of the series `events(…)`: for each second from `start` up to `end` (exclusive)
    /// the number of events in it, [`whisper::ABSENT`] for the others.
    ///
    /// # Errors
    /// As [`Store::graphite`].
    pub fn count_per_second(
        &self,
        tags: &GraphiteTags,
        start: i64,
        end: i64,
    ) -> Result<Vec<f64>, Error> {
        let n_seconds = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        let mut values = vec![whisper::ABSENT; n_seconds];
        let range = Range {
            from: start as f64,
            until: end as f64,
        };
        let found = Found::up_to(MAX_ANSWER_BYTES).trimmed(|event| event.data = String::new());
        for event in self.graphite_into(tags, range, found)? {
            let second = event.when.floor() as i64 - start;
            let value = usize::try_from(second)
                .ok()
                .and_then(|at| values.get_mut(at));
            // An event in the very last second has no value of its own.
            if let Some(value) = value {
                *value = if value.is_nan() { 1.0 } else { *value + 1.0 };
            }
        }
        Ok(values)
    }

    /// What belongs on a picture of `from` to `until` seen at the clock `now`: the events that
    /// `query` selects in it, and those before it whose band reaches into it, oldest first, with
    /// their looks, a fleet's deploys of one release merged into one.
    ///
    /// # Errors
    /// [`Error::Failed`] only. Of more than [`MAX_OVERLAY`], or of more text than fits, the newest
    /// are answered.
    pub fn overlay(
        &self,
        query: &TagQuery,
        from: f64,
        until: f64,
        now: f64,
    ) -> Result<Vec<Event>, Error> {
        if query.is_empty() {
            return Ok(Vec::new());
        }
        let range = Range { from, until };
        let mut found = Found::up_to(MAX_OVERLAY_BYTES);
        self.read("querying events", |db| {
            select::by_query(db, query, range, MAX_OVERLAY, &mut found)?;
            select::reaching(db, query, from, now, MAX_OVERLAY, &mut found)
        })?;
        Ok(overlay::dress(found.newest(MAX_OVERLAY), &self.rules))
    }

    /// The deploys that `query` selects from `from` to `until` (both inside) for delivery figures, oldest first, a
    /// fleet's deploys of one release merged into one, and whether older ones are left out because they are more than
    /// [`MAX_ANSWER`] or [`MAX_ANSWER_BYTES`]. Of texts and verdicts they have only what figures are made of.
    ///
    /// # Errors
    /// [`Error::Failed`] only.
    pub fn deploys(
        &self,
        query: &TagQuery,
        from: f64,
        until: f64,
    ) -> Result<(Vec<Event>, bool), Error> {
        if query.is_empty() {
            return Ok((Vec::new(), false));
        }
        let range = Range { from, until };
        let mut found = Found::up_to(MAX_ANSWER_BYTES).trimmed(delivery::trim);
        self.read("querying events", |db| {
            select::by_query(db, query, range, MAX_ANSWER + 1, &mut found)
        })?;
        let mut is_cut = found.is_cut;
        let mut events = found.newest(MAX_ANSWER + 1);
        if events.len() > MAX_ANSWER {
            events.remove(0);
            is_cut = true;
        }
        Ok((overlay::dress(events, &self.rules), is_cut))
    }

    /// As [`Store::brief`], and before them at most `limit` bands that began before `from` and, seen
    /// at the clock `now`, reach into the range.
    ///
    /// # Errors
    /// As [`Store::query`].
    pub fn around(
        &self,
        query: &TagQuery,
        from: f64,
        until: f64,
        now: f64,
        limit: usize,
    ) -> Result<Vec<Event>, Error> {
        let range = Range { from, until };
        let mut found = Found::up_to(MAX_ANSWER_BYTES).trimmed(shorten);
        self.read("querying events", |db| {
            select::by_query(db, query, range, limit, &mut found)?;
            select::reaching(db, query, from, now, limit, &mut found)
        })?;
        if found.is_cut {
            return Err(Error::TooLarge(MAX_ANSWER_BYTES));
        }
        Ok(found.newest(limit.saturating_mul(2)))
    }

    /// The next events with an id above `after`, by id, until they are `n_bytes` of text or more:
    /// for walking through the whole store without holding it. None at the end.
    ///
    /// # Errors
    /// [`Error::Failed`] only.
    pub fn export(&self, after: i64, n_bytes: usize) -> Result<Vec<Event>, Error> {
        self.read("exporting events", |db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT {} FROM events e WHERE e.id > ?1 ORDER BY e.id",
                schema::COLUMNS
            ))?;
            let mut rows = statement.query([after])?;
            let mut events: Vec<Event> = Vec::new();
            let mut length = 0;
            while length < n_bytes
                && let Some(record) = rows.next()?
            {
                let event = schema::read(record)?;
                length += event.text_len();
                events.push(event);
            }
            Ok(events)
        })
    }

    /// A number that is another one after every change: a picture drawn under an older number may
    /// lack an event.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// The rules of `events.rules`.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, Error> {
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        let (answer, answered) = sync_channel(1);
        queue.send(job(answer)).map_err(|_| Error::Closed)?;
        answered.recv().map_err(|_| Error::Closed)?
    }

    fn read<T>(
        &self,
        action: &'static str,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let failed = |source| {
            self.shared.stats.see(&source);
            failed(action)(source)
        };
        let idle = self.idle().pop();
        let reader = match idle {
            Some(reader) => reader,
            None => open_reader(&self.path).map_err(failed)?,
        };
        // One snapshot for all walks of a question; and taking one costs more than a short walk.
        let snapshot = reader.unchecked_transaction().map_err(failed)?;
        let answer = question(&snapshot).map_err(failed)?;
        snapshot.commit().map_err(failed)?;
        let mut idle = self.idle();
        if idle.len() < MAX_READERS {
            idle.push(reader);
        }
        Ok(answer)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.readers.lock()
    }
}

impl Drop for Store {
    /// Waits for the last commit.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn failed(action: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Failed { action, source }
}

pub(super) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn clock_micros() -> u64 {
    (now() * 1e6) as u64
}
