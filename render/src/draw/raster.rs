//! The plotters backend that paints pixels: tiny-skia for shapes, our glyph bitmaps for text.
//!
//! tiny-skia paints a shape in one go. Where that could take long (a large picture, a line wider
//! than its points are apart, a great many dashes), the picture is painted in strips and the dashes
//! some thousands at a time, with a look at the clock between. Ordinary pictures are one strip.

use ab_glyph::OutlineCurve;
use plotters_backend::{BackendColor, BackendStyle, DrawingBackend, DrawingErrorKind};
use tiny_skia::{
    FillRule, IntSize, LineCap, LineJoin, Paint as SkiaPaint, Path, PathBuilder, PathStroker,
    Pixmap, PixmapMut, Stroke, StrokeDash, Transform,
};

use super::color::Color;
use super::font::{self, LARGEST_BITMAP};
use super::pen::{LEVELS, Mix, Pen, WIDEST};
use super::png;
use super::reserved::zeros;
use super::scene::{Align, Canvas, Drawn, GRID, Group, Label, Paint, Spot};
use crate::budget::{Budget, Reservation};
use crate::error::{Error, Result};
use crate::format::Buffer;

pub(super) struct Raster {
    pixels: Pixmap,
    /// None once all is drawn.
    pen: Option<Pen>,
    budget: Budget,
    _held: Reservation,
    /// Device pixels per grid unit.
    scale: f32,
    /// Device pixels per pixel.
    ratio: f32,
    dash: Option<(f64, f64)>,
}

/// What a shape may cost that is painted in one go: lines of its outline times rows of the
/// picture, and pixels. A few milliseconds.
const STRIP_COST: usize = 4 << 20;

/// A strip has at least so many rows.
const LEAST_ROWS: usize = 8;

/// What tiny-skia takes for nothing.
const SCALAR_NEARLY_ZERO: f32 = 1.0 / 4096.0;

/// Dashes that are painted in one go.
const DASHES: f32 = 4_096.0;

