//! The layout of `events.db`, readable with any `sqlite3`, and the rows in it.
//!
//! 1. `events` holds an event once, `tags` a word once, `event_tags` each pair of them with the
//!    event's time, so that "this tag in this range" is one walk along one index.
//! 2. `event_tags.rules` says for whom the word counts (`words`), `tags.n_events` how many events
//!    carry it: a query walks along its rarest word. A word stays when its last event goes, since
//!    Graphite tells words that were once used from words that never were.
//! 3. `bands` holds each event that is more than a line, under the smallest n with a length of at
//!    most 2^n seconds. What overlaps a time is then found class by class, each a short walk, however
//!    many bands there are and however long the longest is. (A table of its own and not a partial
//!    index: SQLite prepares a statement again whenever a parameter might decide about one.)
//! 4. `impacts` holds the verdict on an event, if there is one: `brief` for lists, `report` in full,
//!    both JSON. It goes when the event goes, or when its time or tags change.
//! 5. `revisions` holds the last change of each event and of each deleted one (`event` is NULL then), under a
//!    number that grows with every change: what other servers have not asked for yet has higher ones. `undoes` is the
//!    `uid` of an event that is to come from another server.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::revision::{self, Mark};
use super::words::{GRAPHITES, filed_under};
use super::{Event, OPEN_AT_MOST, Status};
use crate::impact::Report;

/// The layout this program writes.
pub(super) const VERSION: i64 = 3;

/// What version 3 adds to version 2.
pub(super) const REVISIONS: &str = "
CREATE TABLE revisions (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    uid         TEXT NOT NULL UNIQUE,
    event       INTEGER UNIQUE,
    version     INTEGER NOT NULL,
    born_first  INTEGER NOT NULL,
    born_last   INTEGER NOT NULL,
    is_shared   INTEGER NOT NULL,
    undoes      TEXT
) STRICT;
CREATE INDEX revisions_without_undone ON revisions (undoes) WHERE undoes IS NOT NULL;
CREATE INDEX revisions_of_deleted ON revisions (version) WHERE event IS NULL;
CREATE TABLE store (name TEXT NOT NULL) STRICT;
INSERT INTO store (name) VALUES (lower(hex(randomblob(16))));
";

/// What version 2 adds to version 1.
pub(super) const IMPACTS: &str = "
CREATE TABLE impacts (
    event       INTEGER PRIMARY KEY,
    verdict     TEXT NOT NULL,
    complete    INTEGER NOT NULL,
    updated     REAL NOT NULL,
    brief       TEXT NOT NULL,
    report      TEXT NOT NULL
) STRICT;
";

/// The layout of version 1.
pub(super) const CREATE: &str = "
CREATE TABLE events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          REAL NOT NULL,
    until       REAL,
    what        TEXT NOT NULL,
    data        TEXT NOT NULL,
    tags        TEXT NOT NULL,
    status      TEXT NOT NULL,
    rollback_of INTEGER,
    link        TEXT,
    key         TEXT UNIQUE
) STRICT;
CREATE INDEX events_by_time ON events (at);
CREATE TABLE bands (
    class       INTEGER NOT NULL,
    at          REAL NOT NULL,
    event       INTEGER NOT NULL,
    PRIMARY KEY (class, at, event)
) STRICT, WITHOUT ROWID;
CREATE TABLE tags (
    id          INTEGER PRIMARY KEY,
    word        TEXT NOT NULL UNIQUE,
    n_events    INTEGER NOT NULL,
    graphite    INTEGER NOT NULL
) STRICT;
CREATE TABLE event_tags (
    tag         INTEGER NOT NULL,
    at          REAL NOT NULL,
    event       INTEGER NOT NULL,
    rules       INTEGER NOT NULL,
    PRIMARY KEY (tag, at, event)
) STRICT, WITHOUT ROWID;
";

/// Most events with the same contents that other servers take for the same ones, and most that are shown as undoing one.
const MAX_ALIKE: u32 = 64;

/// The columns that [`read`] expects, of `events` called `e`.
pub(super) const COLUMNS: &str =
    "e.id, e.at, e.until, e.what, e.data, e.tags, e.status, e.rollback_of, e.link, e.key,
     (SELECT i.brief FROM impacts i WHERE i.event = e.id)";

