//! A series on its way to becoming lines and areas.
//!
//! Shapes live in a space of their own until they are drawn: seconds from the left edge of the
//! plot across, and a share of its height (0 bottom, 1 top) up. What leaves the plot is cut off
//! there, exactly, before anything is turned into pixels.

use std::borrow::Cow;

use super::color::Color;
use super::params::LineMode;
use super::y_axis::YAxis;
use crate::Series;
use crate::budget::{Budget, Reservation};
use crate::consolidate::consolidate;
use crate::error::Result;

/// A point of the plot: seconds from its left edge, share of its height.
pub(super) type Place = (f64, f64);

/// A series with everything decided about how it is drawn.
#[derive(Debug)]
pub(super) struct Curve<'a> {
    pub(super) series: &'a Series,
    pub(super) color: Color,
    pub(super) width: f64,
    pub(super) dash: Option<f64>,
    pub(super) right: bool,
    /// Filled down to zero.
    pub(super) area: bool,
    pub(super) values: Cow<'a, [f64]>,
    /// The timestamp of the first of `values`.
    pub(super) start: i64,
    /// Values of the series in one of `values`.
    pub(super) per: usize,
    /// Several values that become one begin at a multiple of their common step, whenever the window
    /// begins.
    pub(super) aligned: bool,
    /// What `values` has reserved, if they are the curve's own.
    pub(super) held: Option<Reservation>,
}

impl<'a> Curve<'a> {
    /// Whether full-height lines stand for its values.
    pub(super) fn infinite(&self) -> bool {
        self.series.drawing.infinite
    }

    pub(super) fn invisible(&self) -> bool {
        self.series.drawing.invisible
    }

    /// Seconds from one of `values` to the next.
    pub(super) fn step(&self) -> f64 {
        self.series.step.max(1) as f64 * self.per as f64
    }

    /// Thins to at most one value per `min_x_step` pixels when `range` seconds take `pixels`.
    ///
    /// # Errors
    /// As [`Budget::check`] and [`Budget::reserve`].
    pub(super) fn consolidate(
        &mut self,
        (range, pixels): (f64, f64),
        min_x_step: f64,
        budget: &Budget,
    ) -> Result<()> {
        budget.check()?;
        let points = range / self.series.step.max(1) as f64;
        let per = if points > 0.0 && pixels / points < min_x_step {
            let drawable = (pixels / min_x_step).floor().max(1.0);
            (points / drawable).ceil().clamp(1.0, 1e9) as usize
        } else {
            1
        };
        self.per = per;
        let skipped = self.skipped();
        let values = &self.series.values[skipped..];
        self.start = self.series.start + skipped as i64 * self.series.step.max(1);
        self.values = Cow::Borrowed(values);
        self.held = None;
        if per > 1 {
            self.hold(values.len().div_ceil(per), budget)?;
            let (how, xff) = (self.series.consolidation, self.series.x_files_factor);
            self.values = Cow::Owned(consolidate(values, per, how, xff));
        }
        Ok(())
    }

    /// The values of the series before the first that is drawn.
    fn skipped(&self) -> usize {
        if !self.aligned {
            return 0;
        }
        let first = self.series.start.div_euclid(self.series.step.max(1));
        let skipped = (-first).rem_euclid(self.per as i64) as usize;
        skipped.min(self.series.values.len())
    }

    fn hold(&mut self, n_values: usize, budget: &Budget) -> Result<()> {
        self.held = Some(budget.hold(n_values * size_of::<f64>())?);
        Ok(())
    }

    /// Its values for writing.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub(super) fn values_mut(&mut self, budget: &Budget) -> Result<&mut Vec<f64>> {
        if self.held.is_none() {
            self.hold(self.values.len(), budget)?;
        }
        Ok(self.values.to_mut())
    }
}

/// The lines of a curve, each unbroken, and its points that have no neighbour.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Lines {
    pub(super) lines: Vec<Vec<Place>>,
    pub(super) dots: Vec<Place>,
}

