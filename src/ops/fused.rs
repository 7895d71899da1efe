//! The decode step's products with the norms folded in: whoever writes the residual stream also writes it times the next
//! norm's gain, and partial sums; whoever reads that divides its result by the norm, and takes the mean off it too.
use super::epilogue::ByEpilogue;
use super::formats::{ByFormat, ForFormats, for_formats};
use super::matmul::{Most, Rows, expect_product, one_token_iterations, reads};
use super::{Epilogue, GetRowsParams, Linear, MatMulParams, NormKind, Product, Variant, int8};
use crate::Result;
use crate::format::DType;
use crate::gpu::{Access, Gpu, Loops, Recording, Tensor, Work};
use futures_util::future::{try_join, try_join3};

/// `Params` of `shaders/matvec_normed.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct NormedParams {
    /// As of every product.
    pub product: MatMulParams,
    /// How many partial sums there are.
    pub partials: u32,
    /// Elements that the mean is of.
    pub cols: f32,
    /// Added to the mean of the squares.
    pub eps: f32,
    /// Where the products of the norm's gain begin, behind those of its bias.
    pub slopes: u32,
}

/// `Params` of `shaders/matvec_residual.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ResidualParams {
    /// Rows of this part.
    pub rows: u32,
    /// Where the part starts in the whole matrix.
    pub row0: u32,
    /// K/32
    pub units: u32,
    /// Workgroups in a line of the grid.
    pub grid_x: u32,
    /// Lanes that share out a row's units, where four rows have them.
    pub lanes: u32,
    /// Where this part's partial sums start.
    pub partial0: u32,
    /// Rows of the whole matrix.
    pub all_rows: u32,
}

/// What the next norm needs of the residual stream.
#[derive(Clone, Copy)]
pub struct Normed<'a> {
    /// The stream times the norm's gain: [1, D].
    pub xn: &'a Tensor,
    /// Partial sums, as many numbers each as [`NormKind::sums`] says.
    pub sums: &'a Tensor,
    /// How many of them there are now; none where `xn` is the stream normed already.
    pub partials: u32,
}

/// Partial sums that any writer of `rows` elements in `parts` leaves at most.
pub fn most_partials(rows: usize, parts: usize) -> usize {
    rows.div_ceil(4) + parts
}

/// What norms fold into products, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folds {
    /// What norms divide by.
    pub kind: NormKind,
    /// Whether what is added to the stream has biases: all gains come with one then.
    pub biased: bool,
    /// Whether something is added to the stream while another block still reads it as it was.
    pub beside: bool,
}

impl Folds {
    /// RMSNorms, no biases, one block after another.
    pub const RMS: Self = Self { kind: NormKind::Rms, biased: false, beside: false };
}

pub(super) const WRITES_RESIDUAL: &[Access] = &[
    Access::Read,
    Access::Read,
    Access::Read,
    Access::Read,
    Access::Write,
    Access::Write,
    Access::Write,
];
pub(super) const READS_NORMED: &[Access] =
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];

/// The fused kernels of one token.
pub struct Fused {
    normed: ByEpilogue,
    residual: ByFormat,
    beside: ByFormat,
    get_rows: ByFormat,
    no_bias: Tensor,
    /// Rows of a workgroup.
    rows: u32,
    folds: Folds,
    pub(crate) most: Most,
}

