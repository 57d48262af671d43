//! Reads an answer while the server makes it, in the formats RowBinary and Native.
//!
//! A server that fails in the middle of an answer ends it with a sentence. In Native it is in the place of a block, and
//! does not begin with the number of columns that was asked for; in RowBinary it is in the place of a row, and ends before
//! that row does.

use std::io::Read;

use render::budget::Reservation;

use crate::client::Failure;
use crate::wire::{MAX_SAID, said};

/// How much of an answer is read at once.
const PIECE: usize = 256 << 10;
/// The most bytes of a text.
const MAX_TEXT: usize = 64 << 20;
/// What is made of an answer is reserved in steps of so many bytes.
const STEP: usize = 64 << 10;

/// An answer, from its next byte on.
pub(crate) struct Incoming<'a> {
    source: &'a mut dyn Read,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    held: Reservation,
    /// What is made of the answer, and what of `held` is left for more.
    made: usize,
    left: usize,
}

impl<'a> Incoming<'a> {
    /// The answer that `source` gives. `held` grows by what is needed.
    pub(crate) fn new(source: &'a mut dyn Read, mut held: Reservation) -> Result<Self, Failure> {
        held.grow(PIECE).map_err(Failure::Budget)?;
        Ok(Self {
            source,
            buffer: vec![0; PIECE],
            begin: 0,
            end: 0,
            held,
            made: 0,
            left: 0,
        })
    }

