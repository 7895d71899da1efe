//! Products of tokens with the matrices of the experts that they go to.
use super::epilogue::ByEpilogue;
use super::formats::{ForFormats, for_formats};
use super::matmul::{Most, Rows};
use super::{Epilogue, FRAME, Linear, Normed, Product, Sums};
use crate::Result;
use crate::gpu::{Access, Gpu, Loops, Reads, Recording, Tensor, Work};
use futures_util::future::try_join;

/// `Params` of `shaders/experts.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ExpertsParams {
    /// Rows of this part.
    pub rows: u32,
    /// Where the part starts in the whole matrix.
    pub row0: u32,
    /// C/32
    pub units: u32,
    /// Elements of a row of y.
    pub y_stride: u32,
    /// Whether a bias is added.
    pub has_bias: u32,
    /// Lanes that share out a row's units.
    pub lanes: u32,
    /// Rows of an expert.
    pub each: u32,
    /// Experts of a token.
    pub used: u32,
    /// How many partial sums of squares there are, where a norm is folded in.
    pub partials: u32,
    /// Elements that their mean is of.
    pub cols: f32,
    /// Added to it.
    pub eps: f32,
    /// Where this dispatch begins in the rows of each expert.
    pub from_row: u32,
}

/// What the matrix of all experts is: their rows one after another, and what is added to their products.
#[derive(Clone, Copy)]
pub struct ExpertWeights<'a> {
    /// [E M, C]
    pub w: &'a Linear,
    /// `[E M]`
    pub bias: Option<&'a Tensor>,
    /// E
    pub experts: usize,
}

/// Multiplies tokens with the matrices of their experts; no other expert's weights are read.
pub struct Experts {
    kernels: ByEpilogue,
    /// Those that divide by a norm.
    normed: ByEpilogue,
    no_bias: Tensor,
    pub(crate) most: Most,
}

const BINDINGS: &[Access] = &[
    Access::Read,
    Access::Read,
    Access::Read,
    Access::Read,
    Access::Read,
    Access::Read,
    Access::Write,
];

impl Experts {
    /// The kernel for every type.
    pub const SOURCES: ForFormats = for_formats!(
        "experts",
        "",
        PLAIN,
        [
            "lib/block.wgsl",
            "lib/inputs.wgsl",
            "lib/reads.wgsl",
            "lib/epilogue.wgsl",
            "lib/reduce4.wgsl"
        ],
        BINDINGS,
        ExpertsParams
    );
    /// The same where a workgroup is one subgroup.
    pub const SUBGROUP: ForFormats = for_formats!(
        "experts",
        "_subgroup",
        PLAIN,
        [
            "lib/block.wgsl",
            "lib/inputs.wgsl",
            "lib/reads.wgsl",
            "lib/epilogue.wgsl",
            "lib/reduce_subgroup.wgsl"
        ],
        BINDINGS,
        ExpertsParams
    );

    /// Compiles the kernels of the given products, whose epilogues have a gate or add. `folds`: whether norms of one token
    /// fold into them.
    pub async fn new(gpu: &Gpu, sums: Sums, products: &[Product], folds: bool) -> Result<Self> {
        let sources = [if sums == Sums::Subgroup { Self::SUBGROUP } else { Self::SOURCES }];
        let lanes = ("WG", f64::from(gpu.tier.lanes()));
        let gated = products.iter().filter(|(epilogue, _)| folds && epilogue.gated());
        let gated: Vec<_> = gated.copied().collect();
        let (kernels, normed) = try_join(
            ByEpilogue::new(gpu, &sources, products, &[lanes]),
            ByEpilogue::new(gpu, &sources, &gated, &[lanes, ("NORMED", 1.0)]),
        )
        .await?;
        let no_bias = Tensor::zeros(gpu, "no_bias", &[1])?;
        Ok(Self { kernels, normed, no_bias, most: Most::of(gpu) })
    }