impl Fused {
    /// Products of a normed input.
    pub const NORMED: ForFormats = for_formats!(
        "matvec_normed",
        "",
        FOUR_ROWS,
        [
            "lib/folded.wgsl",
            "lib/block.wgsl",
            "lib/inputs.wgsl",
            "lib/reads.wgsl",
            "lib/epilogue.wgsl",
            "lib/reduce4.wgsl"
        ],
        READS_NORMED,
        NormedParams
    );
    /// The same where a workgroup is one subgroup.
    pub const NORMED_SUBGROUP: ForFormats = for_formats!(
        "matvec_normed",
        "_subgroup",
        PLAIN,
        [
            "lib/folded.wgsl",
            "lib/block.wgsl",
            "lib/inputs.wgsl",
            "lib/reads.wgsl",
            "lib/epilogue.wgsl",
            "lib/four_rows.wgsl",
            "lib/reduce_subgroup.wgsl"
        ],
        READS_NORMED,
        NormedParams
    );
    /// The same for software drivers.
    pub const NORMED_MANY: ForFormats = for_formats!(
        "matvec_normed",
        "_many",
        IN_PLACE,
        [
            "lib/folded.wgsl",
            "lib/block.wgsl",
            "lib/inputs.wgsl",
            "lib/reads.wgsl",
            "lib/epilogue.wgsl",
            "lib/many_rows.wgsl",
            "lib/reduce_subgroup.wgsl"
        ],
        READS_NORMED,
        NormedParams
    );
    /// Products that are added to the residual stream.
    pub const RESIDUAL: ForFormats = for_formats!(
        "matvec_residual",
        "",
        FOUR_ROWS,
        [
            "lib/folded.wgsl",
            "lib/block.wgsl",
            "lib/inputs.wgsl",
            "lib/reads.wgsl",
            "lib/reduce4.wgsl"
        ],
        WRITES_RESIDUAL,
        ResidualParams
    );
    /// The same where a workgroup is one subgroup.
    pub const RESIDUAL_SUBGROUP: ForFormats = for_formats!(
        "matvec_residual",
        "_subgroup",
        PLAIN,
        [
            "lib/folded.wgsl",
            "lib/block.wgsl",
            "lib/inputs.wgsl",
            "lib/reads.wgsl",
            "lib/four_rows.wgsl",
            "lib/reduce_subgroup.wgsl"
        ],
        WRITES_RESIDUAL,
        ResidualParams
    );
    /// The same for software drivers.
    pub const RESIDUAL_MANY: ForFormats = for_formats!(
        "matvec_residual",
        "_many",
        IN_PLACE,
        [
            "lib/folded.wgsl",
            "lib/block.wgsl",
            "lib/inputs.wgsl",
            "lib/reads.wgsl",
            "lib/many_rows.wgsl",
            "lib/reduce_subgroup.wgsl"
        ],
        WRITES_RESIDUAL,
        ResidualParams
    );
    /// The embedding of one token.
    pub const GET_ROWS: ForFormats = for_formats!(
        "get_rows_normed",
        "",
        PLAIN,
        ["lib/folded.wgsl", "lib/block.wgsl", "lib/reads.wgsl"],
        WRITES_RESIDUAL,
        GetRowsParams
    );

    /// Compiles the kernels of the given products, Add being the residual's; `embedding`: the types of the
    /// embedding.
    pub async fn new(
        gpu: &Gpu,
        products: &[Product],
        embedding: &[DType],
        variant: Variant,
        folds: Folds,
    ) -> Result<Self> {
        let Folds { kind, biased, beside } = folds;
        let lanes = ("WG", f64::from(gpu.tier.lanes()));
        let normed = [Self::NORMED, Self::NORMED_SUBGROUP, Self::NORMED_MANY];
        let normed = variant.sources(normed, int8::NORMED);
        let residual = [Self::RESIDUAL, Self::RESIDUAL_SUBGROUP, Self::RESIDUAL_MANY];
        let residual = variant.sources(residual, int8::RESIDUAL);
        let each = ("ROWS", f64::from(variant.rows));
        let (added, stored): (Vec<_>, Vec<_>) =
            products.iter().partition(|(epilogue, _)| *epilogue == Epilogue::Add);
        let added: Vec<_> = added.into_iter().map(|(_, dtype): Product| dtype).collect();
        let centred = ("CENTRED", kind.centred());
        let biased = ("BIASED", f64::from(u8::from(biased)));
        let aside: &[DType] = if beside { &added } else { &[] };
        let (normed, (residual, beside), get_rows) = try_join3(
            ByEpilogue::new(gpu, &normed, &stored, &[lanes, each, centred]),
            try_join(
                ByFormat::new(gpu, &residual, &added, &[lanes, each, centred, biased]),
                ByFormat::new(gpu, &residual, aside, &[lanes, each, biased, ("BESIDE", 1.0)]),
            ),
            ByFormat::new(gpu, &[Self::GET_ROWS], embedding, &[lanes, centred]),
        )
        .await?;
        let no_bias = Tensor::zeros(gpu, "no_bias", &[1])?;
        let (rows, most) = (variant.rows, Most::of(gpu));
        Ok(Self { normed, residual, beside, get_rows, no_bias, rows, folds, most })
    }

