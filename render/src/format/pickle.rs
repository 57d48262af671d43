//! Python pickles, protocol 2: written, never read.

use carbon::protocol::pickle::write;
use whisper::is_absent;

use super::{Document, Layout};
use crate::series::Series;

/// Series as graphite-web exchanges them: a list of dicts.
pub fn document(all: Vec<Series>) -> Document {
    Document::new(all, Dicts)
}

#[derive(Debug)]
struct Dicts;

impl Layout for Dicts {
    fn head_room(&self, all: &[Series], part: usize) -> usize {
        let series = &all[part];
        let after = series.path_expression.len() + series.consolidation_name().len();
        series.name.len().max(after) + 192
    }

    fn row_room(&self, _: &[Series], _: usize) -> usize {
        9
    }

    fn row_least(&self, _: &[Series], _: usize) -> usize {
        1
    }

    fn begin(&self, out: &mut Vec<u8>) {
        write::start(out);
        write::begin_list(out);
    }

    fn head(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        let series = &all[part];
        write::begin_dict(out);
        write::text(out, "name");
        write::text(out, &series.name);
        for (key, number) in [
            ("start", series.start),
            ("end", series.end),
            ("step", series.step),
        ] {
            write::text(out, key);
            write::signed(out, number);
        }
        write::text(out, "values");
        write::begin_list(out);
    }

    fn value(&self, value: f64, out: &mut Vec<u8>) {
        push_value(value, out);
    }

    fn tail(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        let series = &all[part];
        write::end_list(out);
        write::text(out, "pathExpression");
        write::text(out, &series.path_expression);
        write::text(out, "valuesPerPoint");
        write::signed(out, 1);
        write::text(out, "consolidationFunc");
        write::text(out, series.consolidation_name());
        write::text(out, "xFilesFactor");
        push_value(series.x_files_factor, out);
        write::end_dict(out);
    }

    fn end(&self, out: &mut Vec<u8>) {
        write::end_list(out);
        write::stop(out);
    }
}

/// A float, or `None` for an absent one.
fn push_value(value: f64, out: &mut Vec<u8>) {
    if is_absent(value) {
        write::none(out);
    } else {
        write::float(out, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::format::tests::sample;

    #[test]
    fn the_bytes_are_those_of_protocol_two() {
        let bytes = document(sample()).whole(&Budget::unlimited()).unwrap();
        assert!(bytes.starts_with(b"\x80\x02](}(X\x04\0\0\0name"));
        assert!(bytes.ends_with(b"ue."));
        let value = [b"G".as_slice(), &2.5_f64.to_be_bytes()].concat();
        assert!(bytes.windows(9).any(|window| window == value));
    }
}