impl Lines {
    fn end(&mut self, run: &mut Vec<Place>) {
        match run.len() {
            0 => {}
            1 => self.dots.push(run[0]),
            _ => self.lines.push(std::mem::take(run)),
        }
        run.clear();
    }
}

/// How points become lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining {
    pub(super) mode: LineMode,
    pub(super) connected_limit: f64,
    pub(super) null_as_zero: bool,
}

/// What the lines of a curve, cut and on the grid, take for each of its values.
pub(super) const LINE_BYTES: usize = 8 * size_of::<Place>();

/// The lines of `curve` where `start` is the time of the plot's left edge.
///
/// # Errors
/// As [`Budget::check`].
pub(super) fn lines(
    curve: &Curve<'_>,
    start: i64,
    axis: &YAxis,
    how: Joining,
    budget: &Budget,
) -> Result<Lines> {
    let step = curve.step();
    let mut found = Lines::default();
    let mut run = Vec::with_capacity(curve.values.len());
    let mut pace = budget.pace();
    let mut absent = 0usize;
    let first = curve.start as f64 - start as f64;
    for (i, &value) in curve.values.iter().enumerate() {
        pace.check()?;
        let value = match value {
            v if v.is_nan() && how.null_as_zero => 0.0,
            v => v,
        };
        let share = if value.is_nan() {
            None
        } else {
            axis.share(value)
        };
        let Some(share) = share.filter(|s| !s.is_nan()) else {
            absent += 1;
            continue;
        };
        let at = first + i as f64 * step;
        let broken = match how.mode {
            LineMode::Connected => absent as f64 > how.connected_limit,
            LineMode::Slope | LineMode::Staircase => absent > 0,
        };
        if broken {
            found.end(&mut run);
        }
        absent = 0;
        run.push((at, share));
        if how.mode == LineMode::Staircase {
            run.push((at + step, share));
        }
    }
    found.end(&mut run);
    Ok(found)
}

/// Points that follow each other in one half of one of `columns` become at most four: the first,
/// the lowest, the highest and the last, which look the same. A line that has no more than a few
/// points in each column stays as it is.
pub(super) fn downsample<T: Copy>(
    line: Vec<T>,
    columns: f64,
    at: impl Fn(&T) -> (f64, f64),
) -> Vec<T> {
    const PER_COLUMN: f64 = 8.0;
    if line.len() as f64 <= PER_COLUMN * columns.max(1.0) {
        return line;
    }
    let half = |point: &T| (2.0 * at(point).0).floor();
    let mut downsampled = Vec::new();
    for run in line.chunk_by(|a, b| half(a) == half(b)) {
        let height = |i: &usize| at(&run[*i]).1;
        let lowest = (0..run.len()).min_by(|a, b| height(a).total_cmp(&height(b)));
        let highest = (0..run.len()).max_by(|a, b| height(a).total_cmp(&height(b)));
        let mut kept = [0, lowest.unwrap_or(0), highest.unwrap_or(0), run.len() - 1];
        kept.sort_unstable();
        let mut last = None;
        for i in kept {
            if last != Some(i) {
                downsampled.push(run[i]);
            }
            last = Some(i);
        }
    }
    downsampled
}

