//! Reading: which rows a question needs, by which index.
//!
//! Each alternative of an expression becomes one walk, newest first, along the index of its rarest
//! tag (or along time when it has none); further tags are probed in the same index, and prefixes
//! and "not" are checked on the event itself. What the walks find is merged by time and id.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, ToSql, params_from_iter};

use super::expr::{Clause, Term};
use super::schema::{COLUMNS, read};
use super::words::{GRAPHITES, OURS, ours};
use super::{Event, GraphiteTags, TagQuery};

/// From a time to a time, both inclusive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) from: f64,
    pub(super) until: f64,
}

/// Events in the order of their times, then of their ids, each once; as many as there is room for.
pub(super) struct Found {
    events: BTreeMap<(u64, i64), Event>,
    /// Bytes of text that still fit.
    room: usize,
    /// Whether one did not fit, and the search ended.
    pub(super) is_cut: bool,
    /// Takes out of each event what the caller does not need.
    trim: fn(&mut Event),
}

impl Found {
    /// Room for `n_bytes` of text.
    pub(super) fn up_to(n_bytes: usize) -> Self {
        Self {
            events: BTreeMap::new(),
            room: n_bytes,
            is_cut: false,
            trim: |_| {},
        }
    }

    /// The same, of events from which `trim` takes what the caller does not need: its text does not count.
    pub(super) fn trimmed(self, trim: fn(&mut Event)) -> Self {
        Self { trim, ..self }
    }

    fn add(&mut self, mut event: Event) {
        let key = (ordered(event.when), event.id);
        if self.events.contains_key(&key) {
            return;
        }
        (self.trim)(&mut event);
        let n_bytes = event.text_len();
        match self.room.checked_sub(n_bytes) {
            Some(room) => {
                self.room = room;
                self.events.insert(key, event);
            }
            None => self.is_cut = true,
        }
    }

    /// The newest `limit` of them, oldest first.
    pub(super) fn newest(self, limit: usize) -> Vec<Event> {
        let skip = self.events.len().saturating_sub(limit);
        self.events.into_values().skip(skip).collect()
    }
}

/// Bits that sort as the floats do.
fn ordered(timestamp: f64) -> u64 {
    let bits = timestamp.to_bits();
    if bits >> 63 == 0 {
        bits | 1 << 63
    } else {
        !bits
    }
}

/// The tags that one walk goes along, by their ids; the first is the rarest.
struct Walk<'a> {
    tags: Vec<i64>,
    rules: u8,
    range: Range,
    /// What the index cannot say.
    keep: Box<dyn Fn(&Event) -> bool + 'a>,
}

/// A word as the database knows it.
struct Known {
    id: i64,
    n_events: i64,
    graphite: bool,
}

fn known(db: &Connection, word: &str) -> rusqlite::Result<Option<Known>> {
    db.prepare_cached("SELECT id, n_events, graphite FROM tags WHERE word = ?1")?
        .query_row([word], |record| {
            Ok(Known {
                id: record.get(0)?,
                n_events: record.get(1)?,
                graphite: record.get(2)?,
            })
        })
        .optional()
}

/// Adds the events in `range` that `query` selects, at most `limit` (the newest) of each alternative.
pub(super) fn by_query(
    db: &Connection,
    query: &TagQuery,
    range: Range,
    limit: usize,
    found: &mut Found,
) -> rusqlite::Result<()> {
    for clause in &query.any {
        for tags in clause_walks(db, clause)? {
            let walk = Walk {
                tags,
                rules: OURS,
                range,
                keep: Box::new(|event| clause.holds(&ours(&event.tags).collect::<Vec<_>>())),
            };
            walk.run(db, limit, found)?;
        }
    }
    Ok(())
}

/// More tags under one prefix than this, and a walk along time is taken to be shorter.
const MAX_WALKS: u32 = 64;

/// The tags that each walk for `clause` goes along: one walk if it demands a tag, one for each tag
/// under its prefix if there are not too many, else one along time. None if a tag is unknown.
fn clause_walks(db: &Connection, clause: &Clause) -> rusqlite::Result<Vec<Vec<i64>>> {
    let mut tags = Vec::new();
    let mut prefix = None;
    for term in &clause.all {
        match term {
            Term::Every => {}
            Term::Prefix(text) => prefix = Some(text),
            Term::Tag(word) => match known(db, word)? {
                Some(tag) => tags.push(tag),
                None => return Ok(Vec::new()),
            },
        }
    }
    tags.sort_unstable_by_key(|tag| tag.n_events);
    if let (true, Some(prefix)) = (tags.is_empty(), prefix) {
        let mut statement = db.prepare_cached(
            "SELECT id FROM tags WHERE word >= ?1 AND substr(word, 1, length(?1)) = ?1
             AND word <= ?1 || char(0x10ffff) LIMIT ?2",
        )?;
        let under = statement
            .query_map(rusqlite::params![prefix, MAX_WALKS + 1], |record| {
                record.get(0)
            })?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        if under.len() <= MAX_WALKS as usize {
            return Ok(under.into_iter().map(|tag| vec![tag]).collect());
        }
    }
    Ok(vec![tags.iter().map(|tag| tag.id).collect()])
}

