//! Tag expressions as conditions on the table of tagged series.
//!
//! The table has a row for each tag of a series: `Tag1` is that tag (`k=v`), `Tags` has all of them. One expression is
//! asked of `Tag1`, which the table is sorted by, the others of `Tags`.

use carbon::index::regex;

use crate::sql;

/// An expression.
#[derive(Debug)]
struct Term {
    /// As the table has it: `__name__` for `name`.
    tag: String,
    /// The condition on an item `x` that has the tag.
    wanted: Wanted,
    negated: bool,
}

#[derive(Debug)]
enum Wanted {
    Exactly(String),
    /// The expression, and whether it matches the empty text.
    Matching(String, bool),
}

/// The tag of the table that Graphite calls `tag`.
pub(crate) fn to_table(tag: &str) -> &str {
    match tag {
        "name" => "__name__",
        tag => tag,
    }
}

/// What Graphite calls the tag `tag` of the table.
pub(crate) fn from_table(tag: &str) -> &str {
    match tag {
        "__name__" => "name",
        tag => tag,
    }
}

impl Term {
    fn parse(text: &str) -> Result<Self, String> {
        let malformed = || format!("{text:?} is not a tag expression, such as \"tag=value\"");
        let end = text.find(['=', '!', ';']).ok_or_else(malformed)?;
        let (tag, rest) = text.split_at(end);
        let (negated, rest) = match rest.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.strip_prefix('=').ok_or_else(malformed)?;
        if tag.is_empty() || rest.contains(';') {
            return Err(malformed());
        }
        let wanted = match rest.strip_prefix('~') {
            None => Wanted::Exactly(rest.to_owned()),
            Some(pattern) => {
                let compiled = regex(&format!("^(?:{pattern})"))
                    .map_err(|error| format!("{text:?}: {error}"))?;
                Wanted::Matching(pattern.to_owned(), compiled.is_match("").unwrap_or(false))
            }
        };
        Ok(Self {
            tag: to_table(tag).to_owned(),
            wanted,
            negated,
        })
    }

    fn matches_empty(&self) -> bool {
        let empty = match &self.wanted {
            Wanted::Exactly(value) => value.is_empty(),
            Wanted::Matching(_, empty) => *empty,
        };
        empty != self.negated
    }

    /// Whether the item called `x` is this tag with a value that is wanted.
    fn item(&self, x: &str) -> String {
        let tag = &self.tag;
        match &self.wanted {
            Wanted::Exactly(value) => format!("{x} = {}", sql::text(&format!("{tag}={value}"))),
            Wanted::Matching(pattern, _) => {
                let key = format!("{tag}=");
                // `^` in the expression is the beginning of the value.
                format!(
                    "({x} LIKE {} AND match(substring({x}, {}), {}))",
                    sql::prefix(&key),
                    key.len() + 1,
                    sql::text(&format!("^(?:{pattern})"))
                )
            }
        }
    }

    /// Whether a series with the array `Tags` satisfies it.
    fn condition(&self) -> String {
        let has_tag = format!(
            "arrayExists(x -> x LIKE {}, Tags)",
            sql::prefix(&format!("{}=", self.tag))
        );
        let wanted = match &self.wanted {
            Wanted::Exactly(value) if value.is_empty() => format!("NOT {has_tag}"),
            Wanted::Matching(_, true) => {
                format!(
                    "(NOT {has_tag} OR arrayExists(x -> {}, Tags))",
                    self.item("x")
                )
            }
            _ => format!("arrayExists(x -> {}, Tags)", self.item("x")),
        };
        match self.negated {
            true => format!("NOT ({wanted})"),
            false => wanted,
        }
    }

    /// How good it is as the one that is asked of `Tag1`.
    fn rank(&self) -> u8 {
        match &self.wanted {
            _ if self.negated || self.matches_empty() => 2,
            Wanted::Exactly(_) => 0,
            Wanted::Matching(..) => 1,
        }
    }
}

/// As [`condition`], and the tags that the expressions name (as the table has them). Without `strict` none needs to
/// demand a value.
///
/// # Errors
/// As [`condition`].
pub(crate) fn named(expressions: &[&str], strict: bool) -> Result<(String, Vec<String>), String> {
    let terms: Result<Vec<Term>, String> =
        expressions.iter().map(|text| Term::parse(text)).collect();
    let terms = terms?;
    let tags = terms.iter().map(|term| term.tag.clone()).collect();
    if !strict && terms.iter().all(Term::matches_empty) {
        let all: Vec<String> = terms.iter().map(Term::condition).collect();
        return Ok((all.join(" AND "), tags));
    }
    Ok((condition(expressions)?, tags))
}

/// The condition for `expressions`.
///
/// # Errors
/// A malformed expression, or none that demands a value.
fn condition(expressions: &[&str]) -> Result<String, String> {
    let terms: Result<Vec<Term>, String> =
        expressions.iter().map(|text| Term::parse(text)).collect();
    let mut terms = terms?;
    if terms.iter().all(Term::matches_empty) {
        return Err("at least one tag expression has to demand a value".to_owned());
    }
    terms.sort_by_key(Term::rank);
    let mut all = Vec::new();
    let mut rest = terms.iter();
    match rest.next() {
        Some(first) if first.rank() < 2 => all.push(first.item("Tag1")),
        // `k!=` demands the tag and says nothing of its value.
        Some(first) => {
            let demanded = terms
                .iter()
                .find(|term| !term.matches_empty())
                .unwrap_or(first);
            let prefix = sql::prefix(&format!("{}=", demanded.tag));
            all.push(format!("Tag1 LIKE {prefix}"));
            all.push(first.condition());
        }
        None => {}
    }
    all.extend(rest.map(Term::condition));
    Ok(all.join(" AND "))
}

/// The query for the names of all series that satisfy `expressions`.
///
/// # Errors
/// As [`condition`].
pub(crate) fn query(table: &str, expressions: &[&str]) -> Result<String, String> {
    let condition = condition(expressions)?;
    Ok(format!(
        "SELECT Path FROM {table} WHERE {condition} GROUP BY Path FORMAT Native"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_expression_uses_the_key() {
        let asked = |expressions: &[&str]| condition(expressions).unwrap();
        assert_eq!(asked(&["name=cpu"]), "Tag1 = '__name__=cpu'");
        assert_eq!(
            asked(&["dc!=x", "host=~a.*", "name=cpu"]),
            "Tag1 = '__name__=cpu' AND arrayExists(x -> (x LIKE 'host=%' AND match(substring(x, 6), '^(?:a.*)')), Tags) \
             AND NOT (arrayExists(x -> x = 'dc=x', Tags))"
        );
        assert_eq!(
            asked(&["dc=", "host!="]),
            "Tag1 LIKE 'host=%' AND NOT arrayExists(x -> x LIKE 'dc=%', Tags) \
             AND NOT (NOT arrayExists(x -> x LIKE 'host=%', Tags))"
        );
        assert!(asked(&["a=1", "b=~x|"]).contains("(NOT arrayExists(x -> x LIKE 'b=%', Tags) OR "));
    }

    #[test]
    fn what_demands_nothing_is_refused() {
        for wrong in [&["a="][..], &["a!=x"], &["a"], &["=x"], &["a=~("], &[]] {
            assert!(condition(wrong).is_err(), "{wrong:?}");
        }
    }
}
