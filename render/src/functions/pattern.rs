//! Regular expressions as Python's `re` has them, for the functions that search and rewrite names.
//!
//! 1. Patterns are Python's, look-around and back-references included. What Rust's engine reads
//!    differently (a `[` inside a class, `\Z`, a lone `{`) is rewritten for it first.
//! 2. A replacement takes `\1`, `\g<1>`, `\g<name>` and Python's escapes; `$` is just a dollar.
//! 3. Matching and replacing end with the request's time, and replacing also where a name grows
//!    too long.
//! 4. An empty match right after another match is replaced too: `.*` matches `abc` twice. After an
//!    empty match the next one may begin in the same place, if it is not empty.

use std::cell::OnceCell;
use std::fmt::Write as _;

use fancy_regex::{Captures, Regex};

use super::support::check_length;
use crate::budget::Budget;
use crate::error::{Error, Result};

/// A compiled regular expression.
pub(super) struct Pattern {
    regex: Regex,
    /// As `regex`, but no match is empty where the search begins. Made when it is needed; `None`
    /// if it cannot be.
    advancing: OnceCell<Option<Regex>>,
    text: String,
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// If it is no regular expression, or compiles to a very large program.
    pub(super) fn new(text: &str) -> Result<Self> {
        let regex = carbon::index::regex(&translated(text)).map_err(|error| {
            Error::refused(format!("{text:?} is not a regular expression: {error}"))
        })?;
        Ok(Self {
            regex,
            advancing: OnceCell::new(),
            text: text.to_owned(),
        })
    }

    fn advancing(&self) -> Option<&Regex> {
        // The line end ends a comment, and is blank where there can be one.
        let compiled = || {
            let pattern = translated(&self.text);
            let compile = |end: &str| Regex::new(&format!("(?:{pattern}{end})(?!\\G)"));
            compile("").or_else(|_| compile("\n")).ok()
        };
        self.advancing.get_or_init(compiled).as_ref()
    }

    /// Whether it matches anywhere in `name`.
    ///
    /// # Errors
    /// If matching takes far too many steps, and as [`Budget::check`].
    pub(super) fn is_in(&self, name: &str, budget: &Budget) -> Result<bool> {
        budget.check()?;
        self.regex.is_match(name).map_err(|_| self.too_slow())
    }

    /// `name` with every match replaced.
    ///
    /// # Errors
    /// As [`Pattern::is_in`] and [`check_length`].
    pub(super) fn replace(
        &self,
        name: &str,
        replacement: &Replacement,
        budget: &Budget,
    ) -> Result<String> {
        let mut out = String::new();
        let (mut copied, mut at) = (0, 0);
        let mut may_be_empty = true;
        // After an empty match at the end there is no further one.
        while may_be_empty || at < name.len() {
            // Each match may take as many steps as the last.
            budget.check()?;
            let regex = match may_be_empty {
                true => &self.regex,
                false => self.advancing().ok_or_else(|| self.too_slow())?,
            };
            let found = regex.captures_from_pos(name, at);
            let Some(found) = found.map_err(|_| self.too_slow())? else {
                break;
            };
            let Some(whole) = found.get(0) else { break };
            push_within(&mut out, &name[copied..whole.start()], name)?;
            replacement.expand(&found, name, &mut out)?;
            copied = whole.end();
            at = whole.end();
            may_be_empty = whole.start() != whole.end();
        }
        push_within(&mut out, &name[copied..], name)?;
        Ok(out)
    }