impl Raster {
    /// `width` and `height` in device pixels; the caller has bounded them.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub(super) fn new(
        (width, height): (u32, u32),
        ratio: f32,
        background: Color,
        budget: &Budget,
    ) -> Result<Self> {
        let (width, height) = (width.max(1), height.max(1));
        let (data, held) = zeros(4 * width as usize * height as usize, budget)?;
        let size = IntSize::from_wh(width, height);
        let Some(mut pixels) = size.and_then(|size| Pixmap::from_vec(data, size)) else {
            return Err(Error::Failed(format!(
                "no picture of {width} x {height} pixels"
            )));
        };
        pixels.fill(skia(background));
        Ok(Self {
            pen: Some(Pen::new(width, height, budget)?),
            pixels,
            budget: budget.clone(),
            _held: held,
            scale: ratio / GRID as f32,
            ratio,
            dash: None,
        })
    }

    pub(super) fn encode(&mut self) -> Result<Buffer> {
        self.pen = None;
        png::encode(self.pixels.as_ref(), &self.budget)
    }

    fn path(&self, points: impl IntoIterator<Item = Spot>) -> Option<Path> {
        let points = points.into_iter();
        self.path_of(points.map(|(x, y)| (x as f32 * self.scale, y as f32 * self.scale)))
    }

    fn path_of(&self, mut points: impl Iterator<Item = (f32, f32)>) -> Option<Path> {
        let mut path = PathBuilder::with_capacity(points.size_hint().0, points.size_hint().0);
        let (x, y) = points.next()?;
        path.move_to(x, y);
        for (x, y) in points {
            path.line_to(x, y);
        }
        path.finish()
    }

    /// Room for the outlines and edges of a shape with so many points.
    fn work_room(&self, n_points: usize) -> Result<Reservation> {
        const PER_POINT: usize = 512;
        self.budget.hold(n_points.saturating_mul(PER_POINT))
    }

    /// Fills a path, in strips if need be.
    fn fill(&mut self, path: &Path, paint: &SkiaPaint<'_>, place: Transform) -> Result<()> {
        // Nothing to fill: tiny-skia would say so in the log.
        let bounds = path.bounds();
        if bounds.width().min(bounds.height()) <= SCALAR_NEARLY_ZERO {
            return Ok(());
        }
        let (width, height) = (self.pixels.width(), self.pixels.height());
        let area = width as usize * height as usize;
        let cost = area.saturating_add(path.len().saturating_mul(height as usize));
        if cost <= STRIP_COST {
            self.pixels
                .fill_path(path, paint, FillRule::Winding, place, None);
            return Ok(());
        }
        let rows = (height as usize).saturating_mul(STRIP_COST) / cost;
        let rows = rows.clamp(LEAST_ROWS, height as usize);
        let row_bytes = 4 * width as usize;
        let strips = self.pixels.data_mut().chunks_mut(rows * row_bytes);
        let mut top = 0;
        for strip in strips {
            self.budget.check()?;
            let n_rows = (strip.len() / row_bytes) as u32;
            if let Some(mut strip) = PixmapMut::from_bytes(strip, width, n_rows) {
                let place = place.post_translate(0.0, -(top as f32));
                strip.fill_path(path, paint, FillRule::Winding, place, None);
            }
            top += n_rows;
        }
        Ok(())
    }

    /// Strokes a line of any width, with dashes if any are set.
    fn stroke(
        &mut self,
        points: impl Iterator<Item = Spot>,
        color: BackendColor,
        width: u32,
    ) -> Result<()> {
        let scale = self.scale;
        let points = points.map(|(x, y)| (x as f32 * scale, y as f32 * scale));
        let Some(lengths) = self.dash_lengths() else {
            let path = self.path_of(points);
            return match path {
                Some(path) => self.stroke_path(&path, color, width, None),
                None => Ok(()),
            };
        };
        // Long lines are cut, and the dashes go on where they were.
        let most = DASHES * (lengths[0] + lengths[1]);
        let mut piece: Vec<(f32, f32)> = Vec::new();
        let (mut length, mut offset) = (0.0, 0.0);
        for (x, y) in points {
            if let Some((last_x, last_y)) = piece.last() {
                length += (x - last_x).hypot(y - last_y);
            }
            piece.push((x, y));
            if length > most {
                self.stroke_piece(&piece, color, width, (lengths, offset))?;
                offset = (offset + length) % (lengths[0] + lengths[1]);
                length = 0.0;
                piece.clear();
                piece.push((x, y));
            }
        }
        self.stroke_piece(&piece, color, width, (lengths, offset))
    }

    fn stroke_piece(
        &mut self,
        piece: &[(f32, f32)],
        color: BackendColor,
        width: u32,
        (lengths, offset): ([f32; 2], f32),
    ) -> Result<()> {
        self.budget.check()?;
        match self.path_of(piece.iter().copied()) {
            Some(path) => {
                let dash = StrokeDash::new(lengths.to_vec(), offset);
                self.stroke_path(&path, color, width, dash)
            }
            None => Ok(()),
        }
    }

    fn stroke_path(
        &mut self,
        path: &Path,
        color: BackendColor,
        width: u32,
        dash: Option<StrokeDash>,
    ) -> Result<()> {
        let (across, down) = (self.pixels.width() as f32, self.pixels.height() as f32);
        let stroke = Stroke {
            // What is wider than twice the diagonal covers no more than that.
            width: (width as f32 * self.scale).min(2.0 * across.hypot(down)),
            miter_limit: 2.0,
            line_cap: LineCap::Butt,
            line_join: LineJoin::Miter,
            dash,
        };
        let dashes = if stroke.dash.is_some() {
            DASHES as usize
        } else {
            0
        };
        let _room = self.work_room(path.len() + 4 * dashes)?;
        let cost = (path.len() + dashes).saturating_mul(down as usize);
        let area = self.pixels.data().len() / 4;
        if stroke.width <= 1.0 || cost.saturating_add(area) <= STRIP_COST {
            self.pixels
                .stroke_path(path, &ink(color), &stroke, Transform::identity(), None);
            Ok(())
        } else {
            let resolution = PathStroker::compute_resolution_scale(&Transform::identity());
            let dashed = match &stroke.dash {
                Some(dash) => path.dash(dash, resolution),
                None => Some(path.clone()),
            };
            match dashed.and_then(|path| path.stroke(&stroke, resolution)) {
                Some(outline) => self.fill(&outline, &ink(color), Transform::identity()),
                None => Ok(()),
            }
        }
    }

    /// The lengths of dashes and of the gaps between them, in device pixels.
    fn dash_lengths(&self) -> Option<[f32; 2]> {
        let (drawn, left_out) = self.dash?;
        Some([drawn, left_out].map(|d| (d as f32 * self.ratio).max(0.5)))
    }

    /// Dashes and gaps that are smaller than a pixel look like a fainter line without any: returns
    /// how faint.
    fn blurred(&self) -> Option<f32> {
        let [drawn, left_out] = self.dash_lengths()?;
        (drawn < 1.0 && left_out < 1.0).then(|| drawn / (drawn + left_out))
    }

    /// Text along the axes: ready-made bitmaps, turned if need be.
    fn straight(&mut self, label: &Label, x: f32, y: f32, quarter_turns: u8) {
        let (along, across) = match quarter_turns {
            0 => (x, y),
            1 => (y, -x),
            2 => (-x, -y),
            _ => (-y, x),
        };
        let start = along.floor();
        let base = across.round() as i32;
        // Few levels make few colours: see `png`.
        let mixes: [Mix; LEVELS as usize + 1] =
            std::array::from_fn(|level| Mix::new(label.paint.color, level as f32 / LEVELS));
        let end = self.text_end(start);
        let (width, height) = (self.pixels.width() as i32, self.pixels.height() as i32);
        let pixels = self.pixels.data_mut();
        let mut cover = |x: i32, y: i32, mix: &Mix| {
            if x < 0 || y < 0 || x >= width || y >= height {
                return;
            }
            let at = (y * width + x) as usize * 4;
            if let Some(pixel) = pixels.get_mut(at..at + 4) {
                mix.over(pixel);
            }
        };
        font::glyphs(
            label.font,
            &label.text,
            self.ratio,
            (along - start, end),
            |b, pen| {
                let left = (start as i32).saturating_add(pen).saturating_add(b.left);
                let rows = b.coverage.chunks_exact(b.width as usize);
                for (below, line) in rows.enumerate() {
                    let v = base + b.top + below as i32;
                    for (column, &coverage) in line.iter().enumerate() {
                        let level = (f32::from(coverage) / 255.0 * LEVELS).round() as usize;
                        if level == 0 {
                            continue;
                        }
                        let u = left.saturating_add(column as i32);
                        let (x, y) = match quarter_turns {
                            0 => (u, v),
                            1 => (-v - 1, u),
                            2 => (-u - 1, -v - 1),
                            _ => (v, -u - 1),
                        };
                        cover(x, y, &mixes[level.min(LEVELS as usize)]);
                    }
                }
            },
        );
    }

    /// Where text that begins at `start` (device pixels along its line) has left the picture,
    /// counted from there.
    fn text_end(&self, start: f32) -> f32 {
        let (across, down) = (self.pixels.width() as f32, self.pixels.height() as f32);
        across + down + start.abs()
    }
}

