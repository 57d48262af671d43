//! Characters that the embedded fonts lack, drawn with a font of the machine (`render.fonts`).
//!
//! The font is one of Debian's packages fonts-noto-cjk, fonts-wqy-microhei and fonts-droid-fallback, or the file
//! that the variable `PLUMBAGO_CJK_FONT` names. The test is skipped with a printed reason where there is none.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that does not run must say so"
)]

use std::path::Path;

use render::Series;
use render::budget::Budget;
use render::draw::{Params, Window, draw, use_fonts};

const FONTS: [&str; 3] = [
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
];

fn png(title: &str) -> Vec<u8> {
    let params = Params::from_pairs(&[("title".to_owned(), title.to_owned())]);
    let window = Window::utc(0, 3600);
    // Without series there is no title.
    let series = Series::new("a", 0, 3600, 60, vec![1.0; 60].into());
    let scene = draw(&params, &[series], &window, &[], &Budget::unlimited()).unwrap();
    scene.png().unwrap().to_vec()
}

#[test]
fn a_font_of_the_machine_draws_what_the_embedded_ones_lack() {
    let named = std::env::var("PLUMBAGO_CJK_FONT").ok();
    let installed = FONTS.iter().map(|path| (*path).to_owned());
    let mut fonts = named.into_iter().chain(installed);
    let Some(font) = fonts.find(|path| Path::new(path).is_file()) else {
        eprintln!("skipped: none of {FONTS:?} is installed, and PLUMBAGO_CJK_FONT names no file");
        return;
    };
    // Without the font, each of them is the same box; the embedded ones have the others.
    assert_eq!(png("部署"), png("東京"));
    assert_ne!(png("web 1.4.2"), png("web 1.4.3"));
    let before = ["web 1.4.2", "🚀"].map(png);
    use_fonts(&[font]).unwrap();
    let (deploy, tokyo) = (png("部署"), png("東京"));
    assert_ne!(deploy, tokyo);
    for text in ["登录", "ロール", "배포"] {
        assert_ne!(png(text), tokyo, "{text}");
    }
    assert_eq!(
        ["web 1.4.2", "🚀"].map(png),
        before,
        "others stay as they were"
    );
}
