//! Grid lines and the labels of the axes.

use super::super::Window;
use super::super::color::Color;
use super::super::scene::{Align, Group, Item, Label, Paint, Role, spot};
use super::super::sheet::Sheet;
use super::super::x_axis::{self, Scale};
use super::{LABEL_GAP, Plot};
use crate::error::Result;

impl Plot<'_> {
    /// Grid lines and the labels of time.
    pub(super) fn x_axis(&self, sheet: &mut Sheet, window: &Window) -> Result<()> {
        let params = self.params;
        if params.hide_axes {
            return Ok(());
        }
        let scale = Scale::choose(self.times.end - self.times.start, self.width);
        let ticks = |every| x_axis::ticks(every, self.times.start, self.times.end, &window.zone);
        if !params.hide_grid {
            self.grid(sheet, &ticks(scale.minor), &ticks(scale.major))?;
        }
        if params.hide_x_axis {
            return Ok(());
        }
        sheet.push(Item::Open(Group {
            class: "axes",
            ..Group::default()
        }));
        let format = params.x_format.as_deref().unwrap_or(scale.format);
        let mut free_from = 1.0;
        for at in ticks(scale.label) {
            // A format may be long.
            sheet.check()?;
            let text = x_axis::written(at, &window.zone, format);
            let width = params.font.width_within(&text, f64::from(params.width));
            // Labels at the ends move inwards; one that would touch its neighbour stays out.
            let most = f64::from(params.width) - 1.0 - width;
            let start = (self.x(at) - width / 2.0).min(most);
            let start = if start < free_from && free_from == 1.0 {
                1.0
            } else {
                start
            };
            if start < free_from || width == 0.0 {
                continue;
            }
            free_from = start + width + params.font.width(" ").max(3.0);
            sheet.text(Label {
                text,
                at: spot(start, self.bottom + 7.0 + params.font.cap_height()),
                align: Align::Start,
                font: params.font,
                paint: sheet.foreground(1.0),
                angle: 0.0,
            });
        }
        sheet.push(Item::Close);
        Ok(())
    }

    fn grid(&self, sheet: &mut Sheet, minor_times: &[i64], major_times: &[i64]) -> Result<()> {
        let params = self.params;
        // Graphite's grid lines are 0.25 to 0.5 of a pixel wide. Ours are whole, sharp pixels at
        // about that strength, and fainter where they would stand out from the ground too much.
        let paint = |color: Color, role, strength: f32| {
            let apart = (color.luminance() - params.background.luminance()).abs();
            let strength = strength.min(strength * 0.45 / apart.max(0.01));
            Paint {
                color: color.with_alpha(color.alpha * strength),
                role,
            }
        };
        let minor = |strength| paint(params.minor_line, Role::MinorLine, strength);
        let major = |strength| paint(params.major_line, Role::MajorLine, strength);
        sheet.push(Item::Open(Group {
            class: "grid",
            decoration: true,
            ..Group::default()
        }));
        let (left, right, top, bottom) = (sheet.left, sheet.right, self.top, self.bottom);
        let axis = self.axes[0].as_ref();
        let labels = axis.map_or(&[][..], |a| &a.labels[..]);
        for (i, (value, _)) in labels.iter().enumerate() {
            let Some(share) = axis.and_then(|a| a.share(*value)) else {
                continue;
            };
            let y = self.y(share);
            sheet.ruler((left, y), (right, y), major(0.5));
            let Some((next, _)) = labels.get(i + 1) else {
                continue;
            };
            for part in 1..=params.minor_y {
                let between = f64::from(part) / f64::from(params.minor_y + 1);
                let value = value + (next - value) * between;
                if let Some(share) = axis.and_then(|a| a.share(value)) {
                    let y = self.y(share);
                    sheet.ruler((left, y), (right, y), minor(0.3));
                }
            }
        }
        let visible = |at: &&i64| (left..right).contains(&self.x(**at));
        let on_major = |at: &&i64| !major_times.contains(at);
        for at in minor_times.iter().filter(visible).filter(on_major) {
            let x = self.x(*at);
            sheet.ruler((x, top), (x, bottom), minor(0.3));
        }
        for at in major_times.iter().filter(visible) {
            let x = self.x(*at);
            sheet.ruler((x, top), (x, bottom), major(0.5));
        }
        for x in [left, right - 1.0] {
            sheet.ruler((x, top), (x, bottom), major(0.7));
        }
        sheet.push(Item::Close);
        sheet.check()
    }

    pub(super) fn y_labels(&self, sheet: &mut Sheet) {
        let params = self.params;
        if params.hide_axes || params.hide_y_axis {
            return;
        }
        sheet.push(Item::Open(Group {
            class: "axes",
            ..Group::default()
        }));
        let two_axes = self.axes[1].is_some();
        for (i, axis) in self.axes.iter().enumerate() {
            let Some(axis) = axis else {
                continue;
            };
            let at_right = i == 1 || (!two_axes && params.y_axis_right);
            let half = params.font.cap_height() / 2.0;
            let mut free_from = f64::INFINITY;
            for (value, text) in &axis.labels {
                let Some(share) = axis.share(*value) else {
                    continue;
                };
                let y = (self.y(share) + half).round().max(params.font.cap_height());
                // Steps may be closer together than lines of text.
                if y > free_from {
                    continue;
                }
                free_from = y - params.font.cap_height() - 2.0;
                sheet.text(Label {
                    text: text.clone(),
                    at: if at_right {
                        spot(sheet.right + LABEL_GAP, y)
                    } else {
                        spot(sheet.left - LABEL_GAP, y)
                    },
                    align: if at_right { Align::Start } else { Align::End },
                    font: params.font,
                    paint: sheet.foreground(1.0),
                    angle: 0.0,
                });
            }
        }
        sheet.push(Item::Close);
    }
}
