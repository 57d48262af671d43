//! Series and how they are laid out in a format, ready to be written.

use std::fmt::Debug;
use std::ops::Range;

use super::buffer::Buffer;
use crate::budget::Budget;
use crate::error::Result;
use crate::series::Series;

/// A format: parts, each with a head, rows and a tail, between a beginning and an end. A part is
/// a series, unless the format says otherwise.
///
/// The methods that write are handed a vector with room for what they announced.
pub(crate) trait Layout: Debug + Send + Sync {
    /// How many parts there are.
    fn n_parts(&self, all: &[Series]) -> usize {
        all.len()
    }

    /// How many rows a part has; usually one for each value.
    fn n_rows(&self, all: &[Series], part: usize) -> usize {
        all[part].values.len()
    }

    /// The most bytes that the beginning, or the end, takes.
    fn edge_room(&self) -> usize {
        64
    }

    /// The most bytes that the head of a part, or its tail, takes.
    fn head_room(&self, all: &[Series], part: usize) -> usize;

    /// The most bytes that a record of a part takes.
    fn row_room(&self, all: &[Series], part: usize) -> usize;

    /// The bytes that a record usually takes.
    fn row_usual(&self, all: &[Series], part: usize) -> usize {
        self.row_room(all, part)
    }

    /// The least bytes that a record takes.
    fn row_least(&self, all: &[Series], part: usize) -> usize;

    fn begin(&self, _: &mut Vec<u8>) {}

    fn head(&self, _: &[Series], _: usize, _: &mut Vec<u8>) {}

    /// Some of the rows, after others of the part or (`first`) before all that are shown. Says
    /// whether the next one is still the first. Without its own a format has values with nothing
    /// between them.
    fn rows(
        &self,
        all: &[Series],
        part: usize,
        rows: Range<usize>,
        _first: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        for &value in &all[part].values[rows] {
            self.value(value, out);
        }
        false
    }

    /// A value, in a format whose rows are values and nothing else.
    fn value(&self, _: f64, _: &mut Vec<u8>) {}

    fn tail(&self, _: &[Series], _: usize, _: &mut Vec<u8>) {}

    fn end(&self, _: &mut Vec<u8>) {}
}

/// Writes rows with a comma before each but the first of all, and says whether the next one is the
/// first: for [`Layout::rows`].
pub(crate) fn with_commas(
    rows: Range<usize>,
    first: bool,
    out: &mut Vec<u8>,
    mut write: impl FnMut(usize, &mut Vec<u8>),
) -> bool {
    let mut first = first;
    for index in rows {
        if !first {
            out.push(b',');
        }
        first = false;
        write(index, out);
    }
    first
}

/// The most bytes of a text as a string of JSON.
pub(crate) fn text_room(text: &str) -> usize {
    6 * text.len() + 2
}

/// Series in a format.
#[derive(Debug)]
pub struct Document {
    series: Vec<Series>,
    layout: Box<dyn Layout>,
    /// What stands around it: the call of JSONP.
    before: Vec<u8>,
    after: Vec<Buffer>,
}

/// How far a document has been written.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    stage: Stage,
    part: usize,
    record: usize,
    first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Head,
    Rows,
    Tail,
    End,
    Done,
}

impl Position {
    /// Before the first byte.
    pub const START: Self = Self {
        stage: Stage::Begin,
        part: 0,
        record: 0,
        first: true,
    };

    /// After the last byte.
    pub fn is_end(&self) -> bool {
        self.stage == Stage::Done
    }
}

/// Rows are written in blocks of at most so many, and so many bytes: the clock is read between.
const BLOCK_ROWS: usize = 1_024;
const BLOCK_BYTES: usize = 32 * 1024;

