//! Pixels to a PNG file.

use png::{BitDepth, ColorType, Compression, Encoder, Filter};
use tiny_skia::PixmapRef;

/// Encodes without loss. Writing to memory cannot fail, so there is no error.
pub(super) fn encode(pixels: PixmapRef<'_>) -> Vec<u8> {
    let opaque = pixels.pixels().iter().all(|p| p.alpha() == 255);
    let mut data = Vec::with_capacity(pixels.data().len());
    for pixel in pixels.pixels() {
        let c = pixel.demultiply();
        data.extend_from_slice(&[c.red(), c.green(), c.blue()]);
        if !opaque {
            data.push(c.alpha());
        }
    }
    let color = if opaque {
        ColorType::Rgb
    } else {
        ColorType::Rgba
    };
    let mut out = Vec::new();
    let written = write(&mut out, pixels.width(), pixels.height(), color, &data);
    debug_assert!(written.is_ok());
    out
}

fn write(
    out: &mut Vec<u8>,
    width: u32,
    height: u32,
    color: ColorType,
    data: &[u8],
) -> Result<(), png::EncodingError> {
    let mut encoder = Encoder::new(out, width, height);
    encoder.set_color(color);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Balanced);
    // Line art compresses better, and faster, without filters.
    encoder.set_filter(Filter::NoFilter);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(data)?;
    writer.finish()
}
