//! What a user adds to the logits of some tokens.
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/bias.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BiasParams {
    /// V
    pub cols: u32,
}

/// Elements that a lane has.
const EACH: u32 = 4;

/// Adds a bias to logits, which stay as they are.
pub struct Bias {
    kernel: Kernel,
}

impl Bias {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "bias",
        wgsl: wgsl!("bias.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Write],
        params_size: size_of::<BiasParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self { kernel: Kernel::plain(gpu, Self::SOURCE).await? })
    }

    /// Records `y <- logits + bias`, all [rows, V].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        [logits, bias, y]: [&Tensor; 3],
    ) -> Result<()> {
        let [rows, cols] = logits.dims("bias")?;
        bias.expect("bias", [rows, cols])?;
        y.expect("bias", [rows, cols])?;
        let params = BiasParams { cols: cols as u32 };
        let grid = [params.cols.div_ceil(EACH * self.kernel.lanes()), rows as u32, 1];
        let work = Work { grid, iterations: u64::from(EACH) };
        recording.dispatch(label, &self.kernel, params, &[logits, bias, y], work)
    }
}
