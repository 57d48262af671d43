//! The plotters backend that writes SVG.
//!
//! 1. Everything that came from outside (names, titles, tags, links) passes through [`escape`],
//!    which also drops what XML cannot hold. Links are `http` or `https` or not there.
//! 2. No script, no style that reaches outside, no reference to another document.
//! 3. Long lines are written as whole grid units with relative steps under a scale, which is half
//!    the size of decimal places.

use std::io::Write as _;

use plotters_backend::{BackendColor, BackendStyle, DrawingBackend, DrawingErrorKind};

use super::font::{Face, Font};
use super::scene::{Align, Canvas, Drawn, GRID, Group, Label, Paint, Role, Scene, Spot};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::format::Buffer;
use crate::format::buffer::stopped;

pub(super) struct Vector {
    out: Buffer,
    budget: Budget,
    size: (u32, u32),
    font: Font,
    role: Role,
    dash: Option<(f64, f64)>,
    /// For each open group, whether a link was opened with it.
    open: Vec<bool>,
}

/// Writes to a buffer, within its budget.
macro_rules! put {
    ($out:expr, $($text:tt)*) => {
        write!($out, $($text)*).map_err(stopped)?
    };
}

impl Vector {
    pub(super) fn new(scene: &Scene) -> Result<Self> {
        let mut out = Buffer::new(&scene.budget);
        let (w, h) = scene.size();
        put!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" \
             viewBox=\"0 0 {} {}\" class=\"graphite\" role=\"graphics-document document\" aria-label=\"",
            scene.width,
            scene.height
        );
        escape(&scene.name, &mut out)?;
        put!(
            out,
            "\" font-family=\"{}\" font-size=\"{}\"{}{}",
            family(scene.font.face),
            Decimal(f64::from(scene.font.size)),
            if scene.font.face == Face::Bold {
                " font-weight=\"bold\""
            } else {
                ""
            },
            if scene.font.italic {
                " font-style=\"italic\""
            } else {
                ""
            },
        );
        data(&scene.data, &mut out)?;
        out.push_str(">\n")?;
        let mut vector = Self {
            out,
            budget: scene.budget.clone(),
            size: (scene.width, scene.height),
            font: scene.font,
            role: Role::Background,
            dash: None,
            open: Vec::new(),
        };
        vector
            .out
            .push_str("<rect width=\"100%\" height=\"100%\"")?;
        let [r, g, b] = scene.background.rgb;
        vector.fill(BackendColor {
            alpha: f64::from(scene.background.alpha),
            rgb: (r, g, b),
        })?;
        vector.out.push_str("/>\n")?;
        Ok(vector)
    }

    pub(super) fn finish(&mut self) -> Result<Buffer> {
        for _ in 0..self.open.len() {
            self.close()?;
        }
        self.out.push_str("</svg>\n")?;
        Ok(std::mem::replace(&mut self.out, Buffer::new(&self.budget)))
    }

    fn fill(&mut self, color: BackendColor) -> Result<()> {
        self.color("fill", color)
    }

    /// Colours of the template can be overridden by CSS variables where the SVG stands in a page.
    fn color(&mut self, attribute: &str, color: BackendColor) -> Result<()> {
        let (r, g, b) = color.rgb;
        let variable = match self.role {
            Role::Background => Some("bg"),
            Role::Foreground => Some("fg"),
            Role::MajorLine => Some("major"),
            Role::MinorLine => Some("minor"),
            Role::Own => None,
        };
        match variable {
            Some(name) => put!(
                self.out,
                " style=\"{attribute}:var(--graph-{name},#{r:02x}{g:02x}{b:02x})\""
            ),
            None => put!(self.out, " {attribute}=\"#{r:02x}{g:02x}{b:02x}\""),
        }
        if color.alpha < 1.0 {
            put!(
                self.out,
                " {attribute}-opacity=\"{}\"",
                Decimal(color.alpha)
            );
        }
        Ok(())
    }

    /// Whole units relative to the last point, `z` left to the caller.
    fn path(&mut self, points: impl IntoIterator<Item = Spot>) -> Result<()> {
        let mut points = points.into_iter();
        let Some((mut x, mut y)) = points.next() else {
            return Ok(());
        };
        let mut digits = itoa::Buffer::new();
        let budget = self.budget.clone();
        let mut pace = budget.pace();
        put!(self.out, "M{x} {y}l");
        let mut first = true;
        for (to_x, to_y) in points {
            pace.check()?;
            let (dx, dy) = (to_x - x, to_y - y);
            let out = self.out.room(STEP_ROOM)?;
            if !first && dx >= 0 {
                out.push(b' ');
            }
            out.extend_from_slice(digits.format(dx).as_bytes());
            if dy >= 0 {
                out.push(b' ');
            }
            out.extend_from_slice(digits.format(dy).as_bytes());
            (x, y) = (to_x, to_y);
            first = false;
        }
        if first {
            self.out.push_str("0 0")?;
        }
        Ok(())
    }

    fn outline(&mut self, style: &impl BackendStyle) -> Result<()> {
        self.out.push_str(" fill=\"none\"")?;
        self.color("stroke", style.color())?;
        put!(self.out, " stroke-width=\"{}\"", style.stroke_width());
        if let Some((drawn, left_out)) = self.dash {
            let unit = f64::from(GRID);
            put!(
                self.out,
                " stroke-dasharray=\"{} {}\"",
                Decimal(drawn * unit),
                Decimal(left_out * unit)
            );
        }
        Ok(())
    }

    fn rectangle(&mut self, a: Spot, b: Spot, style: &impl BackendStyle, fill: bool) -> Result<()> {
        let (left, top) = (a.0.min(b.0), a.1.min(b.1));
        let (width, height) = ((a.0 - b.0).abs(), (a.1 - b.1).abs());
        if fill {
            put!(
                self.out,
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"",
                pixels(left),
                pixels(top),
                pixels(width),
                pixels(height)
            );
            self.fill(style.color())?;
        } else {
            put!(
                self.out,
                "<rect{SCALE} x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\""
            );
            self.outline(style)?;
        }
        self.out.push_str("/>\n")
    }

    fn line(
        &mut self,
        points: impl IntoIterator<Item = Spot>,
        style: &impl BackendStyle,
    ) -> Result<()> {
        put!(self.out, "<path{SCALE}");
        self.outline(style)?;
        self.out.push_str(" d=\"")?;
        self.path(points)?;
        self.out.push_str("\"/>\n")
    }

    fn circle(
        &mut self,
        (x, y): Spot,
        radius: u32,
        style: &impl BackendStyle,
        fill: bool,
    ) -> Result<()> {
        put!(
            self.out,
            "<circle{SCALE} cx=\"{x}\" cy=\"{y}\" r=\"{radius}\""
        );
        if fill {
            self.fill(style.color())?;
        } else {
            self.outline(style)?;
        }
        self.out.push_str("/>\n")
    }

    fn polygon(
        &mut self,
        points: impl IntoIterator<Item = Spot>,
        style: &impl BackendStyle,
    ) -> Result<()> {
        put!(self.out, "<path{SCALE}");
        self.fill(style.color())?;
        self.out.push_str(" d=\"")?;
        self.path(points)?;
        self.out.push_str("z\"/>\n")
    }
}

