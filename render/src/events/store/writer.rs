//! The writing thread: changes in batches, one commit for each, and the removal of old events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::impacts::{Judge, judge};
use super::import::Import;
use super::sharing::{self, There};
use super::{Saved, failed, now};
use crate::events::schema::Change;
use crate::events::{Draft, Error, Event, Revision, Stats, Status, file, schema};
use crate::impact::Report;

/// Most changes in one commit.
const MAX_BATCH: usize = 256;
/// How often what is older than the retention is removed, and how much at a time.
pub(super) const SWEEP: Duration = Duration::from_secs(600);
const SWEEP_ROWS: u32 = 1000;

/// What the writing thread and the handle have in common.
pub(super) struct Shared {
    pub(super) generation: AtomicU64,
    pub(super) stats: Stats,
    pub(super) retention: Duration,
    /// Whether the process stops, which no import outlasts.
    pub(super) is_stopping: AtomicBool,
}

/// Where the answer to a job goes.
pub(super) type Answer<T> = SyncSender<Result<T, Error>>;

/// A change of the store.
pub(super) enum Job {
    /// A new event or, under a known key, a change. Without a channel for the answer, no caller waits.
    Insert(Box<Draft>, f64, Option<Answer<Saved>>),
    Update(i64, Box<Draft>, f64, Answer<Event>),
    Remove(i64, Answer<()>),
    /// The next portion of an import, which is given back.
    Import(Box<Import>, Answer<Box<Import>>),
    /// Changes of other servers, whether they are from the table that all share. Answers how many changed something.
    Take(Vec<Revision>, bool, Answer<usize>),
    /// Forgets events that an other end does not have any more. Answers how many.
    ForgetAbsent(There, Answer<usize>),
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
            Self::Take(_, _, answer) => answer.send(Err(error)).is_ok(),
            Self::ForgetAbsent(_, answer) => answer.send(Err(error)).is_ok(),
            Self::Impact(_, _, answer) => answer.send(Err(error)).is_ok(),
        };
    }
}

/// The one thread that writes.
pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) place: file::Place,
    pub(super) shared: Arc<Shared>,
    /// How long after the end of a sweep the next one begins ([`SWEEP`]).
    pub(super) sweep_every: Duration,
}

/// An answer that waits for its commit, as its counter does.
type Reply<'a> = Box<dyn FnOnce(Result<(), Error>) + 'a>;

