//! Lines over TCP, in pieces, and in datagrams.

use carbon::protocol::{Resolver, line};
use serde_json::Value;

use crate::recorded::{NOW, Point, Receiver, cases, parts, points, quirk, storable};

#[test]
fn golden_lines() {
    let cases = cases("carbon-lines");
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let over = [("tcp", tcp as fn(&Value) -> _), ("udp", udp)];
        for (way, replay) in over.iter().filter(|(way, _)| case.get(way).is_some()) {
            if let Err(why) = replay(case) {
                wrong.push(format!("{name} over {way}: {why}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn chunks(case: &Value) -> Vec<Vec<u8>> {
    let chunks = case["in"].as_array().unwrap().iter();
    let plain = |text: &str| text.as_bytes().to_vec();
    chunks.map(|chunk| parts(chunk, plain)).collect()
}

fn tcp(case: &Value) -> Result<(), String> {
    let mut receiver = Receiver::new();
    let mut stream = line::Stream::default();
    receiver.read(&mut stream, &chunks(case));
    let taken = receiver.points();
    // A case that ends inside a line cannot go on.
    if case["eof"] != Value::Bool(true) {
        receiver.read(&mut stream, &[b"a.good.line 1 5\n".to_vec()]);
        let more = receiver.taken.len() - taken.len();
        if more != 1 {
            return Err(format!("a good line after it gives {more} points"));
        }
    }
    compare(case, &case["tcp"], &taken)
}

fn udp(case: &Value) -> Result<(), String> {
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
    compare(case, &case["udp"], &receiver.points())
}

fn compare(case: &Value, result: &Value, taken: &[Point]) -> Result<(), String> {
    let recorded = points(result);
    let expected = storable(recorded.clone());
    let fits = match quirk(case) {
        None => taken == recorded && result["open"] != Value::Bool(false),
        // carbon closes the connection or loses the datagram: the rest is taken here.
        Some(
            "inf-timestamp-closes"
            | "nan-timestamp-closes"
            | "long-line-closes"
            | "bad-utf8-closes",
        ) => taken.starts_with(&expected),
        // carbon ends lines at further characters, splits names at further spaces, reads digits of
        // other scripts, and cuts datagrams.
        Some("unicode-lines" | "unicode-space" | "udp-8192" | "unterminated-last-line") => true,
        Some("python-number") => {
            let ascii = chunks(case).iter().all(|chunk| chunk.is_ascii());
            taken == &expected[..] || (!ascii && taken.is_empty())
        }
        Some(_) => taken == expected,
    };
    match fits {
        true => Ok(()),
        false => Err(format!("took {taken:?}, recorded {recorded:?}")),
    }
}
