//! A target as text and as a tree: `alias(sumSeries(web.*.hits)|scale(0.1), "hits")`.
//!
//! 1. The grammar is graphite-web 1.1.10's, ordered choices without going back, so that every
//!    text means here what it means there: `expression = (template | call | path) ("|" call)*`.
//! 2. A target stands for its longest valid prefix; [`Parsed::rest`] says where that ends. Only
//!    a first character that begins nothing is an error.
//! 3. Parsing takes time in proportion to the text and is bounded in depth and length.
//! 4. Printing a tree gives text that parses to the same tree. A path holds its text without
//!    backslashes; printing puts back those it needs.

mod parse;
mod print;

pub use parse::{MAX_DEPTH, MAX_LENGTH, Parsed, expand_tabs, parse};

/// About how many bytes `text` takes once it is parsed.
pub fn size_of_parsed(text: &str) -> usize {
    const LIST: usize = 4 * size_of::<(String, Argument)>();
    let (mut n_parts, mut n_lists, mut depth, mut deepest) = (1_usize, 1_usize, 0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' => {
                n_parts += 1;
                n_lists += 1;
                depth += 1;
                deepest = deepest.max(depth);
            }
            b')' => depth = depth.saturating_sub(1),
            b',' => n_parts += 1,
            // The first call of a pipe and the first keyword begin lists of their own.
            b'|' | b'=' => {
                n_parts += 1;
                n_lists += 1;
            }
            _ => {}
        }
    }
    // Lists grow by doubling, from four places for the first item on.
    let parts = n_parts.saturating_mul(2 * size_of::<Argument>());
    let lists = n_lists.saturating_mul(LIST);
    // Each call keeps its text, and so do those that it stands in.
    parts + lists + text.len() * (2 + deepest.min(MAX_DEPTH))
}

/// What stands in a target, with the calls it is piped through.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// What the pipe begins with.
    pub base: Base,
    /// Each call takes what stands before it as its first argument.
    pub piped: Vec<Call>,
}

/// An expression without its pipe.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// A pattern of series names.
    Path(String),
    /// A function call.
    Call(Call),
    /// `template(…)`: values for the `$names` inside.
    Template(Box<Template>),
}

/// A function call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function's name as written.
    pub name: String,
    /// Arguments by position.
    pub args: Vec<Argument>,
    /// Arguments by name; of two with one name the last counts.
    pub keywords: Vec<(String, Argument)>,
    /// The call as written: `seriesByTag` is known by it.
    pub raw: String,
    /// Where in the target it begins, in bytes.
    pub at: usize,
}

/// Calls are equal when they say the same, wherever they stand and however they are spaced.
impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.args == other.args && self.keywords == other.keywords
    }
}

/// An argument of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// A number, string, truth value or `none`.
    Literal(Literal),
    /// Anything to be evaluated.
    Expression(Expression),
}

/// A value that stands for itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A whole number.
    Integer(i64),
    /// A decimal or scientific number, or a whole one beyond 64 bits.
    Float(f64),
    /// A string, its backslashes untouched.
    Text(Text),
    /// `true` or `false` in any case.
    Boolean(bool),
    /// `none` in any case.
    None,
    /// `inf` in any case.
    Infinity,
}

/// A string and the quote it stands in: it may hold the other one freely.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// What stands between the quotes.
    pub text: String,
    /// `"` or `'`.
    pub quote: char,
}

/// `template(body, "one", "two")` or `template(body, name="value")`.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// A path or a call.
    pub body: Base,
    /// Values for `$1`, `$2`, …
    pub args: Vec<Literal>,
    /// Values for `$name`.
    pub keywords: Vec<(String, Literal)>,
}
