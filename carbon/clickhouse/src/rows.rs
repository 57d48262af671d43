//! Rows in the format RowBinary, as carbon-clickhouse writes them.

use foldhash::HashSet;
use whisper::Point;

/// The date of rows that hold for every day: 1970-02-12.
const EVERY_DAY: u16 = 42;
/// What is added to the level of a name in the rows with its nodes reversed, those for every day, and both.
const REVERSED: u32 = 10_000;
const TREE: u32 = 20_000;
const REVERSED_TREE: u32 = 30_000;

/// The day of a timestamp, in days since 1970 in UTC.
pub(crate) fn day(seconds: u32) -> u16 {
    // 2^32 seconds are 49,710 days.
    (seconds / 86_400) as u16
}

/// Appends a length as the format has it.
pub(crate) fn push_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Appends a text.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    push_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Appends rows of points: Path, Value, Time, Date, Timestamp. `head` is room for the text.
pub(crate) fn push_points(
    out: &mut Vec<u8>,
    head: &mut Vec<u8>,
    path: &str,
    points: &[Point],
    version: u32,
) {
    head.clear();
    push_text(head, path);
    out.reserve(points.len() * (head.len() + 18));
    for point in points {
        let mut tail = [0; 18];
        tail[..8].copy_from_slice(&point.value.to_le_bytes());
        tail[8..12].copy_from_slice(&point.at.0.to_le_bytes());
        tail[12..14].copy_from_slice(&day(point.at.0).to_le_bytes());
        tail[14..].copy_from_slice(&version.to_le_bytes());
        out.extend_from_slice(head);
        out.extend_from_slice(&tail);
    }
}

fn push_index(out: &mut Vec<u8>, day: u16, level: u32, path: &str, version: u32) {
    out.extend_from_slice(&day.to_le_bytes());
    out.extend_from_slice(&level.to_le_bytes());
    push_text(out, path);
    out.extend_from_slice(&version.to_le_bytes());
}

/// The nodes of `path` in reverse order.
pub(crate) fn reversed(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for node in path.rsplit('.') {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(node);
    }
    out
}

/// Appends rows of the plain name `path`: Date, Level, Path, Version. Returns how many. `branches` has the branches whose
/// rows are in the block.
pub(crate) fn push_names(
    out: &mut Vec<u8>,
    path: &str,
    day: u16,
    version: u32,
    is_daily: bool,
    branches: &mut HashSet<Box<str>>,
) -> usize {
    let level = path.split('.').count() as u32;
    let mut rows = 2;
    push_index(out, EVERY_DAY, TREE + level, path, version);
    let mut end = path.len();
    for above in (1..level).rev() {
        let Some(dot) = path[..end].rfind('.') else {
            break;
        };
        let branch = &path[..=dot];
        if branches.contains(branch) {
            // So are those above it.
            break;
        }
        branches.insert(branch.into());
        push_index(out, EVERY_DAY, TREE + above, branch, version);
        rows += 1;
        end = dot;
    }
    let reversed = reversed(path);
    push_index(out, EVERY_DAY, REVERSED_TREE + level, &reversed, version);
    if is_daily {
        push_index(out, day, level, path, version);
        push_index(out, day, REVERSED + level, &reversed, version);
        rows += 2;
    }
    rows
}

/// Appends rows of a tagged series: Date, Tag1, Path, Tags, Version. Returns how many. `name` is its canonical name,
/// `path` what the tables call it.
pub(crate) fn push_tags(
    out: &mut Vec<u8>,
    name: &str,
    path: &str,
    day: u16,
    version: u32,
) -> usize {
    let tags = carbon::series::tags(name).map(|(tag, value)| match tag {
        "name" => format!("__name__={value}"),
        tag => format!("{tag}={value}"),
    });
    let tags: Vec<String> = tags.collect();
    let mut all = Vec::new();
    push_length(&mut all, tags.len());
    for tag in &tags {
        push_text(&mut all, tag);
    }
    for tag in &tags {
        out.extend_from_slice(&day.to_le_bytes());
        push_text(out, tag);
        push_text(out, path);
        out.extend_from_slice(&all);
        out.extend_from_slice(&version.to_le_bytes());
    }
    tags.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use whisper::Timestamp;

    #[test]
    fn points_are_rows_of_the_table() {
        let points = [Point {
            at: Timestamp(86_400 * 19_000 + 5),
            value: 1.5,
        }];
        let mut out = Vec::new();
        push_points(&mut out, &mut Vec::new(), "a.b", &points, 7);
        let mut expected = b"\x03a.b".to_vec();
        expected.extend(1.5f64.to_le_bytes());
        expected.extend((86_400u32 * 19_000 + 5).to_le_bytes());
        expected.extend(19_000u16.to_le_bytes());
        expected.extend(7u32.to_le_bytes());
        assert_eq!(out, expected);
    }

    #[test]
    fn long_texts_have_a_length_of_two_bytes() {
        let mut out = Vec::new();
        push_text(&mut out, &"x".repeat(300));
        assert_eq!(out[..3], [0xac, 0x02, b'x']);
    }

    /// Rows as (day, level, path, version).
    fn read(mut rows: &[u8]) -> Vec<(u16, u32, String, u32)> {
        let mut read = Vec::new();
        while !rows.is_empty() {
            let (head, rest) = rows.split_at(7);
            let (path, rest) = rest.split_at(usize::from(head[6]));
            let (version, rest) = rest.split_at(4);
            read.push((
                u16::from_le_bytes([head[0], head[1]]),
                u32::from_le_bytes(head[2..6].try_into().unwrap()),
                String::from_utf8(path.to_vec()).unwrap(),
                u32::from_le_bytes(version.try_into().unwrap()),
            ));
            rows = rest;
        }
        read
    }

    #[test]
    fn names_have_their_levels_branches_and_reverses() {
        let mut branches = HashSet::default();
        let mut out = Vec::new();
        let rows = push_names(&mut out, "a.b.c", 19_000, 9, true, &mut branches);
        let row = |day, level, path: &str| (day, level, path.to_owned(), 9);
        let first = [
            row(42, 20_003, "a.b.c"),
            row(42, 20_002, "a.b."),
            row(42, 20_001, "a."),
            row(42, 30_003, "c.b.a"),
            row(19_000, 3, "a.b.c"),
            row(19_000, 10_003, "c.b.a"),
        ];
        assert_eq!((rows, read(&out)), (6, first.to_vec()));
        out.clear();
        let rows = push_names(&mut out, "a.b.d", 19_000, 9, false, &mut branches);
        let second = [row(42, 20_003, "a.b.d"), row(42, 30_003, "d.b.a")];
        assert_eq!(
            (rows, read(&out)),
            (2, second.to_vec()),
            "the branches are there"
        );
    }

    #[test]
    fn tagged_series_have_a_row_for_each_tag() {
        let mut out = Vec::new();
        let rows = push_tags(&mut out, "m;a=1 2", "m?a=1+2", 3, 9);
        let row = |tag: &str| {
            let mut row = vec![3, 0, tag.len() as u8];
            row.extend(tag.as_bytes());
            row.extend(b"\x07m?a=1+2\x02\x0a__name__=m\x05a=1 2");
            row.extend(9u32.to_le_bytes());
            row
        };
        assert_eq!(rows, 2);
        assert_eq!(out, [row("__name__=m"), row("a=1 2")].concat());
    }
}
