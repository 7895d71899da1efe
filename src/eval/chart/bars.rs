//! Bars in groups.
use super::axis::number;
use super::{Area, Axis, Sample, colour, expect_data, failed, filled, picture, style};
use crate::Result;
use plotters::chart::ChartBuilder;
use plotters::coord::ranged1d::Ranged;
use plotters::element::Text;
use plotters::style::text_anchor::{HPos, VPos};

/// A chart of bars: a group for each of `groups`, in it a bar for each series.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What it shows, in a line.
    pub title: String,
    /// What the groups are.
    pub x: String,
    /// What is measured. A linear axis starts at zero.
    pub y: Axis,
    /// The names below the bars.
    pub groups: Vec<String>,
    /// Each with a value for every group; what is not a number has no bar.
    pub series: Vec<(String, Vec<f64>)>,
}

/// Values are written over the bars where that many fit.
const MOST_VALUES: usize = 20;

/// Draws bars.
pub fn bars(chart: &Bars) -> Result<String> {
    let Bars { title, y, series, .. } = chart;
    let any = series.iter().flat_map(|(_, values)| values).any(|&v| y.takes(v));
    expect_data(title, any)?;
    let names: Vec<&str> = series.iter().map(|(name, _)| name.as_str()).collect();
    picture(title, (Sample::Bar, &names), 380, |area| draw(area, chart))
}

fn draw(area: &Area, Bars { x, y, groups, series, .. }: &Bars) -> Result<()> {
    let values = || series.iter().flat_map(|(_, values)| values.iter().copied());
    let lowest = values().filter(|&v| y.takes(v)).fold(f64::INFINITY, f64::min);
    let base = if y.log { lowest / 2.0 } else { 0.0 };
    let mut up = y.clone().including([base]).scale(values()).rounded();
    if !up.log {
        up.high += (up.high - up.low) * 0.04; // room for the number on the highest
    }
    let mut chart = ChartBuilder::on(area)
        .margin_left(super::EDGE)
        .margin_right(20)
        .margin_top(14)
        .margin_bottom(6)
        .x_label_area_size(48)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..groups.len().max(1) as f64, up.clone())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(super::GRID)
        .light_line_style(plotters::style::TRANSPARENT)
        .axis_style(super::INK)
        .label_style(style(12, HPos::Center, VPos::Center))
        .axis_desc_style(style(13, HPos::Center, VPos::Top))
        .x_labels(0)
        .x_desc(x)
        .y_desc(&y.title)
        .draw()
        .map_err(failed)?;
    let (across, along) = chart.plotting_area().get_pixel_range();
    let wide = f64::from(across.end - across.start) / groups.len().max(1) as f64;
    let bar = (wide * 0.8 / series.len().max(1) as f64).min(80.0);
    let foot = along.end;
    let offset = area.get_base_pixel(); // the plotting area knows its place in the whole picture
    let at = |x: f64, y: i32| (x.round() as i32 - offset.0, y - offset.1);
    for (g, group) in groups.iter().enumerate() {
        let middle = f64::from(across.start) + (g as f64 + 0.5) * wide;
        for (s, (_, values)) in series.iter().enumerate() {
            let Some(&value) = values.get(g).filter(|&&v| y.takes(v)) else { continue };
            let top = up.map(&value, (along.end, along.start));
            let left = middle + bar * (s as f64 - series.len() as f64 / 2.0);
            let corners = [at(left + 1.0, top), at(left + bar - 1.0, foot)];
            area.draw(&filled(corners, colour(s))).map_err(failed)?;
            if groups.len() * series.len() <= MOST_VALUES {
                let text = style(11, HPos::Center, VPos::Bottom);
                let label = Text::new(number(value), at(left + bar / 2.0, top - 2), text);
                area.draw(&label).map_err(failed)?;
            }
        }
        let text = style(12, HPos::Center, VPos::Top);
        area.draw(&Text::new(group.clone(), at(middle, foot + 8), text)).map_err(failed)?;
    }
    Ok(())
}
