//! The places of labels above a plot.

use std::ops::Range;

use super::super::font::Font;
use super::{GAP, Placed, Shown};

/// Gives labels their places in at most `most` levels; returns how many that took.
///
/// The newest, the failed and the undone ones choose first, then the others, from right to left. A label stands
/// to the right of its pole, else to the left, else cut to the right. A pole goes up through the
/// levels below its label's: no label may be in its way.
pub(super) fn arrange(
    all_shown: &mut [Shown<'_>],
    font: Font,
    (left, right): (f64, f64),
    most: usize,
) -> usize {
    let mut order: Vec<usize> = (0..all_shown.len()).collect();
    order.sort_by(|a, b| all_shown[*b].x.total_cmp(&all_shown[*a].x));
    let newest = order.first().copied();
    let is_plain = |shown: &Shown<'_>| !shown.failed && !shown.undone;
    order.sort_by_key(|i| Some(*i) != newest && is_plain(&all_shown[*i]));
    let poles: Vec<f64> = all_shown.iter().map(|shown| shown.x).collect();
    let mut taken = Taken::new(most);
    let mut n_levels = 0;
    for i in order {
        let x = all_shown[i].x;
        let text = all_shown[i].label.clone();
        if text.is_empty() || most == 0 {
            continue;
        }
        let width = font.width(&text);
        let (after, before) = (x + GAP, x - GAP - width);
        let at_right = |level: &usize| {
            after + width + GAP <= right && taken.is_free(*level, x, after..after + width)
        };
        let at_left =
            |level: &usize| before >= left && taken.is_free(*level, x, before..before + width);
        let placed = if let Some(level) = (0..most).find(at_right) {
            Some((level, after, text, width))
        } else if let Some(level) = levels_for(&poles, before..x, most)
            .into_iter()
            .find(at_left)
        {
            Some((level, before, text, width))
        } else {
            let rooms = (0..most).map(|level| (level, taken.room(level, x, right)));
            let widest = rooms.fold((0, f64::MIN), |best, room| match room.1 > best.1 {
                true => room,
                false => best,
            });
            let cut = font.fit(&text, widest.1);
            let width = font.width(&cut);
            (!cut.is_empty()).then_some((widest.0, after, cut, width))
        };
        if let Some((level, at, text, width)) = placed {
            taken.take(level, x, at..at + width);
            n_levels = n_levels.max(level + 1);
            all_shown[i].place = Some(Placed { level, x: at, text });
        }
    }
    n_levels
}

/// The levels for a label over `place`, the best first: not the lowest if there are poles below it,
/// which have labels of their own.
fn levels_for(poles: &[f64], place: Range<f64>, most: usize) -> Vec<usize> {
    let crosses = poles.iter().any(|x| place.start < *x && *x < place.end);
    let mut levels: Vec<usize> = (0..most).collect();
    if crosses && most > 1 {
        levels.rotate_left(1);
    }
    levels
}

/// The places that are taken above a plot.
struct Taken {
    /// The labels of each level.
    labels: Vec<Vec<Range<f64>>>,
    /// Each pole with the level of its label.
    poles: Vec<(f64, usize)>,
}

impl Taken {
    fn new(most: usize) -> Self {
        Self {
            labels: vec![Vec::new(); most],
            poles: Vec::new(),
        }
    }

    /// Whether a label at `place` at `level` and its pole at `x` touch nothing.
    fn is_free(&self, level: usize, x: f64, place: Range<f64>) -> bool {
        let touches =
            |label: &Range<f64>| label.start - GAP < place.end && place.start < label.end + GAP;
        let is_crossed = |(pole, own): &(f64, usize)| {
            *own > level && place.start - GAP < *pole && *pole < place.end + GAP
        };
        self.is_passable(level, x)
            && !self.labels[level].iter().any(touches)
            && !self.poles.iter().any(is_crossed)
    }

    /// Whether a pole at `x` reaches `level`.
    fn is_passable(&self, level: usize, x: f64) -> bool {
        let in_the_way = |label: &Range<f64>| label.start - GAP < x && x < label.end + GAP;
        !self.labels[..level].iter().flatten().any(in_the_way)
    }

    /// The pixels to the right of a pole at `x` that are free at `level`.
    fn room(&self, level: usize, x: f64, right: f64) -> f64 {
        if !self.is_passable(level, x) {
            return f64::MIN;
        }
        let at = x + GAP;
        let labels = self.labels[level]
            .iter()
            .filter(|label| label.end + GAP > at);
        let poles = self
            .poles
            .iter()
            .filter(|(pole, own)| *own > level && *pole > x);
        let ends = labels
            .map(|label| label.start)
            .chain(poles.map(|(pole, _)| *pole));
        ends.fold(right, f64::min) - at - GAP
    }

    fn take(&mut self, level: usize, x: f64, place: Range<f64>) {
        self.labels[level].push(place);
        self.poles.push((x, level));
    }
}
