//! Text: measured, and turned into coverage bitmaps.
//!
//! 1. The fonts are embedded; nothing is looked up on the system. A character that a face lacks
//!    comes from the sans serif, from the files of `render.fonts` or the embedded emoji
//!    ([`fallback`]); one that all lack is a box.
//! 2. Small text is fitted to the pixel grid in height: baseline, x-height and cap height fall on
//!    pixel edges and horizontal stems get whole pixels. That is what makes it look sharp. Widths
//!    are left as designed and glyphs stand at quarter pixels, so spacing stays even.
//! 3. A bitmap is made once per face, size, glyph and quarter pixel, per thread, and the store of
//!    them is bounded. Very large text has none: it is painted as a shape.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::LazyLock;

use ab_glyph::{Font as _, FontRef, Glyph, GlyphId, Outline, OutlineCurve, OutlinedGlyph, Point};
use ab_glyph::{PxScale, PxScaleFactor};

mod fallback;

pub use fallback::{check_fonts, use_fonts};

/// One of the fonts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Face {
    Sans,
    Bold,
    Mono,
    /// Only for characters that the others lack.
    Fallback(u8),
}

/// What a face says about itself, in font units.
struct Loaded {
    font: FontRef<'static>,
    units: f32,
    ascent: f32,
    descent: f32,
    x_height: f32,
    cap_height: f32,
    stem: f32,
}

static FACES: LazyLock<[Option<Loaded>; 3]> = LazyLock::new(|| {
    [
        load(include_bytes!("fonts/sans.ttf"), 170.0),
        load(include_bytes!("fonts/sans-bold.ttf"), 300.0),
        load(include_bytes!("fonts/mono.ttf"), 170.0),
    ]
});

fn load(bytes: &'static [u8], stem: f32) -> Option<Loaded> {
    let font = FontRef::try_from_slice(bytes).ok()?;
    // The bounds have y growing upwards, and the upper left corner is called `min`.
    let height = |c| Some(font.outline(font.glyph_id(c))?.bounds.min.y);
    Some(Loaded {
        units: font.units_per_em()?,
        ascent: font.ascent_unscaled(),
        descent: -font.descent_unscaled(),
        x_height: height('x')?,
        cap_height: height('H')?,
        stem,
        font,
    })
}

impl Face {
    /// The face that comes nearest to what a request asks for: a fixed-width one when the name
    /// says so, the sans serif otherwise.
    pub(super) fn named(name: &str, bold: bool) -> Self {
        let name = name.to_ascii_lowercase();
        let fixed = ["mono", "courier", "consol", "fixed", "typewriter"];
        if fixed.iter().any(|f| name.contains(f)) {
            Self::Mono
        } else if bold || name.contains("bold") {
            Self::Bold
        } else {
            Self::Sans
        }
    }

    fn loaded(self) -> Option<&'static Loaded> {
        FACES[match self {
            Self::Sans => 0,
            Self::Bold => 1,
            Self::Mono => 2,
            Self::Fallback(number) => return fallback::loaded(number),
        }]
        .as_ref()
    }

    /// The glyph of a character, in this face or the one that helps out.
    fn glyph(self, c: char) -> Option<Found> {
        let c = printable(c);
        let found = |face: Self| {
            let loaded = face.loaded()?;
            let glyph = loaded.font.glyph_id(c);
            Some(Found {
                face,
                loaded,
                glyph,
                advance: loaded.font.h_advance_unscaled(glyph) / loaded.units,
            })
        };
        let own = found(self);
        if own.as_ref().is_some_and(|own| own.glyph != GlyphId(0)) {
            return own;
        }
        if fallback::is_unseen(c) {
            return None;
        }
        let sans = found(Self::Sans);
        if sans.as_ref().is_some_and(|sans| sans.glyph != GlyphId(0)) {
            return sans;
        }
        match fallback::find(c) {
            Some((face, loaded, glyph)) => Some(Found {
                face,
                loaded,
                glyph,
                advance: loaded.font.h_advance_unscaled(glyph) / loaded.units,
            }),
            None => sans.or(own),
        }
    }

    /// How far `c` takes the pen, in ems.
    fn advance(self, c: char) -> f32 {
        match self.glyph(c) {
            Some(found) => found.advance,
            None if fallback::is_unseen(c) => 0.0,
            None => 0.6,
        }
    }
}

/// A glyph and where it is from.
struct Found {
    face: Face,
    loaded: &'static Loaded,
    glyph: GlyphId,
    /// In ems.
    advance: f32,
}

