//! Figures in titles: `HTTP 404 ({last:percent2})` becomes `HTTP 404 (0.27 %)`.
//!
//! A figure is `{FIGURE}` or `{FIGURE:FORMAT}`. It is taken from the first series of the graph.
//!
//! | figure | |
//! |---|---|
//! | `last`, `min`, `max`, `avg`, `sum` | over the values that are there |
//!
//! | format | of 0.2714 |
//! |---|---|
//! | none | `0.271` (short, with k, M, G) |
//! | `N` (a digit) | `0.27` for `2`: N decimals |
//! | `percentN`, `percent` | `0.27 %` for `percent2` |

use super::y_axis::general;
use crate::Series;

/// The names of figures.
const FIGURES: [&str; 5] = ["last", "min", "max", "avg", "sum"];

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Short,
    Decimals(usize),
    Percent(usize),
}

impl Written {
    fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str, default: usize| match text {
            "" => Some(default),
            text => text.parse().ok().filter(|digits| *digits <= 9),
        };
        match text.strip_prefix("percent") {
            Some(rest) => digits(rest, 1).map(Self::Percent),
            None if text.is_empty() => Some(Self::Short),
            None => digits(text, 0).map(Self::Decimals),
        }
    }

    fn write(self, value: Option<f64>) -> String {
        let Some(value) = value else {
            return "–".to_owned();
        };
        match self {
            Self::Short => short(value),
            Self::Decimals(n) if value.abs() < 1e15 => format!("{value:.n$}"),
            Self::Percent(n) if value.abs() < 1e15 => format!("{value:.n$} %"),
            Self::Decimals(_) | Self::Percent(_) => general(value),
        }
    }
}

/// A number in three significant digits, with a unit prefix from 10,000 on.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let prefixes = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let fitting = prefixes.iter().find(|(least, _)| size >= *least);
    match fitting {
        Some((least, prefix)) if (1e4..1e18).contains(&size) => {
            format!("{} {prefix}", three(value / least))
        }
        _ if size != 0.0 && !(1e-4..1e18).contains(&size) => general(value),
        _ => three(value),
    }
}

fn three(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 => 3,
        _ => 6,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A part of a title.
#[derive(Debug, PartialEq)]
enum Part<'t> {
    Text(&'t str),
    Figure(&'t str, Written),
    /// In braces, and not a figure.
    Unknown(&'t str),
}

fn parts(title: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = title;
    while let Some(open) = rest.find('{') {
        let Some(length) = rest[open..].find('}') else {
            break;
        };
        let inside = &rest[open + 1..open + length];
        let (name, format) = inside.split_once(':').unwrap_or((inside, ""));
        parts.push(Part::Text(&rest[..open]));
        parts.push(match Written::parse(format) {
            Some(written) if FIGURES.contains(&name) => Part::Figure(name, written),
            _ => Part::Unknown(&rest[open..=open + length]),
        });
        rest = &rest[open + length + 1..];
    }
    parts.push(Part::Text(rest));
    parts
}

/// The first thing in braces that is not a figure.
pub fn unknown_figure(title: &str) -> Option<&str> {
    parts(title).into_iter().find_map(|part| match part {
        Part::Unknown(text) => Some(text),
        Part::Text(_) | Part::Figure(..) => None,
    })
}

/// `title` with the figures of the first of `series`.
pub fn with_figures(title: &str, series: &[Series]) -> String {
    let values = series.first().map(|series| &series.values[..]);
    let known = || {
        values
            .into_iter()
            .flatten()
            .copied()
            .filter(|v| v.is_finite())
    };
    let figure = |name: &str| {
        let n = known().count();
        if n == 0 {
            return None;
        }
        match name {
            "last" => known().next_back(),
            "min" => known().reduce(f64::min),
            "max" => known().reduce(f64::max),
            "avg" => Some(known().sum::<f64>() / n as f64),
            _ => Some(known().sum()),
        }
    };
    let write = |part: Part<'_>| match part {
        Part::Text(text) | Part::Unknown(text) => text.to_owned(),
        Part::Figure(name, written) => written.write(figure(name)),
    };
    parts(title).into_iter().map(write).collect()
}

/// `title` without figures, for where there are no values.
pub fn without_figures(title: &str) -> String {
    let filled = with_figures(title, &[]);
    let bare = filled.replace(" (–)", "").replace("(– %)", "");
    bare.replace('–', "").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_have_the_figures_of_the_first_series() {
        let series = Series::new("a", 0, 240, 60, vec![1.0, f64::NAN, 3.0, f64::NAN].into());
        for (title, filled) in [
            ("HTTP 404 ({last:percent2})", "HTTP 404 (3.00 %)"),
            ("{min} {max} {avg:1} {sum:0}", "1 3 2.0 4"),
            ("{last:percent}", "3.0 %"),
            ("{other} {last:x} {last", "{other} {last:x} {last"),
            ("plain", "plain"),
        ] {
            assert_eq!(with_figures(title, std::slice::from_ref(&series)), filled);
        }
        assert_eq!(with_figures("a ({last})", &[]), "a (–)");
        assert_eq!(without_figures("HTTP 404 ({last:percent2})"), "HTTP 404");
        assert_eq!(unknown_figure("a {last} {lsat:2}"), Some("{lsat:2}"));
        assert_eq!(unknown_figure("a {last:percent2}"), None);
    }

    #[test]
    fn short_numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.2714, "0.271"),
            (12.345, "12.3"),
            (9_999.0, "9999"),
            (12_345.0, "12.3 k"),
            (1.5e9, "1.5 G"),
            (1e100, "1e+100"),
            (-2_500_000.0, "-2.5 M"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
