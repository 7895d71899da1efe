//! The decode step's products with the norms folded in: whoever writes the residual stream also writes it times the
//! next norm's gain, and its squares; whoever reads that divides its result by the root of their mean.
use super::epilogue::ByEpilogue;
use super::formats::{ByFormat, ForFormats, for_formats};
use super::matmul::{Rows, expect_product, one_token_iterations, reads};
use super::{Epilogue, GetRowsParams, Linear, MatMulParams, Product, Variant, int8};
use crate::Result;
use crate::format::DType;
use crate::gpu::{Access, Gpu, Recording, Tensor, Work};
use futures_util::future::try_join3;

/// `Params` of `shaders/matvec_normed.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct NormedParams {
    /// As of every product.
    pub product: MatMulParams,
    /// How many partial sums of squares there are.
    pub partials: u32,
    /// Elements that the mean is of.
    pub cols: f32,
    /// Added to the mean of the squares.
    pub eps: f32,
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
}

/// What the next norm needs of the residual stream.
#[derive(Clone, Copy)]
pub struct Normed<'a> {
    /// The stream times the norm's gain: [1, D].
    pub xn: &'a Tensor,
    /// Partial sums of its squares: `[>= partials]`.
    pub squares: &'a Tensor,
    /// How many of them there are now.
    pub partials: u32,
}

/// Partial sums of squares that any writer of `rows` elements in `parts` leaves at most.
pub fn most_partials(rows: usize, parts: usize) -> usize {
    rows.div_ceil(4) + parts
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
    get_rows: ByFormat,
    no_bias: Tensor,
    /// Rows of a workgroup.
    rows: u32,
}

