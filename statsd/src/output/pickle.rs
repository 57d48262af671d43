//! Lines as carbon's pickles: `[(name, (timestamp, value)), …]` behind its length.
//!
//! Protocol 2, which every Python since 2.3 reads; the reference writes protocol 0 with the value
//! as text, which carbon turns into the same number.

use std::sync::Arc;

use crate::naming::Line;

/// Lines in a frame. Carbon takes frames of up to a mebibyte.
const LINES: u64 = 1_000;
const BYTES: usize = 256 << 10;

/// A frame being filled.
#[derive(Debug, Default)]
pub(super) struct Pickles {
    frame: Vec<u8>,
    name: Vec<u8>,
    lines: u64,
}

impl Pickles {
    pub(super) fn push(&mut self, line: &Line<'_>, value: f64, at: f64) {
        if self.lines == 0 {
            // Room for the length; protocol 2, an empty list, the start of its items.
            self.frame.extend_from_slice(b"\0\0\0\0\x80\x02](");
        }
        self.name.clear();
        line.push_name(&mut self.name);
        // A text, two floats, and two pairs.
        self.frame.push(b'X');
        self.frame
            .extend_from_slice(&(self.name.len() as u32).to_le_bytes());
        self.frame.extend_from_slice(&self.name);
        match at as u64 {
            seconds @ 0..=0x7fff_ffff if at.fract() == 0.0 => {
                self.frame.push(b'J');
                self.frame
                    .extend_from_slice(&(seconds as i32).to_le_bytes());
            }
            _ => {
                self.frame.push(b'G');
                self.frame.extend_from_slice(&at.to_be_bytes());
            }
        }
        self.frame.push(b'G');
        self.frame.extend_from_slice(&value.to_be_bytes());
        self.frame.extend_from_slice(b"\x86\x86");
        self.lines += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.lines >= LINES || self.frame.len() >= BYTES
    }

    /// The frame and its number of lines.
    pub(super) fn take(&mut self) -> Option<(Arc<[u8]>, u64)> {
        if self.lines == 0 {
            return None;
        }
        self.frame.extend_from_slice(b"e.");
        let length = (self.frame.len() - 4) as u32;
        self.frame[..4].copy_from_slice(&length.to_be_bytes());
        let frame = Arc::from(&self.frame[..]);
        self.frame.clear();
        Some((frame, std::mem::take(&mut self.lines)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_python_writes_it() {
        let mut pickles = Pickles::default();
        assert!(pickles.take().is_none());
        let line = Line {
            section: crate::naming::Section::Elsewhere,
            namespace: b"stats.",
            name: b"a;x=y",
            stat: b".rate",
            suffix: b"",
        };
        pickles.push(&line, 0.5, 1_700_000_000.0);
        let (frame, lines) = pickles.take().unwrap();
        assert_eq!(lines, 1);
        // pickle.loads(frame[4:]) == [("stats.a.rate;x=y", (1700000000, 0.5))]
        let expected = [
            &b"\0\0\0\x2b\x80\x02]("[..],
            b"X\x10\0\0\0stats.a.rate;x=y",
            b"J\x00\xf1\x53\x65",
            b"G\x3f\xe0\0\0\0\0\0\0",
            b"\x86\x86e.",
        ]
        .concat();
        assert_eq!(&*frame, expected);
    }
}
