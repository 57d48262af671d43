//! A picture as a list of things to draw: what [`super::draw`] makes, and PNG and SVG come from.
//!
//! Places are on a grid of [`GRID`] units to the pixel, because plotters counts in whole numbers:
//! so lines keep their slope. Every output plays the same list through a plotters drawing area onto
//! a backend of ours, a [`Canvas`]: it also takes what plotters' backends do not know (groups with
//! hover text, dashes, text at odd angles). The scene does not know its backends.

use std::cell::RefCell;
use std::rc::Rc;

use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind};
use plotters::element::{
    BackendCoordOnly, Circle, Drawable, PathElement, PointCollection, Polygon, Rectangle,
};
use plotters::style::{RGBAColor, ShapeStyle};
use plotters_backend::{BackendCoord, DrawingBackend, DrawingErrorKind};

use super::color::Color;
use super::font::Font;
use crate::budget::Budget;
use crate::error::{Error, Result};

/// Grid units to the pixel: 20 holds the default width of lines (1.2) and Graphite's grid lines
/// (0.4, 0.25) exactly, and prints short in SVG.
pub(super) const GRID: i32 = 20;

/// A place on the grid.
pub(super) type Spot = BackendCoord;

/// The grid place of a place in pixels, kept within what pictures can have.
pub(super) fn spot(x: f64, y: f64) -> Spot {
    (units(x), units(y))
}

/// Pixels as grid units.
pub(super) fn units(pixels: f64) -> i32 {
    // A cast saturates, and NaN is 0; the bound leaves room to add such places up.
    ((pixels * f64::from(GRID)).round() as i32).clamp(-(1 << 24), 1 << 24)
}

/// The part that a colour plays, so that a page can restyle an SVG by CSS variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Background,
    Foreground,
    MajorLine,
    MinorLine,
    /// Belongs to a series or an event.
    Own,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Paint {
    pub(super) color: Color,
    pub(super) role: Role,
}

impl Paint {
    pub(super) fn own(color: Color) -> Self {
        Self {
            color,
            role: Role::Own,
        }
    }
}

/// Where a text stands relative to its place, along its line. Its place is always on the baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Align {
    #[default]
    Start,
    Middle,
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) text: String,
    pub(super) at: Spot,
    pub(super) align: Align,
    pub(super) font: Font,
    pub(super) paint: Paint,
    /// Degrees clockwise.
    pub(super) angle: f32,
}

/// A polyline. `width` and `dash` (drawn, left out) are in pixels.
#[derive(Clone, Debug)]
pub(super) struct Stroke {
    pub(super) points: Vec<Spot>,
    pub(super) width: f64,
    pub(super) dash: Option<(f64, f64)>,
    pub(super) paint: Paint,
}

