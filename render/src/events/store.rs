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
//! 6. An answer holds [`MAX_ANSWER`] events and [`MAX_ANSWER_BYTES`] of text at most.

mod impacts;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carbon::{Alarm, OnDeath};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use self::impacts::{Judge, judge};
use super::select::{Found, Range};
use super::{
    Draft, Error, Event, GraphiteTags, Options, Rules, Stats, Status, TagQuery, file, overlay,
    schema, select,
};
use crate::impact::Report;

/// Most events in one answer; more is [`Error::TooMany`] where all were asked for.
pub const MAX_ANSWER: usize = 100_000;
/// Most bytes of text in one answer; more is [`Error::TooLarge`].
pub const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Most bytes of text on one picture, the newest events first.
const MAX_OVERLAY_BYTES: usize = 16 << 20;
/// Most events on one picture, the newest; no picture has that many pixels.
pub const MAX_OVERLAY: usize = 10_000;
/// Most changes in one commit, and most that wait for theirs.
const MAX_BATCH: usize = 256;
const QUEUE: usize = 1024;
/// Most idle reading connections kept.
const MAX_READERS: usize = 8;
/// How often what is older than the retention is removed, and how much at a time.
const SWEEP: Duration = Duration::from_secs(600);
const SWEEP_ROWS: u32 = 1000;

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
    shared: Arc<Shared>,
}

/// What the writing thread and the handle have in common.
struct Shared {
    generation: AtomicU64,
    stats: Stats,
    retention: Duration,
}

type Answer<T> = SyncSender<Result<T, Error>>;

enum Job {
    /// A new event or, under a known key, a change. Without a channel for the answer, no caller waits.
    Insert(Box<Draft>, f64, Option<Answer<Saved>>),
    Update(i64, Box<Draft>, f64, Answer<Event>),
    Remove(i64, Answer<()>),
    /// Events of another store, under their ids where those are free. Answers how many are new.
    Import(Vec<Event>, Answer<usize>),
    /// A change to the verdict on an event, given the one so far.
    Impact(i64, Box<Judge>, Answer<Report>),
}

impl Job {
    /// Answers a job that was not begun.
    fn fail(self, error: Error) {
        // The sender may have stopped waiting.
        let _ = match self {
            Self::Insert(_, _, Some(answer)) => answer.send(Err(error)).is_ok(),
            Self::Insert(_, _, None) => false,
            Self::Update(_, _, _, answer) => answer.send(Err(error)).is_ok(),
            Self::Remove(_, answer) => answer.send(Err(error)).is_ok(),
            Self::Import(_, answer) => answer.send(Err(error)).is_ok(),
            Self::Impact(_, _, answer) => answer.send(Err(error)).is_ok(),
        };
    }
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
        });
        let (queue, jobs) = sync_channel(QUEUE);
        let writer = Writer {
            db,
            place: file::Place::of(&path),
            shared: Arc::clone(&shared),
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

    /// Takes events of another store, all or none: each under its own id if that is free, under
    /// a new one if another event has it, and not at all if this very event is here already.
    /// Returns how many are new.
    ///
    /// # Errors
    /// [`Error::Refused`] if one of them makes no sense.
    pub fn import(&self, events: Vec<Event>) -> Result<usize, Error> {
        self.ask(|answer| Job::Import(events, answer))
    }

    /// The event called `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn event(&self, id: i64) -> Result<Event, Error> {
        self.read("reading an event", |db| schema::find(db, id))?
            .ok_or(Error::NotFound(id))
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
        let range = Range { from, until };
        let mut found = Found::up_to(MAX_ANSWER_BYTES);
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
        let found = Found::up_to(MAX_ANSWER_BYTES).without_data();
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

/// The database at `path`, ready to be written; the inner error says how it is damaged.
fn open_sound(path: &Path) -> Result<Result<Connection, String>, Error> {
    let db = file::open(path)?;
    let outcome = match prepare(&db, path) {
        Ok(()) => file::check(&db, path).map_err(failed("checking the database")),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(None) => Ok(Ok(db)),
        Ok(Some(damage)) => Ok(Err(damage)),
        Err(Error::Failed { source, .. }) if file::is_damage(&source) => {
            Ok(Err(source.to_string()))
        }
        Err(error) => Err(error),
    }
}

fn prepare(db: &Connection, path: &Path) -> Result<(), Error> {
    let refuse = failed("preparing the database");
    let setup = || {
        db.busy_timeout(Duration::from_secs(5))?;
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "synchronous", "full")?;
        db.pragma_update(None, "cache_size", -16_384)?;
        db.set_prepared_statement_cache_capacity(32);
        db.pragma_query_value(None, "user_version", |record| record.get::<_, i64>(0))
    };
    match setup().map_err(refuse)? {
        0 => create(db, &[schema::CREATE, schema::IMPACTS]),
        1 => create(db, &[schema::IMPACTS]),
        schema::VERSION => Ok(()),
        found => Err(Error::Newer {
            path: path.to_owned(),
            found,
            known: schema::VERSION,
        }),
    }
}

