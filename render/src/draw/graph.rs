//! A picture as numbers: what a page needs to draw it by itself, and to answer the pointer.
//!
//! The layout is that of the pictures (axes, ticks, colours, places of event labels); the time axis
//! runs over the whole window, and the plot begins at the same place on every graph whose labels fit
//! [`AXIS_ROOM`], so that graphs below each other have the same times below each other.
//!
//! A page that has the graph of a few seconds ago names it ([`Known`]) and gets what is new: the newest values, and
//! the layout only if it has become another one.

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::curve::Curve;
use super::figures::with_figures;
use super::line::{arrange, curves, mode, pixels};
use super::overlay::Overlay;
use super::params::{AreaMode, LineMode, Params, UnitSystem};
use super::sheet::Sheet;
use super::x_axis::{self, Scale};
use super::y_axis::YAxis;
use super::{Error, Window};
use crate::Series;
use crate::budget::Budget;
use crate::error::Result;
use crate::events::Event;
use crate::format::Buffer;
use crate::format::buffer::stopped;

/// Pixels that are kept for the labels of the value axis.
const AXIS_ROOM: f64 = 54.0;
/// Series with no more values than this are sent whole: those of another time may begin anywhere.
const FEW: usize = 12;
/// The newest values of each series, which are sent in any case: one that is not complete, and the
/// one before it, which may have become complete.
const OPEN: usize = 2;
/// About the bytes of one value in JSON.
const VALUE_BYTES: usize = 24;

/// What the client has already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    /// The values and ticks before this timestamp.
    pub since: Option<i64>,
    /// The layout and the events with this digest.
    pub layout: Option<String>,
}

#[derive(Serialize)]
struct Graph<'a> {
    /// With its figures.
    #[serde(skip_serializing_if = "String::is_empty")]
    title: String,
    from: i64,
    until: i64,
    /// The digest of the layout and the events.
    layout: String,
    #[serde(flatten)]
    laid_out: Option<&'a Layout<'a>>,
    major: Vec<i64>,
    minor: Vec<i64>,
    /// Unix seconds and text.
    labels: Vec<(i64, String)>,
    series: Vec<Values>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    events: Map<String, Value>,
}

/// What stays the same while time goes on, mostly.
#[derive(Serialize)]
struct Layout<'a> {
    /// Pixels.
    width: u32,
    height: u32,
    /// Left, top, right and bottom of the plot, in pixels.
    plot: [f64; 4],
    mode: &'static str,
    stacked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    alpha: Option<f64>,
    zero: bool,
    /// The absent values over which a connected line goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<f64>,
    #[serde(skip_serializing_if = "is_false")]
    binary: bool,
    axes: Vec<Axis<'a>>,
    lines: Vec<Line<'a>>,
    /// Levels of event labels above the plot, and pixels of one.
    levels: (usize, f64),
    shown: Vec<Value>,
}

#[derive(Serialize)]
struct Axis<'a> {
    low: f64,
    high: f64,
    log: bool,
    right: bool,
    ticks: &'a [(f64, String)],
    /// A sentence on the values that are outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    beyond: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    color: String,
    width: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dash: Option<f64>,
    #[serde(skip_serializing_if = "is_false")]
    right: bool,
    #[serde(skip_serializing_if = "is_false")]
    area: bool,
    /// Full-height lines where the value is above 0.
    #[serde(skip_serializing_if = "is_false")]
    infinite: bool,
    #[serde(skip_serializing_if = "is_false")]
    unnamed: bool,
    step: f64,
}

/// The values of a line.
#[derive(Serialize)]
struct Values {
    start: i64,
    /// The newest value, not consolidated.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<f64>,
    /// How many values there are, those before `since` included.
    count: usize,
    values: Vec<Option<f64>>,
}

fn is_false(is: &bool) -> bool {
    !*is
}