/// A group: one series, one event, the grid.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) class: &'static str,
    /// Hover text, and what a screen reader says.
    pub(super) title: Option<String>,
    /// Where a click leads; only `http` and `https` are let through.
    pub(super) link: Option<String>,
    /// `data-…` attributes.
    pub(super) data: Vec<(&'static str, String)>,
    /// Left out of what a screen reader says.
    pub(super) decoration: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Item {
    Open(Group),
    Close,
    Fill {
        points: Vec<Spot>,
        paint: Paint,
    },
    Block {
        from: Spot,
        to: Spot,
        paint: Paint,
    },
    Stroke(Stroke),
    /// A round point; the radius is in pixels.
    Dot {
        at: Spot,
        radius: f64,
        paint: Paint,
    },
    Text(Label),
    /// Invisible, but the mouse feels it: for hover text over narrow lines. Not in a PNG.
    Feel {
        from: Spot,
        to: Spot,
    },
}

impl Item {
    /// The bytes that it holds beside itself.
    pub(super) fn held(&self) -> usize {
        let points = |points: &Vec<Spot>| points.capacity() * size_of::<Spot>();
        match self {
            Self::Open(group) => {
                let texts = [&group.title, &group.link].into_iter().flatten();
                let data = group.data.iter().map(|(_, text)| text);
                let entries = group.data.capacity() * size_of::<(&str, String)>();
                texts.chain(data).map(String::capacity).sum::<usize>() + entries
            }
            Self::Fill { points: all, .. } => points(all),
            Self::Stroke(stroke) => points(&stroke.points),
            Self::Text(label) => label.text.capacity(),
            Self::Close | Self::Block { .. } | Self::Dot { .. } | Self::Feel { .. } => 0,
        }
    }
}

/// A drawn picture, from which PNG and SVG can be made.
#[derive(Clone, Debug)]
pub struct Scene {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) ratio: f64,
    pub(super) background: Color,
    pub(super) font: Font,
    pub(super) items: Vec<Item>,
    /// One line that says what the picture shows.
    pub(super) name: String,
    /// `data-…` attributes of the whole: the plot's place and time range, for scripts around it.
    pub(super) data: Vec<(&'static str, String)>,
    pub(super) budget: Budget,
}

impl Scene {
    /// Width and height in device pixels.
    pub fn size(&self) -> (u32, u32) {
        let scale = |pixels: u32| ((f64::from(pixels) * self.ratio).round() as u32).max(1);
        (scale(self.width), scale(self.height))
    }

    /// Draws every item onto `canvas`, and gives what `finish` makes of it.
    ///
    /// # Errors
    /// As [`Budget::check`] and [`Budget::reserve`], and those of `canvas` and `finish`.
    pub(super) fn play<C: Canvas, T>(
        &self,
        canvas: C,
        finish: impl FnOnce(&mut C) -> Result<T>,
    ) -> Result<T> {
        let canvas = Rc::new(RefCell::new(canvas));
        let area = DrawingArea::from(&canvas);
        // Each shape is copied while it is drawn, once as it is and once in place.
        let largest = self.items.iter().map(Item::held).max().unwrap_or(0);
        let _copies = self.budget.hold(largest.saturating_mul(2))?;
        for item in &self.items {
            self.budget.check()?;
            match item {
                Item::Open(group) => put(&area, &Opening(group)),
                Item::Close => put(&area, &Closing),
                Item::Fill { points, paint } => {
                    let shape = Polygon::new(points.clone(), style(*paint, 0.0));
                    put(&area, &Preparing(*paint, None))?;
                    put(&area, &shape)
                }
                Item::Block { from, to, paint } => {
                    let shape = Rectangle::new([*from, *to], style(*paint, 0.0).filled());
                    put(&area, &Preparing(*paint, None))?;
                    put(&area, &shape)
                }
                Item::Stroke(stroke) => {
                    let style = style(stroke.paint, stroke.width);
                    let path = PathElement::new(stroke.points.clone(), style);
                    put(&area, &Preparing(stroke.paint, stroke.dash))?;
                    put(&area, &path)
                }
                Item::Dot { at, radius, paint } => {
                    let shape = Circle::new(*at, units(*radius), style(*paint, 0.0).filled());
                    put(&area, &Preparing(*paint, None))?;
                    put(&area, &shape)
                }
                Item::Text(label) => put(&area, label),
                Item::Feel { from, to } => put(&area, &Feeling([*from, *to])),
            }?;
        }
        drop(area);
        finish(&mut canvas.borrow_mut())
    }
}

fn style(paint: Paint, width: f64) -> ShapeStyle {
    let [r, g, b] = paint.color.rgb;
    ShapeStyle {
        color: RGBAColor(r, g, b, f64::from(paint.color.alpha)),
        filled: false,
        stroke_width: units(width).max(1) as u32,
    }
}

/// Our backends fail when the budget has run out, and are not shared while an element is
/// drawn.
fn put<'a, C, E>(area: &DrawingArea<C, Shift>, element: &'a E) -> Result<()>
where
    C: Canvas,
    &'a E: PointCollection<'a, Spot, BackendCoordOnly>,
    E: Drawable<C, BackendCoordOnly>,
{
    area.draw::<E, BackendCoordOnly>(element)
        .map_err(|error| match error {
            DrawingAreaErrorKind::BackendError(DrawingErrorKind::DrawingError(error)) => error,
            other => Error::Failed(other.to_string()),
        })
}

/// A plotters backend that can do what ours need beyond plotters.
pub(super) trait Canvas: DrawingBackend<ErrorType = Error> {
    /// What the next shape is painted with, as far as plotters' styles cannot say it.
    fn prepare(&mut self, paint: Paint, dash: Option<(f64, f64)>);
    /// Begins a group.
    fn open(&mut self, group: &Group) -> Result<()>;
    /// Ends it.
    fn close(&mut self) -> Result<()>;
    /// Draws text.
    fn label(&mut self, label: &Label, at: Spot) -> Result<()>;
    /// Makes a rectangle feel the mouse.
    fn feel(&mut self, from: Spot, to: Spot) -> Result<()>;
}

/// What plotters hands on of the errors of a backend.
pub(super) type Drawn = Result<(), DrawingErrorKind<Error>>;

/// What the element after it is painted with.
struct Preparing(Paint, Option<(f64, f64)>);
struct Opening<'g>(&'g Group);
struct Closing;
struct Feeling([Spot; 2]);

macro_rules! element {
    ($type:ty, $points:expr, $draw:expr) => {
        impl<'a> PointCollection<'a, Spot> for &'a $type {
            type Point = &'a Spot;
            type IntoIter = &'a [Spot];

            fn point_iter(self) -> Self::IntoIter {
                let points: fn(&'a $type) -> &'a [Spot] = $points;
                points(self)
            }
        }

        impl<C: Canvas> Drawable<C> for $type {
            fn draw<I: Iterator<Item = Spot>>(
                &self,
                mut points: I,
                canvas: &mut C,
                _: (u32, u32),
            ) -> Drawn {
                let draw: fn(&Self, &mut C, &mut I) -> Option<Result<()>> = $draw;
                let drawn = draw(self, canvas, &mut points);
                drawn
                    .unwrap_or(Ok(()))
                    .map_err(DrawingErrorKind::DrawingError)
            }
        }
    };
}

element!(Opening<'_>, |_| &[], |e, canvas, _| {
    Some(canvas.open(e.0))
});
element!(Preparing, |_| &[], |e, canvas, _| {
    canvas.prepare(e.0, e.1);
    None
});
element!(Closing, |_| &[], |_, canvas, _| { Some(canvas.close()) });
element!(Feeling, |e| &e.0, |_, canvas, points| {
    Some(canvas.feel(points.next()?, points.next()?))
});
element!(
    Label,
    |label| std::slice::from_ref(&label.at),
    |label, canvas, points| { Some(canvas.label(label, points.next()?)) }
);