/// Creates tables and sets the version, all or nothing.
fn create(db: &Connection, tables: &[&str]) -> Result<(), Error> {
    db.execute_batch(&format!(
        "BEGIN IMMEDIATE; {} PRAGMA user_version = {}; COMMIT;",
        tables.concat(),
        schema::VERSION
    ))
    .map_err(failed("creating the tables"))
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let db = file::connect(path)?;
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update(None, "query_only", true)?;
    db.pragma_update(None, "cache_size", -16_384)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// The one thread that writes.
struct Writer {
    db: Connection,
    place: file::Place,
    shared: Arc<Shared>,
}

/// An answer that waits for its commit.
type Reply = Box<dyn FnOnce(Result<(), Error>)>;

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        self.sweep();
        let mut batch = Vec::new();
        loop {
            match jobs.recv_timeout(SWEEP) {
                Ok(job) => batch.push(job),
                Err(RecvTimeoutError::Timeout) => {
                    self.sweep();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while batch.len() < MAX_BATCH
                && let Ok(job) = jobs.try_recv()
            {
                batch.push(job);
            }
            self.commit(batch.drain(..));
        }
    }

    /// Does all of `jobs` in one transaction, then answers them.
    fn commit(&mut self, jobs: impl Iterator<Item = Job>) {
        let shared = Arc::clone(&self.shared);
        let failure = |error: &rusqlite::Error| {
            shared.stats.failed.fetch_add(1, Ordering::Relaxed);
            shared.stats.see(error);
            tracing::error!(%error, "events were not stored");
        };
        let mut replies: Vec<Reply> = Vec::new();
        let outcome = match self.begin() {
            Err(error) => {
                failure(&error);
                // Somebody else holds the database, or the disk is gone: nothing was begun.
                jobs.for_each(|job| job.fail(failed("beginning")(copy(&error))));
                return;
            }
            Ok(transaction) => {
                replies.extend(jobs.map(|job| perform(&transaction, &shared.stats, job)));
                transaction.commit()
            }
        };
        match &outcome {
            Ok(()) => self.changed(),
            Err(error) => failure(error),
        }
        if let Err(lost) = self.place.check() {
            shared.stats.failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!("events are not kept: {lost}");
        }
        for reply in replies {
            reply(match &outcome {
                Err(error) => Err(failed("committing")(copy(error))),
                Ok(()) => self.place.check(),
            });
        }
    }

    fn begin(&mut self) -> rusqlite::Result<rusqlite::Transaction<'_>> {
        let behavior = rusqlite::TransactionBehavior::Immediate;
        rusqlite::Transaction::new(&mut self.db, behavior)
    }

    fn changed(&self) {
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes what is past the retention, a little at a time.
    fn sweep(&mut self) {
        let retention = self.shared.retention;
        if retention.is_zero() {
            return;
        }
        let horizon = now() - retention.as_secs_f64();
        loop {
            match self.sweep_some(horizon) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "old events were not removed");
                    return;
                }
            }
        }
    }

    /// Removes some of what ended before `horizon`; whether there may be more.
    fn sweep_some(&mut self, horizon: f64) -> rusqlite::Result<bool> {
        let shared = Arc::clone(&self.shared);
        let transaction = self.begin()?;
        let old: Vec<i64> = transaction
            .prepare_cached(
                "SELECT id FROM events WHERE at < ?1 AND coalesce(until, at) < ?1 LIMIT ?2",
            )?
            .query_map(rusqlite::params![horizon, SWEEP_ROWS], |record| {
                record.get(0)
            })?
            .collect::<rusqlite::Result<_>>()?;
        for id in &old {
            schema::remove(&transaction, *id)?;
        }
        transaction.commit()?;
        if !old.is_empty() {
            shared
                .stats
                .removed
                .fetch_add(old.len() as u64, Ordering::Relaxed);
            self.changed();
        }
        Ok(old.len() == SWEEP_ROWS as usize)
    }
}

