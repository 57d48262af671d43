//! Writes pickles of protocol 2, which every Python since 2.3 reads.
//!
//! The writer appends opcodes; the caller nests them. Nothing is put into the memo: pickles of
//! metrics and answers do not refer to a value twice.

/// Appends the start of a pickle.
pub fn start(out: &mut Vec<u8>) {
    out.extend(b"\x80\x02");
}

/// Appends the end of a pickle.
pub fn stop(out: &mut Vec<u8>) {
    out.push(b'.');
}

/// Appends `None`.
pub fn none(out: &mut Vec<u8>) {
    out.push(b'N');
}

/// Appends `True` or `False`.
pub fn bool(out: &mut Vec<u8>, bool: bool) {
    out.push(if bool { 0x88 } else { 0x89 });
}

/// Appends a signed integer.
pub fn long(out: &mut Vec<u8>, number: i64) {
    out.extend(b"\x8a\x08");
    out.extend(number.to_le_bytes());
}

/// Appends a signed integer, in 32 bits if it has no more.
pub fn signed(out: &mut Vec<u8>, number: i64) {
    match i32::try_from(number) {
        Ok(small) => {
            out.push(b'J');
            out.extend(small.to_le_bytes());
        }
        Err(_) => long(out, number),
    }
}

/// Appends a text.
pub fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    // A text of more than 4 GiB does not come from a name or a message.
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Appends an unsigned integer.
pub fn integer(out: &mut Vec<u8>, number: u32) {
    if let Ok(small) = i32::try_from(number) {
        out.push(b'J');
        out.extend(small.to_le_bytes());
    } else {
        out.extend(b"\x8a\x05");
        out.extend(number.to_le_bytes());
        out.push(0);
    }
}

/// Appends a float.
pub fn float(out: &mut Vec<u8>, number: f64) {
    out.push(b'G');
    out.extend(number.to_be_bytes());
}

/// Appends a tuple of the two values that were appended last.
pub fn pair(out: &mut Vec<u8>) {
    out.push(0x86);
}

/// Appends a tuple, whose members `members` appends.
pub fn tuple(out: &mut Vec<u8>, members: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'(');
    members(out);
    out.push(b't');
}

/// Appends a list, whose members `members` appends.
pub fn list(out: &mut Vec<u8>, members: impl FnOnce(&mut Vec<u8>)) {
    begin_list(out);
    members(out);
    end_list(out);
}

/// Appends the start of a list; its members follow.
pub fn begin_list(out: &mut Vec<u8>) {
    out.extend(b"](");
}

/// Appends the end of a list.
pub fn end_list(out: &mut Vec<u8>) {
    out.push(b'e');
}

/// Appends a dictionary, whose keys and values, alternating, `entries` appends.
pub fn dict(out: &mut Vec<u8>, entries: impl FnOnce(&mut Vec<u8>)) {
    begin_dict(out);
    entries(out);
    end_dict(out);
}

/// Appends the start of a dictionary; keys and values follow, alternating.
pub fn begin_dict(out: &mut Vec<u8>) {
    out.extend(b"}(");
}

/// Appends the end of a dictionary.
pub fn end_dict(out: &mut Vec<u8>) {
    out.push(b'u');
}

/// Appends the frame of a pickle, whose value `value` appends: four bytes of length, then the pickle.
pub fn frame(out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 4]);
    start(out);
    value(out);
    stop(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}
