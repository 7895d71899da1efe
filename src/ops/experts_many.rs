//! Products of many tokens with the matrices of the experts that they go to, by expert.
use super::epilogue::ByEpilogue;
use super::formats::{ForFormats, for_formats};
use super::matmul::{Most, split};
use super::{Epilogue, ExpertWeights, GroupExperts, Product, WORKGROUP_MEMORY};
use crate::Result;
use crate::gpu::{Access, Gpu, Loops, Reads, Recording, Tensor, Work};

/// `Params` of `shaders/experts_rows.wgsl` and `shaders/experts_tiles.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ExpertsManyParams {
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
    /// Rows of an expert.
    pub each: u32,
    /// Choices that read the same row of x.
    pub readers: u32,
    /// Choices of a tile.
    pub tile: u32,
    /// Where this dispatch begins in the rows of each expert.
    pub from_row: u32,
}

/// Which kernel multiplies many tokens with their experts' matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertTiles {
    /// Lanes share out the columns of many rows by few tokens: what software drivers do best.
    Rows,
    /// Rows and tokens lie in workgroup memory: for GPUs.
    Tiles,
}

impl ExpertTiles {
    /// What suits the kind of device.
    pub fn of(gpu: &Gpu) -> Self {
        if gpu.tier.cpu { Self::Rows } else { Self::Tiles }
    }

    /// Tokens of a tile.
    pub fn tokens(self) -> usize {
        match self {
            Self::Rows => 8,
            Self::Tiles => 32,
        }
    }

    /// The shape of the list of tiles of so many tokens, which go to so many of the experts.
    pub fn groups(self, [tokens, used, experts]: [usize; 3]) -> [usize; 2] {
        let tile = self.tokens();
        [GroupExperts::most_tiles([tokens, used, experts], tile), 2 + tile]
    }
}

/// Multiplies the tokens of a pass with the matrices of their experts; a weight is read once for the tokens of a tile.
pub struct ExpertsMany {
    kernels: ByEpilogue,
    no_bias: Tensor,
    tiles: ExpertTiles,
    rows: u32,
    pub(crate) most: Most,
}

const BINDINGS: &[Access] =
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];

impl ExpertsMany {
    /// The kernel of software drivers for every type.
    pub const ROWS: ForFormats = for_formats!(
        "experts_rows",
        "",
        PLAIN,
        [
            "lib/block.wgsl",
            "lib/inputs.wgsl",
            "lib/reads.wgsl",
            "lib/epilogue.wgsl",
            "lib/grouped.wgsl"
        ],
        BINDINGS,
        ExpertsManyParams
    );
    /// The kernel of GPUs for every type.
    pub const TILES: ForFormats = for_formats!(
        "experts_tiles",
        "",
        PLAIN,
        [
            "lib/block.wgsl",
            "lib/reads.wgsl",
            "lib/epilogue.wgsl",
            "lib/grouped.wgsl",
            "lib/onto.wgsl"
        ],
        BINDINGS,
        ExpertsManyParams
    );

    /// Compiles the kernels of the given products, whose epilogues have a gate or store; one that adds stores, too, as
    /// [`super::SumExperts`] adds.
    pub async fn new(gpu: &Gpu, tiles: ExpertTiles, products: &[Product]) -> Result<Self> {
        let lanes = gpu.tier.lanes();
        let (source, rows) = match tiles {
            ExpertTiles::Rows => (Self::ROWS, (WORKGROUP_MEMORY / (32 * lanes)).min(32)),
            ExpertTiles::Tiles => (Self::TILES, 64),
        };
        let stored = |&(epilogue, dtype): &Product| match epilogue {
            Epilogue::Add => (Epilogue::Store, dtype),
            _ => (epilogue, dtype),
        };
        let products: Vec<Product> = products.iter().map(stored).collect();
        let overrides = [("WG", f64::from(lanes)), ("ROWS", f64::from(rows))];
        let kernels = ByEpilogue::new(gpu, &[source], &products, &overrides).await?;
        let no_bias = Tensor::zeros(gpu, "no_bias", &[1])?;
        Ok(Self { kernels, no_bias, tiles, rows, most: Most::of(gpu) })
    }

