//! How surprising each next token was: perplexity without the logits leaving the device.
use super::FRAME;
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/nll.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct NllParams {
    /// V
    pub vocab: u32,
}

/// The negative log likelihood of one token a row.
pub struct Nll {
    kernel: Kernel,
}

impl Nll {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "nll",
        wgsl: wgsl!("lib/reduce.wgsl", "nll.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Read, Access::Write],
        params_size: size_of::<NllParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        let overrides = [("WG", f64::from(gpu.tier.lanes_alone()))];
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCE, overrides).await? })
    }

    /// Records, with `frame, logits, targets, nll`, `nll = log(sum(exp(row))) - row[target]` for every row of a pass.
    /// `frame`: `[4]`; `logits`: [T, V]; `targets`, `nll`: `[T]`.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        tensors: [&Tensor; 4],
    ) -> Result<()> {
        let [frame, logits, targets, nll] = tensors;
        let [tokens, vocab] = logits.dims("nll")?;
        frame.expect("nll", [FRAME])?;
        targets.expect("nll", [tokens])?;
        nll.expect("nll", [tokens])?;
        let params = NllParams { vocab: vocab as u32 };
        let lanes = self.kernel.lanes();
        // The largest logit and the sum, each over the row and then over the lanes.
        let iterations = u64::from(2 * (params.vocab.div_ceil(lanes) + lanes.ilog2()));
        let work = Work { grid: [tokens as u32, 1, 1], iterations };
        recording.dispatch(label, &self.kernel, params, &tensors, work)
    }
}