/// Two numbers of the grid, with their signs.
const STEP_ROOM: usize = 24;

const SCALE: &str = " transform=\"scale(.05)\"";

/// Grid units as pixels.
fn pixels(units: i32) -> Decimal {
    Decimal(f64::from(units) / f64::from(GRID))
}

/// A number with at most two decimals and no useless zeros.
struct Decimal(f64);

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hundredths = (self.0 * 100.0).round() as i64;
        let minus = if hundredths < 0 { "-" } else { "" };
        let (whole, part) = (hundredths.abs() / 100, hundredths.abs() % 100);
        match part {
            0 => write!(f, "{minus}{whole}"),
            p if p % 10 == 0 => write!(f, "{minus}{whole}.{}", p / 10),
            p => write!(f, "{minus}{whole}.{p:02}"),
        }
    }
}

fn family(face: Face) -> &'static str {
    match face {
        Face::Mono => "DejaVu Sans Mono, Menlo, Consolas, monospace",
        Face::Sans | Face::Bold | Face::Fallback(_) => "DejaVu Sans, Verdana, Segoe UI, sans-serif",
    }
}

fn data(pairs: &[(&'static str, String)], out: &mut Buffer) -> Result<()> {
    for (name, value) in pairs {
        put!(out, " data-{name}=\"");
        escape(value, out)?;
        out.push_str("\"")?;
    }
    Ok(())
}

/// Text for content and for attributes in double quotes. Characters that XML 1.0 does not allow
/// become U+FFFD.
pub(super) fn escape(text: &str, out: &mut Buffer) -> Result<()> {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;")?,
            '<' => out.push_str("&lt;")?,
            '>' => out.push_str("&gt;")?,
            '"' => out.push_str("&quot;")?,
            '\'' => out.push_str("&#39;")?,
            // As they are, a parser would fold them to blanks in attributes.
            '\t' | '\n' | '\r' => put!(out, "&#{};", c as u32),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                out.push_str("\u{fffd}")?;
            }
            // Overrides of the writing direction would leak out of the name that holds them.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push_str("\u{fffd}")?,
            c => out.push_str(c.encode_utf8(&mut [0; 4]))?,
        }
    }
    Ok(())
}

/// Whether a link may be followed: only `http` and `https`, in upper or lower case.
pub(super) fn is_web(link: &str) -> bool {
    let begins = |scheme: &str| {
        link.get(..scheme.len())
            .is_some_and(|l| l.eq_ignore_ascii_case(scheme))
    };
    begins("http://") || begins("https://")
}

impl DrawingBackend for Vector {
    type ErrorType = Error;

