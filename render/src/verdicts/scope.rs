//! Which series belong to a deploy, chosen by names and tags before any value is read.
//!
//! 1. `impact.rules` first: the targets of all rules whose tags select the event.
//! 2. Without such a rule, words of the event's tags are looked for in the nodes of names and in the
//!    values of tags.
//! 3. Where those find nothing, everything that the dashboards draw.
//! 4. At most `impact.max_series`, evenly distributed over the sorted names; the controls are chosen in
//!    the same way from all other series.

use std::collections::{BTreeMap, BTreeSet};

use super::options::Rule;
use crate::budget::Budget;
use crate::error::Error;
use crate::events::{Event, TagQuery};
use crate::impact::{Direction, Least};
use crate::query::{self, Argument, Base, Call, Expression, Literal};
use crate::source::{Source, SourceError};

/// Tags whose values name a part of a system.
const PARTS: [&str; 9] = [
    "service",
    "app",
    "application",
    "component",
    "host",
    "node",
    "instance",
    "server",
    "job",
];
/// Bare tags that name a kind of event, a place or a state, and no part of a system.
const GENERAL: [&str; 24] = [
    "deploy",
    "deployment",
    "deploys",
    "release",
    "rollback",
    "config",
    "canary",
    "hotfix",
    "note",
    "production",
    "prod",
    "staging",
    "stage",
    "test",
    "testing",
    "dev",
    "development",
    "qa",
    "succeeded",
    "failed",
    "started",
    "blue",
    "green",
    "impact",
];

/// The rules of `impact.rules`, checked.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<ReadyRule>);

#[derive(Clone, Debug)]
struct ReadyRule {
    /// `None`: the rule adds no series to an event.
    tags: Option<TagQuery>,
    targets: Vec<String>,
    direction: Option<Direction>,
    least: Option<Least>,
}

impl Rules {
    /// Checks and takes over `rules`.
    ///
    /// # Errors
    /// A sentence about the first rule that makes no sense.
    pub fn new(rules: &[Rule]) -> Result<Self, String> {
        rules
            .iter()
            .map(ReadyRule::new)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl ReadyRule {
    fn new(rule: &Rule) -> Result<Self, String> {
        let Rule {
            tags,
            targets,
            worse,
            least,
        } = rule;
        let tags = match tags {
            None => None,
            Some(text) => {
                let query: Result<TagQuery, _> = text.parse();
                Some(query.map_err(|error| format!("\"tags\": {error}"))?)
            }
        };
        if targets.is_empty() {
            return Err("a rule needs \"targets\", such as [\"stats.*.web.**\"]".to_owned());
        }
        for target in targets {
            // Any value in the place of tags.
            let filled = fill(target, |_| Some("a".to_owned()))?;
            Pattern::read(&filled.unwrap_or_default())?;
        }
        let direction = match worse.as_deref() {
            None => None,
            Some("up") => Some(Direction::UpIsWorse),
            Some("down") => Some(Direction::DownIsWorse),
            Some(other) => {
                return Err(format!("\"worse\": {other:?}, write \"up\" or \"down\""));
            }
        };
        let least = least.as_deref().map(read_least).transpose()?;
        if tags.is_none() && direction.is_none() && least.is_none() {
            return Err("a rule without \"tags\" needs \"worse\" or \"least\"".to_owned());
        }
        Ok(Self {
            tags,
            targets: targets.clone(),
            direction,
            least,
        })
    }
}

fn read_least(text: &str) -> Result<Least, String> {
    let number = |text: &str| {
        let number = text.trim().parse::<f64>().ok();
        number.filter(|number| *number >= 0.0 && number.is_finite())
    };
    let least = match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| Least::Share(percent / 100.0)),
        None => number(text).map(Least::Amount),
    };
    least.ok_or_else(|| {
        format!("\"least\": {text:?} is not a size, write \"5%\" or an amount such as \"0.5\"")
    })
}

