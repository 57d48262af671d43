//! Fonts that have the characters that the text faces lack: emoji, and the files of `render.fonts`.

use std::fs;
use std::path::Path;
use std::sync::{LazyLock, OnceLock};

use ab_glyph::{Font as _, FontRef, GlyphId};

use super::{Face, Loaded};

/// More files than this are refused.
const MOST_FILES: usize = 16;
/// Larger files are refused; the largest font for Chinese, Japanese and Korean has 20 MB.
const MOST_BYTES: u64 = 128 * 1024 * 1024;

/// Single-coloured emoji that developers write in the names of releases.
static EMOJI: LazyLock<Option<Loaded>> =
    LazyLock::new(|| load(include_bytes!("../fonts/emoji.ttf")));

/// The files of `render.fonts`, set once at the start.
static FILES: OnceLock<Vec<Loaded>> = OnceLock::new();

/// Fallback glyphs are not fitted to the pixel grid: they need no heights of letters.
fn load(bytes: &'static [u8]) -> Option<Loaded> {
    let font = FontRef::try_from_slice(bytes).ok()?;
    Some(Loaded {
        units: font.units_per_em()?,
        ascent: font.ascent_unscaled(),
        descent: -font.descent_unscaled(),
        x_height: 0.0,
        cap_height: 0.0,
        stem: 0.0,
        font,
    })
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let size = fs::metadata(Path::new(path)).map(|about| about.len());
    match size {
        Ok(size) if size > MOST_BYTES => {
            return Err(format!("{path:?} is larger than {MOST_BYTES} bytes"));
        }
        Ok(_) => {}
        Err(error) => return Err(format!("{path:?} cannot be read: {error}")),
    }
    let bytes = fs::read(path).map_err(|error| format!("{path:?} cannot be read: {error}"))?;
    match FontRef::try_from_slice(&bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(format!("{path:?} is not a TrueType or OpenType font")),
    }
}

/// What is wrong with the font files `paths`, each with its place in the list.
pub fn check_fonts(paths: &[String]) -> Vec<(usize, String)> {
    let mut wrong: Vec<(usize, String)> = paths
        .iter()
        .enumerate()
        .take(MOST_FILES)
        .filter_map(|(n, path)| Some((n, read(path).err()?)))
        .collect();
    if paths.len() > MOST_FILES {
        wrong.push((MOST_FILES, format!("more than {MOST_FILES} fonts")));
    }
    wrong
}

/// Uses the font files `paths` in all pictures from now on, for characters that the embedded fonts
/// lack; the first that has a character is taken. They stay in memory. Only the first call counts.
///
/// # Errors
/// A sentence that names the file that cannot be used.
pub fn use_fonts(paths: &[String]) -> Result<(), String> {
    if paths.is_empty() || FILES.get().is_some() {
        return Ok(());
    }
    let mut loaded = Vec::with_capacity(paths.len());
    for path in paths.iter().take(MOST_FILES) {
        // Glyphs refer to the bytes for as long as the process lives.
        let bytes: &'static [u8] = Box::leak(read(path)?.into_boxed_slice());
        let font = load(bytes).ok_or_else(|| format!("{path:?} has no size of its letters"))?;
        loaded.push(font);
    }
    // Another thread was first with the same files.
    let _ = FILES.set(loaded);
    Ok(())
}

/// The fallback with this number.
pub(super) fn loaded(number: u8) -> Option<&'static Loaded> {
    match number {
        0 => EMOJI.as_ref(),
        n => FILES.get()?.get(usize::from(n) - 1),
    }
}

/// The fallback face that has `c`, and its glyph there.
pub(super) fn find(c: char) -> Option<(Face, &'static Loaded, GlyphId)> {
    // Nothing below has a glyph in these; most texts end here.
    if c.is_ascii() {
        return None;
    }
    let n_files = FILES.get().map_or(0, Vec::len) as u8;
    (1..=n_files).chain([0]).find_map(|number| {
        let loaded = loaded(number)?;
        let glyph = loaded.font.glyph_id(c);
        (glyph != GlyphId(0)).then_some((Face::Fallback(number), loaded, glyph))
    })
}

/// Whether `c` only says how its neighbours look: joiners and the selectors of variants.
pub(super) fn is_unseen(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}')
}

#[cfg(test)]
mod tests {
    use super::super::{Font, glyphs};
    use super::*;

    #[test]
    fn emoji_have_shapes_and_selectors_have_no_width() {
        for c in "🚀🔥✅❌🎉🐛🚨♻".chars() {
            assert!(find(c).is_some(), "{c}");
        }
        let font = Font::new(Face::Sans, 20.0, false);
        assert_eq!(font.width("⚠\u{fe0f}"), font.width("⚠"));
        let mut n_pixels = 0;
        glyphs(font, "🚀", 1.0, (0.0, 100.0), |bitmap, _| {
            n_pixels += bitmap.coverage.iter().filter(|c| **c > 128).count();
        });
        assert!(n_pixels > 40, "{n_pixels}");
        assert!(find('部').is_none(), "no embedded font has it");
    }

    #[test]
    fn files_that_are_not_fonts_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("a.ttf");
        fs::write(&text, "not a font").unwrap();
        let good = dir.path().join("good.ttf");
        fs::write(&good, include_bytes!("../fonts/mono.ttf")).unwrap();
        let paths = [text, good, dir.path().join("missing.ttf")];
        let paths = paths.map(|path| path.display().to_string());
        let wrong = check_fonts(&paths);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].1.ends_with("is not a TrueType or OpenType font"));
        assert_eq!(wrong[1].0, 2);
        assert!(use_fonts(&paths[..1]).is_err());
        assert_eq!(check_fonts(&vec![paths[1].clone(); 17])[0].0, 16);
    }
}
