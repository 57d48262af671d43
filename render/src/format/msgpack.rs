//! MessagePack: the list that graphite-web's cluster nodes exchange.

use rmp::encode::{
    ByteBuf, write_array_len, write_f64, write_map_len, write_nil, write_sint, write_str,
};
use whisper::is_absent;

use crate::series::Series;

/// Series as a list of maps.
pub fn write(all: &[Series]) -> Vec<u8> {
    let n_points: usize = all.iter().map(|series| series.values.len()).sum();
    let mut out = ByteBuf::with_capacity(n_points * 9 + all.len() * 256);
    // Writing to memory cannot fail.
    let _ = write_all(&mut out, all);
    out.into_vec()
}

type Written = Result<(), rmp::encode::ValueWriteError<std::convert::Infallible>>;

fn write_all(out: &mut ByteBuf, all: &[Series]) -> Written {
    write_array_len(out, length(all.len()))?;
    for series in all {
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
        for &value in &*series.values {
            if is_absent(value) {
                let Ok(()) = write_nil(out);
            } else {
                write_f64(out, value)?;
            }
        }
        write_str(out, "pathExpression")?;
        write_str(out, &series.path_expression)?;
        write_str(out, "consolidationFunc")?;
        write_str(out, series.consolidation_name())?;
        write_str(out, "xFilesFactor")?;
        write_f64(out, series.x_files_factor)?;
    }
    Ok(())
}

pub(crate) fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::sample;

    #[test]
    fn a_list_of_maps_of_nine() {
        let bytes = write(&sample());
        assert_eq!(bytes[..7], [0x91, 0x89, 0xa4, b'n', b'a', b'm', b'e']);
    }
}