/// `target` with each `{tag:PREFIX}` replaced by `value` of the prefix; `None` if a value is missing.
fn fill(target: &str, value: impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    const OPEN: &str = "{tag:";
    let mut text = String::new();
    let mut rest = target;
    while let Some(at) = rest.find(OPEN) {
        text += &rest[..at];
        let after = &rest[at + OPEN.len()..];
        let close = after
            .find('}')
            .ok_or_else(|| format!("{target:?} has an unclosed brace"))?;
        match value(&after[..close]) {
            Some(value) => text += &value,
            None => return Ok(None),
        }
        rest = &after[close + 1..];
    }
    Ok(Some(text + rest))
}

/// A way to find series.
#[derive(Clone, Debug, PartialEq)]
enum Pattern {
    Path(String),
    Tags(Vec<String>),
}

impl Pattern {
    fn read(text: &str) -> Result<Self, String> {
        let parsed = query::parse(text).map_err(|error| format!("target {text:?}: {error}"))?;
        let plain = parsed.rest.is_none() && parsed.expression.piped.is_empty();
        Self::of(&parsed.expression.base)
            .filter(|_| plain)
            .ok_or_else(|| format!("{text:?} is neither a pattern of names nor seriesByTag(…)"))
    }

    fn of(base: &Base) -> Option<Self> {
        match base {
            Base::Path(path) => Some(Self::Path(path.clone())),
            Base::Call(call) if call.name == "seriesByTag" => {
                let text = |argument: &Argument| match argument {
                    Argument::Literal(Literal::Text(text)) => Some(text.text.clone()),
                    _ => None,
                };
                call.args
                    .iter()
                    .map(text)
                    .collect::<Option<_>>()
                    .map(Self::Tags)
            }
            _ => None,
        }
    }

    /// The series that it finds, sorted.
    fn find(&self, source: &dyn Source, budget: &Budget) -> Result<Vec<String>, Error> {
        let found = match self {
            Self::Path(path) => source.find(path, budget).map(|nodes| {
                let leaves = nodes.into_iter().filter(|node| node.leaf);
                leaves.map(|node| node.path).collect()
            }),
            Self::Tags(expressions) => {
                let expressions: Vec<&str> = expressions.iter().map(String::as_str).collect();
                source.find_tagged(&expressions, budget)
            }
        };
        match found {
            // A pattern that cannot find anything finds nothing.
            Err(SourceError::Refused(_)) => Ok(Vec::new()),
            found => Ok(found?),
        }
    }
}

/// What decides which series belong to an event: two events with something in common have the same scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Targets of rules.
    Targets(BTreeSet<String>),
    /// Words, and `tag=value` for tagged series.
    Words(BTreeSet<String>),
    /// What is on the dashboards.
    Dashboards,
}

impl Key {
    /// Whether two events share series.
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Targets(a), Self::Targets(b)) | (Self::Words(a), Self::Words(b)) => {
                !a.is_disjoint(b)
            }
            (Self::Dashboards, Self::Dashboards) => true,
            _ => false,
        }
    }
}

/// One series of a deploy's scope.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// Which way of changing is worse.
    pub direction: Direction,
    /// The smallest change that matters.
    pub least: Option<Least>,
}

/// The series of a deploy.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// What it was chosen by.
    pub key: Key,
    /// The series, sorted by name.
    pub series: Vec<Chosen>,
    /// How many more there are.
    pub left_out: usize,
}

/// Chooses series by rules, words and dashboards.
pub struct Selector {
    /// The rules.
    pub rules: Rules,
    /// The most series of one scope.
    pub max_series: usize,
}

/// The names in the store, for one verdict.
pub struct Names<'a> {
    source: &'a dyn Source,
    budget: &'a Budget,
    /// All series without tags, sorted, or `None` where there are too many to hold.
    all: Option<Vec<String>>,
    /// The targets on the dashboards.
    dashboards: Vec<String>,
}