    /// Sets `bytes` aside for what is made of the answer.
    #[inline]
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Failure> {
        self.made += bytes;
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => {
                self.held.grow(bytes + STEP).map_err(Failure::Budget)?;
                self.left += STEP;
            }
        }
        Ok(())
    }

    /// What was set aside for what was made of the answer.
    pub(crate) fn into_held(mut self) -> Reservation {
        self.buffer = Vec::new();
        // Less than before is never refused.
        let _ = self.held.resize(self.made);
        self.held
    }

    /// Whether there is nothing more.
    pub(crate) fn is_over(&mut self) -> Result<bool, Failure> {
        Ok(self.begin == self.end && self.fill(1)? == 0)
    }

    /// The number of rows of the next block of an answer in Native with so many `columns`, which are to be read one
    /// after the other.
    pub(crate) fn block(&mut self, columns: usize) -> Result<usize, Failure> {
        if self.length()? != columns {
            return Err(self.cut());
        }
        self.length()
    }

    /// Reads the name and the type of a column of texts.
    pub(crate) fn column_of_texts(&mut self) -> Result<(), Failure> {
        self.text(|_| ())?;
        let other = self.text(|found| {
            (found != b"String").then(|| String::from_utf8_lossy(found).into_owned())
        })?;
        match other {
            None => Ok(()),
            Some(other) => Err(Failure::Failed(format!(
                "a column of names is of type {other}, not String"
            ))),
        }
    }

    /// Reads a text.
    #[inline]
    pub(crate) fn text<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Result<T, Failure> {
        let length = self.length()?;
        if length > MAX_TEXT {
            return Err(self.cut());
        }
        self.need(length)?;
        let begin = self.begin;
        self.begin += length;
        Ok(read(&self.buffer[begin..begin + length]))
    }

    /// Reads an array of numbers of `N` bytes each, some at a time.
    pub(crate) fn array<const N: usize>(
        &mut self,
        mut read: impl FnMut(&[[u8; N]]),
    ) -> Result<(), Failure> {
        let mut left = self.length()?;
        while left > 0 {
            self.need(N)?;
            let (numbers, _) = self.buffer[self.begin..self.end].as_chunks::<N>();
            let numbers = &numbers[..numbers.len().min(left)];
            read(numbers);
            self.begin += numbers.len() * N;
            left -= numbers.len();
        }
        Ok(())
    }

    #[inline]
    fn length(&mut self) -> Result<usize, Failure> {
        let mut length = 0_u64;
        for shift in (0..63).step_by(7) {
            self.need(1)?;
            let byte = self.buffer[self.begin];
            self.begin += 1;
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(length).map_err(|_| self.cut());
            }
        }
        Err(self.cut())
    }

    /// Sees to it that so many bytes are there.
    #[inline]
    fn need(&mut self, bytes: usize) -> Result<(), Failure> {
        if self.end - self.begin >= bytes || self.fill(bytes)? >= bytes {
            return Ok(());
        }
        Err(self.cut())
    }

    /// Reads until so many bytes are there, or the answer ends; how many are there.
    #[cold]
    fn fill(&mut self, bytes: usize) -> Result<usize, Failure> {
        // What the server says may have been taken for the beginning of a row: it is kept.
        let from = self.begin.saturating_sub(MAX_SAID);
        self.buffer.copy_within(from..self.end, 0);
        (self.begin, self.end) = (self.begin - from, self.end - from);
        let room = self.begin + bytes;
        if room > self.buffer.len() {
            let more = room - self.buffer.len();
            self.held.grow(more).map_err(Failure::Budget)?;
            self.buffer.resize(room, 0);
        }
        while self.end < room {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Failed(error.to_string())),
            }
        }
        Ok(self.end - self.begin)
    }

    /// Why the answer cannot be read on: what the server says at its end, or that it is cut off.
    pub(crate) fn cut(&mut self) -> Failure {
        let mut tail = self.buffer[..self.end].to_vec();
        // If that fails, what is there has to do.
        let _ = self.source.take(2 * MAX_SAID as u64).read_to_end(&mut tail);
        Failure::Failed(said(&tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use render::budget::Budget;

    /// Gives so many bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let n = self.1.min(self.0.len()).min(into.len());
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn names(answer: &[u8], at_once: usize) -> Result<Vec<String>, String> {
        let mut source = Slow(answer, at_once);
        let held = Budget::unlimited().hold(0).unwrap();
        let read = || {
            let mut incoming = Incoming::new(&mut source, held)?;
            let mut names = Vec::new();
            while !incoming.is_over()? {
                let rows = incoming.block(1)?;
                incoming.column_of_texts()?;
                for _ in 0..rows {
                    names.push(incoming.text(|text| String::from_utf8_lossy(text).into_owned())?);
                }
            }
            Ok(names)
        };
        read().map_err(|failure: Failure| failure.to_string())
    }

    fn block(texts: &[&str]) -> Vec<u8> {
        let mut out = vec![1, texts.len() as u8];
        for text in ["Path", "String"].iter().chain(texts) {
            out.push(text.len() as u8);
            out.extend(text.as_bytes());
        }
        out
    }

    #[test]
    fn blocks_read_back_however_they_arrive() {
        let answer = [block(&["a", "bc"]), block(&[]), block(&["d"])].concat();
        for at_once in [1, 2, 3, 7, 1_000] {
            assert_eq!(names(&answer, at_once).unwrap(), ["a", "bc", "d"]);
        }
        assert_eq!(names(b"", 1).unwrap(), [""; 0]);
        for end in 1..answer.len() {
            // Between blocks it is whole.
            let is_whole = [block(&["a", "bc"]).len(), block(&["a", "bc"]).len() + 14];
            assert_eq!(
                names(&answer[..end], 5).is_ok(),
                is_whole.contains(&end),
                "{end}"
            );
        }
    }

    #[test]
    fn what_the_server_says_in_the_place_of_a_block_is_found() {
        let said = "Code: 159, e.displayText() = DB::Exception: Timeout exceeded";
        let answer = [&block(&["a"])[..], said.as_bytes()].concat();
        for at_once in [1, 30, 1_000] {
            assert_eq!(names(&answer, at_once).unwrap_err(), said);
        }
    }

    #[test]
    fn a_column_of_another_type_is_named() {
        let mut answer = vec![1, 1];
        answer.extend(b"\x04Path\x05UInt8\x07");
        assert!(names(&answer, 9).unwrap_err().contains("UInt8"));
    }
}
