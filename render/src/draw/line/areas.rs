//! Areas, and the sums of stacked values.

use plotters::coord::CoordTranslate;

use super::super::curve::{self, Curve, Place, Profile};
use super::super::params::AreaMode;
use super::super::scene::{Group, Item, Paint, Spot};
use super::super::sheet::Sheet;
use super::{Plot, group};
use crate::budget::Budget;
use crate::error::Result;

impl Plot<'_> {
    pub(super) fn stack(&self, curves: &mut [Curve<'_>], budget: &Budget) -> Result<()> {
        if self.params.area_mode == AreaMode::Stacked && self.axes[1].is_none() {
            stack(curves, budget)?;
        }
        Ok(())
    }

    /// Areas lie below the events, which they would hide, and lines above.
    pub(super) fn areas(&self, sheet: &mut Sheet, curves: &[Curve<'_>]) -> Result<()> {
        if !curves.iter().any(|c| c.area) {
            return Ok(());
        }
        sheet.push(Item::Open(Group {
            class: "areas",
            ..Group::default()
        }));
        let mapping = self.mapping();
        for right in [false, true] {
            self.areas_of(sheet, curves, right, &|(t, s)| mapping.translate(&(*t, *s)))?;
        }
        sheet.push(Item::Close);
        Ok(())
    }

    /// The areas of one side. Each shows only where none before it does, however they cross, as if
    /// each cut its shape out of what may still be painted.
    fn areas_of(
        &self,
        sheet: &mut Sheet,
        curves: &[Curve<'_>],
        right: bool,
        place: &impl Fn(&Place) -> Spot,
    ) -> Result<()> {
        let axis_right = self.axes[1].is_some();
        let mine = |c: &&Curve<'_>| c.area && (c.right && axis_right) == right;
        let (range, columns) = (self.range(), self.columns());
        let mut upper: Option<Profile> = None;
        let mut lower: Option<Profile> = None;
        for curve in curves.iter().filter(mine) {
            sheet.check()?;
            let bytes = curve.values.len() * curve::LINE_BYTES;
            let mut room = sheet.budget().hold(bytes)?;
            let Some(axis) = self.axis_of(curve) else {
                continue;
            };
            let Some(lines) = self.lines_of(curve, sheet.budget())? else {
                continue;
            };
            let base = axis.share(0.0).unwrap_or(0.0).clamp(0.0, 1.0);
            let mut runs = lines.lines;
            // A value between two gaps is as wide as a pixel, else it would be invisible.
            let pixel = range / self.width / 2.0;
            runs.extend(
                lines
                    .dots
                    .iter()
                    .map(|(t, s)| vec![(t - pixel, *s), (t + pixel, *s)]),
            );
            runs.sort_by(|a, b| a[0].0.total_cmp(&b[0].0));
            let shape = Profile::along(&runs, range, base).downsampled(range, columns);
            let flat = || Profile::flat(range, base);
            let (was_up, was_low) = (
                upper.take().unwrap_or_else(flat),
                lower.take().unwrap_or_else(flat),
            );
            // The two new ones, the times of both, and the shapes between.
            room.grow(4 * (was_up.held() + was_low.held() + 2 * shape.held()))?;
            let up = was_up.extreme(&shape, true).downsampled(range, columns);
            let low = was_low.extreme(&shape, false).downsampled(range, columns);
            if !curve.invisible() {
                self.area(sheet, curve, up.between(&was_up), place);
                self.area(sheet, curve, was_low.between(&low), place);
            }
            (upper, lower) = (Some(up), Some(low));
        }
        Ok(())
    }

    fn area(
        &self,
        sheet: &mut Sheet,
        curve: &Curve<'_>,
        shapes: Vec<Vec<Place>>,
        place: &impl Fn(&Place) -> Spot,
    ) {
        if shapes.is_empty() {
            return;
        }
        let color = match self.params.area_alpha {
            Some(alpha) if curve.color.alpha == 1.0 => curve.color.with_alpha(alpha as f32),
            _ => curve.color,
        };
        sheet.push(Item::Open(group(curve)));
        for shape in shapes {
            sheet.push(Item::Fill {
                points: shape.iter().map(place).collect(),
                paint: Paint::own(color),
            });
        }
        sheet.push(Item::Close);
    }
}

/// Adds to each value those of the curves before it, slot by slot; an absent value adds nothing
/// and stays absent.
fn stack(curves: &mut [Curve<'_>], budget: &Budget) -> Result<()> {
    let longest = curves.iter().map(|c| c.values.len()).max().unwrap_or(0);
    let _totals_held = budget.hold(2 * longest * size_of::<f64>())?;
    let mut totals: Vec<f64> = Vec::new();
    for curve in curves.iter_mut().filter(|c| !c.infinite()) {
        budget.check()?;
        let values = curve.values_mut(budget)?;
        if totals.len() < values.len() {
            totals.resize(values.len(), 0.0);
        }
        for (value, total) in values.iter_mut().zip(&mut totals) {
            if value.is_finite() {
                *total += *value;
                *value = *total;
            }
        }
    }
    Ok(())
}
