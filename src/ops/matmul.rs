//! Products with quantised matrices: one token (`matvec`) or a chunk of them (`matmul`).
use super::epilogue::ByEpilogue;
use super::formats::{ForFormats, for_formats};
use super::variant::MANY_ROWS;
use super::{Epilogue, FRAME, Linear, Part, Product, Variant, WORKGROUP_MEMORY, int8};
use crate::Result;
use crate::gpu::{Access, Gpu, Loops, Reads, Recording, Tensor, Work};
use futures_util::future::try_join;
use std::ops::Range;

/// Workgroups that one dimension of a grid may have on every WebGPU device.
const MAX_GRID: u32 = 65_535;

/// `Params` of `shaders/matvec.wgsl` and `shaders/matmul.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct MatMulParams {
    /// Rows of this part.
    pub rows: u32,
    /// Where the part starts in the whole matrix.
    pub row0: u32,
    /// K/32
    pub units: u32,
    /// Elements of a row of y.
    pub y_stride: u32,
    /// Whether a bias is added.
    pub has_bias: u32,
    /// Workgroups in a line of the grid.
    pub grid_x: u32,
    /// Lanes that share out a row's units, in a product of one token by four rows.
    pub lanes: u32,
}

impl MatMulParams {
    /// Of one part of `w`, whose product goes to rows of `y_stride` elements.
    pub(super) fn of(part: &Part, w: &Linear, y_stride: usize, has_bias: bool, grid: Rows) -> Self {
        Self {
            rows: part.rows as u32,
            row0: part.row0 as u32,
            units: w.padded_cols() as u32 / 32,
            y_stride: y_stride as u32,
            has_bias: u32::from(has_bias),
            grid_x: grid.grid_x,
            lanes: grid.lanes,
        }
    }
}

/// An error unless `y` [T, M] takes the product of `w` and `bias`: [T, M/2] with a gate, either padded to whole
/// units, or to two of them, so that a row begins where a binding may. Gives T and the width of `y`.
pub(super) fn expect_product(
    op: &'static str,
    epilogue: Epilogue,
    y: &Tensor,
    w: &Linear,
    bias: Option<&Tensor>,
) -> Result<[usize; 2]> {
    let [tokens, width] = y.dims(op)?;
    let outputs = epilogue.outputs(w.rows);
    let padded = [32, 64].map(|unit| outputs.next_multiple_of(unit));
    if width != outputs && !padded.contains(&width) {
        return Err(y.misfit(op, format!("[{tokens}, {outputs}]")));
    }
    if epilogue.gated() && !w.rows.is_multiple_of(2) {
        return Err(y.misfit(op, "an even number of rows with a gate".into()));
    }
    if let Some(bias) = bias {
        bias.expect(op, [w.rows])?;
    }
    Ok([tokens, width])
}

/// How a product is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    /// Rows of a workgroup.
    pub(super) each: u32,
    /// Workgroups in a line of the grid, and lines.
    pub(super) grid_x: u32,
    pub(super) beyond: u32,
    /// Lanes that share out a row's units.
    pub(super) lanes: u32,
}

impl Rows {
    /// Of the product of one token with rows of so many units, by workgroups of so many lanes. `each`: rows of a set of
    /// lanes.
    pub(super) fn of_one_token(rows: usize, units: u32, each: u32, lanes: u32) -> Self {
        let sets = ((rows as u32).div_ceil(each) / PARALLEL).max(1);
        let shared = if each == 4 { row_lanes(units, lanes, sets) } else { lanes };
        let each = each * (lanes / shared);
        let (grid_x, beyond) = split(rows, each);
        Self { each, grid_x, beyond, lanes: shared }
    }
}

/// Workgroups that a product has at least, if it has the rows: what a GPU gains by busier lanes it would lose by fewer.
const PARALLEL: u32 = 32;

/// How many of a workgroup's lanes share out the units of a row: as many as leave no more than a quarter of their turns
/// without work, but four at least, in so many sets at most; the best where none does.
fn row_lanes(units: u32, lanes: u32, sets: u32) -> u32 {
    let turns = |each: u32| each * units.div_ceil(each);
    let choices = [lanes, lanes / 2, lanes / 4, lanes / 8];
    let choices =
        || choices.into_iter().filter(|&each| each >= 4.min(lanes) && lanes / each <= sets);
    let good = choices().find(|&each| 4 * units >= 3 * turns(each));
    good.or(choices().rev().min_by_key(|&each| turns(each))).unwrap_or(lanes)
}

