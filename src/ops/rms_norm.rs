//! Root-mean-square normalisation of rows.
use super::{FRAME, Sums};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};
use futures_util::future::try_join;

/// `Params` of `shaders/rms_norm.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RmsNormParams {
    /// Elements of a row.
    pub cols: u32,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// Normalises every row of a pass, or only its last token's.
pub struct RmsNorm {
    every: Kernel,
    last: Kernel,
}

impl RmsNorm {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "rms_norm",
        wgsl: wgsl!("lib/reduce.wgsl", "rms_norm.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Read, Access::Write],
        params_size: size_of::<RmsNormParams>() as u64,
        subgroups: false,
    };
    /// The same where a workgroup is one subgroup.
    pub const SUBGROUP: KernelSource = KernelSource {
        name: "rms_norm_subgroup",
        wgsl: wgsl!("lib/reduce_subgroup.wgsl", "rms_norm.wgsl"),
        subgroups: true,
        ..Self::SOURCE
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu, sums: Sums) -> Result<Self> {
        let lanes = f64::from(gpu.tier.lanes());
        let source = if sums == Sums::Subgroup { Self::SUBGROUP } else { Self::SOURCE };
        let make = |last| Kernel::new(gpu, source, [("WG", lanes), ("LAST", last)]);
        let (every, last) = try_join(make(0.0), make(1.0)).await?;
        Ok(Self { every, last })
    }

    /// Records `y = x / rms(x) * w` for every row. `x`, `y`: [T, D]; `w`: `[D]`.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        eps: f32,
        tensors: [&Tensor; 4],
    ) -> Result<()> {
        let [rows, _] = tensors[1].dims("rms_norm")?;
        note(recording, label.into(), &self.every, rows, eps, tensors)
    }

    /// Records the same for the last token of the pass alone. `x`: [T, D]; `w`: `[D]`; `y`: [1, D].
    pub fn record_last(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        eps: f32,
        tensors: [&Tensor; 4],
    ) -> Result<()> {
        note(recording, label.into(), &self.last, 1, eps, tensors)
    }
}

fn note(
    recording: &mut Recording,
    label: String,
    kernel: &Kernel,
    rows: usize,
    eps: f32,
    [frame, x, w, y]: [&Tensor; 4],
) -> Result<()> {
    let [_, cols] = x.dims("rms_norm")?;
    frame.expect("rms_norm", [FRAME])?;
    w.expect("rms_norm", [cols])?;
    y.expect("rms_norm", [rows, cols])?;
    let params = RmsNormParams { cols: cols as u32, eps };
    let lanes = kernel.lanes();
    let iterations = u64::from(2 * params.cols.div_ceil(lanes) + lanes.ilog2());
    let work = Work { grid: [rows as u32, 1, 1], iterations };
    recording.dispatch(label, kernel, params, &[frame, x, w, y], work)
}