/// The event in a record of [`COLUMNS`].
pub(super) fn read(record: &Row<'_>) -> rusqlite::Result<Event> {
    let tags: String = record.get(5)?;
    let status: String = record.get(6)?;
    let impact: Option<String> = record.get(10)?;
    Ok(Event {
        id: record.get(0)?,
        when: record.get(1)?,
        until: record.get(2)?,
        what: record.get(3)?,
        data: record.get(4)?,
        tags: tags.split_whitespace().map(str::to_owned).collect(),
        // Only an operator's own hand can have written another word.
        status: Status::parse(&status).unwrap_or_default(),
        rollback_of: record.get(7)?,
        link: record.get(8)?,
        key: record.get(9)?,
        look: super::Look::default(),
        impact: impact.and_then(|text| serde_json::from_str(&text).ok()),
    })
}

/// The event called `id`.
pub(super) fn find(db: &Connection, id: i64) -> rusqlite::Result<Option<Event>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM events e WHERE e.id = ?1"))?
        .query_row([id], read)
        .optional()
}

/// Events that undo the event called `id`, at most [`MAX_ALIKE`], without their `data`.
pub(super) fn find_undoing(
    db: &Connection,
    id: i64,
    from: f64,
    until: f64,
) -> rusqlite::Result<Vec<Event>> {
    let columns = COLUMNS.replace("e.data", "''");
    db.prepare_cached(&format!(
        "SELECT {columns} FROM events e
         WHERE e.at >= ?2 AND e.at <= ?3 AND e.rollback_of = ?1 AND e.id <> ?1
         ORDER BY e.at, e.id LIMIT ?4"
    ))?
    .query_map(params![id, from, until, MAX_ALIKE], read)?
    .collect()
}

/// The event that was sent under `key`.
pub(super) fn find_key(db: &Connection, key: &str) -> rusqlite::Result<Option<Event>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM events e WHERE e.key = ?1"))?
        .query_row([key], read)
        .optional()
}

