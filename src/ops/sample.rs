//! Drawing tokens on the device, so that the next step can start from GPU memory: every slice of the vocabulary gives
//! its candidates, and one workgroup a row draws from them.
use super::sampler_state::{SLICE, SamplerState};
use super::{FRAME, FRAME_ROW, RingParams};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};
use futures_util::future::try_join;

/// `Params` of `shaders/sample_select.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SampleSelectParams {
    /// V
    pub vocab: u32,
    /// Words from one row of logits, bias or counts to the next.
    pub wide: u32,
    /// The same of bans.
    pub banned: u32,
    /// Candidates that a row has room for.
    pub room: u32,
    /// The first row.
    pub first: u32,
}

impl SampleSelectParams {
    fn work(&self, searches: bool, rows: u32, lanes: u32) -> Work {
        let slice = SLICE as u32;
        let search = if searches { threshold_iterations(slice, lanes) } else { 0 };
        // The keys, the tally, the lanes' sums, what is kept and what is left empty.
        let iterations = u64::from(4 * slice.div_ceil(lanes) + lanes) + search;
        Work { grid: [self.vocab.div_ceil(slice), rows, 1], iterations }
    }
}

/// `Params` of `shaders/sample.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SampleParams {
    /// V
    pub vocab: u32,
    /// S + 2N, which a reduced position stays below.
    pub end: u32,
    /// N
    pub slots: u32,
    /// Steps that there is room for.
    pub most: u32,
    /// Slices of the vocabulary.
    pub slices: u32,
    /// Candidates that a row has room for.
    pub room: u32,
    /// Words from one stream's state to the next.
    pub state: u32,
    /// Words from one stream's counts to the next.
    pub wide: u32,
    /// The first row.
    pub first: u32,
}

impl SampleParams {
    fn work(&self, rows: u32, lanes: u32) -> Work {
        let run = self.room.div_ceil(lanes);
        let search = threshold_iterations(self.room, lanes);
        // The likeliest; top-k; the mass and the search of top-p, or the ties of its last; ties, masses and the walk of the
        // draw; the lanes' sums and ties, the owner of the draw, the random number.
        let walks = u64::from(5 * run + 5 * lanes + ROUNDS);
        Work { grid: [rows, 1, 1], iterations: walks + 2 * search }
    }
}

/// Rounds of `shaders/lib/random.wgsl`.
const ROUNDS: u32 = 10;

/// Of `threshold` in `shaders/lib/threshold.wgsl`: four bytes, for each of which bins are cleared, filled and walked; then
/// halving the ties.
fn threshold_iterations(length: u32, lanes: u32) -> u64 {
    u64::from(4 * (1 + 256u32.div_ceil(lanes) + length.div_ceil(lanes) + 255) + 32)
}

/// A draw by temperature, top-k, top-p, min-p, bias and penalties, in each of several rows.
pub struct Sample {
    select: Kernel,
    draw: Kernel,
}

impl Sample {
    /// The kernel that finds candidates, and its bindings.
    pub const SELECT: KernelSource = KernelSource {
        name: "sample_select",
        wgsl: wgsl!(
            "lib/random.wgsl",
            "lib/mass.wgsl",
            "lib/threshold.wgsl",
            "lib/frame.wgsl",
            "lib/sampling.wgsl",
            "sample_select.wgsl"
        ),
        bindings: &[
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Write,
        ],
        params_size: size_of::<SampleSelectParams>() as u64,
        subgroups: false,
    };

    /// The kernel that draws, and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "sample",
        wgsl: wgsl!(
            "lib/random.wgsl",
            "lib/mass.wgsl",
            "lib/threshold.wgsl",
            "lib/frame.wgsl",
            "lib/sampling.wgsl",
            "lib/advance.wgsl",
            "sample.wgsl"
        ),
        bindings: &[
            Access::Read,
            Access::Read,
            Access::Write,
            Access::Write,
            Access::Write,
            Access::Write,
            Access::Write,
        ],
        params_size: size_of::<SampleParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernels.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        // A software driver keeps a frame for every subgroup that waits at a barrier, and SwiftShader's heap grows with
        // them: a slice is one subgroup's there. With fewer than 64 lanes the draw could loop too long.
        let (each, alone) = if gpu.tier.cpu { (gpu.tier.lanes(), 64) } else { (256, 256) };
        let make = |source, lanes: u32| Kernel::new(gpu, source, [("WG", f64::from(lanes))]);
        let (select, draw) = try_join(make(Self::SELECT, each), make(Self::SOURCE, alone)).await?;
        Ok(Self { select, draw })
    }

    /// Records a draw in each row of `logits` [R, V], by what the row's stream has in `streams`, into the first element of
    /// the row of `token` and the one of this step of `chosen`, and moves the row's `frame` and its stream's draws on. With
    /// one row alone these may be `token` `[T]`, `frame` `[4]`, `chosen` `[MOST]`; else rows of [`FRAME_ROW`] and of MOST.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: &str,
        ring: RingParams,
        streams: &SamplerState,
        [logits, token, frame, chosen]: [&Tensor; 4],
    ) -> Result<()> {
        const OP: &str = "sample";
        let (rows, most) = rows(OP, [logits, token, frame, chosen])?;
        let SamplerState { vocab, sampling, banned, bias, counts, state, candidates, .. } = streams;
        let [_, wide] = logits.dims(OP)?;
        if wide < *vocab || rows > 1 && [bias, counts].iter().any(|t| t.shape[1] != wide) {
            return Err(logits.misfit(OP, format!("[{rows}, {vocab}], or as wide as biases are")));
        }
        let [at_once, room, _] = candidates.dims(OP)?;
        let [vocab, wide, room] = [*vocab, wide, room].map(|n| n as u32);
        for first in (0..rows).step_by(at_once) {
            let rows = at_once.min(rows - first) as u32;
            let banned_row = banned.shape[1] as u32;
            let params =
                SampleSelectParams { vocab, wide, banned: banned_row, room, first: first as u32 };
            let tensors = [sampling, frame, logits, banned, bias, counts, candidates];
            let work = params.work(streams.searches, rows, self.select.lanes());
            recording.dispatch(format!("{label}_select"), &self.select, params, &tensors, work)?;
            let params = SampleParams {
                vocab,
                end: ring.phases() as u32,
                slots: ring.slots,
                most: most as u32,
                slices: vocab.div_ceil(SLICE as u32),
                room,
                state: state.shape[1] as u32,
                wide,
                first: first as u32,
            };
            let tensors = [sampling, candidates, state, counts, token, frame, chosen];
            let work = params.work(rows, self.draw.lanes());
            recording.dispatch(label, &self.draw, params, &tensors, work)?;
        }
        Ok(())
    }
}

/// How many rows these are of, and steps that there is room for.
fn rows(op: &'static str, [logits, token, frame, chosen]: [&Tensor; 4]) -> Result<(usize, usize)> {
    let [rows, _] = logits.dims(op)?;
    if rows == 1 && frame.shape == [FRAME] {
        let ([_], [most]) = (token.dims(op)?, chosen.dims(op)?);
        return Ok((rows, most));
    }
    let [_, most] = chosen.dims(op)?;
    for (tensor, row) in [(token, FRAME_ROW), (frame, FRAME_ROW), (chosen, most)] {
        let [found, wide] = tensor.dims(op)?;
        if found < rows || wide != row {
            return Err(tensor.misfit(op, format!("[{rows}, {row}]")));
        }
    }
    Ok((rows, most))
}
