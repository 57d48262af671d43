//! Lines in the body of a request, which has an answer: how many were taken, and what is wrong with
//! the others.

use crate::datapoint::Datapoint;
use crate::protocol::Refused;
use crate::protocol::line::{self, MAX_LINE};
use crate::store::Carbon;

/// How many refused lines an answer names.
const MAX_PROBLEMS: usize = 10;

/// What became of the lines of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Lines whose datapoints were taken.
    pub accepted: u64,
    /// Lines that were refused.
    pub refused: u64,
    /// The first of them: the number of the line, counted from 1, and what is wrong with it.
    pub problems: Vec<(u64, Refused)>,
}

/// Takes the lines of a body, in pieces of any size.
pub struct Body {
    carbon: Carbon,
    /// The start of a line whose end has not come.
    partial: Vec<u8>,
    /// Inside a line that is too long.
    skipping: bool,
    line: u64,
    points: Vec<Datapoint>,
    outcome: Outcome,
}

impl Body {
    /// An empty body.
    pub fn new(carbon: &Carbon) -> Self {
        Self {
            carbon: carbon.clone(),
            partial: Vec::new(),
            skipping: false,
            line: 0,
            points: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// Takes the next bytes of the body; waits while the store has no room.
    pub async fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let carbon = self.carbon.clone();
        let _pin = carbon.index().pin();
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            self.take(line);
            rest = after;
            // As many as a TCP connection hands on at once.
            if self.points.len() >= 8_192 {
                self.hand_on().await;
            }
        }
        self.begin(rest);
        self.hand_on().await;
    }

    /// The body has ended; a last line without a line feed is whole.
    pub async fn end(mut self) -> Outcome {
        if !self.partial.is_empty() || self.skipping {
            let carbon = self.carbon.clone();
            let _pin = carbon.index().pin();
            self.take(b"");
            self.hand_on().await;
        }
        self.outcome
    }

    /// What became of the lines so far, of a body that cannot be read to its end.
    pub fn abandon(self) -> Outcome {
        self.outcome
    }

    async fn hand_on(&mut self) {
        self.outcome.accepted += self.points.len() as u64;
        self.carbon.submit_async(&self.points).await;
        self.points.clear();
    }

    /// Takes a line: what has been kept of it, and the rest.
    fn take(&mut self, rest: &[u8]) {
        self.line += 1;
        let mut resolver = self.carbon.resolver(&mut self.points);
        if self.partial.is_empty() && !self.skipping {
            line::read_one(rest, &mut resolver);
        } else {
            // A line that was skipped keeps its start, and is too long.
            self.partial.extend_from_slice(rest);
            line::read_one(&self.partial, &mut resolver);
        }
        if let Some(refused) = resolver.refused() {
            self.outcome.refused += 1;
            if self.outcome.problems.len() < MAX_PROBLEMS {
                self.outcome.problems.push((self.line, refused));
            }
        }
        self.partial.clear();
        self.skipping = false;
    }

    /// Keeps the start of a line.
    fn begin(&mut self, bytes: &[u8]) {
        let room = (MAX_LINE + 1).saturating_sub(self.partial.len());
        let kept = bytes.len().min(room);
        self.partial.extend_from_slice(&bytes[..kept]);
        self.skipping |= kept < bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::tests::limited;
    use crate::options::Options;

    #[tokio::test]
    async fn lines_in_any_pieces_are_taken_and_refused_ones_are_numbered() {
        let long = "x".repeat(3 * MAX_LINE);
        let text = format!("a 1 1\nbad\n\nb 1 x\n{long} 1 1\nc 3 3\nlast 4 4");
        for piece in [1, 7, 1_000, text.len()] {
            let dir = tempfile::tempdir().unwrap();
            let carbon = limited(dir.path(), Options::default());
            let mut body = Body::new(&carbon);
            for piece in text.as_bytes().chunks(piece) {
                body.push(piece).await;
            }
            let outcome = body.end().await;
            assert_eq!((outcome.accepted, outcome.refused), (3, 3), "{piece}");
            let lines: Vec<u64> = outcome.problems.iter().map(|(line, _)| *line).collect();
            assert_eq!(lines, [2, 4, 5]);
            let stats = carbon.stats();
            assert_eq!((stats.received.get(), stats.rejected_length.get()), (3, 1));
            assert_eq!(carbon.index().find("*").unwrap().len(), 3);
        }
    }
}
