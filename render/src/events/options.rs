//! The keys of `[events]`.

use settings::options::Checked;
use settings::{Key, Span, Step};

use super::rules::{Rule, Rules};
use crate::draw::Color;

settings::options! {
    /// `[events]`: how events are kept and drawn.
    #[derive(PartialEq)]
    pub struct Options {
        /// How long an event is kept after its end. "0s": for ever.
        retention: Span = Span::default();
        /// Colours and labels by tag, such as
        /// `{tags = "deploy web", color = "#ff0000", label = "{tag:version:}"}`, and metrics whose points
        /// are events, such as
        /// `{metric = "deploys.*.*", what = "deploy {1}", event_tags = "deploy {1} {2}"}`. Of several
        /// rules that match an event, the first that has a color or label gives it.
        rules: Vec<Rule> = Vec::new() => check_rules;
        /// Accept events in DogStatsD datagrams although auth.tokens or auth.event_tokens are set: a
        /// datagram carries no token. Without tokens they are accepted anyway.
        allow_datagrams: bool = false;
        /// How many events in datagrams are accepted per second, up to ten times as many at once;
        /// further ones are dropped and counted. 0: no limit.
        max_per_second: u32 = 100;
    }
}

/// The keys of `[events]`, for `plumbago config`.
pub const KEYS: &[Key] = Options::KEYS;

fn check_rules(rules: &[Rule], checked: &mut Checked<'_>) {
    for (n, rule) in rules.iter().enumerate() {
        if let Err(error) = Rules::new(std::slice::from_ref(rule)) {
            let text = error.to_string();
            let why = text.strip_prefix("events.rules, rule 1: ").unwrap_or(&text);
            checked.say_at([Step::Item(n)], why);
        }
        if let Some(color) = &rule.color
            && Color::parse(color).is_none()
        {
            let path = [Step::Item(n), Step::Key("color".to_owned())];
            let message = format!("{color:?} is not a color, write \"red\" or \"#ff0000\"");
            checked.say_at(path, message);
        }
    }
}