/// Writes `event`, under its own id unless that is 0, over an event of that id if there is one.
/// Returns the id. The verdict on an event whose time or tags change is dropped.
pub(super) fn write(
    db: &Connection,
    event: &mut Event,
    change: Change<'_>,
) -> rusqlite::Result<i64> {
    let old = match event.id {
        0 => None,
        id => take_out(db, id)?,
    };
    let judged = |event: &Event| (event.when, event.until, event.tags.clone());
    if let Some(old) = old
        && judged(&old) != judged(event)
    {
        remove_impact(db, event.id)?;
        event.impact = None;
    }
    db.prepare_cached(
        "INSERT INTO events (id, at, until, what, data, tags, status, rollback_of, link, key)
         VALUES (nullif(?1, 0), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        event.id,
        event.when,
        event.until,
        event.what,
        event.data,
        event.tags.join(" "),
        event.status.name(),
        event.rollback_of,
        event.link,
        event.key,
    ])?;
    let id = db.last_insert_rowid();
    if let Some(class) = band_class(event) {
        db.prepare_cached("INSERT INTO bands (class, at, event) VALUES (?1, ?2, ?3)")?
            .execute(params![class, event.when, id])?;
    }
    for (word, rules) in filed_under(&event.tags) {
        let tag: i64 = db
            .prepare_cached(
                "INSERT INTO tags (word, n_events, graphite) VALUES (?1, 1, ?2)
                 ON CONFLICT (word) DO UPDATE
                 SET n_events = n_events + 1, graphite = max(graphite, excluded.graphite)
                 RETURNING id",
            )?
            .query_row(params![word, i64::from(rules & GRAPHITES != 0)], |record| {
                record.get(0)
            })?;
        db.prepare_cached(
            "INSERT INTO event_tags (tag, at, event, rules) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![tag, event.when, id, rules])?;
    }
    match change {
        Change::Own => {
            let mark = next_mark(db, id, event)?;
            write_mark(db, &mark, Some(id), false)?;
        }
        Change::Of(mark, is_shared) => write_mark(db, mark, Some(id), is_shared)?,
    }
    Ok(id)
}

/// Removes the event called `id`, and the verdict on it; false if it does not exist.
pub(super) fn remove(db: &Connection, id: i64, change: Change<'_>) -> rusqlite::Result<bool> {
    let Some(event) = take_out(db, id)? else {
        return Ok(false);
    };
    remove_impact(db, id)?;
    match change {
        Change::Own => {
            let mark = next_mark(db, id, &event)?;
            write_mark(db, &mark, None, false)?;
        }
        Change::Of(mark, is_shared) => write_mark(db, mark, None, is_shared)?,
    }
    Ok(true)
}

/// Removes the event called `id` after its time: other servers do so themselves.
pub(super) fn expire(db: &Connection, id: i64) -> rusqlite::Result<()> {
    take_out(db, id)?;
    remove_impact(db, id)?;
    db.prepare_cached("DELETE FROM revisions WHERE event = ?1")?
        .execute([id])?;
    Ok(())
}

/// The verdict on the event called `id`, in full.
pub(super) fn impact(db: &Connection, id: i64) -> rusqlite::Result<Option<Report>> {
    let text: Option<String> = db
        .prepare_cached("SELECT report FROM impacts WHERE event = ?1")?
        .query_row([id], |record| record.get(0))
        .optional()?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Keeps `report` as the verdict on the event called `id`.
pub(super) fn write_impact(db: &Connection, id: i64, report: &Report) -> rusqlite::Result<()> {
    let json = |report: &Report| {
        serde_json::to_string(report)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
    };
    db.prepare_cached(
        "INSERT OR REPLACE INTO impacts (event, verdict, complete, updated, brief, report)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        id,
        report.verdict.name(),
        report.complete,
        report.updated,
        json(&report.brief())?,
        json(report)?,
    ])?;
    Ok(())
}

fn remove_impact(db: &Connection, id: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM impacts WHERE event = ?1")?
        .execute([id])?;
    Ok(())
}

/// Where a change comes from.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    /// A client of this server.
    Own,
    /// Another server; the flag says whether it is from the table that all servers share.
    Of(&'a Mark, bool),
}

/// What is known of an event by its `uid`: its mark, and its id here unless it was deleted.
pub(super) fn find_mark(
    db: &Connection,
    uid: &str,
) -> rusqlite::Result<Option<(Mark, Option<i64>)>> {
    db.prepare_cached(
        "SELECT uid, version, born_first, born_last, event FROM revisions WHERE uid = ?1",
    )?
    .query_row([uid], |record| Ok((read_mark(record, 0)?, record.get(4)?)))
    .optional()
}

/// The mark of the event called `id`.
pub(super) fn mark_of(db: &Connection, id: i64) -> rusqlite::Result<Option<Mark>> {
    db.prepare_cached("SELECT uid, version, born_first, born_last FROM revisions WHERE event = ?1")?
        .query_row([id], |record| read_mark(record, 0))
        .optional()
}

/// Takes the key of the event called `id` away.
pub(super) fn clear_key(db: &Connection, id: i64) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE events SET key = NULL WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// The mark whose columns begin with number `at`.
pub(super) fn read_mark(record: &Row<'_>, at: usize) -> rusqlite::Result<Mark> {
    Ok(Mark {
        uid: record.get(at)?,
        version: record.get(at + 1)?,
        born: (record.get(at + 2)?, record.get(at + 3)?),
    })
}

/// Keeps `mark` as the last change of its event, under a number of its own.
pub(super) fn write_mark(
    db: &Connection,
    mark: &Mark,
    event: Option<i64>,
    is_shared: bool,
) -> rusqlite::Result<()> {
    let Mark { uid, version, born } = mark;
    db.prepare_cached("DELETE FROM revisions WHERE uid = ?1 OR event = ?2")?
        .execute(params![uid, event])?;
    db.prepare_cached(
        "INSERT INTO revisions (uid, event, version, born_first, born_last, is_shared)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![uid, event, version, born.0, born.1, is_shared])?;
    Ok(())
}

/// Notes that the event of `uid` undoes an event that is not here yet.
pub(super) fn wait_for_undone(db: &Connection, uid: &str, undone: &str) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE revisions SET undoes = ?2 WHERE uid = ?1")?
        .execute([uid, undone])?;
    Ok(())
}

/// The event of `uid` is here now, called `id`: what undoes it learns that.
pub(super) fn link_undoing(db: &Connection, uid: &str, id: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE events SET rollback_of = ?2 WHERE id IN
         (SELECT event FROM revisions WHERE undoes = ?1 AND event IS NOT NULL)",
    )?
    .execute(params![uid, id])?;
    db.prepare_cached("UPDATE revisions SET undoes = NULL WHERE undoes = ?1")?
        .execute([uid])?;
    Ok(())
}

