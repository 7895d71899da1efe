//! Charts as SVG, or PNG on request: lines, bars, heat maps. Readable on light and on dark ground, no font needed to make them.
//!
//! The ground is transparent and the colours of data are of a middle tone; ink and grid lines follow the reader's
//! colour scheme by a style sheet inside the file.
mod axis;
mod bars;
mod file;
mod heat;
mod lines;

pub use axis::Axis;
pub use bars::{Bars, bars};
pub use file::{Format, save};
pub use heat::{HeatMap, heat_map};
pub use lines::{Line, Lines, lines};

use crate::{Error, Result};
use plotters::coord::Shift;
use plotters::element::{PathElement, Rectangle, Text};
use plotters::prelude::{DrawingArea, IntoDrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, TextStyle};

/// Pixels across.
const WIDTH: u32 = 760;
/// The series' colours, each at least 3:1 against white and against dark ground.
const PALETTE: [RGBColor; 8] = [
    RGBColor(47, 129, 247),
    RGBColor(217, 103, 22),
    RGBColor(38, 153, 84),
    RGBColor(155, 107, 223),
    RGBColor(215, 68, 94),
    RGBColor(16, 148, 160),
    RGBColor(166, 126, 16),
    RGBColor(128, 128, 128),
];
/// Text and axes, and what becomes of them on dark ground.
const INK: RGBColor = RGBColor(36, 41, 47);
const INK_ON_DARK: RGBColor = RGBColor(230, 237, 243);
/// Grid lines, the same.
const GRID: RGBColor = RGBColor(216, 222, 228);
const GRID_ON_DARK: RGBColor = RGBColor(48, 54, 61);
/// Pixels left of an axis's upright title: the backend places it by its baseline.
const EDGE: i32 = 10;
/// A small letter is about that wide, in pixels.
const LETTER: i32 = 7;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The colour of a series.
fn colour(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

fn css(colour: RGBColor) -> String {
    let RGBColor(r, g, b) = colour;
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// An error of the drawing library, which writes into memory and so has few.
fn failed(error: impl std::fmt::Display) -> Error {
    Error::Usage(format!("the chart could not be drawn: {error}"))
}

fn style<'a>(size: u32, across: HPos, up: VPos) -> TextStyle<'a> {
    // The backend divides by 1.24 what a browser does not.
    let font = ("system-ui, sans-serif", f64::from(size) * 1.24).into_font();
    TextStyle::from(font).color(&INK).pos(Pos::new(across, up))
}

/// What stands before a name in a legend.
#[derive(Clone, Copy)]
enum Sample {
    Curve,
    Bar,
}

/// Draws a picture of a given height below its title and legend, and gives the finished file.
fn picture(
    title: &str,
    (sample, names): (Sample, &[&str]),
    height: u32,
    draw: impl FnOnce(&Area) -> Result<()>,
) -> Result<String> {
    let rows = legend_rows(names);
    let head = 40 + 20 * rows.len() as u32;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, head + height)).into_drawing_area();
        let bold = style(16, HPos::Left, VPos::Center);
        let bold = TextStyle { font: bold.font.style(FontStyle::Bold), ..bold };
        area.draw(&Text::new(title.to_owned(), (12, 18), bold)).map_err(failed)?;
        let (top, rest) = area.split_vertically(head);
        draw_legend(&top, sample, &rows)?;
        draw(&rest)?;
        area.present().map_err(failed)?;
    }
    Ok(finish(&svg, title))
}

/// Entries of the legend, as many to a row as fit; none where there is nothing to tell apart.
fn legend_rows<'a>(names: &[&'a str]) -> Vec<Vec<(usize, &'a str)>> {
    let mut rows: Vec<Vec<(usize, &str)>> = Vec::new();
    let mut right = WIDTH as i32;
    for entry in names.iter().copied().enumerate().filter(|_| names.len() > 1) {
        let wide = legend_width(entry.1);
        if right + wide > WIDTH as i32 {
            rows.push(Vec::new());
            right = 12;
        }
        right += wide;
        if let Some(row) = rows.last_mut() {
            row.push(entry);
        }
    }
    rows
}

fn legend_width(name: &str) -> i32 {
    52 + LETTER * name.chars().count() as i32
}

fn draw_legend(area: &Area, sample: Sample, rows: &[Vec<(usize, &str)>]) -> Result<()> {
    for (row, entries) in (0..).zip(rows) {
        let (mut x, y) = (12, 46 + 20 * row);
        for &(index, name) in entries {
            match sample {
                Sample::Curve => {
                    let thick = colour(index).stroke_width(3);
                    area.draw(&PathElement::new([(x, y), (x + 24, y)], thick)).map_err(failed)?;
                }
                Sample::Bar => {
                    let corners = [(x + 6, y - 6), (x + 18, y + 6)];
                    area.draw(&filled(corners, colour(index))).map_err(failed)?;
                }
            }
            let text = style(13, HPos::Left, VPos::Center);
            area.draw(&Text::new(name.to_owned(), (x + 30, y), text)).map_err(failed)?;
            x += legend_width(name);
        }
    }
    Ok(())
}

/// Adds a title for who does not see it, and the style sheet. Every other series is dashed, so that colour is
/// not all that tells two apart.
fn finish(svg: &str, title: &str) -> String {
    let escaped = title.replace('&', "&amp;").replace('<', "&lt;");
    let dashed: Vec<_> = (PALETTE.iter().enumerate().skip(1).step_by(2))
        .map(|(i, &c)| format!("polyline[stroke=\"{}\"]{{stroke-dasharray:{} 3}}", css(c), 4 + i))
        .collect();
    let swap = |from: RGBColor, to: RGBColor| {
        let (from, to) = (css(from), css(to));
        format!("[fill=\"{from}\"]{{fill:{to}}}[stroke=\"{from}\"]{{stroke:{to}}}")
    };
    let dark = [swap(INK, INK_ON_DARK), swap(GRID, GRID_ON_DARK)].concat();
    let sheet = format!(
        "<title>{escaped}</title>\n<style>polyline{{stroke-linejoin:round}}{}\
         @media (prefers-color-scheme:dark){{{dark}}}</style>\n",
        dashed.concat()
    );
    match svg.find('>') {
        Some(end) => {
            let (open, rest) = svg.split_at(end);
            let rest = rest[1..].trim_start_matches('\n');
            format!("{open} role=\"img\">\n{sheet}{}\n", rest.trim_end())
        }
        None => svg.to_owned(),
    }
}

/// A filled rectangle.
fn filled(corners: [(i32, i32); 2], colour: RGBColor) -> Rectangle<(i32, i32)> {
    Rectangle::new(corners, colour.filled())
}

/// An error where nothing can be shown.
fn expect_data(title: &str, any: bool) -> Result<()> {
    match any {
        true => Ok(()),
        false => Err(Error::Usage(format!("the chart {title:?} has no number to show"))),
    }
}