    /// An error unless there is room for so many partial sums.
    fn expect_partials(&self, op: &'static str, sums: &Tensor, partials: u32) -> Result<()> {
        let wanted = partials as usize * self.folds.kind.sums();
        match sums.shape[..] {
            [room] if room >= wanted => Ok(()),
            _ => Err(sums.misfit(op, format!("[{wanted}] or more"))),
        }
    }

    /// Records `x = scale w[token]` and what the norm of `gain` needs of it; how many partial sums there are then.
    /// `token`: `[T]`, of which the first counts; `gain`: `[D]`; `x`, `xn`: [1, D].
    pub fn record_get_rows(
        &self,
        recording: &mut Recording,
        label: &str,
        scale: f32,
        [token, gain, x, xn, sums]: [&Tensor; 5],
        w: &Linear,
    ) -> Result<u32> {
        const OP: &str = "get_rows_normed";
        let [_] = token.dims(OP)?;
        gain.expect(OP, [w.cols])?;
        x.expect(OP, [1, w.padded_cols()])?;
        xn.expect(OP, [1, w.padded_cols()])?;
        let units = w.padded_cols() as u32 / 32;
        self.expect_partials(OP, sums, units)?;
        for part in &w.parts {
            let (rows, row0) = (part.rows as u32, part.row0 as u32);
            let params = GetRowsParams { rows, row0, units, scale, stride: 1 };
            let tensors = [token, &part.quants, &part.scales, gain, x, xn, sums];
            let kernel = self.get_rows.get(part.dtype)?;
            let iterations = u64::from(units.div_ceil(kernel.lanes()));
            let work = Work { grid: [1, 1, 1], iterations };
            recording.dispatch(label, kernel, params, &tensors, work)?;
        }
        Ok(units)
    }

    /// Records `y = epilogue(norm(x) w^T + bias)`, the norm folded in. `y`: [1, M], or [1, M/2] with a gate,
    /// either padded to whole units. `bias`: `[M]`; of a LayerNorm that is folded in [2, M], the product of the norm's
    /// bias in the first row, with the matrix' own, and that of its gain in the second.
    #[allow(clippy::too_many_arguments, reason = "as MatMul::record, and the norm")]
    pub fn record_normed(
        &self,
        recording: &mut Recording,
        label: &str,
        epilogue: Epilogue,
        eps: f32,
        input: Normed,
        y: &Tensor,
        w: &Linear,
        bias: Option<&Tensor>,
    ) -> Result<()> {
        const OP: &str = "matvec_normed";
        let Normed { xn, sums, partials } = input;
        let centred = self.folds.kind == NormKind::Layer && partials > 0;
        xn.expect(OP, [1, w.padded_cols()])?;
        self.expect_partials(OP, sums, partials)?;
        let [_, width] = expect_product(OP, epilogue, y, w, bias.filter(|_| !centred))?;
        y.expect(OP, [1, width])?;
        let (has_bias, bias) = (bias.is_some(), bias.unwrap_or(&self.no_bias));
        if centred {
            bias.expect(OP, [2, w.rows])?;
        }
        // One over the root of nothing and one is one.
        let eps = if partials > 0 { eps } else { 1.0 };
        if epilogue == Epilogue::Add {
            return Err(y.misfit(OP, "an epilogue that does not add".into()));
        }
        for part in &w.parts {
            let kernel = self.normed.get(epilogue, part.dtype)?;
            let (units, lanes) = (w.padded_cols() as u32 / 32, kernel.lanes());
            for part in part.slices(units, self.rows, self.most.one(units, self.rows, lanes)) {
                let grid = Rows::of_one_token(part.rows, units, self.rows, lanes);
                let product = MatMulParams::of(&part, w, width, has_bias, grid);
                let slopes = if centred { w.rows as u32 } else { 0 };
                let params = NormedParams { product, partials, cols: w.cols as f32, eps, slopes };
                let tensors = [xn, sums, &part.quants, &part.scales, bias, y];
                let iterations = one_token_iterations(units, self.rows, grid.lanes)
                    + u64::from(partials.div_ceil(lanes));
                let work = Work { grid: [grid.grid_x, grid.beyond, 1], iterations };
                recording.dispatch(label, kernel, params, &tensors, work)?;
                recording.loops(Loops::Units);
                let sums = partials as usize * self.folds.kind.sums();
                recording.reads(reads(&part, self.rows, 4 * (w.padded_cols() + sums)));
            }
        }
        Ok(())
    }

