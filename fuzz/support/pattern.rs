//! Regular expressions as trees: printed as Python spells them, and matched by the definition,
//! trying one way after the other.

use crate::bytes::Bytes;

/// A part of an expression.
#[derive(Clone, Debug)]
pub enum Node {
    Char(char),
    Any,
    Class(bool, Vec<(char, char)>),
    Start,
    End,
    /// A group; with its number if it captures.
    Group(Option<usize>, Box<Node>),
    One(Vec<Node>),
    All(Vec<Node>),
    Repeat {
        what: Box<Node>,
        least: usize,
        most: usize,
        lazy: bool,
    },
    /// What a group before has matched.
    Same(usize),
}

/// The groups of an expression that capture.
#[derive(Debug, Default)]
pub struct Groups {
    pub opened: usize,
    closed: Vec<usize>,
}

/// Steps after which the definition gives up.
const MAX_STEPS: usize = 20_000;

impl Node {
    /// An expression that the input decides, of the letters in `letters`.
    pub fn read(
        input: &mut Bytes<'_>,
        letters: &[char],
        depth: usize,
        groups: &mut Groups,
    ) -> Self {
        let letter = |input: &mut Bytes<'_>| letters[input.below(letters.len())];
        match input.below(if depth == 0 { 5 } else { 11 }) {
            0 => Self::Char(letter(input)),
            1 => Self::Any,
            2 => {
                let n = 1 + input.below(3);
                let mut ranges = Vec::new();
                for _ in 0..n {
                    let low = letter(input);
                    let high = letter(input);
                    let is_range = input.below(3) == 0 && low <= high;
                    ranges.push((low, if is_range { high } else { low }));
                }
                Self::Class(input.below(3) == 0, ranges)
            }
            3 => Self::Start,
            4 => Self::End,
            5 | 6 => {
                groups.opened += 1;
                let number = groups.opened;
                let inner = Box::new(Self::read(input, letters, depth - 1, groups));
                groups.closed.push(number);
                Self::Group(Some(number), inner)
            }
            7 => {
                let n = 1 + input.below(3);
                let parts = (0..n).map(|_| Self::read(input, letters, depth - 1, groups));
                Self::Group(None, Box::new(Self::One(parts.collect())))
            }
            8 => {
                let n = input.below(4);
                Self::All(
                    (0..n)
                        .map(|_| Self::read(input, letters, depth - 1, groups))
                        .collect(),
                )
            }
            9 => {
                let what = Self::read(input, letters, depth - 1, groups);
                // What may be empty is not repeated: engines differ in when they stop. Nor is a
                // repetition, which fancy-regex folds even where one of the two is lazy.
                if what.may_be_empty() || what.is_repetition() {
                    return what;
                }
                let least = input.below(3);
                let most = match input.below(3) {
                    0 => usize::MAX,
                    more => least + more - 1,
                };
                let what = Box::new(Self::Group(None, Box::new(what)));
                let lazy = input.below(3) == 0;
                Self::Repeat {
                    what,
                    least,
                    most,
                    lazy,
                }
            }
            _ if groups.closed.is_empty() => Self::Any,
            _ => Self::Same(groups.closed[input.below(groups.closed.len())]),
        }
    }

    fn is_repetition(&self) -> bool {
        match self {
            Self::Repeat { .. } => true,
            Self::Group(_, inner) => inner.is_repetition(),
            Self::One(parts) | Self::All(parts) => parts.iter().any(Self::is_repetition),
            _ => false,
        }
    }

    fn may_be_empty(&self) -> bool {
        match self {
            Self::Char(_) | Self::Any | Self::Class(..) => false,
            Self::Start | Self::End | Self::Same(_) => true,
            Self::Group(_, inner) => inner.may_be_empty(),
            Self::One(parts) => parts.iter().any(Self::may_be_empty),
            Self::All(parts) => parts.iter().all(Self::may_be_empty),
            Self::Repeat { what, least, .. } => *least == 0 || what.may_be_empty(),
        }
    }

