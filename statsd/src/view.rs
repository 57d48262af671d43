//! The running interval, as the management interface shows it.

use hashbrown::HashMap;

use crate::aggregate::Book;
use crate::aggregate::timer::Samples;
use crate::inspect::Shown;
use crate::metric::Kind;
use crate::receive::Peeked;

/// Samples that are shown of a timer: what is cut off counts as "more items".
const SHOWN: usize = 10_000;

/// The table of `kind`: names with what they hold now, `peeked` of each intake included.
pub(crate) fn table(
    book: &mut Book,
    epoch: u64,
    kind: Kind,
    peeked: &[Option<Peeked>],
) -> Vec<(String, Shown)> {
    let mut added: HashMap<u32, (f64, bool)> = HashMap::new();
    let mut own = [0.0; 3];
    for (intake, peeked) in peeked.iter().enumerate() {
        let Some(peeked) = peeked else { continue };
        let counts = &peeked.counts;
        for (sum, count) in own
            .iter_mut()
            .zip([counts.packets, counts.lines, counts.bad])
        {
            *sum += count as f64;
        }
        for value in &peeked.values {
            if let Some(row) = book.row_of(intake, value.entry) {
                let entry = added.entry(row).or_default();
                if value.absolute {
                    *entry = (value.value, true);
                } else {
                    entry.0 += value.value;
                }
            }
        }
    }
    for (row, count) in book.own_rows().into_iter().zip(own) {
        added.entry(row).or_default().0 += count;
    }
    if kind == Kind::Timer {
        return timers(book, epoch, peeked);
    }
    let running = peeked.len() == 1;
    book.rows_of(kind)
        .map(|(row, name, value)| {
            let value = match added.get(&row) {
                None => value,
                Some((now, absolute)) if kind == Kind::Gauge && (*absolute || running) => *now,
                Some((now, _)) => value + now,
            };
            (
                String::from_utf8_lossy(name).into_owned(),
                Shown::Number(value),
            )
        })
        .collect()
}

fn timers(book: &mut Book, epoch: u64, peeked: &[Option<Peeked>]) -> Vec<(String, Shown)> {
    let mut slots = 0;
    let mut recent = Samples::default();
    for (intake, peeked) in peeked.iter().enumerate() {
        let Some(peeked) = peeked else { continue };
        for (entry, value) in peeked.samples.entries.iter().zip(&peeked.samples.values) {
            if let Some(row) = book.row_of(intake, *entry) {
                let slot = book.slot_of(row);
                slots = slots.max(slot + 1);
                recent.push(slot, *value);
            }
        }
    }
    let recent = recent.group(slots as usize);
    let grouped = book.group(epoch);
    let shown = book
        .rows_of(Kind::Timer)
        .map(|(row, name, _)| {
            let slot = book.slot_of(row);
            let (values, pile) = grouped.saved(slot);
            let (more, _) = recent.saved(slot);
            let piled = pile.into_iter().flat_map(|pile| {
                pile.weighted()
                    .into_iter()
                    .flat_map(|(value, count)| (0..count).map(move |_| value))
            });
            let items = piled
                .chain(values.iter().copied())
                .chain(more.iter().copied())
                .take(SHOWN)
                .map(Shown::Number)
                .collect();
            (
                String::from_utf8_lossy(name).into_owned(),
                Shown::List(items),
            )
        })
        .collect();
    book.ungroup(epoch, grouped);
    shown
}

/// The names of `kind` that `pattern` means: itself, or with a final `.*` all below that folder.
pub(crate) fn matching(book: &Book, kind: Kind, pattern: &str) -> Vec<Vec<u8>> {
    let folder = pattern.strip_suffix('*').filter(|rest| rest.ends_with('.'));
    book.rows_of(kind)
        .filter(|(_, name, _)| match folder {
            Some(folder) => name.starts_with(folder.as_bytes()),
            None => *name == pattern.as_bytes(),
        })
        .map(|(_, name, _)| name.to_vec())
        .collect()
}
