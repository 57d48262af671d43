//! The options of a page in its URL, and links that change one of them.

use form_urlencoded::Serializer;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::Page;
use super::live::now;
use crate::attime;
use crate::events::TagQuery;
use crate::http::Params;

/// The ranges that every dashboard offers.
const RANGES: [&str; 7] = ["-15min", "-1h", "-3h", "-6h", "-1d", "-7d", "-30d"];

/// The fields of the form for any range.
const FIELDS: [&str; 4] = ["from", "until", "tz", "events"];

/// Variables that a page reads.
const MOST_VARIABLES: usize = 20;

/// `from`, `until`, `tz`, `events`, `theme` and `wall` of a page. Values that are not valid are left
/// out and reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    pub(crate) from: Option<String>,
    pub(crate) until: Option<String>,
    pub(crate) tz: Option<String>,
    pub(crate) events: Option<String>,
    pub(crate) theme: Option<&'static str>,
    /// For a display on a wall: large, without links.
    pub(crate) wall: bool,
    /// The values of a dashboard's variables (`var-NAME`).
    pub(crate) variables: Vec<(String, String)>,
    /// Further parameters of this page, kept by links that change the view.
    pub(crate) extra: Vec<(String, String)>,
    /// What is wrong with the values that were left out.
    pub(crate) problems: Vec<String>,
    /// Their names.
    pub(crate) refused: Vec<&'static str>,
}

impl View {
    /// The view that `params` ask for; unknown parameters are ignored.
    pub(crate) fn of(params: &Params) -> Self {
        let mut view = Self::default();
        for (key, value) in params.pairs() {
            if value.is_empty() {
                continue;
            }
            let value = value.clone();
            match key.as_str() {
                "from" => view.from = Some(value),
                "until" => view.until = Some(value),
                "tz" => view.tz = Some(value),
                "events" => view.events = Some(value),
                "theme" => view.theme = ["light", "dark"].into_iter().find(|theme| *theme == value),
                "wall" => view.wall = value == "1",
                key => {
                    if let Some(name) = key.strip_prefix("var-")
                        && view.variables.len() < MOST_VARIABLES
                    {
                        view.variables.push((name.to_owned(), value));
                    }
                }
            }
        }
        view.check();
        view
    }

    fn check(&mut self) {
        let mut problems = Vec::new();
        let mut refused = Vec::new();
        if let Some(tz) = self.tz.take_if(|tz| TimeZone::get(tz).is_err()) {
            problems.push(format!(
                "tz: {tz:?} is not an IANA time zone, e.g. Europe/Berlin"
            ));
            refused.push("tz");
        }
        let events = self.events.take_if(|events| {
            let read = events.parse::<TagQuery>();
            events != "none" && read.is_err()
        });
        if let Some(events) = events {
            let why = events.parse::<TagQuery>().err();
            let why = why.map(|why| why.to_string()).unwrap_or_default();
            problems.push(format!("events: {events:?}: {why}"));
            refused.push("events");
        }
        let at = now() as i64;
        let read = |text: &String| attime::parse(text, &TimeZone::UTC, at);
        for (name, value) in [("from", &mut self.from), ("until", &mut self.until)] {
            if let Some(text) = value.take_if(|text| read(text).is_err()) {
                problems.push(format!(
                    "{name}: {text:?} is not a time, e.g. -3h, 14:30_20260131 or 1767225600"
                ));
                refused.push(name);
            }
        }
        if let Some(from) = &self.from
            && let (Ok(start), Ok(end)) = (read(from), self.until.as_ref().map_or(Ok(at), read))
            && start >= end
        {
            problems.push("the range is empty: \"from\" must be before \"until\"".to_owned());
            (self.from, self.until) = (None, None);
            refused.extend(["from", "until"]);
        }
        (self.problems, self.refused) = (problems, refused);
    }

    /// The zone in which times are written.
    pub(crate) fn zone(&self, page: &Page) -> TimeZone {
        let named = self.tz.as_ref().and_then(|tz| TimeZone::get(tz).ok());
        named.unwrap_or_else(|| page.0.host.time_zone())
    }

    /// The Unix seconds from `from`, by default `default`, until `until`, by default `now`.
    pub(crate) fn range(&self, default: &str, zone: &TimeZone, now: i64) -> (i64, i64) {
        let read = |text: &str| attime::parse(text, zone, now).ok();
        let until = self.until.as_deref().and_then(read).unwrap_or(now);
        let from = self.from.as_deref().and_then(read);
        let from = from.or_else(|| read(default)).unwrap_or(now - 3_600);
        match from < until {
            true => (from, until),
            false => (until - 3_600, until),
        }
    }