/// Lays out `series` with `events` on `window` as JSON, without what is `known`.
///
/// # Errors
/// As [`super::draw`].
pub fn graph(
    params: &Params,
    series: &[Series],
    window: &Window,
    events: &[Event],
    known: &Known,
    budget: &Budget,
) -> Result<Buffer, Error> {
    let since = known.since;
    let mut sheet = Sheet::new(params, budget);
    sheet.left = sheet.left.max(AXIS_ROOM);
    let each = size_of::<Curve<'_>>() + size_of::<Line<'_>>() + 4 * size_of::<&Series>();
    let title = with_figures(&params.title.join(" "), series);
    let _lists = budget.hold(series.len().saturating_mul(each))?;
    let series: Vec<&Series> = series.iter().filter(|s| !s.values.is_empty()).collect();
    let times = window.from..window.until.max(window.from + 1);
    let mut curves = aligned(curves(params, &series));
    let two_axes = curves.iter().any(|c| c.right);
    sheet.bottom -= 2.0 * params.font.ascent();
    let axes = arrange(&mut sheet, params, &mut curves, two_axes, &times)?;
    let range = (times.end - times.start) as f64;
    let (left, width) = (sheet.left, pixels(&sheet, params));
    let overlay = Overlay::new(params, events, &times, &window.zone, &sheet, |at| {
        left + (at - times.start as f64) / range * width
    });
    sheet.top += overlay.room();
    let scale = Scale::choose(times.end - times.start, width);
    // The client has those before.
    let is_new = |at: &i64| since.is_none_or(|since| *at >= since);
    let ticks = |every| {
        let mut ticks = x_axis::ticks(every, times.start, times.end, &window.zone);
        ticks.retain(is_new);
        ticks
    };
    let label = |at: i64| (at, x_axis::written(at, &window.zone, scale.format));
    let has_values = |axis: &&YAxis| !series.is_empty() && !axis.labels.is_empty();
    let layout = Layout {
        width: params.width,
        height: params.height,
        plot: [left, sheet.top, left + width, sheet.bottom],
        mode: mode_name(mode(params, &series)),
        stacked: params.area_mode == AreaMode::Stacked && !two_axes,
        alpha: params.area_alpha,
        zero: params.null_as_zero,
        gap: Some(params.connected_limit).filter(|limit| limit.is_finite()),
        binary: params.unit_system == UnitSystem::Binary,
        axes: (axes.iter().flatten())
            .filter(has_values)
            .enumerate()
            .map(|(n, axis)| axis_of(axis, n == 1))
            .collect(),
        lines: lines(&curves),
        levels: overlay.levels(),
        shown: overlay.placed(),
    };
    let mut unknown = fields(events, &overlay);
    let digest = digest(&layout, &unknown, budget)?;
    let is_known = known.layout.as_ref() == Some(&digest);
    if is_known {
        unknown.clear();
    }
    let graph = Graph {
        title,
        from: times.start,
        until: times.end,
        laid_out: (!is_known).then_some(&layout),
        layout: digest,
        major: ticks(scale.major),
        minor: ticks(scale.minor),
        labels: ticks(scale.label).into_iter().map(label).collect(),
        series: values(&curves, since, budget)?,
        events: unknown,
    };
    let mut out = Buffer::new(budget);
    serde_json::to_writer(&mut out, &graph).map_err(|error| stopped(error.into()))?;
    Ok(out)
}

/// `curves` with values that stay the same while the window moves on: a client has most of them.
fn aligned(mut curves: Vec<Curve<'_>>) -> Vec<Curve<'_>> {
    for curve in &mut curves {
        curve.aligned = true;
    }
    curves
}

/// The fields of `events` by their ids, with the colours of their lines. Of verdicts only what a card shows: every
/// graph of a page has all events, and figures that nobody sees change with every look at a deploy.
fn fields(events: &[Event], overlay: &Overlay<'_>) -> Map<String, Value> {
    let with_color = |event: &Event| {
        let mut json = event.to_graphite_json();
        if let Some(impact) = &event.impact {
            json["impact"] = serde_json::json!({
                "verdict": impact.verdict,
                "sentence": impact.sentence,
            });
        }
        json["color"] = overlay.color(event).into();
        (event.id.to_string(), json)
    };
    events.iter().map(with_color).collect()
}

fn mode_name(mode: LineMode) -> &'static str {
    match mode {
        LineMode::Slope => "slope",
        LineMode::Staircase => "staircase",
        LineMode::Connected => "connected",
    }
}

