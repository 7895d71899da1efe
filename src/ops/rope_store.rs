//! Turns queries and keys, and stores keys and values in the ring.
use super::{AttentionParams, FRAME, ForKv, KvType, expect_cache, expect_turns};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, Recording, Tensor, Work};
use crate::shaders::files;

/// Rotary embedding of a pass, and the only writer of the cache.
pub struct RopeStore {
    kernel: Kernel,
    kv: KvType,
}

impl RopeStore {
    /// The kernel and its bindings.
    pub const SOURCES: ForKv = ForKv {
        stem: "rope_store",
        suffix: "",
        libraries: files![
            "lib/attention_params.wgsl",
            "lib/ring.wgsl",
            "lib/rope.wgsl",
            "lib/half.wgsl",
        ],
        floats: files!["lib/store_pairs.wgsl"],
        blocks: files!["lib/eight.wgsl", "lib/store_blocks.wgsl"],
        file: files!["rope_store.wgsl"],
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
    pub async fn new(gpu: &Gpu, neox: bool, kv: KvType) -> Result<Self> {
        let neox = f64::from(u8::from(neox));
        let overrides =
            [("WG", f64::from(gpu.tier.lanes())), ("NEOX", neox), ("KV_F16", kv.is_f16())];
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCES.of(kv), overrides).await?, kv })
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
        self.kv.expect_heads(head_dim)?;
        expect_cache(OP, params.ring, [kv_heads, head_dim], self.kv, [k, v])?;
        // A query is turned element by element, a key or value stored in pairs, or in eights, each looked at twice.
        let iterations = u64::from(params.head_dim.div_ceil(self.kernel.lanes()));
        let grid = [params.heads + 2 * params.kv_heads, rows as u32, 1];
        let work = Work { grid, iterations };
        recording.dispatch(label, &self.kernel, params, &[frame, qkv, turns, q, k, v], work)
    }
}
