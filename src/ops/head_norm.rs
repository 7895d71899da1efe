//! Normalisation of queries, keys and values, head by head or whole rows of them, before they are turned.
use super::{FRAME, NormKind, Sums};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/head_norm.wgsl`. Queries lie at the start of a row of `qkv`, keys behind the `q_norms` groups of
/// queries, values behind the `k_norms` groups of keys.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct HeadNormParams {
    /// Elements of a row of `qkv`.
    pub stride: u32,
    /// Groups of queries that are normed: H, or 1 of whole rows.
    pub q_norms: u32,
    /// Elements of a group of queries: HD, or H HD of whole rows.
    pub q_size: u32,
    /// Groups of keys that are normed: KV, or 1 of whole rows.
    pub k_norms: u32,
    /// Elements of a group of keys, and of one of values: HD, or KV HD of whole rows.
    pub k_size: u32,
    /// Groups of values that are normed, without a gain: KV or 0.
    pub v_norms: u32,
    /// Whether each group of queries and of keys has gains of its own, and not those of all.
    pub own: u32,
    /// Added to the mean of the squares.
    pub eps: f32,
}

impl HeadNormParams {
    /// Of `heads` heads of queries and `kv_heads` of keys, all queries with the same gains and all keys; values are left
    /// alone.
    pub fn of_heads(heads: u32, kv_heads: u32, head_dim: u32, eps: f32) -> Self {
        Self {
            stride: (heads + 2 * kv_heads) * head_dim,
            q_norms: heads,
            q_size: head_dim,
            k_norms: kv_heads,
            k_size: head_dim,
            v_norms: 0,
            own: 0,
            eps,
        }
    }

    /// How many gains there are: the queries', then the keys'.
    pub fn gains(&self) -> usize {
        let rows = |norms: u32| if self.own != 0 { norms } else { norms.min(1) };
        (rows(self.q_norms) * self.q_size + rows(self.k_norms) * self.k_size) as usize
    }
}

/// Normalises queries, keys and values where they are.
pub struct HeadNorm {
    kernel: Kernel,
    kind: NormKind,
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
    pub async fn new(gpu: &Gpu, sums: Sums, kind: NormKind) -> Result<Self> {
        let source = if sums == Sums::Subgroup { Self::SUBGROUP } else { Self::SOURCE };
        let overrides = [("WG", f64::from(gpu.tier.lanes())), ("CENTRED", kind.centred())];
        Ok(Self { kernel: Kernel::new(gpu, source, overrides).await?, kind })
    }

    /// Records `x <- norm(x) * gain` for every group x in `qkv` [T, stride]. `frame`: `[4]`; `gain`: as many as
    /// [`HeadNormParams::gains`] says, or any where there are none.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        params: HeadNormParams,
        [frame, gain, qkv]: [&Tensor; 3],
    ) -> Result<()> {
        const OP: &str = "head_norm";
        let HeadNormParams { stride, q_norms, q_size, k_norms, k_size, v_norms, .. } = params;
        let [rows, _] = qkv.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        if params.gains() > 0 {
            gain.expect(OP, [params.gains()])?;
        }
        qkv.expect(OP, [rows, stride as usize])?;
        let normed = q_norms * q_size + (k_norms + v_norms) * k_size;
        if normed > stride {
            return Err(qkv.misfit(OP, format!("[{rows}, {normed}] or wider")));
        }
        let groups = q_norms + k_norms + v_norms;
        let iterations = self.kind.iterations(q_size.max(k_size), self.kernel.lanes());
        let work = Work { grid: [groups, rows as u32, 1], iterations };
        recording.dispatch(label, &self.kernel, params, &[frame, gain, qkv], work)
    }
}
