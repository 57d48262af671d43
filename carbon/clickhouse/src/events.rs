//! Events in a table beside the points: a row for each change, of which the engine keeps the last of each event.
//!
//! `Received` is the second at which the ClickHouse server got a row. Readers go along it, so their clocks do not matter.

use std::time::Duration;

use render::budget::Budget;
use render::events::{Event, Mark, Revision, Status};

use crate::client::Client;
use crate::rows::{push_length, push_text};
use crate::sql;
use crate::wire::{CUT, Rows};

/// The columns that servers write, in the order of the rows.
const COLUMNS: &str = "Id, Version, BornFirst, BornLast, Deleted, Time, Until, Status, What, Data, Tags, RollbackOf, Link, Key";
/// Most rows of an answer.
const MOST: usize = 200;
/// How long an insert may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The statement that makes the table.
pub(crate) fn schema(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (\n    Id String,\n    Version UInt64,\n    BornFirst UInt64,\n    \
         BornLast UInt64,\n    Deleted UInt8,\n    Time Float64,\n    Until Nullable(Float64),\n    Status String,\n    \
         What String,\n    Data String,\n    Tags Array(String),\n    RollbackOf String,\n    Link String,\n    \
         Key String,\n    Received UInt32 DEFAULT toUInt32(now())\n) ENGINE = ReplacingMergeTree(Version)\nORDER BY Id"
    )
}

/// The table.
#[derive(Clone, Debug)]
pub struct EventsTable {
    client: Client,
    table: String,
}

/// A place in the order in which rows arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    second: u32,
    /// Events of this second up to this one are before the place.
    id: String,
}

impl Place {
    /// The place before all rows of `second`.
    pub fn at(second: u32) -> Self {
        Self {
            second,
            id: String::new(),
        }
    }

    /// Its second.
    pub fn second(&self) -> u32 {
        self.second
    }
}

/// Some rows.
#[derive(Debug)]
pub struct Arrived {
    /// The changes, in the order in which they arrived.
    pub revisions: Vec<Revision>,
    /// The place after the last of them; `None`: there are none.
    pub last: Option<Place>,
}

impl EventsTable {
    /// The table called `table`.
    pub(crate) fn new(client: Client, table: &str) -> Self {
        Self {
            client,
            table: table.to_owned(),
        }
    }

    /// The server's URL and the table.
    pub fn name(&self) -> String {
        format!("{} {}", self.client.url(), self.table)
    }

    /// Adds rows for `revisions`.
    ///
    /// # Errors
    /// They were not acknowledged.
    pub fn add(&self, revisions: &[Revision]) -> Result<(), String> {
        let mut rows = Vec::new();
        for revision in revisions {
            push(&mut rows, revision);
        }
        self.client
            .insert(&self.table, COLUMNS, &rows, false, PATIENCE)
            .map_err(|why| self.explain(&why))
    }

    /// The next rows after `place`.
    ///
    /// # Errors
    /// What ClickHouse says, an answer that cannot be read, or what `budget` refuses.
    pub fn after(&self, place: &Place, budget: &Budget) -> Result<Arrived, String> {
        let (table, second, id) = (&self.table, place.second, sql::text(&place.id));
        // Of several changes of an event in the same second the last comes first.
        let sql = format!(
            "SELECT {COLUMNS}, Received FROM {table} WHERE Received > {second} OR (Received = {second} AND Id > {id}) \
             ORDER BY Received, Id, Version DESC LIMIT {MOST} FORMAT RowBinary"
        );
        let answer = self.client.query(sql, budget);
        let answer = answer.map_err(|failure| self.explain(&failure.to_string()))?;
        let mut rows = Rows(&answer.bytes);
        let mut arrived = Arrived {
            revisions: Vec::new(),
            last: None,
        };
        while !rows.is_empty() {
            let (revision, second) = read(&mut rows).ok_or(CUT)?;
            let id = revision.mark.uid.clone();
            arrived.last = Some(Place { second, id });
            arrived.revisions.push(revision);
        }
        Ok(arrived)
    }