/// A face at a size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Font {
    pub(super) face: Face,
    /// Pixels per em.
    pub(super) size: f32,
    pub(super) italic: bool,
}

impl Font {
    /// `size` is kept within 1 to 500.
    pub(super) fn new(face: Face, size: f32, italic: bool) -> Self {
        Self {
            face,
            size: size.clamp(1.0, 500.0),
            italic,
        }
    }

    pub(super) fn sized(self, size: f32) -> Self {
        Self::new(self.face, size, self.italic)
    }

    /// Pixels from the baseline up to the top of the tallest letters, whole.
    pub(super) fn ascent(self) -> f64 {
        let share = self.face.loaded().map_or(0.93, |f| f.ascent / f.units);
        f64::from((share * self.size).round())
    }

    /// Pixels from the baseline down, whole.
    pub(super) fn descent(self) -> f64 {
        let share = self.face.loaded().map_or(0.24, |f| f.descent / f.units);
        f64::from((share * self.size).ceil())
    }

    /// Pixels from one line to the next.
    pub(super) fn height(self) -> f64 {
        self.ascent() + self.descent()
    }

    /// Pixels from the baseline to the top of a capital letter or digit.
    pub(super) fn cap_height(self) -> f64 {
        let share = self.face.loaded().map_or(0.73, |f| f.cap_height / f.units);
        f64::from((share * self.size).round())
    }

    /// Pixels that `text` takes on a line.
    pub(super) fn width(self, text: &str) -> f64 {
        let ems: f32 = text.chars().map(|c| self.face.advance(c)).sum();
        f64::from(ems * self.size)
    }

    /// As [`Font::width`], but where that is more than `most`, only something more than `most`: a
    /// name may be much longer than a picture is wide.
    pub(super) fn width_within(self, text: &str, most: f64) -> f64 {
        let mut ems = 0.0_f32;
        for c in text.chars() {
            ems += self.face.advance(c);
            if f64::from(ems * self.size) > most {
                break;
            }
        }
        f64::from(ems * self.size)
    }

    /// `text`, cut with an ellipsis so that it is at most `width` pixels wide; empty when not even
    /// three letters would be left.
    pub(super) fn fit(self, text: &str, width: f64) -> String {
        if self.width_within(text, width) <= width {
            return text.to_owned();
        }
        let advance = |c| self.face.advance(c) * self.size;
        let mut left = width - f64::from(advance('…'));
        let mut end = 0;
        let mut kept = 0;
        for (at, c) in text.char_indices() {
            left -= f64::from(advance(c));
            if left < 0.0 {
                break;
            }
            end = at + c.len_utf8();
            kept += 1;
        }
        if kept < 3 {
            return String::new();
        }
        format!("{}…", text[..end].trim_end())
    }
}

/// Control characters take the place of a blank.
fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// The pixels of one glyph: `coverage` holds rows of `width` values, the first at `left`, `top`
/// from the pen (y grows downwards).
#[derive(Debug)]
pub(super) struct Bitmap {
    pub(super) left: i32,
    pub(super) top: i32,
    pub(super) width: u32,
    pub(super) coverage: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    face: Face,
    italic: bool,
    /// Sixty-fourths of a pixel.
    size: u32,
    glyph: GlyphId,
    quarter: u8,
}

/// A few thousand small bitmaps, 100 bytes each or so.
const CACHE_LIMIT: usize = 4096;

/// The bytes of all bitmaps of a thread.
const CACHE_BYTES: usize = 1024 * 1024;

/// The largest text, in device pixels per em, that is made of bitmaps.
pub(super) const LARGEST_BITMAP: f32 = 128.0;

#[derive(Default)]
struct Cache {
    bitmaps: HashMap<Key, Option<Rc<Bitmap>>>,
    bytes: usize,
}

