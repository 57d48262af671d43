//! Patterns over dotted names, as graphite-web's find reads them.
//!
//! A pattern is matched node by node: `*` matches any run of characters, `?` one character, `[a-z]` and
//! `[!a-z]` one of a class, `{a,b}` alternatives (which may be nested). A node `**`, alone or among
//! alternatives, matches any number of nodes, including zero. A dot at the end matches the branch itself:
//! `a.` is the branch `a`, and `.` the root. Backslashes are ignored. Brackets and braces that are not
//! closed are literal, as in Python's `fnmatch`.

use crate::error::PatternError;

/// Alternatives that the braces of one node may stand for.
const MAX_ALTERNATIVES: usize = 10_000;

/// Bytes of a pattern, as many as a target may have.
const MAX_LENGTH: usize = 64 << 10;

/// Bytes that are copied while braces are expanded.
const MAX_EXPANDED: usize = 16 << 20;

/// Nodes with `**`: each multiplies the work.
const MAX_GLOBSTARS: usize = 4;

/// A whole pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) nodes: Vec<NodePattern>,
}

/// The pattern of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodePattern {
    /// `**`: any number of nodes; or one node that matches one of these.
    AnyDepth(Vec<Flat>),
    /// One of these, no two alike.
    OneOf(Vec<Flat>),
    /// A dot at the end: the branch itself, whose path keeps the dot.
    Here,
}

/// A pattern without braces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flat {
    /// The literal start of the node, which is found by binary search.
    pub(crate) prefix: String,
    /// The rest; empty if the node must be exactly `prefix`.
    rest: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    Char(char),
    One,
    Run,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] when it would cost too much.
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_LENGTH {
            return Err(PatternError::TooLong { most: MAX_LENGTH });
        }
        let text = text.replace('\\', "");
        let mut nodes = text
            .split('.')
            .filter(|node| !node.is_empty())
            .map(NodePattern::parse)
            .collect::<Result<Vec<_>, _>>()?;
        let globstars = nodes
            .iter()
            .filter(|node| matches!(node, NodePattern::AnyDepth(_)));
        if globstars.count() > MAX_GLOBSTARS {
            return Err(PatternError::Globstars {
                most: MAX_GLOBSTARS,
            });
        }
        if text.ends_with('.') {
            nodes.push(NodePattern::Here);
        }
        Ok(Self { nodes })
    }

    /// The branch below which everything lies that can match (`a.b.`; nothing for all): the nodes at the
    /// start, without the last one, that are literal.
    pub(crate) fn literal_branch(&self) -> String {
        let mut branch = String::new();
        let above = self.nodes.split_last().map_or(&[][..], |(_, above)| above);
        for node in above {
            match node {
                NodePattern::OneOf(flats) => match flats.as_slice() {
                    [only] if only.is_literal() => branch.extend([only.prefix.as_str(), "."]),
                    _ => break,
                },
                NodePattern::AnyDepth(_) | NodePattern::Here => break,
            }
        }
        branch
    }

    /// Whether it asks for branches, with a dot at the end.
    pub(crate) fn asks_for_branches(&self) -> bool {
        self.nodes.last() == Some(&NodePattern::Here)
    }
}

impl NodePattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let mut texts = Vec::new();
        expand(text, &mut texts).map_err(|TooMany| PatternError::Alternatives {
            pattern: text.to_owned(),
            most: MAX_ALTERNATIVES,
        })?;
        let n_texts = texts.len();
        texts.retain(|text| text != "**");
        let any_depth = texts.len() < n_texts;
        let mut flats: Vec<Flat> = texts.iter().map(|text| Flat::parse(text)).collect();
        flats.sort_unstable();
        flats.dedup();
        Ok(if any_depth {
            Self::AnyDepth(flats)
        } else {
            Self::OneOf(flats)
        })
    }
}

struct TooMany;