/// Adds the events in `range` that Graphite would answer, at most `limit` (the newest).
pub(super) fn by_graphite(
    db: &Connection,
    tags: &GraphiteTags,
    range: Range,
    limit: usize,
    found: &mut Found,
) -> rusqlite::Result<()> {
    let walk = |tags: Vec<i64>, found: &mut Found, keep: &GraphiteTags| {
        let keep = Box::new(move |event: &Event| keep.shown(event));
        let walk = Walk {
            tags,
            rules: GRAPHITES,
            range,
            keep,
        };
        walk.run(db, limit, found)
    };
    let words = match tags {
        GraphiteTags::All => {
            walk(Vec::new(), found, tags)?;
            return Ok(());
        }
        GraphiteTags::Known(words) | GraphiteTags::Any(words) | GraphiteTags::Strict(words) => {
            words
        }
    };
    let mut used = Vec::new();
    for word in words {
        used.extend(known(db, word)?.filter(|tag| tag.graphite));
    }
    used.sort_unstable_by_key(|tag| (tag.n_events, tag.id));
    used.dedup_by_key(|tag| tag.id);
    let used: Vec<i64> = used.iter().map(|tag| tag.id).collect();
    match tags {
        GraphiteTags::Any(_) => {
            for tag in used {
                walk(vec![tag], found, tags)?;
            }
        }
        _ if used.is_empty() => {}
        _ => walk(used, found, tags)?,
    }
    Ok(())
}

/// The tags that one statement asks for, the rarest ones; a statement for many tags takes long to
/// make, and SQLite refuses one for a thousand.
const MAX_PROBED: usize = 8;

impl Walk<'_> {
    fn run(&self, db: &Connection, limit: usize, found: &mut Found) -> rusqlite::Result<()> {
        let Self {
            tags,
            rules,
            range,
            keep,
        } = self;
        let (probed, checked) = tags.split_at(tags.len().min(MAX_PROBED));
        let mut values: Vec<&dyn ToSql> = vec![&range.from, &range.until];
        let sql = match probed.split_first() {
            None => format!(
                "SELECT {COLUMNS} FROM events e
                 WHERE e.at BETWEEN ?1 AND ?2 ORDER BY e.at DESC, e.id DESC"
            ),
            Some((rarest, further)) => {
                values.extend([rules as &dyn ToSql, rarest]);
                let mut sql = format!(
                    "SELECT {COLUMNS} FROM event_tags t CROSS JOIN events e ON e.id = t.event
                     WHERE t.tag = ?4 AND t.at BETWEEN ?1 AND ?2 AND t.rules & ?3"
                );
                for tag in further {
                    values.push(tag);
                    sql += &format!(
                        " AND EXISTS (SELECT 1 FROM event_tags x WHERE x.tag = ?{}
                          AND x.at = t.at AND x.event = t.event AND x.rules & ?3)",
                        values.len()
                    );
                }
                sql + " ORDER BY t.at DESC, t.event DESC"
            }
        };
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut n_kept = 0;
        while n_kept < limit
            && !found.is_cut
            && let Some(record) = rows.next()?
        {
            let event = read(record)?;
            if carries(db, &event, checked, *rules)? && keep(&event) {
                n_kept += 1;
                found.add(event);
            }
        }
        Ok(())
    }
}

/// Whether `event` has all of `tags` by `rules`.
fn carries(db: &Connection, event: &Event, tags: &[i64], rules: u8) -> rusqlite::Result<bool> {
    for tag in tags {
        let is_there = db
            .prepare_cached(
                "SELECT 1 FROM event_tags
                 WHERE tag = ?1 AND at = ?2 AND event = ?3 AND rules & ?4",
            )?
            .exists(rusqlite::params![tag, event.when, event.id, rules])?;
        if !is_there {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Adds the events that began before `from`, are bands that reach it, and are selected by `query`.
pub(super) fn reaching(
    db: &Connection,
    query: &TagQuery,
    from: f64,
    now: f64,
    limit: usize,
    found: &mut Found,
) -> rusqlite::Result<()> {
    // A class at a time, skipping the empty ones by the index.
    let mut class = 0;
    let mut n_kept = 0;
    while let Some(next) = db
        .prepare_cached("SELECT min(class) FROM bands WHERE class > ?1")?
        .query_row([class], |record| record.get::<_, Option<i64>>(0))?
    {
        class = next;
        let longest = 2f64.powi(i32::try_from(class).unwrap_or(i32::MAX));
        let mut statement = db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM bands b CROSS JOIN events e ON e.id = b.event
             WHERE b.class = ?1 AND b.at >= ?2 AND b.at < ?3
             ORDER BY b.at DESC, b.event DESC"
        ))?;
        let mut rows = statement.query(rusqlite::params![class, from - longest, from])?;
        while n_kept < limit
            && !found.is_cut
            && let Some(record) = rows.next()?
        {
            let event = read(record)?;
            if event.band_end(now).is_some_and(|end| end >= from) && query.matches(&event.tags) {
                n_kept += 1;
                found.add(event);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_sort_as_the_floats_do() {
        let times = [-1e12, -2.5, -1.0, 0.0, 0.5, 1.0, 1.7e9];
        for pair in times.windows(2) {
            assert!(ordered(pair[0]) < ordered(pair[1]), "{pair:?}");
        }
    }
}
