//! Text to tree, by recursive descent.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{Argument, Base, Call, Expression, Literal, Template, Text};
use crate::error::{Error, Result};

/// How deep calls may nest.
pub const MAX_DEPTH: usize = 64;

/// How many bytes a target may have.
pub const MAX_LENGTH: usize = 64 * 1024;

/// A target's tree, and how much of the text it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The tree.
    pub expression: Expression,
    /// The byte at which the ignored rest begins, blanks before it left out; `None` if all of
    /// the text was used.
    pub rest: Option<usize>,
}

/// Reads a target.
///
/// # Errors
/// [`Error::Target`] if not even the first character begins an expression, or if the text is too
/// long or nests too deeply.
pub fn parse(target: &str) -> Result<Parsed> {
    let refuse = |message: String, position: usize| Error::Target {
        message,
        target: target.to_owned(),
        position,
    };
    if target.len() > MAX_LENGTH {
        let message = format!("a target of {} bytes is too long", target.len());
        return Err(refuse(message, MAX_LENGTH));
    }
    let mut parser = Parser::new(target);
    parser.skip_blanks();
    let start = parser.at;
    // Names beyond ASCII are taken anywhere but here, where the reference refuses them.
    let begins = parser.peek().is_some_and(|c| c.is_ascii());
    let expression = if begins { parser.expression() } else { None };
    if let Some(position) = parser.too_deep {
        let message = format!("calls nest deeper than {MAX_DEPTH}");
        return Err(refuse(message, position));
    }
    let Some(expression) = expression else {
        let message = match target[start..].chars().next() {
            Some(found) => format!("{found:?} does not begin a path or a call"),
            None => "the target is empty".to_owned(),
        };
        return Err(refuse(message, start));
    };
    if depth(&expression) > MAX_DEPTH {
        // A pipe nests, too: what it begins with lies innermost.
        let message = format!("calls nest deeper than {MAX_DEPTH}");
        return Err(refuse(message, start));
    }
    parser.skip_blanks();
    let rest = (parser.at < target.len()).then_some(parser.at);
    Ok(Parsed { expression, rest })
}

/// How many calls must be evaluated within one another.
fn depth(expression: &Expression) -> usize {
    let of_base = |base: &Base| match base {
        Base::Path(_) => 0,
        Base::Call(call) => depth_of_call(call),
        Base::Template(template) => match &template.body {
            Base::Call(call) => depth_of_call(call),
            _ => 0,
        },
    };
    // A piped call counts once for what comes before it, and what stands in it beside that.
    let beside = expression.piped.iter().map(|call| depth_of_call(call) - 1);
    expression.piped.len() + of_base(&expression.base).max(beside.max().unwrap_or(0))
}

fn depth_of_call(call: &Call) -> usize {
    let keywords = call.keywords.iter().map(|(_, argument)| argument);
    let arguments = call.args.iter().chain(keywords);
    let depths = arguments.map(|argument| match argument {
        Argument::Literal(_) => 0,
        Argument::Expression(expression) => depth(expression),
    });
    1 + depths.max().unwrap_or(0)
}

/// The text with every tab as blanks up to the next eighth column, as the reference's parser sees
/// it: a tab in a string comes out so.
pub fn expand_tabs(text: &str) -> Cow<'_, str> {
    if !text.contains('\t') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' => {
                let n_blanks = 8 - column % 8;
                out.extend(std::iter::repeat_n(' ', n_blanks));
                column += n_blanks;
                continue;
            }
            '\n' | '\r' => column = 0,
            _ => column += 1,
        }
        out.push(c);
    }
    out.into()
}

/// Whether `c` may stand in a path without a backslash.
pub(super) fn in_path(c: char) -> bool {
    !is_symbol(c) && (('!'..='~').contains(&c) || (!c.is_ascii() && !c.is_whitespace()))
}

/// The characters that need a backslash in a path (`=` may have one).
pub(super) fn is_symbol(c: char) -> bool {
    matches!(
        c,
        '(' | ')' | '{' | '}' | ',' | '.' | '\'' | '"' | '\\' | '|'
    )
}