/// Does one job in a savepoint; what it returns is called once the transaction is committed.
fn perform(db: &Connection, stats: &Stats, job: Job) -> Reply {
    fn reply<T: 'static>(outcome: Result<T, Error>, answer: Option<Answer<T>>) -> Reply {
        Box::new(move |committed| {
            if let Some(answer) = answer {
                // A sender that no longer waits has its event all the same.
                let _ = answer.send(committed.and(outcome));
            }
        })
    }
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let failure = |error: &Error| match error {
        Error::Failed { source, .. } => {
            stats.see(source);
            count(&stats.failed)
        }
        Error::NotFound(_) => 0,
        _ => count(&stats.refused),
    };
    match job {
        Job::Insert(draft, now, answer) => {
            let outcome = savepoint(db, || insert(db, *draft, now));
            match &outcome {
                Ok(saved) if saved.created => count(&stats.created),
                Ok(_) => count(&stats.updated),
                Err(error) => {
                    if answer.is_none() {
                        tracing::debug!(%error, "an event without a waiting sender was refused");
                    }
                    failure(error)
                }
            };
            reply(outcome, answer)
        }
        Job::Update(id, draft, now, answer) => {
            let outcome = savepoint(db, || update(db, id, *draft, now));
            match &outcome {
                Ok(_) => count(&stats.updated),
                Err(error) => failure(error),
            };
            reply(outcome, Some(answer))
        }
        Job::Remove(id, answer) => {
            let outcome = savepoint(db, || match schema::remove(db, id) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Error::NotFound(id)),
                Err(error) => Err(failed("removing an event")(error)),
            });
            match &outcome {
                Ok(()) => count(&stats.removed),
                Err(error) => failure(error),
            };
            reply(outcome, Some(answer))
        }
        Job::Impact(id, change, answer) => {
            let outcome = savepoint(db, || judge(db, id, change));
            if let Err(error) = &outcome {
                failure(error);
            }
            reply(outcome, Some(answer))
        }
        Job::Import(events, answer) => {
            let outcome = savepoint(db, || import(db, events));
            match &outcome {
                Ok(n_new) => stats.created.fetch_add(*n_new as u64, Ordering::Relaxed),
                Err(error) => failure(error),
            };
            reply(outcome, Some(answer))
        }
    }
}

fn savepoint<T>(db: &Connection, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let run = |sql| db.execute_batch(sql).map_err(failed("storing an event"));
    run("SAVEPOINT change")?;
    let outcome = work();
    if outcome.is_err() {
        run("ROLLBACK TO change")?;
    }
    run("RELEASE change")?;
    outcome
}

fn insert(db: &Connection, draft: Draft, now: f64) -> Result<Saved, Error> {
    draft.check()?;
    let refuse = failed("storing an event");
    let known = match &draft.key {
        Some(key) => schema::find_key(db, key).map_err(&refuse)?,
        None => None,
    };
    let created = known.is_none();
    let mut event = match known {
        Some(mut event) => {
            let mut draft = draft;
            // A message that it started, delivered late or twice, does not reopen what has ended.
            if event.until.is_some() && draft.status == Some(Status::Started) {
                draft.status = None;
            }
            draft.apply(&mut event, now)?;
            event
        }
        None => draft.create(now)?,
    };
    if created {
        check_rollback(db, &mut event)?;
    }
    event.id = schema::write(db, &mut event).map_err(&refuse)?;
    roll_back(db, &event)?;
    Ok(Saved { event, created })
}

