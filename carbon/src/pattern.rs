//! Regular expressions as Python's `re` has them: for Graphite's configuration files and for the
//! render functions that search and rewrite names.
//!
//! 1. Patterns are Python's, look-around and back-references included. What Rust's engine reads
//!    differently (a `[` inside a class, `\Z`, a lone `{`) is rewritten for it first.
//! 2. A replacement takes `\1`, `\g<1>`, `\g<name>` and Python's escapes; `$` is just a dollar.
//! 3. A search ends after a bounded number of steps. Replacing also ends where the caller says so,
//!    and where a name grows too long.
//! 4. An empty match right after another match is replaced too: `.*` matches `abc` twice. After an
//!    empty match the next one may begin in the same place, if it is not empty.

use std::sync::OnceLock;

use fancy_regex::{Captures, Regex};

/// The accepted form of a pattern, for messages.
pub const PYTHON: &str = "a regular expression as Python has them";

/// A compiled regular expression.
#[derive(Debug)]
pub struct Pattern {
    regex: Regex,
    /// As `regex`, but no match is empty where the search begins. Made when it is needed; `None`
    /// if it cannot be.
    advancing: OnceLock<Option<Regex>>,
    text: String,
}

/// Why a pattern or a replacement is refused, or a search has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Not a regular expression, or one that compiles to a very large program.
    #[error("{pattern:?} is not a regular expression: {reason}")]
    Syntax {
        /// The pattern.
        pattern: String,
        /// What is wrong with it, with the position.
        reason: String,
    },
    /// The replacement has an unknown escape, or names a group that the pattern does not have.
    #[error("{template:?}: {reason}")]
    Replacement {
        /// The replacement.
        template: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The search takes more steps than it may.
    #[error("matching {0:?} takes too many steps")]
    TooSlow(String),
    /// The result is longer than it may be; the limit in bytes.
    #[error("a name would grow to more than {0} bytes: replace less of it, or with less")]
    TooLong(usize),
    /// The caller has ended the replacing.
    #[error("ended")]
    Ended,
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// [`PatternError::Syntax`].
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let regex =
            crate::index::regex(&translated(text)).map_err(|error| PatternError::Syntax {
                pattern: text.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            regex,
            advancing: OnceLock::new(),
            text: text.to_owned(),
        })
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names of the groups that have one.
    pub fn group_names(&self) -> impl Iterator<Item = &str> {
        self.regex.capture_names().flatten()
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

    /// Whether it matches anywhere in `name` (`re.search`).
    ///
    /// # Errors
    /// [`PatternError::TooSlow`].
    pub fn is_in(&self, name: &str) -> Result<bool, PatternError> {
        self.regex.is_match(name).map_err(|_| self.too_slow())
    }

    /// The groups of the first match in `name`, if there is one.
    ///
    /// # Errors
    /// [`PatternError::TooSlow`].
    pub fn captures<'n>(&self, name: &'n str) -> Result<Option<Captures<'n, str>>, PatternError> {
        self.regex.captures(name).map_err(|_| self.too_slow())
    }

    /// `name` with every match replaced (`re.sub`); `None` if there is no match. The result may
    /// have `longest` bytes, or as many as `name`. `go_on` is asked before each search; each may
    /// take as many steps as the last.
    ///
    /// # Errors
    /// [`PatternError::TooSlow`], [`PatternError::TooLong`], or [`PatternError::Ended`] if `go_on`
    /// says no.
    pub fn replace(
        &self,
        name: &str,
        replacement: &Replacement,
        longest: usize,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Option<String>, PatternError> {
        let mut out = Growing {
            text: String::new(),
            longest: longest.max(name.len()),
        };
        let (mut copied, mut at) = (0, 0);
        let (mut may_be_empty, mut replaced) = (true, false);
        // After an empty match at the end there is no further one.
        while may_be_empty || at < name.len() {
            if !go_on() {
                return Err(PatternError::Ended);
            }
            let regex = match may_be_empty {
                true => &self.regex,
                false => self.advancing().ok_or_else(|| self.too_slow())?,
            };
            let found = regex.captures_from_pos(name, at);
            let Some(found) = found.map_err(|_| self.too_slow())? else {
                break;
            };
            let Some(whole) = found.get(0) else { break };
            out.push(&name[copied..whole.start()])?;
            replacement.expand(&found, &mut out)?;
            replaced = true;
            copied = whole.end();
            at = whole.end();
            may_be_empty = whole.start() != whole.end();
        }
        if !replaced {
            return Ok(None);
        }
        out.push(&name[copied..])?;
        Ok(Some(out.text))
    }

    /// What to put in place of each match.
    ///
    /// # Errors
    /// If `template` names a group that the pattern does not have, or has an unknown escape.
    pub fn replacement(&self, template: &str) -> Result<Replacement, PatternError> {
        let refuse = |reason: String| {
            let template = template.to_owned();
            Err(PatternError::Replacement { template, reason })
        };
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

    fn too_slow(&self) -> PatternError {
        PatternError::TooSlow(self.text.clone())
    }
}

/// A replacement taken apart.
#[derive(Debug)]
pub struct Replacement {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Group(usize),
}

impl Replacement {
    /// Appends it to `out` for a match.
    fn expand(&self, found: &Captures<'_, str>, out: &mut Growing) -> Result<(), PatternError> {
        for part in &self.parts {
            let text = match part {
                Part::Text(text) => text,
                // A group that took no part in the match is empty.
                Part::Group(number) => found.get(*number).map_or("", |group| group.as_str()),
            };
            out.push(text)?;
        }
        Ok(())
    }
}

/// A text that may grow to a limit.
struct Growing {
    text: String,
    longest: usize,
}

impl Growing {
    fn push(&mut self, text: &str) -> Result<(), PatternError> {
        if self.text.len() + text.len() > self.longest {
            return Err(PatternError::TooLong(self.longest));
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// A Python pattern as Rust's engine reads it.
pub(crate) fn translated(pattern: &str) -> String {
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
    // Only as far as it can be one: there may be many `{` before a far `}`.
    let end = after.find(|c: char| !c.is_ascii_digit() && c != ',');
    let Some(inside) = end
        .filter(|end| after[*end..].starts_with('}'))
        .map(|end| &after[..end])
    else {
        return false;
    };
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    match inside.split_once(',') {
        Some((low, high)) => is_number(low) && is_number(high) && inside.len() > 1,
        None => !inside.is_empty() && is_number(inside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sub(pattern: &str, template: &str, name: &str) -> Result<Option<String>, PatternError> {
        let pattern = Pattern::new(pattern)?;
        let replacement = pattern.replacement(template)?;
        pattern.replace(name, &replacement, 64 << 10, || true)
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
            assert_eq!(
                got.as_deref(),
                Some(replaced),
                "{pattern} {template} {name}"
            );
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
        let slow = Pattern::new("(?:a|a)*\\1b|(a*)*c(?=x)").map(|p| p.is_in(&"a".repeat(60)));
        assert!(!matches!(slow, Ok(Ok(true))));
    }

    #[test]
    fn names_grow_to_a_limit_and_stay_long_if_they_were() {
        let twice = "\\1".repeat(2);
        let mut name = "x".repeat(40 << 10);
        let error = sub("(.*)", &twice, &name).unwrap_err();
        assert_eq!(error, PatternError::TooLong(64 << 10));
        name.truncate(30 << 10);
        assert_eq!(sub("(.+)", &twice, &name).unwrap().unwrap().len(), 60 << 10);
        let long = "x".repeat(100 << 10);
        assert_eq!(sub("^x", "y", &long).unwrap().unwrap().len(), long.len());
        assert!(sub("^x", "yy", &long).is_err());
    }

    #[test]
    fn a_name_without_a_match_is_left() {
        assert_eq!(sub("^b", "c", "ab").unwrap(), None);
    }

    #[test]
    fn replacing_ends_where_the_caller_says_so() {
        let pattern = Pattern::new("a").unwrap();
        let replacement = pattern.replacement("b").unwrap();
        let mut asked = 0;
        let ended = pattern.replace("aaa", &replacement, 10, || {
            asked += 1;
            asked < 3
        });
        assert_eq!(ended, Err(PatternError::Ended));
    }
}