    /// Records `y[t, s] = epilogue(x[t] w_e^T + bias_e)` for the experts e = chosen[t, s], or with [`Epilogue::Add`]
    /// `y[t] += sum_s share (x[t, s] w_e^T + bias_e)`. `frame`: `[4]`; `x`: [T, C] or [T, K, C]; `chosen`: [T, K, 2];
    /// `y`: [T, K, M/2], padded to whole units or not, or [T, M].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        epilogue: Epilogue,
        tensors: [&Tensor; 4],
        weights: ExpertWeights<'_>,
    ) -> Result<()> {
        tensors[0].expect("experts", [FRAME])?;
        self.note(recording, label.into(), epilogue, tensors, None, weights)
    }

    /// Records the same of one token with a gate, `norm(x)` being what is multiplied, the norm folded in.
    #[allow(clippy::too_many_arguments, reason = "as record, and the norm")]
    pub fn record_normed(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        epilogue: Epilogue,
        eps: f32,
        Normed { xn, sums, partials }: Normed<'_>,
        [chosen, y]: [&Tensor; 2],
        weights: ExpertWeights<'_>,
    ) -> Result<()> {
        xn.expect("experts", [1, weights.w.padded_cols()])?;
        if epilogue == Epilogue::Add {
            return Err(y.misfit("experts", "an epilogue that does not add".into()));
        }
        match sums.shape[..] {
            [room] if room >= partials as usize => {}
            _ => return Err(sums.misfit("experts", format!("[{partials}] or more"))),
        }
        // One over the root of nothing and one is one.
        let eps = if partials > 0 { eps } else { 1.0 };
        let tensors = [sums, xn, chosen, y];
        self.note(recording, label.into(), epilogue, tensors, Some((partials, eps)), weights)
    }

    fn note(
        &self,
        recording: &mut Recording,
        label: String,
        epilogue: Epilogue,
        [first, x, chosen, y]: [&Tensor; 4],
        norm: Option<(u32, f32)>,
        weights: ExpertWeights<'_>,
    ) -> Result<()> {
        const OP: &str = "experts";
        let ExpertWeights { w, bias, experts } = weights;
        let (added, cols) = (epilogue == Epilogue::Add, w.padded_cols());
        let each = w.rows / experts.max(1);
        let [tokens, used, _] = chosen.dims(OP)?;
        chosen.expect(OP, [tokens, used, 2])?;
        let works = added || epilogue.gated() && each.is_multiple_of(2);
        if !works || each * experts != w.rows {
            let expected = "experts of as many rows each, by an epilogue that adds or has a gate";
            return Err(y.misfit(OP, expected.into()));
        }
        if added {
            x.expect(OP, [tokens, used, cols])?;
            y.expect(OP, [tokens, each])?;
        } else {
            x.expect(OP, [tokens, cols])?;
            let width = each / 2;
            if ![width, width.next_multiple_of(32)]
                .iter()
                .any(|&width| y.shape == [tokens, used, width])
            {
                return Err(y.misfit(OP, format!("[{tokens}, {used}, {width}]")));
            }
        }
        if let Some(bias) = bias {
            bias.expect(OP, [w.rows])?;
        }
        let kernels = if norm.is_some() { &self.normed } else { &self.kernels };
        let (partials, eps) = norm.unwrap_or_default();
        for part in &w.parts {
            let kernel = kernels.get(epilogue, part.dtype)?;
            let units = cols as u32 / 32;
            let grid = Rows::of_one_token(each, units, 4, kernel.lanes());
            if grid.beyond > 1 {
                return Err(y.misfit(OP, "fewer rows of an expert".into()));
            }
            let params = ExpertsParams {
                rows: part.rows as u32,
                row0: part.row0 as u32,
                units,
                y_stride: y.shape.last().map_or(0, |&width| width as u32),
                has_bias: u32::from(bias.is_some()),
                lanes: grid.lanes,
                each: each as u32,
                used: used as u32,
                partials,
                cols: w.cols as f32,
                eps,
                from_row: 0,
            };
            let bias = bias.unwrap_or(&self.no_bias);
            let tensors = [first, x, chosen, &part.quants, &part.scales, bias, y];
            let (in_turn, at_once) = if added { (used as u32, 1) } else { (1, used as u32) };
            // Partial sums are added up too, and four rows stored.
            let shares = partials.div_ceil(kernel.lanes()) + 2 * (8 + 8);
            let iterations = in_turn * (1 + units.div_ceil(grid.lanes)) + 2 * (8 + 8) + 4 + shares;
            let iterations = u64::from(iterations);
            // As many as of this part if all parts have their share of what is chosen.
            let chosen = (part.quants.size() + part.scales.size()) * used as u64 / experts as u64;
            let read = used as u64 * (4 * (cols + partials as usize)) as u64;
            for slice in self.most.slices(grid.grid_x, u64::from(at_once) * iterations) {
                let groups = slice.end - slice.start;
                let params = ExpertsParams { from_row: slice.start * grid.each, ..params };
                let work = Work { grid: [groups, at_once, tokens as u32], iterations };
                recording.dispatch(&label, kernel, params, &tensors, work)?;
                recording.loops(Loops::Units);
                if tokens == 1 {
                    let weights = chosen * u64::from(groups) / u64::from(grid.grid_x);
                    recording.reads(Reads { weights, activations: u64::from(groups) * read });
                }
            }
        }
        Ok(())
    }
}
