//! Pixels to a PNG file.
//!
//! Encoding is most of what a picture costs, and its cost goes with the bytes that go in. A graph
//! is a few flat colours and the steps between them, so an opaque picture is written with a palette
//! of 256: a quarter of the bytes, a third of the time and two thirds of the size of full colour.
//! The most frequent colours are kept exactly; of the rest (some hundreds, where lines cross at
//! their blurred edges) those that are least like what is already there get the places that are
//! left, and the others the nearest. In pictures with thousands of colours, the later ones
//! are distinguished less finely. Pictures that one can see through keep all their colours.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use png::{BitDepth, ColorType, Encoder, chunk};
use tiny_skia::PixmapRef;

use super::reserved::empty;
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::format::Buffer;
use crate::format::buffer::stopped;

const PALETTE: usize = 256;

/// Up to this many colours are kept exactly, then by five bits a channel up to
/// [`COARSE_FROM`] and by four from there on: never more than 4,096 of those.
const FINE_UP_TO: usize = 3000;
const COARSE_FROM: usize = 6000;

/// Pixels between two looks at the clock.
const ROUND: usize = 1 << 20;

/// Encodes the picture.
///
/// # Errors
/// As [`Budget::check`] and [`Budget::reserve`].
pub(super) fn encode(pixels: PixmapRef<'_>, budget: &Budget) -> Result<Buffer> {
    let mut alpha = 255;
    for strip in pixels.data().chunks(4 * ROUND) {
        budget.check()?;
        // Without a way out of the loop it takes many pixels at a time.
        alpha = strip.chunks_exact(4).fold(alpha, |all, p| all & p[3]);
    }
    let width = pixels.width() as usize;
    if alpha == 255 {
        let (mut places, _held) = empty(width * pixels.height() as usize, budget)?;
        let (palette, chosen) = index(pixels.data(), &mut places, budget)?;
        let rows = places.chunks_exact(width).map(|scanline| {
            let scanline = scanline.iter().map(|place| chosen[usize::from(*place)]);
            scanline.collect()
        });
        return write(pixels, Some(&palette), rows, budget);
    }
    let rows = pixels.pixels().chunks_exact(width).map(|scanline| {
        let colors = scanline.iter().map(|pixel| pixel.demultiply());
        let bytes = colors.flat_map(|c| [c.red(), c.green(), c.blue(), c.alpha()]);
        bytes.collect()
    });
    write(pixels, None, rows, budget)
}

/// With a palette, a scanline has a byte for each pixel; without, four.
fn write(
    picture: PixmapRef<'_>,
    palette: Option<&[u8]>,
    rows: impl Iterator<Item = Vec<u8>>,
    budget: &Budget,
) -> Result<Buffer> {
    // Level 2 takes half the time of level 3 for a tenth more bytes. Line art compresses better,
    // and faster, without filters.
    let mut compressed = ZlibEncoder::new(Buffer::new(budget), Compression::new(2));
    const NO_FILTER: u8 = 0;
    let mut seen = 0;
    for scanline in rows {
        seen += scanline.len();
        if seen > ROUND {
            budget.check()?;
            seen = 0;
        }
        compressed.write_all(&[NO_FILTER]).map_err(stopped)?;
        compressed.write_all(&scanline).map_err(stopped)?;
    }
    let compressed = compressed.finish().map_err(stopped)?;
    let mut out = Buffer::new(budget);
    // Beside the pixels there are a header and a palette.
    out.room(compressed.len() + 2 * 1024)?;
    let mut encoder = Encoder::new(&mut out, picture.width(), picture.height());
    match palette {
        Some(palette) => {
            encoder.set_color(ColorType::Indexed);
            encoder.set_palette(palette);
        }
        None => encoder.set_color(ColorType::Rgba),
    }
    encoder.set_depth(BitDepth::Eight);
    let failed = |error: png::EncodingError| match error {
        png::EncodingError::IoError(error) => stopped(error),
        other => Error::Failed(other.to_string()),
    };
    let mut writer = encoder.write_header().map_err(failed)?;
    writer
        .write_chunk(chunk::IDAT, &compressed)
        .map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(out)
}

/// A colour as one number: the first three bytes of a pixel.
fn packed(pixel: &[u8]) -> u32 {
    match pixel {
        [r, g, b, ..] => u32::from_le_bytes([*r, *g, *b, 0]),
        _ => 0,
    }
}

