//! Colours: Graphite's names, hex with or without alpha.

/// A colour with opacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Color {
    /// Red, green, blue.
    pub rgb: [u8; 3],
    /// 0 (invisible) to 1.
    pub alpha: f32,
}

/// The colours of lines where no template and no parameter says otherwise, as in Graphite.
pub(super) const LINE_COLORS: &str =
    "blue,green,red,purple,brown,yellow,aqua,grey,magenta,pink,gold,rose";

/// Graphite's names. They are not the web's: `red` is a dark pink.
const NAMES: &[(&str, [u8; 3])] = &[
    ("aqua", [0, 150, 150]),
    ("black", [0, 0, 0]),
    ("blue", [100, 100, 255]),
    ("brown", [150, 100, 50]),
    ("cyan", [0, 255, 255]),
    ("darkblue", [0, 0, 255]),
    ("darkgray", [111, 111, 111]),
    ("darkgreen", [0, 255, 0]),
    ("darkgrey", [111, 111, 111]),
    ("darkred", [255, 0, 0]),
    ("gold", [200, 200, 0]),
    ("gray", [175, 175, 175]),
    ("green", [0, 200, 0]),
    ("grey", [175, 175, 175]),
    ("magenta", [255, 0, 255]),
    ("orange", [255, 165, 0]),
    ("pink", [255, 100, 100]),
    ("purple", [200, 100, 255]),
    ("red", [200, 0, 50]),
    ("rose", [200, 150, 200]),
    ("white", [255, 255, 255]),
    ("yellow", [255, 255, 0]),
];

impl Color {
    /// An opaque colour.
    pub const fn opaque(r: u8, g: u8, b: u8) -> Self {
        Self {
            rgb: [r, g, b],
            alpha: 1.0,
        }
    }

    /// Reads a name, `RRGGBB`, `RRGGBBAA` or `RGB`, the hex forms also with `#` or `%23` in front.
    /// `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(found) = NAMES.binary_search_by(|(name, _)| (*name).cmp(text)) {
            let [r, g, b] = NAMES[found].1;
            return Some(Self::opaque(r, g, b));
        }
        let hex = text.strip_prefix('#').unwrap_or(text);
        let hex = hex.strip_prefix("%23").unwrap_or(hex);
        if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        match hex.len() {
            3 => {
                let digit = |at: usize| Some(u8::from_str_radix(hex.get(at..=at)?, 16).ok()? * 17);
                Some(Self::opaque(digit(0)?, digit(1)?, digit(2)?))
            }
            // Graphite reads the first six digits of any longer text.
            n if n >= 6 => {
                let alpha = if n == 8 {
                    f32::from(byte(6)?) / 255.0
                } else {
                    1.0
                };
                Some(Self {
                    rgb: [byte(0)?, byte(2)?, byte(4)?],
                    alpha,
                })
            }
            _ => None,
        }
    }

    /// The same colour at another opacity.
    pub fn with_alpha(self, alpha: f32) -> Self {
        Self {
            alpha: alpha.clamp(0.0, 1.0),
            ..self
        }
    }

    /// The colour `share` (0 to 1) of the way towards `other`, opaque.
    pub fn towards(self, other: Self, share: f32) -> Self {
        let mix = |a: u8, b: u8| (f32::from(a) + (f32::from(b) - f32::from(a)) * share).round();
        Self::opaque(
            mix(self.rgb[0], other.rgb[0]) as u8,
            mix(self.rgb[1], other.rgb[1]) as u8,
            mix(self.rgb[2], other.rgb[2]) as u8,
        )
    }

    /// Perceived brightness, 0 (black) to 1 (white).
    pub fn luminance(self) -> f32 {
        let [r, g, b] = self.rgb.map(|c| f32::from(c) / 255.0);
        0.299 * r + 0.587 * g + 0.114 * b
    }

    /// The contrast with `other` as the accessibility guidelines (WCAG 2) measure it: 1 to 21.
    pub fn contrast(self, other: Self) -> f32 {
        let linear = |c: u8| {
            let c = f32::from(c) / 255.0;
            match c <= 0.040_45 {
                true => c / 12.92,
                false => ((c + 0.055) / 1.055).powf(2.4),
            }
        };
        let light = |color: Self| {
            let [r, g, b] = color.rgb.map(linear);
            0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05
        };
        let (one, two) = (light(self), light(other));
        one.max(two) / one.min(two)
    }

    /// `#rrggbb`, without the opacity.
    pub fn hex(self) -> String {
        let [r, g, b] = self.rgb;
        format!("#{r:02x}{g:02x}{b:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_is_that_of_the_guidelines() {
        let (black, white) = (Color::opaque(0, 0, 0), Color::opaque(255, 255, 255));
        assert!((black.contrast(white) - 21.0).abs() < 1e-4);
        let gray = Color::opaque(0x77, 0x77, 0x77);
        assert!((white.contrast(gray) - 4.48).abs() < 0.01);
        assert_eq!(gray.contrast(white), white.contrast(gray));
    }

    #[test]
    fn names_are_sorted_for_the_search() {
        assert!(NAMES.windows(2).all(|w| w[0].0 < w[1].0));
    }

    #[test]
    fn every_spelling_is_read() {
        let orange = Some(Color::opaque(255, 136, 0));
        for text in ["ff8800", "#ff8800", "%23FF8800", "#f80", " ff8800 "] {
            assert_eq!(Color::parse(text), orange, "{text}");
        }
        assert_eq!(Color::parse("red"), Some(Color::opaque(200, 0, 50)));
        let half = Color::parse("00ff0080").unwrap();
        assert!((half.alpha - 128.0 / 255.0).abs() < 1e-6);
        for text in ["", "nonsense", "12", "#12345", "gggggg", "ünïcödé"] {
            assert_eq!(Color::parse(text), None, "{text}");
        }
    }
}
