//! Which series is drawn how: its colour, width and side, and its entry in the legend.

use super::super::color::Color;
use super::super::curve::Curve;
use super::super::legend::Entry;
use super::super::params::{AreaMode, Params};
use crate::Series;

pub(in crate::draw) fn curves<'a>(params: &Params, series: &[&'a Series]) -> Vec<Curve<'a>> {
    let mut colors = params.colors.iter().cycle();
    let two_axes = series.iter().any(|s| s.drawing.second_y_axis);
    let mut first = true;
    series
        .iter()
        .map(|series| {
            let drawing = &series.drawing;
            let side = match (two_axes, drawing.second_y_axis) {
                (false, _) => Default::default(),
                (true, true) => params.right_style,
                (true, false) => params.left_style,
            };
            let color = side
                .color
                .or_else(|| Color::parse(drawing.color.as_deref()?))
                .or_else(|| colors.next().copied())
                .unwrap_or(params.foreground);
            let area = drawing.stack.is_some()
                || match params.area_mode {
                    AreaMode::None => false,
                    AreaMode::First => first,
                    AreaMode::All => !drawing.infinite,
                    AreaMode::Stacked => !drawing.infinite && !two_axes,
                };
            first = false;
            // Like Graphite: an opacity in the colour itself counts before one beside it.
            let color = match drawing.alpha {
                Some(alpha) if color.alpha == 1.0 => color.with_alpha(alpha as f32),
                _ => color,
            };
            Curve {
                series,
                color,
                width: side
                    .width
                    .or(drawing.line_width.filter(|w| w.is_finite() && *w > 0.0))
                    .unwrap_or(params.line_width)
                    .min(1000.0),
                dash: side
                    .dash
                    .or(drawing.dashed)
                    .filter(|d| d.is_finite() && *d > 0.0),
                right: drawing.second_y_axis,
                area,
                values: (&series.values[..]).into(),
                start: series.start,
                per: 1,
                aligned: false,
                held: None,
            }
        })
        .collect()
}

pub(super) fn entries<'a>(
    params: &Params,
    curves: &'a [Curve<'_>],
) -> impl Iterator<Item = Entry<'a>> {
    let hide_null = params.hide_null_from_legend;
    curves
        .iter()
        .filter(|c| !c.series.name.is_empty() && !c.series.drawing.hide_from_legend)
        .filter(move |c| !(hide_null && c.series.values.iter().all(|v| v.is_nan())))
        .map(|c| Entry {
            name: &c.series.name,
            color: c.color,
            right: c.right,
        })
}