/// Loops that one dispatch makes at most for one tile of tokens: on software drivers, where a dispatch costs little, and a
/// slow one makes a million of them in a second. A GPU is kept busy by large dispatches.
#[derive(Clone, Copy)]
pub(crate) struct Most(pub(crate) u64);

impl Most {
    pub(super) fn of(gpu: &Gpu) -> Self {
        Self(if gpu.tier.cpu { 100_000 } else { u64::MAX })
    }

    /// Workgroups of so many loops.
    pub(super) fn groups(self, iterations: u64) -> u64 {
        (self.0 / (1 + iterations)).max(1)
    }

    /// The same of a product of one token.
    pub(super) fn one(self, units: u32, rows: u32, lanes: u32) -> u64 {
        self.groups(one_token_iterations(units, rows, lanes))
    }

    /// A line of so many workgroups in slices, where those in a column make so many loops together: for rows that lie apart,
    /// as those of several experts, which [`Part::slices`] cannot cut.
    pub(super) fn slices(self, line: u32, iterations: u64) -> impl Iterator<Item = Range<u32>> {
        let groups = u32::try_from(self.groups(iterations)).unwrap_or(u32::MAX).min(line.max(1));
        (0..line).step_by(groups as usize).map(move |at| at..line.min(at.saturating_add(groups)))
    }
}

/// The grid of workgroups that have `each` of `rows` rows, as lines and their number.
pub(super) fn split(rows: usize, each: u32) -> (u32, u32) {
    let groups = (rows as u32).div_ceil(each);
    (groups.min(MAX_GRID), groups.div_ceil(MAX_GRID))
}

/// What the workgroups of a product, of `each` rows, are bound to read: the weights once, `x` bytes each of the
/// activations.
pub(super) fn reads(part: &Part, each: u32, x: usize) -> Reads {
    let groups = (part.rows as u32).div_ceil(each);
    let weights = part.quants.size() + part.scales.size();
    Reads { weights, activations: u64::from(groups) * x as u64 }
}

/// Of a product of one token over so many units, by so many lanes and rows: their partial sums are added up, too.
pub(super) fn one_token_iterations(units: u32, rows: u32, lanes: u32) -> u64 {
    let fours = rows.div_ceil(4);
    u64::from(units.div_ceil(lanes) * (1 + fours) + 2 * fours + 2 * (8 + 8))
}

/// Both kernels, by epilogue.
pub struct MatMul {
    matvec: ByEpilogue,
    matmul: ByEpilogue,
    no_bias: Tensor,
    variant: Variant,
    /// Rows and tokens that one workgroup of a chunk's product takes.
    tile: [u32; 2],
    pub(crate) most: Most,
}

pub(super) const ONE: &[Access] =
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
pub(super) const MANY: &[Access] =
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];

impl MatMul {
    /// Tokens that a workgroup takes whether there are so many or not.
    pub(crate) fn tokens(&self) -> usize {
        self.tile[1] as usize
    }

    /// The kernel of one token for every type.
    pub const MATVEC: ForFormats = for_formats!(
        "matvec",
        "",
        FOUR_ROWS,
        [
            "lib/block.wgsl",
            "lib/inputs.wgsl",
            "lib/reads.wgsl",
            "lib/epilogue.wgsl",
            "lib/reduce4.wgsl"
        ],
        ONE,
        MatMulParams
    );
    /// The same where a workgroup is one subgroup.
    pub const MATVEC_SUBGROUP: ForFormats = for_formats!(
        "matvec",
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
        ONE,
        MatMulParams
    );
    /// The same for software drivers.
    pub const MATVEC_MANY: ForFormats = for_formats!(
        "matvec",
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
        ONE,
        MatMulParams
    );
    /// The kernel of many tokens for every type.
    pub const MATMUL: ForFormats = for_formats!(
        "matmul",
        "",
        PLAIN,
        ["lib/block.wgsl", "lib/inputs.wgsl", "lib/reads.wgsl", "lib/epilogue.wgsl"],
        MANY,
        MatMulParams
    );
    /// The same for software drivers.
    pub const MATMUL_COLUMNS: ForFormats = for_formats!(
        "matmul_columns",
        "_subgroup",
        PLAIN,
        ["lib/block.wgsl", "lib/inputs.wgsl", "lib/reads_broadcast.wgsl", "lib/epilogue.wgsl"],
        MANY,
        MatMulParams
    );
    /// The same for GPUs, by tiles.
    pub const MATMUL_TILES: ForFormats = for_formats!(
        "matmul_tiles",
        "",
        PLAIN,
        ["lib/block.wgsl", "lib/reads.wgsl", "lib/epilogue.wgsl", "lib/onto.wgsl"],
        MANY,
        MatMulParams
    );