    fn get_size(&self) -> (u32, u32) {
        (self.size.0 * GRID as u32, self.size.1 * GRID as u32)
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, at: Spot, color: BackendColor) -> Drawn {
        self.draw_rect(at, (at.0 + GRID, at.1 + GRID), &color, true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: Spot, to: Spot, style: &S) -> Drawn {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(&mut self, a: Spot, b: Spot, style: &S, fill: bool) -> Drawn {
        self.rectangle(a, b, style, fill)
            .map_err(DrawingErrorKind::DrawingError)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = Spot>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Drawn {
        self.line(points, style)
            .map_err(DrawingErrorKind::DrawingError)
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        center: Spot,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Drawn {
        self.circle(center, radius, style, fill)
            .map_err(DrawingErrorKind::DrawingError)
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = Spot>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Drawn {
        self.polygon(points, style)
            .map_err(DrawingErrorKind::DrawingError)
    }
}

impl Canvas for Vector {
    fn prepare(&mut self, paint: Paint, dash: Option<(f64, f64)>) {
        self.role = paint.role;
        self.dash = dash;
    }

    fn open(&mut self, group: &Group) -> Result<()> {
        let link = group.link.as_deref().filter(|l| is_web(l));
        if let Some(link) = link {
            self.out.push_str("<a href=\"")?;
            escape(link, &mut self.out)?;
            self.out
                .push_str("\" target=\"_blank\" rel=\"noopener noreferrer\">")?;
        }
        put!(self.out, "<g class=\"{}\"", group.class);
        data(&group.data, &mut self.out)?;
        if group.decoration {
            self.out.push_str(" aria-hidden=\"true\"")?;
        }
        self.out.push_str(">")?;
        if let Some(title) = &group.title {
            self.out.push_str("<title>")?;
            escape(title, &mut self.out)?;
            self.out.push_str("</title>")?;
        }
        self.out.push_str("\n")?;
        self.open.push(link.is_some());
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some(link) = self.open.pop() {
            self.out.push_str("</g>")?;
            self.out.push_str(if link { "</a>\n" } else { "\n" })?;
        }
        Ok(())
    }

    fn feel(&mut self, a: Spot, b: Spot) -> Result<()> {
        put!(
            self.out,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" \
             pointer-events=\"all\"/>\n",
            pixels(a.0.min(b.0)),
            pixels(a.1.min(b.1)),
            pixels((a.0 - b.0).abs()),
            pixels((a.1 - b.1).abs())
        );
        Ok(())
    }

    fn label(&mut self, label: &Label, (x, y): Spot) -> Result<()> {
        put!(self.out, "<text x=\"{}\" y=\"{}\"", pixels(x), pixels(y));
        match label.align {
            Align::Start => {}
            Align::Middle => self.out.push_str(" text-anchor=\"middle\"")?,
            Align::End => self.out.push_str(" text-anchor=\"end\"")?,
        }
        if label.angle != 0.0 {
            put!(
                self.out,
                " transform=\"rotate({} {} {})\"",
                Decimal(f64::from(label.angle)),
                pixels(x),
                pixels(y)
            );
        }
        if label.font.size != self.font.size {
            put!(
                self.out,
                " font-size=\"{}\"",
                Decimal(f64::from(label.font.size))
            );
        }
        if label.font.face != self.font.face {
            let weight = if label.font.face == Face::Bold {
                "bold"
            } else {
                "normal"
            };
            put!(self.out, " font-weight=\"{weight}\"");
        }
        self.role = label.paint.role;
        let [r, g, b] = label.paint.color.rgb;
        self.fill(BackendColor {
            alpha: f64::from(label.paint.color.alpha),
            rgb: (r, g, b),
        })?;
        // Blanks within a name are part of it (cactiStyle lines its columns up with them).
        if label.text.contains("  ") {
            self.out.push_str(" xml:space=\"preserve\"")?;
        }
        self.out.push_str(">")?;
        escape(&label.text, &mut self.out)?;
        self.out.push_str("</text>\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (1.0, "1"),
            (1.2, "1.2"),
            (-0.05, "-0.05"),
            (0.001, "0"),
            (586.0, "586"),
            (-3.5, "-3.5"),
        ] {
            assert_eq!(Decimal(value).to_string(), text);
        }
    }

    #[test]
    fn only_web_links_are_links() {
        for good in ["http://x", "https://ci/1", "HTTPS://CI"] {
            assert!(is_web(good), "{good}");
        }
        for bad in [
            "javascript:alert(1)",
            " http://x",
            "data:text/html,x",
            "//x",
            "",
            "httpx",
        ] {
            assert!(!is_web(bad), "{bad}");
        }
    }

    #[test]
    fn escaped_text_holds_no_markup() {
        let mut out = Buffer::new(&Budget::unlimited());
        escape("<script>\"'&\u{0}\u{1b}\u{ffff}\u{202e}\n", &mut out).unwrap();
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "&lt;script&gt;&quot;&#39;&amp;\u{fffd}\u{fffd}\u{fffd}\u{fffd}&#10;"
        );
    }
}
