//! Attention over sinks and ring.
use super::{FRAME, RingParams, expect_cache};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, wgsl};

/// `Params` of `shaders/attention.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct AttentionParams {
    /// H
    pub heads: u32,
    /// KV
    pub kv_heads: u32,
    /// HD
    pub head_dim: u32,
    /// S, W and N.
    pub ring: RingParams,
    /// 1 / sqrt(HD)
    pub scale: f32,
}

/// Softmax attention of every query over what the cache holds and its window shows.
pub struct Attention {
    kernel: Kernel,
    kv_f16: bool,
}

impl Attention {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "attention",
        wgsl: wgsl!("lib/ring.wgsl", "attention.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
        params_size: size_of::<AttentionParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel for one type of K and V.
    pub async fn new(gpu: &Gpu, kv_f16: bool) -> Result<Self> {
        let flag = f64::from(u8::from(kv_f16));
        let overrides = [("WG", f64::from(gpu.tier.lanes())), ("KV_F16", flag)];
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCE, overrides).await?, kv_f16 })
    }

    /// Records the attention of `q` [T, 3, H HD] over `k`, `v` [S + N, words] into `out` [T, H HD].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        params: AttentionParams,
        [frame, q, k, v, out]: [&Tensor; 5],
    ) -> Result<()> {
        const OP: &str = "attention";
        let [heads, kv_heads, head_dim] =
            [params.heads, params.kv_heads, params.head_dim].map(|n| n as usize);
        let [rows, _] = out.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        q.expect(OP, [rows, 3, heads * head_dim])?;
        expect_cache(OP, params.ring, kv_heads * head_dim, self.kv_f16, [k, v])?;
        out.expect(OP, [rows, heads * head_dim])?;
        if !head_dim.is_multiple_of(8) || head_dim > 256 || !heads.is_multiple_of(kv_heads) {
            return Err(
                out.misfit(OP, "HD a multiple of 8, at most 256; H a multiple of KV".into())
            );
        }
        let grid = [params.heads, rows as u32, 1];
        recording.dispatch(label, &self.kernel, params, &[frame, q, k, v, out], grid);
        Ok(())
    }
}
