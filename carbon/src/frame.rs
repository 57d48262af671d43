//! Frames of the server's own logs: `u32 length of the body | u32 CRC-32 of the body | body`, numbers
//! little-endian.

use std::fs::File;
use std::io::{self, Write};

/// Writes a frame and returns its length; nothing if it is empty.
///
/// # Errors
/// The disk failed; a part of the frame may be written.
pub(crate) fn write_frame(file: &mut File, body: &[u8]) -> io::Result<u64> {
    if body.is_empty() {
        return Ok(0);
    }
    let mut frame = Vec::with_capacity(body.len() + 8);
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    frame.extend_from_slice(body);
    file.write_all(&frame)?;
    Ok(frame.len() as u64)
}

/// The body of the frame at the start of `bytes`, if it is complete.
pub(crate) fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let [a, b, c, d, e, f, g, h] = *head;
    let body = rest.get(..u32::from_le_bytes([a, b, c, d]) as usize)?;
    (crc32fast::hash(body) == u32::from_le_bytes([e, f, g, h])).then_some(body)
}
