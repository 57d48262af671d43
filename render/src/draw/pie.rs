//! Pies: one slice per series or `name:value` target.

use super::color::Color;
use super::legend::{self, Entry};
use super::params::{Params, PieMode, ValueLabels};
use super::scene::{Align, Group, Item, Label, Paint, Scene, spot};
use super::sheet::Sheet;
use crate::Series;
use crate::budget::Budget;
use crate::error::Result;

/// A named share of a pie.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// What it is.
    pub name: String,
    /// How large; only what is finite and above 0 is drawn.
    pub value: f64,
    /// Its own colour, as text; without one, the next of the picture's.
    pub color: Option<String>,
}

impl Slice {
    /// The slice of a series: one of its values stands for it, 0 if it has none.
    pub fn of(series: &Series, mode: PieMode) -> Self {
        let present = || series.values.iter().copied().filter(|v| v.is_finite());
        let value = match mode {
            PieMode::Average => present().sum::<f64>() / present().count().max(1) as f64,
            PieMode::Maximum => present().fold(f64::NEG_INFINITY, f64::max),
            PieMode::Minimum => present().fold(f64::INFINITY, f64::min),
        };
        Self {
            name: series.name.clone(),
            value: if value.is_finite() { value } else { 0.0 },
            color: series.drawing.color.clone(),
        }
    }

    /// The slice of a target written out as `name:value`. `None` if `target` is nothing like it.
    pub fn literal(target: &str) -> Option<Self> {
        let (name, value) = target.rsplit_once(':')?;
        let value: f64 = value.trim().parse().ok()?;
        let plain = !name.is_empty() && !name.contains(['(', ')', ',', '"', '\'']);
        (plain && value.is_finite()).then(|| Self {
            name: name.to_owned(),
            value,
            color: None,
        })
    }
}

pub(super) fn draw(params: &Params, slices: &[Slice], budget: &Budget) -> Result<Scene> {
    let mut sheet = Sheet::new(params, budget);
    let _lists = budget.hold(slices.len() * (size_of::<Color>() + size_of::<f64>()))?;
    let drawn = |s: &&Slice| s.value.is_finite() && s.value > 0.0;
    let total: f64 = slices.iter().filter(drawn).map(|s| s.value).sum();
    if total <= 0.0 || !total.is_finite() {
        sheet.no_data(params);
        return sheet.finish(params, "No Data".to_owned(), Vec::new());
    }
    let mut colors = params.colors.iter().cycle();
    let alpha = params.area_alpha.map_or(1.0, |a| a.clamp(0.0, 1.0) as f32);
    let colors: Vec<Color> = slices
        .iter()
        .map(|s| {
            let own = s.color.as_deref().and_then(Color::parse);
            let color = own
                .or_else(|| colors.next().copied())
                .unwrap_or(params.foreground);
            if color.alpha == 1.0 {
                color.with_alpha(alpha)
            } else {
                color
            }
        })
        .collect();
    sheet.title(params)?;
    if !params.hide_legend.unwrap_or(false) {
        let entries = slices.iter().zip(&colors).map(|(s, color)| Entry {
            name: &s.name,
            color: *color,
            right: false,
        });
        legend::draw(&mut sheet, params, entries)?;
    }
    let center = (
        (sheet.left + sheet.right) / 2.0,
        (sheet.top + sheet.bottom) / 2.0,
    );
    let radius = (sheet.width().min(sheet.height()) / 2.0 * 0.95).max(0.0);
    let mut from = -std::f64::consts::FRAC_PI_2;
    let mut middles = Vec::with_capacity(slices.len());
    for (slice, color) in slices.iter().zip(&colors) {
        sheet.check()?;
        let share = if drawn(&slice) {
            slice.value / total
        } else {
            0.0
        };
        let until = from + std::f64::consts::TAU * share;
        if share > 0.0 {
            sheet.push(Item::Open(Group {
                class: "slice",
                title: Some(format!(
                    "{}: {} ({:.2} %)",
                    slice.name,
                    super::y_axis::general(slice.value),
                    share * 100.0
                )),
                data: vec![("name", slice.name.clone())],
                ..Group::default()
            }));
            sheet.push(Item::Fill {
                points: wedge(center, radius, from, until),
                paint: Paint::own(*color),
            });
            sheet.push(Item::Close);
        }
        middles.push((from + until) / 2.0);
        from = until;
    }
    for (slice, middle) in slices.iter().zip(middles) {
        sheet.check()?;
        if let Some(text) = text_of(params, slice, total) {
            write_on(&mut sheet, params, text, center, radius, middle);
        }
    }
    let names: Vec<&str> = slices.iter().take(10).map(|s| s.name.as_str()).collect();
    let name = format!("Pie of {}", names.join(", "));
    sheet.finish(params, name, Vec::new())
}

/// The outline of a slice, with corners about a pixel apart.
fn wedge(center: (f64, f64), radius: f64, from: f64, until: f64) -> Vec<(i32, i32)> {
    let steps = ((until - from) * radius.max(1.0))
        .ceil()
        .clamp(2.0, 20_000.0) as usize;
    let rim = (0..=steps).map(|i| {
        let angle = from + (until - from) * i as f64 / steps as f64;
        spot(
            center.0 + radius * angle.cos(),
            center.1 + radius * angle.sin(),
        )
    });
    std::iter::once(spot(center.0, center.1))
        .chain(rim)
        .collect()
}

/// What stands on a slice; nothing if it is too small for its label.
fn text_of(params: &Params, slice: &Slice, total: f64) -> Option<String> {
    let value = slice.value;
    if !value.is_finite() || value <= 0.0 {
        return None;
    }
    match params.value_labels {
        ValueLabels::None => None,
        ValueLabels::Percent => {
            let percent = value / total * 100.0;
            // The percent character first, as in Graphite.
            (percent >= params.value_labels_min).then(|| format!("%{percent:.2}"))
        }
        ValueLabels::Number => (value >= params.value_labels_min).then(|| {
            if value < 10.0 && value.fract() != 0.0 {
                format!("{value:.2}")
            } else {
                format!("{}", value.trunc())
            }
        }),
    }
}

fn write_on(
    sheet: &mut Sheet,
    params: &Params,
    text: String,
    center: (f64, f64),
    radius: f64,
    middle: f64,
) {
    use std::f64::consts::{FRAC_PI_2, PI, TAU};
    let font = params.font;
    let (x, y) = (
        center.0 + radius / 2.0 * middle.cos(),
        center.1 + radius / 2.0 * middle.sin(),
    );
    let angle = if params.rotated_labels {
        let along = middle.rem_euclid(TAU);
        // Never upside down.
        if along > FRAC_PI_2 && along <= 3.0 * FRAC_PI_2 {
            along - PI
        } else {
            along
        }
    } else {
        0.0
    };
    // From the middle of the letters to their baseline.
    let drop = font.cap_height() / 2.0;
    sheet.text(Label {
        text,
        at: spot(x - drop * angle.sin(), y + drop * angle.cos()),
        align: Align::Middle,
        font,
        paint: Paint::own(params.value_labels_color),
        angle: angle.to_degrees() as f32,
    });
}
