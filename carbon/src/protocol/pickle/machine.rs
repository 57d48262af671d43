//! The stack machine that a pickle is a program for, with the opcodes that make data.
//!
//! Values are 16 bytes and [`Copy`]. Text is a range of the frame where it stands there byte for byte,
//! else a range of `decoded`. A tuple never changes, so it is a range of `items`; a list, a dictionary or a
//! set may grow after others refer to it, so it is the number of a vector.

use super::input::{Input, Malformed, Span};
use super::text;
use super::value::Value;

/// Reads pickles, one after the other, and keeps its memory between them.
#[derive(Debug, Default)]
pub struct Machine {
    stack: Vec<Value>,
    /// Where on the stack the open groups begin.
    groups: Vec<u32>,
    memo: Vec<Option<Value>>,
    /// How many places of the memo are taken.
    memo_len: usize,
    items: Vec<Value>,
    /// Members of lists, dictionaries and sets; those from `in_use` on are left from earlier pickles.
    vectors: Vec<Vec<Value>>,
    in_use: usize,
    decoded: Vec<u8>,
    /// Most values in `items`, and most places in the memo.
    most: usize,
}

/// What a pickle may hold beside what its length allows.
const SPARE: usize = 4 << 10;

impl Machine {
    /// The value that the pickle at the start of `frame` makes; bytes after its STOP opcode are
    /// ignored, as in Python. The value is good until the next call.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with the pickle. A frame of 4 GiB or more is refused, too.
    pub fn read(&mut self, frame: &[u8]) -> Result<Value, Malformed> {
        if u32::try_from(frame.len()).is_err() {
            return Err(Malformed::Argument);
        }
        self.clear();
        // Picklers write two bytes and more for each value of a tuple and each place of the memo, and
        // four and more for each value on the stack.
        self.most = frame.len() / 2 + SPARE;
        let deepest = frame.len() / 4 + SPARE;
        let mut input = Input { frame, at: 0 };
        loop {
            let opcode = input.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode, &mut input)?;
            if self.stack.len() > deepest || self.groups.len() > deepest {
                return Err(Malformed::Memory);
            }
        }
    }

    /// Forgets the last value.
    fn clear(&mut self) {
        self.stack.clear();
        self.groups.clear();
        self.memo.clear();
        self.memo_len = 0;
        self.items.clear();
        for vector in &mut self.vectors[..self.in_use] {
            vector.clear();
        }
        self.in_use = 0;
        self.decoded.clear();
    }

    /// Bytes of memory that it has.
    pub fn size_bytes(&self) -> usize {
        let values: usize = self.vectors.iter().map(Vec::capacity).sum();
        let values = values + self.stack.capacity() + self.memo.capacity() + self.items.capacity();
        values * size_of::<Value>()
            + self.vectors.capacity() * size_of::<Vec<Value>>()
            + self.groups.capacity() * 4
            + self.decoded.capacity()
    }

    /// The members of a tuple or a list; `None` for other values.
    pub fn members(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::Tuple(span) => Some(span.of(&self.items)),
            Value::List(number) => self.vectors.get(number as usize).map(Vec::as_slice),
            _ => None,
        }
    }

    /// The keys and values of a dictionary in the order in which they were set, a key that was set
    /// again each time; `None` for other values.
    pub fn entries(&self, value: Value) -> Option<impl Iterator<Item = (Value, Value)>> {
        let Value::Dict(number) = value else {
            return None;
        };
        let flat = self.vectors.get(number as usize).map(Vec::as_slice);
        let pairs = flat.unwrap_or(&[]).chunks_exact(2);
        Some(pairs.map(|pair| (pair[0], pair[1])))
    }

    /// What Python walks through in a set (in the order of the pickle, equal members more than once) or a
    /// dictionary (its keys); `None` for other values.
    pub fn elements(&self, value: Value) -> Option<impl Iterator<Item = Value>> {
        let (number, step) = match value {
            Value::Set(number) => (number, 1),
            Value::Dict(number) => (number, 2),
            _ => return None,
        };
        let flat = self.vectors.get(number as usize).map(Vec::as_slice);
        Some(flat.unwrap_or(&[]).iter().copied().step_by(step))
    }

    /// Text as UTF-8; `None` for other values.
    #[inline]
    pub fn text<'b>(&'b self, value: Value, frame: &'b [u8]) -> Option<&'b [u8]> {
        match value {
            Value::Text(span) => Some(span.of(frame)),
            Value::Decoded(span) => Some(span.of(&self.decoded)),
            _ => None,
        }
    }

    /// Text or bytes; `None` for other values.
    pub fn text_or_bytes<'b>(&'b self, value: Value, frame: &'b [u8]) -> Option<&'b [u8]> {
        match value {
            Value::Bytes(span) => Some(span.of(frame)),
            _ => self.text(value, frame),
        }
    }

    /// Where on the stack the innermost open group begins: what is below is out of reach.
    #[inline]
    fn floor(&self) -> usize {
        self.groups.last().map_or(0, |group| *group as usize)
    }

    #[inline]
    fn push(&mut self, value: Value) -> Result<(), Malformed> {
        self.stack.push(value);
        Ok(())
    }

    #[inline]
    fn pop(&mut self) -> Result<Value, Malformed> {
        if self.stack.len() <= self.floor() {
            return Err(Malformed::Stack);
        }
        self.stack.pop().ok_or(Malformed::Stack)
    }

    #[inline]
    fn top(&self) -> Result<Value, Malformed> {
        if self.stack.len() <= self.floor() {
            return Err(Malformed::Stack);
        }
        self.stack.last().copied().ok_or(Malformed::Stack)
    }

    /// Closes the innermost group; where it begins.
    fn close(&mut self) -> Result<usize, Malformed> {
        let start = self.groups.pop().ok_or(Malformed::Stack)?;
        Ok(start as usize)
    }

    fn step(&mut self, opcode: u8, input: &mut Input<'_>) -> Result<(), Malformed> {
        match opcode {
            b'X' => {
                let n = input.length4()?;
                self.push_text(input, n)
            }
            0x8c => {
                let n = usize::from(input.byte()?);
                self.push_text(input, n)
            }
            b'J' => self.push(Value::Int(i32::from_le_bytes(input.array()?).into())),
            b'G' => self.push(Value::Float(f64::from_be_bytes(input.array()?))),
            b'K' => self.push(Value::Int(input.byte()?.into())),
            b'M' => self.push(Value::Int(u16::from_le_bytes(input.array()?).into())),
            0x94 => self.put(self.memo_len),
            b'q' => {
                let index = usize::from(input.byte()?);
                self.put(index)
            }
            b'r' => {
                let index = input.length4()?;
                self.put(index)
            }
            b'h' => {
                let index = usize::from(input.byte()?);
                self.get(index)
            }
            b'j' => {
                let index = input.length4()?;
                self.get(index)
            }
            0x86 => self.tuple_of(2),
            0x85 => self.tuple_of(1),
            0x87 => self.tuple_of(3),
            b'(' => {
                self.groups.push(self.stack.len() as u32);
                Ok(())
            }
            b't' => {
                let start = self.close()?;
                self.tuple_from(start)
            }
            b')' => self.tuple_from(self.stack.len()),
            b']' => self.push_vector(Value::List, None),
            b'}' => self.push_vector(Value::Dict, None),
            b'a' => {
                if self.stack.len() < self.floor() + 2 {
                    return Err(Malformed::Stack);
                }
                self.append_from(self.stack.len() - 1)
            }
            b'e' => {
                let start = self.close()?;
                self.append_from(start)
            }
            _ => self.step_text(opcode, input),
        }
    }

    /// The opcodes of text and bytes, and numbers as text.
    fn step_text(&mut self, opcode: u8, input: &mut Input<'_>) -> Result<(), Malformed> {
        match opcode {
            b'U' => {
                let n = usize::from(input.byte()?);
                self.push_python2(input, n)
            }
            b'T' => {
                let n = input.signed4()?;
                self.push_python2(input, n)
            }
            0x8d => {
                let n = input.length8()?;
                self.push_text(input, n)
            }
            b'S' => {
                let quoted = input.line()?;
                let start = self.decoded.len();
                text::string(quoted, &mut self.decoded).ok_or(Malformed::Argument)?;
                self.push_decoded(start)
            }
            b'V' => {
                let escaped = input.line()?;
                let start = self.decoded.len();
                match text::unicode(escaped, &mut self.decoded) {
                    None => Err(Malformed::Argument),
                    Some(true) => self.push_decoded(start),
                    Some(false) => self.push(Value::Surrogate),
                }
            }
            b'C' => {
                let n = usize::from(input.byte()?);
                self.push_bytes(input, n)
            }
            b'B' => {
                let n = input.length4()?;
                self.push_bytes(input, n)
            }
            0x8e | 0x96 => {
                let n = input.length8()?;
                self.push_bytes(input, n)
            }
            b'I' => {
                let line = input.line()?;
                self.push(text::integer_or_bool(line).ok_or(Malformed::Argument)?)
            }
            b'L' => {
                let line = input.line()?;
                let digits = line.strip_suffix(b"L").unwrap_or(line);
                self.push(text::integer(digits).ok_or(Malformed::Argument)?)
            }
            b'F' => {
                let line = std::str::from_utf8(input.line()?).map_err(|_| Malformed::Argument)?;
                let number = line.parse().map_err(|_| Malformed::Argument)?;
                self.push(Value::Float(number))
            }
            0x8a => {
                let n = usize::from(input.byte()?);
                self.push(text::long(input.take(n)?))
            }
            0x8b => {
                let n = input.signed4()?;
                self.push(text::long(input.take(n)?))
            }
            _ => self.step_other(opcode, input),
        }
    }

    /// The other opcodes.
    fn step_other(&mut self, opcode: u8, input: &mut Input<'_>) -> Result<(), Malformed> {
        match opcode {
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            0x80 => match input.byte()? {
                0..=5 => Ok(()),
                _ => Err(Malformed::Protocol),
            },
            0x95 => {
                let announced = input.length8()?;
                match announced <= input.frame.len() - input.at {
                    true => Ok(()),
                    false => Err(Malformed::Cut),
                }
            }
            b'p' => {
                let index = text::index(input.line()?).ok_or(Malformed::Argument)?;
                self.put(index)
            }
            b'g' => {
                let index = text::index(input.line()?).ok_or(Malformed::Argument)?;
                self.get(index)
            }
            b'l' => {
                let start = self.close()?;
                self.push_vector(Value::List, Some(start))
            }
            b'd' => {
                let start = self.close()?;
                match (self.stack.len() - start) % 2 {
                    0 => self.push_vector(Value::Dict, Some(start)),
                    _ => Err(Malformed::Stack),
                }
            }
            b's' => {
                if self.stack.len() < self.floor() + 3 {
                    return Err(Malformed::Stack);
                }
                self.set_from(self.stack.len() - 2)
            }
            b'u' => {
                let start = self.close()?;
                self.set_from(start)
            }
            b'0' => match self.groups.last() {
                Some(group) if *group as usize == self.stack.len() => self.close().map(drop),
                _ => self.pop().map(drop),
            },
            b'1' => {
                let start = self.close()?;
                self.stack.truncate(start);
                Ok(())
            }
            b'2' => {
                let top = self.top()?;
                self.push(top)
            }
            0x8f..=0x91 => self.step_set(opcode),
            b'c'
            | b'i'
            | b'o'
            | b'R'
            | b'b'
            | b'P'
            | b'Q'
            | 0x81..=0x84
            | 0x92
            | 0x93
            | 0x97
            | 0x98 => Err(Malformed::Code),
            _ => Err(Malformed::Opcode),
        }
    }

    /// EMPTY_SET, ADDITEMS and FROZENSET.
    fn step_set(&mut self, opcode: u8) -> Result<(), Malformed> {
        if opcode == 0x8f {
            return self.push_vector(Value::Set, None);
        }
        let start = self.close()?;
        if opcode == 0x91 {
            return self.push_vector(Value::Set, Some(start));
        }
        match self.group_from(start)? {
            (Value::Set(number), _) => self.extend(number, start),
            _ => Err(Malformed::Stack),
        }
    }

    /// Text of which the frame holds the UTF-8.
    #[inline]
    fn push_text(&mut self, input: &mut Input<'_>, n: usize) -> Result<(), Malformed> {
        let span = input.span(n)?;
        let bytes = span.of(input.frame);
        if std::str::from_utf8(bytes).is_ok() {
            return self.push(Value::Text(span));
        }
        match text::is_utf8_with_surrogates(bytes) {
            true => self.push(Value::Surrogate),
            false => Err(Malformed::Argument),
        }
    }

    /// A string of Python 2: bytes that are read as UTF-8.
    fn push_python2(&mut self, input: &mut Input<'_>, n: usize) -> Result<(), Malformed> {
        let span = input.span(n)?;
        match std::str::from_utf8(span.of(input.frame)) {
            Ok(_) => self.push(Value::Text(span)),
            Err(_) => Err(Malformed::Argument),
        }
    }

    fn push_bytes(&mut self, input: &mut Input<'_>, n: usize) -> Result<(), Malformed> {
        let span = input.span(n)?;
        self.push(Value::Bytes(span))
    }

    /// Text that `decoded` holds from `start` on.
    fn push_decoded(&mut self, start: usize) -> Result<(), Malformed> {
        let len = self.decoded.len() - start;
        // Decoding makes at most twice as many bytes as it reads: Latin-1 as UTF-8.
        let (Ok(start), Ok(len)) = (u32::try_from(start), u32::try_from(len)) else {
            return Err(Malformed::Argument);
        };
        self.push(Value::Decoded(Span { start, len }))
    }

    /// Makes a tuple of the uppermost `n` values.
    #[inline]
    fn tuple_of(&mut self, n: usize) -> Result<(), Malformed> {
        if self.stack.len() < self.floor() + n {
            return Err(Malformed::Stack);
        }
        self.tuple_from(self.stack.len() - n)
    }

    /// Makes a tuple of the values from `start` on.
    #[inline]
    fn tuple_from(&mut self, start: usize) -> Result<(), Malformed> {
        let members = self.stack.get(start..).ok_or(Malformed::Stack)?;
        if self.items.len() + members.len() > self.most {
            return Err(Malformed::Memory);
        }
        let span = Span {
            start: u32::try_from(self.items.len()).map_err(|_| Malformed::Argument)?,
            len: members.len() as u32,
        };
        self.items.extend_from_slice(members);
        self.stack.truncate(start);
        self.push(Value::Tuple(span))
    }

    /// Makes a list, a dictionary or a set of the values from `start` on.
    fn push_vector(
        &mut self,
        kind: fn(u32) -> Value,
        start: Option<usize>,
    ) -> Result<(), Malformed> {
        if self.in_use == self.vectors.len() {
            // A list with a member takes four bytes and more.
            if self.in_use > self.most / 2 {
                return Err(Malformed::Memory);
            }
            self.vectors.push(Vec::new());
        }
        if let Some(start) = start {
            let members = self.stack.get(start..).ok_or(Malformed::Stack)?;
            self.vectors[self.in_use].extend_from_slice(members);
            self.stack.truncate(start);
        }
        let number = self.in_use as u32;
        self.in_use += 1;
        self.push(kind(number))
    }

    /// The value below `start`, and how many there are from there on.
    fn group_from(&self, start: usize) -> Result<(Value, usize), Malformed> {
        let below = start.checked_sub(1).filter(|at| *at >= self.floor());
        let below = below.and_then(|at| self.stack.get(at));
        let count = self.stack.len().checked_sub(start);
        match (below, count) {
            (Some(below), Some(count)) => Ok((*below, count)),
            _ => Err(Malformed::Stack),
        }
    }

    /// Moves the values from `start` on to the end of the list below them.
    fn append_from(&mut self, start: usize) -> Result<(), Malformed> {
        match self.group_from(start)? {
            (_, 0) => Ok(()),
            (Value::List(number), _) => self.extend(number, start),
            _ => Err(Malformed::Stack),
        }
    }

    /// Moves the keys and values from `start` on to the dictionary below them.
    fn set_from(&mut self, start: usize) -> Result<(), Malformed> {
        match self.group_from(start)? {
            (_, 0) => Ok(()),
            (Value::Dict(number), count) if count % 2 == 0 => self.extend(number, start),
            _ => Err(Malformed::Stack),
        }
    }

    fn extend(&mut self, number: u32, start: usize) -> Result<(), Malformed> {
        self.vectors[number as usize].extend_from_slice(&self.stack[start..]);
        self.stack.truncate(start);
        Ok(())
    }

    #[inline]
    fn put(&mut self, index: usize) -> Result<(), Malformed> {
        let value = self.top()?;
        if index >= self.memo.len() {
            if index >= self.most {
                return Err(Malformed::Memory);
            }
            self.memo.resize(index + 1, None);
        }
        self.memo_len += usize::from(self.memo[index].is_none());
        self.memo[index] = Some(value);
        Ok(())
    }

    #[inline]
    fn get(&mut self, index: usize) -> Result<(), Malformed> {
        let value = self.memo.get(index).copied().flatten();
        self.push(value.ok_or(Malformed::Stack)?)
    }
}