    /// What to put in place of each match.
    ///
    /// # Errors
    /// If `template` names a group that the pattern does not have, or has an unknown escape.
    pub(super) fn replacement(&self, template: &str) -> Result<Replacement> {
        let refuse = |what: String| Err(Error::refused(format!("{template:?}: {what}")));
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = template.chars().peekable();
        while let Some(c) = rest.next() {
            if c != '\\' {
                text.push(c);
                continue;
            }
            let group = match rest.next() {
                None => return refuse("a backslash stands at the end".to_owned()),
                Some('g') => {
                    let name: String = match rest.next() {
                        Some('<') => rest.by_ref().take_while(|&c| c != '>').collect(),
                        _ => return refuse("\\g is followed by <group>".to_owned()),
                    };
                    name
                }
                Some('0') => {
                    let mut octal = String::new();
                    while octal.len() < 2 {
                        match rest.next_if(|c| ('0'..='7').contains(c)) {
                            Some(digit) => octal.push(digit),
                            None => break,
                        }
                    }
                    let code = u32::from_str_radix(&octal, 8).unwrap_or(0);
                    text.extend(char::from_u32(code));
                    continue;
                }
                Some(digit @ '1'..='9') => {
                    let mut name = String::from(digit);
                    name.extend(rest.next_if(char::is_ascii_digit));
                    name
                }
                Some(escape) => {
                    match escape {
                        'a' => text.push('\x07'),
                        'b' => text.push('\x08'),
                        'f' => text.push('\x0c'),
                        'n' => text.push('\n'),
                        'r' => text.push('\r'),
                        't' => text.push('\t'),
                        'v' => text.push('\x0b'),
                        '\\' => text.push('\\'),
                        c if c.is_ascii_alphabetic() => return refuse(format!("bad escape \\{c}")),
                        c => text.extend(['\\', c]),
                    }
                    continue;
                }
            };
            parts.push(Part::Text(std::mem::take(&mut text)));
            let number = match group.parse() {
                Ok(number) => Some(number),
                Err(_) => {
                    let mut names = self.regex.capture_names();
                    names.position(|name| name == Some(group.as_str()))
                }
            };
            match number.filter(|&number| number < self.regex.captures_len()) {
                Some(number) => parts.push(Part::Group(number)),
                None => return refuse(format!("the pattern has no group {group:?}")),
            }
        }
        parts.push(Part::Text(text));
        Ok(Replacement { parts })
    }

    fn too_slow(&self) -> Error {
        Error::refused(format!("matching {:?} takes too many steps", self.text))
    }
}

/// A replacement taken apart.
pub(super) struct Replacement {
    parts: Vec<Part>,
}

enum Part {
    Text(String),
    Group(usize),
}

impl Replacement {
    /// Appends it to what has become of `name` so far.
    fn expand(&self, found: &Captures<'_, str>, name: &str, out: &mut String) -> Result<()> {
        for part in &self.parts {
            let text = match part {
                Part::Text(text) => text,
                // A group that took no part in the match is empty.
                Part::Group(number) => found.get(*number).map_or("", |group| group.as_str()),
            };
            push_within(out, text, name)?;
        }
        Ok(())
    }
}

/// Appends `text` to what has become of `name` so far.
fn push_within(out: &mut String, text: &str, name: &str) -> Result<()> {
    check_length(out.len() + text.len(), name)?;
    out.push_str(text);
    Ok(())
}

/// A Python pattern as Rust's engine reads it.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let Some(escaped) = after.chars().next() else {
                    out.push('\\');
                    break;
                };
                match escaped {
                    'Z' if !in_class => out.push_str("\\z"),
                    // Not a letter that means something to Python.
                    '<' | '>' | '"' | '\'' | '`' | ',' | ';' | ':' | '=' | '@' | '!' | '%' => {
                        out.push(escaped);
                    }
                    _ => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
                rest = &after[escaped.len_utf8()..];
                continue;
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                rest = after;
                if let Some(negated) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = negated;
                }
                // A bracket in the first place is one of the class.
                if let Some(first) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = first;
                }
                continue;
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '[' | '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '{' if !in_class && !is_repetition(after) => out.push_str("\\{"),
            _ => out.push(c),
        }
        rest = after;
    }
    out
}

