//! The measurement: products of a real shape with weights of zeros, variants in turns, medians.
use crate::format::{DType, words_of_eight_units};
use crate::gpu::{Gpu, Program, Readback, Recording, Tensor};
use crate::model::Config;
use crate::ops::{Epilogue, FRAME, Linear, MatMul, Variant};
use crate::{Error, Result};
use futures_util::future::join_all;
use std::time::Duration;
use web_time::Instant;

/// Times of each variant at most, and at least for a verdict.
const ROUNDS: usize = 9;
const LEAST_ROUNDS: usize = 3;
/// How much faster than what suits the kind of device another has to be.
const MARGIN: f64 = 0.95;
/// What is timed at once lasts about so long: clocks of browsers tick in tenths of a millisecond.
const TIMED: Duration = Duration::from_millis(2);
/// Products that are submitted at once at most.
const MOST_TIMES: f64 = 256.0;
/// Tokens of a chunk.
const CHUNK: usize = 64;
/// Bytes of a matrix at most.
const MOST_BYTES: usize = 64 << 20;
/// Bytes of matrices that one token is multiplied with in turn on a GPU: twice the caches of today's largest, so that
/// weights come from memory, as a model's do.
const BEYOND_CACHES: usize = 192 << 20;

/// How long each of two contests may take from when everything is compiled and has run once.
pub(super) fn patience(gpu: &Gpu) -> Duration {
    Duration::from_millis(if gpu.tier.cpu { 900 } else { 220 })
}

/// Matrices of so many bytes that one token is multiplied with in turn. A software driver computes longer than it reads,
/// and one is enough.
fn copies(cpu: bool, bytes: usize) -> usize {
    if cpu { 1 } else { BEYOND_CACHES.div_ceil(bytes.max(1)) }
}

/// The winner among the variants of one token, then with it the better way through a chunk. None when time ran out
/// before there was a verdict, or there is no room for the matrices.
pub(super) async fn held(
    gpu: &Gpu,
    dtype: DType,
    config: &Config,
    patience: Duration,
) -> Result<Option<Variant>> {
    let contests = async {
        let stand = Stand::new(gpu, dtype, config, patience)?;
        let candidates = Variant::candidates(gpu);
        let Some(one) = stand.contest(1, &candidates).await? else { return Ok(None) };
        let ways = ways(gpu, candidates[one]);
        if let [only] = ways[..] {
            return Ok(Some(only));
        }
        Ok(stand.contest(CHUNK, &ways).await?.map(|way| ways[way]))
    };
    match gpu.answered(contests).await {
        Err(Error::OutOfMemory { .. }) => Ok(None),
        held => held,
    }
}

/// The ways of a device through a chunk, with the variant of one token.
fn ways(gpu: &Gpu, one: Variant) -> Vec<Variant> {
    let other = Variant { columns: !one.columns, ..one };
    [one].into_iter().chain(Some(other).filter(|other| other.runs_on(gpu))).collect()
}

/// What every variant is measured with.
struct Stand<'a> {
    gpu: &'a Gpu,
    dtype: DType,
    weights: Vec<Linear>, // [2 F, D], fewer rows where that is large
    frame: Tensor,
    done: Readback,
    patience: Duration,
}

/// One variant, ready to run.
struct Entry {
    index: usize,
    program: Program,
    /// Of one product, in each round.
    seconds: Vec<f64>,
}

/// What one variant took beside the others.
#[cfg(feature = "cli")]
#[derive(Clone, Debug, serde::Serialize)]
pub struct Contender {
    /// Which kernels multiplied.
    pub variant: Variant,
    /// With how many tokens.
    pub tokens: usize,
    /// Microseconds of one product of gate and up, in each round.
    pub microseconds: Vec<f64>,
    /// It is what this device is to run.
    pub won: bool,
}

/// Both contests with every time in them, however long they take: of one token, then of a chunk.
#[cfg(feature = "cli")]
pub(super) async fn told(gpu: &Gpu, dtype: DType, config: &Config) -> Result<Vec<Contender>> {
    let stand = Stand::new(gpu, dtype, config, Duration::from_secs(8))?;
    let mut all = Vec::new();
    let mut variants = Variant::candidates(gpu);
    for tokens in [1, CHUNK] {
        let entries = stand.rounds(tokens, &variants).await?;
        let best = winner(&entries);
        all.extend(entries.iter().enumerate().map(|(i, entry)| Contender {
            variant: variants[entry.index],
            tokens,
            microseconds: entry.seconds.iter().map(|seconds| seconds * 1e6).collect(),
            won: best == Some(i),
        }));
        variants = ways(gpu, variants[best.map_or(0, |best| entries[best].index)]);
    }
    Ok(all)
}

impl<'a> Stand<'a> {
    fn new(gpu: &'a Gpu, dtype: DType, config: &Config, patience: Duration) -> Result<Self> {
        let (cols, of_eight) = (config.n_embd, words_of_eight_units(dtype));
        let row_bytes = cols.div_ceil(32) * (of_eight.0 + of_eight.1) / 2;
        let most = MOST_BYTES.min(gpu.tier.max_binding.min(gpu.tier.max_buffer) as usize);
        let rows = (2 * config.n_ff).min(most / row_bytes.max(1)).max(1);
        let copies = copies(gpu.tier.cpu, rows * row_bytes);
        let weights = (0..copies).map(|_| Linear::zeros(gpu, "tune", dtype, [rows, cols]));
        let weights = weights.collect::<Result<_>>()?;
        let frame = Tensor::upload(gpu, "tune.frame", &[FRAME], &[0, CHUNK as u32, 0, 0])?;
        Ok(Self { gpu, dtype, weights, frame, done: Readback::new(gpu, 1)?, patience })
    }