    /// Compiles the kernels of the given products: of one token, and of many.
    pub async fn new(
        gpu: &Gpu,
        one: &[Product],
        many: &[Product],
        variant: Variant,
    ) -> Result<Self> {
        let lanes = gpu.tier.lanes();
        let (m, tile) = match variant {
            Variant { tiles: true, .. } => (Self::MATMUL_TILES, [64, 64]),
            Variant { columns: true, .. } => {
                let rows = (WORKGROUP_MEMORY / (32 * lanes) / 4 * 4).min(MANY_ROWS);
                (Self::MATMUL_COLUMNS, [rows, 8 * lanes])
            }
            // Sums of a workgroup's tokens fill its memory.
            _ => (Self::MATMUL, [4, if gpu.tier.cpu { 16 } else { 8 }]),
        };
        let make = async |sources: &[_], rows: u32, products: &[Product]| {
            let overrides = [
                ("WG", f64::from(lanes)),
                ("ROWS", f64::from(rows)),
                ("COLUMNS", f64::from(tile[1])),
            ];
            ByEpilogue::new(gpu, sources, products, &overrides).await
        };
        let v = [Self::MATVEC, Self::MATVEC_SUBGROUP, Self::MATVEC_MANY];
        let v = &variant.sources(v, int8::MATVEC);
        let m = &[m];
        let (matvec, matmul) = try_join(make(v, variant.rows, one), make(m, tile[0], many)).await?;
        let no_bias = Tensor::zeros(gpu, "no_bias", &[1])?;
        Ok(Self { matvec, matmul, no_bias, variant, tile, most: Most::of(gpu) })
    }

    /// Of a chunk's product over so many units.
    fn iterations(&self, units: u32, lanes: u32) -> u64 {
        let ([rows, columns], each) = (self.tile, u64::from(units));
        match self.variant {
            // What a lane brings of a unit, and its eight words.
            Variant { tiles: true, .. } => each * (1 + 4 + 8),
            Variant { columns: true, .. } => {
                let rows = u64::from(rows);
                rows + each * (1 + rows) + 8 * (1 + rows.div_ceil(4))
            }
            _ => {
                let lane = u64::from(columns.div_ceil(lanes)) * u64::from(1 + lanes);
                let columns = u64::from(columns);
                columns + u64::from(units.div_ceil(lanes)) * (1 + columns) + lane
            }
        }
    }

