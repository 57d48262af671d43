//! The search for the nodes that a pattern matches.

use std::ops::ControlFlow;

use super::super::glob::{Flat, NodePattern, Pattern};
use super::branches::{Branch, ROOT, Tree, first};
use crate::series::Names;

/// One node found by a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The full dotted path.
    pub path: String,
    /// Whether it is a series (else a branch).
    pub leaf: bool,
}

/// Called between two steps of a search, with the path of the node that was found, if any. Returning
/// `false` ends the search.
pub type GoOn<'a> = dyn FnMut(Option<&str>) -> bool + 'a;

/// Called for a node that the pattern matches, with whether it is a leaf, and with `None` for each other
/// node that is checked.
type Visit<'a> = dyn FnMut(Option<(&str, bool)>) -> ControlFlow<()> + 'a;

/// Called with label and place of a child that the pattern matches, and with `None` for each other child
/// that is checked.
type Each<'a> = dyn FnMut(Option<(&str, Option<Place>)>) -> ControlFlow<()> + 'a;

fn asked(go_on: bool) -> ControlFlow<()> {
    if go_on {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}

/// A place in the tree: a branch, or a position inside of a twig whose next node begins at `start`.
#[derive(Clone, Copy)]
enum Place {
    Branch(u32),
    Twig { series: u32, start: u16 },
}

impl Place {
    fn is_root(self) -> bool {
        matches!(self, Self::Branch(ROOT))
    }
}

impl Tree {
    /// Every node that `pattern` matches, sorted by path bytewise, a branch before a leaf of the
    /// same path, nothing twice. `None` if `go_on` ended the search.
    pub(crate) fn find(
        &self,
        names: &Names,
        pattern: &Pattern,
        go_on: &mut GoOn<'_>,
    ) -> Option<Vec<Found>> {
        let mut out = Vec::new();
        let mut path = String::new();
        let keeps_dot = pattern.asks_for_branches();
        let root = Place::Branch(ROOT);
        let mut visit = |node: Option<(&str, bool)>| {
            let Some((path, leaf)) = node else {
                return asked(go_on(None));
            };
            let dot = if keeps_dot && !path.is_empty() {
                "."
            } else {
                ""
            };
            asked(go_on(Some(path)))?;
            let path = [path, dot].concat();
            out.push(Found { path, leaf });
            ControlFlow::Continue(())
        };
        let nodes = &pattern.nodes;
        if self
            .walk(names, root, nodes, &mut path, &mut visit)
            .is_break()
        {
            return None;
        }
        if !out.is_sorted() {
            out.sort();
        }
        out.dedup();
        Some(out)
    }

    fn walk(
        &self,
        names: &Names,
        at: Place,
        patterns: &[NodePattern],
        path: &mut String,
        visit: &mut Visit<'_>,
    ) -> ControlFlow<()> {
        let Some((pattern, rest)) = patterns.split_first() else {
            return ControlFlow::Continue(());
        };
        let flats = match pattern {
            NodePattern::OneOf(flats) => flats,
            NodePattern::AnyDepth(flats) if at.is_root() && !rest.is_empty() => {
                self.walk(names, at, rest, path, visit)?;
                flats
            }
            NodePattern::AnyDepth(_) => {
                return self.walk_any_depth(names, at, rest, path, visit);
            }
            NodePattern::Here => return visit(Some((path, false))),
        };
        for flat in flats {
            self.children(names, at, Some(flat), &mut |child| {
                let Some((label, below)) = child else {
                    return visit(None);
                };
                let len = path.len();
                push_node(path, label);
                match below {
                    None if rest.is_empty() => visit(Some((path, true)))?,
                    None => visit(None)?,
                    Some(_) if rest.is_empty() => visit(Some((path, false)))?,
                    Some(below) => self.walk(names, below, rest, path, visit)?,
                }
                path.truncate(len);
                ControlFlow::Continue(())
            })?;
        }
        ControlFlow::Continue(())
    }

    /// `**`: the rest of the pattern here and below every branch; at the end of a pattern,
    /// everything below.
    fn walk_any_depth(
        &self,
        names: &Names,
        at: Place,
        rest: &[NodePattern],
        path: &mut String,
        visit: &mut Visit<'_>,
    ) -> ControlFlow<()> {
        self.walk(names, at, rest, path, visit)?;
        self.children(names, at, None, &mut |child| {
            let Some((label, below)) = child else {
                return visit(None);
            };
            let len = path.len();
            push_node(path, label);
            visit(rest.is_empty().then_some((&**path, below.is_none())))?;
            if let Some(below) = below {
                self.walk_any_depth(names, below, rest, path, visit)?;
            }
            path.truncate(len);
            ControlFlow::Continue(())
        })
    }

    /// Calls `each` with label and place (`None` for a leaf) of the children of `at` that `flat` matches
    /// (without `flat`, of all), and with `None` for each other child that was checked.
    fn children(
        &self,
        names: &Names,
        at: Place,
        flat: Option<&Flat>,
        each: &mut Each<'_>,
    ) -> ControlFlow<()> {
        let mut offer = |label: &[u8], below: Option<Place>| {
            // A label is a piece between dots of a UTF-8 name.
            let label = std::str::from_utf8(label).unwrap_or_default();
            let fits = flat.is_none_or(|flat| {
                label
                    .strip_prefix(flat.prefix.as_str())
                    .is_some_and(|rest| flat.matches_rest(rest))
            });
            each(fits.then_some((label, below)))
        };
        let prefix = flat.map_or(&b""[..], |flat| flat.prefix.as_bytes());
        let tail = |series: u32, start: u16| {
            let rest = &names.name_bytes(series)[start as usize..];
            let label = first(rest);
            let below = (label.len() < rest.len()).then(|| Place::Twig {
                series,
                start: start + label.len() as u16 + 1,
            });
            (label, below)
        };
        let branch = match at {
            Place::Twig { series, start } => {
                let (label, below) = tail(series, start);
                return offer(label, below);
            }
            Place::Branch(branch) => branch,
        };
        let Branch {
            label: own,
            branches,
            tails,
        } = &self.branches[branch as usize];
        let start = if branch == ROOT { 0 } else { own.end + 1 };
        let label = |branch| self.label(names, branch);
        if flat.is_some_and(Flat::is_literal) {
            if let Some(branch) = branches.exact(prefix, label) {
                offer(prefix, Some(Place::Branch(branch)))?;
            }
        } else {
            for branch in branches.beginning(prefix, label) {
                offer(label(branch), Some(Place::Branch(branch)))?;
            }
        }
        for series in tails.beginning(prefix, |id| &names.name_bytes(id)[start as usize..]) {
            let (label, below) = tail(series, start);
            offer(label, below)?;
        }
        ControlFlow::Continue(())
    }
}

fn push_node(path: &mut String, node: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(node);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapoint::SeriesId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn tree(names: &[&str]) -> (Names, Tree) {
        let mut interned = Names::default();
        let mut tree = Tree::default();
        for name in names {
            let (id, new) = interned.intern(name.as_bytes()).unwrap();
            if new {
                tree.insert(&interned, id);
            }
        }
        (interned, tree)
    }

    fn found(names: &Names, tree: &Tree, pattern: &str) -> Vec<(String, bool)> {
        tree.find(names, &Pattern::parse(pattern).unwrap(), &mut |_| true)
            .unwrap()
            .into_iter()
            .map(|found| (found.path, found.leaf))
            .collect()
    }

    /// All nodes of all names, each matched against the pattern's nodes.
    fn naive(names: &BTreeSet<String>, pattern: &str) -> Vec<(String, bool)> {
        fn fits(patterns: &[NodePattern], nodes: &[&str], at_root: bool) -> bool {
            let one_of = |flats: &[Flat], rest| {
                !nodes.is_empty()
                    && flats.iter().any(|flat| flat.matches(nodes[0]))
                    && fits(rest, &nodes[1..], false)
            };
            match patterns.split_first() {
                None | Some((NodePattern::Here, _)) => nodes.is_empty(),
                Some((NodePattern::AnyDepth(flats), rest)) => {
                    if rest.is_empty() {
                        return !nodes.is_empty();
                    }
                    let deepest = if at_root { 0 } else { nodes.len() };
                    (0..=deepest).any(|n| fits(rest, &nodes[n..], at_root)) || one_of(flats, rest)
                }
                Some((NodePattern::OneOf(flats), rest)) => one_of(flats, rest),
            }
        }
        let pattern = Pattern::parse(pattern).unwrap();
        let dot = if pattern.asks_for_branches() { "." } else { "" };
        let mut all = BTreeSet::new();
        if pattern.asks_for_branches() && fits(&pattern.nodes, &[], true) {
            all.insert((String::new(), false));
        }
        for name in names {
            let nodes: Vec<&str> = name.split('.').collect();
            for n in 1..=nodes.len() {
                let leaf = n == nodes.len();
                if fits(&pattern.nodes, &nodes[..n], true) && !(leaf && dot == ".") {
                    all.insert((nodes[..n].join(".") + dot, leaf));
                }
            }
        }
        all.into_iter().collect()
    }

    #[test]
    fn leaf_and_branch_of_one_name_come_both() {
        let (names, tree) = tree(&["both.node", "both.node.child", "single"]);
        assert_eq!(
            found(&names, &tree, "both.*"),
            [("both.node".into(), false), ("both.node".into(), true)]
        );
        assert_eq!(
            found(&names, &tree, "*"),
            [("both".into(), false), ("single".into(), true)]
        );
        assert_eq!(found(&names, &tree, "both."), [("both.".into(), false)]);
        assert_eq!(found(&names, &tree, ".both"), [("both".into(), false)]);
        assert!(found(&names, &tree, "").is_empty());
        assert_eq!(
            found(&names, &tree, "**"),
            naive(
                &["both.node", "both.node.child", "single"]
                    .map(String::from)
                    .into(),
                "**"
            )
        );
    }

    #[test]
    fn after_a_dot_at_the_end_stands_the_branch_itself() {
        let (names, tree) = tree(&["x.web.h1.hits", "x.web.h2.hits", "x.up", "single"]);
        for root in [".", "..", "**.", "**.**."] {
            assert_eq!(
                found(&names, &tree, root),
                [(String::new(), false)],
                "{root}"
            );
        }
        let branches = ["x.", "x.web.", "x.web.h1.", "x.web.h2."].map(|path| (path.into(), false));
        assert_eq!(found(&names, &tree, "x.**."), branches);
        assert_eq!(found(&names, &tree, "x.."), branches[..1]);
        assert_eq!(found(&names, &tree, "x.*."), branches[1..2]);
        assert!(found(&names, &tree, "single.").is_empty());
    }

    #[test]
    fn any_depth_may_be_an_alternative() {
        let (names, tree) = tree(&["x.web.h1.hits", "x.up", "hits", "y.hits"]);
        let paths = |pattern| -> Vec<String> {
            let found = found(&names, &tree, pattern).into_iter();
            found.map(|(path, _)| path).collect()
        };
        let below = ["x.up", "x.web", "x.web.h1", "x.web.h1.hits"];
        assert_eq!(paths("x.{**,nosuch}"), below);
        assert_eq!(paths("x.{web,**}"), below);
        assert_eq!(paths("x.{,*}*"), below);
        assert_eq!(paths("x.{nosuch,**}.hits"), ["x.web.h1.hits"]);
        // At the root it means as little as alone.
        assert_eq!(paths("{**,y}.hits"), ["hits", "y.hits"]);
        assert_eq!(paths("**.hits"), ["hits"]);
    }

    #[test]
    fn a_search_ends_when_it_is_told() {
        let names: Vec<String> = (0..1_000).map(|i| format!("a.b{i}.c")).collect();
        let (names, tree) = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for pattern in ["**", "a.*.c", "a.*x", "a.b1*.**", "a.**.none"] {
            let pattern = Pattern::parse(pattern).unwrap();
            let mut asked = 0;
            let found = tree.find(&names, &pattern, &mut |_| {
                asked += 1;
                asked < 5
            });
            assert_eq!((found, asked), (None, 5));
        }
        let mut paths = Vec::new();
        let pattern = Pattern::parse("a.b7*").unwrap();
        let found = tree.find(&names, &pattern, &mut |path| {
            paths.extend(path.map(str::to_owned));
            true
        });
        assert_eq!(found.unwrap().len(), paths.len());
    }

    #[test]
    fn a_wide_branch_stays_sorted() {
        let names: Vec<String> = (0..5_000_u32)
            .map(|i| format!("wide.m{:x}", i.wrapping_mul(0x9e37_79b1)))
            .collect();
        let (names, tree) = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(found(&names, &tree, "wide.*").len(), 5_000);
        assert_eq!(found(&names, &tree, "wide.m9e3779b1").len(), 1);
        assert_eq!(tree.series().len(), tree.len());
    }

    proptest! {
        #[test]
        fn as_a_walk_over_all_names(
            names in prop::collection::btree_set("[ab-]{1,2}(\\.[ab-]{1,2}){0,4}", 0..40),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            patterns in prop::collection::vec("([ab*?-]{1,3}|\\{a,b\\}|\\{a\\*,-\\}|\\*\\*|\\[!a\\]|\\[a-b\\])(\\.([ab*?]{1,2}|\\*\\*|\\{a,b,ab\\}|\\{a,\\*\\*\\})){0,3}\\.?", 1..8),
            shuffle in any::<u64>(),
        ) {
            let mut order: Vec<&str> = names.iter().map(String::as_str).collect();
            order.sort_by_key(|name| foldhash::fast::FixedState::with_seed(shuffle).hash_one(name));
            let (mut interned, mut tree) = tree(&order);
            let mut left = names.clone();
            for gone in gone {
                if order.is_empty() { break; }
                let name = order[gone.index(order.len())];
                let Some(id) = interned.get(name.as_bytes()) else { continue };
                prop_assert_eq!(tree.remove(&interned, id), left.remove(name));
                // The id stands for another name now: no label may lean on it.
                interned.unlink(id);
                interned.free(id);
                prop_assert_eq!(interned.intern(b"zz.top").unwrap().0, id);
                interned.unlink(id);
                interned.free(id);
            }
            prop_assert_eq!(tree.len(), left.len());
            for prefix in ["", "a.", "b.", "a.b.", "ab.-.", "a.a.a.", "-.a."] {
                let text = |ids: Vec<SeriesId>| {
                    ids.into_iter().map(|id| interned.name(id).to_owned()).collect::<BTreeSet<_>>()
                };
                let below = left.iter().filter(|name| name.starts_with(prefix)).cloned();
                prop_assert_eq!(text(tree.series_below(&interned, prefix)), below.clone().collect());
                let children = below.filter(|name| !name[prefix.len()..].contains('.'));
                let (leaves, labels) = tree.children_below(&interned, prefix);
                prop_assert_eq!(text(leaves), children.collect());
                let branches = left.iter().filter_map(|name| {
                    let (node, _) = name.strip_prefix(prefix)?.split_once('.')?;
                    Some(node.to_owned())
                });
                prop_assert_eq!(labels.into_iter().collect::<BTreeSet<_>>(), branches.collect());
            }
            for pattern in patterns {
                if Pattern::parse(&pattern).is_ok() {
                    prop_assert_eq!(found(&interned, &tree, &pattern), naive(&left, &pattern), "{}", pattern);
                }
            }
        }
    }

    use std::hash::BuildHasher;
}