/// Whether what follows a `{` makes it a repetition: `2}`, `2,}`, `,3}`, `2,3}`.
fn is_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else {
        return false;
    };
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    match inside.split_once(',') {
        Some((low, high)) => is_number(low) && is_number(high) && inside.len() > 1,
        None => !inside.is_empty() && is_number(inside),
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
        let sign = match shown.strip_prefix('-') {
            Some(_) => "-",
            None if kind == 's' || kind == 'r' => "",
            None if flags.contains('+') => "+",
            None if flags.contains(' ') => " ",
            None => "",
        };
        let shown = shown.strip_prefix('-').unwrap_or(&shown);
        let padding = width.saturating_sub(sign.len() + shown.chars().count());
        let zeros = flags.contains('0') && !flags.contains('-') && !matches!(kind, 's' | 'r');
        let _ = if flags.contains('-') {
            write!(out, "{sign}{shown}{:padding$}", "")
        } else if zeros && value.is_finite() {
            write!(out, "{sign}{}{shown}", "0".repeat(padding))
        } else {
            write!(out, "{:padding$}{sign}{shown}", "")
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
            let (sign, digits) = match whole.strip_prefix('-') {
                Some(digits) => ("-", digits),
                None => ("", whole.as_str()),
            };
            format!("{sign}{digits:0>width$}", width = precision.unwrap_or(0))
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

    fn sub(pattern: &str, template: &str, name: &str) -> Result<String> {
        let pattern = Pattern::new(pattern)?;
        let replacement = pattern.replacement(template)?;
        pattern.replace(name, &replacement, &Budget::unlimited())
    }

    #[test]
    fn replacing_is_pythons() {
        for (pattern, template, name, replaced) in [
            ("web", "WEB", "web01.web", "WEB01.WEB"),
            ("^.*\\.(\\w+)$", "\\1", "a.b.c", "c"),
            ("(\\w+)\\.(\\w+)", "\\2-\\1", "a.b.c.d", "b-a.d-c"),
            ("(?P<host>[^.]+)\\.", "\\g<host>/", "a.b.c", "a/b/c"),
            ("(a)|b", "<\\1>", "ab", "<a><>"),
            (".*", "x", "abc", "xx"),
            ("x*", "-", "abxd", "-a-b--d-"),
            ("|a", "-", "ba", "-b---"),
            ("(?:.)*?", "", "{{.", ""),
            ("(?x) a*? # lazy", "-", "ab", "---b-"),
            ("", "-", "é", "-é-"),
            ("b", "$1", "abc", "a$1c"),
            ("b", "\\.\\n\\\\", "abc", "a\\.\n\\c"),
            ("(?<=a)b(?!c)", "X", "abab", "aXaX"),
            ("[[]x[]]", "y", "[x]", "y"),
            ("a{", "y", "a{b}", "yb}"),
            ("a\\Z", "y", "aa", "ay"),
            ("(^.*$)", "\\1 A", "sum (x)", "sum (x) A"),
        ] {
            let got = sub(pattern, template, name).unwrap();
            assert_eq!(got, replaced, "{pattern} {template} {name}");
        }
    }

    #[test]
    fn bad_patterns_and_groups_are_refused() {
        for (pattern, template) in [
            ("(", "x"),
            ("a", "\\1"),
            ("a", "\\g<b>"),
            ("a", "\\q"),
            ("a", "\\"),
            ("a", "\\gx"),
        ] {
            assert!(sub(pattern, template, "a").is_err(), "{pattern} {template}");
        }
        let slow = Pattern::new("(?:a|a)*\\1b|(a*)*c(?=x)")
            .map(|p| p.is_in(&"a".repeat(60), &Budget::unlimited()));
        assert!(!matches!(slow, Ok(Ok(true))));
    }

    #[test]
    fn names_grow_to_a_limit_and_stay_long_if_they_were() {
        let twice = "\\1".repeat(2);
        let mut name = "x".repeat(40 << 10);
        let error = sub("(.*)", &twice, &name).unwrap_err().to_string();
        assert!(error.contains("65536"), "{error}");
        name.truncate(30 << 10);
        assert_eq!(sub("(.+)", &twice, &name).unwrap().len(), 60 << 10);
        let long = "x".repeat(100 << 10);
        assert_eq!(sub("^x", "y", &long).unwrap().len(), long.len());
        assert!(sub("^x", "yy", &long).is_err());
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
