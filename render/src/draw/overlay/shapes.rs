//! The shapes of events on a plot: lines, bands, crosses and ties.

use super::super::color::Color;
use super::super::scene::{Item, Paint, spot};
use super::super::sheet::Sheet;
use super::{Shown, Tie};

const UNDONE_DASH: (f64, f64) = (4.0, 3.0);

pub(super) fn line(sheet: &mut Sheet, shown: &Shown<'_>, top: f64) {
    let x = shown.x.round();
    let crowd = shown.events.len() > 1 || shown.events.iter().any(|e| e.look.merged > 0);
    let width = if crowd { 2.0 } else { 1.0 };
    let paint = Paint::own(shown.color);
    let center = x + width / 2.0;
    let dash = shown.undone.then_some(UNDONE_DASH);
    sheet.stroke(
        &[(center, top.round()), (center, sheet.bottom)],
        width,
        dash,
        paint,
    );
    if shown.undone && !shown.tied {
        undone(sheet, center, paint);
    }
    sheet.push(Item::Feel {
        from: spot(x - 3.0, top),
        to: spot(x + 4.0, sheet.bottom),
    });
}

pub(super) fn band(sheet: &mut Sheet, shown: &Shown<'_>, top: f64) {
    let (top_y, bottom) = (sheet.top, sheet.bottom);
    let left = shown.x.round();
    let right = shown.x_end.round().max(left + 2.0);
    let tint = if shown.failed {
        shown.alarm
    } else {
        shown.color
    };
    sheet.push(Item::Block {
        from: spot(left, top_y),
        to: spot(right, bottom),
        paint: Paint::own(tint.with_alpha(0.12)),
    });
    if shown.failed {
        hatch(sheet, left, right, tint);
    }
    let edge = Paint::own(shown.color);
    let faint = Paint::own(shown.color.with_alpha(0.6));
    let dash = shown.undone.then_some(UNDONE_DASH);
    sheet.stroke(
        &[(left + 0.5, top.round()), (left + 0.5, bottom)],
        1.0,
        dash,
        edge,
    );
    if !shown.open {
        sheet.stroke(
            &[(right - 0.5, top_y), (right - 0.5, bottom)],
            1.0,
            dash,
            faint,
        );
    }
    // A bar along the top says that both edges belong together.
    sheet.push(Item::Block {
        from: spot(left, top_y),
        to: spot(right, top_y + 2.0),
        paint: edge,
    });
    if shown.undone && !shown.tied {
        undone(sheet, left + 0.5, edge);
    }
    sheet.push(Item::Feel {
        from: spot(left - 2.0, top),
        to: spot(right + 2.0, bottom),
    });
}

/// Slanted lines over a band.
fn hatch(sheet: &mut Sheet, left: f64, right: f64, color: Color) {
    let (top, bottom) = (sheet.top, sheet.bottom);
    let height = bottom - top;
    let paint = Paint::own(color.with_alpha(0.35));
    let step = ((right - left + height) / 400.0).max(7.0);
    let mut start = left - height;
    while start < right {
        // From the bottom edge up to the right, cut to the band.
        let (x0, x1) = (start.max(left), (start + height).min(right));
        if x1 > x0 {
            let y = |x: f64| bottom - (x - start);
            sheet.stroke(&[(x0, y(x0)), (x1, y(x1))], 1.0, None, paint);
        }
        start += step;
    }
}

/// A red cross: this failed.
pub(super) fn cross(sheet: &mut Sheet, x: f64, y: f64, color: Color) {
    let x = x.round() + 0.5;
    let paint = Paint::own(color);
    for (dx, dy) in [(3.5, 3.5), (3.5, -3.5)] {
        sheet.stroke(&[(x - dx, y - dy), (x + dx, y + dy)], 1.8, None, paint);
    }
}

/// The verdict on it, at its foot: a triangle if it made something worse, a disc if it made something better.
pub(super) fn verdict(sheet: &mut Sheet, x: f64, worse: bool, color: Color) {
    let x = x.round() + 0.5;
    let y = sheet.bottom;
    let paint = Paint::own(color);
    if worse {
        let points = [(x - 5.0, y - 1.0), (x, y - 10.0), (x + 5.0, y - 1.0)];
        sheet.push(Item::Fill {
            points: points.map(|(x, y)| spot(x, y)).to_vec(),
            paint,
        });
    } else {
        sheet.push(Item::Dot {
            at: spot(x, y - 5.5),
            radius: 4.0,
            paint,
        });
    }
}

/// An arrow back: this was undone.
fn undone(sheet: &mut Sheet, x: f64, paint: Paint) {
    let y = sheet.top + 6.0;
    sheet.stroke(&[(x - 1.0, y), (x - 8.0, y)], 1.2, None, paint);
    sheet.stroke(
        &[(x - 5.0, y - 3.0), (x - 8.5, y), (x - 5.0, y + 3.0)],
        1.2,
        None,
        paint,
    );
}

/// From a rollback to what it undoes, with a head at that end.
pub(super) fn tie_line(sheet: &mut Sheet, tie: &Tie) {
    let y = sheet.top + 12.0;
    let paint = Paint::own(tie.color.with_alpha(0.8));
    let towards = if tie.to < tie.from { 1.0 } else { -1.0 };
    sheet.stroke(&[(tie.from, y), (tie.to, y)], 1.0, Some((2.0, 2.0)), paint);
    let head = [
        (tie.to + 4.0 * towards, y - 3.0),
        (tie.to + towards, y),
        (tie.to + 4.0 * towards, y + 3.0),
    ];
    sheet.stroke(&head, 1.2, None, paint);
}