impl Cache {
    fn get(&mut self, loaded: &Loaded, key: Key) -> Option<Rc<Bitmap>> {
        if let Some(known) = self.bitmaps.get(&key) {
            return known.clone();
        }
        if self.bitmaps.len() >= CACHE_LIMIT || self.bytes >= CACHE_BYTES {
            *self = Self::default();
        }
        let bitmap = raster(loaded, key);
        self.bytes += bitmap.as_ref().map_or(0, |b| b.coverage.len());
        self.bitmaps.insert(key, bitmap.clone());
        bitmap
    }
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// Calls `put(bitmap, x)` for every visible glyph of `text` that begins before `end`; `x` is the
/// whole pixel of the pen, counted from the start of the text, which stands `offset` (0 to 1) into
/// a pixel. `ratio` is device pixels per pixel.
pub(super) fn glyphs(
    font: Font,
    text: &str,
    ratio: f32,
    (offset, end): (f32, f32),
    mut put: impl FnMut(&Bitmap, i32),
) {
    let size = (font.size * ratio * 64.0).round().max(64.0) as u32;
    let pixels = size as f32 / 64.0;
    CACHE.with_borrow_mut(|cache| {
        let mut pen = offset;
        for c in text.chars() {
            if pen > end {
                break;
            }
            let Some(found) = font.face.glyph(c) else {
                continue;
            };
            let at = (pen * 4.0).round() as i32;
            let key = Key {
                face: found.face,
                italic: font.italic,
                size,
                glyph: found.glyph,
                quarter: at.rem_euclid(4) as u8,
            };
            if let Some(bitmap) = cache.get(found.loaded, key) {
                put(&bitmap, at.div_euclid(4));
            }
            pen += found.advance * pixels;
        }
    });
}

/// How much a slanted glyph leans, sideways per height.
const SLANT: f32 = 0.21;

fn raster(loaded: &Loaded, key: Key) -> Option<Rc<Bitmap>> {
    let size = key.size as f32 / 64.0;
    let scale = size / loaded.units;
    let fit = Fit::new(loaded, scale);
    let slant = if key.italic { SLANT } else { 0.0 };
    let outline = loaded.font.outline(key.glyph)?;
    let warp = |p: Point| {
        let y = fit.height(p.y);
        Point {
            x: p.x * scale + y * slant,
            y,
        }
    };
    let curves: Vec<OutlineCurve> = outline
        .curves
        .iter()
        .map(|curve| match *curve {
            OutlineCurve::Line(a, b) => OutlineCurve::Line(warp(a), warp(b)),
            OutlineCurve::Quad(a, b, c) => OutlineCurve::Quad(warp(a), warp(b), warp(c)),
            OutlineCurve::Cubic(a, b, c, d) => {
                OutlineCurve::Cubic(warp(a), warp(b), warp(c), warp(d))
            }
        })
        .collect();
    // A curve lies within the hull of its points, so their box holds all of it.
    let points = || curves.iter().flat_map(points_of);
    let low = points().fold((f32::MAX, f32::MAX), |m, p| (m.0.min(p.x), m.1.min(p.y)));
    let high = points().fold((f32::MIN, f32::MIN), |m, p| (m.0.max(p.x), m.1.max(p.y)));
    if low.0 > high.0 {
        return None;
    }
    let bounds = ab_glyph::Rect {
        min: Point {
            x: low.0,
            y: high.1,
        },
        max: Point {
            x: high.0,
            y: low.1,
        },
    };
    let glyph = Glyph {
        id: key.glyph,
        scale: PxScale::from(size),
        position: Point {
            x: f32::from(key.quarter) / 4.0,
            y: 0.0,
        },
    };
    let unscaled = PxScaleFactor {
        horizontal: 1.0,
        vertical: 1.0,
    };
    let outlined = OutlinedGlyph::new(glyph, Outline { bounds, curves }, unscaled);
    let area = outlined.px_bounds();
    let (width, height) = (area.width() as u32, area.height() as u32);
    if width == 0 || height == 0 || width > 4096 || height > 4096 {
        return None;
    }
    let mut coverage = vec![0; (width * height) as usize];
    outlined.draw(|x, y, c| {
        if let Some(pixel) = coverage.get_mut((y * width + x) as usize) {
            *pixel = (c.clamp(0.0, 1.0) * 255.0).round() as u8;
        }
    });
    Some(Rc::new(Bitmap {
        left: area.min.x as i32,
        top: area.min.y as i32,
        width,
        coverage,
    }))
}

fn points_of(curve: &OutlineCurve) -> impl Iterator<Item = Point> {
    let (points, n) = match *curve {
        OutlineCurve::Line(a, b) => ([a, b, a, a], 2),
        OutlineCurve::Quad(a, b, c) => ([a, b, c, a], 3),
        OutlineCurve::Cubic(a, b, c, d) => ([a, b, c, d], 4),
    };
    points.into_iter().take(n)
}

/// Where heights of the design fall on the pixel grid: straight pieces between fixed points.
struct Fit {
    /// Font units to pixels, both increasing.
    pieces: [(f32, f32); 6],
    scale: f32,
}

impl Fit {
    fn new(loaded: &Loaded, scale: f32) -> Self {
        let Loaded {
            x_height,
            cap_height,
            stem,
            ..
        } = *loaded;
        // Rounded up rather than down: small text reads better a little too tall.
        let x_px = (x_height * scale + 0.3).round().max(1.0);
        let cap_px = (cap_height * scale + 0.3).round().max(x_px + 1.0);
        let stem_px = (stem * scale).round().max(1.0);
        let fits = cap_px - x_px > stem_px && x_px > 2.0 * stem_px;
        // Large text needs no help, tiny text has no room for it.
        let pieces = if fits && scale * loaded.units < 40.0 {
            [
                (0.0, 0.0),
                (stem, stem_px),
                (x_height - stem, x_px - stem_px),
                (x_height, x_px),
                (cap_height - stem, (cap_px - stem_px).max(x_px + 0.01)),
                (cap_height, cap_px),
            ]
        } else {
            [
                0.0,
                stem,
                x_height - stem,
                x_height,
                cap_height - stem,
                cap_height,
            ]
            .map(|h| (h, h * scale))
        };
        Self { pieces, scale }
    }

