//! `name,start,end,step|value,None,value`, a line per series.

use std::fmt::Write as _;

use whisper::is_absent;

use crate::python;
use crate::series::Series;

/// Series as Graphite's raw format.
pub fn write(all: &[Series]) -> Vec<u8> {
    let n_points: usize = all.iter().map(|series| series.values.len()).sum();
    let mut out = String::with_capacity(n_points * 12 + all.len() * 64);
    for series in all {
        let Series {
            name,
            start,
            end,
            step,
            values,
            ..
        } = series;
        let _ = write!(out, "{name},{start},{end},{step}|");
        for (index, &value) in values.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            if is_absent(value) {
                out.push_str("None");
            } else {
                python::push_float(&mut out, value);
            }
        }
        out.push('\n');
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::sample;

    #[test]
    fn values_are_pythons() {
        let text = String::from_utf8(write(&sample())).unwrap();
        assert_eq!(text, "a,\"b\",60,240,60|1.0,None,2.5\n");
    }
}