    /// Which of the variants is the fastest with so many tokens; the first unless another is by a margin. None when
    /// time ran out before each had its rounds.
    async fn contest(&self, tokens: usize, variants: &[Variant]) -> Result<Option<usize>> {
        let entries = self.rounds(tokens, variants).await?;
        Ok(winner(&entries).map(|winner| entries[winner].index))
    }

    /// What each of the variants takes with so many tokens, one after another and round by round.
    async fn rounds(&self, tokens: usize, variants: &[Variant]) -> Result<Vec<Entry>> {
        let first = &self.weights[0];
        let x = Tensor::zeros(self.gpu, "tune.x", &[tokens, first.padded_cols()])?;
        let y = Tensor::zeros(self.gpu, "tune.y", &[tokens, first.rows])?;
        let made = variants.iter().map(|variant| self.program(tokens, *variant, [&x, &y]));
        let mut entries = Vec::new();
        for (index, program) in join_all(made).await.into_iter().enumerate() {
            match program {
                Ok(program) => entries.push(Entry { index, program, seconds: Vec::new() }),
                // A kernel that this driver refuses has lost; the first is what everything runs on.
                Err(Error::Kernel { .. }) if index > 0 => {}
                Err(error) => return Err(error),
            }
        }
        let mut times = 1;
        for entry in &entries {
            // The first time a driver may still be compiling; and a device wakes up.
            self.time(&entry.program, 1).await?;
            if entry.index == 0 {
                let once = self.time(&entry.program, 1).await?;
                times = (TIMED.as_secs_f64() / once.max(1e-6)).clamp(1.0, MOST_TIMES) as usize;
            }
        }
        let end = Instant::now() + self.patience;
        for _ in 0..ROUNDS {
            for entry in &mut entries {
                let all = self.time(&entry.program, times).await?;
                entry.seconds.push(all / (times * self.turns(tokens)) as f64);
            }
            if Instant::now() > end {
                break;
            }
        }
        Ok(entries)
    }

    /// Products of one program. A chunk reads its weights once for all of its tokens: where they come from is no matter.
    fn turns(&self, tokens: usize) -> usize {
        if tokens == 1 { self.weights.len() } else { 1 }
    }

    async fn program(
        &self,
        tokens: usize,
        variant: Variant,
        tensors: [&Tensor; 2],
    ) -> Result<Program> {
        let product = [(Epilogue::Store, self.dtype)];
        let (one, many): (&[_], &[_]) = if tokens == 1 { (&product, &[]) } else { (&[], &product) };
        let matmul = MatMul::new(self.gpu, one, many, variant).await?;
        let (mut recording, [x, y]) = (Recording::default(), tensors);
        for weights in &self.weights[..self.turns(tokens)] {
            let tensors = [&self.frame, x, y];
            matmul.record(&mut recording, "tune", Epilogue::Store, tensors, weights, None)?;
        }
        recording.finish(self.gpu)
    }

    async fn time(&self, program: &Program, times: usize) -> Result<f64> {
        let start = Instant::now();
        self.gpu.run_times(times, &[program], &[(&self.frame, &self.done)]);
        self.done.read(self.gpu, &mut [0u32]).await?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Which has the least median, if that is less than the first's by a margin; else the first. None where one has too few
/// rounds for a verdict.
fn winner(entries: &[Entry]) -> Option<usize> {
    let seconds: Vec<_> = entries.iter().map(|entry| &entry.seconds[..]).collect();
    fastest(&seconds)
}

fn fastest(seconds: &[&[f64]]) -> Option<usize> {
    if seconds.is_empty() || seconds.iter().any(|times| times.len() < LEAST_ROUNDS) {
        return None;
    }
    let median = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let medians: Vec<_> = seconds.iter().map(|times| median(times)).collect();
    let best = (0..medians.len()).min_by(|&a, &b| medians[a].total_cmp(&medians[b])).unwrap_or(0);
    Some(if medians[best] < MARGIN * medians[0] { best } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::{copies, fastest};

    #[test]
    fn the_first_is_displaced_by_what_is_clearly_faster() {
        let first = [10.0, 10.0, 10.0];
        assert_eq!(fastest(&[&first, &[9.0, 9.0, 9.0], &[9.4, 9.4, 9.4]]), Some(1));
        assert_eq!(fastest(&[&first, &[9.6, 9.6, 9.6]]), Some(0), "by less than the margin");
        assert_eq!(fastest(&[&first, &[1.0, 11.0, 11.0]]), Some(0), "by its median, not its best");
        assert_eq!(fastest(&[&first, &[50.0, 9.0, 9.0]]), Some(1), "one time that was disturbed");
        assert_eq!(fastest(&[&first[..1], &[1.0]]), None, "too few rounds for a verdict");
        assert_eq!(fastest(&[&first, &[9.0, 9.0]]), None, "too few rounds of one");
        assert_eq!(fastest(&[&first]), Some(0));
        assert_eq!(fastest(&[]), None);
    }

    #[test]
    fn weights_are_larger_than_the_caches_of_gpus() {
        for bytes in [1, 1_000, 1 << 20, (1 << 20) + 1, 64 << 20] {
            assert!(copies(false, bytes) * bytes >= 192 << 20, "{bytes}");
            assert_eq!(copies(true, bytes), 1);
        }
    }
}
