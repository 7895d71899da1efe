//! What attention gives to the first tokens. No stream needs it: only a scan for sinks runs it.
use super::{AttentionParams, FRAME, ForKv, HEAD_TERMS, HeadShape, expect_cache};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, Recording, Tensor, Work};
use crate::shaders::files;

/// `Params` of `shaders/shares.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SharesParams {
    /// The attention that is looked at.
    pub attend: AttentionParams,
    /// Which layer's place in `out` is filled.
    pub layer: u32,
    /// T, the most tokens of a pass.
    pub rows: u32,
    /// How many of the first stored keys are looked at.
    pub first: u32,
}

/// Every head's softmax weights on the first stored keys.
pub struct Shares {
    kernel: Kernel,
    shape: HeadShape,
}

impl Shares {
    /// The kernel and its bindings.
    pub const SOURCES: ForKv = ForKv {
        stem: "shares",
        suffix: "",
        libraries: files!["lib/attention_params.wgsl", "lib/score.wgsl", "lib/ring.wgsl"],
        floats: ForKv::READ[0],
        blocks: ForKv::READ[1],
        file: files!["shares.wgsl"],
        bindings: &[
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Write,
        ],
        params_size: size_of::<SharesParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel for heads of one shape.
    pub async fn new(gpu: &Gpu, shape: HeadShape) -> Result<Self> {
        // Wide heads loop longer for each key.
        let lanes = if shape.head_dim > 256 { 256 } else { gpu.tier.lanes_alone() };
        let overrides = [&[("WG", f64::from(lanes))][..], &shape.overrides()].concat();
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCES.of(shape.kv), overrides).await?, shape })
    }

    /// Records what the queries `q` [T, 3, H HD] give to the first keys of `k`, `v` [S + N, words], into the place of
    /// a layer in `out` [L, T, H, FIRST]. `terms`: [H, 4], what [`head_terms`](super::head_terms) gives.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        attend: AttentionParams,
        layer: usize,
        [frame, q, k, v, out, terms]: [&Tensor; 6],
    ) -> Result<()> {
        const OP: &str = "shares";
        let [heads, kv_heads, head_dim] = attend.shape();
        let [layers, rows, _, first] = out.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        q.expect(OP, [rows, 3, heads * head_dim])?;
        expect_cache(OP, attend.ring, [kv_heads, head_dim], self.shape.kv, [k, v])?;
        out.expect(OP, [layers, rows, heads, first])?;
        terms.expect(OP, [heads, HEAD_TERMS])?;
        let stored = attend.ring.sinks as usize + attend.ring.slots as usize;
        if layer >= layers || first > stored {
            return Err(out.misfit(OP, format!("more than {layer} layers, {stored} keys at most")));
        }
        self.shape.expect(OP, attend, q)?;
        let [layer, rows, first] = [layer, rows, first].map(|n| n as u32);
        let params = SharesParams { attend, layer, rows, first };
        let lanes = self.kernel.lanes();
        let score = 1 + params.attend.head_dim / 8;
        let scores = (stored as u32).div_ceil(lanes) + first.div_ceil(lanes);
        let queries = (3 * params.attend.head_dim / 4).div_ceil(lanes);
        let iterations = u64::from(queries + 2 * lanes) + u64::from(scores) * u64::from(score);
        let work = Work { grid: [attend.heads, rows, 1], iterations };
        recording.dispatch(label, &self.kernel, params, &[frame, q, k, v, terms, out], work)
    }
}
