//! The gated delta rule: a state a head, that each token corrects.
use super::{FRAME, WORKGROUP_MEMORY};
use crate::Result;
use crate::gpu::{
    Access, Gpu, Kernel, KernelSource, MOST_ITERATIONS, Recording, Tensor, Work, wgsl,
};

/// `Params` of `shaders/delta_net.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct DeltaNetParams {
    /// G: heads of queries and of keys.
    pub key_heads: u32,
    /// H: heads of values, and states.
    pub heads: u32,
    /// DK
    pub key_dim: u32,
    /// DV
    pub value_dim: u32,
    /// Elements of a row: G DK of queries, as many of keys, H DV of values, 2 H of gates.
    pub width: u32,
    /// N: slots of the ring.
    pub slots: u32,
    /// C: tokens from one state that is kept to the next.
    pub step: u32,
    /// The first token of the pass that a dispatch goes through; [`DeltaNet::record`] sets it.
    pub first: u32,
    /// Tokens that it goes through; [`DeltaNet::record`] sets it.
    pub span: u32,
    /// Added to the squares of the lengths of queries and keys.
    pub eps: f32,
}

impl DeltaNetParams {
    /// What a row takes at least.
    pub fn row(&self) -> usize {
        let Self { key_heads, heads, key_dim, value_dim, .. } = *self;
        (2 * key_heads * key_dim + heads * (value_dim + 2)) as usize
    }

    /// States that are kept, and the words of one.
    pub fn states(&self) -> [usize; 2] {
        let size = self.heads * (self.key_dim + 1) * self.value_dim;
        [1 + (self.slots / self.step) as usize, size as usize]
    }

    /// Loop iterations of an invocation over so many tokens, after those that it goes through once more.
    fn iterations(&self, tokens: u64) -> u64 {
        let (quads, all) = (u64::from(self.key_dim / 4), tokens + u64::from(self.step) - 1);
        let kept = all / u64::from(self.step) + 1;
        quads + all * (1 + 2 * quads) + (kept + 1) * quads
    }
}

/// The most dimensions of a key: a state's columns are in workgroup memory.
pub const MOST_KEY_DIM: usize = 512;

/// Goes through the tokens of a pass, one after another.
pub struct DeltaNet {
    kernel: Kernel,
    key_dim: usize,
}

impl DeltaNet {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "delta_net",
        wgsl: wgsl!("delta_net.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Write],
        params_size: size_of::<DeltaNetParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel for keys of so many dimensions.
    pub async fn new(gpu: &Gpu, key_dim: usize) -> Result<Self> {
        // As many columns as workgroup memory has room for.
        let fit = WORKGROUP_MEMORY / 4 / key_dim.clamp(1, MOST_KEY_DIM) as u32;
        let lanes = gpu.tier.lanes().min(32).min(1 << fit.ilog2());
        let quads = key_dim as u32 / 4 * lanes;
        let overrides = [("WG", f64::from(lanes)), ("QUADS", f64::from(quads))];
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCE, overrides).await?, key_dim })
    }

    /// Records what the states make of the tokens of a pass, o [T, H DV]. `frame`: `[4]`; `rows`: [N, width]; `terms`:
    /// [2 H]; `states`: as [`DeltaNetParams::states`] says. Chunks that would loop too long go in several dispatches.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: &str,
        params: DeltaNetParams,
        [frame, rows, terms, states, o]: [&Tensor; 5],
    ) -> Result<()> {
        const OP: &str = "delta_net";
        let DeltaNetParams { heads, value_dim, width, slots, .. } = params;
        let [tokens, _] = o.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        rows.expect(OP, [slots as usize, width as usize])?;
        terms.expect(OP, [2 * heads as usize])?;
        states.expect(OP, params.states())?;
        o.expect(OP, [tokens, (heads * value_dim) as usize])?;
        let fits = self.key_dim == params.key_dim as usize
            && self.key_dim.is_multiple_of(4)
            && slots.is_multiple_of(params.step)
            && slots as usize >= params.step as usize - 1 + tokens;
        if !fits || params.row() > width as usize {
            return Err(rows.misfit(OP, format!("rows of {params:?} for {tokens} tokens")));
        }
        let mut span = tokens as u64;
        while params.iterations(span) > MOST_ITERATIONS && span > 1 {
            span = span.div_ceil(2);
        }
        let grid = [heads, value_dim.div_ceil(self.kernel.lanes()), 1];
        let work = Work { grid, iterations: params.iterations(span) };
        for first in (0..tokens as u32).step_by(span as usize) {
            let params = DeltaNetParams { first, span: span as u32, ..params };
            let tensors = [frame, rows, terms, states, o];
            recording.dispatch(label, &self.kernel, params, &tensors, work)?;
        }
        Ok(())
    }
}
