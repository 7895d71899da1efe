//! Curves over one axis.
use super::{Area, Axis, Sample, WIDTH, colour, expect_data, failed, picture, style};
use crate::Result;
use plotters::chart::ChartBuilder;
use plotters::element::Circle;
use plotters::series::LineSeries;
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

/// One curve.
#[derive(Clone, Debug)]
pub struct Line {
    /// What the legend calls it.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
    /// Whether each point is marked: where there are few.
    pub marked: bool,
}

impl Line {
    /// A curve without marks.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, marked: false }
    }

    /// A curve through a few measured points.
    pub fn marked(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { marked: true, ..Self::new(name, points) }
    }
}

/// A chart of curves.
#[derive(Clone, Debug)]
pub struct Lines {
    /// What it shows, in a line.
    pub title: String,
    /// The axis that all share.
    pub x: Axis,
    /// What is measured.
    pub y: Axis,
    /// The curves.
    pub series: Vec<Line>,
}

/// Draws curves. A curve of very many points keeps the least and the greatest of each column of pixels, so
/// that no spike is lost.
pub fn lines(chart: &Lines) -> Result<String> {
    let Lines { title, x, y, series } = chart;
    let shown: Vec<Line> = series
        .iter()
        .map(|line| {
            let kept = line.points.iter().copied().filter(|p| x.takes(p.0) && y.takes(p.1));
            Line { points: kept.collect(), ..line.clone() }
        })
        .collect();
    let points = || shown.iter().flat_map(|line| line.points.iter().copied());
    expect_data(title, points().next().is_some())?;
    let names: Vec<&str> = shown.iter().map(|line| line.name.as_str()).collect();
    picture(title, (Sample::Curve, &names), 380, |area| draw(area, chart, &shown, points))
}

fn draw<P: Iterator<Item = (f64, f64)>>(
    area: &Area,
    Lines { x, y, .. }: &Lines,
    shown: &[Line],
    points: impl Fn() -> P,
) -> Result<()> {
    let (across, up) = (x.scale(points().map(|p| p.0)), y.scale(points().map(|p| p.1)).rounded());
    let columns = columns(across.low, across.high, across.log);
    let mut chart = ChartBuilder::on(area)
        .margin_left(super::EDGE)
        .margin_right(28)
        .margin_top(8)
        .margin_bottom(6)
        .x_label_area_size(48)
        .y_label_area_size(76)
        .build_cartesian_2d(across, up)
        .map_err(failed)?;
    let title = style(13, HPos::Center, VPos::Top);
    chart
        .configure_mesh()
        .bold_line_style(super::GRID)
        .light_line_style(plotters::style::TRANSPARENT)
        .axis_style(super::INK)
        .label_style(style(12, HPos::Center, VPos::Center))
        .axis_desc_style(title)
        .x_desc(&x.title)
        .y_desc(&y.title)
        .draw()
        .map_err(failed)?;
    for (index, line) in shown.iter().enumerate() {
        let kept = thinned(&line.points, &columns);
        let pen = colour(index).stroke_width(2);
        chart.draw_series(LineSeries::new(kept.iter().copied(), pen)).map_err(failed)?;
        if line.marked {
            let marks = kept.iter().map(|&point| Circle::new(point, 4, colour(index).filled()));
            chart.draw_series(marks).map_err(failed)?;
        }
    }
    Ok(())
}

/// The ends of every column of pixels.
fn columns(low: f64, high: f64, log: bool) -> Vec<f64> {
    let share = |i: u32| f64::from(i) / f64::from(WIDTH);
    let at = |i: u32| match log {
        true => low * (high / low).powf(share(i)),
        false => low + (high - low) * share(i),
    };
    (1..=WIDTH).map(at).collect()
}

/// The first, least, greatest and last point of each column.
fn thinned(points: &[(f64, f64)], columns: &[f64]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * columns.len() {
        return points.to_vec();
    }
    let (mut kept, mut rest) = (Vec::new(), points);
    for end in columns {
        let (column, after) = rest.split_at(rest.partition_point(|p| p.0 <= *end));
        rest = after;
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let extremes = [
            column.first(),
            column.iter().min_by(by_value),
            column.iter().max_by(by_value),
            column.last(),
        ];
        let mut extremes: Vec<_> = extremes.into_iter().flatten().copied().collect();
        extremes.sort_by(|a, b| a.0.total_cmp(&b.0));
        extremes.dedup();
        kept.extend(extremes);
    }
    kept.extend(rest.last());
    kept
}