impl Fused {
    /// Products of a normed input.
    pub const NORMED: ForFormats = for_formats!(
        "matvec_normed",
        "",
        FOUR_ROWS,
        [
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
        ["lib/block.wgsl", "lib/inputs.wgsl", "lib/reads.wgsl", "lib/reduce4.wgsl"],
        WRITES_RESIDUAL,
        ResidualParams
    );
    /// The same where a workgroup is one subgroup.
    pub const RESIDUAL_SUBGROUP: ForFormats = for_formats!(
        "matvec_residual",
        "_subgroup",
        PLAIN,
        [
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
        ["lib/block.wgsl", "lib/reads.wgsl"],
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
    ) -> Result<Self> {
        let lanes = ("WG", f64::from(gpu.tier.lanes()));
        let normed = [Self::NORMED, Self::NORMED_SUBGROUP, Self::NORMED_MANY];
        let normed = variant.sources(normed, int8::NORMED);
        let residual = [Self::RESIDUAL, Self::RESIDUAL_SUBGROUP, Self::RESIDUAL_MANY];
        let residual = variant.sources(residual, int8::RESIDUAL);
        let rows = ("ROWS", f64::from(variant.rows));
        let (added, stored): (Vec<_>, Vec<_>) =
            products.iter().partition(|(epilogue, _)| *epilogue == Epilogue::Add);
        let added: Vec<_> = added.into_iter().map(|(_, dtype): Product| dtype).collect();
        let (normed, residual, get_rows) = try_join3(
            ByEpilogue::new(gpu, &normed, &stored, &[lanes, rows]),
            ByFormat::new(gpu, &residual, &added, &[lanes, rows]),
            ByFormat::new(gpu, &[Self::GET_ROWS], embedding, &[lanes]),
        )
        .await?;
        Ok(Self {
            normed,
            residual,
            get_rows,
            no_bias: Tensor::zeros(gpu, "no_bias", &[1])?,
            rows: variant.rows,
        })
    }

    /// Records `x = scale w[token]` and what the norm of `gain` needs of it; how many partial sums there are then.
    /// `token`: `[T]`, of which the first counts; `gain`: `[D]`; `x`, `xn`: [1, D].
    pub fn record_get_rows(
        &self,
        recording: &mut Recording,
        label: &str,
        scale: f32,
        [token, gain, x, xn, squares]: [&Tensor; 5],
        w: &Linear,
    ) -> Result<u32> {
        const OP: &str = "get_rows_normed";
        let [_] = token.dims(OP)?;
        gain.expect(OP, [w.cols])?;
        x.expect(OP, [1, w.padded_cols()])?;
        xn.expect(OP, [1, w.padded_cols()])?;
        let units = w.padded_cols() as u32 / 32;
        expect_partials(OP, squares, units)?;
        for part in &w.parts {
            let (rows, row0) = (part.rows as u32, part.row0 as u32);
            let params = GetRowsParams { rows, row0, units, scale };
            let tensors = [token, &part.quants, &part.scales, gain, x, xn, squares];
            let kernel = self.get_rows.get(part.dtype)?;
            let iterations = u64::from(units.div_ceil(kernel.lanes()));
            let work = Work { grid: [1, 1, 1], iterations };
            recording.dispatch(label, kernel, params, &tensors, work)?;
        }
        Ok(units)
    }

    /// Records `y = epilogue(norm(x) w^T + bias)`, the norm folded in. `y`: [1, M], or [1, M/2] with a gate,
    /// either padded to whole units.
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
        let Normed { xn, squares, partials } = input;
        xn.expect(OP, [1, w.padded_cols()])?;
        expect_partials(OP, squares, partials)?;
        let [_, width] = expect_product(OP, epilogue, y, w, bias)?;
        y.expect(OP, [1, width])?;
        if epilogue == Epilogue::Add {
            return Err(y.misfit(OP, "an epilogue that does not add".into()));
        }
        for part in &w.parts {
            let kernel = self.normed.get(epilogue, part.dtype)?;
            let (units, lanes) = (w.padded_cols() as u32 / 32, kernel.lanes());
            let grid = Rows::of_one_token(part.rows, units, self.rows, lanes);
            let product = MatMulParams::of(part, w, width, bias.is_some(), grid);
            let params = NormedParams { product, partials, cols: w.cols as f32, eps };
            let bias = bias.unwrap_or(&self.no_bias);
            let tensors = [xn, squares, &part.quants, &part.scales, bias, y];
            let iterations = one_token_iterations(units, self.rows, grid.lanes)
                + u64::from(partials.div_ceil(lanes));
            let work = Work { grid: [grid.grid_x, grid.beyond, 1], iterations };
            recording.dispatch(label, kernel, params, &tensors, work)?;
            recording.reads(reads(part, self.rows, 4 * (w.padded_cols() + partials as usize)));
        }
        Ok(())
    }

    /// Records `y += x w^T` and what the norm of `gain` needs of y; how many partial sums there are then. `x`:
    /// [1, K]; `gain`: `[M]`; `y`, `yn`: [1, M].
    pub fn record_residual(
        &self,
        recording: &mut Recording,
        label: &str,
        [x, gain, y, yn, squares]: [&Tensor; 5],
        w: &Linear,
    ) -> Result<u32> {
        const OP: &str = "matvec_residual";
        x.expect(OP, [1, w.padded_cols()])?;
        gain.expect(OP, [w.rows])?;
        y.expect(OP, [1, w.rows])?;
        yn.expect(OP, [1, w.rows])?;
        let groups = |rows: usize| (rows as u32).div_ceil(self.rows);
        let partials = w.parts.iter().map(|part| groups(part.rows)).sum();
        expect_partials(OP, squares, partials)?;
        let mut partial0 = 0;
        for part in &w.parts {
            let kernel = self.residual.get(part.dtype)?;
            let units = w.padded_cols() as u32 / 32;
            let grid = Rows::of_one_token(part.rows, units, self.rows, kernel.lanes());
            let params = ResidualParams {
                rows: part.rows as u32,
                row0: part.row0 as u32,
                units,
                grid_x: grid.grid_x,
                lanes: grid.lanes,
                partial0,
            };
            partial0 += groups(part.rows);
            let tensors = [x, &part.quants, &part.scales, gain, y, yn, squares];
            let iterations = one_token_iterations(units, self.rows, grid.lanes);
            let work = Work { grid: [grid.grid_x, grid.beyond, 1], iterations };
            recording.dispatch(label, kernel, params, &tensors, work)?;
            recording.reads(reads(part, self.rows, 4 * w.padded_cols()));
        }
        Ok(partials)
    }
}

fn expect_partials(op: &'static str, squares: &Tensor, partials: u32) -> Result<()> {
    match squares.shape[..] {
        [room] if room >= partials as usize => Ok(()),
        _ => Err(squares.misfit(op, format!("[{partials}] or more"))),
    }
}
