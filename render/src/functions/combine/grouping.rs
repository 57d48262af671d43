//! Series in groups: by nodes of their names, by tags, by what is left of a name.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::support::{check_length, filled_in};
use super::super::{Args, NodeOrTag, Value, call_back, call_on, node_key};
use crate::aggregate::Aggregate;
use crate::context::Context;
use crate::error::Result;
use crate::series::{Series, tags_of};

/// Something by key, in the order in which the keys were first seen.
pub(super) struct Keyed<T> {
    places: HashMap<String, usize>,
    /// One for each key.
    pub keys: Vec<String>,
    /// What belongs to it, in the same order.
    pub values: Vec<T>,
}

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            keys: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<T: Default> Keyed<T> {
    /// What belongs to `key`, at first the default.
    pub(super) fn at(&mut self, key: String) -> &mut T {
        let place = match self.places.get(&key) {
            Some(&place) => place,
            None => {
                let place = self.keys.len();
                self.places.insert(key.clone(), place);
                self.keys.push(key);
                self.values.push(T::default());
                place
            }
        };
        &mut self.values[place]
    }
}

impl<T> Keyed<T> {
    /// What belongs to `key`, if it was ever seen.
    pub(super) fn get(&self, key: &str) -> Option<&T> {
        Some(&self.values[*self.places.get(key)?])
    }

    /// Keys and what belongs to them.
    pub(super) fn into_pairs(self) -> impl Iterator<Item = (String, T)> {
        self.keys.into_iter().zip(self.values)
    }
}

/// `series` by the key that `nodes` give.
pub(super) fn by_key(
    series: Vec<Series>,
    nodes: &[NodeOrTag],
    args: &mut Args<'_>,
) -> Result<Keyed<Vec<Series>>> {
    let mut groups: Keyed<Vec<Series>> = Keyed::default();
    for series in series {
        args.budget().check()?;
        let key = node_key(&series, nodes)?;
        // Once to look it up by, once in order.
        args.hold(2 * key.len())?;
        groups.at(key).push(series);
    }
    Ok(groups)
}

/// Names without the nodes at the given places; each group aggregated.
pub(super) fn with_wildcards(
    context: &mut Context<'_>,
    args: &mut Args<'_>,
    func: &str,
) -> Result<Vec<Series>> {
    let places: HashSet<usize> = args
        .repeated()
        .iter()
        .filter_map(|value| match value {
            Value::Integer(place) => usize::try_from(*place).ok(),
            Value::Float(place) if place.fract() == 0.0 && *place >= 0.0 => Some(*place as usize),
            Value::Boolean(place) => Some(usize::from(*place)),
            _ => None,
        })
        .collect();
    let mut groups: Keyed<Vec<Series>> = Keyed::default();
    for series in args.series("seriesList")? {
        args.budget().check()?;
        let nodes = series.name.split('.').enumerate();
        let kept = nodes.filter(|(place, _)| !places.contains(place));
        let kept: Vec<&str> = kept.map(|(_, node)| node).collect();
        let key = kept.join(".");
        args.hold(2 * key.len())?;
        groups.at(key).push(series);
    }
    let word = func.strip_suffix("Series").unwrap_or(func);
    let mut results = Vec::with_capacity(groups.keys.len());
    for (key, group) in groups.into_pairs() {
        let aggregate = Aggregate::named(word)?;
        for mut result in context.aggregate(group, aggregate, word, None)? {
            result.name.clone_from(&key);
            results.push(result);
        }
    }
    Ok(results)
}

pub(super) fn by_nodes(
    context: &mut Context<'_>,
    args: &mut Args<'_>,
    nodes: &[NodeOrTag],
) -> Result<Vec<Series>> {
    let callback = args.text("callback")?.to_owned();
    let all = args.series("seriesList")?;
    let groups = by_key(all, nodes, args)?;
    let mut results = Vec::with_capacity(groups.keys.len());
    for (key, group) in groups.into_pairs() {
        // Of a callback that gives several series the first stands for the group.
        if let Some(mut result) = call_back(context, &callback, group)?.into_iter().next() {
            result.name = key;
            results.push(result);
        }
    }
    Ok(results)
}

pub(super) fn by_tags(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let callback = args.text("callback")?.to_owned();
    let tags: Vec<String> = args.repeated().iter().map(Value::python_str).collect();
    if tags.is_empty() {
        return Err(args.refusal("no tags specified"));
    }
    let all = args.series("seriesList")?;
    let by_name = tags.iter().any(|tag| tag == "name");
    let tag_of = |series: &Series, tag: &str| series.tags.get(tag).cloned().unwrap_or_default();
    // A name that all series share is kept; else the callback lends its own.
    let names: BTreeSet<String> = all.iter().map(|series| tag_of(series, "name")).collect();
    let common = match names.first() {
        Some(name) if names.len() == 1 => name.clone(),
        _ => callback.clone(),
    };
    let mut groups: Keyed<Vec<Series>> = Keyed::default();
    for series in all {
        args.budget().check()?;
        // Not every series has every tag: a value that is empty could not be asked for again.
        if let Some(tag) = tags.iter().find(|tag| tag_of(&series, tag).is_empty()) {
            return Err(args.refusal(&format!("{} has no tag {tag:?}", series.name)));
        }
        let lengths = tags
            .iter()
            .map(|tag| tag.len() + tag_of(&series, tag).len() + 2);
        let length = lengths.sum();
        check_length(length, &series.name)?;
        args.hold(2 * length)?;
        let mut parts: Vec<String> = tags
            .iter()
            .filter(|tag| *tag != "name")
            .map(|tag| format!("{tag}={}", tag_of(&series, tag)))
            .collect();
        parts.sort_unstable();
        let name = if by_name {
            tag_of(&series, "name")
        } else {
            common.clone()
        };
        parts.insert(0, name);
        groups.at(parts.join(";")).push(series);
    }
    let mut results = Vec::with_capacity(groups.keys.len());
    for (key, group) in groups.into_pairs() {
        if let Some(mut result) = call_back(context, &callback, group)?.into_iter().next() {
            result.tags = tags_of(&key);
            result.rename(key);
            results.push(result);
        }
    }
    Ok(results)
}

