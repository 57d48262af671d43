//! Python's regular expressions for the functions that search and rewrite names, within the time of
//! the request and the limit on names; and Python's formats for numbers in templates.

use std::fmt::Write as _;

use carbon::pattern::{PatternError, Replacement};

use super::support::MAX_NAME;
use crate::budget::Budget;
use crate::error::{Error, Result};

/// A compiled regular expression. See [`carbon::pattern`].
pub(super) struct Pattern(carbon::pattern::Pattern);

fn refused(error: PatternError) -> Error {
    Error::refused(match error {
        PatternError::TooLong(_) => PatternError::TooLong(MAX_NAME).to_string(),
        other => other.to_string(),
    })
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// If it is no regular expression, or compiles to a very large program.
    pub(super) fn new(text: &str) -> Result<Self> {
        carbon::pattern::Pattern::new(text)
            .map(Self)
            .map_err(refused)
    }

    /// Whether it matches anywhere in `name`.
    ///
    /// # Errors
    /// If matching takes far too many steps, and as [`Budget::check`].
    pub(super) fn is_in(&self, name: &str, budget: &Budget) -> Result<bool> {
        budget.check()?;
        self.0.is_in(name).map_err(refused)
    }

    /// `name` with every match replaced.
    ///
    /// # Errors
    /// As [`Pattern::is_in`], and if the name grows beyond [`MAX_NAME`].
    pub(super) fn replace(
        &self,
        name: &str,
        replacement: &Replacement,
        budget: &Budget,
    ) -> Result<String> {
        let mut checked = Ok(());
        let replaced = self.0.replace(name, replacement, MAX_NAME, || {
            checked = budget.check();
            checked.is_ok()
        });
        checked?;
        let replaced = replaced.map_err(refused)?;
        Ok(replaced.unwrap_or_else(|| name.to_owned()))
    }

    /// What to put in place of each match.
    ///
    /// # Errors
    /// If `template` names a group that the pattern does not have, or has an unknown escape.
    pub(super) fn replacement(&self, template: &str) -> Result<Replacement> {
        self.0.replacement(template).map_err(refused)
    }
}

/// Puts a number into a template as Python's `template % value` does.
///
/// # Errors
/// If the template does not take exactly one number.
pub(super) fn with_number(template: &str, value: f64) -> Result<String> {
    let refuse = |what: &str| Err(Error::refused(format!("{template:?} {what}")));
    let mut out = String::new();
    let mut taken = 0;
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let flags = rest.find(|c| !"-+ 0#".contains(c)).unwrap_or(rest.len());
        let (flags, after) = rest.split_at(flags);
        let digits = |text: &str| {
            text.find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len())
        };
        let (width, after) = after.split_at(digits(after));
        let (precision, after) = match after.strip_prefix('.') {
            Some(after) => {
                let (precision, after) = after.split_at(digits(after));
                (Some(precision.parse().unwrap_or(0)), after)
            }
            None => (None, after),
        };
        let after = after.strip_prefix(['h', 'l', 'L']).unwrap_or(after);
        let Some(kind) = after.chars().next() else {
            return refuse("ends in the middle of a format");
        };
        rest = &after[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        taken += 1;
        let width: usize = width.parse().unwrap_or(0);
        let precision: Option<usize> = precision;
        if width > 1_000 || precision.is_some_and(|precision| precision > 1_000) {
            return refuse("asks for more than a thousand characters");
        }
        let Some(shown) = formatted(value, kind, precision) else {
            return refuse("has a format that is not one for a number");
        };
        let minus = match shown.strip_prefix('-') {
            Some(_) => "-",
            None if kind == 's' || kind == 'r' => "",
            None if flags.contains('+') => "+",
            None if flags.contains(' ') => " ",
            None => "",
        };
        let shown = shown.strip_prefix('-').unwrap_or(&shown);
        let padding = width.saturating_sub(minus.len() + shown.chars().count());
        let zeros = flags.contains('0') && !flags.contains('-') && !matches!(kind, 's' | 'r');
        let _ = if flags.contains('-') {
            write!(out, "{minus}{shown}{:padding$}", "")
        } else if zeros && value.is_finite() {
            write!(out, "{minus}{}{shown}", "0".repeat(padding))
        } else {
            write!(out, "{:padding$}{minus}{shown}", "")
        };
    }
    out.push_str(rest);
    match taken {
        1 => Ok(out),
        _ => refuse("does not take exactly one number"),
    }
}

/// One number in one of Python's formats.
fn formatted(value: f64, kind: char, precision: Option<usize>) -> Option<String> {
    use crate::python;
    Some(match kind {
        'd' | 'i' | 'u' if value.is_finite() => {
            let whole = format!("{:.0}", value.trunc() + 0.0);
            let (minus, digits) = match whole.strip_prefix('-') {
                Some(digits) => ("-", digits),
                None => ("", whole.as_str()),
            };
            format!("{minus}{digits:0>width$}", width = precision.unwrap_or(0))
        }
        'f' | 'F' => python::fixed(value, precision.unwrap_or(6)),
        'e' | 'E' => {
            let text = python::scientific(value, precision.unwrap_or(6));
            if kind == 'E' {
                text.to_uppercase()
            } else {
                text
            }
        }
        'g' | 'G' => {
            let text = python::general_to(value, precision.unwrap_or(6));
            if kind == 'G' {
                text.to_uppercase()
            } else {
                text
            }
        }
        's' | 'r' | 'a' => {
            let text = python::float(value);
            match precision {
                Some(length) => text.chars().take(length).collect(),
                None => text,
            }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_grow_to_a_limit() {
        let pattern = Pattern::new("(.*)").unwrap();
        let twice = pattern.replacement("\\1\\1").unwrap();
        let name = "x".repeat(40 << 10);
        let error = pattern.replace(&name, &twice, &Budget::unlimited());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("65536"), "{error}");
    }

    #[test]
    fn replacing_ends_with_the_request() {
        let pattern = Pattern::new("a").unwrap();
        let replacement = pattern.replacement("b").unwrap();
        let gone = Budget::unlimited();
        gone.cancel();
        let replaced = pattern.replace("aaa", &replacement, &gone);
        assert!(matches!(replaced, Err(Error::Cancelled)));
        assert!(matches!(pattern.is_in("aaa", &gone), Err(Error::Cancelled)));
    }

    #[test]
    fn numbers_go_into_templates() {
        for (template, value, shown) in [
            ("five is %d", 5.9, "five is 5"),
            ("%s", 1.0, "1.0"),
            ("%.2f%%", 12.345, "12.35%"),
            ("%g!", 0.00001, "1e-05!"),
            ("[%6.1f]", -2.5, "[  -2.5]"),
            ("[%-6d]", 42.0, "[42    ]"),
            ("[%06d]", -42.0, "[-00042]"),
            ("%+e", 1234.5, "+1.234500e+03"),
        ] {
            assert_eq!(with_number(template, value).unwrap(), shown, "{template}");
        }
        for template in ["none", "%d %d", "%", "%5", "%x", "%y", "%9999d", "%.9999f"] {
            assert!(with_number(template, 1.0).is_err(), "{template}");
        }
        assert!(with_number("%d", f64::NAN).is_err());
    }
}
