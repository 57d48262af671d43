//! The legend below a picture: columns as wide as the longest name, as in Graphite.

use super::color::Color;
use super::params::Params;
use super::scene::{Align, Group, Item, Label, Paint, spot};
use super::sheet::Sheet;
use crate::error::Result;

/// A name with its colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) color: Color,
    /// Belongs to the second axis.
    pub(super) right: bool,
}

const PADDING: f64 = 5.0;

/// Draws `entries` at the foot of `sheet` and takes their room off it.
///
/// # Errors
/// As [`Sheet::check`].
pub(super) fn draw<'a>(
    sheet: &mut Sheet,
    params: &Params,
    entries: impl Iterator<Item = Entry<'a>>,
) -> Result<()> {
    let mut lists = sheet.budget().hold(0)?;
    let mut all = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let width = f64::from(params.width);
    let mut widest = 0.0_f64;
    for entry in entries {
        sheet.check()?;
        // In two lists and in a set, each of which doubles when it is full.
        lists.grow(6 * size_of::<Entry<'_>>() + 4 * size_of::<&str>())?;
        if params.unique_legend && !seen.insert(entry.name) {
            continue;
        }
        // Wider than the picture is as good as any wider.
        widest = widest.max(params.font.width_within(entry.name, width));
        all.push(entry);
    }
    if all.is_empty() {
        return Ok(());
    }
    let font = params.font;
    let line = font.height() + 2.0;
    let swatch = font.cap_height() + 1.0;
    let left = sheet.left.min(params.margin + 10.0);
    let right = f64::from(params.width) - params.margin;
    let column = (widest + 2.0 * (swatch + PADDING)).min((right - left).max(1.0));
    let columns = ((right - left) / column).floor().max(1.0) as usize;

    // Two columns' worth of room: left names from the left, right names from the right.
    let sides = all.iter().any(|e| e.right) && 2.0 * (widest + swatch + PADDING) + 50.0 < width;
    let (near, far): (Vec<_>, Vec<_>) = all.into_iter().partition(|e| !(sides && e.right));
    let columns = if sides { (columns / 2).max(1) } else { columns };
    let rows = near.len().max(far.len()).div_ceil(columns);

    // A legend may take most of a picture, but not all of it.
    let room = (sheet.bottom - sheet.top - 60.0).max(sheet.bottom / 3.0);
    let most = ((room - PADDING) / line).floor().max(0.0) as usize;
    let shown = rows.min(most);
    if shown == 0 {
        return Ok(());
    }
    sheet.bottom -= shown as f64 * line + PADDING;
    let top = sheet.bottom + 2.0 * PADDING;
    sheet.push(Item::Open(Group {
        class: "legend",
        ..Group::default()
    }));
    let cells = shown * columns;
    let hidden = near.len().saturating_sub(cells) + far.len().saturating_sub(cells);
    for (side, entries) in [(false, near), (true, far)] {
        let over = entries.len() > cells;
        let last = if over { cells - 1 } else { entries.len() };
        for (i, entry) in entries.iter().take(last).enumerate() {
            sheet.check()?;
            let y = top + (i / columns) as f64 * line;
            let step = (i % columns) as f64 * column;
            let x = if side { right - step } else { left + step };
            one(sheet, params, entry, (x, y), column, side);
        }
        if over {
            let y = top + ((cells - 1) / columns) as f64 * line;
            let step = ((cells - 1) % columns) as f64 * column;
            sheet.text(Label {
                text: format!("… and {} more", hidden + 1),
                at: spot(if side { right - step } else { left + step }, y + swatch),
                align: if side { Align::End } else { Align::Start },
                font,
                paint: sheet.foreground(0.7),
                angle: 0.0,
            });
        }
    }
    sheet.push(Item::Close);
    Ok(())
}

fn one(
    sheet: &mut Sheet,
    params: &Params,
    entry: &Entry<'_>,
    (x, y): (f64, f64),
    column: f64,
    side: bool,
) {
    let font = params.font;
    let size = font.cap_height() + 1.0;
    let name = font.fit(entry.name, column - size - PADDING);
    let (box_x, text_x, align) = if side {
        (x - size, x - size - PADDING, Align::End)
    } else {
        (x, x + size + PADDING, Align::Start)
    };
    let cut = name != entry.name;
    if cut {
        sheet.push(Item::Open(Group {
            class: "name",
            title: Some(entry.name.to_owned()),
            ..Group::default()
        }));
    }
    let (box_x, y) = (box_x.round(), y.round());
    sheet.push(Item::Block {
        from: spot(box_x, y),
        to: spot(box_x + size, y + size),
        paint: Paint::own(entry.color),
    });
    sheet.text(Label {
        text: name,
        at: spot(text_x, y + size - 0.5),
        align,
        font,
        paint: sheet.foreground(1.0),
        angle: 0.0,
    });
    if cut {
        sheet.push(Item::Close);
    }
}
