//! What a device does at most: the bytes that its memory moves and the operations that it computes a second. What a model
//! reaches on it is told as a share of these.
use super::latency::Spread;
use crate::gpu::{Gpu, Readback, Recording, Tensor};
use crate::ops::{Peak, PeakParams};
use crate::{Error, Result};
use web_time::Instant;

/// What is measured once takes so long, at least, in seconds: a wait for the device is little beside it.
const LONG_ENOUGH: f64 = 0.05;
/// Measurements, of which the best counts: whatever else the machine does makes one worse, nothing makes one better.
const RUNS: usize = 5;
/// Bytes of a buffer that is copied: beyond the caches of today's largest GPUs, and of a software driver's CPU.
const COPIED: u64 = 192 << 20;
/// Steps of an invocation of [`Peak`].
const STEPS: u32 = 2_048;

/// What a device does at most, as measured.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Limits {
    /// 10^9 bytes a second that a copy between buffers reads and writes, together.
    pub copy_gb_s: Spread,
    /// 10^9 floating-point operations a second, multiplications with additions in f32.
    pub gflops: Spread,
}

impl Limits {
    /// Measures a device for some seconds at most. An error where it has no room for two buffers of 16 MiB.
    pub async fn of(gpu: &Gpu) -> Result<Self> {
        Ok(Self { copy_gb_s: copies(gpu).await?, gflops: operations(gpu).await? })
    }
}

/// Two buffers as large as there is room for.
async fn pair(gpu: &Gpu) -> Result<[Tensor; 2]> {
    let mut bytes = COPIED.min(gpu.tier.max_binding).min(gpu.tier.max_buffer);
    loop {
        let elements = (bytes / 4) as usize;
        let make = |name| Tensor::zeros(gpu, name, &[elements]);
        match gpu.answered(async { Ok([make("copied")?, make("copy")?]) }).await {
            Err(Error::OutOfMemory { .. }) if bytes > 16 << 20 => bytes /= 2,
            made => return made,
        }
    }
}

async fn copies(gpu: &Gpu) -> Result<Spread> {
    let [from, to] = pair(gpu).await?;
    let bytes = 2.0 * from.size() as f64;
    let seconds = repeated(async |times| gpu.time_copies(times, &from, &to).await).await?;
    spread(seconds.iter().map(|each| bytes / each / 1e9).collect())
}

async fn operations(gpu: &Gpu) -> Result<Spread> {
    let op = Peak::new(gpu).await?;
    // Enough invocations for whatever there is to keep busy, at eight subgroups a compute unit of the largest.
    let groups = if gpu.tier.cpu { 64 } else { 4_096 };
    let y = Tensor::zeros(gpu, "peak", &[groups, op.lanes() as usize])?;
    let mut recording = Recording::default();
    op.record(&mut recording, "peak", PeakParams { steps: STEPS, a: 0.5, b: 1.0 }, &y)?;
    let program = recording.finish(gpu)?;
    let done = Readback::new(gpu, 1)?;
    let run = async |times| {
        let start = Instant::now();
        gpu.run_times(times, &[&program], &[(&y, &done)]);
        done.read(gpu, &mut [0u32]).await?;
        Ok(start.elapsed().as_secs_f64())
    };
    let seconds = repeated(run).await?;
    let operations = (y.len() as u64 * u64::from(STEPS) * Peak::OPERATIONS) as f64;
    spread(seconds.iter().map(|each| operations / each / 1e9).collect())
}

/// Seconds of one of many, several times; first as often as it takes to be worth a look.
async fn repeated(run: impl AsyncFn(usize) -> Result<f64>) -> Result<Vec<f64>> {
    let mut times = 1;
    // The first warms, and grows until waiting is little beside it.
    while run(times).await? < LONG_ENOUGH && times < 1 << 12 {
        times *= 2;
    }
    let mut seconds = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        seconds.push(run(times).await? / times as f64);
    }
    Ok(seconds)
}

fn spread(rates: Vec<f64>) -> Result<Spread> {
    Spread::of(&rates).ok_or_else(|| Error::Usage("nothing was measured of this device".into()))
}
