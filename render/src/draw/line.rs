//! Values over time: the order of work is Graphite's (title, legend, axes, grid, areas, lines).

use std::ops::Range;

use plotters::coord::CoordTranslate;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;

use super::color::Color;
use super::curve::{self, Curve, Joining, Place, Profile};
use super::legend::{self, Entry};
use super::overlay::Overlay;
use super::params::{AreaMode, AxisLimits, LineMode, Params};
use super::scene::{Align, Group, Item, Label, Paint, Role, Scene, Spot, spot, units};
use super::sheet::Sheet;
use super::x_axis::{self, Scale};
use super::y_axis::YAxis;
use super::{Error, Window};
use crate::Series;
use crate::budget::Budget;
use crate::error::Result;
use crate::events::Event;

/// Series above this number have no legend unless the request asks for one.
const LEGEND_MOST: usize = 10;

pub(super) fn draw(
    params: &Params,
    series: &[Series],
    window: &Window,
    events: &[Event],
    budget: &Budget,
) -> Result<Scene, Error> {
    let mut sheet = Sheet::new(params, budget);
    // Beside the list of series and that of curves there are lists of some of the curves.
    let each = size_of::<Curve<'_>>() + 4 * size_of::<&Series>();
    let _lists = budget.hold(series.len().saturating_mul(each))?;
    let series: Vec<&Series> = series.iter().filter(|s| !s.values.is_empty()).collect();
    let mode = mode(params, &series);
    let Some(times) = times(&series, mode) else {
        return Ok(empty(sheet, params, window, events)?);
    };
    let times = reaching(times, window, events);
    let mut curves = curves(params, &series);
    let two_axes = curves.iter().any(|c| c.right);

    sheet.title(params)?;
    sheet.side_title(params, &params.vtitle, false)?;
    if two_axes {
        sheet.side_title(params, &params.vtitle_right, true)?;
    }
    if !params.hide_legend.unwrap_or(series.len() > LEGEND_MOST) {
        legend::draw(&mut sheet, params, entries(params, &curves))?;
    }
    if !params.hide_axes && !params.hide_x_axis {
        sheet.bottom -= 2.0 * params.font.ascent();
    }

    let axes = arrange(&mut sheet, params, &mut curves, two_axes, &times)?;
    let range = (times.end - times.start) as f64;
    let overlay = Overlay::new(params, events, &times, &window.zone, &sheet, |at| {
        sheet.left
            + params.line_width / 2.0
            + (at - times.start as f64) / range * pixels(&sheet, params)
    });
    sheet.top += overlay.room();
    if sheet.width() < 4.0 || sheet.height() < 4.0 {
        // No room for a plot; the words around it stand.
        return Ok(sheet.finish(params, describe(&series), Vec::new())?);
    }
    let plot = Plot {
        params,
        times: times.clone(),
        axes,
        mode,
        left: sheet.left + params.line_width / 2.0,
        width: pixels(&sheet, params),
        top: sheet.top,
        bottom: sheet.bottom,
    };
    plot.x_axis(&mut sheet, window)?;
    plot.y_labels(&mut sheet);
    plot.stack(&mut curves, budget)?;
    plot.areas(&mut sheet, &curves)?;
    overlay.draw(&mut sheet)?;
    plot.lines(&mut sheet, &curves)?;
    overlay.draw_labels(&mut sheet);
    plot.note(&mut sheet, &curves)?;
    let data = plot.data(&sheet);
    Ok(sheet.finish(params, describe(&series), data)?)
}

/// Without any value there are words, and the time axis with its events if there are any.
fn empty(mut sheet: Sheet, params: &Params, window: &Window, events: &[Event]) -> Result<Scene> {
    let times = reaching(window.from..window.until, window, events);
    if events.is_empty() || times.is_empty() {
        sheet.no_data(params);
        return sheet.finish(params, "No Data".to_owned(), Vec::new());
    }
    sheet.title(params)?;
    if !params.hide_axes && !params.hide_x_axis {
        sheet.bottom -= 2.0 * params.font.ascent();
    }
    let range = (times.end - times.start) as f64;
    let overlay = Overlay::new(params, events, &times, &window.zone, &sheet, |at| {
        sheet.left + (at - times.start as f64) / range * sheet.width()
    });
    sheet.top += overlay.room();
    if sheet.width() >= 4.0 && sheet.height() >= 4.0 {
        let plot = Plot {
            params,
            times,
            axes: [None, None],
            mode: LineMode::Slope,
            left: sheet.left,
            width: sheet.width(),
            top: sheet.top,
            bottom: sheet.bottom,
        };
        plot.x_axis(&mut sheet, window)?;
        overlay.draw(&mut sheet)?;
        overlay.draw_labels(&mut sheet);
    }
    sheet.no_data(params);
    sheet.finish(params, "No Data, and events".to_owned(), Vec::new())
}

