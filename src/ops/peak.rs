//! Multiplications and additions alone: what a device computes at most. No stream needs it; only `brooklet bench` runs it.
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/peak.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct PeakParams {
    /// How often each number is multiplied and added to.
    pub steps: u32,
    /// What it is multiplied with; of less than 1, so that it stays a number.
    pub a: f32,
    /// What is added to it.
    pub b: f32,
}

/// Sixteen chains of multiplications and additions an invocation, which read nothing.
pub struct Peak {
    kernel: Kernel,
}

impl Peak {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "peak",
        wgsl: wgsl!("peak.wgsl"),
        bindings: &[Access::Write],
        params_size: size_of::<PeakParams>() as u64,
        subgroups: false,
    };

    /// Floating-point operations of one step of one invocation.
    pub const OPERATIONS: u64 = 32;

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        let lanes = f64::from(gpu.tier.lanes_alone());
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCE, [("WG", lanes)]).await? })
    }

    /// Invocations of a workgroup.
    pub fn lanes(&self) -> u32 {
        self.kernel.lanes()
    }

    /// Records `params.steps` steps of as many invocations as `y` [groups, WG] has elements.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        params: PeakParams,
        y: &Tensor,
    ) -> Result<()> {
        let [groups, _] = y.dims("peak")?;
        y.expect("peak", [groups, self.lanes() as usize])?;
        let work = Work { grid: [groups as u32, 1, 1], iterations: u64::from(params.steps) };
        recording.dispatch(label, &self.kernel, params, &[y], work)
    }
}