pub(super) fn map(_: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Vec<Series>>> {
    let nodes = args.nodes();
    let all = args.series("seriesList")?;
    Ok(by_key(all, &nodes, args)?.values)
}

/// A list in which a matcher found nothing is passed over: no function could be called on it.
pub(super) fn reduce(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let function = args.text("reduceFunction")?.to_owned();
    let place = args.integer("reduceNode")?;
    let matchers: Vec<String> = args
        .repeated_text()?
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut groups: Keyed<Vec<Option<Series>>> = Keyed::default();
    for series in args.lists("seriesLists")?.into_iter().flatten() {
        args.budget().check()?;
        let nodes: Vec<&str> = series.name.split('.').collect();
        let place = if place < 0 {
            place.saturating_add(nodes.len() as i64)
        } else {
            place
        };
        let node = usize::try_from(place)
            .ok()
            .filter(|&place| place < nodes.len());
        let Some(place) = node else {
            let name = &series.name;
            return Err(args.refusal(&format!("{name} has no node {place} to reduce by")));
        };
        let Some(matcher) = matchers.iter().position(|matcher| matcher == nodes[place]) else {
            continue;
        };
        let key = format!("{}.reduce.{function}", nodes[..place].join("."));
        if groups.get(&key).is_none() {
            args.hold(2 * key.len() + matchers.len() * size_of::<Option<Series>>())?;
        }
        let group = groups.at(key);
        group.resize_with(matchers.len(), || None);
        group[matcher] = Some(series);
    }
    let mut results = Vec::with_capacity(groups.keys.len());
    for (key, group) in groups.into_pairs() {
        let Some(group) = group.into_iter().collect::<Option<Vec<Series>>>() else {
            continue;
        };
        let lists = group.into_iter().map(|series| vec![series]).collect();
        if let Some(mut result) = call_on(context, &function, lists)?.into_iter().next() {
            result.name = key;
            results.push(result);
        }
    }
    Ok(results)
}

pub(super) fn apply_by_node(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let node = args.integer("nodeNum")?;
    let template = args.text("templateFunction")?.to_owned();
    let new_name = args.text_if_given("newName")?.map(str::to_owned);
    let all = args.series("seriesList")?;
    let Some(last) = all.last() else {
        return Ok(Vec::new());
    };
    let (start, end) = (last.start, last.end);
    let prefixes: BTreeSet<String> = all
        .iter()
        .map(|series| prefix(&series.name, node))
        .collect();
    let mut context = context.clone();
    let mut results = Vec::new();
    for prefix in prefixes {
        for mut series in context.evaluate_text(&filled_in(&template, &prefix)?)? {
            if let Some(new_name) = new_name.as_deref().filter(|name| !name.is_empty()) {
                series.name = filled_in(new_name, &prefix)?;
                args.hold(series.name.len())?;
            }
            series.path_expression.clone_from(&prefix);
            series.start = start;
            series.end = end;
            results.push(series);
        }
    }
    Ok(results)
}

/// The nodes of `name` up to and with `node`, which counts from the end when negative.
fn prefix(name: &str, node: i64) -> String {
    let nodes: Vec<&str> = name.split('.').collect();
    let end = node.saturating_add(1);
    let end = if end < 0 {
        end.saturating_add(nodes.len() as i64).max(0)
    } else {
        end
    };
    let end = usize::try_from(end).unwrap_or(usize::MAX).min(nodes.len());
    nodes[..end].join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_they_were_seen_in() {
        let mut keyed: Keyed<Vec<u8>> = Keyed::default();
        for (key, value) in [("b", 1), ("a", 2), ("b", 3)] {
            keyed.at(key.to_owned()).push(value);
        }
        let pairs: Vec<_> = keyed.into_pairs().collect();
        assert_eq!(
            pairs,
            [("b".to_owned(), vec![1, 3]), ("a".to_owned(), vec![2])]
        );
    }

    #[test]
    fn prefixes_are_cut_as_python_slices() {
        for (node, expected) in [
            (0, "a"),
            (1, "a.b"),
            (9, "a.b.c"),
            (-1, ""),
            (-2, "a.b"),
            (-9, ""),
        ] {
            assert_eq!(prefix("a.b.c", node), expected, "{node}");
        }
        assert_eq!(prefix("a", i64::MIN), "");
        assert_eq!(prefix("a", i64::MAX), "a");
    }
}
