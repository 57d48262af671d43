//! Selecting events by Graphite's own tag rules, for `/events/get_data` and `events()`.
//!
//! By default Graphite asks for all the words *that any event ever carried* and silently drops the
//! rest; only `set=intersection` is strict. Recorded from graphite-web 1.1.10.

use super::Event;

/// Which events Graphite would answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphiteTags {
    /// No `tags` parameter, or `events("*")`: every event.
    All,
    /// All of the words that are known; none known, no events.
    Known(Vec<String>),
    /// Any of the words (`set=union`).
    Any(Vec<String>),
    /// All of the words, each among the tags as shown, none twice (`set=intersection`).
    Strict(Vec<String>),
}

impl GraphiteTags {
    /// Reads the `tags` and `set` parameters of `/events/get_data`: words are split at single
    /// blanks, so two consecutive blanks make an empty word, which no event carries.
    pub fn from_query(tags: Option<&str>, set: Option<&str>) -> Self {
        let Some(tags) = tags else { return Self::All };
        let words = tags.split(' ').map(str::to_owned).collect();
        match set {
            Some("union") => Self::Any(words),
            Some("intersection") => Self::Strict(words),
            _ => Self::Known(words),
        }
    }

    /// Reads the arguments of `events(…)`: a single `"*"` is every event, none at all is nothing.
    pub fn from_arguments<S: AsRef<str>>(arguments: &[S]) -> Self {
        match arguments {
            [one] if one.as_ref() == "*" => Self::All,
            words => Self::Known(words.iter().map(|word| word.as_ref().to_owned()).collect()),
        }
    }

    /// What `set=intersection` asks beside the index: as many distinct words shown as were given.
    pub(super) fn shown(&self, event: &Event) -> bool {
        let Self::Strict(words) = self else {
            return true;
        };
        words
            .iter()
            .enumerate()
            .all(|(i, word)| event.tags.contains(word) && !words[..i].contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_choose_the_rule() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            GraphiteTags::from_query(None, Some("union")),
            GraphiteTags::All
        );
        assert_eq!(
            GraphiteTags::from_query(Some("a  b"), Some("bogus")),
            GraphiteTags::Known(words("a  b"))
        );
        assert_eq!(
            GraphiteTags::from_query(Some(""), Some("union")),
            GraphiteTags::Any(words(""))
        );
        assert_eq!(GraphiteTags::from_arguments(&["*"]), GraphiteTags::All);
        assert_eq!(
            GraphiteTags::from_arguments::<&str>(&[]),
            GraphiteTags::Known(Vec::new())
        );
    }
}
