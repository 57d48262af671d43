//! Saved state: what is read is saved again and then read whole, and what is refused changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::aggregate::Aggregator;
use crate::aggregate::flush::FlushInput;
use crate::options::Options;
use crate::output::remote::Remote;
use crate::output::{Destinations, Outputs};
use crate::report::Shared;
use crate::state::{Extent, load, save};

/// Reads `text` as saved state.
///
/// # Panics
/// It is refused and changes what is flushed, or is taken and saved as something else.
pub fn state(text: &[u8]) {
    let path = PathBuf::from(format!(
        "/dev/shm/plumbago-fuzz-state-{}",
        std::process::id()
    ));
    std::fs::write(&path, text).expect("a file");
    let mut read = aggregator();
    if load(&path, &mut read, 0).is_err() {
        assert_eq!(std::fs::read(&path).expect("it stays"), text);
        assert_eq!(
            flushed(read),
            flushed(aggregator()),
            "refused, and still there"
        );
        return;
    }
    save(&path, &mut read, 0, Extent::All).expect("it is saved");
    let first = std::fs::read(&path).expect("it was saved");
    let mut again = aggregator();
    let whole = load(&path, &mut again, 0).expect("what was saved is read");
    assert_eq!(whole.map(|restored| restored.unread), Some(0));
    save(&path, &mut again, 0, Extent::All).expect("it is saved");
    let second = std::fs::read(&path).expect("it was saved");
    assert_eq!(words(&first), words(&second));
    let mut last = aggregator();
    load(&path, &mut last, 0).expect("what was saved is read");
    flushed(last);
}

fn aggregator() -> Aggregator {
    Aggregator::new(&Options::default(), 1, false, 0, || {}).expect("memory")
}

/// Lines by their words. Samples and members come in any order.
fn words(saved: &[u8]) -> Vec<Vec<String>> {
    let text = String::from_utf8_lossy(saved);
    let sorted = text.lines().map(|line| {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if let Some(values) = words.get_mut(3..) {
            values.sort();
        }
        words
    });
    sorted.collect()
}

/// The lines of a flush, sorted.
fn flushed(mut aggregator: Aggregator) -> Vec<String> {
    let shared = Arc::new(Shared::default());
    let text = Remote::new("nowhere:1".to_owned(), 1 << 30, Duration::ZERO);
    let destinations = Destinations {
        sink: None,
        text: vec![text.clone()],
        pickle: Vec::new(),
        console: None,
        patience: Duration::ZERO,
    };
    let mut outputs = Outputs::new(destinations, shared.clone());
    let input = FlushInput {
        epoch: 0,
        interval_end_ms: 1_500_000_000_000,
        intervals: 1,
        bad_lines: Vec::new(),
        clock: || Duration::ZERO,
    };
    aggregator.flush(&input, &mut outputs, &shared.stats);
    let text = String::from_utf8(text.take_all()).expect("lines are UTF-8");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
