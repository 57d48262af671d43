//! The sheet that a picture is laid out on: what has been drawn, and the room that is left.

use super::color::Color;
use super::params::Params;
use super::scene::{Align, Group, Item, Label, Paint, Role, Scene, Stroke, spot};

/// The room left, in pixels, and the things drawn so far.
#[derive(Debug)]
pub(super) struct Sheet {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    items: Vec<Item>,
    foreground: Color,
}

impl Sheet {
    pub(super) fn new(params: &Params) -> Self {
        let (width, height) = (f64::from(params.width), f64::from(params.height));
        let margin = params.margin.min(width / 3.0).min(height / 3.0);
        Self {
            left: margin + if params.graph_only { 0.0 } else { 10.0 },
            right: width - margin,
            top: margin,
            bottom: height - margin,
            items: Vec::new(),
            foreground: params.foreground,
        }
    }

    pub(super) fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    pub(super) fn text(&mut self, label: Label) {
        if !label.text.is_empty() {
            self.items.push(Item::Text(label));
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
        self.items.push(Item::Block {
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
        self.items.push(Item::Stroke(Stroke {
            points: points.iter().map(|p| spot(p.0, p.1)).collect(),
            width,
            dash,
            paint,
        }));
    }

    /// The title, centred on top, line by line.
    pub(super) fn title(&mut self, params: &Params) {
        if params.title.is_empty() {
            return;
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
    }

    /// A title along one side, read upwards at the left and downwards at the right.
    pub(super) fn side_title(&mut self, params: &Params, lines: &[String], right: bool) {
        if lines.is_empty() {
            return;
        }
        let font = params
            .font
            .sized(params.font.size + params.font.size.ln().max(0.0).floor());
        self.push(Item::Open(Group {
            class: if right { "vtitleRight" } else { "vtitle" },
            ..Group::default()
        }));
        let height = f64::from(params.height);
        let mut x = if right {
            f64::from(params.width) - params.margin - font.ascent()
        } else {
            params.margin + font.ascent()
        };
        for line in lines {
            self.text(Label {
                text: font.fit(line, height - 10.0),
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
        self,
        params: &Params,
        name: String,
        data: Vec<(&'static str, String)>,
    ) -> Scene {
        Scene {
            width: params.width,
            height: params.height,
            ratio: params.pixel_ratio,
            background: params.background,
            font: params.font,
            items: self.items,
            name,
            data,
        }
    }
}
