//! The measurement: products of a real shape with weights of zeros, variants in turns, medians.
use crate::Result;
use crate::format::{DType, words_of_eight_units};
use crate::gpu::{Gpu, Program, Readback, Recording, Tensor};
use crate::model::Config;
use crate::ops::{Epilogue, FRAME, Linear, MatMul, Variant};
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
/// Bytes of weights at most: more than any cache of a GPU holds changes nothing.
const MOST_BYTES: usize = 64 << 20;

/// Where the time ends for each of two contests, compiling included.
fn patience(gpu: &Gpu) -> Duration {
    Duration::from_millis(if gpu.tier.cpu { 900 } else { 220 })
}

/// The winner among the variants of one token, then with it the better way through a chunk.
pub(super) async fn held(gpu: &Gpu, dtype: DType, config: &Config) -> Result<Variant> {
    let stand = Stand::new(gpu, dtype, config)?;
    let candidates = Variant::candidates(gpu).await?;
    let one = candidates[stand.contest(1, &candidates).await?];
    let other = Variant { columns: !one.columns, ..one };
    if !other.runs_on(gpu).await? {
        return Ok(one);
    }
    let ways = [one, other];
    Ok(ways[stand.contest(CHUNK, &ways).await?])
}

/// What every variant is measured with.
struct Stand<'a> {
    gpu: &'a Gpu,
    dtype: DType,
    weights: Linear, // [2 F, D], fewer rows where that is large
    frame: Tensor,
    done: Readback,
}

/// One variant, ready to run.
struct Entry {
    index: usize,
    program: Program,
    seconds: Vec<f64>,
}

impl<'a> Stand<'a> {
    fn new(gpu: &'a Gpu, dtype: DType, config: &Config) -> Result<Self> {
        let (cols, of_eight) = (config.n_embd, words_of_eight_units(dtype));
        let row_bytes = cols.div_ceil(32) * (of_eight.0 + of_eight.1) / 2;
        let most = MOST_BYTES.min(gpu.tier.max_binding.min(gpu.tier.max_buffer) as usize);
        let rows = (2 * config.n_ff).min(most / row_bytes.max(1)).max(1);
        let weights = Linear::zeros(gpu, "tune", dtype, [rows, cols])?;
        let frame = Tensor::upload(gpu, "tune.frame", &[FRAME], &[0, CHUNK as u32, 0, 0])?;
        Ok(Self { gpu, dtype, weights, frame, done: Readback::new(gpu, 1) })
    }

    /// Which of the variants is the fastest with so many tokens; the first unless another is by a margin.
    async fn contest(&self, tokens: usize, variants: &[Variant]) -> Result<usize> {
        let end = Instant::now() + patience(self.gpu);
        let x = Tensor::zeros(self.gpu, "tune.x", &[tokens, self.weights.padded_cols()])?;
        let y = Tensor::zeros(self.gpu, "tune.y", &[tokens, self.weights.rows])?;
        let made = variants.iter().map(|variant| self.program(tokens, *variant, [&x, &y]));
        let mut entries = Vec::new();
        for (index, program) in join_all(made).await.into_iter().enumerate() {
            match program {
                Ok(program) => entries.push(Entry { index, program, seconds: Vec::new() }),
                // A kernel that this driver refuses has lost; the first is what everything runs on.
                Err(_) if index > 0 => {}
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
            if Instant::now() > end {
                return Ok(0);
            }
        }
        for _ in 0..ROUNDS {
            for entry in &mut entries {
                entry.seconds.push(self.time(&entry.program, times).await?);
            }
            if Instant::now() > end {
                break;
            }
        }
        let seconds: Vec<_> = entries.iter().map(|entry| &entry.seconds[..]).collect();
        Ok(entries[winner(&seconds)].index)
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
        let tensors = [&self.frame, x, y];
        matmul.record(&mut recording, "tune", Epilogue::Store, tensors, &self.weights, None)?;
        Ok(recording.finish(self.gpu))
    }

    async fn time(&self, program: &Program, times: usize) -> Result<f64> {
        let start = Instant::now();
        self.gpu.run_times(times, &[program], &[(&self.frame, &self.done)]);
        self.done.read(self.gpu, &mut [0u32]).await?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Which has the least median, if that is less than the first's by a margin; else the first.
fn winner(seconds: &[&[f64]]) -> usize {
    let median = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
    };
    let medians: Vec<_> = seconds.iter().map(|times| median(times)).collect();
    let best = (0..medians.len()).min_by(|&a, &b| medians[a].total_cmp(&medians[b])).unwrap_or(0);
    let enough = seconds.iter().all(|times| times.len() >= LEAST_ROUNDS);
    if enough && medians[best] < MARGIN * medians[0] { best } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::winner;

    #[test]
    fn the_first_is_displaced_by_what_is_clearly_faster() {
        let first = [10.0, 10.0, 10.0];
        assert_eq!(winner(&[&first, &[9.0, 9.0, 9.0], &[9.4, 9.4, 9.4]]), 1);
        assert_eq!(winner(&[&first, &[9.6, 9.6, 9.6]]), 0, "by less than the margin");
        assert_eq!(winner(&[&first, &[1.0, 11.0, 11.0]]), 0, "by its median, not its best");
        assert_eq!(winner(&[&first, &[50.0, 9.0, 9.0]]), 1, "one time that something disturbed");
        assert_eq!(winner(&[&first[..1], &[1.0]]), 0, "too few rounds for a verdict");
        assert_eq!(winner(&[&first]), 0);
    }
}
