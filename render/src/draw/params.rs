//! The drawing parameters of a request.
//!
//! A request is text; nothing in it is an error here. A value that is malformed counts as absent,
//! except where [`super::draw`] documents a refusal.
//!
//! To add a parameter: a field of [`Params`], its default in `Params::of`, and its line in
//! `PARAMETERS`.

mod kinds;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub(super) use self::kinds::{
    AreaMode, AxisLimits, AxisMax, LineMode, SideStyle, UnitSystem, ValueLabels,
};
pub use self::kinds::{GraphType, PieMode};
use super::color::Color;
use super::font::{Face, Font};
use super::template::{self, Template};

/// A word that its parameter does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadWord {
    pub(super) parameter: &'static str,
    pub(super) value: String,
    pub(super) allowed: &'static str,
}

/// Every drawing parameter of a request, read.
#[derive(Clone, Debug)]
pub struct Params {
    /// Pixels across, before [`Params::pixel_ratio`].
    pub width: u32,
    /// Pixels down, before [`Params::pixel_ratio`].
    pub height: u32,
    /// Device pixels per pixel, 0.25 to 8, for sharp screens.
    pub pixel_ratio: f64,
    /// The kind of picture.
    pub graph_type: GraphType,
    /// Which value of a series a pie shows.
    pub pie_mode: PieMode,
    pub(super) margin: f64,
    pub(super) background: Color,
    pub(super) foreground: Color,
    pub(super) major_line: Color,
    pub(super) minor_line: Color,
    pub(super) colors: Vec<Color>,
    pub(super) font: Font,
    pub(super) title: Vec<String>,
    pub(super) vtitle: Vec<String>,
    pub(super) vtitle_right: Vec<String>,
    pub(super) line_mode: LineMode,
    pub(super) connected_limit: f64,
    pub(super) line_width: f64,
    pub(super) area_mode: AreaMode,
    pub(super) area_alpha: Option<f64>,
    pub(super) null_as_zero: bool,
    /// `None`: shown for at most ten series.
    pub(super) hide_legend: Option<bool>,
    pub(super) unique_legend: bool,
    pub(super) hide_null_from_legend: bool,
    pub(super) hide_x_axis: bool,
    pub(super) hide_y_axis: bool,
    pub(super) hide_axes: bool,
    pub(super) hide_grid: bool,
    pub(super) graph_only: bool,
    pub(super) minor_y: u32,
    pub(super) min_x_step: f64,
    pub(super) axis: AxisLimits,
    pub(super) left: AxisLimits,
    pub(super) right: AxisLimits,
    pub(super) divisors: Vec<u32>,
    /// Few values far from all others do not stretch the value axis.
    pub(super) clips_outliers: bool,
    pub(super) unit_system: UnitSystem,
    pub(super) y_axis_right: bool,
    pub(super) log_base: Option<f64>,
    pub(super) x_format: Option<String>,
    pub(super) left_style: SideStyle,
    pub(super) right_style: SideStyle,
    pub(super) value_labels: ValueLabels,
    pub(super) value_labels_min: f64,
    pub(super) value_labels_color: Color,
    pub(super) rotated_labels: bool,
    pub(super) bad_word: Option<BadWord>,
}

impl Default for Params {
    fn default() -> Self {
        Self::from_pairs(&[])
    }
}

impl Params {
    /// Reads the parameters that concern drawing; others are passed over. If a parameter is
    /// repeated, the last one counts, as in Graphite.
    pub fn from_pairs(pairs: &[(String, String)]) -> Self {
        let pairs = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let given: HashMap<&str, &str> = pairs.collect();
        // An empty value and `default` count as absent.
        let text = |name: &str| {
            let value = given.get(name).copied()?;
            (!value.is_empty() && !value.eq_ignore_ascii_case("default")).then_some(value)
        };
        let template = template::find(text("template").unwrap_or("default"));
        let mut params = Self::of(template);
        for (name, set) in PARAMETERS {
            if let Some(text) = text(name) {
                set.apply(&mut params, name, text);
            }
        }
        let flag = |name| text(name).is_some_and(truth);
        let face = Face::named(text("fontName").unwrap_or("Sans"), flag("fontBold"));
        let size = text("fontSize").and_then(number).unwrap_or(10.0);
        params.font = Font::new(face, size as f32, flag("fontItalic"));
        if params.graph_only {
            params.leave_only_the_graph();
        }
        params
    }

