//! Frames of pickles.

use carbon::protocol::pickle::Stream;
use serde_json::Value;

use crate::documented::{self, check};
use crate::golden::recording;
use crate::recorded::{Receiver, Replayed, hex, parts, points, quirk, storable};

/// carbon's limit on a frame.
const MAX_FRAME: usize = 1 << 20;

/// A frame with one point, which must still be taken after a case.
fn good() -> Vec<u8> {
    hex("0000000d5d285501614b054b018686652e")
}

#[test]
fn golden_pickle() {
    let cases = recording("carbon-pickle");
    assert!(!cases.is_empty());
    let mut replayed = Replayed::default();
    for case in &cases {
        replayed.note("pickle", case, replay(case));
    }
    let deviations = replayed.deviations(cases.len());
    check("pickle", &deviations);
}

/// Whether a case goes as with carbon.
///
/// # Errors
/// It does not, and has no documented reason to differ; or it does not go as documented.
fn replay(case: &Value) -> Result<bool, String> {
    let chunks: Vec<Vec<u8>> = case["in"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chunk| parts(chunk, hex))
        .collect();
    let mut receiver = Receiver::new();
    let mut stream = Stream::new(MAX_FRAME);
    let mut open = receiver.read(&mut stream, &chunks);
    let taken = receiver.points();
    // A case that ends inside a frame cannot go on.
    if open && case["eof"] != Value::Bool(true) {
        open = receiver.read(&mut stream, &[good()]);
        let more = receiver.taken.len() - taken.len();
        if more != 1 {
            return Err(format!("a good frame after it gives {more} points"));
        }
    }
    let recorded = points(case);
    let expected = storable(recorded.clone());
    let documented = documented::pickles(&chunks.concat(), MAX_FRAME);
    let closes = case["open"] == Value::Bool(false);
    let as_recorded = taken == recorded && open != closes;
    let (fits, open_fits) = match quirk(case) {
        None => (as_recorded, true),
        // carbon closes the connection, and loses what follows in the frame.
        Some("bad-item-closes" | "not-a-list-closes" | "exotic-opcode") => {
            let taken_before = taken.starts_with(&expected) || expected.starts_with(&taken);
            (taken == documented && taken_before, open)
        }
        // Lists and tuples are pairs, texts and dictionaries are not.
        Some("string-as-pair") => (taken == documented, open != closes),
        Some(_) => (taken == expected && taken == documented, open != closes),
    };
    match (fits, open_fits) {
        (true, true) => Ok(as_recorded),
        (false, _) => Err(format!(
            "took {taken:?}, recorded {recorded:?}, documented {documented:?}"
        )),
        (_, false) => Err(format!("open is {open}")),
    }
}