    /// As Python spells it.
    pub fn print(&self, out: &mut String) {
        match self {
            Self::Char(c) => push_escaped(out, *c),
            Self::Any => out.push('.'),
            Self::Class(negated, ranges) => {
                out.push('[');
                if *negated {
                    out.push('^');
                }
                for (at, (low, high)) in ranges.iter().enumerate() {
                    // A bracket stands for itself: the first closing one, and every opening one.
                    match low {
                        ']' if at > 0 => out.push_str("\\]"),
                        '-' => out.push_str("\\-"),
                        c => out.push(*c),
                    }
                    if low < high {
                        out.push('-');
                        if *high == ']' {
                            out.push('\\');
                        }
                        out.push(*high);
                    }
                }
                out.push(']');
            }
            Self::Start => out.push('^'),
            Self::End => out.push('$'),
            Self::Group(number, inner) => {
                out.push_str(if number.is_some() { "(" } else { "(?:" });
                inner.print(out);
                out.push(')');
            }
            Self::One(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        out.push('|');
                    }
                    part.print(out);
                }
            }
            Self::All(parts) => parts.iter().for_each(|part| part.print(out)),
            Self::Repeat {
                what,
                least,
                most,
                lazy,
            } => {
                what.print(out);
                match (least, *most) {
                    (0, usize::MAX) => out.push('*'),
                    (1, usize::MAX) => out.push('+'),
                    (0, 1) => out.push('?'),
                    (least, usize::MAX) => out.push_str(&format!("{{{least},}}")),
                    (least, most) => out.push_str(&format!("{{{least},{most}}}")),
                }
                if *lazy {
                    out.push('?');
                }
            }
            Self::Same(number) => out.push_str(&format!("(?:\\{number})")),
        }
    }
}

fn push_escaped(out: &mut String, c: char) {
    if matches!(c, '.' | '[') {
        out.push('\\');
    }
    out.push(c);
}

/// Where the groups of a match begin and end; the first is the match itself.
pub type Places = Vec<Option<(usize, usize)>>;

/// A match in the making.
struct Matcher<'t> {
    text: &'t [char],
    places: Places,
    steps: usize,
}

/// The match of `node` that begins at `from`, if there is one; with `not_empty`, one that is not
/// empty. `None` if it takes too many steps to know.
pub fn match_at(
    node: &Node,
    groups: usize,
    text: &[char],
    from: usize,
    not_empty: bool,
) -> Option<Option<Places>> {
    let places = vec![None; groups + 1];
    let mut matcher = Matcher {
        text,
        places,
        steps: 0,
    };
    let mut end = None;
    matcher.node(node, from, &mut |_, at| {
        if not_empty && at == from {
            return false;
        }
        end = Some(at);
        true
    });
    if matcher.steps > MAX_STEPS {
        return None;
    }
    let found = end.map(|end| {
        matcher.places[0] = Some((from, end));
        matcher.places
    });
    Some(found)
}

/// What goes on after a node that ends at a place; whether all of it matches.
type Next<'n, 't> = &'n mut dyn FnMut(&mut Matcher<'t>, usize) -> bool;

impl<'t> Matcher<'t> {
    fn node(&mut self, node: &Node, at: usize, next: Next<'_, 't>) -> bool {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return false;
        }
        let text = self.text;
        let one = |wanted: bool| wanted.then_some(at + 1);
        let end = match node {
            Node::Char(c) => one(text.get(at) == Some(c)),
            Node::Any => one(at < text.len()),
            Node::Class(negated, ranges) => one(text.get(at).is_some_and(|c| {
                ranges.iter().any(|(low, high)| low <= c && c <= high) != *negated
            })),
            Node::Start => (at == 0).then_some(at),
            Node::End => (at == text.len()).then_some(at),
            Node::Same(number) => self.places[*number].and_then(|(from, to)| {
                text[at..]
                    .starts_with(&text[from..to])
                    .then_some(at + to - from)
            }),
            Node::Group(None, inner) => return self.node(inner, at, next),
            Node::Group(Some(number), inner) => {
                let number = *number;
                return self.node(inner, at, &mut |matcher, end| {
                    let before = matcher.places[number].replace((at, end));
                    next(matcher, end) || {
                        matcher.places[number] = before;
                        false
                    }
                });
            }
            Node::One(parts) => return parts.iter().any(|part| self.node(part, at, next)),
            Node::All(parts) => return self.all(parts, at, next),
            Node::Repeat {
                what,
                least,
                most,
                lazy,
            } => {
                return self.repeat((what, *least, *most, *lazy), 0, at, next);
            }
        };
        end.is_some_and(|end| next(self, end))
    }

    fn all(&mut self, parts: &[Node], at: usize, next: Next<'_, 't>) -> bool {
        match parts.split_first() {
            None => next(self, at),
            Some((first, rest)) => {
                self.node(first, at, &mut |matcher, end| matcher.all(rest, end, next))
            }
        }
    }

    fn repeat(
        &mut self,
        how: (&Node, usize, usize, bool),
        n: usize,
        at: usize,
        next: Next<'_, 't>,
    ) -> bool {
        let (what, least, most, lazy) = how;
        if lazy && n >= least && next(self, at) {
            return true;
        }
        let more = n < most
            && self.node(what, at, &mut |matcher, end| {
                matcher.repeat(how, n + 1, end, next)
            });
        more || (!lazy && n >= least && next(self, at))
    }
}
