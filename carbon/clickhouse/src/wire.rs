//! Reads the format RowBinary.

/// What is left of an answer. Every reading is `None` at its end, and for what is cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a>(pub(crate) &'a [u8]);

impl<'a> Rows<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn length(&mut self) -> Option<usize> {
        let mut length = 0_u64;
        for shift in (0..63).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(length).ok();
            }
        }
        None
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        let bytes = self.bytes()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let bytes = self.take(8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }
}

/// What is said of an answer that cannot be read.
pub(crate) const CUT: &str =
    "ClickHouse's answer is cut off or not in the format that was asked for";

/// Why an answer cannot be read: what the server says at its end, or [`CUT`].
pub(crate) fn said(answer: &[u8]) -> String {
    let tail = &answer[answer.len().saturating_sub(MAX_SAID)..];
    let tail = String::from_utf8_lossy(tail);
    match tail.rfind("Code: ") {
        Some(at) if tail[at..].contains("DB::Exception") => tail[at..].trim().to_owned(),
        _ => CUT.to_owned(),
    }
}

/// Most bytes that a server says at the end of an answer.
pub(crate) const MAX_SAID: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_at_the_end_is_found() {
        let whole = [
            &[3, b'a', 0xff][..],
            b"Code: 159, e.displayText() = DB::Exception: Timeout\n",
        ];
        let said_at_end = said(&whole.concat());
        assert_eq!(
            said_at_end,
            "Code: 159, e.displayText() = DB::Exception: Timeout"
        );
        assert_eq!(said(b"\x03ab"), CUT);
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let mut rows = Rows(b"\x03abc\x02a");
        assert_eq!(rows.text().as_deref(), Some("abc"));
        assert_eq!(rows.text(), None);
        assert_eq!(Rows(&[0xff; 12]).length(), None);
        assert_eq!(Rows(&[0x80, 0x01]).length(), Some(128));
    }
}
