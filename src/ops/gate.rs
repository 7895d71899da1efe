//! Gates on what the heads of a layer give.
use super::{FRAME, Sums};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/gate.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct GateParams {
    /// H
    pub heads: u32,
    /// Elements of a head.
    pub size: u32,
    /// Elements of a row of `z`.
    pub stride: u32,
    /// The first gate's column of `z`.
    pub first: u32,
    /// Added to the mean of the squares, where heads are normed.
    pub eps: f32,
}

/// Multiplies heads with their gates, where they are; or norms them first.
pub struct Gate {
    kernel: Kernel,
    normed: bool,
}

impl Gate {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "gate",
        wgsl: wgsl!("lib/reduce.wgsl", "gate.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Read, Access::Write],
        params_size: size_of::<GateParams>() as u64,
        subgroups: false,
    };
    /// The kernel where a workgroup is one subgroup.
    pub const SUBGROUP: KernelSource = KernelSource {
        name: "gate_subgroup",
        wgsl: wgsl!("lib/reduce_subgroup.wgsl", "gate.wgsl"),
        subgroups: true,
        ..Self::SOURCE
    };

    /// Compiles the kernel: gates through a sigmoid, or through SiLU on heads that are normed.
    pub async fn new(gpu: &Gpu, sums: Sums, normed: bool) -> Result<Self> {
        let source = if sums == Sums::Subgroup { Self::SUBGROUP } else { Self::SOURCE };
        let overrides =
            [("WG", f64::from(gpu.tier.lanes())), ("NORMED", f64::from(u8::from(normed)))];
        Ok(Self { kernel: Kernel::new(gpu, source, overrides).await?, normed })
    }

    /// Records the gates `z` [T, stride] on `x` [T, H size]. `frame`: `[4]`; `gain`: `[size]` where heads are normed, or
    /// any.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        params: GateParams,
        [frame, z, gain, x]: [&Tensor; 4],
    ) -> Result<()> {
        const OP: &str = "gate";
        let GateParams { heads, size, stride, first, .. } = params;
        let [rows, _] = x.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        z.expect(OP, [rows, stride as usize])?;
        x.expect(OP, [rows, (heads * size) as usize])?;
        if self.normed {
            gain.expect(OP, [size as usize])?;
        }
        if first + heads * size > stride {
            return Err(z.misfit(OP, format!("[{rows}, {}] or wider", first + heads * size)));
        }
        let passes = if self.normed { 2 } else { 1 };
        let lanes = self.kernel.lanes();
        let sums = if self.normed { lanes } else { 0 };
        let iterations = u64::from(passes * size.div_ceil(lanes) + sums);
        let work = Work { grid: [heads, rows as u32, 1], iterations };
        recording.dispatch(label, &self.kernel, params, &[frame, z, gain, x], work)
    }
}
