//! The points of a series, from file and cache.

use std::path::Path;
use std::time::UNIX_EPOCH;

use whisper::{Aggregation, Arrival, CreateOptions, Needed, Point, Question, Retention, Timestamp};

use super::carbon::Carbon;
use crate::datapoint::SeriesId;
use crate::error::Result;
use crate::schema::New;

/// The key of a map for a series that has no id: no id is as large, and so no map is found.
const NO_MAP: u32 = u32::MAX;

/// The points of a series over a range.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// Range, step and values.
    pub points: whisper::Fetched,
    /// The aggregation of the file.
    pub aggregation: Aggregation,
    /// The share of known points that it takes to make a coarser one, 0 to 1.
    pub x_files_factor: f32,
}

/// The layout of a series' file, or of the file that it will get.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// The archives, finest first.
    pub retentions: Vec<Retention>,
    /// The aggregation of the file.
    pub aggregation: Aggregation,
    /// The share of known points that it takes to make a coarser one, 0 to 1.
    pub x_files_factor: f32,
}

impl Carbon {
    /// The points of the series called `name` in `(from, until]`, from file and cache; the clock `now`
    /// decides on archive and range. `None` if there is no such series, or if no part of the range is
    /// between `now` and the end of the file's retention. If the file is damaged or cannot be read, that is
    /// counted and logged, and the answer has the points of the cache only.
    ///
    /// # Errors
    /// The range ends before it begins.
    pub fn fetch(
        &self,
        name: &str,
        from: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Fetched>> {
        let inner = &*self.0;
        let Ok(canonical) = crate::series::canonical(name.as_bytes()) else {
            return Ok(None);
        };
        let _pin = inner.index.pin();
        let known = inner.index.names().get(canonical.as_bytes());
        inner.stats.queries.add(u64::from(known.is_some()));
        let clock = inner.clocks().earliest();
        let waiting = |needed: Option<Needed>| {
            let (mut points, mut since) = (Vec::new(), clock);
            if let Some(id) = known {
                since = inner.cache.read_needed(id, needed, &mut points).min(clock);
            }
            (Arrival { since, now: clock }, points)
        };
        let question = Question { now, from, until };
        let path = inner.index.path_of(known, &canonical);
        let key = known.map_or(NO_MAP, |id| id.0);
        // The cache first, the points of the file second: a point that moves meanwhile is seen twice, not never.
        let ask = || {
            let maps = &inner.maps;
            maps.fetch_pending(key, &path, question, clock, waiting)
        };
        let unwritten = || {
            let (arrival, points) = waiting(None);
            self.fetch_unwritten(&canonical, known, &path, question, (arrival, &points))
        };
        let mut answer = ask();
        let mut of_cache = None;
        if answer.as_ref().is_err_and(whisper::Error::is_missing) {
            of_cache = Some(unwritten()?);
            // Points are in a file before they leave the cache: without a file, the cache had them all.
            if path.exists() {
                answer = ask();
            }
        }
        match answer {
            Ok((points, aggregation, x_files_factor)) => Ok(points.map(|points| Fetched {
                points,
                aggregation,
                x_files_factor,
            })),
            Err(error) if error.is_missing() => of_cache.map_or_else(unwritten, Ok),
            Err(error) if is_unreadable(&error) => {
                self.leave_out(&error);
                unwritten()
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts an answer without its file, and logs each file once.
    fn leave_out(&self, damage: &whisper::Error) {
        const REMEMBERED: usize = 1_024;
        let inner = &*self.0;
        inner.stats.left_out.add(1);
        let damage = damage.to_string();
        let mut known = inner.left_out.lock();
        if known.len() < REMEMBERED && known.insert(damage.clone()) {
            tracing::warn!(%damage, "a file is left out of answers");
        }
    }

    /// The answer for a series whose file has not been created yet.
    fn fetch_unwritten(
        &self,
        name: &str,
        known: Option<SeriesId>,
        path: &Path,
        question: Question,
        (arrival, waiting): (Arrival, &[Point]),
    ) -> Result<Option<Fetched>> {
        if waiting.is_empty() {
            return Ok(None);
        }
        let options = self.assumed(name, known, path, waiting);
        let points = whisper::fetch_unwritten(&options, question, arrival, waiting)?;
        Ok(points.map(|points| Fetched {
            points,
            aggregation: options.aggregation,
            x_files_factor: options.x_files_factor as f32,
        }))
    }

    /// What a file is assumed to be like that is still to be created for the points `waiting`.
    fn assumed(
        &self,
        name: &str,
        known: Option<SeriesId>,
        path: &Path,
        waiting: &[Point],
    ) -> CreateOptions {
        let schema = &self.0.schema;
        let new = New {
            name,
            directory: path.parent().unwrap_or(&self.0.root),
            points: waiting,
            interval: known.and_then(|id| schema.known.get(id)),
        };
        schema.choose_now(new).options
    }

    /// The layout of the file of the series called `name`; while its first points wait in the
    /// cache, the layout that its file will get. `None` if there is no such series, or if its file
    /// is damaged or cannot be read.
    ///
    /// # Errors
    /// The header cannot be understood.
    pub fn info(&self, name: &str) -> Result<Option<Info>> {
        let inner = &*self.0;
        let Ok(canonical) = crate::series::canonical(name.as_bytes()) else {
            return Ok(None);
        };
        let _pin = inner.index.pin();
        let known = inner.index.names().get(canonical.as_bytes());
        let waits = known.is_some_and(|id| inner.cache.holds(id));
        let path = inner.index.path_of(known, &canonical);
        match whisper::Header::read(&path) {
            Ok(header) => Ok(Some(Info {
                retentions: header.retentions(),
                aggregation: header.aggregation,
                x_files_factor: header.x_files_factor,
            })),
            Err(error) if error.is_missing() || is_unreadable(&error) => {
                if !waits {
                    return Ok(None);
                }
                let mut waiting = Vec::new();
                if let Some(id) = known {
                    inner.cache.read(id, &mut waiting);
                }
                let mut options = self.assumed(&canonical, known, &path, &waiting);
                options.retentions.sort_by_key(|retention| retention.step);
                Ok(Some(Info {
                    retentions: options.retentions,
                    aggregation: options.aggregation,
                    x_files_factor: options.x_files_factor as f32,
                }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The range in which the series called `name` may have points: from `now` less its retention up to the
    /// last change of its file, or up to `now` while points wait in the cache. `None` if there is no such
    /// series, or if its file is damaged or cannot be read.
    ///
    /// # Errors
    /// The header cannot be understood.
    pub fn reach(&self, name: &str, now: Timestamp) -> Result<Option<(Timestamp, Timestamp)>> {
        let inner = &*self.0;
        let Ok(canonical) = crate::series::canonical(name.as_bytes()) else {
            return Ok(None);
        };
        let _pin = inner.index.pin();
        let known = inner.index.names().get(canonical.as_bytes());
        let waits = known.is_some_and(|id| inner.cache.holds(id));
        let path = inner.index.path_of(known, &canonical);
        let since = |retention: u32| Timestamp(now.0.saturating_sub(retention));
        match whisper::Header::read(&path) {
            Ok(header) => {
                let start = since(header.max_retention());
                let changed = std::fs::metadata(&path).and_then(|meta| meta.modified());
                let changed = changed
                    .ok()
                    .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let end = match changed {
                    Some(changed) if !waits => Timestamp(changed.as_secs() as u32),
                    _ => now,
                };
                Ok(Some((start, end.max(start))))
            }
            Err(error) if error.is_missing() || is_unreadable(&error) => {
                Ok(waits.then(|| (since(inner.schema.longest_retention()), now)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the answer leaves the file out: it is damaged or cannot be read.
fn is_unreadable(error: &whisper::Error) -> bool {
    error.is_damage() || matches!(error, whisper::Error::Io { .. })
}