    /// Records `y += x w^T` and what the norm of `gain` needs of y; how many partial sums there are then. `x`:
    /// [1, K]; `gain`: `[M]`, or, where what is added has biases, [2, M] with the bias in the second row; `y`, `yn`:
    /// [1, M].
    pub fn record_residual(
        &self,
        recording: &mut Recording,
        label: &str,
        tensors: [&Tensor; 5],
        w: &Linear,
    ) -> Result<u32> {
        self.record_added(recording, label, &self.residual, tensors, w)
    }

    /// Records the same for another block that is still to read y as it was: `yn` is that times `gain`, and the sums stay.
    pub fn record_beside(
        &self,
        recording: &mut Recording,
        label: &str,
        tensors: [&Tensor; 5],
        w: &Linear,
    ) -> Result<()> {
        self.record_added(recording, label, &self.beside, tensors, w).map(|_| ())
    }

    fn record_added(
        &self,
        recording: &mut Recording,
        label: &str,
        kernels: &ByFormat,
        [x, gain, y, yn, sums]: [&Tensor; 5],
        w: &Linear,
    ) -> Result<u32> {
        const OP: &str = "matvec_residual";
        x.expect(OP, [1, w.padded_cols()])?;
        match self.folds.biased {
            true => gain.expect(OP, [2, w.rows])?,
            false => gain.expect(OP, [w.rows])?,
        }
        y.expect(OP, [1, w.rows])?;
        yn.expect(OP, [1, w.rows])?;
        let groups = |rows: usize| (rows as u32).div_ceil(self.rows);
        let partials = w.parts.iter().map(|part| groups(part.rows)).sum();
        self.expect_partials(OP, sums, partials)?;
        let mut partial0 = 0;
        for part in &w.parts {
            let kernel = kernels.get(part.dtype)?;
            let (units, lanes) = (w.padded_cols() as u32 / 32, kernel.lanes());
            // Slices end with whole workgroups: there are no more partial sums for them.
            for part in part.slices(units, self.rows, self.most.one(units, self.rows, lanes)) {
                let grid = Rows::of_one_token(part.rows, units, self.rows, lanes);
                let params = ResidualParams {
                    rows: part.rows as u32,
                    row0: part.row0 as u32,
                    units,
                    grid_x: grid.grid_x,
                    lanes: grid.lanes,
                    partial0,
                    all_rows: w.rows as u32,
                };
                partial0 += groups(part.rows);
                let tensors = [x, &part.quants, &part.scales, gain, y, yn, sums];
                let iterations = one_token_iterations(units, self.rows, grid.lanes);
                let work = Work { grid: [grid.grid_x, grid.beyond, 1], iterations };
                recording.dispatch(label, kernel, params, &tensors, work)?;
                recording.loops(Loops::Units);
                recording.reads(reads(&part, self.rows, 4 * w.padded_cols()));
            }
        }
        Ok(partials)
    }
}