impl<'a> Names<'a> {
    /// Reads the names; more than `listing` allows are not held. Searches use `budget`.
    ///
    /// # Errors
    /// The store fails, or the work was cancelled.
    pub fn read(
        source: &'a dyn Source,
        listing: &Budget,
        budget: &'a Budget,
        dashboards: Vec<String>,
    ) -> Result<Self, Error> {
        let all = match Pattern::Path("**".to_owned()).find(source, listing) {
            Ok(all) => Some(all),
            Err(Error::Limit { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            source,
            budget,
            all,
            dashboards,
        })
    }

    fn find(&self, text: &str) -> Result<Vec<String>, Error> {
        match Pattern::read(text) {
            Ok(pattern) => pattern.find(self.source, self.budget),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The series that have one of `words`.
    fn with_words(&self, words: &BTreeSet<String>) -> Result<BTreeSet<String>, Error> {
        let mut found = BTreeSet::new();
        for word in words {
            if word.contains('=') {
                let tagged = Pattern::Tags(vec![word.clone()]);
                found.extend(tagged.find(self.source, self.budget)?);
                continue;
            }
            if self.all.is_none()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            {
                for pattern in [format!("**.*{word}*.**"), format!("**.*{word}*")] {
                    let some = Pattern::Path(pattern).find(self.source, self.budget)?;
                    found.extend(some.into_iter().filter(|name| has_word(name, word)));
                }
            }
        }
        if let Some(all) = &self.all {
            let plain = || words.iter().filter(|word| !word.contains('='));
            let has = |name: &&String| plain().any(|word| has_word(name, word));
            found.extend(all.iter().filter(has).cloned());
        }
        found.retain(|name| !is_own(name));
        Ok(found)
    }

    /// The series that the dashboards draw.
    fn on_dashboards(&self) -> Result<BTreeSet<String>, Error> {
        let mut found = BTreeSet::new();
        let mut patterns = Vec::new();
        for target in &self.dashboards {
            if let Ok(parsed) = query::parse(target) {
                patterns_of(&parsed.expression, &mut patterns);
            }
        }
        for pattern in patterns {
            let some = pattern.find(self.source, self.budget)?;
            found.extend(some.into_iter().filter(|name| !is_own(name)));
        }
        Ok(found)
    }

    /// All names of `key`.
    fn of(&self, key: &Key) -> Result<BTreeSet<String>, Error> {
        match key {
            Key::Targets(targets) => {
                let mut found = BTreeSet::new();
                for target in targets {
                    found.extend(self.find(target)?);
                }
                Ok(found)
            }
            Key::Words(words) => self.with_words(words),
            Key::Dashboards => self.on_dashboards(),
        }
    }
}

/// The patterns of all series that `expression` reads.
fn patterns_of(expression: &Expression, patterns: &mut Vec<Pattern>) {
    match &expression.base {
        Base::Template(template) => {
            if let Some(pattern) = Pattern::of(&template.body) {
                patterns.push(pattern);
            }
        }
        base => match (Pattern::of(base), base) {
            (Some(pattern), _) => patterns.push(pattern),
            (None, Base::Call(call)) => patterns_of_call(call, patterns),
            (None, _) => {}
        },
    }
    for call in &expression.piped {
        patterns_of_call(call, patterns);
    }
}

fn patterns_of_call(call: &Call, patterns: &mut Vec<Pattern>) {
    let named = call.keywords.iter().map(|(_, argument)| argument);
    for argument in call.args.iter().chain(named) {
        if let Argument::Expression(expression) = argument {
            patterns_of(expression, patterns);
        }
    }
}

/// Whether a series is one of the server's own counters: no deploy of others moves them.
fn is_own(name: &str) -> bool {
    crate::http::page::is_ours(name)
}

impl Selector {
    /// What decides which series belong to `event`, going by its tags alone.
    pub(super) fn key(&self, event: &Event) -> Key {
        let tag = |prefix: &str| {
            let value = event.tags.iter().find_map(|tag| tag.strip_prefix(prefix));
            value.map(str::to_owned)
        };
        let rules = self.rules.0.iter();
        let mine = rules.filter(|rule| {
            rule.tags
                .as_ref()
                .is_some_and(|tags| tags.matches(&event.tags))
        });
        let targets = mine.flat_map(|rule| &rule.targets);
        let targets: BTreeSet<String> = targets
            .filter_map(|target| fill(target, tag).ok().flatten())
            .collect();
        if !targets.is_empty() {
            return Key::Targets(targets);
        }
        match words(event) {
            words if words.is_empty() => Key::Dashboards,
            words => Key::Words(words),
        }
    }

    /// The key of `event`, and the names that it finds.
    fn resolve(&self, event: &Event, names: &Names<'_>) -> Result<(Key, BTreeSet<String>), Error> {
        let key = self.key(event);
        let found = names.of(&key)?;
        if found.is_empty() && matches!(key, Key::Words(_)) {
            return Ok((Key::Dashboards, names.of(&Key::Dashboards)?));
        }
        Ok((key, found))
    }

    /// The series of `event`.
    ///
    /// # Errors
    /// The store fails, or the work was cancelled.
    pub fn select(&self, event: &Event, names: &Names<'_>) -> Result<Scope, Error> {
        let (key, found) = self.resolve(event, names)?;
        let all = found.len();
        let chosen = spread(found.into_iter().collect(), self.max_series);
        let mut ruled = BTreeMap::new();
        for rule in &self.rules.0 {
            if rule
                .tags
                .as_ref()
                .is_some_and(|tags| !tags.matches(&event.tags))
            {
                continue;
            }
            if rule.direction.is_none() && rule.least.is_none() {
                continue;
            }
            let tag = |prefix: &str| {
                let value = event.tags.iter().find_map(|tag| tag.strip_prefix(prefix));
                value.map(str::to_owned)
            };
            let targets = rule.targets.iter();
            for target in targets.filter_map(|target| fill(target, tag).ok().flatten()) {
                for name in names.find(&target)? {
                    let entry: &mut (Option<Direction>, Option<Least>) =
                        ruled.entry(name).or_default();
                    entry.0 = entry.0.or(rule.direction);
                    entry.1 = entry.1.or(rule.least);
                }
            }
        }
        let series = chosen.into_iter().map(|name| {
            let (direction, least) = ruled.get(&name).copied().unwrap_or_default();
            Chosen {
                direction: direction.unwrap_or_else(|| crate::impact::direction(&name)),
                least,
                name,
            }
        });
        let series: Vec<Chosen> = series.collect();
        Ok(Scope {
            key,
            left_out: all - series.len(),
            series,
        })
    }

    /// Series outside of `scope` that it is compared with, at most `most`.
    ///
    /// # Errors
    /// The store fails, or the work was cancelled.
    pub fn controls(
        &self,
        scope: &Scope,
        names: &Names<'_>,
        most: usize,
    ) -> Result<Vec<String>, Error> {
        let mine: BTreeSet<&str> = scope.series.iter().map(|one| &*one.name).collect();
        // Those that were left out are no controls either.
        let whole = match scope.left_out {
            0 => BTreeSet::new(),
            _ => names.of(&scope.key)?,
        };
        let other =
            |name: &String| !mine.contains(name.as_str()) && !whole.contains(name) && !is_own(name);
        let others: Vec<String> = match &names.all {
            Some(all) => all.iter().filter(|name| other(name)).cloned().collect(),
            None => names.on_dashboards()?.into_iter().filter(other).collect(),
        };
        Ok(spread(others, most))
    }

    /// For each of `events` its key; and for each of `controls` the first key that finds it.
    ///
    /// # Errors
    /// The store fails, or the work was cancelled.
    pub fn keys(
        &self,
        events: &[Event],
        controls: &[String],
        names: &Names<'_>,
    ) -> Result<(Vec<Key>, Vec<Option<usize>>), Error> {
        /// More scopes than this among the controls are not distinguished.
        const MOST: usize = 64;
        let mut known: BTreeMap<Key, (Key, BTreeSet<String>)> = BTreeMap::new();
        let mut keys = Vec::new();
        for event in events {
            let by_tags = self.key(event);
            if !known.contains_key(&by_tags) {
                let resolved = match known.len() < MOST {
                    true => self.resolve(event, names)?,
                    false => (by_tags.clone(), BTreeSet::new()),
                };
                known.insert(by_tags.clone(), resolved);
            }
            keys.push(known[&by_tags].0.clone());
        }
        let mut owners = vec![None; controls.len()];
        for (n, key) in keys.iter().enumerate() {
            if keys[..n].contains(key) {
                continue;
            }
            let Some((_, found)) = known.values().find(|(resolved, _)| resolved == key) else {
                continue;
            };
            for (owner, name) in owners.iter_mut().zip(controls) {
                if owner.is_none() && found.contains(name) {
                    *owner = Some(n);
                }
            }
        }
        Ok((keys, owners))
    }
}

/// The words of an event's tags that name a part of a system; `tag=value` for tagged series beside.
fn words(event: &Event) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for tag in &event.tags {
        match tag.split_once(':') {
            Some((name, value)) if PARTS.contains(&name) && !value.is_empty() => {
                words.insert(value.to_owned());
                words.insert(format!("{name}={value}"));
            }
            Some(_) => {}
            None if GENERAL.contains(&&*tag.to_ascii_lowercase()) => {}
            None if tag.len() < 2 || tag.contains('=') => {}
            None => {
                words.insert(tag.clone());
            }
        }
    }
    words
}

/// Whether the tags of `event` name a part of a system that the series `name` belongs to.
pub(super) fn concerns(event: &Event, name: &str) -> bool {
    words(event).iter().any(|word| has_word(name, word))
}

/// Whether a node of `name`, or the value of one of its tags, has `word` as a part of its own: `web` is in
/// `web`, `web01`, `eu-web` and `web_errors`, but not in `webmail`; `web1` is not in `web10`.
fn has_word(name: &str, word: &str) -> bool {
    let ends_in_digit = word.ends_with(|c: char| c.is_ascii_digit());
    let separates = |c: char| !c.is_alphanumeric();
    name.match_indices(word).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        let after = name[at + word.len()..].chars().next();
        before.is_none_or(separates)
            && after.is_none_or(|c| separates(c) || (c.is_ascii_digit() && !ends_in_digit))
    })
}

