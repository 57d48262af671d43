//! What docs/carbon.md says of input, written down in the plainest way; and the list there of the
//! recordings that are not taken as carbon takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use carbon::protocol::At as When;
use carbon::protocol::number;
use carbon::protocol::pickle::{Machine, Value};

use crate::recorded::{At, Point};

/// The longest line.
const MAX_LINE: usize = 64 << 10;

/// The point of a name, a timestamp and a value; `None` if one of them is refused.
fn point(name: &[u8], at: When, value: f64) -> Option<Point> {
    let name = carbon::series::canonical(name).ok()?;
    value.is_finite().then(|| Point {
        name: name.as_bytes().to_vec(),
        at: match at {
            When::Now => At::Now,
            When::Time(at) => At::Seconds(f64::from(at.timestamp().0)),
        },
        value,
    })
}

/// The points of lines. A last line without its end counts only if it `ends`: in a datagram.
pub(crate) fn lines(bytes: &[u8], ends: bool) -> Vec<Point> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    if !ends {
        lines.pop();
    }
    lines.into_iter().filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Point> {
    let is_blank = |byte: &u8| b" \t\r\x0b\x0c".contains(byte);
    let start = line.iter().position(|byte| !is_blank(byte))?;
    let (name, rest) = line[start..].split_at(
        line[start..]
            .iter()
            .position(|byte| b" \t".contains(byte))?,
    );
    let fields = rest.split(is_blank).filter(|field| !field.is_empty());
    let [value, at] = fields.collect::<Vec<_>>()[..] else {
        return None;
    };
    if line.len() > MAX_LINE {
        return None;
    }
    point(name, number::timestamp(at)?, number::finite(value)?)
}

/// The points of frames of pickles.
pub(crate) fn pickles(bytes: &[u8], max_frame: usize) -> Vec<Point> {
    let mut machine = Machine::default();
    let mut points = Vec::new();
    let mut rest = bytes;
    while let Some((header, after)) = rest.split_first_chunk() {
        let len = u32::from_be_bytes(*header) as usize;
        let Some((frame, after)) = after.split_at_checked(len).filter(|_| len <= max_frame) else {
            break;
        };
        rest = after;
        let Ok(whole) = machine.read(frame) else {
            continue;
        };
        let items: Vec<Value> = match (machine.members(whole), machine.elements(whole)) {
            (Some(items), _) => items.to_vec(),
            (None, Some(items)) => items.collect(),
            (None, None) => continue,
        };
        points.extend(
            items
                .into_iter()
                .filter_map(|one| item(one, &machine, frame)),
        );
    }
    points
}

fn item(item: Value, machine: &Machine, frame: &[u8]) -> Option<Point> {
    let &[name, pair] = machine.members(item)? else {
        return None;
    };
    let &[at, value] = machine.members(pair)? else {
        return None;
    };
    let number = |value| match value {
        Value::Int(integer) => Some(integer as f64),
        Value::Float(float) => Some(float),
        Value::Bool(bool) => Some(f64::from(u8::from(bool))),
        Value::Bytes(_) => {
            let bytes = machine.text_or_bytes(value, frame)?;
            bytes.is_ascii().then(|| number::finite(bytes))?
        }
        value => number::finite(machine.text(value, frame)?),
    };
    let at = When::seconds(number(at)?)?;
    point(machine.text(name, frame)?, at, number(value)?)
}

/// The names of cases by recording and quirk.
pub(crate) type Deviations = BTreeMap<(String, String), BTreeSet<String>>;

/// The cases of `recording` that docs/carbon.md lists.
pub(crate) fn listed(recording: &str) -> Deviations {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/carbon.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, table) = text
        .split_once("| recording | behaviour of carbon | cases |\n")
        .unwrap();
    let lines = table.lines().take_while(|line| line.starts_with('|'));
    let cells = lines.map(|line| {
        line.trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect::<Vec<_>>()
    });
    cells
        .filter(|cells| cells[0] == recording)
        .map(|cells| {
            let names = cells[2].split('`').skip(1).step_by(2);
            let key = (cells[0].to_owned(), cells[1].to_owned());
            (key, names.map(str::to_owned).collect())
        })
        .collect()
}

/// The table of docs/carbon.md, for a failed comparison.
pub(crate) fn table(found: &Deviations) -> String {
    let lines = found.iter().map(|((recording, quirk), names)| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        format!("| {recording} | {quirk} | {} |\n", names.join(", "))
    });
    lines.collect()
}

/// Holds what deviates against the list in docs/carbon.md; not for recordings of another directory.
pub(crate) fn check(recording: &str, found: &Deviations) {
    if std::env::var_os("PLUMBAGO_GOLDEN").is_none() {
        let (found, listed) = (table(found), table(&listed(recording)));
        assert!(found == listed, "docs/carbon.md should list:\n{found}");
    }
}
