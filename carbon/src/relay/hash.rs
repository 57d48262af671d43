//! The hash functions of the rings.

use md5::{Digest, Md5};

/// The first two bytes of the MD5 of `key`: `carbon_ch`.
pub(super) fn md5_16(key: &[u8]) -> u16 {
    let digest = Md5::digest(key);
    u16::from_be_bytes([digest[0], digest[1]])
}

/// FNV-1a with 32 bits: `any_of` of carbon-c-relay.
pub(super) fn fnv1a_32(key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
    key.iter().fold(2_166_136_261, step)
}

/// FNV-1a with 32 bits, folded to 16: `fnv1a_ch`.
pub(super) fn fnv1a_16(key: &[u8]) -> u16 {
    let hash = fnv1a_32(key);
    (hash >> 16) as u16 ^ hash as u16
}

/// FNV-1a with 64 bits: `jump_fnv1a_ch`.
pub(super) fn fnv1a_64(key: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211);
    key.iter().fold(14_695_981_039_346_656_037, step)
}

/// MurmurHash3 with 32 bits and seed 0, signed, as Python's `mmh3.hash`: `mmh3_ch`.
pub(super) fn mmh3(key: &[u8]) -> i32 {
    let scramble = |word: u32| {
        let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15);
        word.wrapping_mul(0x1b87_3593)
    };
    let (words, tail) = key.as_chunks::<4>();
    let mut hash = words.iter().fold(0_u32, |hash, word| {
        let hash = (hash ^ scramble(u32::from_le_bytes(*word))).rotate_left(13);
        hash.wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    let last = tail
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u32::from(*byte));
    hash ^= scramble(last) ^ key.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    (hash ^ hash >> 16).cast_signed()
}

/// Jump consistent hash (Lamping and Veach 2014): the bucket of `key` among `buckets`, which is not 0.
pub(super) fn jump(mut key: u64, buckets: usize) -> usize {
    let (mut bucket, mut next) = (0, 0);
    while next < buckets as i64 {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let scale = (1_u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * scale) as i64;
    }
    bucket as usize
}

/// The next number of the generator xorshift64*.
pub(super) fn xorshift(mut number: u64) -> u64 {
    number ^= number >> 12;
    number ^= number << 25;
    number ^= number >> 27;
    number.wrapping_mul(2_685_821_657_736_338_717)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        assert_eq!(fnv1a_32(b"foobar"), 0xbf9c_f968);
        assert_eq!(fnv1a_64(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(mmh3(b""), 0);
        assert_eq!(mmh3(b"foo"), -156_908_512);
        assert_eq!(md5_16(b"a"), 0x0cc1);
    }
}
