//! Turns queries and keys, and stores keys and values in the ring.
use super::{AttentionParams, FRAME, expect_cache, expect_turns};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// Rotary embedding of a pass, and the only writer of the cache.
pub struct RopeStore {
    kernel: Kernel,
    kv_f16: bool,
}

impl RopeStore {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "rope_store",
        wgsl: wgsl!(
            "lib/attention_params.wgsl",
            "lib/ring.wgsl",
            "lib/rope.wgsl",
            "lib/half.wgsl",
            "rope_store.wgsl"
        ),
        bindings: &[
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Write,
            Access::Write,
            Access::Write,
        ],
        params_size: size_of::<AttentionParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel for one layout of pairs and one type of K and V.
    pub async fn new(gpu: &Gpu, neox: bool, kv_f16: bool) -> Result<Self> {
        let flag = |on| f64::from(u8::from(on));
        let overrides =
            [("WG", f64::from(gpu.tier.lanes())), ("NEOX", flag(neox)), ("KV_F16", flag(kv_f16))];
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCE, overrides).await?, kv_f16 })
    }

    /// Records the split of `qkv` [T, (H + 2 KV) HD] into `q` [T, 3, H HD] and the cache `k`, `v`
    /// [S + N, words]. `turns`: [S + 2N, R/2, 2].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        params: AttentionParams,
        [frame, qkv, turns, q, k, v]: [&Tensor; 6],
    ) -> Result<()> {
        const OP: &str = "rope_store";
        let [heads, kv_heads, head_dim] = params.shape();
        let [rows, _] = qkv.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        qkv.expect(OP, [rows, (heads + 2 * kv_heads) * head_dim])?;
        expect_turns(OP, params.ring, params.rope_dim, turns)?;
        q.expect(OP, [rows, 3, heads * head_dim])?;
        expect_cache(OP, params.ring, kv_heads * head_dim, self.kv_f16, [k, v])?;
        // A query is turned element by element, a key or value stored in pairs.
        let iterations = u64::from(params.head_dim.div_ceil(self.kernel.lanes()));
        let grid = [params.heads + 2 * params.kv_heads, rows as u32, 1];
        let work = Work { grid, iterations };
        recording.dispatch(label, &self.kernel, params, &[frame, qkv, turns, q, k, v], work)
    }
}
