//! Pictures: series and deploys on PNG and SVG.
//!
//! [`draw`] lays a request out as a [`Scene`]; [`Scene::png`] and [`Scene::svg`] are two ways to
//! look at the same one. Layout, ticks and legends follow Graphite's rules (`y_axis`, `x_axis`,
//! `line`); shapes go through plotters onto backends of ours (`raster` over tiny-skia, `vector`).
//! Text needs no font of the system: subsets of DejaVu and Noto Emoji are embedded; files with further characters can
//! be named.
//!
//! ```
//! use render::budget::Budget;
//! use render::draw::{Params, Window, draw};
//!
//! let params = Params::from_pairs(&[("title".into(), "Nothing yet".into())]);
//! let budget = Budget::unlimited();
//! let scene = draw(&params, &[], &Window::utc(0, 3600), &[], &budget)?;
//! assert!(scene.png()?.starts_with(b"\x89PNG"));
//! assert!(std::str::from_utf8(&scene.svg()?).unwrap().contains("No Data"));
//! # Ok::<(), render::Error>(())
//! ```
//!
//! 1. Every input is foreign: names, colours, numbers, times. The worst that it gets is an odd
//!    picture; what is refused, [`Error`] lists.
//! 2. The same input gives the same bytes: no clock, no environment, no randomness.
//! 3. What a picture holds is reserved before it is allocated, and no step between two looks at
//!    the clock takes long: lines have no more points than the picture can show, shapes on large
//!    pictures are painted in strips.
//! 4. The order from back to front: ground, grid, areas, events, lines, words.

mod color;
mod curve;
mod figures;
mod font;
mod graph;
mod legend;
mod line;
mod overlay;
mod params;
mod pen;
mod pie;
mod png;
mod raster;
mod reserved;
mod scene;
mod sheet;
mod template;
mod vector;
mod x_axis;
mod y_axis;

pub use color::Color;
pub use figures::{short, unknown_figure, with_figures, without_figures};
pub use font::{check_fonts, use_fonts};
pub use graph::{Known, graph};
pub use params::{GraphType, Params, PieMode};
pub use pie::Slice;
pub use scene::Scene;
pub use template::names as template_names;

use jiff::tz::TimeZone;

use self::raster::Raster;
use self::vector::Vector;
use crate::Series;
use crate::budget::Budget;
use crate::events::Event;
use crate::format::Buffer;

/// The time that a request asks for, and the zone in which its times are written.
#[derive(Clone, Debug)]
pub struct Window {
    /// Unix seconds.
    pub from: i64,
    /// Unix seconds.
    pub until: i64,
    /// Zone of the time axis.
    pub zone: TimeZone,
}

impl Window {
    /// A window with times in UTC.
    pub fn utc(from: i64, until: i64) -> Self {
        Self {
            from,
            until,
            zone: TimeZone::UTC,
        }
    }
}

/// Why there is no picture. All but [`Error::Stopped`] are the request's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Larger than 4096 × 4096 device pixels.
    #[error("a picture of {width} x {height} pixels is larger than {MOST_PIXELS} x {MOST_PIXELS}")]
    TooLarge {
        /// Device pixels across.
        width: u64,
        /// Device pixels down.
        height: u64,
    },
    /// A word that its parameter does not know.
    #[error("{parameter}={value} is not one of {allowed}")]
    UnknownWord {
        /// The parameter.
        parameter: &'static str,
        /// What it was given.
        value: String,
        /// What it takes.
        allowed: &'static str,
    },
    /// Both ends of a value axis are given and the lower is not below the upper.
    #[error("the value axis cannot go from {min} to {max}: the minimum must be below the maximum")]
    Reversed {
        /// The minimum asked for.
        min: f64,
        /// The maximum asked for.
        max: f64,
    },
    /// The time or the memory of the request has run out.
    #[error(transparent)]
    Stopped(#[from] crate::Error),
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Stopped(error) => error,
            error => Self::refused(error.to_string()),
        }
    }
}

/// Longest side of a picture, in device pixels.
pub const MOST_PIXELS: u64 = 4096;

/// Lays out the picture of `series` (evaluated, not yet consolidated; the picture thins them to
/// its pixels) with `events` (with their looks, oldest first) as lines and
/// bands on it.
///
/// Like Graphite's, the time axis runs over the series' own times; `window` only matters when there
/// are none. For [`GraphType::Pie`] each series becomes a slice.
///
/// The picture goes on reserving from `budget` for as long as it lives.
///
/// # Errors
/// [`Error`] lists what is refused; a server answers it with 400, and what has run out of
/// `budget` as such.
pub fn draw(
    params: &Params,
    series: &[Series],
    window: &Window,
    events: &[Event],
    budget: &Budget,
) -> Result<Scene, Error> {
    match params.graph_type {
        GraphType::Line => {
            check(params)?;
            line::draw(params, series, window, events, budget)
        }
        GraphType::Pie => {
            let slices: Vec<Slice> = series
                .iter()
                .map(|s| Slice::of(s, params.pie_mode))
                .collect();
            draw_pie(params, &slices, budget)
        }
    }
}

/// Lays out a pie, in the order of `slices`.
///
/// # Errors
/// As [`draw`].
pub fn draw_pie(params: &Params, slices: &[Slice], budget: &Budget) -> Result<Scene, Error> {
    check(params)?;
    Ok(pie::draw(params, slices, budget)?)
}

impl Scene {
    /// The picture as a PNG file.
    ///
    /// # Errors
    /// As [`Budget::check`] and [`Budget::reserve`].
    pub fn png(&self) -> crate::Result<Buffer> {
        let raster = Raster::new(
            self.size(),
            self.ratio as f32,
            self.background,
            &self.budget,
        )?;
        self.play(raster, Raster::encode)
    }

    /// The picture as an SVG document, which is UTF-8: real text, hover texts as `<title>`, no
    /// script.
    ///
    /// # Errors
    /// As [`Budget::check`] and [`Budget::reserve`].
    pub fn svg(&self) -> crate::Result<Buffer> {
        self.play(Vector::new(self)?, Vector::finish)
    }
}

fn check(params: &Params) -> Result<(), Error> {
    let device = |pixels: u32| (f64::from(pixels) * params.pixel_ratio).round() as u64;
    let (width, height) = (device(params.width), device(params.height));
    if width > MOST_PIXELS || height > MOST_PIXELS {
        return Err(Error::TooLarge { width, height });
    }
    match params.bad_word.clone() {
        Some(bad) => Err(Error::UnknownWord {
            parameter: bad.parameter,
            value: bad.value,
            allowed: bad.allowed,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
