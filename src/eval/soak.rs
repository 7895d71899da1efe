//! A long stream held to the paper at intervals, its memory and its speed held to what they were.
use super::latency::Spread;
use crate::model::{CacheSettings, KvType};
use crate::reference::Oracle;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The tokens that a stream's logits depend on, and no others, so that the oracle need not run from the beginning.
///
/// What a layer makes of token t depends on what came into it for the sinks and for the last W tokens, t included.
/// What came into layer l for any of those depends in turn on W - 1 tokens before it, so that through L layers the
/// logits at t depend on the sinks and on the last L (W - 1) + 1 tokens. A token fed to an oracle that begins there
/// misses some it should see, but what it makes of them matters to no layer that t looks at: the i-th token fed after
/// the sinks is right in the first layer's keys from i = 0, in the second's from i = W - 1, and so on to i = L (W - 1),
/// which is t. The sinks are the stream's first tokens and see each other alone, so they are always right. Positions
/// are no obstacle: the paper counts them inside the cache, and that is full again wherever something is right.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tail {
    sinks: Vec<u32>,
    recent: VecDeque<u32>,
    keep: [usize; 2],
}

impl Tail {
    /// Of a stream with such a cache through so many layers.
    pub fn new(cache: &CacheSettings, layers: usize) -> Self {
        let keep = [cache.sinks, layers * (cache.window - 1) + 1];
        Self { sinks: Vec::with_capacity(keep[0]), recent: VecDeque::with_capacity(keep[1]), keep }
    }

    /// The stream's next token.
    pub fn push(&mut self, token: u32) {
        if self.sinks.len() < self.keep[0] {
            self.sinks.push(token);
            return;
        }
        if self.recent.len() == self.keep[1] {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
    }

    /// The largest distance between the oracle's logits of the last token and `logits`; infinite where one is no number.
    pub fn difference(&self, oracle: &mut Oracle, logits: &[f32]) -> f64 {
        oracle.restart();
        let mut expected = Vec::new();
        for &token in self.sinks.iter().chain(&self.recent) {
            expected = oracle.step(token);
        }
        let apart = |(expected, &found): (&f64, &f32)| {
            let apart = (expected - f64::from(found)).abs();
            if apart.is_nan() { f64::INFINITY } else { apart }
        };
        expected.iter().zip(logits).map(apart).fold(0.0, f64::max)
    }
}

/// How far the device's logits may lie from the oracle's, which rounds nothing; none where keys and values are rounded so
/// much that it says nothing of a stream.
pub fn tolerance(kv: KvType) -> Option<f64> {
    match kv {
        KvType::F32 => Some(1e-3),
        // Keys and values have 11 bits, and what they do to logits of size 10 was measured.
        KvType::F16 => Some(0.08),
        KvType::Q8_0 | KvType::Q4_0 => None,
    }
}

/// What was seen at the end of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Tokens generated so far.
    pub tokens: u64,
    /// Median of the interval, in milliseconds a token.
    pub ms: f64,
    /// Bytes of host memory that are resident, where the system tells.
    pub host: Option<u64>,
    /// Bytes of tensors on the device.
    pub gpu: u64,
    /// Largest distance of a logit from the oracle's.
    pub difference: f64,
}

/// A tenth of the run, or what there is of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tenth {
    /// From 1 to 10.
    pub tenth: u64,
    /// Median of its intervals' medians, in milliseconds a token.
    pub ms: f64,
    /// The most host memory at the end of an interval.
    pub host: Option<u64>,
    /// The most bytes on the device.
    pub gpu: u64,
    /// The largest difference.
    pub difference: f64,
}

/// What a run comes to. What cannot be told yet is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What there is of the run.
    pub tenths: Vec<Tenth>,
    /// Bytes between the least and the most device memory; 0 is flat.
    pub gpu_spread: u64,
    /// Bytes between the least and the most host memory from the second tenth on.
    pub host_spread: Option<u64>,
    /// The last tenth's median over the second's.
    pub latency_ratio: Option<f64>,
    /// The largest difference of all, and what it may be.
    pub difference: f64,
    /// See [`tolerance`].
    pub tolerance: f64,
}

impl Report {
    /// Of a run that is to have `of` tokens.
    pub fn new(records: &[Record], of: u64, tolerance: f64) -> Self {
        let tenth_of =
            |record: &Record| (10 * record.tokens.saturating_sub(1) / of.max(1)).min(9) + 1;
        let tenth = |tenth| {
            let part: Vec<_> = records.iter().filter(|record| tenth_of(record) == tenth).collect();
            let ms: Vec<f64> = part.iter().map(|record| record.ms).collect();
            Some(Tenth {
                tenth,
                ms: Spread::of(&ms)?.median,
                host: part.iter().filter_map(|record| record.host).max(),
                gpu: part.iter().map(|record| record.gpu).max()?,
                difference: part.iter().map(|record| record.difference).fold(0.0, f64::max),
            })
        };
        let tenths: Vec<Tenth> = (1..=10).filter_map(tenth).collect();
        let spread = |values: Vec<u64>| Some(values.iter().max()? - values.iter().min()?);
        let later = records.iter().filter(|record| tenth_of(record) > 1);
        let second = tenths.iter().find(|tenth| tenth.tenth == 2);
        let last = tenths.last().filter(|tenth| tenth.tenth > 2);
        Self {
            gpu_spread: spread(records.iter().map(|record| record.gpu).collect()).unwrap_or(0),
            host_spread: spread(later.filter_map(|record| record.host).collect()),
            latency_ratio: second.zip(last).map(|(second, last)| last.ms / second.ms),
            difference: tenths.iter().map(|tenth| tenth.difference).fold(0.0, f64::max),
            tolerance,
            tenths,
        }
    }

    /// Device memory is flat to the byte.
    pub fn gpu_flat(&self) -> bool {
        self.gpu_spread == 0
    }

    /// Host memory stays within 1 MiB from the second tenth on.
    pub fn host_flat(&self) -> Option<bool> {
        self.host_spread.map(|spread| spread <= 1 << 20)
    }

    /// The last tenth is within 5 % of the second.
    pub fn latency_flat(&self) -> Option<bool> {
        self.latency_ratio.map(|ratio| (ratio - 1.0).abs() <= 0.05)
    }

    /// The oracle was met every time.
    pub fn oracle_equal(&self) -> bool {
        self.difference < self.tolerance
    }
}
