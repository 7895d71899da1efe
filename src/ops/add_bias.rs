//! The bias of a product that is added to the residual stream of one token.
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/add_bias.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct AddBiasParams {
    /// D
    pub cols: u32,
}

/// Adds a vector to the activations of one token.
pub struct AddBias {
    kernel: Kernel,
}

impl AddBias {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "add_bias",
        wgsl: wgsl!("add_bias.wgsl"),
        bindings: &[Access::Read, Access::Write],
        params_size: size_of::<AddBiasParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self { kernel: Kernel::plain(gpu, Self::SOURCE).await? })
    }

    /// Records `x += bias`. `bias`: `[D]`; `x`: [1, D].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        [bias, x]: [&Tensor; 2],
    ) -> Result<()> {
        let [cols] = bias.dims("add_bias")?;
        x.expect("add_bias", [1, cols])?;
        let params = AddBiasParams { cols: cols as u32 };
        let grid = [params.cols.div_ceil(self.kernel.lanes()), 1, 1];
        recording.dispatch(label, &self.kernel, params, &[bias, x], Work { grid, iterations: 0 })
    }
}
