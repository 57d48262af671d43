//! `{"labels": ["Time", …], "data": [[milliseconds, value, …], …]}`: rows by the moments of the
//! first series.

use super::{push_text, push_value, push_whole};
use crate::series::Series;
use whisper::ABSENT;

/// Series as Dygraphs reads them. A series shorter than the first is absent at the end.
pub fn write(all: &[Series]) -> Vec<u8> {
    let Some(first) = all.first() else {
        return b"{}".to_vec();
    };
    let mut out = b"{\"labels\":[\"Time\"".to_vec();
    for series in all {
        out.push(b',');
        push_text(&mut out, &series.name);
    }
    out.extend_from_slice(b"],\"data\":[");
    let mut at = first.start;
    let mut index = 0;
    while at < first.end {
        if index > 0 {
            out.push(b',');
        }
        out.push(b'[');
        push_whole(&mut out, at.saturating_mul(1000));
        for series in all {
            out.push(b',');
            push_value(
                &mut out,
                series.values.get(index).copied().unwrap_or(ABSENT),
            );
        }
        out.push(b']');
        at += first.step;
        index += 1;
    }
    out.extend_from_slice(b"]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::sample;

    #[test]
    fn rows_follow_the_first_series() {
        let mut all = sample();
        all.push(Series::new("short", 60, 120, 60, vec![7.0].into()));
        let parsed: serde_json::Value = serde_json::from_slice(&write(&all)).unwrap();
        assert_eq!(
            parsed["labels"],
            serde_json::json!(["Time", "a,\"b\"", "short"])
        );
        let rows =
            serde_json::json!([[60000, 1.0, 7.0], [120000, null, null], [180000, 2.5, null]]);
        assert_eq!(parsed["data"], rows);
        assert_eq!(write(&[]), b"{}");
    }
}
