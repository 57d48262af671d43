//! Blocks of points, and of the names that ClickHouse does not have yet.
//!
//! 1. A block has up to three parts, one for each table. Each part is sent until it is acknowledged; those that were
//!    are not sent again with the rest.
//! 2. The names of a series are written once a day, and again after [`FORGET`], as carbon-clickhouse does: a table of
//!    names that was emptied fills up again.
//! 3. The points of a series that have the same timestamp are one row, of the last to arrive.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use carbon::SeriesId;
use carbon::remote::Remote;
use foldhash::HashSet;
use whisper::{Point, Timestamp};

use crate::client::Client;
use crate::known::{self, Known};
use crate::names;
use crate::options::Options;
use crate::packed;
use crate::rows::{self, day};

/// How long it is remembered that a series was written.
const FORGET: Duration = Duration::from_secs(12 * 3_600);

/// A part of a block: rows of one table.
#[derive(Debug)]
struct Part {
    table: String,
    columns: &'static str,
    rows: Vec<u8>,
    /// The rows as they are sent, made at the first attempt.
    packed: Option<Vec<u8>>,
    count: usize,
}

impl Part {
    fn new(table: &str, columns: &'static str) -> Self {
        Self {
            table: table.to_owned(),
            columns,
            rows: Vec::new(),
            packed: None,
            count: 0,
        }
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.packed = None;
        self.count = 0;
    }

    fn send(
        &mut self,
        client: &Client,
        is_packed: bool,
        patience: Duration,
    ) -> Result<usize, String> {
        if self.count == 0 {
            return Ok(0);
        }
        let body = match is_packed {
            true => self.packed.get_or_insert_with(|| {
                let begun = Instant::now();
                let packed = packed::lz4(&self.rows);
                let spent = begun.elapsed().as_nanos() as u64;
                client.stats().block_nanoseconds.add(spent);
                packed
            }),
            false => &self.rows,
        };
        client.insert(&self.table, self.columns, body, is_packed, patience)?;
        client.stats().bytes.add(body.len() as u64);
        let count = self.count;
        self.clear();
        Ok(count)
    }
}

/// Makes blocks and sends them.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    points: Part,
    index: Part,
    tagged: Part,
    max_rows: usize,
    max_bytes: usize,
    is_packed: bool,
    is_daily: bool,
    /// The last day for which each series was written, in this block or before.
    seen: Vec<u16>,
    seen_since: Instant,
    /// The series that are new in the block.
    fresh: Vec<(SeriesId, u16)>,
    branches: HashSet<Box<str>>,
    known: Arc<Known>,
    head: Vec<u8>,
    sorted: Vec<Point>,
}

impl Writer {
    /// A writer into the tables of `options`. `known` gets the series that are in the tables of names.
    pub fn new(options: &Options, client: Client, known: Arc<Known>) -> Self {
        Self {
            client,
            points: Part::new(&options.points_table, "Path, Value, Time, Date, Timestamp"),
            index: Part::new(&options.index_table, "Date, Level, Path, Version"),
            tagged: Part::new(&options.tagged_table, "Date, Tag1, Path, Tags, Version"),
            max_rows: options.batch_rows as usize,
            max_bytes: usize::try_from(options.batch_size.0).unwrap_or(usize::MAX),
            is_packed: options.compression == "lz4",
            is_daily: options.daily_index,
            seen: Vec::new(),
            seen_since: Instant::now(),
            fresh: Vec::new(),
            branches: HashSet::default(),
            known,
            head: Vec::new(),
            sorted: Vec::new(),
        }
    }

    /// Adds the names of a series that the block has points of, for each day that is new.
    fn add_names(&mut self, series: SeriesId, name: &str, path: &str, points: &[Point]) {
        for point in points {
            // 0 stands for "never": points of 1970-01-01 share it with 1970-01-02.
            let day = day(point.at.0).max(1);
            if self.seen.get(series.0 as usize) == Some(&day) {
                continue;
            }
            known::set(&mut self.seen, series, day);
            self.fresh.push((series, day));
            let version = now();
            if carbon::series::is_tagged(name) {
                let rows = rows::push_tags(&mut self.tagged.rows, name, path, day, version);
                self.tagged.count += rows;
            } else {
                let (rows, is_daily) = (&mut self.index.rows, self.is_daily);
                let branches = &mut self.branches;
                self.index.count += rows::push_names(rows, path, day, version, is_daily, branches);
            }
        }
    }
}

impl Remote for Writer {
    fn add(&mut self, series: SeriesId, name: &str, points: &[Point], received: Timestamp) {
        if self.seen_since.elapsed() >= FORGET {
            self.seen.clear();
            self.seen_since = Instant::now();
        }
        let path = names::to_table(name);
        let mut sorted = std::mem::take(&mut self.sorted);
        let points = match points.is_sorted_by(|a, b| a.at < b.at) {
            true => points,
            false => {
                sorted.clear();
                // The last to arrive is the first of its timestamp here, and stays: the sort is stable.
                sorted.extend(points.iter().rev());
                sorted.sort_by_key(|point| point.at);
                sorted.dedup_by_key(|point| point.at);
                &sorted
            }
        };
        rows::push_points(
            &mut self.points.rows,
            &mut self.head,
            &path,
            points,
            received.0,
        );
        self.points.count += points.len();
        self.add_names(series, name, &path, points);
        self.sorted = sorted;
    }

    fn is_full(&self) -> bool {
        let bytes = self.points.rows.len() + self.index.rows.len() + self.tagged.rows.len();
        let rows = self.points.count.max(self.index.count + self.tagged.count);
        rows >= self.max_rows || bytes >= self.max_bytes
    }

    fn send(&mut self, patience: Duration) -> Result<(), String> {
        let stats = self.client.stats();
        let is_packed = self.is_packed;
        let send = |part: &mut Part| {
            let sent = part.send(&self.client, is_packed, patience);
            if sent.is_err() {
                stats.refused.add(1);
            }
            sent
        };
        let points = send(&mut self.points)?;
        stats.rows.add(points as u64);
        let names = send(&mut self.index)? + send(&mut self.tagged)?;
        stats.index_rows.add(names as u64);
        stats.blocks.add(u64::from(points + names > 0));
        self.known.set(&self.fresh);
        self.fresh.clear();
        self.branches.clear();
        Ok(())
    }

    fn discard(&mut self) {
        for (series, _) in self.fresh.drain(..) {
            known::set(&mut self.seen, series, 0);
        }
        self.branches.clear();
        self.points.clear();
        self.index.clear();
        self.tagged.clear();
    }
}

/// The version of rows of names.
fn now() -> u32 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs() as u32)
}
