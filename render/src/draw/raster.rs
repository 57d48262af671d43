//! The plotters backend that paints pixels: tiny-skia for shapes, our glyph bitmaps for text.

use std::convert::Infallible;

use ab_glyph::OutlineCurve;
use plotters_backend::{BackendColor, BackendStyle, DrawingBackend, DrawingErrorKind};
use tiny_skia::{
    FillRule, LineCap, LineJoin, Paint as SkiaPaint, Path, PathBuilder, Pixmap, Stroke, StrokeDash,
    Transform,
};

use super::color::Color;
use super::font;
use super::pen::{LEVELS, Mix, Pen, WIDEST};
use super::png;
use super::scene::{Align, Canvas, GRID, Group, Label, Paint, Spot};

pub(super) struct Raster {
    pixels: Pixmap,
    pen: Pen,
    /// Device pixels per grid unit.
    scale: f32,
    /// Device pixels per pixel.
    ratio: f32,
    dash: Option<(f64, f64)>,
}

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

impl Raster {
    /// `width` and `height` in device pixels; the caller has bounded them.
    pub(super) fn new(width: u32, height: u32, ratio: f32, background: Color) -> Self {
        // Only sizes of nothing are refused, and a smallest picture takes their place.
        let pixels = Pixmap::new(width.max(1), height.max(1))
            .or_else(|| Pixmap::new(1, 1))
            .map(|mut pixels| {
                pixels.fill(skia(background));
                pixels
            });
        let Some(pixels) = pixels else {
            unreachable!("a picture of one pixel can be held");
        };
        Self {
            pen: Pen::new(pixels.width(), pixels.height()),
            pixels,
            scale: ratio / GRID as f32,
            ratio,
            dash: None,
        }
    }

    pub(super) fn encode(&mut self) -> Vec<u8> {
        png::encode(self.pixels.as_ref())
    }

    fn path(&self, points: impl IntoIterator<Item = Spot>) -> Option<Path> {
        let mut points = points.into_iter();
        let mut path = PathBuilder::with_capacity(points.size_hint().0, points.size_hint().0);
        let (x, y) = points.next()?;
        path.move_to(x as f32 * self.scale, y as f32 * self.scale);
        for (x, y) in points {
            path.line_to(x as f32 * self.scale, y as f32 * self.scale);
        }
        path.finish()
    }

    fn stroke(&mut self, path: &Path, color: BackendColor, width: u32) {
        let stroke = Stroke {
            width: width as f32 * self.scale,
            miter_limit: 2.0,
            line_cap: LineCap::Butt,
            line_join: LineJoin::Miter,
            dash: self.dash.and_then(|(drawn, left_out)| {
                let lengths = [drawn, left_out].map(|d| (d as f32 * self.ratio).max(0.5));
                StrokeDash::new(lengths.to_vec(), 0.0)
            }),
        };
        self.pixels
            .stroke_path(path, &ink(color), &stroke, Transform::identity(), None);
    }

    fn cover(&mut self, x: i32, y: i32, mix: &Mix) {
        let (width, height) = (self.pixels.width() as i32, self.pixels.height() as i32);
        if x < 0 || y < 0 || x >= width || y >= height {
            return;
        }
        let at = (y * width + x) as usize * 4;
        if let Some(pixel) = self.pixels.data_mut().get_mut(at..at + 4) {
            mix.over(pixel);
        }
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
        let mut dots = Vec::new();
        font::glyphs(
            label.font,
            &label.text,
            self.ratio,
            along - start,
            |b, pen| {
                let left = start as i32 + pen + b.left;
                let rows = b.coverage.chunks_exact(b.width as usize);
                for (row, line) in rows.enumerate() {
                    let v = base + b.top + row as i32;
                    for (column, &coverage) in line.iter().enumerate() {
                        let level = (f32::from(coverage) / 255.0 * LEVELS).round() as usize;
                        if level != 0 {
                            dots.push((left + column as i32, v, level));
                        }
                    }
                }
            },
        );
        for (u, v, level) in dots {
            let (x, y) = match quarter_turns {
                0 => (u, v),
                1 => (-v - 1, u),
                2 => (-u - 1, -v - 1),
                _ => (v, -u - 1),
            };
            self.cover(x, y, &mixes[level.min(LEVELS as usize)]);
        }
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
    type ErrorType = Infallible;

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
        } else {
            let path = PathBuilder::from_rect(rect);
            self.stroke(&path, style.color(), style.stroke_width());
        }
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = Spot>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Drawn {
        let width = style.stroke_width() as f32 * self.scale;
        if self.dash.is_none() && width <= WIDEST {
            let scale = self.scale;
            let points = points
                .into_iter()
                .map(|(x, y)| (x as f32 * scale, y as f32 * scale));
            let BackendColor { alpha, rgb } = style.color();
            let color = Color {
                rgb: rgb.into(),
                alpha: alpha as f32,
            };
            self.pen.stroke(points, width, color, &mut self.pixels);
        } else if let Some(path) = self.path(points) {
            self.stroke(&path, style.color(), style.stroke_width());
        }
        Ok(())
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
        if fill {
            self.pixels.fill_path(
                &path,
                &ink(style.color()),
                FillRule::Winding,
                Transform::identity(),
                None,
            );
        } else {
            self.stroke(&path, style.color(), style.stroke_width());
        }
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = Spot>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Drawn {
        if let Some(path) = self.path(points) {
            self.pixels.fill_path(
                &path,
                &ink(style.color()),
                FillRule::Winding,
                Transform::identity(),
                None,
            );
        }
        Ok(())
    }
}

impl Canvas for Raster {
    fn prepare(&mut self, _: Paint, dash: Option<(f64, f64)>) {
        self.dash = dash;
    }

    fn open(&mut self, _: &Group) {}

    fn close(&mut self) {}

    fn feel(&mut self, _: Spot, _: Spot) {}

    fn label(&mut self, label: &Label, (x, y): Spot) {
        let width = label.font.width(&label.text) as f32 * self.ratio;
        let back = match label.align {
            Align::Start => 0.0,
            Align::Middle => width / 2.0,
            Align::End => width,
        };
        let turn = label.angle.to_radians();
        let x = x as f32 * self.scale - back * turn.cos();
        let y = y as f32 * self.scale - back * turn.sin();
        let quarters = label.angle / 90.0;
        if quarters.fract() == 0.0 {
            self.straight(label, x, y, quarters.rem_euclid(4.0) as u8);
            return;
        }
        let mut path = PathBuilder::new();
        let mut pen = None;
        font::outline(label.font, &label.text, |curve| {
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
            return;
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
        self.pixels
            .fill_path(&path, &ink, FillRule::Winding, place, None);
    }
}
