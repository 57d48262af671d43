//! What a request says about its picture.
//!
//! A request is text; nothing in it is an error here. A value that does not read as what its
//! parameter wants counts as absent, except where [`super::draw`] documents a refusal.

use std::collections::HashMap;

use super::color::Color;
use super::font::{Face, Font};
use super::template;

/// What kind of picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GraphType {
    /// Values over time.
    #[default]
    Line,
    /// One slice per series.
    Pie,
}

/// How points are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LineMode {
    /// Straight from point to point, broken where values are absent.
    #[default]
    Slope,
    /// Each value holds for its step.
    Staircase,
    /// Straight over gaps of at most `connectedLimit` absent values.
    Connected,
}

/// What is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AreaMode {
    #[default]
    None,
    First,
    All,
    Stacked,
}

/// Which single value stands for a series in a pie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PieMode {
    /// The mean of the present values.
    #[default]
    Average,
    /// The largest.
    Maximum,
    /// The smallest.
    Minimum,
}

/// What is written on a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ValueLabels {
    None,
    Number,
    #[default]
    Percent,
}

/// The steps in which large values are abbreviated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum UnitSystem {
    #[default]
    Si,
    Binary,
    Sec,
    Msec,
    None,
}

/// The upper end of a value axis.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum AxisMax {
    /// A round number at or above the largest value.
    #[default]
    Auto,
    /// Exactly the largest value (`yMax=max`).
    Extremum,
    /// This value.
    At(f64),
}

/// Limits and step of one value axis.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct AxisLimits {
    pub(super) min: Option<f64>,
    pub(super) max: AxisMax,
    /// Ceiling of the automatic maximum.
    pub(super) limit: Option<f64>,
    pub(super) step: Option<f64>,
}

/// How all series of one side are drawn, whatever they say themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct SideStyle {
    pub(super) width: Option<f64>,
    pub(super) color: Option<Color>,
    pub(super) dash: Option<f64>,
}