/// Lines need two points: with a series of one, every value is held for its step instead.
pub(super) fn mode(params: &Params, series: &[&Series]) -> LineMode {
    match params.line_mode {
        LineMode::Slope if series.iter().any(|s| s.values.len() == 1) => LineMode::Staircase,
        mode => mode,
    }
}

/// The seconds that the plot shows. `None` if there is nothing or no time at all.
fn times(series: &[&Series], mode: LineMode) -> Option<Range<i64>> {
    let start = series.iter().map(|s| s.start).min()?;
    let end = series
        .iter()
        .map(|s| match mode {
            LineMode::Staircase => s.end,
            // Not `end` less a step: the lines of `constantLine` have a value at their end.
            LineMode::Slope | LineMode::Connected => {
                let steps = i64::try_from(s.values.len()).unwrap_or(i64::MAX) - 1;
                s.start.saturating_add(s.step.saturating_mul(steps))
            }
        })
        .max()?;
    // No time that a calendar cannot write.
    let bounded = start.clamp(-1 << 40, 1 << 40)..end.clamp(-1 << 40, 1 << 40);
    (bounded.end > bounded.start).then_some(bounded)
}

/// `times`, and on to the newest event of the window: a change must not wait for the next value
/// to be seen. The window's last second counts to its end.
fn reaching(times: Range<i64>, window: &Window, events: &[Event]) -> Range<i64> {
    let last = window.until.saturating_add(1);
    let newest = events
        .iter()
        .map(|event| event.when)
        .filter(|when| *when < last as f64)
        .fold(f64::NEG_INFINITY, f64::max);
    // A cast of an infinity saturates, which leaves the end as it is.
    times.start..times.end.max(newest.ceil() as i64)
}

fn describe(series: &[&Series]) -> String {
    let mut text = String::from("Graph of ");
    for (i, s) in series.iter().take(10).enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        text.push_str(&s.name);
    }
    if series.len() > 10 {
        text.push_str(&format!(" and {} more", series.len() - 10));
    }
    text
}

/// Pixels across which the time range is laid.
pub(super) fn pixels(sheet: &Sheet, params: &Params) -> f64 {
    (sheet.width() - (params.line_width + 1.0)).max(1.0)
}

pub(super) fn curves<'a>(params: &Params, series: &[&'a Series]) -> Vec<Curve<'a>> {
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
                per: 1,
                held: None,
            }
        })
        .collect()
}

