//! Drawing a token on the device, so that the next step can start from GPU memory: every slice of the vocabulary gives
//! its candidates, and one workgroup draws from them.
use super::{ArgmaxParams, RingParams};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};
use crate::text::SamplerSettings;
use futures_util::future::try_join;

/// Words of `state` before the recent ids.
const STATE: usize = 4;
/// Tokens of a slice: `SLICE` of `shaders/sample_select.wgsl`.
const SLICE: u32 = 1024;

/// Below it the likeliest tokens alone are drawn as it is.
const LEAST_TEMPERATURE: f32 = 1e-30;

/// `Params` of `shaders/sample_select.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SampleSelectParams {
    /// V
    pub vocab: u32,
    /// Candidates of a slice.
    pub each: u32,
    /// 1 where recent ids are penalised.
    pub penalties: u32,
    /// [`SamplerSettings::repeat_penalty`]
    pub repeat: f32,
    /// [`SamplerSettings::presence_penalty`]
    pub presence: f32,
    /// [`SamplerSettings::frequency_penalty`]
    pub frequency: f32,
}

impl SampleSelectParams {
    fn work(&self, lanes: u32) -> Work {
        let run = SLICE.div_ceil(lanes);
        let search = if self.each < SLICE { threshold_iterations(SLICE, lanes) } else { 0 };
        // The keys, the tally, the lanes' sums, what is kept and what is left empty.
        let iterations = u64::from(4 * run + lanes) + search;
        Work { grid: [self.vocab.div_ceil(SLICE), 1, 1], iterations }
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
    /// Candidates.
    pub count: u32,
    /// [`SamplerSettings::temperature`]
    pub temperature: f32,
    /// [`SamplerSettings::top_k`]
    pub top_k: u32,
    /// [`SamplerSettings::top_p`]
    pub top_p: f32,
    /// [`SamplerSettings::min_p`]
    pub min_p: f32,
    /// Ids that count as recent.
    pub recent: u32,
    /// [`SamplerSettings::seed`], low word first.
    pub seed: [u32; 2],
}

impl SampleParams {
    fn work(&self, lanes: u32) -> Work {
        let run = self.count.div_ceil(lanes);
        let search = threshold_iterations(self.count, lanes);
        // The likeliest; top-k; the mass and the search of top-p, or the ties of its last; ties, masses and the walk of the
        // draw; the lanes' sums and ties, the owner of the draw, the random number.
        let walks = u64::from(5 * run + 5 * lanes + ROUNDS);
        Work { grid: [1, 1, 1], iterations: walks + 2 * search }
    }
}

/// Rounds of `shaders/lib/random.wgsl`.
const ROUNDS: u32 = 10;

/// Of `threshold` in `shaders/lib/threshold.wgsl`: four bytes, for each of which bins are cleared, filled and walked; then
/// halving the ties.
fn threshold_iterations(length: u32, lanes: u32) -> u64 {
    u64::from(4 * (1 + 256u32.div_ceil(lanes) + length.div_ceil(lanes) + 255) + 32)
}

/// A draw by temperature, top-k, top-p, min-p and penalties.
pub struct Sample {
    select: Kernel,
    draw: Kernel,
}

/// What one generation draws by, on the device.
pub struct SamplerState {
    settings: SamplerSettings,
    candidates: Tensor, // [slices, EACH, 2]
    state: Tensor,      // [STATE + recent]
    counts: Tensor,     // [V], or [1] without penalties
    recent: usize,
}

impl SamplerState {
    /// Room for a generation over `vocab` tokens.
    pub fn new(gpu: &Gpu, by: &SamplerSettings, vocab: usize) -> Result<Self> {
        let recent = if by.penalises() { by.penalty_last_n as usize } else { 0 };
        // The likeliest of all is among the likeliest of the slices.
        let top_k = if by.temperature == 0.0 { 1 } else { by.top_k };
        let slice = (SLICE as usize).min(vocab);
        let each = if top_k == 0 { slice } else { slice.min(top_k as usize) };
        let slices = vocab.div_ceil(SLICE as usize);
        Ok(Self {
            settings: by.clone(),
            candidates: Tensor::zeros(gpu, "sampler.candidates", &[slices, each, 2])?,
            state: Tensor::zeros(gpu, "sampler.state", &[STATE + recent])?,
            counts: Tensor::zeros(gpu, "sampler.counts", &[if recent > 0 { vocab } else { 1 }])?,
            recent,
        })
    }

    /// Tells the device of draws so far, and of the ids that count as recent, oldest first.
    pub fn set(&self, gpu: &Gpu, draws: u64, recent: impl Iterator<Item = u32>) {
        let mut words = vec![draws as u32, (draws >> 32) as u32, 0, 0];
        words.extend(recent.take(self.recent));
        words[3] = (words.len() - STATE) as u32;
        self.state.write(gpu, 0, &words);
        if self.recent > 0 {
            let mut counts = vec![0u32; self.counts.shape[0]];
            words[STATE..].iter().for_each(|&id| counts[id as usize] += 1);
            self.counts.write(gpu, 0, &counts);
        }
    }
}

impl Sample {
    /// The kernel that finds candidates, and its bindings.
    pub const SELECT: KernelSource = KernelSource {
        name: "sample_select",
        wgsl: wgsl!("lib/random.wgsl", "lib/mass.wgsl", "lib/threshold.wgsl", "sample_select.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Read, Access::Write],
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
            "lib/advance.wgsl",
            "sample.wgsl"
        ),
        bindings: &[
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

    /// Records a draw from `logits` [1, V], without those in `banned` [ceil(V/32)] bits, into the first element of
    /// `token` `[T]` and the one of this step of `chosen`, and moves `frame` `[4]` and `draws` on.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: &str,
        ring: RingParams,
        draws: &SamplerState,
        [logits, banned, token, frame, chosen]: [&Tensor; 5],
    ) -> Result<()> {
        const OP: &str = "sample";
        let ArgmaxParams { vocab, end, slots, most } =
            ArgmaxParams::of(OP, ring, [logits, banned, token, frame, chosen])?;
        let SamplerState { settings: by, candidates, state, counts, recent } = draws;
        let [slices, each, _] = candidates.dims(OP)?;
        candidates.expect(OP, [vocab.div_ceil(SLICE) as usize, each, 2])?;
        counts.expect(OP, [if *recent > 0 { vocab as usize } else { 1 }])?;
        let params = SampleSelectParams {
            vocab,
            each: each as u32,
            penalties: u32::from(*recent > 0),
            repeat: by.repeat_penalty,
            presence: by.presence_penalty,
            frequency: by.frequency_penalty,
        };
        let (tensors, work) =
            ([logits, banned, counts, candidates], params.work(self.select.lanes()));
        recording.dispatch(format!("{label}_select"), &self.select, params, &tensors, work)?;
        let greedy = by.temperature == 0.0;
        let params = SampleParams {
            vocab,
            end,
            slots,
            most,
            count: (slices * each) as u32,
            // What is close to 0 may be 0 to a device, which would divide by it.
            temperature: if greedy { 0.0 } else { by.temperature.max(LEAST_TEMPERATURE) },
            top_k: by.top_k,
            top_p: by.top_p,
            min_p: by.min_p,
            recent: *recent as u32,
            seed: [by.seed as u32, (by.seed >> 32) as u32],
        };
        let tensors = [candidates, state, counts, token, frame, chosen];
        recording.dispatch(label, &self.draw, params, &tensors, params.work(self.draw.lanes()))
    }
}
