//! Axes, linear and logarithmic, with round ticks.
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// What one direction of a chart shows.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What is measured, with its unit.
    pub title: String,
    /// Equal ratios are equal lengths.
    pub log: bool,
    /// The values to be shown at least.
    pub shown: Vec<f64>,
    /// Where the ticks stand, if not where it seems best.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// An axis whose range is that of the data.
    pub fn linear(title: impl Into<String>) -> Self {
        Self { title: title.into(), log: false, shown: Vec::new(), ticks: Vec::new() }
    }

    /// The same, logarithmic. What is not above zero is not shown.
    pub fn log(title: impl Into<String>) -> Self {
        Self { log: true, ..Self::linear(title) }
    }

    /// Shows at least these values too.
    pub fn including(mut self, values: impl IntoIterator<Item = f64>) -> Self {
        self.shown.extend(values);
        self
    }

    /// Puts ticks at these values and nowhere else.
    pub fn ticks(mut self, values: impl IntoIterator<Item = f64>) -> Self {
        self.ticks.extend(values);
        self
    }

    /// Whether a value has a place on it.
    pub(super) fn takes(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }

    /// The scale over these values.
    pub(super) fn scale(&self, values: impl Iterator<Item = f64>) -> Scale {
        let values = values.chain(self.shown.iter().copied()).filter(|&v| self.takes(v));
        let (mut low, mut high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = (1.0, 2.0);
        }
        if low == high {
            // One value alone: some room around it.
            (low, high) = if self.log || low == 0.0 {
                (low / 2.0, low * 2.0 + 1.0)
            } else {
                (low - low.abs() / 2.0, high + high.abs() / 2.0)
            };
            if self.log && low <= 0.0 {
                low = high / 4.0;
            }
        }
        let ticks =
            if self.ticks.is_empty() { ticks(low, high, self.log) } else { self.ticks.clone() };
        Scale { low, high, log: self.log, ticks }
    }
}

/// A range of values, where they come to lie, and the ticks between.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) log: bool,
    pub(super) ticks: Vec<f64>,
}

impl Scale {
    /// Moves the ends out to the next ticks.
    pub(super) fn rounded(mut self) -> Self {
        if let [first, .., last] = self.ticks[..] {
            let step = self.ticks[1] - first;
            if !self.log {
                self.low = (self.low / step).floor() * step;
                self.high = (self.high / step).ceil() * step;
                self.ticks = ticks(self.low, self.high, false);
            } else {
                self.low = self.low.min(first) / 1.05;
                self.high = self.high.max(last) * 1.05;
            }
        }
        self
    }

    fn place(&self, value: f64) -> f64 {
        let on = |v: f64| if self.log { v.max(f64::MIN_POSITIVE).ln() } else { v };
        (on(value) - on(self.low)) / (on(self.high) - on(self.low))
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (self.place(*value) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(value: &f64) -> String {
        number(*value)
    }
}

/// Round values between the ends, about six.
fn ticks(low: f64, high: f64, log: bool) -> Vec<f64> {
    let within = |v: &f64| *v >= low * (1.0 - 1e-9) && *v <= high * (1.0 + 1e-9);
    if log {
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let many = decades.clone().count();
        for digits in [&[1.0][..], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]] {
            let every = (many / 9).max(1);
            let each = decades.clone().step_by(every);
            let all = each.flat_map(|d| digits.iter().map(move |m| m * 10f64.powi(d)));
            let found: Vec<f64> = all.filter(within).collect();
            if found.len() >= 4 {
                return found;
            }
        }
    }
    let rough = (high - low) / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let nice = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|m| m * power >= rough * 0.999);
    let step = nice.unwrap_or(10.0) * power;
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last.min(first + 40)).map(|i| i as f64 * step).collect()
}

/// A number as a reader of a chart wants it.
pub(super) fn number(value: f64) -> String {
    let large = |value: f64, unit: &str| format!("{} {unit}", short(value));
    match value.abs() {
        v if v >= 1e9 => large(value / 1e9, "G"),
        v if v >= 1e6 => large(value / 1e6, "M"),
        v if v >= 1e4 => {
            let whole = value.round() as i64;
            format!("{},{:03}", whole / 1000, (whole % 1000).abs())
        }
        v if v != 0.0 && v < 1e-3 => format!("{value:.0e}"),
        _ => short(value),
    }
}

/// At most four digits, none of them a trailing zero.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 1.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}
