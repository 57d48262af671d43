//! Tag expressions: the one way to say which events are meant, safe in a URL.
//!
//! ```text
//! any    = all *( "," all )            any of these alternatives
//! all    = term *( blank term )        all of these at once
//! term   = [ "-" ] ( word | word "*" | "*" )
//! ```
//!
//! `deploy web` is all of, `deploy,config` any of (binds weaker), `-canary` not, `service:web*` a
//! prefix, `*` every event, also one without tags. Case matters. An empty alternative is skipped;
//! an empty expression selects nothing.

use std::fmt;
use std::str::FromStr;

/// The longest expression, in bytes, and the most terms in it: a picture's URL needs few.
const MAX_BYTES: usize = 4096;
const MAX_TERMS: usize = 64;

/// What one term asks of an event's tags.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Term {
    /// `*`: any event, tagged or not.
    Every,
    /// This very tag.
    Tag(String),
    /// Some tag that begins like this.
    Prefix(String),
}

/// Terms that must hold at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Clause {
    /// Each of these.
    pub all: Vec<Term>,
    /// And none of these.
    pub none: Vec<Term>,
}

/// A parsed expression: an event is selected when any clause holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TagQuery {
    /// The alternatives.
    pub any: Vec<Clause>,
}

/// Why an expression was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExprError {
    /// A `-` on its own.
    #[error("a \"-\" stands alone: write the tag right after it, as in \"-canary\"")]
    LoneMinus,
    /// A `*` in the middle of a word.
    #[error("{0:?}: a \"*\" is valid only at the end of a word")]
    InnerStar(String),
    /// Longer than anything sensible.
    #[error(
        "the tag expression is longer than {MAX_BYTES} bytes or has more than {MAX_TERMS} terms"
    )]
    TooLong,
}

impl TagQuery {
    /// The expression that selects every event.
    pub fn every() -> Self {
        Self {
            any: vec![Clause {
                all: vec![Term::Every],
                none: Vec::new(),
            }],
        }
    }

    /// Whether nothing can be selected, because there is no alternative.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty()
    }

    /// Whether an event that carries `tags` is selected.
    pub fn matches(&self, tags: &[String]) -> bool {
        let words: Vec<&str> = super::words::ours(tags).collect();
        self.any.iter().any(|clause| clause.holds(&words))
    }
}

impl Clause {
    pub(super) fn holds(&self, words: &[&str]) -> bool {
        self.all.iter().all(|term| term.holds(words))
            && !self.none.iter().any(|term| term.holds(words))
    }
}

impl Term {
    fn holds(&self, words: &[&str]) -> bool {
        match self {
            Self::Every => true,
            Self::Tag(tag) => words.contains(&tag.as_str()),
            Self::Prefix(prefix) => words.iter().any(|word| word.starts_with(prefix.as_str())),
        }
    }

    fn parse(text: &str) -> Result<Self, ExprError> {
        let (head, star) = match text.strip_suffix('*') {
            Some(head) => (head, true),
            None => (text, false),
        };
        if head.contains('*') {
            return Err(ExprError::InnerStar(text.to_owned()));
        }
        Ok(match (head, star) {
            ("", _) => Self::Every,
            (head, true) => Self::Prefix(head.to_owned()),
            (head, false) => Self::Tag(head.to_owned()),
        })
    }
}

impl FromStr for TagQuery {
    type Err = ExprError;

    fn from_str(text: &str) -> Result<Self, ExprError> {
        if text.len() > MAX_BYTES {
            return Err(ExprError::TooLong);
        }
        let mut any = Vec::new();
        let mut n_terms = 0;
        for alternative in text.split(',') {
            let mut clause = Clause::default();
            for word in alternative.split_whitespace() {
                n_terms += 1;
                if n_terms > MAX_TERMS {
                    return Err(ExprError::TooLong);
                }
                match word.strip_prefix('-') {
                    Some("") => return Err(ExprError::LoneMinus),
                    Some(word) => clause.none.push(Term::parse(word)?),
                    None => clause.all.push(Term::parse(word)?),
                }
            }
            if clause != Clause::default() {
                any.push(clause);
            }
        }
        Ok(Self { any })
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every => f.write_str("*"),
            Self::Tag(tag) => f.write_str(tag),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl fmt::Display for TagQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, clause) in self.any.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let positive = clause.all.iter().map(|term| ("", term));
            let negative = clause.none.iter().map(|term| ("-", term));
            for (j, (minus, term)) in positive.chain(negative).enumerate() {
                let blank = if j > 0 { " " } else { "" };
                write!(f, "{blank}{minus}{term}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn expressions_select_as_written() {
        for (expr, yes, no) in [
            (
                "deploy",
                &["deploy", "deploy web"][..],
                &["", "deploys", "Deploy"][..],
            ),
            ("deploy web", &["web x deploy"], &["deploy", "web"]),
            ("deploy,config", &["deploy", "config"], &["", "web"]),
            ("deploy web,config", &["deploy web", "config"], &["deploy"]),
            ("deploy -canary", &["deploy"], &["deploy canary", "x"]),
            ("-canary", &["deploy", ""], &["canary"]),
            (
                "service:web*",
                &["service:web", "service:web2"],
                &["service:we", "web"],
            ),
            (
                "deploy -env:*",
                &["deploy", "deploy envy"],
                &["deploy env:prod"],
            ),
            ("*", &["", "a"], &[]),
            ("", &[], &["", "a"]),
            (" , ,", &[], &["", "a"]),
            ("* -*", &[], &["", "a"]),
            ("a", &["a,b"], &["ab"]),
        ] {
            let query: TagQuery = expr.parse().unwrap();
            for text in yes {
                assert!(query.matches(&tags(text)), "{expr} / {text}");
            }
            for text in no {
                assert!(!query.matches(&tags(text)), "{expr} / {text}");
            }
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert_eq!("a -".parse::<TagQuery>(), Err(ExprError::LoneMinus));
        assert_eq!(
            "a*b".parse::<TagQuery>(),
            Err(ExprError::InnerStar("a*b".to_owned()))
        );
        assert!("**".parse::<TagQuery>().is_err());
        assert_eq!("a ".repeat(65).parse::<TagQuery>(), Err(ExprError::TooLong));
        assert_eq!(
            "a".repeat(4097).parse::<TagQuery>(),
            Err(ExprError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn an_expression_reads_back_as_printed(text in "[ab:,*\\- é]{0,24}") {
            if let Ok(query) = text.parse::<TagQuery>() {
                let printed = query.to_string();
                prop_assert_eq!(printed.parse::<TagQuery>().unwrap(), query);
            }
        }

        /// The meaning, term by term and straight from the text.
        #[test]
        fn selection_equals_its_naive_twin(
            text in "[ab,*\\- ]{0,12}",
            carried in "[ab ]{0,8}",
        ) {
            let Ok(query) = text.parse::<TagQuery>() else { return Ok(()) };
            let carried = tags(&carried);
            let holds = |word: &str| {
                word == "*"
                    || carried.iter().any(|tag| match word.strip_suffix('*') {
                        Some(prefix) => tag.starts_with(prefix),
                        None => tag == word,
                    })
            };
            let wanted = text.split(',').any(|part| {
                !part.trim().is_empty()
                    && part.split_whitespace().all(|word| match word.strip_prefix('-') {
                        Some(word) => !holds(word),
                        None => holds(word),
                    })
            });
            prop_assert_eq!(query.matches(&carried), wanted);
        }
    }
}
