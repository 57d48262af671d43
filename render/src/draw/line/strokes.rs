//! Lines, single values as dots, and the full-height lines of `drawAsInfinite`.

use plotters::coord::CoordTranslate;

use super::super::color::Color;
use super::super::curve::{self, Curve, Place};
use super::super::scene::{Group, Item, Paint, Spot, Stroke};
use super::super::sheet::Sheet;
use super::{Plot, group};
use crate::error::Result;

impl Plot<'_> {
    pub(super) fn lines(&self, sheet: &mut Sheet, curves: &[Curve<'_>]) -> Result<()> {
        sheet.push(Item::Open(Group {
            class: "lines",
            ..Group::default()
        }));
        let mapping = self.mapping();
        let place = |(t, s): &Place| -> Spot { mapping.translate(&(*t, *s)) };
        for curve in curves.iter() {
            let outline = curve.area && self.params.area_alpha.is_some() && !curve.invisible();
            if !curve.area || outline {
                self.line(sheet, curve, outline, &place)?;
            }
        }
        sheet.push(Item::Close);
        Ok(())
    }

    fn line(
        &self,
        sheet: &mut Sheet,
        curve: &Curve<'_>,
        outline: bool,
        place: &impl Fn(&Place) -> Spot,
    ) -> Result<()> {
        sheet.check()?;
        let paint = Paint::own(if outline {
            Color::opaque(curve.color.rgb[0], curve.color.rgb[1], curve.color.rgb[2])
        } else {
            curve.color
        });
        let width = if outline {
            self.params.line_width
        } else {
            curve.width
        };
        let dash = curve.dash.filter(|_| !outline).map(|d| (d, d));
        sheet.push(Item::Open(group(curve)));
        if curve.infinite() {
            self.infinite(sheet, curve, (width, dash), paint)?;
        } else {
            let bytes = curve.values.len() * curve::LINE_BYTES;
            let _room = sheet.budget().hold(bytes)?;
            let lines = self.lines_of(curve, sheet.budget())?.unwrap_or_default();
            let pieces = lines
                .lines
                .into_iter()
                .flat_map(|line| curve::clip(line, self.range()));
            let to_column = self.columns() / self.range();
            for piece in pieces {
                let piece = curve::downsample(piece, self.columns(), |(t, s)| (t * to_column, *s));
                sheet.push(Item::Stroke(Stroke {
                    points: piece.iter().map(place).collect(),
                    width,
                    dash,
                    paint,
                }));
            }
            let inside =
                |(t, s): &&Place| (0.0..=self.range()).contains(t) && (0.0..=1.0).contains(s);
            for dot in lines.dots.iter().filter(inside) {
                sheet.push(Item::Dot {
                    at: place(dot),
                    radius: (width * 1.3).max(1.6),
                    paint,
                });
            }
        }
        sheet.push(Item::Close);
        Ok(())
    }

    /// A line from top to bottom wherever the value is above 0. (Graphite also draws the zeros, as
    /// a line along the bottom; nobody wants that one.)
    fn infinite(
        &self,
        sheet: &mut Sheet,
        curve: &Curve<'_>,
        (width, dash): (f64, Option<(f64, f64)>),
        paint: Paint,
    ) -> Result<()> {
        let budget = sheet.budget().clone();
        let mut pace = budget.pace();
        let first = curve.start as f64 - self.times.start as f64;
        for (i, value) in curve.values.iter().enumerate() {
            pace.check()?;
            let at = first + i as f64 * curve.step();
            // NaN is not above 0.
            if *value > 0.0 && (0.0..=self.range()).contains(&at) {
                let x = self.left + at / self.range() * self.width;
                sheet.stroke(&[(x, self.top), (x, self.bottom)], width, dash, paint);
            }
        }
        Ok(())
    }
}
