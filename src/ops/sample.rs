//! Drawing a token on the device, so that the next step can start from GPU memory.
use super::{ArgmaxParams, RingParams};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, wgsl};
use crate::text::SamplerSettings;

/// Words of `settings`.
const SETTINGS: usize = 12;
/// Words of `state` before the recent ids.
const STATE: usize = 4;

/// A draw by temperature, top-k, top-p, min-p and penalties.
pub struct Sample {
    kernel: Kernel,
}

/// What one generation draws by, on the device.
pub struct Draws {
    settings: Tensor, // [SETTINGS]
    state: Tensor,    // [STATE + recent]
    counts: Tensor,   // [V], or [1] without penalties
    recent: usize,
}

impl Draws {
    /// Room for a generation over `vocab` tokens.
    pub fn new(gpu: &Gpu, by: &SamplerSettings, vocab: usize) -> Result<Self> {
        let recent = if by.penalises() { by.penalty_last_n } else { 0 };
        let words = [
            by.temperature.to_bits(),
            by.top_k,
            by.top_p.to_bits(),
            by.min_p.to_bits(),
            by.repeat_penalty.to_bits(),
            by.presence_penalty.to_bits(),
            by.frequency_penalty.to_bits(),
            recent,
            by.seed as u32,
            (by.seed >> 32) as u32,
            0,
            0,
        ];
        let recent = recent as usize;
        Ok(Self {
            settings: Tensor::upload(gpu, "draws.settings", &[SETTINGS], &words)?,
            state: Tensor::zeros(gpu, "draws.state", &[STATE + recent])?,
            counts: Tensor::zeros(gpu, "draws.counts", &[if recent > 0 { vocab } else { 1 }])?,
            recent,
        })
    }

    /// Tells the device of draws so far, and of the ids that count as recent, oldest first.
    pub fn set(&self, gpu: &Gpu, draws: u64, recent: impl Iterator<Item = u32>) {
        let mut words = vec![draws as u32, (draws >> 32) as u32, 0, 0];
        words.extend(recent.take(self.recent));
        words[3] = (words.len() - STATE) as u32;
        self.state.write(gpu, 0, &words);
    }
}

impl Sample {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "sample",
        wgsl: wgsl!("lib/random.wgsl", "lib/advance.wgsl", "sample.wgsl"),
        bindings: &[
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Write,
            Access::Write,
            Access::Write,
            Access::Write,
            Access::Write,
        ],
        params_size: size_of::<ArgmaxParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        let overrides = [("WG", f64::from(gpu.tier.lanes_alone()))];
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCE, overrides).await? })
    }

    /// Records a draw from `logits` [1, V], without those in `banned` [ceil(V/32)] bits, into the first element of
    /// `token` `[T]` and the one of this step of `chosen`, and moves `frame` `[4]` and `draws` on.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: &str,
        ring: RingParams,
        draws: &Draws,
        [logits, banned, token, frame, chosen]: [&Tensor; 5],
    ) -> Result<()> {
        let params = ArgmaxParams::of("sample", ring, [logits, banned, token, frame, chosen])?;
        let Draws { settings, state, counts, .. } = draws;
        let tensors = [logits, banned, settings, state, counts, token, frame, chosen];
        recording.dispatch(label, &self.kernel, params, &tensors, [1, 1, 1]);
        Ok(())
    }
}
