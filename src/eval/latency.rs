//! What a list of measurements comes to: a median with its spread, and how long the slowest tokens took.

/// The middle of several measurements, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// The middle one, or halfway between the two in the middle.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of values in any order; none of no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = [sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]];
        Some(Self { median: (middle[0] + middle[1]) / 2.0, least, most })
    }
}

/// Times of single tokens, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Latency {
    /// How many there were.
    pub tokens: usize,
    /// Half of them took no longer.
    pub p50: f64,
    /// Of a hundred, ninety-nine took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    /// Of times in any order; none of no times.
    pub fn of(ms: &[f64]) -> Option<Self> {
        let sorted = sorted(ms);
        let max = *sorted.last()?;
        let [p50, p99] = [50.0, 99.0].map(|percent| percentile(&sorted, percent));
        Some(Self { tokens: sorted.len(), p50, p99, max })
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// By nearest rank, so that it is a time that was measured: the smallest value that `percent` of all do not exceed.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::{Latency, Spread};

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = |values: &[f64]| Spread::of(values).map(|s| (s.least, s.median, s.most));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[7.0]), Some((7.0, 7.0, 7.0)));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some((1.0, 2.0, 9.0)));
        assert_eq!(spread(&[9.0, 1.0, 2.0, 4.0]), Some((1.0, 3.0, 9.0)));
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let percentiles = |count: u32| {
            let ms: Vec<f64> = (1..=count).rev().map(f64::from).collect();
            Latency::of(&ms).map(|l| (l.tokens, l.p50, l.p99, l.max))
        };
        assert_eq!(percentiles(0), None);
        assert_eq!(percentiles(1), Some((1, 1.0, 1.0, 1.0)));
        assert_eq!(percentiles(2), Some((2, 1.0, 2.0, 2.0)));
        assert_eq!(percentiles(100), Some((100, 50.0, 99.0, 100.0)));
        assert_eq!(percentiles(1000), Some((1000, 500.0, 990.0, 1000.0)));
    }

    #[test]
    fn one_spike_in_two_hundred_shows_in_the_maximum_alone() {
        let mut ms = vec![5.0; 199];
        ms.push(80.0);
        let latency = Latency::of(&ms).expect("200 times");
        assert_eq!((latency.p50, latency.p99, latency.max), (5.0, 5.0, 80.0));
    }
}
