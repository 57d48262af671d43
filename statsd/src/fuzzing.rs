//! What the fuzz targets call: the whole path from a packet to flushed lines.

mod state;
mod stream;

pub use state::state;
pub use stream::stream;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel;

use crate::aggregate::Aggregator;
use crate::aggregate::flush::FlushInput;
use crate::number;
use crate::options::Options;
use crate::output::remote::Remote;
use crate::output::{Destinations, Outputs};
use crate::population::Population;
use crate::raw::simd::Path;
use crate::receiver::{Channels, Receiver};
use crate::report::{CommandQueue, Contents, Shared};
use crate::server::receiver_options;
use crate::token::MARGIN;

/// Takes `packet` with each set of instructions, whole and cut at its line feeds, and asserts that
/// the flushes are equal and that every line of them is one that carbon understands.
pub fn packet(packet: &[u8]) {
    let whole = flushed(&[packet], Path::Scalar);
    assert_eq!(flushed(&[packet], Path::detect()), whole);
    let lines: Vec<&[u8]> = packet.split(|byte| *byte == b'\n').collect();
    assert_eq!(flushed(&lines, Path::detect()), whole);
}

/// Lines of the flush, sorted; without self metrics and times.
fn flushed(packets: &[&[u8]], path: Path) -> (Vec<String>, Vec<(&'static str, u64)>) {
    let options = Options::default();
    let shared = Arc::new(Shared::default());
    let (reports_in, reports) = channel::unbounded();
    let (events, _events) = channel::unbounded();
    let channels = Channels {
        shared: shared.clone(),
        commands: Arc::new(CommandQueue::default()),
        reports: reports_in,
        events: Some(events),
        repeater: None,
        population: Arc::new(Population::default()),
    };
    let mut made = receiver_options(&options, 0, 1);
    made.path = path;
    let mut receiver = Receiver::new(made, channels).expect("memory");
    for packet in packets {
        let mut bytes = vec![b':'; MARGIN];
        bytes.extend_from_slice(packet);
        let end = bytes.len();
        bytes.resize(end + MARGIN, b'|');
        receiver.packet(&bytes, MARGIN..end, None);
        receiver.apply(&bytes);
    }
    shared.epoch.fetch_add(1, Ordering::SeqCst);
    receiver.step();
    while receiver.is_sweeping() {
        receiver.step();
    }
    let text = Remote::new("nowhere:1".to_owned(), 1 << 30, Duration::ZERO);
    let destinations = Destinations {
        sink: None,
        text: vec![text.clone()],
        pickle: Vec::new(),
        console: None,
        patience: Duration::ZERO,
    };
    let mut outputs = Outputs::new(destinations, shared.clone());
    let stats = &shared.stats;
    let mut aggregator = Aggregator::new(&options, 1, false, 0, || {}).expect("memory");
    while let Ok(mut report) = reports.try_recv() {
        if let Contents::Points(points) = &mut report.contents {
            // Those without a time of their own have the clock's.
            points.retain(|point| point.at < 1.6e9);
        }
        aggregator.take(report, &mut outputs, stats);
    }
    let input = FlushInput {
        epoch: 0,
        interval_end_ms: 1_500_000_000_000,
        intervals: 1,
        bad_lines: Vec::new(),
        clock: || Duration::ZERO,
    };
    aggregator.flush(&input, &mut outputs, stats);
    let text = String::from_utf8(text.take_all()).expect("lines are UTF-8");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in &lines {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words.len(), 3, "{line:?}");
        let value = number::decimal(words[1].as_bytes());
        assert!(value.is_some(), "{line:?}");
    }
    lines.sort();
    (lines, shared.stats.bad_lines_by_reason())
}