/// At most `most` of `names`, evenly distributed.
fn spread(names: Vec<String>, most: usize) -> Vec<String> {
    let all = names.len();
    if all <= most {
        return names;
    }
    let mut names: Vec<Option<String>> = names.into_iter().map(Some).collect();
    (0..most)
        .filter_map(|n| names[n * all / most].take())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn event(tags: &str) -> Event {
        Event {
            tags: tags.split_whitespace().map(str::to_owned).collect(),
            ..Event::default()
        }
    }

    fn store(names: &[&str]) -> Memory {
        let mut source = Memory::default();
        for name in names {
            source.insert(name, 60, vec![1.0]);
        }
        source
    }

    const NAMES: &[&str] = &[
        "carbon.agents.a.cpu",
        "servers.eu-web.load",
        "servers.web01.load",
        "servers.web10.load",
        "stats.counters.search.errors",
        "stats.counters.web.errors",
        "stats.counters.webmail.errors",
    ];

    fn selector(rules: &[Rule]) -> Selector {
        Selector {
            rules: Rules::new(rules).unwrap(),
            max_series: 100,
        }
    }

    fn chosen(selector: &Selector, tags: &str, dashboards: &[&str]) -> Vec<String> {
        let source = store(NAMES);
        let budget = Budget::unlimited();
        let dashboards = dashboards.iter().map(|&text| text.to_owned()).collect();
        let names = Names::read(&source, &budget, &budget, dashboards).unwrap();
        let scope = selector.select(&event(tags), &names).unwrap();
        scope.series.into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn words_of_tags_choose_series() {
        let plain = selector(&[]);
        let web = [
            "servers.eu-web.load",
            "servers.web01.load",
            "servers.web10.load",
            "stats.counters.web.errors",
        ];
        assert_eq!(chosen(&plain, "deploy web version:2", &[]), web);
        assert_eq!(chosen(&plain, "deploy service:web env:prod", &[]), web);
        assert_eq!(
            chosen(&plain, "deploy host:web01", &[]),
            ["servers.web01.load"]
        );
        assert!(chosen(&plain, "deploy", &[]).is_empty());
        // No series has the word, or there is no word: the dashboards.
        let dashboards = ["sumSeries(stats.counters.*.errors)", "servers.none"];
        for tags in ["deploy", "deploy service:billing"] {
            assert_eq!(chosen(&plain, tags, &dashboards).len(), 3, "{tags}");
        }
    }

    #[test]
    fn rules_come_first_and_give_direction_and_size() {
        let rules = [
            Rule {
                tags: Some("deploy".to_owned()),
                targets: vec!["stats.counters.{tag:service:}.**".to_owned()],
                least: Some("5%".to_owned()),
                ..Rule::default()
            },
            Rule {
                targets: vec!["stats.*.*.errors".to_owned()],
                worse: Some("down".to_owned()),
                ..Rule::default()
            },
        ];
        let selector = selector(&rules);
        let source = store(NAMES);
        let budget = Budget::unlimited();
        let names = Names::read(&source, &budget, &budget, Vec::new()).unwrap();
        let scope = selector
            .select(&event("deploy service:web"), &names)
            .unwrap();
        let expected = Chosen {
            name: "stats.counters.web.errors".to_owned(),
            direction: Direction::DownIsWorse,
            least: Some(Least::Share(0.05)),
        };
        assert_eq!(scope.series, [expected]);
        let controls = selector.controls(&scope, &names, 100).unwrap();
        assert_eq!(
            controls.len(),
            5,
            "all but its own and the server's: {controls:?}"
        );
        assert_eq!(selector.controls(&scope, &names, 2).unwrap().len(), 2);

        let events = [
            "deploy service:search",
            "deploy service:web",
            "deploy service:search",
        ];
        let events = events.map(event);
        let (keys, owners) = selector.keys(&events, &controls, &names).unwrap();
        assert!(keys[0].meets(&keys[2]) && !keys[0].meets(&keys[1]));
        let search = controls
            .iter()
            .position(|name| name.contains("search"))
            .unwrap();
        assert_eq!(owners[search], Some(0));
        assert_eq!(owners.iter().flatten().count(), 1);
    }

    #[test]
    fn words_are_whole() {
        for (name, word, expected) in [
            ("a.web.b", "web", true),
            ("web", "web", true),
            ("a.web01", "web", true),
            ("a.my_web", "web", true),
            ("a.webmail", "web", false),
            ("a.b;service=web", "web", true),
            ("a.svc10", "svc1", false),
            ("a.svc1-h2.x", "svc1", true),
            ("cobweb.web", "web", true),
        ] {
            assert_eq!(has_word(name, word), expected, "{name} {word}");
        }
    }

    #[test]
    fn too_many_series_are_thinned_evenly() {
        let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(spread(names.clone(), 3), ["0", "3", "6"]);
        assert_eq!(spread(names.clone(), 10), names);
        let selector = Selector {
            max_series: 2,
            ..selector(&[])
        };
        let source = store(NAMES);
        let budget = Budget::unlimited();
        let names = Names::read(&source, &budget, &budget, Vec::new()).unwrap();
        let scope = selector.select(&event("web"), &names).unwrap();
        assert_eq!((scope.series.len(), scope.left_out), (2, 2));
        let controls = selector.controls(&scope, &names, 9).unwrap();
        assert!(
            controls.iter().all(|name| !has_word(name, "web")),
            "{controls:?}"
        );
    }
}