    fn height(&self, units: f32) -> f32 {
        let overshoot = 32.0;
        let [first, .., last] = self.pieces;
        if units < first.0 {
            // Round letters dip below the baseline by a hair; on the grid they stand on it.
            return if units > -overshoot {
                0.0
            } else {
                (units + overshoot) * self.scale
            };
        }
        if units >= last.0 {
            let over = units - last.0;
            return if over < overshoot {
                last.1
            } else {
                last.1 + (over - overshoot) * self.scale
            };
        }
        let (mut low, mut high) = (first, last);
        for pair in self.pieces.windows(2) {
            if units >= pair[0].0 && units <= pair[1].0 {
                (low, high) = (pair[0], pair[1]);
                break;
            }
        }
        low.1 + (units - low.0) * (high.1 - low.1) / (high.0 - low.0).max(1e-6)
    }
}

/// The outline of `text`, as far as it begins before `end`, as closed curves in pixels around its
/// start on the baseline, y growing downwards: for very large text, and text at odd angles.
pub(super) fn outline(font: Font, text: &str, end: f32, mut put: impl FnMut(OutlineCurve)) {
    let slant = if font.italic { SLANT } else { 0.0 };
    let mut pen = 0.0;
    for found in text.chars().filter_map(|c| font.face.glyph(c)) {
        if pen > end {
            break;
        }
        let scale = font.size / found.loaded.units;
        let place = |p: Point| Point {
            x: pen + (p.x + p.y * slant) * scale,
            y: -p.y * scale,
        };
        let outline = found.loaded.font.outline(found.glyph);
        for curve in outline.into_iter().flat_map(|o| o.curves) {
            put(match curve {
                OutlineCurve::Line(a, b) => OutlineCurve::Line(place(a), place(b)),
                OutlineCurve::Quad(a, b, c) => OutlineCurve::Quad(place(a), place(b), place(c)),
                OutlineCurve::Cubic(a, b, c, d) => {
                    OutlineCurve::Cubic(place(a), place(b), place(c), place(d))
                }
            });
        }
        pen += found.advance * font.size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_face_loads() {
        for face in [Face::Sans, Face::Bold, Face::Mono] {
            let loaded = face.loaded().unwrap();
            assert!(loaded.x_height > 1000.0 && loaded.cap_height > loaded.x_height);
        }
    }

    #[test]
    fn fitting_keeps_to_the_width() {
        let font = Font::new(Face::Sans, 10.0, false);
        let name = "servers.web01.cpu.user and more of it";
        for width in [0.0, 5.0, 20.0, 50.0, 100.0, 1000.0] {
            let cut = font.fit(name, width);
            assert!(font.width(&cut) <= width, "{cut}");
        }
        assert_eq!(font.fit(name, 1000.0), name);
        assert_eq!(font.fit(name, 3.0), "");
    }

    #[test]
    fn x_height_is_whole_pixels() {
        let mut rows = Vec::new();
        let font = Font::new(Face::Sans, 10.0, false);
        glyphs(font, "x", 1.0, (0.0, 100.0), |b, _| {
            rows.push((b.top, b.coverage.len() as u32 / b.width));
        });
        assert_eq!(rows, [(-6, 6)]);
    }

    #[test]
    fn hostile_text_draws_something_or_nothing() {
        for text in ["", "\u{0}\n\t", "\u{202e}abc", "日本語", "👩‍👩‍👧", "\u{ffff}"]
        {
            let font = Font::new(Face::Bold, 11.0, true);
            glyphs(font, text, 1.0, (0.5, 100.0), |b, _| {
                assert_eq!(b.coverage.len() % b.width as usize, 0);
            });
            assert!(font.width(text) >= 0.0);
        }
    }
}
