//! The bytes of a pickle, and what its opcodes read of them.

/// Why a pickle cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends before its STOP opcode, or inside an argument.
    #[error("the pickle is cut short")]
    Cut,
    /// An opcode that pickle does not have.
    #[error("the pickle has an unknown opcode")]
    Opcode,
    /// An opcode that imports, calls or asks for something.
    #[error("the pickle refers to code, which is never loaded")]
    Code,
    /// An opcode finds other operands than it needs.
    #[error("the pickle's opcodes do not fit together")]
    Stack,
    /// More values on the stack, in tuples, in the memo or of lists than data of this length needs.
    #[error("the pickle needs too much memory for its length")]
    Memory,
    /// A number, a text or a length is not as its opcode needs it.
    #[error("the pickle has a malformed argument")]
    Argument,
    /// The pickle names a protocol above 5.
    #[error("the pickle has a protocol above 5")]
    Protocol,
}

/// A part of the frame or of one of the machine's vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Span {
    pub(super) fn of<T>(self, whole: &[T]) -> &[T] {
        let start = self.start as usize;
        whole.get(start..start + self.len as usize).unwrap_or(&[])
    }
}

/// The bytes of a pickle that have not been read.
pub(super) struct Input<'f> {
    pub(super) frame: &'f [u8],
    pub(super) at: usize,
}

impl<'f> Input<'f> {
    #[inline]
    pub(super) fn take(&mut self, n: usize) -> Result<&'f [u8], Malformed> {
        let rest = &self.frame[self.at..];
        let taken = rest.get(..n).ok_or(Malformed::Cut)?;
        self.at += n;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let rest = &self.frame[self.at..];
        let taken = rest.first_chunk().ok_or(Malformed::Cut)?;
        self.at += N;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn length4(&mut self) -> Result<usize, Malformed> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    /// A length that old opcodes give as a signed number.
    pub(super) fn signed4(&mut self) -> Result<usize, Malformed> {
        let length = i32::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| Malformed::Argument)
    }

    pub(super) fn length8(&mut self) -> Result<usize, Malformed> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| Malformed::Argument)
    }

    /// The range of the next `n` bytes.
    #[inline]
    pub(super) fn span(&mut self, n: usize) -> Result<Span, Malformed> {
        let start = self.at as u32;
        self.take(n)?;
        Ok(Span {
            start,
            len: n as u32,
        })
    }

    /// The bytes before the next line feed.
    pub(super) fn line(&mut self) -> Result<&'f [u8], Malformed> {
        let rest = &self.frame[self.at..];
        let end = memchr::memchr(b'\n', rest).ok_or(Malformed::Cut)?;
        self.at += end + 1;
        Ok(&rest[..end])
    }
}