impl Writer {
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut batch = Vec::new();
        let mut sweep_at = Instant::now();
        loop {
            if sweep_at <= Instant::now() {
                // Changes that wait go before the next part.
                let is_over = self.sweep();
                let pause = if is_over {
                    self.sweep_every
                } else {
                    Duration::ZERO
                };
                sweep_at = Instant::now() + pause;
            }
            match jobs.recv_timeout(sweep_at.saturating_duration_since(Instant::now())) {
                Ok(job) => batch.push(job),
                Err(RecvTimeoutError::Timeout) => continue,
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
        let path = self.place.path().to_owned();
        let failure = |error: &rusqlite::Error| {
            shared.stats.failed.fetch_add(1, Ordering::Relaxed);
            shared.stats.see(error);
            tracing::error!(%error, "{}: events were not stored", path.display());
        };
        let mut replies: Vec<Reply<'_>> = Vec::new();
        let outcome = match self.begin() {
            Err(error) => {
                failure(&error);
                // Another program holds the database, or the disk is gone: nothing was begun.
                jobs.for_each(|job| {
                    job.fail(match file::is_locked(&error) {
                        true => Error::Locked(path.clone()),
                        false => failed("beginning")(copy(&error)),
                    });
                });
                return;
            }
            Ok(transaction) => {
                replies.extend(jobs.map(|job| perform(&transaction, &shared, job)));
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

    /// Removes some of what is past the retention; whether that was the rest.
    fn sweep(&mut self) -> bool {
        if let Err(error) = sharing::forget(&self.db) {
            tracing::warn!(%error, "deleted events were not forgotten");
        }
        let retention = self.shared.retention;
        if retention.is_zero() {
            return true;
        }
        let horizon = now() - retention.as_secs_f64();
        match self.sweep_some(horizon) {
            Ok(is_more) => !is_more,
            Err(error) => {
                tracing::warn!(%error, "old events were not removed");
                true
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
            schema::expire(&transaction, *id)?;
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
fn perform<'a>(db: &Connection, shared: &'a Shared, job: Job) -> Reply<'a> {
    let stats = &shared.stats;
    let add = |counter: &AtomicU64, n: usize| {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    };
    match job {
        Job::Insert(draft, now, answer) => {
            let outcome = savepoint(db, || insert(db, *draft, now));
            if let (Err(error), None) = (&outcome, &answer) {
                tracing::debug!(%error, "an event without a waiting sender was refused");
            }
            reply(stats, outcome, answer, move |saved| match saved.created {
                true => add(&stats.created, 1),
                false => add(&stats.updated, 1),
            })
        }
        Job::Update(id, draft, now, answer) => {
            let outcome = savepoint(db, || update(db, id, *draft, now));
            reply(stats, outcome, Some(answer), move |_| {
                add(&stats.updated, 1)
            })
        }
        Job::Remove(id, answer) => {
            let outcome = savepoint(db, || match schema::remove(db, id, Change::Own) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Error::NotFound(id)),
                Err(error) => Err(failed("removing an event")(error)),
            });
            reply(stats, outcome, Some(answer), move |()| {
                add(&stats.removed, 1)
            })
        }
        Job::Impact(id, change, answer) => {
            let outcome = savepoint(db, || judge(db, id, change));
            reply(stats, outcome, Some(answer), |_| {})
        }
        Job::Take(revisions, is_shared, answer) => {
            let outcome = sharing::take(db, shared, revisions, is_shared);
            reply(stats, outcome, Some(answer), move |n_taken| {
                add(&stats.taken, *n_taken);
            })
        }
        Job::ForgetAbsent(there, answer) => {
            let refuse = failed("forgetting events that are gone elsewhere");
            let outcome = savepoint(db, || sharing::forget_absent(db, &there).map_err(&refuse));
            reply(stats, outcome, Some(answer), move |n_gone| {
                add(&stats.removed, *n_gone);
            })
        }
        Job::Import(import, answer) => {
            let outcome = match shared.is_stopping.load(Ordering::Relaxed) {
                true => Err(Error::Closed),
                false => savepoint(db, || import.portion_stored(db)),
            };
            reply(stats, outcome, Some(answer), move |import| {
                let [_, n_new] = import.n_new();
                add(&stats.created, n_new);
            })
        }
    }
}

/// The reply to the sender that waits for `outcome`. It also calls `count`, because a change must not be counted
/// before it is committed.
fn reply<'a, T: 'static>(
    stats: &'a Stats,
    outcome: Result<T, Error>,
    answer: Option<Answer<T>>,
    count: impl FnOnce(&T) + 'a,
) -> Reply<'a> {
    Box::new(move |committed| {
        match &outcome {
            Ok(done) if committed.is_ok() => count(done),
            Ok(_) | Err(Error::NotFound(_) | Error::Closed) => {}
            Err(Error::Failed { source, .. }) => {
                stats.see(source);
                stats.failed.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                stats.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(answer) = answer {
            // A sender that no longer waits has its event all the same.
            let _ = answer.send(committed.and(outcome));
        }
    })
}

pub(super) fn savepoint<T>(
    db: &Connection,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
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
    event.id = schema::write(db, &mut event, Change::Own).map_err(&refuse)?;
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
    schema::write(db, &mut undone, Change::Own).map_err(&refuse)?;
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
    schema::write(db, &mut event, Change::Own).map_err(&refuse)?;
    roll_back(db, &event)?;
    Ok(event)
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::events::store::database::open_sound;

    fn writer(directory: &tempfile::TempDir, retention: Duration) -> Writer {
        let path = directory.path().join("events.db");
        Writer {
            db: open_sound(&path).unwrap().unwrap(),
            place: file::Place::of(&path),
            shared: Arc::new(Shared {
                generation: AtomicU64::default(),
                stats: Stats::default(),
                retention,
                is_stopping: AtomicBool::default(),
            }),
            sweep_every: Duration::ZERO,
        }
    }

    #[test]
    fn a_sweep_is_due_although_changes_arrive_all_the_time() {
        let directory = tempfile::tempdir().unwrap();
        let writer = writer(&directory, Duration::from_secs(60));
        let shared = Arc::clone(&writer.shared);
        let (queue, jobs) = sync_channel(2);
        for when in [now() - 3600.0, now()] {
            let event = Event {
                what: "deploy".to_owned(),
                when,
                ..Event::default()
            };
            let job = Job::Insert(Box::new(Draft::from(event)), when, None);
            assert!(queue.send(job).is_ok());
        }
        // The thread never waits in vain: the queue has changes, then it is closed.
        drop(queue);
        writer.run(&jobs);
        assert_eq!(shared.stats.created.load(Ordering::Relaxed), 2);
        assert_eq!(shared.stats.removed.load(Ordering::Relaxed), 1);
    }

    /// What an import of `n` events, each of them a portion, and an event behind it in the same commit are answered:
    /// of the import, how many events were new and whether it is over.
    fn imported(writer: Writer, n: i64) -> (Result<(usize, bool), Error>, Result<Saved, Error>) {
        let events = (1..=n).map(|id| Event {
            id,
            when: 1.0,
            ..Event::default()
        });
        let events = Import::new(events.collect()).unwrap().in_small_portions();
        let (queue, jobs) = sync_channel(2);
        let (import, imported) = sync_channel(1);
        let (insert, inserted) = sync_channel(1);
        let draft = Box::new(Draft::new("deploy", &[]));
        assert!(queue.send(Job::Import(Box::new(events), import)).is_ok());
        let job = Job::Insert(draft, now(), Some(insert));
        assert!(queue.send(job).is_ok());
        drop(queue);
        writer.run(&jobs);
        let imported = imported.recv().unwrap();
        let imported = imported.map(|import| (import.n_new()[0], import.is_over()));
        (imported, inserted.recv().unwrap())
    }

    #[test]
    fn another_program_that_holds_the_database_is_told_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let writer = writer(&directory, Duration::ZERO);
        writer.db.busy_timeout(Duration::ZERO).unwrap();
        let other = Connection::open(directory.path().join("events.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (imported, inserted) = imported(writer, 1);
        for refused in [imported.unwrap_err(), inserted.unwrap_err()] {
            assert!(matches!(refused, Error::Locked(_)), "{refused:?}");
            assert!(refused.to_string().contains("events.db: another program"));
        }
    }

    #[test]
    fn what_waits_comes_after_a_portion_of_an_import() {
        let directory = tempfile::tempdir().unwrap();
        let (imported, inserted) = imported(writer(&directory, Duration::ZERO), 1_000);
        assert_eq!(imported.unwrap(), (1, false));
        assert_eq!(inserted.unwrap().event.id, 2);
    }

    #[test]
    fn an_import_does_not_outlast_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let writer = writer(&directory, Duration::ZERO);
        writer.shared.is_stopping.store(true, Ordering::Relaxed);
        let (imported, inserted) = imported(writer, 1_000);
        assert!(matches!(imported, Err(Error::Closed)), "{imported:?}");
        assert_eq!(inserted.unwrap().event.id, 1, "nothing of it is there");
    }
}
