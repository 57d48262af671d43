//! Python pickles, protocol 2, written by hand and never read.

use whisper::is_absent;

use crate::series::Series;

/// Series as graphite-web exchanges them: a list of dicts.
pub fn write(all: &[Series]) -> Vec<u8> {
    let n_points: usize = all.iter().map(|series| series.values.len()).sum();
    let mut out = Pickle::new(n_points * 9 + all.len() * 256);
    out.list(|out| {
        for series in all {
            out.dict(|out| {
                out.text("name");
                out.text(&series.name);
                out.text("start");
                out.whole(series.start);
                out.text("end");
                out.whole(series.end);
                out.text("step");
                out.whole(series.step);
                out.text("values");
                out.list(|out| {
                    for &value in &*series.values {
                        out.value(value);
                    }
                });
                out.text("pathExpression");
                out.text(&series.path_expression);
                out.text("valuesPerPoint");
                out.whole(1);
                out.text("consolidationFunc");
                out.text(series.consolidation_name());
                out.text("xFilesFactor");
                out.value(series.x_files_factor);
            });
        }
    });
    out.finish()
}

/// A pickle being written.
pub(crate) struct Pickle(Vec<u8>);

impl Pickle {
    pub(crate) fn new(capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity + 16);
        out.extend_from_slice(b"\x80\x02");
        Self(out)
    }

    pub(crate) fn list(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.extend_from_slice(b"](");
        items(self);
        self.0.push(b'e');
    }

    pub(crate) fn tuple(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.push(b'(');
        items(self);
        self.0.push(b't');
    }

    /// Keys and values in turn.
    pub(crate) fn dict(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.extend_from_slice(b"}(");
        items(self);
        self.0.push(b'u');
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.0.push(b'X');
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.0.push(if value { b'\x88' } else { b'\x89' });
    }

    pub(crate) fn whole(&mut self, number: i64) {
        match i32::try_from(number) {
            Ok(small) => {
                self.0.push(b'J');
                self.0.extend_from_slice(&small.to_le_bytes());
            }
            Err(_) => {
                self.0.extend_from_slice(b"\x8a\x08");
                self.0.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    /// A float, or `None` for an absent one.
    pub(crate) fn value(&mut self, value: f64) {
        if is_absent(value) {
            self.0.push(b'N');
        } else {
            self.0.push(b'G');
            self.0.extend_from_slice(&value.to_be_bytes());
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.push(b'.');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::sample;

    #[test]
    fn the_bytes_are_those_of_protocol_two() {
        let bytes = write(&sample());
        assert!(bytes.starts_with(b"\x80\x02](}(X\x04\0\0\0name"));
        assert!(bytes.ends_with(b"ue."));
        let value = [b"G".as_slice(), &2.5_f64.to_be_bytes()].concat();
        assert!(bytes.windows(9).any(|window| window == value));
    }
}