fn axis_of(axis: &YAxis, right: bool) -> Axis<'_> {
    let (low, high) = axis.ends();
    Axis {
        low,
        high,
        log: axis.log_base.is_some(),
        right,
        ticks: &axis.labels,
        beyond: axis.beyond.map(|beyond| beyond.sentence()),
    }
}

/// Eight bytes of a digest of `layout` and `events`, in hex.
fn digest(layout: &Layout<'_>, events: &Map<String, Value>, budget: &Budget) -> Result<String> {
    let mut text = Buffer::new(budget);
    serde_json::to_writer(&mut text, &(layout, events)).map_err(|error| stopped(error.into()))?;
    let digest = Sha256::digest(text.as_ref());
    Ok(digest.iter().take(8).map(|b| format!("{b:02x}")).collect())
}

fn lines<'a>(curves: &'a [Curve<'_>]) -> Vec<Line<'a>> {
    let shown = curves.iter().filter(|curve| !curve.invisible());
    let line = |curve: &'a Curve<'_>| {
        let drawing = &curve.series.drawing;
        let [r, g, b] = curve.color.rgb;
        let alpha = (curve.color.alpha * 255.0).round() as u8;
        Line {
            name: &curve.series.name,
            color: match alpha {
                255 => format!("#{r:02x}{g:02x}{b:02x}"),
                alpha => format!("#{r:02x}{g:02x}{b:02x}{alpha:02x}"),
            },
            width: curve.width,
            dash: curve.dash,
            right: curve.right,
            area: curve.area,
            infinite: curve.infinite(),
            unnamed: drawing.hide_from_legend || curve.series.name.is_empty(),
            step: curve.step(),
        }
    };
    shown.map(line).collect()
}

fn values(curves: &[Curve<'_>], since: Option<i64>, budget: &Budget) -> Result<Vec<Values>> {
    let mut all = Vec::with_capacity(curves.len());
    for curve in curves.iter().filter(|curve| !curve.invisible()) {
        budget.check()?;
        let before = since.map_or(0.0, |since| (since - curve.start) as f64 / curve.step());
        let skipped = match curve.values.len() {
            n if n <= FEW => 0,
            n => (before.ceil().max(0.0) as usize).min(n - OPEN),
        };
        let newer = &curve.values[skipped..];
        budget.reserve(newer.len() * (VALUE_BYTES + size_of::<Option<f64>>()))?;
        let known = |value: &&f64| value.is_finite();
        all.push(Values {
            start: curve.start,
            last: curve.series.values.iter().rfind(known).copied(),
            count: curve.values.len(),
            values: newer.iter().map(|value| rounded(*value)).collect(),
        });
    }
    Ok(all)
}

/// A finite value to nine significant digits, more than a graph can show.
fn rounded(value: f64) -> Option<f64> {
    if !value.is_finite() {
        return None;
    }
    if value == 0.0 || value.fract() == 0.0 {
        return Some(value);
    }
    let digits = 8 - value.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits.clamp(-300, 300));
    let near = (value * scale).round() / scale;
    Some(if near.is_finite() { near } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::impact::{Report, SeriesReport};

    fn of(
        params: &[(&str, &str)],
        series: &[Series],
        events: &[Event],
        since: Option<i64>,
    ) -> Value {
        let known = Known {
            since,
            layout: None,
        };
        with(params, series, events, &known)
    }

    fn with(params: &[(&str, &str)], series: &[Series], events: &[Event], known: &Known) -> Value {
        let pairs: Vec<(String, String)> = params
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let params = Params::from_pairs(&pairs);
        let window = Window::utc(0, 3600);
        let budget = Budget::unlimited();
        let out = graph(&params, series, &window, events, known, &budget).unwrap();
        serde_json::from_slice(out.as_ref()).unwrap()
    }

    fn series(name: &str, values: Vec<f64>) -> Series {
        Series::new(name, 60, 3660, 60, values.into())
    }

    #[test]
    fn graphs_have_the_times_of_the_window_at_the_same_pixels() {
        let small = of(&[], &[series("a", vec![1.0; 60])], &[], None);
        let large = of(&[], &[series("b", vec![123_456.0; 60])], &[], None);
        assert_eq!(small["plot"][0], large["plot"][0]);
        assert_eq!(small["plot"][2], large["plot"][2]);
        assert_eq!((&small["from"], &small["until"]), (&0.into(), &3600.into()));
        let none = of(&[], &[], &[], None);
        assert_eq!(none["plot"][0], small["plot"][0]);
        assert_eq!(none["axes"].as_array().unwrap().len(), 0);
    }

    #[test]
    fn values_before_since_are_left_out() {
        let values: Vec<f64> = (0..60).map(f64::from).collect();
        let whole = of(&[], &[series("a", values.clone())], &[], None);
        assert_eq!(whole["series"][0]["values"].as_array().unwrap().len(), 60);
        let part = of(&[], &[series("a", values)], &[], Some(3_500));
        let line = &part["series"][0];
        assert_eq!(line["values"], serde_json::json!([58.0, 59.0]));
        assert_eq!(line["count"], 60);
        assert_eq!(
            part["axes"], whole["axes"],
            "the axis is that of all values"
        );
        let few = Series::new("b", 0, 3600, 600, vec![1.0; 6].into());
        let part = of(&[], &[few], &[], Some(3_500));
        assert_eq!(part["series"][0]["values"].as_array().unwrap().len(), 6);
    }

    #[test]
    fn a_long_range_that_moves_on_keeps_its_values() {
        let at = |seconds: i64| ((seconds / 10) % 7) as f64;
        let asked = |from: i64, known: &Known| {
            let times = (from..from + 36_000).step_by(10);
            let series = Series::new(
                "a",
                from,
                from + 36_000,
                10,
                times.map(|time| Some(at(time))).collect(),
            );
            let params = Params::from_pairs(&[("width".to_owned(), "330".to_owned())]);
            let window = Window::utc(from, from + 36_000);
            let budget = Budget::unlimited();
            let out = graph(&params, &[series], &window, &[], known, &budget).unwrap();
            serde_json::from_slice::<Value>(out.as_ref()).unwrap()
        };
        let whole = |from| asked(from, &Known::default());
        let (before, after) = (whole(1_000_030), whole(1_000_040));
        let step = before["lines"][0]["step"].as_f64().unwrap() as i64;
        assert!(step > 100, "several values in one: {step}");
        for graph in [&before, &after] {
            assert_eq!(graph["series"][0]["start"].as_i64().unwrap() % step, 0);
        }
        let values = |graph: &Value| graph["series"][0]["values"].as_array().unwrap().clone();
        let n_same = values(&before)
            .iter()
            .zip(&values(&after))
            .take_while(|(a, b)| a == b)
            .count();
        assert!(n_same + OPEN >= values(&before).len(), "{n_same}");
        // What is not complete yet is sent again, however far `since` is.
        let known = Known {
            since: Some(1_036_030),
            layout: None,
        };
        let part = asked(1_000_040, &known);
        assert_eq!(values(&part).len(), OPEN);
        assert_eq!(part["series"][0]["count"], values(&after).len());
    }

    #[test]
    fn a_known_layout_is_left_out() {
        let whole = of(&[], &[series("a", vec![2.0; 60])], &[], None);
        let layout = whole["layout"].as_str().unwrap().to_owned();
        let known = Known {
            since: Some(3_500),
            layout: Some(layout),
        };
        let part = with(&[], &[series("a", vec![2.0; 60])], &[], &known);
        for name in ["axes", "lines", "plot", "shown", "events"] {
            assert!(part[name].is_null(), "{name}: {part}");
        }
        assert_eq!(part["series"][0]["last"], 2.0);
        let other = with(&[], &[series("a", vec![3_000.0; 60])], &[], &known);
        assert!(other["axes"].is_array(), "another axis: {other}");
        assert_ne!(other["layout"], whole["layout"]);
    }

    #[test]
    fn a_few_values_far_from_all_others_are_beyond_the_axis() {
        let mut values = vec![2.0; 60];
        values[20] = 1e300;
        let all = [series("a", values)];
        let kept = of(&[], &all, &[], None);
        assert!(kept["axes"][0]["high"].as_f64().unwrap() > 1e299);
        let clipped = of(&[("yOutliers", "clip")], &all, &[], None);
        assert!(clipped["axes"][0]["high"].as_f64().unwrap() < 5.0);
        assert_eq!(
            clipped["axes"][0]["beyond"],
            "1 value of 1e+300 is beyond the axis"
        );
    }

    #[test]
    fn gaps_and_values_that_json_cannot_hold_are_null() {
        let values = vec![f64::NAN, f64::INFINITY, 1.0 / 3.0, 1e300, -0.0];
        let graph = of(&[], &[series("a", values)], &[], None);
        let values = &graph["series"][0]["values"];
        assert_eq!(values.to_string(), "[null,null,0.333333333,1e+300,-0.0]");
    }

    #[test]
    fn events_have_their_places() {
        let event = Event {
            id: 3,
            what: "deploy web 2".to_owned(),
            tags: vec!["deploy".to_owned()],
            when: 1800.0,
            ..Event::default()
        };
        let graph = of(&[], &[series("a", vec![1.0; 60])], &[event], None);
        let shown = &graph["shown"][0];
        assert_eq!(shown["ids"], serde_json::json!([3]));
        assert_eq!(shown["from"], 1800.0);
        assert_eq!(shown["label"][2], "web 2");
        assert_eq!(graph["events"]["3"]["what"], "deploy web 2");
    }

    #[test]
    fn a_changed_event_is_sent_with_the_newest_values() {
        let event = |data: &str| Event {
            id: 3,
            what: "web 2".to_owned(),
            data: data.to_owned(),
            when: 1800.0,
            ..Event::default()
        };
        let all = [series("a", vec![1.0; 60])];
        let whole = of(&[], &all, &[event("ann")], None);
        let known = Known {
            since: Some(3_500),
            layout: whole["layout"].as_str().map(str::to_owned),
        };
        let same = with(&[], &all, &[event("ann")], &known);
        assert!(same["events"].is_null(), "{same}");
        let other = with(&[], &all, &[event("bob")], &known);
        assert_eq!(other["events"]["3"]["data"], "bob");
        assert_eq!(other["series"][0]["values"].as_array().unwrap().len(), OPEN);
    }

    #[test]
    fn another_look_at_a_deploy_is_sent_only_if_its_verdict_is_another() {
        let event = |sentence: &str, updated: f64| Event {
            id: 3,
            what: "web 2".to_owned(),
            when: 1800.0,
            impact: Some(Box::new(Report {
                sentence: sentence.to_owned(),
                series: vec![SeriesReport::default()],
                updated,
                ..Report::default()
            })),
            ..Event::default()
        };
        let all = [series("a", vec![1.0; 60])];
        let whole = of(&[], &all, &[event("too early", 1.0)], None);
        let expected = serde_json::json!({"verdict": "not_enough_data", "sentence": "too early"});
        assert_eq!(whole["events"]["3"]["impact"], expected);
        let known = Known {
            since: Some(3_500),
            layout: whole["layout"].as_str().map(str::to_owned),
        };
        let same = with(&[], &all, &[event("too early", 2.0)], &known);
        assert!(same["events"].is_null(), "{same}");
        let other = with(&[], &all, &[event("nothing changed", 2.0)], &known);
        assert_eq!(
            other["events"]["3"]["impact"]["sentence"],
            "nothing changed"
        );
    }
}
