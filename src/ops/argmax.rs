//! Greedy sampling, so that the next step can start from GPU memory.
use super::{FRAME, RingParams};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// What is noted as chosen when no token may be: all are banned, or a logit is infinite or not a number.
pub const NO_TOKEN: u32 = u32::MAX;

/// `Params` of `shaders/argmax.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ArgmaxParams {
    /// V
    pub vocab: u32,
    /// S + 2N, which a reduced position stays below.
    pub end: u32,
    /// N
    pub slots: u32,
    /// Steps that there is room for.
    pub most: u32,
}

impl ArgmaxParams {
    /// For a choice from `logits` [1, V], without those in `banned` [ceil(V/32)], into `token` `[T]` and `chosen`
    /// `[most]`, that moves `frame` `[4]` on.
    pub(super) fn of(
        op: &'static str,
        ring: RingParams,
        [logits, banned, token, frame, chosen]: [&Tensor; 5],
    ) -> Result<Self> {
        let [_, vocab] = logits.dims(op)?;
        logits.expect(op, [1, vocab])?;
        banned.expect(op, [vocab.div_ceil(32)])?;
        let [_] = token.dims(op)?;
        frame.expect(op, [FRAME])?;
        let [most] = chosen.dims(op)?;
        let (end, slots) = (ring.phases() as u32, ring.slots);
        Ok(Self { vocab: vocab as u32, end, slots, most: most as u32 })
    }
}

/// The likeliest token that is not banned.
pub struct Argmax {
    kernel: Kernel,
}

impl Argmax {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "argmax",
        wgsl: wgsl!("lib/advance.wgsl", "argmax.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Write, Access::Write, Access::Write],
        params_size: size_of::<ArgmaxParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        let overrides = [("WG", f64::from(gpu.tier.lanes_alone()))];
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCE, overrides).await? })
    }

    /// Records, with `logits, banned, token, frame, chosen`, the choice from `logits` [1, V], without those in `banned`
    /// [ceil(V/32)] bits, into the first element of `token` `[T]` and the one of this step of `chosen`, and moves
    /// `frame` `[4]` on.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        ring: RingParams,
        tensors: [&Tensor; 5],
    ) -> Result<()> {
        let params = ArgmaxParams::of("argmax", ring, tensors)?;
        let lanes = self.kernel.lanes();
        let iterations = u64::from(params.vocab.div_ceil(lanes) + lanes.ilog2());
        let work = Work { grid: [1, 1, 1], iterations };
        recording.dispatch(label, &self.kernel, params, &tensors, work)
    }
}