/// The mark of a change of this server to the event called `id`.
fn next_mark(db: &Connection, id: i64, event: &Event) -> rusqlite::Result<Mark> {
    let known = mark_of(db, id)?;
    let now = (super::store::now() * 1e6) as i64;
    if let Some(mark) = known {
        let version = now.max(mark.version + 1);
        return Ok(Mark { version, ..mark });
    }
    let (uid, before) = free_uid(db, event)?;
    let version = now.max(before + 1);
    let born = (version, version);
    Ok(Mark { uid, version, born })
}

/// A `uid` for a new event, and the last version under it: that of a deletion, or 0.
fn free_uid(db: &Connection, event: &Event) -> rusqlite::Result<(String, i64)> {
    for nth in 0..MAX_ALIKE {
        let uid = revision::uid(event, nth);
        match find_mark(db, &uid)? {
            None => return Ok((uid, 0)),
            // What comes under the key of a deleted event is that event again.
            Some((mark, None)) if event.key.is_some() => return Ok((uid, mark.version)),
            Some(_) => {}
        }
    }
    let random = db.query_row("SELECT lower(hex(randomblob(16)))", [], |record| {
        record.get(0)
    })?;
    Ok((random, 0))
}

/// The id of an event that is `event` but for its id and the verdict on it, and not in `taken`. One that was changed since
/// it came is found under its first contents only.
pub(super) fn find_equal(
    db: &Connection,
    event: &Event,
    taken: &HashSet<i64>,
) -> rusqlite::Result<Option<i64>> {
    for nth in 0..MAX_ALIKE {
        let Some((_, known)) = find_mark(db, &revision::uid(event, nth))? else {
            return Ok(None);
        };
        let Some(id) = known.filter(|id| !taken.contains(id)) else {
            continue;
        };
        let found = find(db, id)?.map(|found| Event {
            id: event.id,
            impact: None,
            ..found
        });
        if found.as_ref() == Some(event) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Gives a mark to every event of a database without any.
pub(super) fn mark_all(db: &Connection) -> rusqlite::Result<()> {
    // Servers that exchanged events before kept each other's under keys made of the contents.
    db.execute("UPDATE events SET key = NULL WHERE key GLOB 'peer:*'", [])?;
    let mut statement = db.prepare(&format!("SELECT {COLUMNS} FROM events e ORDER BY e.id"))?;
    let mut events = statement.query([])?;
    while let Some(record) = events.next()? {
        let event = read(record)?;
        let (uid, before) = free_uid(db, &event)?;
        let version = before + 1;
        let born = (1, 1);
        write_mark(db, &Mark { uid, version, born }, Some(event.id), false)?;
    }
    Ok(())
}

/// Removes the event called `id` and what is filed for it, but not the verdict on it.
fn take_out(db: &Connection, id: i64) -> rusqlite::Result<Option<Event>> {
    let Some(event) = find(db, id)? else {
        return Ok(None);
    };
    for word in filed_under(&event.tags).into_keys() {
        let tag: Option<i64> = db
            .prepare_cached("UPDATE tags SET n_events = n_events - 1 WHERE word = ?1 RETURNING id")?
            .query_row([word], |record| record.get(0))
            .optional()?;
        db.prepare_cached("DELETE FROM event_tags WHERE tag = ?1 AND at = ?2 AND event = ?3")?
            .execute(params![tag, event.when, id])?;
    }
    if let Some(class) = band_class(&event) {
        db.prepare_cached("DELETE FROM bands WHERE class = ?1 AND at = ?2 AND event = ?3")?
            .execute(params![class, event.when, id])?;
    }
    db.prepare_cached("DELETE FROM events WHERE id = ?1")?
        .execute([id])?;
    Ok(Some(event))
}

/// The length class of an event's band, `None` for a line. A change still under way is filed as
/// long as it can become.
fn band_class(event: &Event) -> Option<i64> {
    let seconds = match (event.until, event.status) {
        (Some(until), _) => until - event.when,
        (None, Status::Started) => OPEN_AT_MOST,
        (None, _) => return None,
    };
    // The first class holds all up to 2 seconds.
    Some(seconds.max(2.0).log2().ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_is_no_longer_than_its_class_says() {
        for (seconds, class) in [
            (0.0, 1),
            (1.0, 1),
            (2.0, 1),
            (2.5, 2),
            (300.0, 9),
            (1e9, 30),
        ] {
            let event = Event {
                when: 1000.0,
                until: Some(1000.0 + seconds),
                ..Event::default()
            };
            assert_eq!(band_class(&event), Some(class));
            assert!(seconds <= 2f64.powi(class as i32));
        }
        assert_eq!(band_class(&Event::default()), None);
    }
}
