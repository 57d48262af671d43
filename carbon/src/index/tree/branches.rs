//! The branches and tails of the tree, and the series below a place in it.

use super::super::sorted::List;
use crate::datapoint::SeriesId;
use crate::series::Names;

/// The tree.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(super) branches: Vec<Branch>,
    free: Vec<u32>,
    series: usize,
}

/// A piece of a series' name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Label {
    pub(super) series: u32,
    pub(super) start: u16,
    pub(super) end: u16,
}

#[derive(Debug, Default)]
pub(super) struct Branch {
    pub(super) label: Label,
    pub(super) branches: List,
    pub(super) tails: List,
}

pub(super) const ROOT: u32 = 0;

impl Default for Tree {
    fn default() -> Self {
        Self {
            branches: vec![Branch::default()],
            free: Vec::new(),
            series: 0,
        }
    }
}

/// The first node of `rest`.
pub(super) fn first(rest: &[u8]) -> &[u8] {
    &rest[..memchr::memchr(b'.', rest).unwrap_or(rest.len())]
}

impl Tree {
    pub(super) fn label<'a>(&self, names: &'a Names, branch: u32) -> &'a [u8] {
        let Label { series, start, end } = self.branches[branch as usize].label;
        &names.name_bytes(series)[start as usize..end as usize]
    }

    /// The branch labelled `label` below `parent`.
    fn child(&self, names: &Names, parent: u32, label: &[u8]) -> Option<u32> {
        let list = &self.branches[parent as usize].branches;
        list.exact(label, |branch| self.label(names, branch))
    }

    /// How many series are in the tree.
    pub(crate) fn len(&self) -> usize {
        self.series
    }

    /// Adds `id`, which must not be in the tree.
    pub(crate) fn insert(&mut self, names: &Names, id: SeriesId) {
        let name = names.name_bytes(id.0);
        let mut at = ROOT;
        let mut start = 0;
        self.series += 1;
        // Down through existing branches, one node at a time.
        loop {
            let rest = &name[start..];
            let node = first(rest);
            let next = start + node.len() + 1;
            if node.len() < rest.len() {
                if let Some(branch) = self.child(names, at, node) {
                    (at, start) = (branch, next);
                    continue;
                }
                // A twig with the same first node becomes a branch.
                let twig = {
                    let tail = |id| &names.name_bytes(id)[start..];
                    self.branches[at as usize]
                        .tails
                        .beginning(node, tail)
                        .find(|other| {
                            let other = tail(*other);
                            first(other) == node && other.len() > node.len()
                        })
                };
                if let Some(twig) = twig {
                    let label = Label {
                        series: twig,
                        start: start as u16,
                        end: (start + node.len()) as u16,
                    };
                    let branch = self.grow(names, at, label);
                    let name = &names.name_bytes(twig)[start..];
                    let tail = |id| &names.name_bytes(id)[start..];
                    self.branches[at as usize].tails.remove(twig, name, tail);
                    self.push_tail(names, branch, next, twig);
                    (at, start) = (branch, next);
                    continue;
                }
            }
            // No other series shares the next node: the rest of the name is a tail here.
            self.push_tail(names, at, start, id.0);
            return;
        }
    }

    fn push_tail(&mut self, names: &Names, branch: u32, start: usize, id: u32) {
        self.branches[branch as usize]
            .tails
            .push(id, |id| &names.name_bytes(id)[start..]);
    }

    /// A new branch below `parent`.
    fn grow(&mut self, names: &Names, parent: u32, label: Label) -> u32 {
        let new = Branch {
            label,
            ..Branch::default()
        };
        let branch = match self.free.pop() {
            Some(branch) => {
                self.branches[branch as usize] = new;
                branch
            }
            None => {
                self.branches.push(new);
                self.branches.len() as u32 - 1
            }
        };
        let mut list = std::mem::take(&mut self.branches[parent as usize].branches);
        list.push(branch, |branch| self.label(names, branch));
        self.branches[parent as usize].branches = list;
        branch
    }

    /// Removes `id` and branches that become empty. Whether it was there.
    pub(crate) fn remove(&mut self, names: &Names, id: SeriesId) -> bool {
        let name = names.name_bytes(id.0);
        // Find the tail, and remember the branches above it.
        let mut way = vec![ROOT];
        let mut start = 0;
        loop {
            let at = way[way.len() - 1];
            let tail = |id| &names.name_bytes(id)[start..];
            let tails = &mut self.branches[at as usize].tails;
            if tails.remove(id.0, &name[start..], tail) {
                break;
            }
            let node = first(&name[start..]);
            if start + node.len() == name.len() {
                return false;
            }
            let Some(branch) = self.child(names, at, node) else {
                return false;
            };
            way.push(branch);
            start += node.len() + 1;
        }
        self.series -= 1;
        // Branches that have become empty, from the lowest up.
        while let [.., parent, branch] = way.as_slice() {
            let empty = &self.branches[*branch as usize];
            if !empty.tails.items.is_empty() || !empty.branches.items.is_empty() {
                break;
            }
            let mut list = std::mem::take(&mut self.branches[*parent as usize].branches);
            let label = self.label(names, *branch);
            list.remove(*branch, label, |branch| self.label(names, branch));
            self.branches[*parent as usize].branches = list;
            self.branches[*branch as usize] = Branch::default();
            self.free.push(*branch);
            way.pop();
        }
        // From the lowest branch up: labels below a branch are correct before those above.
        for branch in way.into_iter().skip(1).rev() {
            let Branch {
                label,
                branches,
                tails,
            } = &self.branches[branch as usize];
            if label.series != id.0 {
                continue;
            }
            let below = branches.items.first();
            let below = below.map(|branch| self.branches[*branch as usize].label.series);
            if let Some(other) = tails.items.first().copied().or(below) {
                self.branches[branch as usize].label.series = other;
            }
        }
        true
    }

    /// The series below the branch `prefix` (`a.b.`, or nothing for all), in no order.
    pub(crate) fn series_below(&self, names: &Names, prefix: &str) -> Vec<SeriesId> {
        let mut at = ROOT;
        let mut start = 0;
        let mut out = Vec::new();
        while start < prefix.len() {
            let rest = &prefix.as_bytes()[start..];
            let node = first(rest);
            let Some(branch) = self.child(names, at, node) else {
                // One series alone may lie there, as a twig.
                let tail = |id| &names.name_bytes(id)[start..];
                let twigs = self.branches[at as usize].tails.beginning(rest, tail);
                let below = twigs.filter(|id| tail(*id).starts_with(rest));
                return below.map(SeriesId).collect();
            };
            (at, start) = (branch, start + node.len() + 1);
        }
        let mut todo = vec![at];
        while let Some(branch) = todo.pop() {
            let Branch {
                branches, tails, ..
            } = &self.branches[branch as usize];
            out.extend(tails.items.iter().map(|id| SeriesId(*id)));
            todo.extend(&branches.items);
        }
        out
    }

    /// The series whose names begin with `prefix`, which may end inside of a node, in no order; `None` if
    /// they are more than `most`.
    pub(crate) fn series_beginning(
        &self,
        names: &Names,
        prefix: &str,
        most: usize,
    ) -> Option<Vec<SeriesId>> {
        let mut at = ROOT;
        let mut start = 0;
        while let Some(end) = memchr::memchr(b'.', &prefix.as_bytes()[start..]) {
            let node = &prefix.as_bytes()[start..start + end];
            let Some(branch) = self.child(names, at, node) else {
                break;
            };
            (at, start) = (branch, start + end + 1);
        }
        // Nodes of a series that has no branch of its own are in its tail.
        let rest = &prefix.as_bytes()[start..];
        let Branch {
            branches, tails, ..
        } = &self.branches[at as usize];
        let tail = |id| &names.name_bytes(id)[start..];
        let twigs = tails.beginning(rest, tail);
        let twigs = twigs.filter(|id| tail(*id).starts_with(rest)).map(SeriesId);
        let mut out: Vec<SeriesId> = twigs.take(most + 1).collect();
        let label = |branch| self.label(names, branch);
        let below = branches.beginning(rest, label);
        let mut todo: Vec<u32> = below
            .filter(|branch| label(*branch).starts_with(rest))
            .collect();
        while let Some(branch) = todo.pop() {
            let Branch {
                branches, tails, ..
            } = &self.branches[branch as usize];
            out.extend(tails.items.iter().map(|id| SeriesId(*id)));
            todo.extend(&branches.items);
            if out.len() > most {
                return None;
            }
        }
        (out.len() <= most).then_some(out)
    }

    /// The series directly below the branch `prefix`, and the labels of the branches there, in no
    /// order.
    pub(crate) fn children_below(
        &self,
        names: &Names,
        prefix: &str,
    ) -> (Vec<SeriesId>, Vec<String>) {
        let mut at = ROOT;
        let mut start = 0;
        while start < prefix.len() {
            let node = first(&prefix.as_bytes()[start..]);
            let Some(branch) = self.child(names, at, node) else {
                let below = self.series_below(names, prefix);
                return divided(names, below, prefix.len());
            };
            (at, start) = (branch, start + node.len() + 1);
        }
        let Branch {
            branches, tails, ..
        } = &self.branches[at as usize];
        let tails = tails.items.iter().map(|id| SeriesId(*id)).collect();
        let (leaves, mut labels) = divided(names, tails, start);
        let label = |branch: &u32| text(self.label(names, *branch));
        labels.extend(branches.items.iter().map(label));
        (leaves, labels)
    }

    /// All series in the order of the tree.
    pub(crate) fn series(&self) -> Vec<SeriesId> {
        let mut out = Vec::with_capacity(self.series);
        let mut todo = vec![ROOT];
        while let Some(branch) = todo.pop() {
            let Branch {
                branches, tails, ..
            } = &self.branches[branch as usize];
            out.extend(tails.items.iter().map(|id| SeriesId(*id)));
            todo.extend(branches.items.iter().rev());
        }
        out
    }

    /// Bytes allocated.
    pub(crate) fn size_bytes(&self) -> usize {
        let lists: usize = self
            .branches
            .iter()
            .map(|branch| branch.branches.items.capacity() + branch.tails.items.capacity())
            .sum();
        self.branches.capacity() * size_of::<Branch>() + lists * size_of::<u32>()
    }
}

/// Of series whose names have the same first `start` bytes: those that have one more node, and the
/// next node of the others.
fn divided(names: &Names, series: Vec<SeriesId>, start: usize) -> (Vec<SeriesId>, Vec<String>) {
    let mut labels = Vec::new();
    let mut leaves = series;
    leaves.retain(|id| {
        let rest = &names.name_bytes(id.0)[start..];
        let node = first(rest);
        if node.len() < rest.len() {
            labels.push(text(node));
        }
        node.len() == rest.len()
    });
    (leaves, labels)
}

fn text(label: &[u8]) -> String {
    String::from_utf8_lossy(label).into_owned()
}
