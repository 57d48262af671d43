//! The options of the page in its URL, and links that change one of them.

use form_urlencoded::Serializer;
use maud::{Markup, html};
use settings::Span;

use crate::http::Params;

/// `from`, `events` and `theme` of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) from: Option<String>,
    pub(super) events: Option<String>,
    pub(super) theme: Option<&'static str>,
}

impl View {
    /// The view that `params` ask for; unknown parameters and invalid values are ignored.
    pub(super) fn of(params: &Params) -> Self {
        let mut view = Self::default();
        for (key, value) in params.pairs() {
            match key.as_str() {
                "from" if seconds_back(value).is_some() => view.from = Some(value.clone()),
                "events" => view.events = Some(value.clone()),
                "theme" => view.theme = ["light", "dark"].into_iter().find(|theme| theme == value),
                _ => {}
            }
        }
        view
    }

    /// The query that leads to this view.
    pub(super) fn query(&self) -> String {
        let mut query = Serializer::for_suffix(String::from("?"), 1);
        let Self {
            from,
            events,
            theme,
        } = self;
        for (key, value) in [
            ("from", from.as_deref()),
            ("events", events.as_deref()),
            ("theme", *theme),
        ] {
            if let Some(value) = value {
                query.append_pair(key, value);
            }
        }
        query.finish()
    }

    /// Links to other time ranges, without events, and in the other colours. `from` and `events`
    /// are those that the page shows.
    pub(super) fn links(&self, from: &str, events: &str) -> Markup {
        let link = |there: View, is_current: bool, text: &str| {
            html! { a href=(there.query()) aria-current=[is_current.then_some("true")] { (text) } }
        };
        let ranges = ["-15min", "-1h", "-6h", "-1d", "-7d", "-30d"].map(|range| {
            let there = View {
                from: Some(range.to_owned()),
                ..self.clone()
            };
            link(there, range == from, range.trim_start_matches('-'))
        });
        let (hidden, switch) = match events {
            "none" => (None, "show events"),
            _ => (Some("none".to_owned()), "hide events"),
        };
        let switched = View {
            events: hidden,
            ..self.clone()
        };
        let themes = ["light", "dark"].map(|theme| {
            let there = View {
                theme: Some(theme),
                ..self.clone()
            };
            link(there, self.theme == Some(theme), theme)
        });
        html! {
            nav class="right" aria-label="view" {
                @for range in ranges { (range) }
                (link(switched, false, switch))
                @for theme in themes { (theme) }
            }
        }
    }
}

/// `-6h` as seconds.
pub(super) fn seconds_back(from: &str) -> Option<u64> {
    let span: Span = from.strip_prefix('-')?.parse().ok()?;
    Some(span.0.as_secs()).filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_reach_back() {
        assert_eq!(seconds_back("-6h"), Some(21_600));
        assert_eq!(seconds_back("6h"), None);
        assert_eq!(seconds_back("-0s"), None);
    }
}
