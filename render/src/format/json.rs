//! `[{"target": …, "tags": {…}, "datapoints": [[value, seconds], …]}, …]`

use super::{push_text, push_value, push_whole, shown};
use crate::consolidate;
use crate::error::Result;
use crate::series::{OddName, Series};

/// How the points of a JSON answer are chosen.
#[derive(Clone, Copy, Debug, Default)]
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
/// As [`consolidate::thin`].
pub fn write(mut all: Vec<Series>, choice: Choice) -> Result<Vec<u8>> {
    if all.iter().all(|series| series.values.is_empty()) {
        return Ok(b"[]".to_vec());
    }
    if let Some(max_points) = choice.max_points {
        consolidate::thin(&mut all, max_points)?;
    }
    let (line, indent, deeper, blank): (&[u8], &[u8], &[u8], &[u8]) = if choice.pretty {
        (b"\n", b"  ", b"    ", b" ")
    } else {
        (b"", b"", b"", b"")
    };
    let n_points: usize = all.iter().map(|series| series.values.len()).sum();
    let mut out = Vec::with_capacity(64 + n_points * 24 + all.len() * 128);
    out.push(b'[');
    let mut n_written = 0;
    for series in &all {
        let n_shown = shown(series);
        let present = |value: f64| !value.is_nan();
        if choice.only_present && !series.values[..n_shown].iter().any(|&v| present(v)) {
            continue;
        }
        if n_written > 0 {
            out.push(b',');
        }
        n_written += 1;
        for part in [line, indent, b"{\"target\":", blank] {
            out.extend_from_slice(part);
        }
        match series.odd_name() {
            Some(OddName::Nothing) => out.extend_from_slice(b"null"),
            Some(OddName::Number) => out.extend_from_slice(series.name.as_bytes()),
            None => push_text(&mut out, &series.name),
        }
        for part in [b",", line, indent, b"\"tags\":", blank, b"{"] {
            out.extend_from_slice(part);
        }
        for (n, (tag, value)) in series.tags.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            push_text(&mut out, tag);
            out.push(b':');
            push_text(&mut out, value);
        }
        for part in [b"},", line, indent, b"\"datapoints\":", blank, b"["] {
            out.extend_from_slice(part);
        }
        let mut separator: &[u8] = b"";
        let mut at = series.start;
        for &value in &series.values[..n_shown] {
            if !choice.only_present || present(value) {
                out.extend_from_slice(separator);
                if choice.pretty {
                    out.extend_from_slice(line);
                    out.extend_from_slice(deeper);
                }
                out.push(b'[');
                push_value(&mut out, value);
                out.push(b',');
                push_whole(&mut out, at);
                out.push(b']');
                separator = b",";
            }
            at += series.step;
        }
        out.extend_from_slice(b"]}");
    }
    out.extend_from_slice(line);
    out.push(b']');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::sample;

    #[test]
    fn points_are_value_and_moment() {
        let text = String::from_utf8(write(sample(), Choice::default()).unwrap()).unwrap();
        assert_eq!(
            text,
            r#"[{"target":"a,\"b\"","tags":{"name":"a,\"b\""},"datapoints":[[1.0,60],[null,120],[2.5,180]]}]"#
        );
        let choice = Choice {
            only_present: true,
            pretty: true,
            ..Choice::default()
        };
        let pretty = write(sample(), choice).unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&pretty).unwrap();
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
        let text = String::from_utf8(write(vec![series.clone()], choice).unwrap()).unwrap();
        // Steps of 200: what comes before the first multiple is lost, but one point (its own
        // is shown with the next), as in Graphite.
        assert!(text.contains("[[27.5,200],[38.5,400]]"), "{text}");
        let choice = Choice {
            max_points: Some(1),
            ..Choice::default()
        };
        let text = String::from_utf8(write(vec![series], choice).unwrap()).unwrap();
        assert!(text.contains("[[19.5,10]]"), "{text}");
    }
}
