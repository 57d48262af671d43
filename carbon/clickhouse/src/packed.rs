//! Blocks in ClickHouse's own compression, which `decompress=1` announces.
//!
//! ```text
//! CityHash128 of what follows (16 bytes) | 0x82 | u32 size of this header and the data | u32 size before | LZ4
//! ```

/// The bytes before compression of one frame.
const FRAME: usize = 1 << 20;
const LZ4: u8 = 0x82;
const CHECKSUM: usize = 16;
const HEADER: usize = 9;

/// `bytes`, compressed.
pub(crate) fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / 3 + 64);
    for frame in bytes.chunks(FRAME) {
        let begin = out.len();
        let most = lz4_flex::block::get_maximum_output_size(frame.len());
        out.resize(begin + CHECKSUM + HEADER + most, 0);
        let body = begin + CHECKSUM + HEADER;
        // The room is as large as the library asks for: it does not fail.
        let Ok(size) = lz4_flex::block::compress_into(frame, &mut out[body..]) else {
            out.truncate(begin);
            continue;
        };
        out.truncate(body + size);
        let whole = (size + HEADER) as u32;
        out[begin + CHECKSUM] = LZ4;
        out[begin + CHECKSUM + 1..begin + CHECKSUM + 5].copy_from_slice(&whole.to_le_bytes());
        out[begin + CHECKSUM + 5..body].copy_from_slice(&(frame.len() as u32).to_le_bytes());
        let sum = cityhash_rs::cityhash_102_128(&out[begin + CHECKSUM..]);
        // The higher half first.
        out[begin..begin + 8].copy_from_slice(&((sum >> 64) as u64).to_le_bytes());
        out[begin + 8..begin + 16].copy_from_slice(&(sum as u64).to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ClickHouse does with it.
    fn read(mut packed: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while !packed.is_empty() {
            let word =
                |at: usize| u32::from_le_bytes(packed[at..at + 4].try_into().unwrap()) as usize;
            assert_eq!(packed[CHECKSUM], LZ4);
            let end = CHECKSUM + word(CHECKSUM + 1);
            let data = &packed[CHECKSUM + HEADER..end];
            out.extend(lz4_flex::block::decompress(data, word(CHECKSUM + 5)).unwrap());
            packed = &packed[end..];
        }
        out
    }

    #[test]
    fn every_frame_reads_back() {
        for len in [0, 1, 100, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME] {
            let bytes: Vec<u8> = (0..len).map(|n| (n / 7) as u8).collect();
            assert_eq!(read(&lz4(&bytes)), bytes, "{len}");
        }
    }
}