/// Replaces the first group of braces by each of its alternatives, and so on in the results.
fn expand(text: &str, out: &mut Vec<String>) -> Result<(), TooMany> {
    let mut todo = vec![text.to_owned()];
    let mut expanded = 0;
    while let Some(text) = todo.pop() {
        if todo.len() + out.len() > MAX_ALTERNATIVES {
            return Err(TooMany);
        }
        match braces(&text) {
            None => out.push(text),
            Some((start, end)) => {
                let mut depth = 0;
                let mut from = start + 1;
                for (at, byte) in text.bytes().enumerate().take(end + 1).skip(start) {
                    match byte {
                        b'{' => depth += 1,
                        b'}' => depth -= 1,
                        _ => {}
                    }
                    if at == end || (byte == b',' && depth == 1) {
                        let (before, after) = (&text[..start], &text[end + 1..]);
                        let alternative = [before, &text[from..at], after].concat();
                        expanded += alternative.len();
                        if expanded > MAX_EXPANDED {
                            return Err(TooMany);
                        }
                        todo.push(alternative);
                        from = at + 1;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The positions of the first closed pair of braces.
fn braces(text: &str) -> Option<(usize, usize)> {
    let mut open = Vec::new();
    let mut first = None;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open.push(at),
            b'}' => {
                let Some(start) = open.pop() else {
                    continue;
                };
                if first.is_none_or(|(first, _)| start < first) {
                    first = Some((start, at));
                }
                // All that is left open comes later.
                if open.is_empty() {
                    break;
                }
            }
            _ => {}
        }
    }
    first
}

impl Flat {
    fn parse(text: &str) -> Self {
        let mut prefix = String::new();
        let mut rest = Vec::new();
        let mut chars = text.char_indices();
        while let Some((at, char)) = chars.next() {
            let token = match char {
                '*' => Token::Run,
                '?' => Token::One,
                '[' => match class(&text[at + 1..]) {
                    Some((token, len)) => {
                        while chars
                            .clone()
                            .next()
                            .is_some_and(|(next, _)| next <= at + len)
                        {
                            chars.next();
                        }
                        token
                    }
                    None => Token::Char('['),
                },
                other => Token::Char(other),
            };
            match token {
                Token::Char(char) if rest.is_empty() => prefix.push(char),
                Token::Run if rest.last() == Some(&Token::Run) => {}
                token => rest.push(token),
            }
        }
        Self { prefix, rest }
    }

    /// Whether only `prefix` itself matches.
    pub(crate) fn is_literal(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether a node matches that is `prefix` followed by `rest`.
    #[inline]
    pub(crate) fn matches_rest(&self, rest: &str) -> bool {
        match self.rest.as_slice() {
            [] => rest.is_empty(),
            [Token::Run] => true,
            tokens => matches(tokens, rest),
        }
    }

    /// Whether `node` matches.
    pub(crate) fn matches(&self, node: &str) -> bool {
        node.strip_prefix(&self.prefix)
            .is_some_and(|rest| self.matches_rest(rest))
    }
}

/// Reads a class whose `[` is just before `text`: the token and its length up to and with `]`.
fn class(text: &str) -> Option<(Token, usize)> {
    let negated = text.starts_with('!');
    let body = usize::from(negated);
    // A `]` at the start is literal.
    let search = body + usize::from(text[body..].starts_with(']'));
    let end = search + text[search..].find(']')?;
    let mut ranges = Vec::new();
    let mut chars = text[body..end].chars().peekable();
    while let Some(low) = chars.next() {
        let mut ahead = chars.clone();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(high)) => {
                ranges.push((low, high));
                chars = ahead;
            }
            _ => ranges.push((low, low)),
        }
    }
    Some((Token::Class { negated, ranges }, end + 1))
}

/// Matches without recursion: on a mismatch the last `*` takes one more character.
fn matches(tokens: &[Token], text: &str) -> bool {
    let mut token = 0;
    let mut rest = text;
    let mut run: Option<(usize, &str)> = None;
    loop {
        let advanced = match tokens.get(token) {
            None if rest.is_empty() => return true,
            None => false,
            Some(Token::Run) => {
                run = Some((token + 1, rest));
                token += 1;
                continue;
            }
            Some(wanted) => match rest.chars().next() {
                None => return false,
                Some(char) if wanted.takes(char) => {
                    rest = &rest[char.len_utf8()..];
                    token += 1;
                    true
                }
                Some(_) => false,
            },
        };
        if advanced {
            continue;
        }
        let Some((after, from)) = run else {
            return false;
        };
        let Some(char) = from.chars().next() else {
            return false;
        };
        rest = &from[char.len_utf8()..];
        token = after;
        run = Some((after, rest));
    }
}

impl Token {
    fn takes(&self, char: char) -> bool {
        match self {
            Self::Char(own) => *own == char,
            Self::One => true,
            Self::Run => false,
            Self::Class { negated, ranges } => {
                ranges
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&char))
                    != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(pattern: &str, name: &str) -> bool {
        match NodePattern::parse(pattern).unwrap() {
            NodePattern::AnyDepth(_) => true,
            NodePattern::OneOf(flats) => flats.iter().any(|flat| flat.matches(name)),
            NodePattern::Here => false,
        }
    }

    #[test]
    fn each_sign() {
        for (pattern, yes, no) in [
            ("*", "a", ""),
            ("a*", "abc", "ba"),
            ("*a", "cba", "ab"),
            ("a*b*c", "axxbxxc", "axxc"),
            ("?", "ä", "ab"),
            ("a?c", "abc", "ac"),
            ("[ab]", "b", "c"),
            ("[a-c]x", "bx", "dx"),
            ("[!a-c]x", "dx", "bx"),
            ("[]]", "]", "["),
            ("[a-]", "-", "b"),
            ("[s", "[s", "s"),
            ("{a,b}", "b", "c"),
            ("{a,b{1,2}}x", "b2x", "b3x"),
            ("a{,b}", "a", "b"),
            ("{s", "{s", "s"),
            ("s}", "s}", "s"),
            ("{a", "{a", "a"),
            ("{a{b,c}", "{ab", "a"),
            ("web0{1,2}*", "web02x", "web03"),
        ] {
            assert!(node(pattern, yes), "{pattern} {yes}");
            if !no.is_empty() {
                assert!(!node(pattern, no), "{pattern} {no}");
            }
        }
    }

    #[test]
    fn what_costs_too_much_is_refused() {
        assert!(Pattern::parse(&"{a,b}".repeat(20)).is_err());
        assert!(Pattern::parse("**.**.**.**.**").is_err());
        assert!(Pattern::parse(&"a".repeat(MAX_LENGTH)).is_ok());
        assert!(Pattern::parse(&"a".repeat(MAX_LENGTH + 1)).is_err());
        // Each level would be copied for the next one.
        let nested = |n: usize| ["{".repeat(n), "a".to_owned(), "}".repeat(n)].concat();
        assert!(node(&nested(1_000), "a"));
        assert!(Pattern::parse(&nested(30_000)).is_err());
        // None of these is closed.
        assert!(node(&"{a,".repeat(20_000), &"{a,".repeat(20_000)));
        // Many stars are no danger: each mismatch gives back one character.
        assert!(!node(&"*a".repeat(50), &"a".repeat(49)));
    }

    /// The definition, by recursion.
    fn naive(tokens: &[Token], text: &[char]) -> bool {
        match tokens {
            [] => text.is_empty(),
            [Token::Run, more @ ..] => (0..=text.len()).any(|n| naive(more, &text[n..])),
            [token, more @ ..] => {
                text.first().is_some_and(|char| token.takes(*char)) && naive(more, &text[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn as_the_definition_says(pattern in "[ab*?\\[\\]!-]{0,8}", text in "[ab!\\]-]{0,8}") {
            let flat = Flat::parse(&pattern);
            let mut tokens: Vec<Token> = flat.prefix.chars().map(Token::Char).collect();
            tokens.extend(flat.rest.iter().cloned());
            let chars: Vec<char> = text.chars().collect();
            prop_assert_eq!(flat.matches(&text), naive(&tokens, &chars));
        }

        #[test]
        fn any_text_is_a_pattern(pattern in "\\PC{0,30}", name in "\\PC{0,20}") {
            if let Ok(NodePattern::OneOf(flats)) = NodePattern::parse(&pattern) {
                for flat in flats {
                    flat.matches(&name);
                }
            }
        }
    }
}
