//! What the fuzz targets call: the whole way from a packet to flushed lines.

mod state;
mod stream;

pub use state::state;
pub use stream::stream;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel;

use crate::aggregate::{Book, Moment};
use crate::number;
use crate::options::Options;
use crate::output::remote::Remote;
use crate::output::{Fan, Outputs};
use crate::population::Population;
use crate::raw::simd::Path;
use crate::receive::{Intake, Mailbox, Outlets, Shared, What};
use crate::server::intake_options;
use crate::token::MARGIN;

/// Takes `packet` with each set of instructions, whole and cut at its line feeds, and asserts that
/// the flushes are equal and that every line of them is one that carbon understands.
pub fn packet(packet: &[u8]) {
    let whole = flushed(&[packet], Path::Scalar);
    assert_eq!(flushed(&[packet], Path::detect()), whole);
    let lines: Vec<&[u8]> = packet.split(|byte| *byte == b'\n').collect();
    assert_eq!(flushed(&lines, Path::detect()), whole);
}

/// Lines of the flush, sorted; names of our own metrics and times left out.
fn flushed(packets: &[&[u8]], path: Path) -> (Vec<String>, Vec<(&'static str, u64)>) {
    let options = Options::default();
    let shared = Arc::new(Shared::default());
    let (reports_in, reports) = channel::unbounded();
    let (marks, _marks) = channel::unbounded();
    let outlets = Outlets {
        shared: shared.clone(),
        mailbox: Arc::new(Mailbox::default()),
        reports: reports_in,
        marks: Some(marks),
        repeater: None,
        population: Arc::new(Population::default()),
    };
    let mut made = intake_options(&options, 0, 1);
    made.path = path;
    let mut intake = Intake::new(made, outlets).expect("memory");
    for packet in packets {
        let mut bytes = vec![b':'; MARGIN];
        bytes.extend_from_slice(packet);
        let end = bytes.len();
        bytes.resize(end + MARGIN, b'|');
        intake.packet(&bytes, MARGIN..end, None);
        intake.settle(&bytes);
    }
    shared.epoch.fetch_add(1, Ordering::SeqCst);
    intake.step();
    while intake.is_sweeping() {
        intake.step();
    }
    let text = Remote::new("nowhere:1".to_owned(), 1 << 30, Duration::ZERO);
    let outputs = Outputs {
        sink: None,
        text: vec![text.clone()],
        pickle: Vec::new(),
        console: None,
        patience: Duration::ZERO,
    };
    let mut fan = Fan::new(outputs, shared.clone());
    let mut book = Book::new(&options, 1, false, 0).expect("memory");
    while let Ok(report) = reports.try_recv() {
        match report.what {
            What::Names(names) => book.learn(0, &names),
            What::Values(values) => book.values(0, &values, &shared.stats),
            What::Samples(samples) => book.samples(0, report.epoch, &samples, &shared.stats),
            What::Members(members) => book.members(0, members),
            What::Points(points) => {
                // Those without a time of their own carry the clock's.
                let mut points = points;
                points.retain(|point| point.at < 1.6e9);
                book.points(&points, &mut fan);
            }
            _ => {}
        }
    }
    let moment = Moment {
        end_ms: 1_500_000_000_000,
    };
    book.flush(0, moment, &mut fan, &shared.stats);
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
