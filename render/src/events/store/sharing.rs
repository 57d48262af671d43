//! Changes for other servers, and theirs for this one.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::super::revision::{DELETED_FOR, Mark, settle};
use super::super::schema::{self, Change};
use super::writer::{Job, Shared, savepoint};
use super::{Error, Store, failed, now};
use crate::events::{Changes, Draft, Event, Revision};

/// Most changes in one answer.
const MOST: u32 = 1_000;
/// Most servers whose questions are remembered.
const MOST_ASKERS: usize = 64;

/// What an other end has of the events here: another server, or the table that all servers share.
#[derive(Clone, Debug, Default)]
pub struct There {
    /// The `uid`s of all events of which it knows.
    pub known: HashSet<String>,
    /// It was given the changes up to this number.
    pub given: i64,
    /// Whether it is the table: then it was also given what came from there.
    pub is_table: bool,
    /// Events that ended before this time have expired there.
    pub kept_from: f64,
}

impl Store {
    /// The random name of the store.
    ///
    /// # Errors
    /// [`Error::Failed`] only.
    pub fn name(&self) -> Result<String, Error> {
        self.read("reading the name of the store", store_name)
    }

    /// The changes with numbers above `after`, in their order: so many that they are `n_bytes` of text or a
    /// little more.
    ///
    /// # Errors
    /// [`Error::Failed`] only.
    pub fn changes(&self, after: i64, n_bytes: usize) -> Result<Changes, Error> {
        self.read("reading changes", |db| {
            let store = store_name(db)?;
            let mut statement = db.prepare_cached(&format!(
                "SELECT {}, r.uid, r.version, r.born_first, r.born_last, r.is_shared, r.seq, r.event,
                     coalesce(r.undoes, (SELECT x.uid FROM revisions x WHERE x.event = e.rollback_of))
                 FROM revisions r LEFT JOIN events e ON e.id = r.event
                 WHERE r.seq > ?1 ORDER BY r.seq LIMIT ?2",
                schema::COLUMNS
            ))?;
            let mut rows = statement.query(params![after, MOST])?;
            let mut changes = Changes {
                store,
                last: after,
                changes: Vec::new(),
                kept_from: Some(horizon(&self.shared)),
            };
            let mut length = 0;
            while length < n_bytes
                && let Some(record) = rows.next()?
            {
                let id: Option<i64> = record.get(17)?;
                let event = id.map(|_| schema::read(record)).transpose()?;
                changes.last = record.get(16)?;
                let revision = Revision {
                    mark: schema::read_mark(record, 11)?,
                    is_shared: record.get(15)?,
                    rollback_of: record.get(18)?,
                    event: event.map(|event| Event {
                        id: 0,
                        rollback_of: None,
                        impact: None,
                        ..event
                    }),
                };
                length += 128 + revision.event.as_ref().map_or(0, Event::text_len);
                changes.changes.push(revision);
            }
            Ok(changes)
        })
    }

    /// Notes that the server with the store called `name` has asked for the changes after number `after`: it has those
    /// before.
    pub fn asked_by(&self, name: &str, after: i64) {
        let mut askers = self.askers.lock();
        if askers.len() < MOST_ASKERS || askers.contains_key(name) {
            let before = askers.entry(name.to_owned()).or_default();
            *before = after.max(*before);
        }
    }

    /// The number up to which the server with the store called `name` has the changes, as far as it has asked since the
    /// start of the process.
    pub fn taken_by(&self, name: &str) -> i64 {
        self.askers.lock().get(name).copied().unwrap_or(0)
    }

    /// Forgets events that were given to an other end and are not there any more: they were deleted, so long ago that the
    /// deletion is forgotten, too. Returns how many.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::Closed`].
    pub fn forget_absent(&self, there: There) -> Result<usize, Error> {
        self.ask(|answer| Job::ForgetAbsent(there, answer))
    }

    /// Takes changes of other servers, each by itself: one that makes no sense is counted and left out. Returns how
    /// many have changed something here. `is_shared` says that they are from the table that all servers share.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::Closed`].
    pub fn take(&self, revisions: Vec<Revision>, is_shared: bool) -> Result<usize, Error> {
        self.ask(|answer| Job::Take(revisions, is_shared, answer))
    }
}