/// The palette (red, green, blue of each entry), and the entry of each colour. The colour of each
/// pixel, counted in order of appearance, goes to `places`.
fn index(data: &[u8], places: &mut Vec<u16>, budget: &Budget) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut colors = Colors::new();
    for strip in data.chunks(4 * ROUND) {
        budget.check()?;
        // A run of equal ones at a time.
        let mut pixels = strip.chunks_exact(4).map(packed).peekable();
        while let Some(color) = pixels.next() {
            let mut run = 1;
            while pixels.next_if_eq(&color).is_some() {
                run += 1;
            }
            let place = colors.place(color);
            colors.found[usize::from(place)].1 += run;
            places.resize(places.len() + run as usize, place);
        }
    }
    let (palette, chosen) = choose(&colors.found);
    let bytes = palette.iter().flat_map(|c| {
        let [r, g, b, _] = c.to_le_bytes();
        [r, g, b]
    });
    Ok((bytes.collect(), chosen))
}

/// Different colours with their numbers, found by hash.
struct Colors {
    found: Vec<(u32, u32)>,
    /// One above the place in `found`; 0 is free.
    table: Vec<u16>,
}

impl Colors {
    /// More than there can ever be colours, so that the search for a free one ends.
    const SLOTS: usize = 1 << 15;

    fn new() -> Self {
        Self {
            found: Vec::with_capacity(1024),
            table: vec![0; Self::SLOTS],
        }
    }

    fn place(&mut self, color: u32) -> u16 {
        let (found, slot) = self.search(color);
        if let Some(place) = found {
            return place;
        }
        match self.found.len() {
            0..FINE_UP_TO => self.add(color, slot),
            FINE_UP_TO..COARSE_FROM => self.place_rough(color & 0x00f8_f8f8 | 0x0004_0404),
            _ => self.place_rough(color & 0x00f0_f0f0 | 0x0008_0808),
        }
    }

    fn place_rough(&mut self, color: u32) -> u16 {
        match self.search(color) {
            (Some(place), _) => place,
            (None, slot) => self.add(color, slot),
        }
    }

    /// The place of a colour, or the slot where it belongs.
    fn search(&self, color: u32) -> (Option<u16>, usize) {
        let mut slot = (color.wrapping_mul(0x9e37_79b1) >> 17) as usize;
        loop {
            match self.table[slot] {
                0 => return (None, slot),
                at if self.found[usize::from(at) - 1].0 == color => return (Some(at - 1), slot),
                _ => slot = (slot + 1) % Self::SLOTS,
            }
        }
    }

    fn add(&mut self, color: u32, slot: usize) -> u16 {
        let place = self.found.len() as u16;
        self.found.push((color, 0));
        self.table[slot] = place + 1;
        place
    }
}

/// The palette, and for each of `found` (colours with their numbers) its place in it.
///
/// Half of it goes to the most frequent colours. Then, again and again, the colour that is farthest
/// from all entries gets one, frequent ones a little sooner.
fn choose(found: &[(u32, u32)]) -> (Vec<u32>, Vec<u8>) {
    let mut order: Vec<u16> = (0..found.len() as u16).collect();
    // Equal ones in the order of their first pixel: the same picture is always the same file.
    order.sort_by_key(|i| std::cmp::Reverse(found[usize::from(*i)].1));
    let mut rest = Rest::new(found);
    let exact = if found.len() <= PALETTE {
        found.len()
    } else {
        PALETTE / 2
    };
    for i in &order[..exact] {
        rest.take(usize::from(*i));
    }
    while rest.palette.len() < PALETTE.min(found.len()) {
        let farthest = rest.farthest();
        rest.take(farthest);
    }
    (rest.palette, rest.nearest)
}

/// Every colour with the nearest entry of the palette so far.
struct Rest {
    palette: Vec<u32>,
    channels: [Vec<i32>; 3],
    /// How much the distance of a colour counts, for its frequency.
    weight: Vec<i32>,
    distance: Vec<i32>,
    nearest: Vec<u8>,
}

impl Rest {
    fn new(found: &[(u32, u32)]) -> Self {
        let channel = |n: usize| {
            found
                .iter()
                .map(|f| i32::from(f.0.to_le_bytes()[n]))
                .collect()
        };
        Self {
            palette: Vec::with_capacity(PALETTE),
            channels: [channel(0), channel(1), channel(2)],
            weight: found
                .iter()
                .map(|f| f.1.max(1).ilog2() as i32 + 1)
                .collect(),
            distance: vec![i32::MAX; found.len()],
            nearest: vec![0; found.len()],
        }
    }