/// The part of `line` that lies in the plot (`range` seconds wide), in as many pieces as it takes.
pub(super) fn clip(line: Vec<Place>, range: f64) -> Vec<Vec<Place>> {
    let inside = |(t, s): &Place| (0.0..=range).contains(t) && (0.0..=1.0).contains(s);
    if line.iter().all(inside) {
        return vec![line];
    }
    let mut pieces = Vec::new();
    let mut piece: Vec<Place> = Vec::new();
    for pair in line.windows(2) {
        let Some((from, to)) = cut(pair[0], pair[1], range) else {
            if !piece.is_empty() {
                pieces.push(std::mem::take(&mut piece));
            }
            continue;
        };
        if piece.last() != Some(&from) {
            if !piece.is_empty() {
                pieces.push(std::mem::take(&mut piece));
            }
            piece.push(from);
        }
        piece.push(to);
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// The part of one straight line that lies in the plot (Liang and Barsky's way).
fn cut(a: Place, b: Place, range: f64) -> Option<(Place, Place)> {
    let finite = |(t, s): Place| (t, s.clamp(-1e12, 1e12));
    let (a, b) = (finite(a), finite(b));
    let (dt, ds) = (b.0 - a.0, b.1 - a.1);
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    for (slope, room) in [(-dt, a.0), (dt, range - a.0), (-ds, a.1), (ds, 1.0 - a.1)] {
        if slope == 0.0 {
            if room < 0.0 {
                return None;
            }
        } else if slope < 0.0 {
            enter = enter.max(room / slope);
        } else {
            leave = leave.min(room / slope);
        }
    }
    if enter > leave {
        return None;
    }
    let at = |share: f64| match share {
        0.0 => a,
        1.0 => b,
        s => (a.0 + dt * s, (a.1 + ds * s).clamp(0.0, 1.0)),
    };
    Some((at(enter), at(leave)))
}

/// A line from the left edge of the plot to the right one with one height at every time: what an
/// area reaches up (or down) to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Profile(Vec<Place>);

/// Times that follow each other at once (the sides of a step) are kept distinct by this share of the
/// range, far below a pixel.
const JUMP: f64 = 1e-8;

impl Profile {
    /// Level at `base`.
    pub(super) fn flat(range: f64, base: f64) -> Self {
        Self(vec![(0.0, base), (range, base)])
    }

    /// Along `lines` (ascending in time), and along `base` where there are none.
    pub(super) fn along(lines: &[Vec<Place>], range: f64, base: f64) -> Self {
        let mut profile = Self(Vec::new());
        let jump = range * JUMP;
        profile.push((0.0, base), jump);
        for line in lines {
            let (Some(first), Some(last)) = (line.first(), line.last()) else {
                continue;
            };
            profile.push((first.0, base), jump);
            for &(t, s) in line {
                profile.push((t, s.clamp(0.0, 1.0)), jump);
            }
            profile.push((last.0, base), jump);
        }
        profile.push((range, base), jump);
        profile
    }

    fn push(&mut self, (t, s): Place, jump: f64) {
        let t = match self.0.last() {
            Some((last, _)) if t <= *last => last + jump,
            _ => t,
        };
        self.0.push((t, s));
    }

    /// Without points that cannot be seen on so many columns of pixels.
    pub(super) fn downsampled(self, range: f64, columns: f64) -> Self {
        let scale = columns / range;
        Self(downsample(self.0, columns, |(t, s)| (t * scale, *s)))
    }

    /// The bytes that it holds.
    pub(super) fn held(&self) -> usize {
        self.0.capacity() * size_of::<Place>()
    }

    /// At every time the higher (or lower) of the two.
    pub(super) fn extreme(&self, other: &Self, higher: bool) -> Self {
        let pick = |a: f64, b: f64| if higher { a.max(b) } else { a.min(b) };
        let mut times: Vec<f64> = self.0.iter().chain(&other.0).map(|p| p.0).collect();
        // Two ascending runs, which this kind of sorting merges.
        times.sort_by(f64::total_cmp);
        times.dedup();
        let (mut mine, mut theirs) = (Walk::new(&self.0), Walk::new(&other.0));
        let mut out: Vec<Place> = Vec::with_capacity(times.len());
        let mut last: Option<(f64, f64, f64)> = None;
        for t in times {
            let (a, b) = (mine.at(t), theirs.at(t));
            if let Some((t0, a0, b0)) = last {
                let (before, now) = (a0 - b0, a - b);
                if before * now < 0.0 {
                    let share = before / (before - now);
                    out.push((t0 + (t - t0) * share, a0 + (a - a0) * share));
                }
            }
            out.push((t, pick(a, b)));
            last = Some((t, a, b));
        }
        Self(out)
    }

    /// The outline of what lies between the two, without the parts where they touch; one piece
    /// per stretch.
    pub(super) fn between(&self, other: &Self) -> Vec<Vec<Place>> {
        let mut times: Vec<f64> = self.0.iter().chain(&other.0).map(|p| p.0).collect();
        // Two ascending runs, which this kind of sorting merges.
        times.sort_by(f64::total_cmp);
        times.dedup();
        let (mut mine, mut theirs) = (Walk::new(&self.0), Walk::new(&other.0));
        let mut pieces = Vec::new();
        let mut there: Vec<Place> = Vec::new();
        let mut back: Vec<Place> = Vec::new();
        let mut open = false;
        let mut last = None;
        let mut end = |there: &mut Vec<Place>, back: &mut Vec<Place>| {
            if there.len() > 1 {
                back.reverse();
                there.append(back);
                pieces.push(std::mem::take(there));
            }
            there.clear();
            back.clear();
        };
        for t in times {
            let (a, b) = (mine.at(t), theirs.at(t));
            let apart = (a - b).abs() > 1e-9;
            if apart && !open {
                if let Some((t, a, b)) = last {
                    there.push((t, a));
                    back.push((t, b));
                }
                open = true;
            }
            if open {
                there.push((t, a));
                back.push((t, b));
                if !apart {
                    end(&mut there, &mut back);
                    open = false;
                }
            }
            last = Some((t, a, b));
        }
        end(&mut there, &mut back);
        pieces
    }
}

/// Reads a profile at ascending times.
struct Walk<'p> {
    points: &'p [Place],
    next: usize,
}

impl<'p> Walk<'p> {
    fn new(points: &'p [Place]) -> Self {
        Self { points, next: 0 }
    }

    fn at(&mut self, t: f64) -> f64 {
        while self.points.get(self.next).is_some_and(|p| p.0 < t) {
            self.next += 1;
        }
        let before = self.next.checked_sub(1).and_then(|i| self.points.get(i));
        match (before, self.points.get(self.next)) {
            (_, Some(p)) if p.0 == t => p.1,
            (Some(a), Some(b)) => a.1 + (b.1 - a.1) * (t - a.0) / (b.0 - a.0),
            (Some(p), None) | (None, Some(p)) => p.1,
            (None, None) => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::params::AxisLimits;
    use crate::draw::params::UnitSystem;
    use crate::draw::tests::series;
    use proptest::prelude::*;

    const N: f64 = f64::NAN;

    fn curve(series: &Series) -> Curve<'_> {
        Curve {
            series,
            color: Color::opaque(0, 0, 0),
            width: 1.0,
            dash: None,
            right: false,
            area: false,
            values: Cow::Borrowed(&series.values),
            start: series.start,
            per: 1,
            aligned: false,
            held: None,
        }
    }

    fn drawn(series: &Series, how: Joining) -> Lines {
        lines(&curve(series), 0, &axis(), how, &Budget::unlimited()).unwrap()
    }

    fn axis() -> YAxis {
        YAxis::linear((0.0, 10.0), &AxisLimits::default(), &[5], UnitSystem::Si).unwrap()
    }

    fn joining(mode: LineMode) -> Joining {
        Joining {
            mode,
            connected_limit: f64::INFINITY,
            null_as_zero: false,
        }
    }

    #[test]
    fn gaps_break_lines_and_lonely_points_are_dots() {
        let s = series("s", 0, 10, &[1.0, 2.0, N, 3.0, N, 4.0, 5.0]);
        let found = drawn(&s, joining(LineMode::Slope));
        assert_eq!(
            found.lines,
            [[(0.0, 0.1), (10.0, 0.2)], [(50.0, 0.4), (60.0, 0.5)]]
        );
        assert_eq!(found.dots, [(30.0, 0.3)]);
    }

    #[test]
    fn connected_bridges_up_to_the_limit() {
        let s = series("s", 0, 10, &[N, 1.0, N, 2.0, N, N, 3.0, 4.0]);
        let mut how = joining(LineMode::Connected);
        assert_eq!(drawn(&s, how).lines[0].len(), 4);
        how.connected_limit = 1.0;
        let found = drawn(&s, how);
        assert_eq!(found.lines.len(), 2);
    }

    #[test]
    fn stairs_hold_each_value_for_its_step() {
        let s = series("s", 0, 10, &[1.0, N, 2.0]);
        let found = drawn(&s, joining(LineMode::Staircase));
        assert_eq!(
            found.lines,
            [[(0.0, 0.1), (10.0, 0.1)], [(20.0, 0.2), (30.0, 0.2)]]
        );
        assert!(found.dots.is_empty());
    }

    #[test]
    fn lines_are_cut_at_the_edges() {
        let line = vec![(0.0, 0.5), (1.0, 1.5), (2.0, 0.5)];
        let pieces = clip(line, 2.0);
        assert_eq!(pieces, [[(0.0, 0.5), (0.5, 1.0)], [(1.5, 1.0), (2.0, 0.5)]]);
        assert!(clip(vec![(0.0, 2.0), (2.0, 2.0)], 2.0).is_empty());
        assert!(clip(vec![(0.0, f64::INFINITY), (2.0, f64::INFINITY)], 2.0).is_empty());
    }

    #[test]
    fn areas_above_each_other_do_not_overlap() {
        let base = Profile::flat(4.0, 0.0);
        let low = Profile::along(&[vec![(0.0, 0.2), (4.0, 0.6)]], 4.0, 0.0);
        let high = Profile::along(&[vec![(0.0, 0.4), (4.0, 0.4)]], 4.0, 0.0);
        let both = base.extreme(&low, true).extreme(&high, true);
        let shown = both.between(&base.extreme(&low, true));
        assert_eq!(shown.len(), 1);
        // Where they cross, at 2 s, the second one disappears behind the first.
        let last = shown[0].iter().map(|p| p.0).fold(0.0, f64::max);
        assert!((last - 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_line_keeps_its_first_lowest_highest_and_last_point_in_half_a_column() {
        let line: Vec<Place> = (0..200)
            .map(|i| (f64::from(i), f64::from(i * 37 % 101)))
            .collect();
        let as_it_is = |p: &Place| (p.0 / 10.0, p.1);
        assert_eq!(downsample(line.clone(), 25.0, as_it_is), line);
        let downsampled = downsample(line.clone(), 20.0, as_it_is);
        assert!(downsampled.len() <= 160, "{}", downsampled.len());
        for half in line.chunks(5) {
            let kept: Vec<Place> = downsampled
                .iter()
                .copied()
                .filter(|p| half.contains(p))
                .collect();
            let ends = |points: &[Place]| {
                let heights = || points.iter().map(|p| p.1);
                let (low, high) = (
                    heights().fold(f64::MAX, f64::min),
                    heights().fold(f64::MIN, f64::max),
                );
                (points[0], points[points.len() - 1], low, high)
            };
            assert_eq!(ends(&kept), ends(half));
            assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
        }
    }

    proptest! {
        #[test]
        fn what_is_clipped_is_inside(points in proptest::collection::vec((-10.0..20.0f64, -3.0..3.0f64), 2..20)) {
            for piece in clip(points, 10.0) {
                prop_assert!(piece.len() >= 2);
                for (t, s) in piece {
                    prop_assert!((-1e-9..=10.0 + 1e-9).contains(&t) && (0.0..=1.0).contains(&s));
                }
            }
        }

        #[test]
        fn the_extreme_is_the_extreme_everywhere(a in proptest::collection::vec(0.0..1.0f64, 2..10), b in proptest::collection::vec(0.0..1.0f64, 2..10), at in 0.0..1.0f64) {
            let line = |v: &[f64]| {
                let n = (v.len() - 1) as f64;
                vec![v.iter().enumerate().map(|(i, s)| (i as f64 / n, *s)).collect::<Vec<_>>()]
            };
            let (a, b) = (Profile::along(&line(&a), 1.0, 0.0), Profile::along(&line(&b), 1.0, 0.0));
            let high = a.extreme(&b, true);
            let read = |p: &Profile| Walk::new(&p.0).at(at);
            prop_assert!((read(&high) - read(&a).max(read(&b))).abs() < 1e-6);
        }
    }
}