/// Whether `path`, written without a backslash, is read as this very path.
pub(super) fn is_plain_path(path: &str) -> bool {
    let mut parser = Parser::new(path);
    parser.path().as_deref() == Some(path) && parser.at == path.len()
}

/// Whether `path`, as it stands among arguments, begins like a keyword argument (`name=…`) or a
/// literal (`12.5`).
pub(super) fn begins_like_another_argument(path: &str) -> bool {
    let mut parser = Parser::new(path);
    parser.keyword().is_some() || parser.literal().is_some()
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    too_deep: Option<usize>,
    /// Where `template(…)` turned out to be an ordinary call. What lies within is read twice then:
    /// without this, texts within one another would be read as often as there are ways to read them.
    no_templates: BTreeSet<usize>,
}

/// Every method either takes what it names and moves on, or gives `None` and stays.
impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            too_deep: None,
            no_templates: BTreeSet::new(),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    /// Goes back to where it began unless `read` succeeds.
    fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let start = self.at;
        let found = read(self);
        if found.is_none() {
            self.at = start;
        }
        found
    }

    /// A symbol, blanks before it skipped.
    fn symbol(&mut self, symbol: char) -> Option<()> {
        self.attempt(|p| {
            p.skip_blanks();
            let rest = p.rest().strip_prefix(symbol)?;
            p.at = p.text.len() - rest.len();
            Some(())
        })
    }

    fn expression(&mut self) -> Option<Expression> {
        if self.depth >= MAX_DEPTH {
            self.too_deep.get_or_insert(self.at);
            return None;
        }
        self.depth += 1;
        let found = self.expression_within();
        self.depth -= 1;
        found
    }

    fn expression_within(&mut self) -> Option<Expression> {
        let base = self
            .template()
            .map(|template| Base::Template(Box::new(template)))
            .or_else(|| self.call_or_path())?;
        let mut piped = Vec::new();
        while let Some(call) = self.attempt(|p| {
            p.symbol('|')?;
            p.call()
        }) {
            piped.push(call);
        }
        Some(Expression { base, piped })
    }

    fn call_or_path(&mut self) -> Option<Base> {
        if let Some(call) = self.call() {
            return Some(Base::Call(call));
        }
        self.path().map(Base::Path)
    }

    fn template(&mut self) -> Option<Template> {
        self.attempt(|p| {
            p.skip_blanks();
            let at = p.at;
            p.rest().strip_prefix("template")?;
            p.at += "template".len();
            p.symbol('(')?;
            if p.no_templates.contains(&at) {
                return None;
            }
            let found = p.template_within();
            if found.is_none() {
                p.no_templates.insert(at);
            }
            found
        })
    }

    /// What follows `template(`.
    fn template_within(&mut self) -> Option<Template> {
        self.attempt(|p| {
            let body = p.call_or_path()?;
            let mut args = Vec::new();
            let mut keywords = Vec::new();
            while let Some((name, value)) = p.attempt(|p| {
                p.symbol(',')?;
                let name = p.keyword();
                // One kind only: the first decides.
                let fits = match name {
                    Some(_) => args.is_empty(),
                    None => keywords.is_empty(),
                };
                let value = p.number().or_else(|| p.string())?;
                fits.then_some((name, value))
            }) {
                match name {
                    Some(name) => keywords.push((name, value)),
                    None => args.push(value),
                }
            }
            p.symbol(')')?;
            Some(Template {
                body,
                args,
                keywords,
            })
        })
    }

    /// `name =` before a keyword argument.
    fn keyword(&mut self) -> Option<String> {
        self.attempt(|p| {
            let name = p.name()?;
            p.symbol('=')?;
            Some(name)
        })
    }

    fn call(&mut self) -> Option<Call> {
        self.attempt(|p| {
            p.skip_blanks();
            let at = p.at;
            let name = p.name()?;
            p.symbol('(')?;
            let (args, keywords) = p.arguments();
            p.symbol(')')?;
            let raw = p.text[at..p.at].to_owned();
            Some(Call {
                name,
                args,
                keywords,
                raw,
                at,
            })
        })
    }

    /// Arguments by position, then those by name. Without one by position there are none.
    fn arguments(&mut self) -> (Vec<Argument>, Vec<(String, Argument)>) {
        let mut args = Vec::new();
        let mut keywords = Vec::new();
        while let Some((name, argument)) = self.attempt(|p| {
            if !args.is_empty() {
                p.symbol(',')?;
            }
            let with_name = p.attempt(|p| Some((p.keyword()?, p.argument()?)));
            match with_name {
                Some((name, argument)) => (!args.is_empty()).then_some((Some(name), argument)),
                None if keywords.is_empty() => Some((None, p.argument()?)),
                None => None,
            }
        }) {
            match name {
                Some(name) => keywords.push((name, argument)),
                None => args.push(argument),
            }
        }
        (args, keywords)
    }

    /// The first kind that matches counts, even if what follows it does not fit.
    fn argument(&mut self) -> Option<Argument> {
        if let Some(literal) = self.literal() {
            return Some(Argument::Literal(literal));
        }
        self.expression().map(Argument::Expression)
    }

    fn literal(&mut self) -> Option<Literal> {
        if self.word("true").is_some() {
            return Some(Literal::Boolean(true));
        }
        if self.word("false").is_some() {
            return Some(Literal::Boolean(false));
        }
        if let Some(number) = self.number() {
            return Some(number);
        }
        if self.word("none").is_some() {
            return Some(Literal::None);
        }
        if let Some(string) = self.string() {
            return Some(string);
        }
        self.word("inf").map(|()| Literal::Infinity)
    }

    /// A keyword in any case that no further letter follows.
    fn word(&mut self, word: &str) -> Option<()> {
        self.attempt(|p| {
            p.skip_blanks();
            let found = p.rest().get(..word.len())?;
            let after = p.rest()[word.len()..].chars().next();
            let ends = after.is_none_or(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '$')));
            (found.eq_ignore_ascii_case(word) && ends).then(|| p.at += word.len())
        })
    }

    fn name(&mut self) -> Option<String> {
        self.attempt(|p| {
            p.skip_blanks();
            let rest = p.rest();
            let first = rest.chars().next()?;
            if !(first.is_ascii_alphabetic() || first == '_') {
                return None;
            }
            let length = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            p.at += length;
            Some(rest[..length].to_owned())
        })
    }

    /// A number, if a comma, a closing parenthesis or the end of the line follows.
    fn number(&mut self) -> Option<Literal> {
        self.attempt(|p| {
            p.skip_blanks();
            let start = p.at;
            let whole = p.digits()?;
            let fraction = p.attempt(|p| {
                p.rest().strip_prefix('.')?;
                p.at += 1;
                let at = p.at;
                p.digits().filter(|_| !p.text[at..].starts_with('-'))
            });
            let exponent = p.attempt(|p| {
                p.rest().strip_prefix(['e', 'E'])?;
                p.at += 1;
                p.digits()
            });
            let text = &p.text[start..p.at];
            let after = p.rest().trim_start_matches([' ', '\t', '\r']);
            if !(after.is_empty() || after.starts_with([',', ')', '\n'])) {
                let after = p.rest().trim_start_matches([' ', '\t', '\r', '\n']);
                if !after.starts_with([',', ')']) {
                    return None;
                }
            }
            if fraction.is_none()
                && exponent.is_none()
                && let Ok(number) = whole.parse()
            {
                return Some(Literal::Integer(number));
            }
            text.parse().ok().map(Literal::Float)
        })
    }

    /// `-?[0-9]+`
    fn digits(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let minus = usize::from(rest.starts_with('-'));
        let length = rest[minus..]
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len() - minus);
        if length == 0 {
            return None;
        }
        self.at += minus + length;
        Some(&rest[..minus + length])
    }

    /// A quoted string on one line. A quote inside is doubled or has a backslash; both stay.
    fn string(&mut self) -> Option<Literal> {
        self.attempt(|p| {
            p.skip_blanks();
            let quote = p.peek().filter(|&c| matches!(c, '"' | '\''))?;
            let body = &p.rest()[1..];
            let mut chars = body.char_indices().peekable();
            let end = loop {
                let (at, c) = chars.next()?;
                match c {
                    '\n' | '\r' => return None,
                    '\\' => match chars.next()?.1 {
                        'x' => {
                            chars.next_if(|(_, c)| c.is_ascii_hexdigit())?;
                        }
                        _ => continue,
                    },
                    c if c == quote && chars.next_if(|&(_, c)| c == quote).is_none() => {
                        break at;
                    }
                    _ => {}
                }
            };
            p.at += 1 + end + 1;
            Some(Literal::Text(Text {
                text: body[..end].to_owned(),
                quote,
            }))
        })
    }

    /// Elements joined by dots.
    fn path(&mut self) -> Option<String> {
        self.attempt(|p| {
            p.skip_blanks();
            let mut path = p.path_element()?;
            while let Some(element) = p.attempt(|p| {
                p.rest().strip_prefix('.')?;
                p.at += 1;
                p.path_element()
            }) {
                path.push('.');
                path.push_str(&element);
            }
            Some(path)
        })
    }

    fn path_element(&mut self) -> Option<String> {
        let mut element = String::new();
        while let Some(part) = self.path_part().or_else(|| self.path_choice()) {
            element.push_str(&part);
        }
        (!element.is_empty()).then_some(element)
    }

    /// Plain and escaped characters.
    fn path_part(&mut self) -> Option<String> {
        let mut part = String::new();
        while let Some(c) = self.peek() {
            if in_path(c) {
                part.push(c);
                self.at += c.len_utf8();
                continue;
            }
            let escaped = self
                .rest()
                .strip_prefix('\\')
                .and_then(|r| r.chars().next());
            match escaped {
                Some(c) if is_symbol(c) || c == '=' => {
                    part.push(c);
                    self.at += 2;
                }
                _ => break,
            }
        }
        (!part.is_empty()).then_some(part)
    }

    /// `{one,two}`
    fn path_choice(&mut self) -> Option<String> {
        self.attempt(|p| {
            let start_of = |p: &mut Self, symbol: char| {
                p.rest().strip_prefix(symbol)?;
                p.at += 1;
                Some(())
            };
            start_of(p, '{')?;
            let mut choice = format!("{{{}", p.path_part()?);
            while start_of(p, ',').is_some() {
                choice.push(',');
                choice.push_str(&p.path_part()?);
            }
            start_of(p, '}')?;
            choice.push('}');
            Some(choice)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reference makes of each text, as printed by our own tree; `~` marks the rest.
    #[test]
    fn odd_targets_mean_what_they_mean_in_graphite() {
        for (text, printed, rest) in [
            ("edge.saw", "edge.saw", ""),
            ("edge.saw)", "edge.saw", ")"),
            ("scale(edge.saw,2))", "scale(edge.saw,2)", ")"),
            ("scale(edge.saw,2", "scale", "(edge.saw,2"),
            ("edge.saw,edge.const5", "edge.saw", ",edge.const5"),
            ("edge.saw|scale", "edge.saw", "|scale"),
            ("edge.saw | scale( 2 )", "edge.saw|scale(2)", ""),
            ("edge.saw # x", "edge.saw", "# x"),
            ("scale (x,\n 2)", "scale(x,2)", ""),
            ("constantLine(value=7)", "constantLine", "(value=7)"),
            ("f(x,a=1,a=2)", "f(x,a=1,a=2)", ""),
            ("f(x,a=1,2)", "f", "(x,a=1,2)"),
            ("f(.5)", "f", "(.5)"),
            ("f(x,5.)", "f", "(x,5.)"),
            ("f(x,+2)", "f(x,+2)", ""),
            ("f(x,0x10)", "f(x,0x10)", ""),
            ("f(x,2e0,1E2,-0.5e-1)", "f(x,2.0,100.0,-0.05)", ""),
            ("f(x,1e400,-1e400)", "f(x,1e999,-1e999)", ""),
            ("f(x,TRUE,None,INF)", "f(x,true,none,inf)", ""),
            ("f(truely,none.x)", "f", "(truely,none.x)"),
            ("{a,b}.c{d,e}f", "{a,b}.c{d,e}f", ""),
            ("{a,{b,c}}", "", "{a,{b,c}}"),
            ("a{,b}", "a", "{,b}"),
            ("edge.", "edge", "."),
            ("a..b", "a", "..b"),
            (r"a\,b.c", r"a\,b\.c", ""),
            (r"f(a\=b,x)", r"f(a\=b,x)", ""),
            (r"f(a\=b|g())", r"f(a\=b|g())", ""),
            (r"f(12\.5,x)", r"f(12\.5,x)", ""),
            ("5", "5", ""),
            ("f(5|g())", "f(5|g())", ""),
            ("f(12.5.x)", "f(12.5.x)", ""),
            (r#"f(x,"a\"b")"#, r#"f(x,"a\"b")"#, ""),
            (r#"f(x,"a""b")"#, r#"f(x,"a""b")"#, ""),
            ("template(a.$x,x=\"y\")", "template(a.$x,x=\"y\")", ""),
            ("template(a.$1,\"y\",x=1)", "template(a.$1,\"y\",x=1)", ""),
            ("template(a|f())", "template(a|f())", ""),
            ("größe.x", "größe.x", ""),
            ("é.ü", "", "é.ü"),
            ("a.größe", "a.größe", ""),
        ] {
            match parse(text) {
                Ok(parsed) => {
                    assert_eq!(parsed.expression.to_string(), printed, "{text}");
                    let after = parsed.rest.map_or("", |at| &text[at..]);
                    assert_eq!(after, rest, "{text}");
                }
                Err(_) => assert_eq!(printed, "", "{text}"),
            }
        }
    }

    #[test]
    fn nesting_is_bounded_and_linear() {
        let deep = |n: usize| "f(x,a=".repeat(n) + "x" + &")".repeat(n);
        assert!(parse(&deep(MAX_DEPTH - 1)).is_ok());
        assert!(matches!(parse(&deep(500)), Err(Error::Target { .. })));
        assert!(parse(&"x".repeat(MAX_LENGTH + 1)).is_err());
        assert!(parse(&format!("x{}", "|f()".repeat(MAX_DEPTH))).is_ok());
        assert!(parse(&format!("x{}", "|f()".repeat(MAX_DEPTH + 1))).is_err());
    }

    /// Whether they are trees or refused: these texts have billions of ways to be read.
    #[test]
    fn templates_that_are_none_are_read_few_times() {
        for (open, close) in [
            ("template(", ",b)"),
            ("template(", ",b"),
            ("template(", ""),
            ("template(f(", "),b)"),
            ("template(f(x,template(y,1),a=", "),b)"),
            ("template(template(template(", ",1),b))"),
        ] {
            let n_levels = 60 / open.matches('(').count();
            let text = open.repeat(n_levels) + "a" + &close.repeat(n_levels);
            if let Ok(parsed) = parse(&text) {
                let printed = parsed.expression.to_string();
                assert!(printed.starts_with("template"), "{printed}");
            }
        }
        let parsed = parse("template(template(a,\"b\"),c)").unwrap();
        assert_eq!(
            parsed.expression.to_string(),
            "template(template(a,\"b\"),c)"
        );
        assert_eq!(parsed.rest, None);
    }

    #[test]
    fn tabs_are_blanks_to_the_next_column() {
        assert_eq!(expand_tabs("a\tb"), "a       b");
        assert_eq!(expand_tabs("a\n12345678\tb"), "a\n12345678        b");
    }

    #[test]
    fn a_call_remembers_its_text() {
        let parsed = parse(" seriesByTag( 'a=b' , 'c=d') ").unwrap();
        let Base::Call(call) = parsed.expression.base else {
            panic!("a call");
        };
        assert_eq!(call.raw, "seriesByTag( 'a=b' , 'c=d')");
        assert_eq!(parsed.rest, None);
    }
}