/// `color` as tiny-skia takes it.
fn skia(color: Color) -> tiny_skia::Color {
    let [r, g, b] = color.rgb;
    let alpha = (color.alpha.clamp(0.0, 1.0) * 255.0).round() as u8;
    tiny_skia::Color::from_rgba8(r, g, b, alpha)
}

fn ink(color: BackendColor) -> SkiaPaint<'static> {
    let mut paint = SkiaPaint::default();
    let (r, g, b) = color.rgb;
    let alpha = (color.alpha.clamp(0.0, 1.0) * 255.0).round() as u8;
    paint.set_color_rgba8(r, g, b, alpha);
    paint.anti_alias = true;
    paint
}

impl DrawingBackend for Raster {
    type ErrorType = Error;

    fn get_size(&self) -> (u32, u32) {
        let units = |device: u32| (device as f32 / self.scale).ceil() as u32;
        (units(self.pixels.width()), units(self.pixels.height()))
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, at: Spot, color: BackendColor) -> Drawn {
        self.draw_rect(at, (at.0 + GRID, at.1 + GRID), &color, true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: Spot, to: Spot, style: &S) -> Drawn {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(&mut self, a: Spot, b: Spot, style: &S, fill: bool) -> Drawn {
        let [left, top, right, bottom] = [a.0.min(b.0), a.1.min(b.1), a.0.max(b.0), a.1.max(b.1)]
            .map(|units| units as f32 * self.scale);
        let Some(rect) = tiny_skia::Rect::from_ltrb(left, top, right, bottom) else {
            return Ok(());
        };
        if fill {
            self.pixels
                .fill_rect(rect, &ink(style.color()), Transform::identity(), None);
            return Ok(());
        }
        let path = PathBuilder::from_rect(rect);
        self.stroke_path(&path, style.color(), style.stroke_width(), None)
            .map_err(DrawingErrorKind::DrawingError)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = Spot>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Drawn {
        let width = style.stroke_width() as f32 * self.scale;
        let mut color = style.color();
        if let Some(faint) = self.blurred() {
            color.alpha *= f64::from(faint);
            self.dash = None;
        }
        let narrow = self.dash.is_none() && width <= WIDEST;
        let drawn = match &mut self.pen {
            Some(pen) if narrow => {
                let scale = self.scale;
                let points = points
                    .into_iter()
                    .map(|(x, y)| (x as f32 * scale, y as f32 * scale));
                let color = Color {
                    rgb: color.rgb.into(),
                    alpha: color.alpha as f32,
                };
                pen.stroke(points, width, color, &mut self.pixels, &self.budget)
            }
            _ => self.stroke(points.into_iter(), color, style.stroke_width()),
        };
        drawn.map_err(DrawingErrorKind::DrawingError)
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        (x, y): Spot,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Drawn {
        let [x, y, radius] = [x as f32, y as f32, radius as f32].map(|units| units * self.scale);
        let Some(path) = PathBuilder::from_circle(x, y, radius) else {
            return Ok(());
        };
        let drawn = if fill {
            self.fill(&path, &ink(style.color()), Transform::identity())
        } else {
            self.stroke_path(&path, style.color(), style.stroke_width(), None)
        };
        drawn.map_err(DrawingErrorKind::DrawingError)
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = Spot>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Drawn {
        let Some(path) = self.path(points) else {
            return Ok(());
        };
        let room = self.work_room(path.len());
        room.and_then(|_| self.fill(&path, &ink(style.color()), Transform::identity()))
            .map_err(DrawingErrorKind::DrawingError)
    }
}

impl Canvas for Raster {
    fn prepare(&mut self, _: Paint, dash: Option<(f64, f64)>) {
        self.dash = dash;
    }

    fn open(&mut self, _: &Group) -> Result<()> {
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }

    fn feel(&mut self, _: Spot, _: Spot) -> Result<()> {
        Ok(())
    }

    fn label(&mut self, label: &Label, (x, y): Spot) -> Result<()> {
        let width = || label.font.width(&label.text) as f32 * self.ratio;
        let back = match label.align {
            Align::Start => 0.0,
            Align::Middle => width() / 2.0,
            Align::End => width(),
        };
        let angle = label.angle.to_radians();
        let x = x as f32 * self.scale - back * angle.cos();
        let y = y as f32 * self.scale - back * angle.sin();
        let quarters = label.angle / 90.0;
        if quarters.fract() == 0.0 && label.font.size * self.ratio <= LARGEST_BITMAP {
            self.straight(label, x, y, quarters.rem_euclid(4.0) as u8);
            return Ok(());
        }
        let end = self.text_end(x.abs() + y.abs()) / self.ratio;
        let mut path = PathBuilder::new();
        let mut pen = None;
        font::outline(label.font, &label.text, end, |curve| {
            let start = match curve {
                OutlineCurve::Line(a, _)
                | OutlineCurve::Quad(a, ..)
                | OutlineCurve::Cubic(a, ..) => a,
            };
            if pen != Some((start.x, start.y)) {
                path.move_to(start.x, start.y);
            }
            let end = match curve {
                OutlineCurve::Line(_, b) => {
                    path.line_to(b.x, b.y);
                    b
                }
                OutlineCurve::Quad(_, b, c) => {
                    path.quad_to(b.x, b.y, c.x, c.y);
                    c
                }
                OutlineCurve::Cubic(_, b, c, d) => {
                    path.cubic_to(b.x, b.y, c.x, c.y, d.x, d.y);
                    d
                }
            };
            pen = Some((end.x, end.y));
        });
        let Some(path) = path.finish() else {
            return Ok(());
        };
        let place = Transform::from_scale(self.ratio, self.ratio)
            .post_rotate(label.angle)
            .post_translate(x, y);
        let color = label.paint.color;
        let (r, g, b) = color.rgb.into();
        let ink = ink(BackendColor {
            alpha: f64::from(color.alpha),
            rgb: (r, g, b),
        });
        self.fill(&path, &ink, place)
    }
}
