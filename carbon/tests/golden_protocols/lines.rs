//! Lines over TCP, in pieces, and in datagrams.

use carbon::protocol::{Resolver, line};
use serde_json::Value;

use crate::documented::{self, check};
use crate::golden::recording;
use crate::recorded::{NOW, Point, Receiver, Replayed, parts, points, quirk, storable};

#[test]
fn golden_lines() {
    let cases = recording("carbon-lines");
    assert!(!cases.is_empty());
    let mut replayed = Replayed::default();
    for case in &cases {
        let over = [("tcp", tcp as fn(&Value) -> _), ("udp", udp)];
        for (way, replay) in over.iter().filter(|(way, _)| case.get(way).is_some()) {
            replayed.note(&format!("lines over {way}"), case, replay(case));
        }
    }
    let deviations = replayed.deviations(cases.len());
    for way in ["lines over tcp", "lines over udp"] {
        let mut found = deviations.clone();
        found.retain(|(recording, _), _| recording == way);
        check(way, &found);
    }
}

fn chunks(case: &Value) -> Vec<Vec<u8>> {
    let chunks = case["in"].as_array().unwrap().iter();
    let plain = |text: &str| text.as_bytes().to_vec();
    chunks.map(|chunk| parts(chunk, plain)).collect()
}

/// Whether the points of a case over TCP are those that carbon takes.
fn tcp(case: &Value) -> Result<bool, String> {
    let mut receiver = Receiver::new();
    let mut stream = line::Stream::default();
    let chunks = chunks(case);
    receiver.read(&mut stream, &chunks);
    let taken = receiver.points();
    // A case that ends inside a line cannot go on.
    if case["eof"] != Value::Bool(true) {
        receiver.read(&mut stream, &[b"a.good.line 1 5\n".to_vec()]);
        let more = receiver.taken.len() - taken.len();
        if more != 1 {
            return Err(format!("a good line after it gives {more} points"));
        }
    }
    let documented = documented::lines(&chunks.concat(), false);
    compare(case, &case["tcp"], &taken, &documented)
}

/// As [`tcp`], in a datagram.
fn udp(case: &Value) -> Result<bool, String> {
    let mut receiver = Receiver::new();
    let [datagram] = &chunks(case)[..] else {
        return Err("not one datagram".to_owned());
    };
    let Receiver {
        index,
        stats,
        taken,
        ..
    } = &mut receiver;
    {
        let mut resolver = Resolver::new(index, stats, NOW, taken);
        let read = line::read(datagram, &mut resolver);
        line::read_one(&datagram[read..], &mut resolver);
    }
    let documented = documented::lines(datagram, true);
    compare(case, &case["udp"], &receiver.points(), &documented)
}

/// Whether `taken` is what is recorded.
///
/// # Errors
/// It is not, and has no documented reason to differ; or it is not what is `documented`.
fn compare(
    case: &Value,
    result: &Value,
    taken: &[Point],
    documented: &[Point],
) -> Result<bool, String> {
    let recorded = points(result);
    let stays_open = result["open"] != Value::Bool(false);
    let as_recorded = taken == recorded && stays_open;
    let fits = match quirk(case) {
        None => as_recorded,
        Some(_) => taken == documented,
    };
    // What carbon takes before it closes the connection, or loses the datagram, is taken here, too; and
    // where it does neither, only what no file can hold is not.
    let expected = storable(recorded.clone());
    let holds = match quirk(case) {
        Some("unicode-lines" | "unicode-space" | "udp-8192") | None => true,
        Some(quirk) if quirk.ends_with("-closes") => taken.starts_with(&expected),
        Some(_) => taken == expected,
    };
    match fits && holds {
        true => Ok(as_recorded),
        false => Err(format!(
            "took {taken:?}, recorded {recorded:?}, documented {documented:?}"
        )),
    }
}
