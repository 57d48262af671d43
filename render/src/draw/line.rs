//! Values over time: the order of work is Graphite's (title, legend, axes, grid, areas, lines).

mod areas;
mod axes;
mod curves;
mod grid;
mod outliers;
mod strokes;

use std::ops::Range;

use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;

pub(super) use self::axes::arrange;
pub(super) use self::curves::curves;
use self::curves::entries;
use super::curve::{self, Curve, Joining};
use super::legend;
use super::overlay::Overlay;
use super::params::{LineMode, Params};
use super::scene::{Align, Group, Label, Scene, spot, units};
use super::sheet::Sheet;
use super::y_axis::YAxis;
use super::{Error, Window};
use crate::Series;
use crate::budget::Budget;
use crate::error::Result;
use crate::events::Event;

/// Series above this number have no legend unless the request asks for one.
const LEGEND_MOST: usize = 10;

/// Pixels between a label and the plot.
const LABEL_GAP: f64 = 5.0;

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
    if !params.hide_legend.unwrap_or(series.len() > LEGEND_MOST) {
        legend::draw(&mut sheet, params, entries(params, &curves))?;
    }
    if !params.hide_axes && !params.hide_x_axis {
        sheet.bottom -= 2.0 * params.font.ascent();
    }
    // Beside the plot, not beside title and legend.
    sheet.side_title(params, &params.vtitle, false)?;
    if two_axes {
        sheet.side_title(params, &params.vtitle_right, true)?;
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

    /// What a logarithmic axis cannot show is said, and what an axis leaves out.
    fn note(&self, sheet: &mut Sheet, curves: &[Curve<'_>]) -> Result<()> {
        let hidden = |c: &Curve<'_>| !c.infinite() && c.values.iter().any(|v| *v <= 0.0);
        let beyond = self.axes.iter().flatten().find_map(|axis| axis.beyond);
        let words = match beyond {
            _ if self.params.graph_only => return Ok(()),
            Some(beyond) => beyond.sentence(),
            None if self.params.log_base.is_some() && curves.iter().any(hidden) => {
                "values of 0 and below are not shown".to_owned()
            }
            None => return Ok(()),
        };
        let font = self
            .params
            .font
            .sized((self.params.font.size - 1.0).max(8.0));
        sheet.text(Label {
            text: words,
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