/// A rollback names an event that exists, and is not itself what was rolled back.
fn check_rollback(db: &Connection, event: &mut Event) -> Result<(), Error> {
    let Some(id) = event.rollback_of else {
        return Ok(());
    };
    let undone = schema::find(db, id).map_err(failed("reading an event"))?;
    if undone.is_none() {
        return Err(Error::Refused(format!(
            "\"rollback_of\": there is no event {id}"
        )));
    }
    if event.status == Status::RolledBack {
        event.status = Status::Unstated;
    }
    Ok(())
}

/// Marks the event that `event` undoes as rolled back. One that was under way has ended.
fn roll_back(db: &Connection, event: &Event) -> Result<(), Error> {
    let refuse = failed("marking what was rolled back");
    let Some(id) = event.rollback_of.filter(|id| *id != event.id) else {
        return Ok(());
    };
    let Some(mut undone) = schema::find(db, id).map_err(&refuse)? else {
        return Ok(());
    };
    if undone.status == Status::RolledBack {
        return Ok(());
    }
    if undone.status == Status::Started && undone.until.is_none() {
        undone.until = Some(event.when.max(undone.when));
    }
    undone.status = Status::RolledBack;
    schema::write(db, &mut undone).map_err(&refuse)?;
    Ok(())
}

fn update(db: &Connection, id: i64, draft: Draft, now: f64) -> Result<Event, Error> {
    draft.check()?;
    let refuse = failed("changing an event");
    let mut event = schema::find(db, id)
        .map_err(&refuse)?
        .ok_or(Error::NotFound(id))?;
    if let Some(key) = &draft.key
        && let Some(other) = schema::find_key(db, key).map_err(&refuse)?
        && other.id != id
    {
        return Err(Error::Refused(format!(
            "the key {key:?} belongs to event {}",
            other.id
        )));
    }
    let before = event.rollback_of;
    draft.apply(&mut event, now)?;
    if event.rollback_of != before {
        check_rollback(db, &mut event)?;
    }
    schema::write(db, &mut event).map_err(&refuse)?;
    roll_back(db, &event)?;
    Ok(event)
}

fn import(db: &Connection, events: Vec<Event>) -> Result<usize, Error> {
    let refuse = failed("importing events");
    let mut renamed = std::collections::HashMap::new();
    let mut n_new = 0;
    for event in events {
        let old_id = event.id;
        let draft = Draft::from(event);
        draft.check()?;
        let mut event = draft.create(0.0)?;
        event.id = old_id.max(0);
        event.rollback_of = event
            .rollback_of
            .map(|id| renamed.get(&id).copied().unwrap_or(id));
        let in_place = match event.id {
            0 => None,
            id => schema::find(db, id).map_err(&refuse)?,
        };
        let same_key = match &event.key {
            Some(key) => schema::find_key(db, key).map_err(&refuse)?,
            None => None,
        };
        if let Some(known) = &same_key {
            renamed.insert(old_id, known.id);
            continue;
        }
        match in_place {
            Some(known)
                if Event {
                    impact: None,
                    ..known.clone()
                } == event =>
            {
                continue;
            }
            Some(_) => event.id = 0,
            None => {}
        }
        let id = schema::write(db, &mut event).map_err(&refuse)?;
        if id != old_id {
            renamed.insert(old_id, id);
        }
        n_new += 1;
    }
    Ok(n_new)
}

fn failed(action: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Failed { action, source }
}

/// SQLite's errors cannot be cloned, and every sender of a batch is owed one.
fn copy(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => {
            rusqlite::Error::SqliteFailure(*code, text.clone())
        }
        other => rusqlite::Error::ToSqlConversionFailure(other.to_string().into()),
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn clock_micros() -> u64 {
    (now() * 1e6) as u64
}
