//! `[{"target": …, "datapoints": [{"x": seconds, "y": value}, …]}, …]`

use super::{push_text, push_value, push_whole};
use crate::series::Series;

/// Series as Rickshaw reads them.
pub fn write(all: &[Series]) -> Vec<u8> {
    let n_points: usize = all.iter().map(|series| series.values.len()).sum();
    let mut out = Vec::with_capacity(64 + n_points * 32);
    out.push(b'[');
    for (n, series) in all.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"target\":");
        push_text(&mut out, &series.name);
        out.extend_from_slice(b",\"datapoints\":[");
        let mut separator: &[u8] = b"";
        for (index, &value) in series.values.iter().enumerate() {
            let at = series.time_of(index);
            if at >= series.end {
                break;
            }
            out.extend_from_slice(separator);
            out.extend_from_slice(b"{\"x\":");
            push_whole(&mut out, at);
            out.extend_from_slice(b",\"y\":");
            push_value(&mut out, value);
            out.push(b'}');
            separator = b",";
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::sample;

    #[test]
    fn points_are_objects() {
        let parsed: serde_json::Value = serde_json::from_slice(&write(&sample())).unwrap();
        assert_eq!(parsed[0]["target"], "a,\"b\"");
        assert_eq!(
            parsed[0]["datapoints"][1],
            serde_json::json!({"x": 120, "y": null})
        );
    }
}