    fn iterations(&self, units: u32, lanes: u32) -> u64 {
        let rows = self.rows;
        u64::from(match self.tiles {
            ExpertTiles::Rows => {
                let sums = (rows.div_ceil(2) * 8).div_ceil(lanes) * (1 + 2 * lanes);
                8 * rows + units.div_ceil(lanes) * (1 + rows) + sums
            }
            // What a lane brings of a unit, and its eight words.
            ExpertTiles::Tiles => units * (1 + 4 + 8),
        })
    }

    /// Records `y[t, s] = epilogue(x[t] w_e^T + bias_e)` for the experts e of the tiles of `groups`, or of x[t, s]. `x`:
    /// [T, C] or [T, K, C]; `groups`: [tiles, 2 + TILE]; `y`: [T, K, M/2], padded to whole units or not, or [T, K, M].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        epilogue: Epilogue,
        [x, groups, y]: [&Tensor; 3],
        weights: ExpertWeights<'_>,
    ) -> Result<()> {
        const OP: &str = "experts_many";
        let ExpertWeights { w, bias, experts } = weights;
        let (cols, each) = (w.padded_cols(), w.rows / experts.max(1));
        let [tokens, used, width] = y.dims(OP)?;
        let works = epilogue == Epilogue::Store || epilogue.gated() && each.is_multiple_of(2);
        if !works || each * experts != w.rows {
            let expected = "experts of as many rows each, by an epilogue that stores or has a gate";
            return Err(y.misfit(OP, expected.into()));
        }
        let outputs = epilogue.outputs(each);
        if width != outputs && (!epilogue.gated() || width != outputs.next_multiple_of(32)) {
            return Err(y.misfit(OP, format!("[{tokens}, {used}, {outputs}]")));
        }
        let readers = if x.shape.len() == 2 { used } else { 1 };
        match x.shape.len() {
            2 => x.expect(OP, [tokens, cols])?,
            _ => x.expect(OP, [tokens, used, cols])?,
        }
        groups.expect(OP, self.tiles.groups([tokens, used, experts]))?;
        if let Some(bias) = bias {
            bias.expect(OP, [w.rows])?;
        }
        let label = label.into();
        let [tiles, _] = groups.dims(OP)?;
        // A pass that takes long has fewer tokens: a tile of them in the end.
        let tile = self.tiles.tokens();
        let [least, _] = self.tiles.groups([tokens.min(tile), used, experts]);
        let (grid_x, beyond) = split(each, self.rows);
        if beyond > 1 {
            return Err(y.misfit(OP, "fewer rows of an expert".into()));
        }
        for part in &w.parts {
            let kernel = self.kernels.get(epilogue, part.dtype)?;
            let params = ExpertsManyParams {
                rows: part.rows as u32,
                row0: part.row0 as u32,
                units: cols as u32 / 32,
                y_stride: width as u32,
                has_bias: u32::from(bias.is_some()),
                each: each as u32,
                readers: readers as u32,
                tile: tile as u32,
                from_row: 0,
            };
            let bias = bias.unwrap_or(&self.no_bias);
            let tensors = [x, groups, &part.quants, &part.scales, bias, y];
            let iterations = self.iterations(params.units, kernel.lanes());
            // At most: once for each tile that may be there, as if all parts had their share of every expert.
            let weights = (part.quants.size() + part.scales.size()) * tiles as u64 / experts as u64;
            let inputs = (tile * 4 * cols) as u64;
            for slice in self.most.slices(grid_x, least as u64 * iterations) {
                let groups = slice.end - slice.start;
                let params = ExpertsManyParams { from_row: slice.start * self.rows, ..params };
                let work = Work { grid: [groups, tiles as u32, 1], iterations };
                recording.dispatch(&label, kernel, params, &tensors, work)?;
                recording.loops(Loops::Units);
                let weights = weights * u64::from(groups) / u64::from(grid_x);
                let activations = u64::from(groups) * tiles as u64 * inputs;
                recording.reads(Reads { weights, activations });
            }
        }
        Ok(())
    }
}
