//! Root-mean-square normalisation of each head of queries and keys, before they are turned.
use super::{FRAME, Sums};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/head_norm.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct HeadNormParams {
    /// H
    pub heads: u32,
    /// KV
    pub kv_heads: u32,
    /// HD
    pub head_dim: u32,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// Normalises the heads of queries and keys where they are.
pub struct HeadNorm {
    kernel: Kernel,
}

impl HeadNorm {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "head_norm",
        wgsl: wgsl!("lib/reduce.wgsl", "head_norm.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Write],
        params_size: size_of::<HeadNormParams>() as u64,
        subgroups: false,
    };
    /// The kernel where a workgroup is one subgroup.
    pub const SUBGROUP: KernelSource = KernelSource {
        name: "head_norm_subgroup",
        wgsl: wgsl!("lib/reduce_subgroup.wgsl", "head_norm.wgsl"),
        subgroups: true,
        ..Self::SOURCE
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu, sums: Sums) -> Result<Self> {
        let source = if sums == Sums::Subgroup { Self::SUBGROUP } else { Self::SOURCE };
        let lanes = f64::from(gpu.tier.lanes());
        Ok(Self { kernel: Kernel::new(gpu, source, [("WG", lanes)]).await? })
    }

    /// Records `head <- head / rms(head) * gain` for the heads of queries and keys in `qkv` [T, (H + 2 KV) HD]. `frame`: `[4]`;
    /// `gain`: [2 HD], the queries' and the keys'.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        params: HeadNormParams,
        [frame, gain, qkv]: [&Tensor; 3],
    ) -> Result<()> {
        const OP: &str = "head_norm";
        let HeadNormParams { heads, kv_heads, head_dim, .. } = params;
        let [rows, _] = qkv.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        gain.expect(OP, [2 * head_dim as usize])?;
        qkv.expect(OP, [rows, ((heads + 2 * kv_heads) * head_dim) as usize])?;
        let lanes = self.kernel.lanes();
        let iterations = u64::from(2 * head_dim.div_ceil(lanes) + lanes.ilog2());
        let work = Work { grid: [heads + kv_heads, rows as u32, 1], iterations };
        recording.dispatch(label, &self.kernel, params, &[frame, gain, qkv], work)
    }
}