/// A word that is none of those its parameter knows.
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
    /// What kind of picture.
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
    /// Reads the parameters that concern drawing; others are passed over. Of a repeated one the
    /// last counts, as in Graphite.
    pub fn from_pairs(pairs: &[(String, String)]) -> Self {
        let mut r = Reader {
            values: pairs
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect(),
            bad_word: None,
            of_other_type: &[],
        };
        let graph_type = r.word("graphType", "line, pie", |w| match w {
            "line" => Some(GraphType::Line),
            "pie" => Some(GraphType::Pie),
            _ => None,
        });
        r.of_other_type = match graph_type {
            GraphType::Line => &["pieMode", "valueLabels"],
            GraphType::Pie => &["areaMode", "lineMode"],
        };
        let template = template::find(r.text("template").unwrap_or("default"));
        let template_color = |text| Color::parse(text).unwrap_or(Color::opaque(0, 0, 0));
        let graph_only = r.flag("graphOnly");
        let size = r.number("fontSize").unwrap_or(10.0);
        let face = Face::named(r.text("fontName").unwrap_or("Sans"), r.flag("fontBold"));
        let font = Font::new(face, size as f32, r.flag("fontItalic"));
        let words = |r: &Reader<'_>, name| match r.text(name) {
            Some(text) if !graph_only => lines(text),
            _ => Vec::new(),
        };
        let title = words(&r, "title");
        let vtitle = words(&r, "vtitle");
        let vtitle_right = words(&r, "vtitleRight");
        let colors: Vec<Color> = r
            .text("colorList")
            .map(unquote_plus)
            .as_deref()
            .unwrap_or(template.line_colors)
            .split(',')
            .filter_map(Color::parse)
            .collect();
        let colors = if colors.is_empty() {
            template
                .line_colors
                .split(',')
                .filter_map(Color::parse)
                .collect()
        } else {
            colors
        };
        Self {
            width: r.pixels("width", 330),
            height: r.pixels("height", 250),
            pixel_ratio: r.number("pixelRatio").unwrap_or(1.0).clamp(0.25, 8.0),
            graph_type,
            pie_mode: r.word("pieMode", "average, maximum, minimum", |w| match w {
                "average" => Some(PieMode::Average),
                "maximum" => Some(PieMode::Maximum),
                "minimum" => Some(PieMode::Minimum),
                _ => None,
            }),
            margin: match r.number("margin") {
                _ if graph_only => 0.0,
                Some(m) if m >= 0.0 => m,
                _ => 10.0,
            },
            background: r
                .color("bgcolor")
                .unwrap_or_else(|| template_color(template.background)),
            foreground: r
                .color("fgcolor")
                .unwrap_or_else(|| template_color(template.foreground)),
            major_line: r
                .color("majorGridLineColor")
                .unwrap_or_else(|| template_color(template.major_line)),
            minor_line: r
                .color("minorGridLineColor")
                .unwrap_or_else(|| template_color(template.minor_line)),
            colors,
            font,
            title,
            vtitle,
            vtitle_right,
            line_mode: r.word("lineMode", "slope, staircase, connected", |w| match w {
                "slope" => Some(LineMode::Slope),
                "staircase" => Some(LineMode::Staircase),
                "connected" => Some(LineMode::Connected),
                _ => None,
            }),
            connected_limit: r.number("connectedLimit").unwrap_or(f64::INFINITY),
            line_width: r
                .number("lineWidth")
                .or_else(|| r.number("thickness"))
                .filter(|w| *w > 0.0)
                .unwrap_or(1.2)
                .min(1000.0),
            area_mode: r.word("areaMode", "none, first, all, stacked", |w| match w {
                "none" => Some(AreaMode::None),
                "first" => Some(AreaMode::First),
                "all" => Some(AreaMode::All),
                "stacked" => Some(AreaMode::Stacked),
                _ => None,
            }),
            area_alpha: r
                .text("areaAlpha")
                .map(|t| t.trim().parse().unwrap_or(0.5))
                .filter(|a| *a != 0.0),
            null_as_zero: r.flag("drawNullAsZero"),
            hide_legend: if graph_only {
                Some(true)
            } else {
                r.text("hideLegend").map(truth)
            },
            unique_legend: r.flag("uniqueLegend"),
            hide_null_from_legend: r.flag("hideNullFromLegend"),
            hide_x_axis: !graph_only && r.flag("hideXAxis"),
            hide_y_axis: !graph_only && r.flag("hideYAxis"),
            hide_axes: graph_only || r.flag("hideAxes"),
            hide_grid: graph_only || r.flag("hideGrid"),
            graph_only,
            minor_y: r.number("minorY").unwrap_or(1.0).clamp(0.0, 100.0) as u32,
            min_x_step: r.number("minXStep").filter(|s| *s > 0.0).unwrap_or(1.0),
            axis: AxisLimits {
                min: r.number("yMin").or_else(|| r.number("min")),
                max: match r.axis_max("yMax") {
                    AxisMax::Auto => r.axis_max("max"),
                    max => max,
                },
                limit: r.number("yLimit"),
                step: r.number("yStep"),
            },
            left: r.axis(["yMinLeft", "yMaxLeft", "yLimitLeft", "yStepLeft"]),
            right: r.axis(["yMinRight", "yMaxRight", "yLimitRight", "yStepRight"]),
            divisors: divisors(r.text("yDivisors").unwrap_or("4,5,6")),
            unit_system: match r
                .text("yUnitSystem")
                .map(str::to_ascii_lowercase)
                .as_deref()
            {
                Some("binary") => UnitSystem::Binary,
                Some("sec") => UnitSystem::Sec,
                Some("msec") => UnitSystem::Msec,
                Some("none") => UnitSystem::None,
                _ => UnitSystem::Si,
            },
            y_axis_right: !graph_only && r.text("yAxisSide") == Some("right"),
            log_base: match r.text("logBase") {
                Some("e") => Some(std::f64::consts::E),
                _ => r.number("logBase").filter(|b| *b > 1.0),
            },
            x_format: r.text("xFormat").map(str::to_owned),
            left_style: r.side(["leftWidth", "leftColor", "leftDashed"]),
            right_style: r.side(["rightWidth", "rightColor", "rightDashed"]),
            value_labels: r.word("valueLabels", "none, number, percent", |w| match w {
                "none" => Some(ValueLabels::None),
                "number" => Some(ValueLabels::Number),
                "percent" => Some(ValueLabels::Percent),
                _ => None,
            }),
            value_labels_min: r.number("valueLabelsMin").unwrap_or(5.0),
            value_labels_color: r
                .color("valueLabelsColor")
                .unwrap_or(Color::opaque(0, 0, 0)),
            rotated_labels: r.text("pieLabels") == Some("rotated"),
            bad_word: r.bad_word,
        }
    }
}

struct Reader<'a> {
    values: HashMap<&'a str, &'a str>,
    bad_word: Option<BadWord>,
    /// Words that only graphs of the other type look at: whatever they are is fine.
    of_other_type: &'static [&'static str],
}

