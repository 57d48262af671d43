//! Tree to text.

use std::fmt::{self, Display, Formatter, Write as _};

use super::parse::{self, is_symbol};
use super::{Argument, Base, Call, Expression, Literal, Template, Text};
use crate::python;

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.base.fmt(f)?;
        print_pipes(&self.piped, f)
    }
}

fn print_pipes(piped: &[Call], f: &mut Formatter<'_>) -> fmt::Result {
    for call in piped {
        write!(f, "|{call}")?;
    }
    Ok(())
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => print_path(path, f),
            Self::Call(call) => call.fmt(f),
            Self::Template(template) => template.fmt(f),
        }
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name)?;
        print_list(&self.args, &self.keywords, f)?;
        f.write_char(')')
    }
}

impl Display for Template {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "template({}", self.body)?;
        if !(self.args.is_empty() && self.keywords.is_empty()) {
            f.write_char(',')?;
        }
        print_list(&self.args, &self.keywords, f)?;
        f.write_char(')')
    }
}

fn print_list<T: Display>(
    args: &[T],
    keywords: &[(String, T)],
    f: &mut Formatter<'_>,
) -> fmt::Result {
    let mut comma = "";
    for argument in args {
        write!(f, "{comma}{argument}")?;
        comma = ",";
    }
    for (name, value) in keywords {
        write!(f, "{comma}{name}={value}")?;
        comma = ",";
    }
    Ok(())
}

impl Display for Argument {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => literal.fmt(f),
            Self::Expression(Expression {
                base: Base::Path(path),
                piped,
            }) if parse::begins_like_another_argument(path) => {
                print_escaped(path, |c| is_symbol(c) || c == '=', f)?;
                print_pipes(piped, f)
            }
            Self::Expression(expression) => expression.fmt(f),
        }
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            // A number beyond all floats: `inf` would be the word, which is another literal.
            Self::Float(number) if number.is_infinite() => {
                f.write_str(if *number > 0.0 { "1e999" } else { "-1e999" })
            }
            // `1e+16` is not in the grammar, `1e16` is.
            Self::Float(number) => f.write_str(&python::float(*number).replace("e+", "e")),
            Self::Text(Text { text, quote }) => write!(f, "{quote}{text}{quote}"),
            Self::Boolean(value) => value.fmt(f),
            Self::None => f.write_str("none"),
            Self::Infinity => f.write_str("inf"),
        }
    }
}

/// As it stands if that parses to itself, else with a backslash before every symbol.
fn print_path(path: &str, f: &mut Formatter<'_>) -> fmt::Result {
    if parse::is_plain_path(path) {
        return f.write_str(path);
    }
    print_escaped(path, is_symbol, f)
}

fn print_escaped(path: &str, escaped: impl Fn(char) -> bool, f: &mut Formatter<'_>) -> fmt::Result {
    for c in path.chars() {
        if escaped(c) {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    Ok(())
}
