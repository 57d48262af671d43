//! Narrow lines, fast.
//!
//! A graph is mostly polylines of a pixel or so in width, hundreds of segments each. Outlining
//! such a line and filling the outline, as tiny-skia does for any path, costs half a millisecond a
//! series. Here every pixel near a segment gets its coverage from its distance to it, the
//! strongest segment counts, and the line is laid over the picture in one go: a tenth of that, with
//! round joins and ends. So a pixel where a line touches itself is not painted twice.
//!
//! Coverage has [`LEVELS`] steps: the eye sees no more on a line, and a picture then has few
//! colours (see [`super::png`]).

use tiny_skia::Pixmap;

use super::color::Color;
use super::reserved::zeros;
use crate::budget::{Budget, Reservation};
use crate::error::Result;

/// Steps from bare to covered.
pub(super) const LEVELS: f32 = 16.0;

/// Wider lines are left to the general way.
pub(super) const WIDEST: f32 = 6.0;

/// Where lines are gathered before they are laid over the picture. All zero between lines.
pub(super) struct Pen {
    width: usize,
    height: usize,
    /// Coverage of each pixel, 0 to [`LEVELS`].
    coverage: Vec<u8>,
    /// The pixels of each scanline that may be covered: from, until.
    touched: Vec<(u32, u32)>,
    _held: Reservation,
}

/// Pixels that are looked at between two looks at the clock.
const ROUND: usize = 1 << 20;

impl Pen {
    /// A pen for a picture of that size.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub(super) fn new(width: u32, height: u32, budget: &Budget) -> Result<Self> {
        let (width, height) = (width as usize, height as usize);
        let (coverage, held) = zeros(width * height, budget)?;
        Ok(Self {
            width,
            height,
            coverage,
            touched: vec![(u32::MAX, 0); height],
            _held: held,
        })
    }

    /// Draws a polyline, in device pixels.
    ///
    /// # Errors
    /// As [`Budget::check`]; the pen is of no use then.
    pub(super) fn stroke(
        &mut self,
        points: impl Iterator<Item = (f32, f32)>,
        width: f32,
        color: Color,
        pixels: &mut Pixmap,
        budget: &Budget,
    ) -> Result<()> {
        let mut last: Option<(f32, f32)> = None;
        let mut seen = 0;
        for point in points {
            if let Some(last) = last {
                seen += self.segment(last, point, width);
            }
            last = Some(point);
            if seen > ROUND {
                budget.check()?;
                seen = 0;
            }
        }
        self.lay(color, pixels);
        Ok(())
    }

    /// Gathers one segment; returns about how many pixels that took to look at.
    fn segment(&mut self, a: (f32, f32), b: (f32, f32), width: f32) -> usize {
        // A line thinner than a pixel is one of a pixel, fainter.
        let strength = width.min(1.0) * LEVELS;
        let half = width.max(1.0) / 2.0;
        let reach = half + 0.5;
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let length = dx.hypot(dy);
        let (ux, uy) = if length > 1e-6 {
            (dx / length, dy / length)
        } else {
            (1.0, 0.0)
        };
        let clip = |at: f32, most: usize| at.clamp(0.0, most as f32) as usize;
        let top = clip((a.1.min(b.1) - reach).floor(), self.height);
        let bottom = clip((a.1.max(b.1) + reach).ceil(), self.height);
        let leftmost = a.0.min(b.0) - reach;
        let rightmost = a.0.max(b.0) + reach;
        let mut seen = 8;
        for scanline in top..bottom {
            let py = scanline as f32 + 0.5 - a.1;
            let (mut from, mut until) = (leftmost, rightmost);
            if uy.abs() > 1e-3 {
                let center = a.0 + ux * py / uy;
                let side = reach / uy.abs();
                from = from.max(center - side);
                until = until.min(center + side);
            }
            let first = clip((from - 0.5).floor(), self.width);
            let end = clip((until + 0.5).ceil(), self.width);
            if first >= end {
                continue;
            }
            seen += end - first + 8;
            let (low, high) = &mut self.touched[scanline];
            *low = (*low).min(first as u32);
            *high = (*high).max(end as u32);
            let line =
                &mut self.coverage[scanline * self.width + first..scanline * self.width + end];
            for (i, covered) in line.iter_mut().enumerate() {
                let px = (first + i) as f32 + 0.5 - a.0;
                let along = (px * ux + py * uy).clamp(0.0, length);
                let (ox, oy) = (px - along * ux, py - along * uy);
                let distance = (ox * ox + oy * oy).sqrt();
                let level = ((reach - distance).clamp(0.0, 1.0) * strength + 0.5) as u8;
                *covered = (*covered).max(level);
            }
        }
        seen
    }

    /// Lays what has been gathered over the picture and is empty again.
    fn lay(&mut self, color: Color, pixels: &mut Pixmap) {
        let mixes: [Mix; LEVELS as usize + 1] =
            std::array::from_fn(|level| Mix::new(color, level as f32 / LEVELS));
        let data = pixels.data_mut();
        for (scanline, touched) in self.touched.iter_mut().enumerate() {
            let (low, high) = std::mem::replace(touched, (u32::MAX, 0));
            if low >= high {
                continue;
            }
            let range = scanline * self.width + low as usize..scanline * self.width + high as usize;
            let line = &mut data[range.start * 4..range.end * 4];
            let covered = &mut self.coverage[range];
            for (level, pixel) in covered.iter_mut().zip(line.chunks_exact_mut(4)) {
                if *level != 0 {
                    mixes[usize::from(*level)].over(pixel);
                    *level = 0;
                }
            }
        }
    }
}

