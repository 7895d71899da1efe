//! A value for each cell of a grid, as a colour.
use super::axis::number;
use super::{Area, Axis, INK, Sample, WIDTH, expect_data, failed, filled, picture, style};
use crate::Result;
use plotters::element::Text;
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{FontTransform, RGBColor};

/// A chart of cells.
#[derive(Clone, Debug)]
pub struct HeatMap {
    /// What it shows, in a line.
    pub title: String,
    /// What the columns are.
    pub x: String,
    /// What the rows are; the first is at the top.
    pub y: String,
    /// What the colours are, with the unit, and the values to be shown at least.
    pub value: Axis,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The names of the rows, each with a value for every column; what is not a number has no cell.
    pub rows: Vec<(String, Vec<f64>)>,
}

/// From little to much: even steps of brightness, for the colour-blind too (after matplotlib's viridis).
const SCALE: [(f64, f64, f64); 6] = [
    (68.0, 1.0, 84.0),
    (65.0, 68.0, 135.0),
    (42.0, 120.0, 142.0),
    (34.0, 168.0, 132.0),
    (122.0, 209.0, 81.0),
    (253.0, 231.0, 37.0),
];
/// Pixels on the left for the rows' names, on the right for the scale of colours, below for the columns' names.
const LEFT: i32 = 84;
const RIGHT: i32 = 120;
const BELOW: i32 = 52;

fn shade(share: f64) -> RGBColor {
    let place = share.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let low = (place as usize).min(SCALE.len() - 2);
    let (a, b, part) = (SCALE[low], SCALE[low + 1], place - low as f64);
    let mix = |a: f64, b: f64| (a + (b - a) * part).round() as u8;
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// Draws a heat map.
pub fn heat_map(map: &HeatMap) -> Result<String> {
    let any = map.rows.iter().flat_map(|(_, row)| row).any(|v| map.value.takes(*v));
    expect_data(&map.title, any && !map.columns.is_empty())?;
    let cell = (440 / map.rows.len().max(1)).clamp(6, 40) as u32;
    let height = cell * map.rows.len() as u32 + BELOW as u32 + 8;
    picture(&map.title, (Sample::Bar, &[]), height, |area| draw(area, map, cell as i32))
}

fn draw(
    area: &Area,
    HeatMap { x, y, value, columns, rows, .. }: &HeatMap,
    cell: i32,
) -> Result<()> {
    let scale = value.scale(rows.iter().flat_map(|(_, row)| row.iter().copied()));
    let share = |v: f64| match scale.log {
        true => (v / scale.low).ln() / (scale.high / scale.low).ln(),
        false => (v - scale.low) / (scale.high - scale.low),
    };
    let wide = f64::from(WIDTH as i32 - LEFT - RIGHT) / columns.len() as f64;
    let bottom = cell * rows.len() as i32;
    let put = |text: &str, at: (i32, i32), size, across, up| {
        area.draw(&Text::new(text.to_owned(), at, style(size, across, up))).map_err(failed)
    };
    let left = |column: usize| LEFT + (wide * column as f64).round() as i32;
    for (r, (_, row)) in (0..).zip(rows) {
        for (c, &v) in row.iter().enumerate().filter(|(_, v)| value.takes(**v)) {
            let corners = [(left(c), r * cell), (left(c + 1) - 1, (r + 1) * cell - 1)];
            area.draw(&filled(corners, shade(share(v)))).map_err(failed)?;
        }
    }
    // Names where there is room for them.
    let every = (14 / cell + 1) as usize;
    for (r, (name, _)) in rows.iter().enumerate().step_by(every) {
        let middle = cell * r as i32 + cell / 2;
        put(name, (LEFT - 8, middle), 11, HPos::Right, VPos::Center)?;
    }
    let longest = columns.iter().map(|name| name.chars().count()).max().unwrap_or(1);
    let every = ((7 * longest + 8) as f64 / wide) as usize + 1;
    for (c, name) in columns.iter().enumerate().step_by(every) {
        let middle = (left(c) + left(c + 1)) / 2;
        put(name, (middle, bottom + 6), 11, HPos::Center, VPos::Top)?;
    }
    let middle = (LEFT + WIDTH as i32 - RIGHT) / 2;
    put(x, (middle, bottom + BELOW - 26), 13, HPos::Center, VPos::Top)?;
    upright(area, y, (20, bottom / 2))?;
    // The scale of colours.
    let (from, to) = (WIDTH as i32 - RIGHT + 18, WIDTH as i32 - RIGHT + 34);
    for step in 0..bottom {
        let color = shade(1.0 - f64::from(step) / f64::from(bottom.max(2) - 1));
        area.draw(&filled([(from, step), (to, step + 1)], color)).map_err(failed)?;
    }
    for &tick in &scale.ticks {
        let at = bottom - (share(tick) * f64::from(bottom)).round() as i32;
        put(&number(tick), (to + 6, at), 11, HPos::Left, VPos::Center)?;
    }
    upright(area, &value.title, (WIDTH as i32 - 24, bottom / 2))
}

fn upright(area: &Area, text: &str, at: (i32, i32)) -> Result<()> {
    let turned = style(13, HPos::Center, VPos::Top).transform(FontTransform::Rotate270);
    area.draw(&Text::new(text.to_owned(), at, turned.color(&INK))).map_err(failed)
}