    /// The parameters that lead to this view.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        let Self {
            from,
            until,
            tz,
            events,
            theme,
            wall,
            variables,
            extra,
            problems: _,
            refused: _,
        } = self;
        let known = [
            ("from", from.as_deref()),
            ("until", until.as_deref()),
            ("tz", tz.as_deref()),
            ("events", events.as_deref()),
            ("theme", *theme),
            ("wall", wall.then_some("1")),
        ];
        let known = known
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
        let variables = variables
            .iter()
            .map(|(name, value)| (format!("var-{name}"), value.clone()));
        known.chain(variables).chain(extra.iter().cloned())
    }

    /// The query that leads to this view.
    pub(crate) fn query(&self) -> String {
        Serializer::for_suffix(String::from("?"), 1)
            .extend_pairs(self.pairs())
            .finish()
    }

    /// The query that a link to another page keeps: everything but the range and the events.
    pub(crate) fn kept(&self) -> String {
        let kept = Self {
            from: None,
            until: None,
            events: None,
            wall: false,
            variables: Vec::new(),
            extra: Vec::new(),
            problems: Vec::new(),
            refused: Vec::new(),
            ..self.clone()
        };
        match kept.query() {
            query if query == "?" => String::new(),
            query => query,
        }
    }

    /// Links to other ranges, a form for any range and zone, and links to the other colours.
    /// `from` is the range that the page shows if its query has none.
    pub(super) fn tools(&self, from: &str, zone: &TimeZone) -> Markup {
        let link = |there: View, is_current: bool, text: &str| {
            html! { a href=(there.query()) aria-current=[is_current.then_some("true")] { (text) } }
        };
        let shown = self.from.as_deref().unwrap_or(from);
        let ranges = RANGES.map(|range| {
            let there = View {
                from: Some(range.to_owned()),
                until: None,
                ..self.clone()
            };
            let is_current = range == shown && self.until.is_none();
            link(there, is_current, range.trim_start_matches('-'))
        });
        let is_custom = self.until.is_some() || !RANGES.contains(&shown);
        html! {
            div class="tools" {
                nav class="ranges" aria-label="time range" { @for range in ranges { (range) } }
                details class="custom" {
                    summary aria-current=[is_custom.then_some("true")] { "Custom" }
                    form method="get" {
                        (field("from", "From", self.from.as_deref().unwrap_or(from), "-3h"))
                        (field("until", "Until", self.until.as_deref().unwrap_or(""), "now"))
                        (field("tz", "Time zone", self.tz.as_deref().unwrap_or(""), zone.iana_name().unwrap_or("UTC")))
                        (field("events", "Events", self.events.as_deref().unwrap_or(""), "deploy web, -canary"))
                        @for (name, value) in self.pairs().filter(|(name, _)| !FIELDS.contains(&name.as_str())) {
                            input type="hidden" name=(name) value=(value);
                        }
                        button { "Show" }
                    }
                }
            }
        }
    }

    /// Links to the other colours.
    pub(super) fn themes(&self) -> Markup {
        let themes = [None, Some("light"), Some("dark")].map(|theme| {
            let there = View {
                theme,
                ..self.clone()
            };
            (there.query(), theme, theme == self.theme)
        });
        html! {
            nav class="themes" aria-label="colours" {
                @for (query, theme, is_current) in themes {
                    a href=(query) data-theme-link=(theme.unwrap_or("")) aria-current=[is_current.then_some("true")] {
                        (theme.unwrap_or("auto"))
                    }
                }
            }
        }
    }
}

fn field(name: &str, label: &str, value: &str, placeholder: &str) -> Markup {
    html! {
        label { (label) " " input name=(name) value=(value) placeholder=(placeholder) size="18"; }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(query: &str) -> View {
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        View::of(&Params::from_pairs(pairs.collect()))
    }

    #[test]
    fn any_range_is_taken_and_invalid_values_are_reported() {
        let read = view("from=-3h&until=-1h&tz=Europe/Berlin&theme=dark&other=1");
        assert_eq!(read.problems, [""; 0]);
        assert_eq!(
            read.range("-1h", &TimeZone::UTC, 1_000_000),
            (1_000_000 - 10_800, 1_000_000 - 3_600)
        );
        let query = read.query();
        assert_eq!(query, "?from=-3h&until=-1h&tz=Europe%2FBerlin&theme=dark");
        assert_eq!(view(&query[1..]), read);
        assert_eq!(read.kept(), "?tz=Europe%2FBerlin&theme=dark");

        let wrong = view("from=bogus&until=x&tz=Mars&events=deploy+-");
        assert_eq!(
            (wrong.from, wrong.until, wrong.tz, wrong.events),
            (None, None, None, None)
        );
        assert_eq!(wrong.problems.len(), 4, "{:?}", wrong.problems);
        assert_eq!(wrong.refused, ["tz", "events", "from", "until"]);
        let empty = view("from=-1h&until=-2h");
        assert_eq!(empty.problems.len(), 1);
        assert_eq!(view("from=-1h").problems, [""; 0]);
    }
}
