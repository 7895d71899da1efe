//! The geometry that the cache's ops share: `Ring` of `shaders/lib/ring.wgsl`.
use super::KvType;
use crate::Result;
use crate::gpu::Tensor;

/// Elements of the `frame` that a pass is told of: n, the first token's position, reduced; how many
/// tokens; 1 where sinks are seen for ever, 0 where only while they are within the window; which of the
/// steps that were submitted together this is.
pub const FRAME: usize = 4;

/// Elements from the frame of one row to that of the next, in a pass whose rows are of several streams: each has n, then in
/// the first alone how many rows, then 1 where sinks are seen for ever and twice the stream, then the step. A view
/// of one begins where a binding may.
pub const FRAME_ROW: usize = Tensor::ALIGN / 4;

/// S, W and N, as the kernels take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RingParams {
    /// S: the first tokens, kept for ever.
    pub sinks: u32,
    /// W: the recent tokens that a query sees, itself included.
    pub window: u32,
    /// N: the ring's slots, at least W + chunk - 1.
    pub slots: u32,
}

impl RingParams {
    /// S + W: tokens that a query can see.
    pub fn capacity(&self) -> u64 {
        u64::from(self.sinks) + u64::from(self.window)
    }

    /// Phases a key or a query may be turned to: S + 2N.
    pub fn phases(&self) -> usize {
        self.sinks as usize + 2 * self.slots as usize
    }
}

/// An error unless both tensors are caches of this geometry, with so many key heads of one size: [S + N, words], or as
/// `shaders/lib/kv_blocks.wgsl` has it.
pub(super) fn expect_cache(
    op: &'static str,
    ring: RingParams,
    [kv_heads, head_dim]: [usize; 2],
    kv: KvType,
    cache: [&Tensor; 2],
) -> Result<()> {
    let shape = kv.shape(ring.sinks as usize + ring.slots as usize, kv_heads, head_dim);
    cache.iter().try_for_each(|tensor| tensor.expect(op, shape))
}

/// An error unless there is a rope table for so many dimensions of a head: [S + 2N, R/2, 2]. Where none are turned any will
/// do, as nobody reads it.
pub(super) fn expect_turns(
    op: &'static str,
    ring: RingParams,
    rope_dim: u32,
    turns: &Tensor,
) -> Result<()> {
    match rope_dim {
        0 => Ok(()),
        _ => turns.expect(op, [ring.phases(), rope_dim as usize / 2, 2]),
    }
}
