//! The sheet that a picture is laid out on: what has been drawn, and the room that is left.

use super::color::Color;
use super::params::Params;
use super::scene::{Align, Group, Item, Label, Paint, Role, Scene, Stroke, spot};
use crate::budget::Budget;
use crate::error::{Error, Result};

/// The room left, in pixels, and the things drawn so far.
#[derive(Debug)]
pub(super) struct Sheet {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    items: Vec<Item>,
    foreground: Color,
    budget: Budget,
    /// Bytes that are reserved and not used yet.
    spare: usize,
    /// Why nothing is added any more.
    stopped: Option<Error>,
}

/// What is reserved at once, at the least.
const PORTION: usize = 16 * 1024;

/// Things added between two looks at the clock.
const ROUND: usize = 256;

impl Sheet {
    pub(super) fn new(params: &Params, budget: &Budget) -> Self {
        let (width, height) = (f64::from(params.width), f64::from(params.height));
        let margin = params.margin.min(width / 3.0).min(height / 3.0);
        Self {
            left: margin + if params.graph_only { 0.0 } else { 10.0 },
            right: width - margin,
            top: margin,
            bottom: height - margin,
            items: Vec::new(),
            foreground: params.foreground,
            budget: budget.clone(),
            spare: 0,
            stopped: None,
        }
    }

    /// Adds something. Once the budget has run out nothing is added any more: [`Sheet::check`]
    /// and [`Sheet::finish`] tell.
    pub(super) fn push(&mut self, item: Item) {
        if self.stopped.is_none()
            && let Err(error) = self.try_push(item)
        {
            self.stopped = Some(error);
        }
    }

    fn try_push(&mut self, item: Item) -> Result<()> {
        // The list doubles when it is full, and for a short time there are both.
        let bytes = item.held() + 3 * size_of::<Item>();
        if bytes > self.spare {
            let portion = bytes.max(PORTION);
            self.budget.reserve(portion)?;
            self.spare += portion;
        }
        self.spare -= bytes;
        if self.items.len().is_multiple_of(ROUND) {
            self.budget.check()?;
        }
        self.items.push(item);
        Ok(())
    }

    /// Whether the work may go on.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.stopped.take() {
            Some(error) => Err(error),
            None => self.budget.check(),
        }
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(super) fn text(&mut self, label: Label) {
        if !label.text.is_empty() {
            self.push(Item::Text(label));
        }
    }

    /// The foreground colour, `strength` of its opacity.
    pub(super) fn foreground(&self, strength: f32) -> Paint {
        Paint {
            color: self.foreground.with_alpha(self.foreground.alpha * strength),
            role: Role::Foreground,
        }
    }

    pub(super) fn width(&self) -> f64 {
        self.right - self.left
    }

    pub(super) fn height(&self) -> f64 {
        self.bottom - self.top
    }

    /// A line straight along the pixels, sharp: it covers whole ones.
    pub(super) fn ruler(&mut self, from: (f64, f64), to: (f64, f64), paint: Paint) {
        let (x0, y0) = (from.0.min(to.0).round(), from.1.min(to.1).round());
        let (x1, y1) = (from.0.max(to.0).round(), from.1.max(to.1).round());
        let (x1, y1) = if x1 - x0 > y1 - y0 {
            (x1, y0 + 1.0)
        } else {
            (x0 + 1.0, y1)
        };
        self.push(Item::Block {
            from: spot(x0, y0),
            to: spot(x1, y1),
            paint,
        });
    }

    pub(super) fn stroke(
        &mut self,
        points: &[(f64, f64)],
        width: f64,
        dash: Option<(f64, f64)>,
        paint: Paint,
    ) {
        self.push(Item::Stroke(Stroke {
            points: points.iter().map(|p| spot(p.0, p.1)).collect(),
            width,
            dash,
            paint,
        }));
    }

    /// The title, centred on top, line by line.
    ///
    /// # Errors
    /// As [`Sheet::check`].
    pub(super) fn title(&mut self, params: &Params) -> Result<()> {
        if params.title.is_empty() {
            return Ok(());
        }
        let font = params
            .font
            .sized(params.font.size + params.font.size.ln().max(0.0).floor());
        self.push(Item::Open(Group {
            class: "title",
            ..Group::default()
        }));
        let width = f64::from(params.width) - 2.0 * params.margin;
        for line in &params.title {
            self.check()?;
            self.text(Label {
                text: font.fit(line, width),
                at: spot(f64::from(params.width) / 2.0, self.top + font.ascent()),
                align: Align::Middle,
                font,
                paint: self.foreground(1.0),
                angle: 0.0,
            });
            self.top += font.height();
        }
        self.push(Item::Close);
        self.top += if params.y_axis_right {
            0.0
        } else {
            params.margin.min(10.0)
        };
        Ok(())
    }

    /// A title along one side, read upwards at the left and downwards at the right.
    ///
    /// # Errors
    /// As [`Sheet::check`].
    pub(super) fn side_title(
        &mut self,
        params: &Params,
        lines: &[String],
        right: bool,
    ) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let font = params
            .font
            .sized(params.font.size + params.font.size.ln().max(0.0).floor());
        self.push(Item::Open(Group {
            class: if right { "vtitleRight" } else { "vtitle" },
            ..Group::default()
        }));
        let height = (self.bottom - self.top).max(0.0);
        let mut x = if right {
            f64::from(params.width) - params.margin - font.ascent()
        } else {
            params.margin + font.ascent()
        };
        for line in lines {
            self.check()?;
            self.text(Label {
                text: font.fit(line, height),
                at: spot(x, (self.top + self.bottom) / 2.0),
                align: Align::Middle,
                font,
                paint: self.foreground(1.0),
                angle: if right { 90.0 } else { 270.0 },
            });
            x += if right { -font.height() } else { font.height() };
        }
        self.push(Item::Close);
        let taken = font.height() * lines.len() as f64 + 4.0;
        if right {
            self.right -= taken;
        } else {
            self.left += taken;
        }
        Ok(())
    }

    /// "No Data" in the middle, in red, as Graphite writes it.
    pub(super) fn no_data(&mut self, params: &Params) {
        let (width, height) = (f64::from(params.width), f64::from(params.height));
        let font = params.font.sized(((width * height).ln() as f32).max(8.0));
        let color = Color::parse("red").unwrap_or(params.foreground);
        let text = "No Data";
        let x = ((self.left + self.right) / 2.0).round();
        let y = ((self.top + self.bottom + font.cap_height()) / 2.0).round();
        // Nothing shines through the words.
        let half = (font.width(text) / 2.0 + 4.0).round();
        self.push(Item::Block {
            from: spot(x - half, y - font.ascent()),
            to: spot(x + half, y + font.descent()),
            paint: Paint {
                color: params.background,
                role: Role::Background,
            },
        });
        self.text(Label {
            text: text.to_owned(),
            at: spot(x, y),
            align: Align::Middle,
            font,
            paint: Paint::own(color),
            angle: 0.0,
        });
    }

    pub(super) fn finish(
        mut self,
        params: &Params,
        name: String,
        data: Vec<(&'static str, String)>,
    ) -> Result<Scene> {
        self.check()?;
        self.budget.reserve(name.len())?;
        Ok(Scene {
            width: params.width,
            height: params.height,
            ratio: params.pixel_ratio,
            background: params.background,
            font: params.font,
            items: self.items,
            name,
            data,
            budget: self.budget,
        })
    }
}