    /// The parameters of a request that has only a template.
    fn of(template: &Template) -> Self {
        let black = Color::opaque(0, 0, 0);
        let color = |text| Color::parse(text).unwrap_or(black);
        Self {
            width: 330,
            height: 250,
            pixel_ratio: 1.0,
            graph_type: GraphType::default(),
            pie_mode: PieMode::default(),
            margin: 10.0,
            background: color(template.background),
            foreground: color(template.foreground),
            major_line: color(template.major_line),
            minor_line: color(template.minor_line),
            colors: colors(template.line_colors),
            font: Font::new(Face::named("Sans", false), 10.0, false),
            title: Vec::new(),
            vtitle: Vec::new(),
            vtitle_right: Vec::new(),
            line_mode: LineMode::default(),
            connected_limit: f64::INFINITY,
            line_width: LINE_WIDTH,
            area_mode: AreaMode::default(),
            area_alpha: None,
            null_as_zero: false,
            hide_legend: None,
            unique_legend: false,
            hide_null_from_legend: false,
            hide_x_axis: false,
            hide_y_axis: false,
            hide_axes: false,
            hide_grid: false,
            graph_only: false,
            minor_y: 1,
            min_x_step: 1.0,
            axis: AxisLimits::default(),
            left: AxisLimits::default(),
            right: AxisLimits::default(),
            divisors: DIVISORS.to_vec(),
            clips_outliers: false,
            unit_system: UnitSystem::default(),
            y_axis_right: false,
            log_base: None,
            x_format: None,
            left_style: SideStyle::default(),
            right_style: SideStyle::default(),
            value_labels: ValueLabels::default(),
            value_labels_min: 5.0,
            value_labels_color: black,
            rotated_labels: false,
            bad_word: None,
        }
    }

    /// `graphOnly` wins over the parameters of what it leaves out.
    fn leave_only_the_graph(&mut self) {
        self.margin = 0.0;
        self.title.clear();
        self.vtitle.clear();
        self.vtitle_right.clear();
        self.hide_legend = Some(true);
        self.hide_x_axis = false;
        self.hide_y_axis = false;
        self.hide_axes = true;
        self.hide_grid = true;
        self.y_axis_right = false;
    }
}

/// Pixels.
const LINE_WIDTH: f64 = 1.2;

/// Parts of a value axis, as in Graphite.
pub(super) const DIVISORS: &[u32] = &[4, 5, 6];

