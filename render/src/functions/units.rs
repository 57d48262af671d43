//! Large numbers with the prefixes of a system of units, for names that show values.

/// Prefixes by size, largest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct System {
    prefixes: &'static [(&'static str, f64)],
}

const SYSTEMS: &[(&str, System)] = &[
    (
        "binary",
        System {
            prefixes: &[
                ("Pi", 1_125_899_906_842_624.0),
                ("Ti", 1_099_511_627_776.0),
                ("Gi", 1_073_741_824.0),
                ("Mi", 1_048_576.0),
                ("Ki", 1024.0),
            ],
        },
    ),
    (
        "si",
        System {
            prefixes: &[("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)],
        },
    ),
    (
        "sec",
        System {
            prefixes: &[
                ("Y", 31_536_000.0),
                ("M", 2_592_000.0),
                ("D", 86_400.0),
                ("H", 3_600.0),
                ("m", 60.0),
            ],
        },
    ),
    (
        "msec",
        System {
            prefixes: &[
                ("Y", 31_536_000_000.0),
                ("M", 2_592_000_000.0),
                ("D", 86_400_000.0),
                ("H", 3_600_000.0),
                ("m", 60_000.0),
                ("s", 1_000.0),
            ],
        },
    ),
    ("none", System { prefixes: &[] }),
];

impl System {
    /// The system called `name`.
    pub(super) fn named(name: &str) -> Option<Self> {
        let found = SYSTEMS.iter().find(|(known, _)| *known == name)?;
        Some(found.1)
    }

    /// `value` in its largest fitting unit, with the prefix of that.
    pub(super) fn scaled(self, value: f64) -> (f64, &'static str) {
        let fits = |(_, size): &&(&str, f64)| value.abs() >= *size;
        let (prefix, size) = self
            .prefixes
            .iter()
            .find(fits)
            .copied()
            .unwrap_or(("", 1.0));
        let scaled = value / size;
        // What misses a whole number by a rounding error is that number.
        if scaled - scaled.floor() < 1e-11 && value > 1.0 {
            (scaled.floor(), prefix)
        } else {
            (scaled, prefix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_get_the_largest_prefix_that_fits() {
        let scaled = |system, value| System::named(system).unwrap().scaled(value);
        assert_eq!(scaled("si", 1500.0), (1.5, "k"));
        assert_eq!(scaled("si", -2e6), (-2.0, "M"));
        assert_eq!(scaled("binary", 1500.0), (1500.0 / 1024.0, "Ki"));
        assert_eq!(scaled("sec", 90.0), (1.5, "m"));
        assert_eq!(scaled("none", 1e20), (1e20, ""));
        assert_eq!(scaled("si", f64::INFINITY), (f64::INFINITY, "P"));
        assert!(System::named("bogus").is_none());
    }
}
