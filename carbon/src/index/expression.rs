//! Tag expressions: `tag=v`, `tag!=v`, `tag=~re`, `tag!=~re`.

use super::regex::regex;
use crate::error::TagError;

/// One expression.
#[derive(Debug)]
pub(super) struct Spec<'a> {
    pub(super) tag: &'a str,
    pub(super) wanted: Wanted<'a>,
    pub(super) negated: bool,
}

#[derive(Debug)]
pub(super) enum Wanted<'a> {
    Exactly(&'a str),
    /// With the text that each match begins with.
    Matching(fancy_regex::Regex, String),
}

impl<'a> Spec<'a> {
    fn parse(text: &'a str) -> Result<Self, TagError> {
        let malformed = || TagError::Malformed(text.to_owned());
        let end = text.find(['=', '!', ';']).ok_or_else(malformed)?;
        let (tag, rest) = text.split_at(end);
        if tag.is_empty() {
            return Err(malformed());
        }
        let (negated, rest) = match rest.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.strip_prefix('=').ok_or_else(malformed)?;
        if rest.contains(';') {
            return Err(malformed());
        }
        let wanted = match rest.strip_prefix('~') {
            None => Wanted::Exactly(rest),
            Some(pattern) => {
                let compiled =
                    regex(&format!("^(?:{pattern})")).map_err(|error| TagError::Regex {
                        spec: text.to_owned(),
                        reason: error.to_string(),
                    })?;
                Wanted::Matching(compiled, beginning(pattern))
            }
        };
        Ok(Self {
            tag,
            wanted,
            negated,
        })
    }

    /// Whether `value` matches, before negation. An expression that exceeds its backtracking limit matches
    /// no value.
    pub(super) fn wants(&self, value: &str) -> bool {
        match &self.wanted {
            Wanted::Exactly(wanted) => *wanted == value,
            Wanted::Matching(regex, _) => regex.is_match(value).unwrap_or(false),
        }
    }

    pub(super) fn matches_empty(&self) -> bool {
        self.wants("") != self.negated
    }
}

/// The text that every match of the regular expression `pattern` begins with, as far as a plain look at it
/// shows.
fn beginning(pattern: &str) -> String {
    let mut text = String::new();
    // An alternative may begin otherwise.
    if pattern.contains('|') {
        return text;
    }
    let mut rest = pattern.strip_prefix('^').unwrap_or(pattern).chars();
    let mut last = 0;
    while let Some(c) = rest.next() {
        let literal = match c {
            '\\' => match rest.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => escaped,
                _ => break,
            },
            // What comes before may be missing.
            '?' | '*' | '{' => {
                text.truncate(last);
                break;
            }
            '.' | '+' | '^' | '$' | '[' | ']' | '}' | '(' | ')' => break,
            c => c,
        };
        last = text.len();
        text.push(literal);
    }
    text
}

/// The tag that every series has: its name without tags.
pub(super) const NAME: &str = "name";

/// Expressions as a series without tags is judged by: it has [`NAME`] only.
#[derive(Debug)]
pub(super) struct PlainSpecs<'a>(Vec<Spec<'a>>);

impl<'a> PlainSpecs<'a> {
    /// `None` if an expression demands another tag: no plain series satisfies it.
    ///
    /// # Errors
    /// An expression is malformed.
    pub(super) fn parse(expressions: &[&'a str]) -> Result<Option<Self>, TagError> {
        let mut specs = parse(expressions)?;
        if specs
            .iter()
            .any(|spec| spec.tag != NAME && !spec.matches_empty())
        {
            return Ok(None);
        }
        specs.retain(|spec| spec.tag == NAME);
        Ok(Some(Self(specs)))
    }

    /// The one name that can satisfy them.
    pub(super) fn exactly(&self) -> Option<&'a str> {
        self.0.iter().find_map(|spec| match spec.wanted {
            Wanted::Exactly(name) if !spec.negated => Some(name),
            _ => None,
        })
    }

    /// The longest text that every name which satisfies them is known to begin with.
    pub(super) fn beginning(&self) -> &str {
        let known = self.0.iter().filter(|spec| !spec.negated);
        let known = known.map(|spec| match &spec.wanted {
            Wanted::Exactly(name) => *name,
            Wanted::Matching(_, beginning) => beginning.as_str(),
        });
        known.max_by_key(|text| text.len()).unwrap_or("")
    }

    /// Whether the series called `name` satisfies them.
    pub(super) fn select(&self, name: &str) -> bool {
        self.0.iter().all(|spec| spec.wants(name) != spec.negated)
    }
}

/// Whether `value` satisfies an expression.
#[cfg(test)]
pub(super) fn selects(expression: &str, value: &str) -> bool {
    let spec = Spec::parse(expression).unwrap();
    spec.wants(value) != spec.negated
}

pub(super) fn parse<'a>(expressions: &[&'a str]) -> Result<Vec<Spec<'a>>, TagError> {
    expressions.iter().map(|text| Spec::parse(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_match_begins_with() {
        for (pattern, expected) in [
            ("^servers\\.web", "servers.web"),
            ("a.b", "a"),
            ("ab+c", "ab"),
            ("ab*", "a"),
            ("ab?c", "a"),
            ("ab{0,1}", "a"),
            ("a|b", ""),
            ("(a)", ""),
            ("a\\d", "a"),
            ("üb\\-c", "üb-c"),
            ("(?i)abc", ""),
            ("a\\", "a"),
            ("", ""),
        ] {
            assert_eq!(beginning(pattern), expected, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn each_match_begins_so(
            pattern in r"\^?(a|b|\\\.|\.|\*|\+|\?|\{2\}|\(a\)|\[ab\]|\$){0,6}",
            name in r"[ab.]{0,6}",
        ) {
            let text = format!("name=~{pattern}");
            if let Ok(spec) = Spec::parse(&text) && spec.wants(&name) {
                prop_assert!(name.starts_with(&beginning(&pattern)), "{} {}", pattern, name);
            }
        }
    }
}