/// How a parameter is read, and where its value goes. A text that does not read counts as absent.
enum Set {
    /// Any text.
    Text(fn(&mut Params, &str)),
    /// A finite number.
    Number(fn(&mut Params, f64)),
    /// A truth value.
    Flag(fn(&mut Params, bool)),
    /// A colour.
    Color(fn(&mut Params, Color)),
    /// One of a few words, in lower case; false for another one, which is remembered, to be
    /// refused when the picture is drawn.
    Word(&'static str, fn(&mut Params, &str) -> bool),
}

impl Set {
    fn apply(&self, params: &mut Params, parameter: &'static str, text: &str) {
        match self {
            Self::Text(set) => set(params, text),
            Self::Number(set) => {
                if let Some(number) = number(text) {
                    set(params, number);
                }
            }
            Self::Flag(set) => set(params, truth(text)),
            Self::Color(set) => {
                if let Some(color) = Color::parse(text) {
                    set(params, color);
                }
            }
            Self::Word(allowed, set) => {
                let known = set(params, &text.to_ascii_lowercase());
                // Words that only graphs of the other type look at are never refused.
                let of_other_type: &[&str] = match params.graph_type {
                    GraphType::Line => &["pieMode", "valueLabels"],
                    GraphType::Pie => &["areaMode", "lineMode"],
                };
                if !known && !of_other_type.contains(&parameter) {
                    params.bad_word.get_or_insert_with(|| BadWord {
                        parameter,
                        value: text.to_owned(),
                        allowed,
                    });
                }
            }
        }
    }
}

/// Every parameter that stands on its own, in the order in which they are read: `graphType` before
/// the words of one type, an old name before the name that wins over it. The first bad word is the
/// one that is refused.
const PARAMETERS: &[(&str, Set)] = &[
    (
        "graphType",
        Set::Word("line, pie", |p, word| {
            p.graph_type = match word {
                "line" => GraphType::Line,
                "pie" => GraphType::Pie,
                _ => return false,
            };
            true
        }),
    ),
    (
        "pieMode",
        Set::Word("average, maximum, minimum", |p, word| {
            p.pie_mode = match word {
                "average" => PieMode::Average,
                "maximum" => PieMode::Maximum,
                "minimum" => PieMode::Minimum,
                _ => return false,
            };
            true
        }),
    ),
    (
        "lineMode",
        Set::Word("slope, staircase, connected", |p, word| {
            p.line_mode = match word {
                "slope" => LineMode::Slope,
                "staircase" => LineMode::Staircase,
                "connected" => LineMode::Connected,
                _ => return false,
            };
            true
        }),
    ),
    (
        "areaMode",
        Set::Word("none, first, all, stacked", |p, word| {
            p.area_mode = match word {
                "none" => AreaMode::None,
                "first" => AreaMode::First,
                "all" => AreaMode::All,
                "stacked" => AreaMode::Stacked,
                _ => return false,
            };
            true
        }),
    ),
    (
        "valueLabels",
        Set::Word("none, number, percent", |p, word| {
            p.value_labels = match word {
                "none" => ValueLabels::None,
                "number" => ValueLabels::Number,
                "percent" => ValueLabels::Percent,
                _ => return false,
            };
            true
        }),
    ),
    (
        "yOutliers",
        Set::Word("keep, clip", |p, word| {
            p.clips_outliers = match word {
                "keep" => false,
                "clip" => true,
                _ => return false,
            };
            true
        }),
    ),
    // Size and ground.
    ("width", Set::Number(|p, n| set_pixels(&mut p.width, n))),
    ("height", Set::Number(|p, n| set_pixels(&mut p.height, n))),
    (
        "pixelRatio",
        Set::Number(|p, n| p.pixel_ratio = n.clamp(0.25, 8.0)),
    ),
    (
        "margin",
        Set::Number(|p, n| {
            if n >= 0.0 {
                p.margin = n;
            }
        }),
    ),
    ("graphOnly", Set::Flag(|p, on| p.graph_only = on)),
    // Colours.
    ("bgcolor", Set::Color(|p, color| p.background = color)),
    ("fgcolor", Set::Color(|p, color| p.foreground = color)),
    (
        "majorGridLineColor",
        Set::Color(|p, color| p.major_line = color),
    ),
    (
        "minorGridLineColor",
        Set::Color(|p, color| p.minor_line = color),
    ),
    (
        "colorList",
        Set::Text(|p, text| {
            let colors = colors(&unquote_plus(text));
            if !colors.is_empty() {
                p.colors = colors;
            }
        }),
    ),
    // Titles and legend.
    ("title", Set::Text(|p, text| p.title = lines(text))),
    ("vtitle", Set::Text(|p, text| p.vtitle = lines(text))),
    (
        "vtitleRight",
        Set::Text(|p, text| p.vtitle_right = lines(text)),
    ),
    ("hideLegend", Set::Flag(|p, on| p.hide_legend = Some(on))),
    ("uniqueLegend", Set::Flag(|p, on| p.unique_legend = on)),
    (
        "hideNullFromLegend",
        Set::Flag(|p, on| p.hide_null_from_legend = on),
    ),
    // Lines and areas.
    ("connectedLimit", Set::Number(|p, n| p.connected_limit = n)),
    ("thickness", Set::Number(set_line_width)),
    ("lineWidth", Set::Number(set_line_width)),
    (
        "areaAlpha",
        Set::Text(|p, text| {
            let alpha: f64 = text.trim().parse().unwrap_or(0.5);
            p.area_alpha = (alpha != 0.0).then_some(alpha);
        }),
    ),
    ("drawNullAsZero", Set::Flag(|p, on| p.null_as_zero = on)),
    (
        "leftWidth",
        Set::Number(|p, n| p.left_style.width = positive(n)),
    ),
    (
        "leftColor",
        Set::Color(|p, color| p.left_style.color = Some(color)),
    ),
    (
        "leftDashed",
        Set::Number(|p, n| p.left_style.dash = positive(n)),
    ),
    (
        "rightWidth",
        Set::Number(|p, n| p.right_style.width = positive(n)),
    ),
    (
        "rightColor",
        Set::Color(|p, color| p.right_style.color = Some(color)),
    ),
    (
        "rightDashed",
        Set::Number(|p, n| p.right_style.dash = positive(n)),
    ),
    // Axes.
    ("hideXAxis", Set::Flag(|p, on| p.hide_x_axis = on)),
    ("hideYAxis", Set::Flag(|p, on| p.hide_y_axis = on)),
    ("hideAxes", Set::Flag(|p, on| p.hide_axes = on)),
    ("hideGrid", Set::Flag(|p, on| p.hide_grid = on)),
    (
        "minorY",
        Set::Number(|p, n| p.minor_y = n.clamp(0.0, 100.0) as u32),
    ),
    (
        "minXStep",
        Set::Number(|p, n| p.min_x_step = positive(n).unwrap_or(1.0)),
    ),
    ("min", Set::Number(|p, n| p.axis.min = Some(n))),
    ("yMin", Set::Number(|p, n| p.axis.min = Some(n))),
    ("max", Set::Text(|p, text| set_max(&mut p.axis, text))),
    ("yMax", Set::Text(|p, text| set_max(&mut p.axis, text))),
    ("yLimit", Set::Number(|p, n| p.axis.limit = Some(n))),
    ("yStep", Set::Number(|p, n| p.axis.step = Some(n))),
    ("yMinLeft", Set::Number(|p, n| p.left.min = Some(n))),
    ("yMaxLeft", Set::Text(|p, text| set_max(&mut p.left, text))),
    ("yLimitLeft", Set::Number(|p, n| p.left.limit = Some(n))),
    ("yStepLeft", Set::Number(|p, n| p.left.step = Some(n))),
    ("yMinRight", Set::Number(|p, n| p.right.min = Some(n))),
    (
        "yMaxRight",
        Set::Text(|p, text| set_max(&mut p.right, text)),
    ),
    ("yLimitRight", Set::Number(|p, n| p.right.limit = Some(n))),
    ("yStepRight", Set::Number(|p, n| p.right.step = Some(n))),
    (
        "yDivisors",
        Set::Text(|p, text| p.divisors = divisors(text)),
    ),
    (
        "yUnitSystem",
        Set::Text(|p, text| p.unit_system = unit_system(text)),
    ),
    (
        "yAxisSide",
        Set::Text(|p, text| p.y_axis_right = text == "right"),
    ),
    (
        "logBase",
        Set::Text(|p, text| {
            p.log_base = match text {
                "e" => Some(std::f64::consts::E),
                _ => number(text).filter(|base| *base > 1.0),
            };
        }),
    ),
    (
        "xFormat",
        Set::Text(|p, text| p.x_format = Some(text.to_owned())),
    ),
    // Pies.
    ("valueLabelsMin", Set::Number(|p, n| p.value_labels_min = n)),
    (
        "valueLabelsColor",
        Set::Color(|p, color| p.value_labels_color = color),
    ),
    (
        "pieLabels",
        Set::Text(|p, text| p.rotated_labels = text == "rotated"),
    ),
];

fn number(text: &str) -> Option<f64> {
    let value: f64 = text.trim().parse().ok()?;
    value.is_finite().then_some(value)
}

fn positive(number: f64) -> Option<f64> {
    (number > 0.0).then_some(number)
}

fn set_pixels(pixels: &mut u32, number: f64) {
    if number >= 1.0 {
        *pixels = number.min(f64::from(u32::MAX)) as u32;
    }
}

fn set_line_width(params: &mut Params, number: f64) {
    params.line_width = positive(number).unwrap_or(LINE_WIDTH).min(1000.0);
}

/// A text that is neither `max` nor a number leaves the axis as it is.
fn set_max(axis: &mut AxisLimits, text: &str) {
    match (text, number(text)) {
        ("max", _) => axis.max = AxisMax::Extremum,
        (_, Some(number)) => axis.max = AxisMax::At(number),
        (_, None) => {}
    }
}

fn unit_system(text: &str) -> UnitSystem {
    match text.to_ascii_lowercase().as_str() {
        "binary" => UnitSystem::Binary,
        "sec" => UnitSystem::Sec,
        "msec" => UnitSystem::Msec,
        "none" => UnitSystem::None,
        _ => UnitSystem::Si,
    }
}

/// The colours of a list; those that are unknown are left out.
fn colors(list: &str) -> Vec<Color> {
    list.split(',').filter_map(Color::parse).collect()
}

/// Python's idea of truth, after Graphite has read numbers and `false`.
fn truth(text: &str) -> bool {
    !text.eq_ignore_ascii_case("false") && text.parse::<f64>() != Ok(0.0)
}

/// Graphite decodes titles once more after the query string is decoded.
pub(super) fn unquote_plus(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        let hex = text
            .get(at + 1..at + 3)
            .filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (b, hex) {
            (b'+', _) => out.push(b' '),
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            _ => out.push(b),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A title may have several lines: real line ends, or the two characters `\n`.
fn lines(text: &str) -> Vec<String> {
    let text = unquote_plus(text).replace("\\n", "\n");
    text.lines().map(str::to_owned).collect()
}

fn divisors(text: &str) -> Vec<u32> {
    let read: Vec<u32> = text
        .split(',')
        .filter_map(|d| d.trim().parse().ok())
        .filter(|d| (1..=1000).contains(d))
        .take(100)
        .collect();
    if read.is_empty() {
        DIVISORS.to_vec()
    } else {
        read
    }
}
