//! What is around the body of a frame, in the journal and in the queues of the relay:
//! `0xa5 'J' | u32 length of the body | u32 CRC-32 of the body | body`, numbers little-endian.

const FRAME_START: [u8; 2] = [0xa5, b'J'];
/// Bytes before the body.
pub(crate) const HEAD: usize = 10;
/// The longest body that a reader accepts.
pub(crate) const MAX_BODY: usize = 64 << 20;

/// Begins a frame at the end of `buffer`; the body is appended after it.
pub(crate) fn begin(buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&FRAME_START);
    buffer.extend_from_slice(&[0; HEAD - FRAME_START.len()]);
}

/// Fills in the head of the frame that begins at `start` and ends with `buffer`.
pub(crate) fn seal(buffer: &mut [u8], start: usize) {
    let body = start + HEAD;
    let len = (buffer.len() - body) as u32;
    let checksum = crc32fast::hash(&buffer[body..]);
    let head = &mut buffer[start + FRAME_START.len()..body];
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[4..].copy_from_slice(&checksum.to_le_bytes());
}

/// The body of the frame at the start of `bytes`, and what follows it; `None` if there is no valid one.
pub(crate) fn open(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let head = bytes.get(..HEAD)?.strip_prefix(&FRAME_START)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let len = word(0) as usize;
    if !(4..=MAX_BODY).contains(&len) {
        return None;
    }
    let body = bytes.get(HEAD..HEAD + len)?;
    (crc32fast::hash(body) == word(4)).then(|| (body, &bytes[HEAD + len..]))
}

/// How many bytes are skipped from `bytes`, where no valid frame begins, to where one may begin.
pub(crate) fn skip(bytes: &[u8]) -> usize {
    let next = memchr::memmem::find(&bytes[1..], &FRAME_START);
    next.map_or(bytes.len(), |at| at + 1)
}
