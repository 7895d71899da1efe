//! Positions that a model has learned, added to the embedding.
use super::FRAME;
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/add_position.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct AddPositionParams {
    /// D
    pub cols: u32,
    /// How many positions the model has.
    pub positions: u32,
}

/// Adds the row of each token's position to its activations.
pub struct AddPosition {
    kernel: Kernel,
}

impl AddPosition {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "add_position",
        wgsl: wgsl!("add_position.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Write],
        params_size: size_of::<AddPositionParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self { kernel: Kernel::plain(gpu, Self::SOURCE).await? })
    }

    /// Records `x[t] += w[n + t]` for the tokens of a pass, whose positions must be below n_ctx. `frame`: `[4]`; `w`:
    /// [n_ctx, D]; `x`: [T, D].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        [frame, w, x]: [&Tensor; 3],
    ) -> Result<()> {
        const OP: &str = "add_position";
        let [positions, cols] = w.dims(OP)?;
        let [tokens, _] = x.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        x.expect(OP, [tokens, cols])?;
        let params = AddPositionParams { cols: cols as u32, positions: positions as u32 };
        let grid = [params.cols.div_ceil(self.kernel.lanes()), tokens as u32, 1];
        let work = Work { grid, iterations: 0 };
        recording.dispatch(label, &self.kernel, params, &[frame, w, x], work)
    }
}
