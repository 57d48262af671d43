//! MessagePack: the list that graphite-web's cluster nodes exchange.

use rmp::encode::{write_array_len, write_f64, write_map_len, write_nil, write_sint, write_str};
use whisper::is_absent;

use super::{Document, Layout};
use crate::series::Series;

/// Series as a list of maps.
pub fn document(all: Vec<Series>) -> Document {
    let n_series = length(all.len());
    Document::new(all, Msgpack { n_series })
}

#[derive(Debug)]
struct Msgpack {
    n_series: u32,
}

/// Writing to memory cannot fail: what these return is dropped.
type Written = Result<(), rmp::encode::ValueWriteError>;

fn head(series: &Series, out: &mut Vec<u8>) -> Written {
    write_map_len(out, 9)?;
    write_str(out, "name")?;
    write_str(out, &series.name)?;
    for (key, number) in [
        ("start", series.start),
        ("end", series.end),
        ("step", series.step),
        ("valuesPerPoint", 1),
    ] {
        write_str(out, key)?;
        write_sint(out, number)?;
    }
    write_str(out, "values")?;
    write_array_len(out, length(series.values.len()))?;
    Ok(())
}

fn tail(series: &Series, out: &mut Vec<u8>) -> Written {
    write_str(out, "pathExpression")?;
    write_str(out, &series.path_expression)?;
    write_str(out, "consolidationFunc")?;
    write_str(out, series.consolidation_name())?;
    write_str(out, "xFilesFactor")?;
    write_f64(out, series.x_files_factor)?;
    Ok(())
}

impl Layout for Msgpack {
    fn head_room(&self, all: &[Series], part: usize) -> usize {
        let series = &all[part];
        let after = series.path_expression.len() + series.consolidation_name().len();
        series.name.len().max(after) + 160
    }

    fn row_room(&self, _: &[Series], _: usize) -> usize {
        9
    }

    fn row_least(&self, _: &[Series], _: usize) -> usize {
        1
    }

    fn begin(&self, out: &mut Vec<u8>) {
        let _ = write_array_len(out, self.n_series);
    }

    fn head(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        let _ = head(&all[part], out);
    }

    fn value(&self, value: f64, out: &mut Vec<u8>) {
        if is_absent(value) {
            let _ = write_nil(out);
        } else {
            let _ = write_f64(out, value);
        }
    }

    fn tail(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        let _ = tail(&all[part], out);
    }
}

pub(crate) fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::format::tests::sample;

    #[test]
    fn a_list_of_maps_of_nine() {
        let bytes = document(sample()).whole(&Budget::unlimited()).unwrap();
        assert_eq!(bytes[..7], [0x91, 0x89, 0xa4, b'n', b'a', b'm', b'e']);
    }
}
