//! What a release archive holds beside the binary and can be made from it: completions and man pages, by the definition
//! of the command line, and the page's icon in pixels. `./build.sh dist` asks for it.
use super::args::Cli;
use brooklet::{Error, Result};
use clap::{CommandFactory, ValueEnum};
use clap_complete::aot::{Shell, generate_to};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// The first argument that asks for it: no command, so that neither the help nor what is made here has it.
const WORD: &str = "dist-files";
const ICON: &str = include_str!("../../www/icon.svg");
/// As the freedesktop icon theme has them.
const SIZES: [u32; 7] = [16, 32, 48, 64, 128, 256, 512];
/// What Windows shows somewhere.
const ICO: [u32; 4] = [16, 32, 48, 256];
/// What the Finder and the Dock show.
const ICNS: [u32; 5] = [16, 32, 128, 256, 512];

/// The folder that `brooklet dist-files FOLDER` names.
pub(super) fn asked() -> Option<PathBuf> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == WORD).then(|| arguments.next())?.map(PathBuf::from)
}

/// Writes it all below `folder`.
pub(super) fn write(folder: &Path) -> Result<()> {
    let completions = made(folder.join("completions"))?;
    for &shell in Shell::value_variants() {
        let written = generate_to(shell, &mut Cli::command(), "brooklet", &completions);
        written.map_err(|source| named(&completions, source))?;
    }
    let pages = made(folder.join("man").join("man1"))?;
    let written = clap_mangen::generate_to(Cli::command(), &pages);
    written.map_err(|source| named(&pages, source))?;
    icons(folder)
}

fn icons(folder: &Path) -> Result<()> {
    for size in SIZES {
        let place = made(folder.join(format!("icons/hicolor/{size}x{size}/apps")))?;
        put(&place.join("brooklet.png"), &png(size)?)?;
    }
    put(&made(folder.join("icons/hicolor/scalable/apps"))?.join("brooklet.svg"), ICON.as_bytes())?;

    let mut directory = ico::IconDir::new(ico::ResourceType::Icon);
    for size in ICO {
        let image = ico::IconImage::read_png(Cursor::new(png(size)?)).map_err(failed)?;
        directory.add_entry(ico::IconDirEntry::encode_as_png(&image).map_err(failed)?);
    }
    let mut bytes = Vec::new();
    directory.write(&mut bytes).map_err(failed)?;
    put(&folder.join("brooklet.ico"), &bytes)?;

    let mut family = icns::IconFamily::new();
    for size in ICNS {
        let image = icns::Image::read_png(Cursor::new(png(size)?)).map_err(failed)?;
        family.add_icon(&image).map_err(failed)?;
    }
    let mut bytes = Vec::new();
    family.write(&mut bytes).map_err(failed)?;
    put(&folder.join("brooklet.icns"), &bytes)
}

/// The icon, so many pixels wide.
fn png(size: u32) -> Result<Vec<u8>> {
    let tree = Tree::from_str(ICON, &Options::default()).map_err(failed)?;
    let mut pixels = Pixmap::new(size, size).ok_or_else(|| failed("it has no size"))?;
    let scale = size as f32 / tree.size().width();
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(failed)
}

fn failed(why: impl ToString) -> Error {
    Error::Usage(format!("the icon could not be drawn: {}", why.to_string()))
}

fn named(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.display().to_string(), source }
}

fn made(folder: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&folder).map_err(|source| named(&folder, source))?;
    Ok(folder)
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|source| named(path, source))
}