fn entries<'a>(params: &Params, curves: &'a [Curve<'_>]) -> impl Iterator<Item = Entry<'a>> {
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

/// Values before stacking, their limits, and the axes that follow; the axes' labels take room, so
/// that fewer points fit, which may change the limits: repeated until nothing moves.
pub(super) fn arrange(
    sheet: &mut Sheet,
    params: &Params,
    curves: &mut [Curve<'_>],
    two_axes: bool,
    times: &Range<i64>,
) -> Result<[Option<YAxis>; 2], Error> {
    let range = (times.end - times.start) as f64;
    // Room only ever shrinks, by the width of a label: three rounds usually suffice.
    for round in 0.. {
        let width = pixels(sheet, params);
        for curve in curves.iter_mut() {
            curve.consolidate((range, width), params.min_x_step, sheet.budget())?;
        }
        let (left, right) = if two_axes {
            (
                Some(axis(params, curves, &params.left, sheet.budget(), |c| {
                    !c.right
                })?),
                Some(axis(params, curves, &params.right, sheet.budget(), |c| {
                    c.right
                })?),
            )
        } else {
            (
                Some(axis(params, curves, &params.axis, sheet.budget(), |_| {
                    true
                })?),
                None,
            )
        };
        let before = (sheet.left, sheet.right);
        if !params.hide_axes && !params.hide_y_axis {
            let widest = |axis: &Option<YAxis>| {
                axis.iter()
                    .flat_map(|a| &a.labels)
                    .map(|(_, text)| params.font.width(text))
                    .fold(0.0, f64::max)
            };
            let at_right = !two_axes && params.y_axis_right;
            let (near, far) = if at_right {
                (0.0, widest(&left))
            } else {
                (widest(&left), widest(&right))
            };
            if near > 0.0 {
                let start = if params.vtitle.is_empty() {
                    params.margin
                } else {
                    params.margin + side_room(params, params.vtitle.len())
                };
                sheet.left = sheet.left.max((start + near + LABEL_GAP).ceil());
            }
            if far > 0.0 {
                let taken = if two_axes && !params.vtitle_right.is_empty() {
                    side_room(params, params.vtitle_right.len())
                } else {
                    0.0
                };
                let edge = f64::from(params.width) - params.margin - taken;
                sheet.right = sheet.right.min((edge - far - LABEL_GAP).floor());
            }
        }
        if before == (sheet.left, sheet.right) || round == 5 {
            return Ok([left, right]);
        }
    }
    Ok([None, None])
}

/// Pixels between a label and the plot.
const LABEL_GAP: f64 = 5.0;

fn side_room(params: &Params, lines: usize) -> f64 {
    let font = params
        .font
        .sized(params.font.size + params.font.size.ln().max(0.0).floor());
    font.height() * lines as f64 + 4.0
}

fn axis(
    params: &Params,
    curves: &[Curve<'_>],
    limits: &AxisLimits,
    budget: &Budget,
    belongs: impl Fn(&Curve<'_>) -> bool,
) -> Result<YAxis, Error> {
    let shown: Vec<&Curve<'_>> = curves
        .iter()
        .filter(|c| belongs(c) && !c.infinite())
        .collect();
    let positive = params.log_base.is_some();
    let data = limits_of(&shown, params, positive, budget)?;
    let made = match params.log_base {
        Some(base) => YAxis::logarithmic(data, limits, base, params.unit_system),
        None => YAxis::linear(data, limits, &params.divisors, params.unit_system),
    };
    made.map_err(|e| Error::Reversed {
        min: e.min,
        max: e.max,
    })
}

/// The least and the largest value that is drawn; 0 to 1 without values.
fn limits_of(
    curves: &[&Curve<'_>],
    params: &Params,
    positive: bool,
    budget: &Budget,
) -> Result<(f64, f64)> {
    let drawn = |v: f64| v.is_finite() && (!positive || v > 0.0);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for curve in curves {
        budget.check()?;
        for value in curve.values.iter().copied().filter(|v| drawn(*v)) {
            (low, high) = (low.min(value), high.max(value));
        }
    }
    if params.area_mode == AreaMode::Stacked {
        let rows = curves.iter().map(|c| c.values.len()).max().unwrap_or(0);
        high = f64::NEG_INFINITY;
        for i in 0..rows {
            budget.check()?;
            let stack = curves.iter().filter_map(|c| c.values.get(i).copied());
            high = high.max(stack.filter(|v| v.is_finite()).sum::<f64>());
        }
    }
    if low > high {
        return Ok(if positive { (1.0, 10.0) } else { (0.0, 1.0) });
    }
    let absent = || curves.iter().any(|c| c.values.iter().any(|v| v.is_nan()));
    if params.null_as_zero && !positive && (low > 0.0 || high < 0.0) && absent() {
        (low, high) = (low.min(0.0), high.max(0.0));
    }
    Ok((low, high))
}

/// Everything that is known once the axes have settled.
struct Plot<'p> {
    params: &'p Params,
    times: Range<i64>,
    axes: [Option<YAxis>; 2],
    mode: LineMode,
    left: f64,
    width: f64,
    top: f64,
    bottom: f64,
}

impl Plot<'_> {
    fn range(&self) -> f64 {
        (self.times.end - self.times.start) as f64
    }

    fn x(&self, at: i64) -> f64 {
        self.left + (at - self.times.start) as f64 / self.range() * self.width
    }

    fn y(&self, share: f64) -> f64 {
        self.bottom - share * (self.bottom - self.top)
    }

    fn axis_of(&self, curve: &Curve<'_>) -> Option<&YAxis> {
        let [left, right] = &self.axes;
        match right {
            Some(axis) if curve.right => Some(axis),
            _ => left.as_ref(),
        }
    }

    /// From seconds and shares to the grid of the picture.
    fn mapping(&self) -> Cartesian2d<RangedCoordf64, RangedCoordf64> {
        Cartesian2d::new(
            0.0..self.range(),
            0.0..1.0,
            (
                units(self.left)..units(self.left + self.width),
                units(self.bottom)..units(self.top),
            ),
        )
    }

    /// Grid lines and the labels of time.
    fn x_axis(&self, sheet: &mut Sheet, window: &Window) -> Result<()> {
        let params = self.params;
        if params.hide_axes {
            return Ok(());
        }
        let scale = Scale::choose(self.times.end - self.times.start, self.width);
        let ticks = |every| x_axis::ticks(every, self.times.start, self.times.end, &window.zone);
        if !params.hide_grid {
            self.grid(sheet, &ticks(scale.minor), &ticks(scale.major))?;
        }
        if params.hide_x_axis {
            return Ok(());
        }
        sheet.push(Item::Open(Group {
            class: "axes",
            ..Group::default()
        }));
        let format = params.x_format.as_deref().unwrap_or(scale.format);
        let mut free_from = 1.0;
        for at in ticks(scale.label) {
            // A format may be long.
            sheet.check()?;
            let text = x_axis::written(at, &window.zone, format);
            let width = params.font.width_within(&text, f64::from(params.width));
            // Labels at the ends move inwards; one that would touch its neighbour stays out.
            let most = f64::from(params.width) - 1.0 - width;
            let start = (self.x(at) - width / 2.0).min(most);
            let start = if start < free_from && free_from == 1.0 {
                1.0
            } else {
                start
            };
            if start < free_from || width == 0.0 {
                continue;
            }
            free_from = start + width + params.font.width(" ").max(3.0);
            sheet.text(Label {
                text,
                at: spot(start, self.bottom + 7.0 + params.font.cap_height()),
                align: Align::Start,
                font: params.font,
                paint: sheet.foreground(1.0),
                angle: 0.0,
            });
        }
        sheet.push(Item::Close);
        Ok(())
    }

    fn grid(&self, sheet: &mut Sheet, minor_times: &[i64], major_times: &[i64]) -> Result<()> {
        let params = self.params;
        // Graphite's grid lines are 0.25 to 0.5 of a pixel wide. Ours are whole, sharp pixels at
        // about that strength, and fainter where they would stand out from the ground too much.
        let paint = |color: Color, role, strength: f32| {
            let apart = (color.luminance() - params.background.luminance()).abs();
            let strength = strength.min(strength * 0.45 / apart.max(0.01));
            Paint {
                color: color.with_alpha(color.alpha * strength),
                role,
            }
        };
        let minor = |strength| paint(params.minor_line, Role::MinorLine, strength);
        let major = |strength| paint(params.major_line, Role::MajorLine, strength);
        sheet.push(Item::Open(Group {
            class: "grid",
            decoration: true,
            ..Group::default()
        }));
        let (left, right, top, bottom) = (sheet.left, sheet.right, self.top, self.bottom);
        let axis = self.axes[0].as_ref();
        let labels = axis.map_or(&[][..], |a| &a.labels[..]);
        for (i, (value, _)) in labels.iter().enumerate() {
            let Some(share) = axis.and_then(|a| a.share(*value)) else {
                continue;
            };
            let y = self.y(share);
            sheet.ruler((left, y), (right, y), major(0.5));
            let Some((next, _)) = labels.get(i + 1) else {
                continue;
            };
            for part in 1..=params.minor_y {
                let between = f64::from(part) / f64::from(params.minor_y + 1);
                let value = value + (next - value) * between;
                if let Some(share) = axis.and_then(|a| a.share(value)) {
                    let y = self.y(share);
                    sheet.ruler((left, y), (right, y), minor(0.3));
                }
            }
        }
        let visible = |at: &&i64| (left..right).contains(&self.x(**at));
        let on_major = |at: &&i64| !major_times.contains(at);
        for at in minor_times.iter().filter(visible).filter(on_major) {
            let x = self.x(*at);
            sheet.ruler((x, top), (x, bottom), minor(0.3));
        }
        for at in major_times.iter().filter(visible) {
            let x = self.x(*at);
            sheet.ruler((x, top), (x, bottom), major(0.5));
        }
        for x in [left, right - 1.0] {
            sheet.ruler((x, top), (x, bottom), major(0.7));
        }
        sheet.push(Item::Close);
        sheet.check()
    }

    fn y_labels(&self, sheet: &mut Sheet) {
        let params = self.params;
        if params.hide_axes || params.hide_y_axis {
            return;
        }
        sheet.push(Item::Open(Group {
            class: "axes",
            ..Group::default()
        }));
        let two_axes = self.axes[1].is_some();
        for (i, axis) in self.axes.iter().enumerate() {
            let Some(axis) = axis else {
                continue;
            };
            let at_right = i == 1 || (!two_axes && params.y_axis_right);
            let half = params.font.cap_height() / 2.0;
            let mut free_from = f64::INFINITY;
            for (value, text) in &axis.labels {
                let Some(share) = axis.share(*value) else {
                    continue;
                };
                let y = (self.y(share) + half).round().max(params.font.cap_height());
                // Steps may be closer together than lines of text.
                if y > free_from {
                    continue;
                }
                free_from = y - params.font.cap_height() - 2.0;
                sheet.text(Label {
                    text: text.clone(),
                    at: if at_right {
                        spot(sheet.right + LABEL_GAP, y)
                    } else {
                        spot(sheet.left - LABEL_GAP, y)
                    },
                    align: if at_right { Align::Start } else { Align::End },
                    font: params.font,
                    paint: sheet.foreground(1.0),
                    angle: 0.0,
                });
            }
        }
        sheet.push(Item::Close);
    }

    fn stack(&self, curves: &mut [Curve<'_>], budget: &Budget) -> Result<()> {
        if self.params.area_mode == AreaMode::Stacked && self.axes[1].is_none() {
            stack(curves, budget)?;
        }
        Ok(())
    }

    /// Areas lie below the events, which they would hide, and lines above.
    fn areas(&self, sheet: &mut Sheet, curves: &[Curve<'_>]) -> Result<()> {
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

    fn lines(&self, sheet: &mut Sheet, curves: &[Curve<'_>]) -> Result<()> {
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

    /// The columns of device pixels that the time range is laid over.
    fn columns(&self) -> f64 {
        (self.width * self.params.pixel_ratio).ceil().max(1.0)
    }

    fn lines_of(&self, curve: &Curve<'_>, budget: &Budget) -> Result<Option<curve::Lines>> {
        let how = Joining {
            mode: self.mode,
            connected_limit: self.params.connected_limit,
            null_as_zero: self.params.null_as_zero,
        };
        let Some(axis) = self.axis_of(curve) else {
            return Ok(None);
        };
        curve::lines(curve, self.times.start, axis, how, budget).map(Some)
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
                sheet.push(Item::Stroke(super::scene::Stroke {
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
        let first = curve.series.start as f64 - self.times.start as f64;
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

    /// What a logarithmic axis cannot show is said.
    fn note(&self, sheet: &mut Sheet, curves: &[Curve<'_>]) -> Result<()> {
        let hidden = |c: &Curve<'_>| !c.infinite() && c.values.iter().any(|v| *v <= 0.0);
        if self.params.log_base.is_none() || self.params.graph_only || !curves.iter().any(hidden) {
            return Ok(());
        }
        let font = self
            .params
            .font
            .sized((self.params.font.size - 1.0).max(8.0));
        sheet.text(Label {
            text: "values of 0 and below are not shown".to_owned(),
            at: spot(sheet.right - 4.0, self.top + font.ascent() + 2.0),
            align: Align::End,
            font,
            paint: sheet.foreground(0.6),
            angle: 0.0,
        });
        sheet.check()
    }

    /// Where the plot is and what times it shows, for scripts around an SVG.
    fn data(&self, sheet: &Sheet) -> Vec<(&'static str, String)> {
        let mut data = vec![
            ("start", self.times.start.to_string()),
            ("end", self.times.end.to_string()),
            (
                "plot",
                format!(
                    "{:.2} {:.2} {:.2} {:.2}",
                    self.left,
                    self.top,
                    self.left + self.width,
                    sheet.bottom
                ),
            ),
        ];
        if let [Some(axis), None] = &self.axes
            && axis.log_base.is_none()
        {
            let (low, high) = axis.ends();
            data.push(("low", low.to_string()));
            data.push(("high", high.to_string()));
        }
        data
    }
}

fn group(curve: &Curve<'_>) -> Group {
    Group {
        class: "series",
        title: Some(curve.series.name.clone()),
        data: vec![("name", curve.series.name.clone())],
        ..Group::default()
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
