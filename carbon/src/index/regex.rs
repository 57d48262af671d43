//! Regular expressions that clients send, within bounds.

use std::borrow::Cow;

/// About how many bytes a compiled expression may take.
const MAX_COMPILED: usize = 10 << 20;

/// How many instructions a compiled expression may have for the parts that need backtracking.
const MAX_INSTRUCTIONS: usize = 10_000;

/// The largest number of a group that an expression may refer to.
const MAX_GROUP: usize = 9_999;

/// Compiles a regular expression that a client sent, within bounds.
///
/// # Errors
/// The expression is invalid or very large.
pub fn regex(pattern: &str) -> Result<fancy_regex::Regex, fancy_regex::Error> {
    // The engine has a set of bits up to the largest number.
    if let Some(at) = reference_beyond(pattern, MAX_GROUP) {
        let error = fancy_regex::ParseError::InvalidBackref;
        return Err(fancy_regex::Error::ParseError(at, error));
    }
    // Parts between look-arounds and references are compiled separately, and calls of groups (which
    // Python does not have) once more at each call.
    let calls = ["\\g", "(?&", "(?P>", "(?R", "(?0"];
    let n_parts = if calls.iter().any(|call| pattern.contains(call)) {
        MAX_INSTRUCTIONS
    } else {
        1 + pattern.matches("(?").count() + pattern.matches('\\').count() / 8
    };
    let size = MAX_COMPILED / n_parts;
    fancy_regex::RegexBuilder::new(&kept_apart(pattern))
        .max_prog_size(MAX_INSTRUCTIONS)
        .delegate_size_limit(size)
        .delegate_dfa_size_limit(size)
        .build()
}

/// A number behind these is that of a group.
const REFERENCES: [&str; 14] = [
    "\\", "\\g", "\\g<", "\\g'", "\\k<", "\\k'", "(?", "(?P>", "(?P=", "(?&", "(?R", "(?(", "(?(<",
    "(?('",
];

/// Where `pattern` refers to a group by a number beyond `most`.
fn reference_beyond(pattern: &str, most: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = pattern[at..].find(['\\', '(']) {
        at += found;
        let rest = &pattern[at..];
        let refers = |begin: &&str| {
            let number = rest.strip_prefix(*begin).unwrap_or_default();
            // Directly behind a backslash a character stands for itself.
            let number = match *begin {
                "\\" => number,
                _ => number.trim_start_matches(['+', '-']),
            };
            let end = number.find(|c: char| !c.is_ascii_digit());
            let digits = &number[..end.unwrap_or(number.len())];
            !digits.is_empty() && digits.parse().map_or(true, |number: usize| number > most)
        };
        if REFERENCES.iter().any(refers) {
            return Some(at);
        }
        // What is escaped begins nothing.
        let mut chars = rest.chars();
        if chars.next() == Some('\\') {
            chars.next();
        }
        at = pattern.len() - chars.as_str().len();
    }
    None
}

/// `pattern` with an empty group after each repetition of one or more. Without it fancy-regex 0.20
/// takes `a+.*a+` for `a+(.+a+)?`, which matches a single `a`. The group is not quite empty, because
/// an empty one is dropped: its second branch matches nothing.
fn kept_apart(pattern: &str) -> Cow<'_, str> {
    const APART: &str = r"(?:|[^\s\S])";
    if pattern.matches(['+', '{']).count() < 2 {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len() + 2 * APART.len());
    let mut rest = pattern;
    let mut class_depth = 0;
    let last_end = pattern.rfind(')').unwrap_or(0);
    while let Some(c) = rest.chars().next() {
        // Nothing is looked for twice, however many comments have no end.
        let may_end = class_depth == 0 && pattern.len() - rest.len() < last_end;
        let comment = (may_end && rest.starts_with("(?#")).then(|| rest.find(')'));
        let length = match (c, comment.flatten()) {
            ('\\', _) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            // A bracket in the first place is one of the class.
            ('[', _) if rest.starts_with("[]") => 2,
            ('[', _) if rest.starts_with("[^]") => 3,
            (_, Some(end)) => end + 1,
            _ => c.len_utf8(),
        };
        match c {
            '[' => class_depth += 1,
            ']' if class_depth > 0 => class_depth -= 1,
            _ => {}
        }
        let repeated = class_depth == 0 && (c == '+' || c == '}' && out.ends_with("{1,"));
        out.push_str(&rest[..length]);
        rest = &rest[length..];
        if repeated && !rest.starts_with(['?', '+', '*', '{']) {
            out.push_str(APART);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_groups_are_bounded() {
        let number = "999999999999";
        for pattern in [
            "(a)\\N",
            "\\gN",
            "\\g<N>",
            "\\g'N'",
            "\\g<-N>",
            "(a)\\k<N>",
            "(a)\\k'N'",
            "(?(N)a|b)",
            "(?(<N>)a|b)",
            "(?P>N)",
            "(?&N)",
            "(?N)",
            "(?+N)",
            "\\\\\\gN",
        ] {
            assert!(regex(&pattern.replace('N', number)).is_err(), "{pattern}");
        }
        for pattern in [
            "hostN",
            "\\\\gN",
            "(N)\\1",
            "(?:N)",
            "[N]",
            "\\.N",
            "\\+N",
            "\\-N",
            "\\<N",
            "(?=N)",
            "(?<=N)",
            "(a)(?(1)N|b)",
        ] {
            assert!(regex(&pattern.replace('N', number)).is_ok(), "{pattern}");
        }
        let groups = "(a)".repeat(120);
        assert!(regex(&format!("{groups}\\120")).is_ok());
        assert!(regex("(a)\\121").is_err());
    }

    #[test]
    fn expressions_that_compile_to_much_are_refused() {
        for pattern in [
            r"(?:\w{500}){500}",
            r"(?<a>\w{9})(?<b>\g<a>\g<a>\g<a>\g<a>)(?<c>\g<b>\g<b>\g<b>\g<b>)\g<c>\g<c>",
            &r"(?=a)\w".repeat(9_000),
        ] {
            assert!(regex(pattern).is_err(), "{pattern}");
        }
        let hosts: Vec<String> = (0..4_000).map(|n| format!("host{n}.*")).collect();
        for pattern in [r"(?!a)\w{9}".repeat(20), hosts.join("|")] {
            assert!(regex(&pattern).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn equal_repetitions_are_not_mistaken_for_one() {
        for (pattern, matching, other) in [
            (r"^a+.*a+$", "aa", "a"),
            (r"^\w+\.?\w+$", "a.b", "a"),
            (r"^a{1,}b*a{1,}$", "aba", "a"),
            (r"^[a+]+x*[a+]+$", "+x+", "+"),
            (r"^a+(?# a+ )-*a+$", "a-a", "a"),
            (r"^\++-?\++$", "+-+", "+"),
            (r"^a+?b*a+$", "aba", "a"),
            (r"^a++b*c++$", "aabcc", "aab"),
        ] {
            let regex = regex(pattern).unwrap();
            assert!(regex.is_match(matching).unwrap(), "{pattern}");
            assert!(!regex.is_match(other).unwrap(), "{pattern}");
        }
    }
}