/// Takes `revisions`; how many have changed something.
pub(super) fn take(
    db: &Connection,
    shared: &Shared,
    revisions: Vec<Revision>,
    is_shared: bool,
) -> Result<usize, Error> {
    let horizon = horizon(shared);
    let mut n_taken = 0;
    for revision in revisions {
        let uid = revision.mark.uid.clone();
        match savepoint(db, || take_one(db, revision, horizon, is_shared)) {
            Ok(is_new) => n_taken += usize::from(is_new),
            Err(Error::Refused(why)) => {
                shared.stats.refused.add(1);
                tracing::warn!("the event {uid} of another server is refused: {why}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(n_taken)
}

fn store_name(db: &Connection) -> rusqlite::Result<String> {
    db.query_row("SELECT name FROM store", [], |record| record.get(0))
}

/// Events that ended before this time have expired.
fn horizon(shared: &Shared) -> f64 {
    match shared.retention.as_secs_f64() {
        0.0 => 0.0,
        retention => now() - retention,
    }
}

/// As [`Store::forget_absent`].
pub(super) fn forget_absent(db: &Connection, there: &There) -> rusqlite::Result<usize> {
    let mut statement = db.prepare_cached(
        "SELECT r.uid, r.event FROM revisions r JOIN events e ON e.id = r.event
         WHERE (r.seq <= ?1 OR (?2 AND r.is_shared)) AND coalesce(e.until, e.at) >= ?3",
    )?;
    let rows = statement.query_map(
        params![there.given, there.is_table, there.kept_from],
        |record| Ok((record.get::<_, String>(0)?, record.get::<_, i64>(1)?)),
    )?;
    let rows: Vec<(String, i64)> = rows.collect::<rusqlite::Result<_>>()?;
    let absent = rows.iter().filter(|(uid, _)| !there.known.contains(uid));
    let mut n_forgotten = 0;
    for (_, event) in absent {
        schema::expire(db, *event)?;
        n_forgotten += 1;
    }
    Ok(n_forgotten)
}

fn take_one(
    db: &Connection,
    revision: Revision,
    horizon: f64,
    is_shared: bool,
) -> Result<bool, Error> {
    let refuse = failed("taking an event of another server");
    let Revision { mark, event, .. } = revision;
    check(&mark)?;
    let known = schema::find_mark(db, &mark.uid).map_err(&refuse)?;
    let is_newer = known
        .as_ref()
        .is_none_or(|(known, _)| known.version < mark.version);
    let here = known.as_ref().and_then(|(_, id)| *id);
    let change = Change::Of(&mark, is_shared);
    let Some(event) = event else {
        if is_newer {
            match here {
                Some(id) => schema::remove(db, id, change).map(|_| ()),
                None => schema::write_mark(db, &mark, None, is_shared),
            }
            .map_err(&refuse)?;
        }
        return Ok(is_newer);
    };
    let mut event = checked(event)?;
    if event.until.unwrap_or(event.when) < horizon {
        return Ok(false);
    }
    let undone = revision.rollback_of;
    if let Some(uid) = &undone {
        let here = schema::find_mark(db, uid).map_err(&refuse)?;
        event.rollback_of = here.and_then(|(_, id)| id);
    }
    let awaited = undone.filter(|_| event.rollback_of.is_none());
    let awaited = awaited.as_deref();
    let Some((known, id)) = known.zip(here).map(|((known, _), id)| (known, id)) else {
        if is_newer {
            write(db, &mut event, (&mark, is_shared), awaited)?;
        }
        return Ok(is_newer);
    };
    let mine = schema::find(db, id).map_err(&refuse)?;
    let mine = mine.map(|mine| Event {
        id: 0,
        impact: None,
        ..mine
    });
    let Some(mine) = mine else {
        return Ok(false);
    };
    let Some((settled, mut event)) = settle((&known, &mine), (&mark, &event)) else {
        return Ok(false);
    };
    event.id = id;
    // What is made of both is new to the others.
    let is_shared = is_shared && settled == mark;
    write(db, &mut event, (&settled, is_shared), awaited)?;
    Ok(true)
}

/// Writes an event under the mark that it has on all servers; `awaited` is the event that it undoes, if that is not
/// here yet.
fn write(
    db: &Connection,
    event: &mut Event,
    (mark, is_shared): (&Mark, bool),
    awaited: Option<&str>,
) -> Result<(), Error> {
    free_key(db, mark, event)?;
    let mut work = || {
        let id = schema::write(db, event, Change::Of(mark, is_shared))?;
        if let Some(undone) = awaited {
            schema::wait_for_undone(db, &mark.uid, undone)?;
        }
        schema::link_undoing(db, &mark.uid, id)
    };
    work().map_err(failed("taking an event of another server"))
}

fn check(mark: &Mark) -> Result<(), Error> {
    let is_hex = mark.uid.bytes().all(|byte| byte.is_ascii_hexdigit());
    // A version of the far future could never be changed again.
    let most = ((now() + DELETED_FOR.as_secs_f64()) * 1e6) as i64;
    let versions = [mark.version, mark.born.0, mark.born.1];
    if mark.uid.len() != 32 || !is_hex || versions.iter().any(|at| *at < 0 || *at > most) {
        return Err(Error::Refused(
            "its id or version makes no sense: are the clocks of all servers right?".to_owned(),
        ));
    }
    Ok(())
}

/// `event` with the checks of any other sender's.
fn checked(event: Event) -> Result<Event, Error> {
    let draft = Draft::from(event);
    draft.check()?;
    let mut event = draft.create(0.0)?;
    event.rollback_of = None;
    Ok(event)
}

/// A key belongs to one event: of two the one with the smaller `uid` keeps it, on every server.
fn free_key(db: &Connection, mark: &Mark, event: &mut Event) -> Result<(), Error> {
    let refuse = failed("comparing keys of events");
    let Some(key) = &event.key else {
        return Ok(());
    };
    let other = schema::find_key(db, key).map_err(&refuse)?;
    let Some(other) = other.filter(|other| other.id != event.id) else {
        return Ok(());
    };
    let theirs = schema::mark_of(db, other.id).map_err(&refuse)?;
    if theirs.is_some_and(|theirs| theirs.uid < mark.uid) {
        event.key = None;
        return Ok(());
    }
    schema::clear_key(db, other.id).map_err(&refuse)
}

/// Forgets events that were deleted long ago.
pub(super) fn forget(db: &Connection) -> rusqlite::Result<()> {
    let before = ((now() - DELETED_FOR.as_secs_f64()) * 1e6) as i64;
    db.prepare_cached("DELETE FROM revisions WHERE event IS NULL AND version < ?1")?
        .execute([before])?;
    Ok(())
}
