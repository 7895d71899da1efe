//! What the experts of a token give, added up.
use super::FRAME;
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/sum_experts.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SumExpertsParams {
    /// D
    pub cols: u32,
    /// K
    pub used: u32,
}

/// Adds to the activations of each token what its experts give, by their shares.
pub struct SumExperts {
    kernel: Kernel,
}

impl SumExperts {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "sum_experts",
        wgsl: wgsl!("sum_experts.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Read, Access::Write],
        params_size: size_of::<SumExpertsParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self { kernel: Kernel::plain(gpu, Self::SOURCE).await? })
    }

    /// Records `x[t] += sum_s share(t, s) y[t, s]`. `frame`: `[4]`; `y`: [T, K, D]; `chosen`: [T, K, 2]; `x`: [T, D].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        [frame, y, chosen, x]: [&Tensor; 4],
    ) -> Result<()> {
        const OP: &str = "sum_experts";
        let [tokens, cols] = x.dims(OP)?;
        let [_, used, _] = chosen.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        y.expect(OP, [tokens, used, cols])?;
        chosen.expect(OP, [tokens, used, 2])?;
        let params = SumExpertsParams { cols: cols as u32, used: used as u32 };
        let grid = [params.cols.div_ceil(self.kernel.lanes()), tokens as u32, 1];
        let work = Work { grid, iterations: u64::from(params.used) };
        recording.dispatch(label, &self.kernel, params, &[frame, y, chosen, x], work)
    }
}
