//! The running interval, as the management interface shows it.

use hashbrown::HashMap;

use crate::aggregate::Book;
use crate::aggregate::timer::Samples;
use crate::inspect::{ITEMS, Shown};
use crate::metric::Kind;
use crate::receive::Peeked;

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
    // Where they are deleted at the flush, those without samples since are gone.
    let deletes = book.deletes(kind);
    book.rows_of(kind)
        .filter(|(row, ..)| !deletes || added.contains_key(row) || book.is_held(*row))
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
    let deletes = book.deletes(Kind::Timer);
    let shown = book
        .rows_of(Kind::Timer)
        .filter_map(|(row, name, _)| {
            let slot = book.slot_of(row);
            let (values, pile) = grouped.saved(slot);
            let (more, _) = recent.saved(slot);
            let piled = pile.into_iter().flat_map(|pile| {
                pile.weighted()
                    .into_iter()
                    .flat_map(|(value, count)| (0..count).map(move |_| value))
            });
            let items: Vec<_> = piled
                .chain(values.iter().copied())
                .chain(more.iter().copied())
                .take(ITEMS)
                .map(Shown::Number)
                .collect();
            if deletes && items.is_empty() && !book.is_held(row) {
                return None;
            }
            let count = pile.map_or(0, |pile| pile.count()) + (values.len() + more.len()) as u64;
            let rest = count.saturating_sub(items.len() as u64) as usize;
            let name = String::from_utf8_lossy(name).into_owned();
            Some((name, Shown::List(items, rest)))
        })
        .collect();
    book.ungroup(epoch, grouped);
    shown
}

/// Whether `pattern` means `name`: it is it, or ends with `.*` and `name` is below that folder.
pub(crate) fn is_meant(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*').filter(|rest| rest.ends_with('.')) {
        Some(folder) => name.starts_with(folder) || name == pattern,
        None => name == pattern,
    }
}
