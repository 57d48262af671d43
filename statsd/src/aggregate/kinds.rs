//! All types: [`KINDS`], the letters that they are known by, and calls by [`Kind`].

use super::contract::{Facts, Interval, Lines, Setup, Type};
use super::registry::Series;
use super::{average, counter, distribution, gauge, raw, set, timer};
use crate::cell::{Cell, Value};
use crate::kind::{Kind, kinds};
use crate::metric::{Number, Reject, Sample};
use crate::number;
use crate::options::Options;

macro_rules! declare {
    ($($kind:ident => $module:ident,)*) => {
        /// The facts of every type, in the order of [`Kind`].
        pub(crate) static KINDS: &[Facts] = &[$($module::KIND),*];

        impl Kind {
            /// [`Facts::takes_text`].
            #[inline(always)]
            pub(crate) fn takes_text(self) -> bool {
                match self {
                    $(Self::$kind => $module::KIND.takes_text,)*
                }
            }

            /// [`Facts::carries_on`].
            #[inline(always)]
            pub(crate) fn carries_on(self) -> bool {
                match self {
                    $(Self::$kind => $module::KIND.carries_on,)*
                }
            }

            /// Accepts a number for a sample of this type.
            #[inline]
            pub(crate) fn sample(self, number: Number) -> Result<Sample, Reject> {
                match self {
                    $(Self::$kind => $module::sample(number),)*
                }
            }

            /// Changes the cell of a name of this type.
            #[inline(always)]
            pub(crate) fn add(self, cell: &mut Cell<'_>, sample: Sample) {
                match self {
                    $(Self::$kind => $module::add(cell, sample),)*
                }
            }
        }

        /// The types under the options of a server.
        pub(crate) struct Types {
            $($module: $module::$kind,)*
        }

        impl Types {
            pub(crate) fn new(setup: &Setup<'_>) -> Self {
                Self {
                    $($module: $module::$kind::new(setup),)*
                }
            }

            pub(crate) fn of(&self, kind: Kind) -> &dyn Type {
                match kind {
                    $(Kind::$kind => &self.$module,)*
                }
            }

            /// [`Type::merge`].
            #[inline]
            pub(crate) fn merge(&self, series: &mut Series, value: &Value) {
                match series.kind() {
                    $(Kind::$kind => self.$module.merge(series, value),)*
                }
            }

            /// [`Type::repeats_idle`].
            #[inline]
            pub(crate) fn repeats_idle(&self, kind: Kind) -> bool {
                match kind {
                    $(Kind::$kind => self.$module.repeats_idle(),)*
                }
            }

            /// [`Type::flush`].
            #[inline]
            pub(crate) fn flush(
                &self,
                series: &Series,
                interval: &mut Interval<'_>,
                lines: &mut Lines<'_>,
            ) {
                match series.kind() {
                    $(Kind::$kind => self.$module.flush(series, interval, lines),)*
                }
            }

            /// [`Type::end_interval`].
            #[inline]
            pub(crate) fn end_interval(&self, series: &mut Series, idle: u8) -> bool {
                match series.kind() {
                    $(Kind::$kind => self.$module.end_interval(series, idle),)*
                }
            }
        }
    };
}
kinds!(declare);

impl Kind {
    /// The facts of the type, which no option changes.
    #[inline]
    pub(crate) fn facts(self) -> &'static Facts {
        &KINDS[self as usize]
    }
}

/// What letters mean under the options of a server.
#[derive(Clone, Debug)]
pub(crate) struct Letters {
    all: Vec<(&'static [u8], Kind)>,
    /// By letter: types that take numbers.
    one: [Option<Kind>; 256],
    /// The same for two letters.
    two: Vec<([u8; 2], Kind)>,
}

impl Letters {
    pub(crate) fn new(options: &Options) -> Self {
        let mut letters = Self {
            all: Vec::new(),
            one: [None; 256],
            two: Vec::new(),
        };
        // The last type that wants a letter has it, so it is looked for from the end.
        for facts in KINDS
            .iter()
            .rev()
            .filter(|facts| (facts.is_enabled)(options))
        {
            for text in facts.letters {
                let text = text.as_bytes();
                if letters.all.iter().any(|(known, _)| *known == text) {
                    continue;
                }
                letters.all.push((text, facts.kind));
                if facts.takes_text || facts.stores_each {
                    continue;
                }
                match *text {
                    [one] => letters.one[usize::from(one)] = Some(facts.kind),
                    [first, second] => letters.two.push(([first, second], facts.kind)),
                    _ => {}
                }
            }
        }
        letters
    }

    /// The type that takes numbers of which `text` starts with the `len` letters.
    #[inline(always)]
    pub(crate) fn of_numbers(&self, text: [u8; 2], len: usize) -> Option<Kind> {
        match len {
            1 => self.one[usize::from(text[0])],
            2 => {
                let found = self.two.iter().find(|(known, _)| *known == text)?;
                Some(found.1)
            }
            _ => None,
        }
    }

    /// The type that `text` means, blanks around it aside, and the letters themselves.
    ///
    /// # Errors
    /// [`Reject::NoType`] if there are no letters, [`Reject::UnknownType`] if no type has them.
    pub(crate) fn find(&self, text: &[u8]) -> Result<(&'static Facts, &'static [u8]), Reject> {
        let text = number::trim(text);
        let found = self.all.iter().find(|(known, _)| *known == text);
        match found {
            Some((letters, kind)) => Ok((kind.facts(), letters)),
            None if text.is_empty() => Err(Reject::NoType),
            None => Err(Reject::UnknownType),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_letters_are_told_apart() {
        let mut saved = Vec::new();
        for (at, facts) in KINDS.iter().enumerate() {
            assert_eq!(facts.kind as usize, at);
            assert!(!facts.letters.is_empty());
            for letters in facts.letters {
                assert!(matches!(letters.len(), 1 | 2), "{letters}");
            }
            saved.extend(
                [Some(facts.saved_as), facts.buffer_saved_as]
                    .into_iter()
                    .flatten(),
            );
        }
        let lines = saved.len();
        saved.sort_unstable();
        saved.dedup();
        assert_eq!(saved.len(), lines, "letters of the saved state");
        assert!(saved.iter().all(u8::is_ascii_lowercase));
    }

    /// The vector code relies on this.
    #[test]
    fn a_plain_number_is_a_sample_as_it_is() {
        for facts in KINDS.iter().filter(|facts| !facts.takes_text) {
            for value in [0.0, 1.0, 99_999_999.0] {
                let number = Number {
                    value,
                    is_signed: false,
                    weight: 1.0,
                };
                let sample = Sample {
                    value,
                    weight: 1.0,
                    is_relative: false,
                };
                assert_eq!(facts.kind.sample(number), Ok(sample));
            }
        }
    }
}