impl<'a> Reader<'a> {
    /// The value, unless it is empty or `default`, which count as absent.
    fn text(&self, name: &str) -> Option<&'a str> {
        self.values
            .get(name)
            .copied()
            .filter(|v| !v.is_empty() && !v.eq_ignore_ascii_case("default"))
    }

    fn number(&self, name: &str) -> Option<f64> {
        let value: f64 = self.text(name)?.trim().parse().ok()?;
        value.is_finite().then_some(value)
    }

    fn pixels(&self, name: &str, default: u32) -> u32 {
        match self.number(name) {
            Some(n) if n >= 1.0 => n.min(f64::from(u32::MAX)) as u32,
            _ => default,
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(truth)
    }

    fn color(&self, name: &str) -> Option<Color> {
        Color::parse(self.text(name)?)
    }

    fn axis_max(&self, name: &str) -> AxisMax {
        match self.text(name) {
            Some("max") => AxisMax::Extremum,
            _ => self.number(name).map_or(AxisMax::Auto, AxisMax::At),
        }
    }

    fn axis(&self, [min, max, limit, step]: [&str; 4]) -> AxisLimits {
        AxisLimits {
            min: self.number(min),
            max: self.axis_max(max),
            limit: self.number(limit),
            step: self.number(step),
        }
    }

    fn side(&self, [width, color, dash]: [&str; 3]) -> SideStyle {
        SideStyle {
            width: self.number(width).filter(|w| *w > 0.0),
            color: self.color(color),
            dash: self.number(dash).filter(|d| *d > 0.0),
        }
    }

    /// One of a few words; another one is remembered, to be refused when the picture is drawn.
    fn word<T: Default>(
        &mut self,
        parameter: &'static str,
        allowed: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> T {
        let Some(text) = self.text(parameter) else {
            return T::default();
        };
        read(&text.to_ascii_lowercase()).unwrap_or_else(|| {
            if !self.of_other_type.contains(&parameter) {
                self.bad_word.get_or_insert_with(|| BadWord {
                    parameter,
                    value: text.to_owned(),
                    allowed,
                });
            }
            T::default()
        })
    }
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
    if read.is_empty() { vec![4, 5, 6] } else { read }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Params {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Params::from_pairs(&pairs)
    }

    #[test]
    fn defaults_are_graphites() {
        let p = Params::default();
        assert_eq!((p.width, p.height), (330, 250));
        assert_eq!(p.margin, 10.0);
        assert_eq!(p.line_width, 1.2);
        assert_eq!(p.divisors, [4, 5, 6]);
        assert_eq!(p.hide_legend, None);
        assert_eq!(p.background, Color::opaque(255, 255, 255));
        assert_eq!(p.major_line, Color::opaque(200, 150, 200));
        assert_eq!(p.colors.len(), 12);
        assert_eq!(p.pie_mode, PieMode::Average);
        assert!(p.bad_word.is_none());
    }

    #[test]
    fn the_last_of_a_repeated_parameter_counts() {
        assert_eq!(read(&[("width", "100"), ("width", "200")]).width, 200);
    }

    #[test]
    fn flags_read_as_python_would() {
        for (text, hidden) in [
            ("0", Some(false)),
            ("false", Some(false)),
            ("False", Some(false)),
            ("1", Some(true)),
            ("true", Some(true)),
            ("yes", Some(true)),
            ("default", None),
            ("", None),
        ] {
            assert_eq!(read(&[("hideLegend", text)]).hide_legend, hidden, "{text}");
        }
    }

    #[test]
    fn nonsense_counts_as_absent() {
        let p = read(&[
            ("width", "wide"),
            ("height", "-3"),
            ("margin", "-1"),
            ("yMin", "nan"),
            ("fontSize", "x"),
            ("bgcolor", "nope"),
            ("yDivisors", "0,-1,x"),
            ("logBase", "0.5"),
        ]);
        assert_eq!((p.width, p.height), (330, 250));
        assert_eq!(p.margin, 10.0);
        assert_eq!(p.axis, AxisLimits::default());
        assert_eq!(p.background, Color::opaque(255, 255, 255));
        assert_eq!(p.divisors, [4, 5, 6]);
        assert_eq!(p.log_base, None);
    }

    #[test]
    fn old_names_work() {
        let p = read(&[("min", "1"), ("max", "max"), ("thickness", "3")]);
        assert_eq!(p.axis.min, Some(1.0));
        assert_eq!(p.axis.max, AxisMax::Extremum);
        assert_eq!(p.line_width, 3.0);
    }

    #[test]
    fn unknown_words_are_remembered_not_guessed() {
        let bad = read(&[("lineMode", "curly")]).bad_word.unwrap();
        assert_eq!((bad.parameter, bad.value.as_str()), ("lineMode", "curly"));
        assert!(read(&[("lineMode", "Staircase")]).bad_word.is_none());
        let pie = ("graphType", "pie");
        assert!(read(&[("pieMode", "curly")]).bad_word.is_none());
        assert!(read(&[pie, ("pieMode", "curly")]).bad_word.is_some());
        assert!(read(&[pie, ("lineMode", "curly")]).bad_word.is_none());
    }

    #[test]
    fn titles_are_decoded_once_more_and_split() {
        assert_eq!(
            read(&[("title", "a%20b+c\\nd\ne")]).title,
            ["a b c", "d", "e"]
        );
        assert_eq!(unquote_plus("100%"), "100%");
        assert_eq!(unquote_plus("%zz%é"), "%zz%é");
        assert!(read(&[("title", "x"), ("graphOnly", "1")]).title.is_empty());
    }
}