/// A colour at a strength, ready to be laid over pixels.
#[derive(Clone, Copy)]
pub(super) struct Mix {
    /// Premultiplied, in 65,536ths of a step.
    add: [u32; 4],
    keep: u32,
}

impl Mix {
    pub(super) fn new(color: Color, strength: f32) -> Self {
        let strength = (strength * color.alpha).clamp(0.0, 1.0);
        let part = |c: u8| (f32::from(c) * strength * 65_536.0) as u32;
        let [r, g, b] = color.rgb;
        Self {
            add: [part(r), part(g), part(b), part(255)],
            keep: ((1.0 - strength) * 65_536.0) as u32,
        }
    }

    /// Lays it over one premultiplied pixel.
    pub(super) fn over(self, pixel: &mut [u8]) {
        for (old, add) in pixel.iter_mut().zip(self.add) {
            *old = ((u32::from(*old) * self.keep + add + 32_768) >> 16).min(255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drawn(points: &[(f32, f32)], width: f32) -> Pixmap {
        let mut pixels = Pixmap::new(40, 40).unwrap();
        pixels.fill(tiny_skia::Color::WHITE);
        let black = Color::opaque(0, 0, 0);
        let budget = Budget::unlimited();
        let mut pen = Pen::new(40, 40, &budget).unwrap();
        let points = points.iter().copied();
        pen.stroke(points, width, black, &mut pixels, &budget)
            .unwrap();
        pixels
    }

    /// How much ink there is, in pixels.
    fn ink(pixels: &Pixmap) -> f32 {
        let bare = |p: &tiny_skia::PremultipliedColorU8| 255.0 - f32::from(p.red());
        pixels.pixels().iter().map(bare).sum::<f32>() / 255.0
    }

    #[test]
    fn a_line_along_the_pixels_is_sharp() {
        let pixels = drawn(&[(5.5, 5.0), (5.5, 35.0)], 1.0);
        assert_eq!(pixels.pixel(5, 20).unwrap().red(), 0);
        assert_eq!(pixels.pixel(4, 20).unwrap().red(), 255);
        assert_eq!(pixels.pixel(6, 20).unwrap().red(), 255);
    }

    #[test]
    fn nothing_is_left_in_the_pen() {
        let mut pixels = Pixmap::new(40, 40).unwrap();
        let budget = Budget::unlimited();
        let mut pen = Pen::new(40, 40, &budget).unwrap();
        let wild = [(-50.0, 3.0), (90.0, 20.0), (f32::NAN, 1.0), (1e30, -1e30)];
        let color = Color::opaque(1, 2, 3);
        pen.stroke(wild.into_iter(), 3.0, color, &mut pixels, &budget)
            .unwrap();
        assert!(pen.coverage.iter().all(|c| *c == 0));
        assert!(pen.touched.iter().all(|t| *t == (u32::MAX, 0)));
    }

    proptest! {
        /// The slow twin: tiny-skia's stroker.
        #[test]
        fn as_much_ink_as_the_general_way(ax in 8.0..32.0f32, ay in 8.0..32.0f32, bx in 8.0..32.0f32, by in 8.0..32.0f32, width in 1.0..5.0f32) {
            prop_assume!((ax - bx).hypot(ay - by) > 8.0);
            let mut path = tiny_skia::PathBuilder::new();
            path.move_to(ax, ay);
            path.line_to(bx, by);
            let mut twin = Pixmap::new(40, 40).unwrap();
            twin.fill(tiny_skia::Color::WHITE);
            let stroke = tiny_skia::Stroke { width, line_cap: tiny_skia::LineCap::Round, ..Default::default() };
            let paint = tiny_skia::Paint { anti_alias: true, ..Default::default() };
            twin.stroke_path(&path.finish().unwrap(), &paint, &stroke, tiny_skia::Transform::identity(), None);
            let (ours, theirs) = (ink(&drawn(&[(ax, ay), (bx, by)], width)), ink(&twin));
            prop_assert!((ours - theirs).abs() < 0.12 * theirs + 1.5, "{} and {}", ours, theirs);
        }
    }
}