    /// Makes colour `i` the next entry.
    fn take(&mut self, i: usize) {
        let [reds, greens, blues] = &self.channels;
        let place = self.palette.len() as u8;
        let (r, g, b) = (reds[i], greens[i], blues[i]);
        self.palette
            .push(u32::from_le_bytes([r as u8, g as u8, b as u8, 0]));
        let others = reds.iter().zip(greens).zip(blues).zip(&self.weight);
        let known = self.distance.iter_mut().zip(&mut self.nearest);
        for ((((x, y), z), weight), (distance, nearest)) in others.zip(known) {
            let (dr, dg, db) = (x - r, y - g, z - b);
            // The eye is best at green. At most 7 * 255² * 32: no overflow.
            let now = (2 * dr * dr + 4 * dg * dg + db * db) * weight;
            let closer = now < *distance;
            *distance = if closer { now } else { *distance };
            *nearest = if closer { place } else { *nearest };
        }
    }

    fn farthest(&self) -> usize {
        let most = self.distance.iter().copied().max().unwrap_or(0);
        let is = |d: &i32| *d == most;
        self.distance.iter().position(is).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiny_skia::Pixmap;

    fn decoded(file: &[u8]) -> (png::ColorType, Vec<u8>) {
        let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let kind = reader.info().color_type;
        let mut data = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut data).unwrap();
        data.truncate(info.buffer_size());
        (kind, data)
    }

    fn encoded(pixels: &Pixmap) -> Vec<u8> {
        let file = encode(pixels.as_ref(), &Budget::unlimited()).unwrap();
        file.to_vec()
    }

    fn picture(color: impl Fn(u32) -> [u8; 4]) -> Pixmap {
        let mut pixels = Pixmap::new(100, 80).unwrap();
        for (i, p) in pixels.data_mut().chunks_exact_mut(4).enumerate() {
            p.copy_from_slice(&color(i as u32));
        }
        pixels
    }

    #[test]
    fn few_colours_are_exact() {
        let pixels = picture(|i| [(i % 256) as u8, 7, 9, 255]);
        let (kind, data) = decoded(&encoded(&pixels));
        assert_eq!(kind, ColorType::Indexed);
        let expected: Vec<u8> = pixels
            .data()
            .chunks(4)
            .flat_map(|p| p[..3].to_vec())
            .collect();
        assert_eq!(data, expected);
    }

    #[test]
    fn rare_colours_are_near_theirs() {
        // A ground with two thousand shades of two ramps, each once.
        let pixels = picture(|i| match i {
            0..1000 => [(i / 4) as u8, (i % 4) as u8, 40, 255],
            1000..2000 => [200, (i % 250) as u8, ((i - 1000) / 250) as u8, 255],
            _ => [255, 255, 255, 255],
        });
        let (kind, data) = decoded(&encoded(&pixels));
        assert_eq!(kind, ColorType::Indexed);
        for (ours, theirs) in data.chunks(3).zip(pixels.data().chunks(4)) {
            for (a, b) in ours.iter().zip(theirs) {
                assert!(a.abs_diff(*b) <= 14, "{ours:?} {theirs:?}");
            }
        }
        assert_eq!(&data[3 * 5000..], &vec![255; 3 * 3000][..]);
    }

    #[test]
    fn a_great_many_colours_are_still_near_theirs() {
        let pixels = picture(|i| {
            [
                (i % 251) as u8,
                (i / 251) as u8 * 8,
                (i % 7) as u8 * 30,
                255,
            ]
        });
        let (kind, data) = decoded(&encoded(&pixels));
        assert_eq!(kind, ColorType::Indexed);
        for (ours, theirs) in data.chunks(3).zip(pixels.data().chunks(4)) {
            for (a, b) in ours.iter().zip(theirs) {
                assert!(a.abs_diff(*b) <= 60, "{ours:?} {theirs:?}");
            }
        }
    }

    #[test]
    fn glass_stays_glass() {
        let glass = picture(|_| [10, 0, 0, 20]);
        let (kind, data) = decoded(&encoded(&glass));
        assert_eq!(kind, ColorType::Rgba);
        assert_eq!(data[..4], [128, 0, 0, 20]);
    }
}
