//! Products of a few tokens, each of a stream of its own, on software drivers. What a token gets does not depend on how many
//! others there are: one kernel for 1, 2, 4 and 8 of them, that adds up in one order.
use super::epilogue::ByEpilogue;
use super::formats::{ForFormats, for_formats};
use super::matmul::{MANY, Most, Rows, expect_product, reads, split};
use super::variant::MANY_ROWS;
use super::{Epilogue, FRAME, Linear, MatMulParams, Product, Variant, WORKGROUP_MEMORY};
use crate::Result;
use crate::gpu::{Gpu, Loops, Recording, Tensor, Work};
use futures_util::future::try_join4;

/// Tokens that a workgroup takes.
const COLUMNS: [usize; 4] = [1, 2, 4, 8];

/// The kernels, by the tokens of a workgroup and by epilogue.
pub struct MatMulFew {
    kernels: [ByEpilogue; COLUMNS.len()],
    no_bias: Tensor,
    /// Rows of a workgroup.
    rows: u32,
    pub(crate) most: Most,
}

impl MatMulFew {
    /// The kernel for every type.
    pub const SOURCES: ForFormats = for_formats!(
        "matmul_few",
        "_subgroup",
        IN_PLACE,
        [
            "lib/block.wgsl",
            "lib/inputs.wgsl",
            "lib/reads.wgsl",
            "lib/epilogue.wgsl",
            "lib/reduce_subgroup.wgsl"
        ],
        MANY,
        MatMulParams
    );

    /// Compiles the kernels of the given products; none where a device has its own way of many tokens, which takes a few of
    /// them as well.
    pub async fn new(gpu: &Gpu, products: &[Product], variant: Variant) -> Result<Option<Self>> {
        if !variant.columns || variant.tiles {
            return Ok(None);
        }
        let lanes = gpu.tier.lanes();
        let rows = (WORKGROUP_MEMORY / (32 * lanes) / 4 * 4).min(MANY_ROWS);
        let make = async |columns: usize| {
            let [lanes, rows] = [lanes, rows].map(f64::from);
            let overrides = [("WG", lanes), ("ROWS", rows), ("COLUMNS", columns as f64)];
            ByEpilogue::new(gpu, &[Self::SOURCES], products, &overrides).await
        };
        let [one, two, four, eight] = COLUMNS.map(make);
        let (one, two, four, eight) = try_join4(one, two, four, eight).await?;
        let no_bias = Tensor::zeros(gpu, "no_bias", &[1])?;
        let kernels = [one, two, four, eight];
        Ok(Some(Self { kernels, no_bias, rows, most: Most::of(gpu) }))
    }

    /// Records `y = epilogue(x w^T + bias)` as [`MatMul::record`](super::MatMul::record) does. `frame`: `[4]`; `x`: `[T, K]`;
    /// `w`: [M, K]; `bias`: `[M]`; `y`: [T, M], or [T, M/2] with a gate, either padded to whole units.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: &str,
        epilogue: Epilogue,
        [frame, x, y]: [&Tensor; 3],
        w: &Linear,
        bias: Option<&Tensor>,
    ) -> Result<()> {
        const OP: &str = "matmul_few";
        frame.expect(OP, [FRAME])?;
        let [tokens, width] = expect_product(OP, epilogue, y, w, bias)?;
        x.expect(OP, [tokens, w.padded_cols()])?;
        let widest = COLUMNS.len() - 1;
        let at = COLUMNS.iter().position(|&columns| columns >= tokens).unwrap_or(widest);
        let (columns, has_bias) = (COLUMNS[at], bias.is_some());
        let bias = bias.unwrap_or(&self.no_bias);
        for part in &w.parts {
            let kernel = self.kernels[at].get(epilogue, part.dtype)?;
            let (units, rows) = (w.padded_cols() as u32 / 32, u64::from(self.rows));
            let each = u64::from(units.div_ceil(kernel.lanes())) * (1 + rows);
            let iterations = 2 * rows + each + columns as u64 * (1 + rows / 4);
            let groups = tokens.div_ceil(columns);
            for part in part.slices(units, self.rows, self.most.groups(iterations)) {
                let (grid_x, beyond) = split(part.rows, self.rows);
                let grid = Rows { each: self.rows, grid_x, beyond, lanes: 0 };
                let params = MatMulParams::of(&part, w, width, has_bias, grid);
                let tensors = [frame, x, &part.quants, &part.scales, bias, y];
                let work = Work { grid: [grid_x, groups as u32, beyond], iterations };
                recording.dispatch(label, kernel, params, &tensors, work)?;
                recording.loops(Loops::Units);
                let once = reads(&part, self.rows, 4 * columns * w.padded_cols());
                recording.reads(once.times(groups as u64));
            }
        }
        Ok(())
    }
}
