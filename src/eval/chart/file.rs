//! A finished chart into a file: SVG as it is, or as pixels.
use crate::{Error, Result};
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use std::path::Path;
use std::sync::Arc;

/// Pixels of a PNG for one of the chart.
const ZOOM: f32 = 2.0;

/// What a file is to hold, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Follows the reader's colour scheme.
    Svg,
    /// For who cannot show the other: on white, twice as large.
    Png,
}

impl Format {
    /// By the ending of a file's name; an error for any other, before anything is measured.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_lowercase).as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err(Error::Usage(format!(
                "{}: a chart is written as .svg or .png; end the name with one of them",
                path.display()
            ))),
        }
    }
}

/// Writes a chart that one of this module's functions drew.
pub fn save(path: &Path, svg: &str) -> Result<()> {
    let bytes = match Format::of(path)? {
        Format::Svg => svg.as_bytes().to_vec(),
        Format::Png => png(svg)?,
    };
    let named = || path.display().to_string();
    std::fs::write(path, bytes).map_err(|source| Error::Io { path: named(), source })
}

/// The chart in pixels, on white: what looks at it may know nothing of transparency.
fn png(svg: &str) -> Result<Vec<u8>> {
    let failed = |why: String| Error::Usage(format!("the chart could not be drawn as PNG: {why}"));
    let mut options = Options { font_family: "sans-serif".into(), ..Options::default() };
    let fonts = Arc::make_mut(&mut options.fontdb);
    fonts.load_system_fonts();
    // Whatever there is will do, if the system does not say what it takes for sans-serif.
    let any =
        fonts.faces().find(|face| face.families.iter().any(|(name, _)| name.contains("Sans")));
    let Some(family) = any.or(fonts.faces().next()).and_then(|face| face.families.first()) else {
        return Err(failed("this system has no font; install one, or write .svg".into()));
    };
    let family = family.0.clone();
    fonts.set_sans_serif_family(family);
    let tree = Tree::from_str(svg, &options).map_err(|e| failed(e.to_string()))?;
    let size = tree.size().to_int_size();
    let [wide, high] = [size.width(), size.height()].map(|n| (n as f32 * ZOOM) as u32);
    let mut pixels =
        Pixmap::new(wide, high).ok_or_else(|| failed(format!("{wide} x {high} pixels")))?;
    pixels.fill(Color::WHITE);
    resvg::render(&tree, Transform::from_scale(ZOOM, ZOOM), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| failed(e.to_string()))
}