    /// Records `y = epilogue(x w^T + bias)`. `frame`: `[4]`; `x`: `[T, K]`; `w`: [M, K]; `bias`: `[M]`;
    /// `y`: [T, M], or [T, M/2] with a gate, either padded to whole units.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        epilogue: Epilogue,
        [frame, x, y]: [&Tensor; 3],
        w: &Linear,
        bias: Option<&Tensor>,
    ) -> Result<()> {
        let [tokens, _] = y.dims(Self::OP)?;
        self.record_by(tokens == 1, recording, label.into(), epilogue, [frame, x, y], w, bias)
    }

    /// The same by the kernel of many tokens, however few there are: what a token gets does not depend on the others.
    pub fn record_many(
        &self,
        recording: &mut Recording,
        label: &str,
        epilogue: Epilogue,
        tensors: [&Tensor; 3],
        w: &Linear,
        bias: Option<&Tensor>,
    ) -> Result<()> {
        self.record_by(false, recording, label.into(), epilogue, tensors, w, bias)
    }

    const OP: &str = "matmul";

    #[allow(clippy::too_many_arguments, reason = "as record, and which way")]
    fn record_by(
        &self,
        one: bool,
        recording: &mut Recording,
        label: String,
        epilogue: Epilogue,
        [frame, x, y]: [&Tensor; 3],
        w: &Linear,
        bias: Option<&Tensor>,
    ) -> Result<()> {
        frame.expect(Self::OP, [FRAME])?;
        let [tokens, width] = expect_product(Self::OP, epilogue, y, w, bias)?;
        x.expect(Self::OP, [tokens, w.padded_cols()])?;
        for part in &w.parts {
            let units = w.padded_cols() as u32 / 32;
            let has_bias = bias.is_some();
            let bias = bias.unwrap_or(&self.no_bias);
            if one {
                let kernel = self.matvec.get(epilogue, part.dtype)?;
                let (rows, lanes) = (self.variant.rows, kernel.lanes());
                for part in part.slices(units, rows, self.most.one(units, rows, lanes)) {
                    let grid = Rows::of_one_token(part.rows, units, rows, lanes);
                    let params = MatMulParams::of(&part, w, width, has_bias, grid);
                    let tensors = [x, &part.quants, &part.scales, bias, y];
                    let iterations = one_token_iterations(units, rows, grid.lanes);
                    let work = Work { grid: [grid.grid_x, grid.beyond, 1], iterations };
                    recording.dispatch(&label, kernel, params, &tensors, work)?;
                    recording.loops(Loops::Units);
                    recording.reads(reads(&part, rows, 4 * w.padded_cols()));
                }
                continue;
            }
            let kernel = self.matmul.get(epilogue, part.dtype)?;
            let ([rows, columns], iterations) = (self.tile, self.iterations(units, kernel.lanes()));
            // A pass that takes long has fewer tokens: a tile of them in the end.
            for part in part.slices(units, rows, self.most.groups(iterations)) {
                let (grid_x, beyond) = split(part.rows, rows);
                let grid = Rows { each: rows, grid_x, beyond, lanes: 0 };
                let params = MatMulParams::of(&part, w, width, has_bias, grid);
                let tensors = [frame, x, &part.quants, &part.scales, bias, y];
                let grid = [grid_x, (tokens as u32).div_ceil(columns), beyond];
                recording.dispatch(&label, kernel, params, &tensors, Work { grid, iterations })?;
                recording.loops(Loops::Units);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Rows, row_lanes};

    /// Turns of lanes with a unit to multiply, of all turns, in hundredths.
    fn busy(cols: u32, [lanes, shared]: [u32; 2]) -> u32 {
        let units = cols / 32;
        assert!(lanes.is_multiple_of(shared));
        100 * units / (shared * units.div_ceil(shared))
    }

    #[test]
    fn few_lanes_have_nothing_to_do() {
        // K; of 32 and of 64 lanes those that share a row; how busy they are, and were when all of them shared one.
        for (cols, shared, now, before) in [
            (576, [8, 8], [75, 75], [56, 28]),
            (960, [32, 32], [93, 93], [93, 46]),
            (1536, [32, 64], [75, 75], [75, 75]),
            (2048, [32, 64], [100, 100], [100, 100]),
            (4096, [32, 64], [100, 100], [100, 100]),
        ] {
            let lanes = [32, 64];
            let found = lanes.map(|lanes| row_lanes(cols / 32, lanes, 8));
            assert_eq!(found, shared, "{cols}");
            assert_eq!([0, 1].map(|i| busy(cols, [lanes[i], shared[i]])), now, "{cols}");
            assert_eq!(lanes.map(|lanes| busy(cols, [lanes; 2])), before, "{cols}");
        }
        // Where rows are few, workgroups stay many: of 576 rows of four, 36.
        let [all, few] = [3072, 576].map(|rows| Rows::of_one_token(rows, 18, 4, 64));
        assert_eq!([all.lanes, all.grid_x], [8, 96]);
        assert_eq!([few.lanes, few.grid_x], [16, 36]);
        assert_eq!(Rows::of_one_token(48, 18, 4, 64).lanes, 64);
        assert_eq!(Rows::of_one_token(3072, 18, 48, 8).lanes, 8, "many rows have all lanes");
        // No row has half of its lanes idle from five units on.
        for units in 1..4096 {
            for lanes in [4, 8, 16, 32, 64] {
                let shared = row_lanes(units, lanes, 8);
                assert!((4..=lanes).contains(&shared) && shared.is_power_of_two());
                assert!(units < 5 || busy(32 * units, [lanes, shared]) > 50, "{units} {lanes}");
            }
        }
    }
}
