//! The keys of `[impact]`.

use settings::options::{Checked, between};
use settings::{Key, Step};

pub use super::rule::Rule;
use super::scope::Rules;
use crate::events::TagQuery;

settings::options! {
    /// `[impact]`: how the effect of deploys on series is judged.
    #[derive(PartialEq)]
    pub struct Options {
        /// A tag expression ("deploy", "deploy,config -canary"): for these events the server works out which
        /// series they changed, in the background, 5, 10, 30 and 60 minutes after their end. Empty: for no
        /// event.
        events: String = "deploy".to_owned() => check_events;
        /// Which series belong to a deploy, such as
        /// `{tags = "deploy service:web", targets = ["stats.*.web.**"], worse = "up", least = "5%"}`: for
        /// the events that `tags` selects, the series that `targets` find; whether "up" or "down" is worse
        /// for them; and the smallest change that matters, as a share of the level or an amount.
        /// `{tag:service:}` in a target is the rest of the event's first tag that begins with "service:".
        /// A rule without `tags` gives `worse` and `least` only. Events without a rule: the series whose
        /// names have a word of their tags, else those on the dashboards.
        rules: Vec<Rule> = Vec::new() => check_rules;
        /// How many series of one deploy are judged, and compared with a quarter as many others. When more
        /// belong to it, evenly distributed ones are chosen by name.
        max_series: usize = 2_000 => between(1, 20_000);
        /// How many threads judge, at the lowest priority. 0: as many as there are processors.
        threads: usize = 0 => between(0, 256);
        /// The URL (http://…) that receives a POST with the event and its verdict as JSON when a deploy
        /// got worse. Empty: none.
        webhook: String = String::new() => check_webhook;
        /// The tags of the event that the server posts when a deploy got worse, separated by blanks.
        /// Empty: it posts none.
        worse_tags: String = "impact worse".to_owned() => check_worse_tags;
    }
}

/// The keys of `[impact]`, for `plumbago config`.
pub const KEYS: &[Key] = Options::KEYS;

fn check_events(expression: &str, checked: &mut Checked<'_>) {
    if expression.is_empty() {
        return;
    }
    if let Err(why) = expression.parse::<TagQuery>() {
        checked.say(format!("{expression:?}: {why}"));
    }
}

fn check_rules(rules: &[Rule], checked: &mut Checked<'_>) {
    for (n, rule) in rules.iter().enumerate() {
        if let Err(why) = Rules::new(std::slice::from_ref(rule)) {
            checked.say_at([Step::Item(n)], why);
        }
    }
}

fn check_webhook(url: &str, checked: &mut Checked<'_>) {
    if !url.is_empty() && !url.starts_with("http://") {
        let wrong = format!("{url:?} does not begin with http:// (https is not supported)");
        checked.refuse(wrong, "\"http://127.0.0.1:9000/hook\", or \"\" for none");
    }
}

fn check_worse_tags(tags: &str, checked: &mut Checked<'_>) {
    if tags.split_whitespace().any(|tag| tag == "deploy") {
        let wrong = format!("{tags:?}: an event about a deploy is not a deploy");
        checked.refuse(wrong, "\"impact worse\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(options: &Options) -> Vec<String> {
        let mut problems = settings::Problems::default();
        options.check(&mut problems);
        problems
            .into_iter()
            .map(|problem| problem.message)
            .collect()
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_their_reason() {
        assert!(problems(&Options::default()).is_empty());
        let rule = |rule: Rule| Options {
            rules: vec![rule],
            ..Options::default()
        };
        let good = Rule {
            tags: Some("deploy web".to_owned()),
            targets: vec!["a.**".to_owned()],
            worse: Some("up".to_owned()),
            least: Some("5%".to_owned()),
        };
        assert!(problems(&rule(good.clone())).is_empty());
        let but = |change: fn(&mut Rule)| {
            let mut changed = good.clone();
            change(&mut changed);
            rule(changed)
        };
        let aimed = |target: &str| {
            rule(Rule {
                targets: vec![target.to_owned()],
                ..good.clone()
            })
        };
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options
        };
        let useless = |rule: &mut Rule| (rule.tags, rule.worse, rule.least) = (None, None, None);
        for (options, part) in [
            (rule(Rule::default()), "targets"),
            (but(|rule| rule.tags = Some("a*b".to_owned())), "\"tags\""),
            (
                but(|rule| rule.worse = Some("left".to_owned())),
                "\"up\" or \"down\"",
            ),
            (but(|rule| rule.least = Some("-1".to_owned())), "\"5%\""),
            (aimed("sum(a"), "sum(a"),
            (aimed("scale(a,2)"), "pattern"),
            (aimed("a.{tag:x"), "brace"),
            (but(useless), "\"worse\""),
            (with(|options| options.events = "a*b".to_owned()), "a*b"),
            (
                with(|options| options.webhook = "https://x".to_owned()),
                "https",
            ),
            (
                with(|options| options.worse_tags = "deploy".to_owned()),
                "not a deploy",
            ),
        ] {
            let found = problems(&options);
            assert!(
                found.len() == 1 && found[0].contains(part),
                "{part}: {found:?}"
            );
        }
    }
}
