//! `[{"target": …, "tags": {…}, "datapoints": [[value, seconds], …]}, …]`

use std::ops::Range;

use super::{Document, Layout, Timestamps, push_text, push_value, push_whole, shown, text_room};
use crate::budget::Budget;
use crate::consolidate;
use crate::error::Result;
use crate::series::{OddName, Series};

/// How the points of a JSON answer are chosen.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub struct Choice {
    /// At most so many points per series over the range of all of them: `maxDataPoints`.
    pub max_points: Option<u64>,
    /// Points without a value are left out, and series without points: `noNullPoints`.
    pub only_present: bool,
    /// Indented.
    pub pretty: bool,
}

/// Series as JSON.
///
/// # Errors
/// As [`consolidate::downsample`] and [`Budget::check`].
pub fn document(mut all: Vec<Series>, choice: Choice, budget: &Budget) -> Result<Document> {
    let spaces = if choice.pretty {
        Spaces::WIDE
    } else {
        Spaces::NONE
    };
    if all.iter().all(|series| series.values.is_empty()) {
        // Not even a line end.
        let spaces = Spaces::NONE;
        let only_present = choice.only_present;
        return Ok(Document::new(
            Vec::new(),
            Json {
                spaces,
                only_present,
            },
        ));
    }
    if let Some(max_points) = choice.max_points {
        consolidate::downsample(&mut all, max_points)?;
    }
    if choice.only_present {
        let mut pace = budget.pace();
        let mut left_out = Ok(());
        all.retain(|series| {
            left_out = std::mem::replace(&mut left_out, Ok(())).and_then(|()| pace.check());
            series.values[..shown(series)].iter().any(|v| !v.is_nan())
        });
        left_out?;
    }
    let layout = Json {
        spaces,
        only_present: choice.only_present,
    };
    Ok(Document::new(all, layout))
}

#[derive(Debug)]
struct Json {
    spaces: Spaces,
    only_present: bool,
}

/// What stands between the things that matter.
#[derive(Debug)]
struct Spaces {
    line: &'static [u8],
    indent: &'static [u8],
    deeper: &'static [u8],
    blank: &'static [u8],
}

impl Spaces {
    const NONE: Self = Self {
        line: b"",
        indent: b"",
        deeper: b"",
        blank: b"",
    };
    const WIDE: Self = Self {
        line: b"\n",
        indent: b"  ",
        deeper: b"    ",
        blank: b" ",
    };
}

impl Layout for Json {
    fn n_rows(&self, all: &[Series], part: usize) -> usize {
        shown(&all[part])
    }

    fn head_room(&self, all: &[Series], part: usize) -> usize {
        let series = &all[part];
        let tags = series.tags.iter();
        let tags: usize = tags
            .map(|(tag, value)| text_room(tag) + text_room(value) + 2)
            .sum();
        text_room(&series.name) + tags + 96
    }

    fn row_room(&self, _: &[Series], _: usize) -> usize {
        64
    }

    fn row_usual(&self, _: &[Series], _: usize) -> usize {
        if self.spaces.line.is_empty() { 24 } else { 29 }
    }

    fn row_least(&self, _: &[Series], _: usize) -> usize {
        if self.only_present { 0 } else { 8 }
    }

    fn begin(&self, out: &mut Vec<u8>) {
        out.push(b'[');
    }

    fn head(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        let series = &all[part];
        let Spaces {
            line,
            indent,
            deeper: _,
            blank,
        } = self.spaces;
        if part > 0 {
            out.push(b',');
        }
        for part in [line, indent, b"{\"target\":", blank] {
            out.extend_from_slice(part);
        }
        match series.odd_name() {
            Some(OddName::Nothing) => out.extend_from_slice(b"null"),
            Some(OddName::Number) => out.extend_from_slice(series.name.as_bytes()),
            None => push_text(out, &series.name),
        }
        for part in [b",", line, indent, b"\"tags\":", blank, b"{"] {
            out.extend_from_slice(part);
        }
        for (n, (tag, value)) in series.tags.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            push_text(out, tag);
            out.push(b':');
            push_text(out, value);
        }
        for part in [b"},", line, indent, b"\"datapoints\":", blank, b"["] {
            out.extend_from_slice(part);
        }
    }

    fn rows(
        &self,
        all: &[Series],
        part: usize,
        rows: Range<usize>,
        mut first: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        let series = &all[part];
        let mut at = series.time_of(rows.start);
        if !self.only_present && self.spaces.line.is_empty() {
            // What nearly every request asks for, with as few steps a point as can be.
            let mut before: &[u8] = if first { b"[" } else { b",[" };
            let any = !rows.is_empty();
            let mut timestamps = Timestamps::new();
            for &value in &series.values[rows] {
                out.extend_from_slice(before);
                push_value(out, value);
                out.push(b',');
                timestamps.push(out, at);
                at += series.step;
                before = b"],[";
            }
            if any {
                out.push(b']');
            }
            return first && !any;
        }
        for &value in &series.values[rows] {
            if !self.only_present || !value.is_nan() {
                if !first {
                    out.push(b',');
                }
                first = false;
                out.extend_from_slice(self.spaces.line);
                out.extend_from_slice(self.spaces.deeper);
                out.push(b'[');
                push_value(out, value);
                out.push(b',');
                push_whole(out, at);
                out.push(b']');
            }
            at += series.step;
        }
        first
    }

    fn tail(&self, _: &[Series], _: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"]}");
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.spaces.line);
        out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::{sample, text};

    fn json(series: Vec<Series>, choice: Choice) -> String {
        text(&document(series, choice, &Budget::unlimited()).unwrap())
    }

    #[test]
    fn points_are_value_and_timestamp() {
        let text = json(sample(), Choice::default());
        assert_eq!(
            text,
            r#"[{"target":"a,\"b\"","tags":{"name":"a,\"b\""},"datapoints":[[1.0,60],[null,120],[2.5,180]]}]"#
        );
        let choice = Choice {
            only_present: true,
            pretty: true,
            ..Choice::default()
        };
        let pretty = json(sample(), choice);
        let parsed: serde_json::Value = serde_json::from_str(&pretty).unwrap();
        assert_eq!(
            parsed[0]["datapoints"],
            serde_json::json!([[1.0, 60], [2.5, 180]])
        );
    }

    #[test]
    fn a_limit_on_points_thins_to_whole_multiples() {
        let series = Series::new(
            "s",
            10,
            410,
            10,
            (0..40).map(f64::from).collect::<Vec<_>>().into(),
        );
        let choice = Choice {
            max_points: Some(2),
            ..Choice::default()
        };
        let text = json(vec![series.clone()], choice);
        // Steps of 200: what comes before the first multiple is lost, but one point (its own
        // is shown with the next), as in Graphite.
        assert!(text.contains("[[27.5,200],[38.5,400]]"), "{text}");
        let choice = Choice {
            max_points: Some(1),
            ..Choice::default()
        };
        let text = json(vec![series], choice);
        assert!(text.contains("[[19.5,10]]"), "{text}");
    }
}
