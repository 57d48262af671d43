//! Answers as JSON values, whatever they were sent as. Infinities and NaN become strings.

use serde_json::{Map, Number, Value};

/// JSON in which `1e9999` may stand.
pub(crate) fn json(text: &str) -> Result<Value, String> {
    let mut plain = String::with_capacity(text.len());
    let mut in_string = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if !in_string {
            let word = ["-1e9999", "1e9999", "NaN", "-Infinity", "Infinity"]
                .into_iter()
                .find(|word| rest.starts_with(word));
            if let Some(word) = word {
                plain.push_str(&format!("\"{word}\""));
                rest = &rest[word.len()..];
                continue;
            }
        }
        if in_string && c == '\\' {
            let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            plain.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        in_string ^= c == '"';
        plain.push(c);
        rest = &rest[c.len_utf8()..];
    }
    serde_json::from_str(&plain).map_err(|error| error.to_string())
}

/// `callback(JSON)`
pub(crate) fn jsonp(text: &str) -> Result<Value, String> {
    let (callback, rest) = text.split_once('(').ok_or("no callback")?;
    let inner = rest.strip_suffix(')').ok_or("no end")?;
    let mut both = Map::new();
    both.insert("callback".to_owned(), callback.into());
    both.insert("json".to_owned(), json(inner)?);
    Ok(both.into())
}

fn float(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => number.into(),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "1e9999".into(),
        None => "-1e9999".into(),
    }
}

/// Bytes read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        if n > self.0.len() {
            return Err("the bytes end early".to_owned());
        }
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().unwrap())
    }

    fn text(&mut self, n: usize) -> Result<Value, String> {
        let text = String::from_utf8(self.take(n)?.to_vec());
        Ok(text.map_err(|e| e.to_string())?.into())
    }
}

/// MessagePack.
pub(crate) fn msgpack(bytes: &[u8]) -> Result<Value, String> {
    let mut bytes = Bytes(bytes);
    let value = msgpack_one(&mut bytes)?;
    if bytes.0.is_empty() {
        Ok(value)
    } else {
        Err(format!("{} bytes more", bytes.0.len()))
    }
}

fn msgpack_one(bytes: &mut Bytes<'_>) -> Result<Value, String> {
    let list = |bytes: &mut Bytes<'_>, n: usize| -> Result<Value, String> {
        (0..n).map(|_| msgpack_one(bytes)).collect()
    };
    let map = |bytes: &mut Bytes<'_>, n: usize| -> Result<Value, String> {
        let mut map = Map::new();
        for _ in 0..n {
            let key = msgpack_one(bytes)?;
            let key = key.as_str().ok_or("a key that is no text")?.to_owned();
            map.insert(key, msgpack_one(bytes)?);
        }
        Ok(map.into())
    };
    let kind = bytes.array::<1>()?[0];
    Ok(match kind {
        0..=0x7f => kind.into(),
        0x80..=0x8f => map(bytes, usize::from(kind & 15))?,
        0x90..=0x9f => list(bytes, usize::from(kind & 15))?,
        0xa0..=0xbf => bytes.text(usize::from(kind & 31))?,
        0xc0 => Value::Null,
        0xc2 => false.into(),
        0xc3 => true.into(),
        0xca => float(f64::from(f32::from_be_bytes(bytes.array()?))),
        0xcb => float(f64::from_be_bytes(bytes.array()?)),
        0xcc => bytes.array::<1>()?[0].into(),
        0xcd => u16::from_be_bytes(bytes.array()?).into(),
        0xce => u32::from_be_bytes(bytes.array()?).into(),
        0xcf => u64::from_be_bytes(bytes.array()?).into(),
        0xd0 => i8::from_be_bytes(bytes.array()?).into(),
        0xd1 => i16::from_be_bytes(bytes.array()?).into(),
        0xd2 => i32::from_be_bytes(bytes.array()?).into(),
        0xd3 => i64::from_be_bytes(bytes.array()?).into(),
        0xd9 => {
            let n = bytes.array::<1>()?[0];
            bytes.text(usize::from(n))?
        }
        0xda => {
            let n = u16::from_be_bytes(bytes.array()?);
            bytes.text(usize::from(n))?
        }
        0xdc => {
            let n = u16::from_be_bytes(bytes.array()?);
            list(bytes, usize::from(n))?
        }
        0xdd => {
            let n = u32::from_be_bytes(bytes.array()?);
            list(bytes, n as usize)?
        }
        0xde => {
            let n = u16::from_be_bytes(bytes.array()?);
            map(bytes, usize::from(n))?
        }
        0xe0..=0xff => (kind as i8).into(),
        other => return Err(format!("msgpack type {other:#x}")),
    })
}

/// As much of Python's pickle as our own writer uses.
pub(crate) fn pickle(bytes: &[u8]) -> Result<Value, String> {
    let mut bytes = Bytes(bytes);
    let mut stack: Vec<Option<Value>> = Vec::new();
    // A `None` on the stack is a boundary.
    let to_mark = |stack: &mut Vec<Option<Value>>| -> Result<Vec<Value>, String> {
        let boundary = stack
            .iter()
            .rposition(Option::is_none)
            .ok_or("no boundary")?;
        let items = stack.split_off(boundary + 1);
        stack.pop();
        Ok(items.into_iter().flatten().collect())
    };
    loop {
        let value = match bytes.array::<1>()?[0] {
            0x80 => {
                bytes.take(1)?;
                continue;
            }
            b'.' => {
                return stack
                    .pop()
                    .flatten()
                    .ok_or_else(|| "an empty stack".to_owned());
            }
            b'(' => None,
            b']' => Some(Value::Array(Vec::new())),
            b'}' => Some(Value::Object(Map::new())),
            b'e' => {
                let items = to_mark(&mut stack)?;
                match stack.last_mut() {
                    Some(Some(Value::Array(list))) => list.extend(items),
                    _ => return Err("no list to append to".to_owned()),
                }
                continue;
            }
            b'u' => {
                let items = to_mark(&mut stack)?;
                let Some(Some(Value::Object(map))) = stack.last_mut() else {
                    return Err("no dict to set in".to_owned());
                };
                for pair in items.chunks(2) {
                    let key = pair[0].as_str().ok_or("a key that is no text")?;
                    map.insert(key.to_owned(), pair[1].clone());
                }
                continue;
            }
            b't' => Some(Value::Array(to_mark(&mut stack)?)),
            b'X' => {
                let n = u32::from_le_bytes(bytes.array()?);
                Some(bytes.text(n as usize)?)
            }
            b'J' => Some(i32::from_le_bytes(bytes.array()?).into()),
            0x8a => {
                bytes.take(1)?;
                Some(i64::from_le_bytes(bytes.array()?).into())
            }
            b'G' => Some(float(f64::from_be_bytes(bytes.array()?))),
            b'N' => Some(Value::Null),
            0x88 => Some(true.into()),
            0x89 => Some(false.into()),
            other => return Err(format!("pickle opcode {other:#x}")),
        };
        stack.push(value);
    }
}