    fn explain(&self, why: &str) -> String {
        let table = &self.table;
        match why.contains("Code: 60") {
            true => format!(
                "store.clickhouse.events_table: there is no table {table}, `plumbago clickhouse schema --apply` makes it ({why})"
            ),
            false => format!("store.clickhouse.events_table = {table:?}: {why}"),
        }
    }
}

fn push(rows: &mut Vec<u8>, revision: &Revision) {
    let Revision {
        mark: Mark { uid, version, born },
        event,
        rollback_of,
        ..
    } = revision;
    let nothing = Event::default();
    let deleted = u8::from(event.is_none());
    let event = event.as_ref().unwrap_or(&nothing);
    push_text(rows, uid);
    for number in [*version, born.0, born.1] {
        rows.extend_from_slice(&number.to_le_bytes());
    }
    rows.push(deleted);
    rows.extend_from_slice(&event.when.to_le_bytes());
    match event.until {
        Some(until) => {
            rows.push(0);
            rows.extend_from_slice(&until.to_le_bytes());
        }
        None => rows.push(1),
    }
    for text in [event.status.name(), &event.what, &event.data] {
        push_text(rows, text);
    }
    push_length(rows, event.tags.len());
    for tag in &event.tags {
        push_text(rows, tag);
    }
    for text in [rollback_of, &event.link, &event.key] {
        push_text(rows, text.as_deref().unwrap_or_default());
    }
}

fn read(rows: &mut Rows<'_>) -> Option<(Revision, u32)> {
    let uid = rows.text()?;
    let mut number = || {
        rows.u64()
            .map(|number| i64::try_from(number).unwrap_or(i64::MAX))
    };
    let (version, born) = (number()?, (number()?, number()?));
    let is_deleted = rows.u8()? != 0;
    let float = |rows: &mut Rows<'_>| rows.u64().map(f64::from_bits);
    let when = float(rows)?;
    let until = match rows.u8()? {
        0 => Some(float(rows)?),
        _ => None,
    };
    let (status, what, data) = (rows.text()?, rows.text()?, rows.text()?);
    let mut tags = Vec::new();
    for _ in 0..rows.length()? {
        tags.push(rows.text()?);
    }
    let mut optional = || rows.text().map(|text| (!text.is_empty()).then_some(text));
    let (rollback_of, link, key) = (optional()?, optional()?, optional()?);
    let second = rows.take(4)?;
    let second = u32::from_le_bytes(second.try_into().ok()?);
    let event = Event {
        what,
        data,
        tags,
        when,
        until,
        status: Status::parse(&status).unwrap_or_default(),
        link,
        key,
        ..Event::default()
    };
    let revision = Revision {
        mark: Mark { uid, version, born },
        event: (!is_deleted).then_some(event),
        rollback_of,
        is_shared: true,
    };
    Some((revision, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_and_what_is_cut_off_is_nothing() {
        let mark = |uid: &str| Mark {
            uid: uid.to_owned(),
            version: 9,
            born: (1, 2),
        };
        let whole = Event {
            what: "deploy 'a\n".to_owned(),
            data: "x".repeat(300),
            tags: vec!["deploy".to_owned(), "ä".to_owned()],
            when: 1.5,
            until: Some(2.5),
            status: Status::Failed,
            link: Some("http://a/".to_owned()),
            key: Some("k".to_owned()),
            ..Event::default()
        };
        for (event, rollback_of) in [
            (Some(whole), Some("b".to_owned())),
            (Some(Event::default()), None),
            (None, None),
        ] {
            let revision = Revision {
                mark: mark("a"),
                event,
                rollback_of,
                is_shared: true,
            };
            let mut bytes = Vec::new();
            push(&mut bytes, &revision);
            bytes.extend(7_u32.to_le_bytes());
            assert_eq!(read(&mut Rows(&bytes)), Some((revision, 7)));
            for end in 0..bytes.len() {
                assert_eq!(read(&mut Rows(&bytes[..end])), None);
            }
        }
    }
}