impl Document {
    pub(crate) fn new(series: Vec<Series>, layout: impl Layout + 'static) -> Self {
        Self {
            series,
            layout: Box::new(layout),
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    /// The same between a few words and another text.
    pub fn within(mut self, before: &[u8], after: Buffer) -> Self {
        self.before = [before, &self.before].concat();
        self.after.push(after);
        self
    }

    fn after_size(&self) -> usize {
        self.after.iter().map(|text| text.len()).sum()
    }

    fn parts(&self) -> Range<usize> {
        0..self.layout.n_parts(&self.series)
    }

    fn total(&self, head: impl Fn(usize) -> usize, record: impl Fn(usize) -> usize) -> u64 {
        let edges = self.before.len() + self.after_size();
        let parts = self.parts().map(|part| {
            let rows = self.layout.n_rows(&self.series, part) as u64;
            (head(part) as u64).saturating_add(rows.saturating_mul(record(part) as u64))
        });
        parts.fold(edges as u64, u64::saturating_add)
    }

    /// About how many bytes it has.
    pub fn usual_size(&self) -> u64 {
        let Self { series, layout, .. } = self;
        self.total(
            |part| layout.head_room(series, part) / 3 + 64,
            |part| layout.row_usual(series, part),
        )
    }

    /// No document of these series has fewer bytes.
    pub fn least_size(&self) -> u64 {
        self.total(|_| 0, |part| self.layout.row_least(&self.series, part))
    }

    /// The most bytes that are written at once: a chunk may be so much longer than asked for.
    pub fn largest_piece(&self) -> usize {
        let edge = self.layout.edge_room() + self.before.len().max(self.after_size());
        let part = |part| {
            let record = self.layout.row_room(&self.series, part);
            let head = self.layout.head_room(&self.series, part);
            head.max(record).max(BLOCK_BYTES)
        };
        self.parts().map(part).fold(edge, usize::max)
    }

    /// Writes on from `at` until `out` has at least `until` bytes, or to the end.
    ///
    /// # Errors
    /// As `check`, which is called every some thousand bytes, and as [`Buffer::room`].
    pub fn write(
        &self,
        at: &mut Position,
        out: &mut Buffer,
        until: usize,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let Self {
            series,
            layout,
            before,
            after,
        } = self;
        let n_parts = layout.n_parts(series);
        while !at.is_end() && out.len() < until {
            match at.stage {
                Stage::Begin => {
                    let out = out.room(before.len() + layout.edge_room())?;
                    out.extend_from_slice(before);
                    layout.begin(out);
                    at.stage = if n_parts > 0 { Stage::Head } else { Stage::End };
                }
                Stage::Head => {
                    check()?;
                    layout.head(
                        series,
                        at.part,
                        out.room(layout.head_room(series, at.part))?,
                    );
                    (at.record, at.first) = (0, true);
                    at.stage = Stage::Rows;
                }
                Stage::Rows => {
                    let n_rows = layout.n_rows(series, at.part);
                    let room = layout.row_room(series, at.part).max(1);
                    let block = (BLOCK_BYTES / room).clamp(1, BLOCK_ROWS);
                    while at.record < n_rows && out.len() < until {
                        check()?;
                        let rows = at.record..n_rows.min(at.record + block);
                        let out = out.room(room.saturating_mul(rows.len()))?;
                        at.record = rows.end;
                        at.first = layout.rows(series, at.part, rows, at.first, out);
                    }
                    if at.record >= n_rows {
                        at.stage = Stage::Tail;
                    }
                }
                Stage::Tail => {
                    layout.tail(
                        series,
                        at.part,
                        out.room(layout.head_room(series, at.part))?,
                    );
                    at.part += 1;
                    at.stage = if at.part < n_parts {
                        Stage::Head
                    } else {
                        Stage::End
                    };
                }
                Stage::End => {
                    let out = out.room(self.after_size() + layout.edge_room())?;
                    layout.end(out);
                    for text in after {
                        out.extend_from_slice(text);
                    }
                    at.stage = Stage::Done;
                }
                Stage::Done => {}
            }
        }
        Ok(())
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`Budget::check`] and [`Budget::reserve`].
    pub fn whole(&self, budget: &Budget) -> Result<Buffer> {
        let mut out = Buffer::new(budget);
        // Moving a few megabytes as they grow would be felt. The memory is reserved here, so that
        // a wrong guess is refused like any other size.
        let guess = usize::try_from(self.usual_size()).unwrap_or(usize::MAX);
        out.room(guess)?;
        let mut at = Position::START;
        self.write(&mut at, &mut out, usize::MAX, || budget.check())?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Memory;
    use crate::error::Error;
    use crate::format::json::Choice;
    use crate::format::{self, Wanted};
    use jiff::tz::TimeZone;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::Instant;
    use whisper::ABSENT;

    const FORMATS: [&str; 9] = [
        "json",
        "json present",
        "json pretty",
        "rickshaw",
        "dygraph",
        "csv",
        "raw",
        "pickle",
        "msgpack",
    ];

    fn document(format: &str, all: Vec<Series>) -> Document {
        let (name, variant) = format.split_once(' ').unwrap_or((format, ""));
        let wanted = Wanted {
            choice: Choice {
                only_present: variant == "present",
                pretty: variant == "pretty",
                ..Choice::default()
            },
            zone: &TimeZone::UTC,
        };
        let format = format::named(name).unwrap();
        (format.document)(all, &wanted, &Budget::unlimited()).unwrap()
    }

    #[test]
    fn every_format_of_the_table_is_tested() {
        for format in format::FORMATS {
            assert!(FORMATS.contains(&format.name), "{}", format.name);
        }
        assert!(format::FORMATS.is_sorted_by_key(|format| format.name));
    }

    fn many(n_series: usize, n_points: i64) -> Vec<Series> {
        let values: Vec<f64> = (0..n_points).map(|n| n as f64 / 8.0).collect();
        let series = Series::new("many", 0, 60 * n_points, 60, values.into());
        vec![series; n_series]
    }

    fn memory(limit: u64) -> (Arc<Memory>, Budget) {
        let memory = Memory::new(limit);
        (Arc::clone(&memory), Budget::new(memory, None))
    }

    #[test]
    fn what_does_not_fit_is_refused_in_every_format() {
        for format in FORMATS {
            let document = document(format, many(10, 10_000));
            let (memory, budget) = memory(100_000);
            let refused = document.whole(&budget).unwrap_err();
            assert!(
                matches!(refused, Error::Limit { key, .. } if key == "render.max_memory"),
                "{format}: {refused}"
            );
            assert_eq!(memory.used(), 0, "{format}");
        }
    }

    #[test]
    fn writing_ends_with_the_time_and_with_the_client() {
        for format in FORMATS {
            let document = document(format, many(10, 10_000));
            let late = Budget::new(Memory::new(0), Some(Instant::now()));
            while late.check().is_ok() {
                std::hint::spin_loop();
            }
            assert!(
                matches!(document.whole(&late), Err(Error::Timeout)),
                "{format}"
            );
            // In the middle, too.
            let (_, budget) = memory(0);
            let mut checks = 0;
            let mut at = Position::START;
            let mut out = Buffer::new(&budget);
            let ended = document.write(&mut at, &mut out, usize::MAX, || {
                checks += 1;
                if checks > 5 {
                    Err(Error::Cancelled)
                } else {
                    Ok(())
                }
            });
            assert!(matches!(ended, Err(Error::Cancelled)), "{format}");
            assert!(out.len() < 6 * BLOCK_BYTES, "{format}: {}", out.len());
        }
    }

    #[test]
    fn sizes_are_bounds() {
        let mut all = many(3, 5_000);
        all[0].name = "\u{1}\"".repeat(50);
        all[1].values = [ABSENT, -1.797_693_134_862_315_7e308, -5e-324, 1e16, 1e-5]
            .repeat(1_000)
            .into();
        all[2].start = -62_135_596_800;
        all[2].end = all[2].start + 60 * 5_000;
        for format in FORMATS {
            let document = document(format, all.clone());
            let (_, budget) = memory(0);
            let whole = document.whole(&budget).unwrap();
            assert!(document.least_size() <= whole.len() as u64, "{format}");
            // Each piece fits into the room that it announced: nothing grew beside it.
            let mut at = Position::START;
            while !at.is_end() {
                let mut chunk =
                    Buffer::prepaid(1 + document.largest_piece(), budget.clone()).unwrap();
                let before = chunk.as_ptr();
                document.write(&mut at, &mut chunk, 1, || Ok(())).unwrap();
                assert_eq!(chunk.as_ptr(), before, "{format}");
            }
        }
    }

    proptest! {
        #[test]
        fn chunks_add_up_to_the_whole(
            shapes in prop::collection::vec((0..40_usize, 0..3_u8, "[a-z\"é]{0,5}"), 0..4),
            chunk in 1..400_usize,
        ) {
            let all: Vec<Series> = shapes
                .iter()
                .map(|(n, absent, name)| {
                    let values: Vec<f64> = (0..*n)
                        .map(|i| if i % 3 < usize::from(*absent) { ABSENT } else { i as f64 })
                        .collect();
                    Series::new(name.as_str(), 60, 60 + 60 * *n as i64, 60, values.into())
                })
                .collect();
            let (_, budget) = memory(0);
            for format in FORMATS {
                let mut after = Buffer::new(&budget);
                after.push_str(")").unwrap();
                let document = document(format, all.clone()).within(b"call(", after);
                let whole = document.whole(&budget).unwrap();
                let (mut at, mut parts) = (Position::START, Vec::new());
                while !at.is_end() {
                    let mut out = Buffer::new(&budget);
                    document.write(&mut at, &mut out, chunk, || Ok(())).unwrap();
                    parts.extend_from_slice(&out);
                }
                prop_assert_eq!(&parts[..], &whole[..], "{}", format);
            }
        }
    }
}
