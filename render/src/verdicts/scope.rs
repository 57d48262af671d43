//! Which series belong to a deploy, chosen by names and tags before any value is read.
//!
//! 1. `impact.rules` first: the targets of all rules whose tags select the event.
//! 2. Without such a rule, words of the event's tags are looked for in the nodes of names and in the
//!    values of tags.
//! 3. Where those find nothing, everything that the dashboards draw.
//! 4. At most `impact.max_series`, evenly distributed over the sorted names; the controls are chosen in
//!    the same way from all other series.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::events::Event;
use crate::impact::{Direction, Least};

mod names;
mod pattern;
mod rules;
mod words;

use self::names::is_own;
pub(super) use self::names::read_by;
pub use self::names::{Key, Names};
use self::rules::Matters;
pub use self::rules::Rules;
pub(super) use self::words::concerns;
use self::words::words;

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

impl Selector {
    /// What decides which series belong to `event`, going by its tags alone.
    pub(super) fn key(&self, event: &Event) -> Key {
        let targets = self.rules.targets(event);
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
        let mut ruled: BTreeMap<String, Matters> = BTreeMap::new();
        for (target, matters) in self.rules.matters(event) {
            for name in names.find(&target)? {
                let entry = ruled.entry(name).or_default();
                entry.direction = entry.direction.or(matters.direction);
                entry.least = entry.least.or(matters.least);
            }
        }
        let series = chosen.into_iter().map(|name| {
            let matters = ruled.get(&name).copied().unwrap_or_default();
            Chosen {
                direction: matters
                    .direction
                    .unwrap_or_else(|| crate::impact::direction(&name)),
                least: matters.least,
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

/// At most `most` of `names`, evenly distributed.
pub(super) fn spread(names: Vec<String>, most: usize) -> Vec<String> {
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
    use super::words::has_word;
    use super::*;
    use crate::budget::Budget;
    use crate::memory::Memory;
    use crate::verdicts::options::Rule;

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
