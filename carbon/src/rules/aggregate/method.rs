//! How the points of an interval become one value: the methods of carbon 1.1.10.

/// A method of aggregation-rules.conf.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// The sum, added up in the order of arrival.
    Sum,
    /// The sum divided by the count.
    Avg,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// How many values there are.
    Count,
    /// The value below which this share of the sorted values is, interpolated between neighbours.
    Percentile(f64),
}

/// Every method by its name in the file.
pub const METHODS: [(&str, Method); 12] = [
    ("sum", Method::Sum),
    ("avg", Method::Avg),
    ("min", Method::Min),
    ("max", Method::Max),
    ("count", Method::Count),
    ("p50", Method::Percentile(0.50)),
    ("p75", Method::Percentile(0.75)),
    ("p80", Method::Percentile(0.80)),
    ("p90", Method::Percentile(0.90)),
    ("p95", Method::Percentile(0.95)),
    ("p99", Method::Percentile(0.99)),
    ("p999", Method::Percentile(0.999)),
];

impl Method {
    /// The method called `name`.
    pub fn named(name: &str) -> Option<Self> {
        let mut methods = METHODS.iter();
        methods.find(|(known, _)| *known == name).map(|(_, m)| *m)
    }
}

/// The values of an interval so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    count: u64,
    /// The sum, minimum or maximum.
    total: f64,
    /// All values, for percentiles only.
    all: Vec<f64>,
}

impl Values {
    /// Adds a value.
    pub fn add(&mut self, method: Method, value: f64) {
        self.total = match method {
            Method::Sum | Method::Avg => self.total + value,
            Method::Min if self.count == 0 || value < self.total => value,
            Method::Max if self.count == 0 || value > self.total => value,
            Method::Min | Method::Max | Method::Count => self.total,
            Method::Percentile(_) => {
                self.all.push(value);
                self.total
            }
        };
        self.count += 1;
    }

    /// How many values were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many of them are kept.
    pub fn kept(&self) -> usize {
        self.all.len()
    }

    /// Count, sum (or minimum or maximum), and kept values in the order of their arrival.
    pub(super) fn parts(&self) -> (u64, f64, &[f64]) {
        (self.count, self.total, &self.all)
    }

    /// Sets count and sum (or minimum or maximum), and keeps further values.
    pub(super) fn restore(&mut self, count: u64, total: f64, added: impl Iterator<Item = f64>) {
        self.count = count;
        self.total = total;
        self.all.extend(added);
    }

    /// The aggregate. May be infinite or NaN; 0 without values.
    pub fn result(&self, method: Method) -> f64 {
        match method {
            Method::Sum | Method::Min | Method::Max => self.total,
            Method::Avg => self.total / self.count.max(1) as f64,
            Method::Count => self.count as f64,
            Method::Percentile(share) => percentile(share, self.all.clone()),
        }
    }
}

/// Rank `share * (n - 1)` of the sorted values, linear between neighbours.
fn percentile(share: f64, mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = share * values.len().saturating_sub(1) as f64;
    let (left, right) = (rank.floor(), rank.ceil());
    let value = |at: f64| values.get(at as usize).copied().unwrap_or(0.0);
    if left == right {
        return value(left);
    }
    value(left) * (right - rank) + value(right) * (rank - left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(method: &str, values: &[f64]) -> f64 {
        let method = Method::named(method).unwrap();
        let mut all = Values::default();
        for value in values {
            all.add(method, *value);
        }
        all.result(method)
    }

    #[test]
    fn methods_are_carbons() {
        let values = [7.0, 3.0, 10.0, 1.0, 5.0];
        for (method, expected) in [
            ("sum", 26.0),
            ("avg", 5.2),
            ("min", 1.0),
            ("max", 10.0),
            ("count", 5.0),
            ("p50", 5.0),
            ("p75", 7.0),
            ("p90", 8.8),
            ("p999", 9.988),
        ] {
            let got = result(method, &values);
            assert!((got - expected).abs() < 1e-12, "{method} {got}");
        }
        assert_eq!(result("min", &[-0.5]), -0.5);
        assert_eq!(result("max", &[-0.5]), -0.5);
        assert_eq!(result("p99", &[42.0]), 42.0);
        for unknown in ["last", "median", "SUM", "average", "p98"] {
            assert_eq!(Method::named(unknown), None);
        }
    }
}
