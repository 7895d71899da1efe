//! Products with quantised matrices: one token (`matvec`) or a chunk of them (`matmul`).
use super::formats::{ByFormat, for_every_format};
use super::{FRAME, Linear, Sums};
use crate::Result;
use crate::format::DType;
use crate::gpu::{Access, Gpu, KernelSource, Recording, Tensor};

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
}

/// The grid of workgroups that have four of `rows` rows each, as lines and their number.
pub(super) fn split(rows: usize) -> (u32, u32) {
    let groups = (rows as u32).div_ceil(4);
    (groups.min(MAX_GRID), groups.div_ceil(MAX_GRID))
}

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// y = product
    Store,
    /// y += product
    Add,
    /// y = silu(even rows) * odd rows
    SwiGlu,
}

const EPILOGUES: [Epilogue; 3] = [Epilogue::Store, Epilogue::Add, Epilogue::SwiGlu];

/// Both kernels, for every epilogue.
pub struct MatMul {
    matvec: [ByFormat; 3],
    matmul: [ByFormat; 3],
    no_bias: Tensor,
    /// Tokens that one workgroup of `matmul` takes.
    columns: u32,
}

impl MatMul {
    /// The kernel of one token for every type.
    pub const MATVEC: [(DType, KernelSource); 13] = for_every_format!(
        "matvec",
        "",
        ["lib/block.wgsl", "lib/epilogue.wgsl", "lib/four_rows.wgsl", "lib/reduce4.wgsl"],
        &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
        MatMulParams
    );
    /// The same where a workgroup is one subgroup.
    pub const MATVEC_SUBGROUP: [(DType, KernelSource); 13] = for_every_format!(
        "matvec",
        "_subgroup",
        [
            "lib/block.wgsl",
            "lib/epilogue.wgsl",
            "lib/four_rows.wgsl",
            "lib/five.wgsl",
            "lib/reduce_subgroup.wgsl"
        ],
        &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
        MatMulParams
    );
    /// The kernel of many tokens for every type.
    pub const MATMUL: [(DType, KernelSource); 13] = for_every_format!(
        "matmul",
        "",
        ["lib/block.wgsl", "lib/epilogue.wgsl"],
        &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
        MatMulParams
    );

    /// Compiles the kernels of the given types.
    pub async fn new(gpu: &Gpu, dtypes: &[DType], sums: Sums) -> Result<Self> {
        let lanes = f64::from(gpu.tier.lanes());
        // Sums of a workgroup's tokens fill its memory: 16 KiB on every device.
        let columns = if gpu.tier.cpu { 16 } else { 8 };
        let make = async |sources, tile: &[(&str, f64)], epilogue: Epilogue| {
            let shared = [("WG", lanes), ("EPILOGUE", f64::from(epilogue as u32))];
            ByFormat::new(gpu, sources, dtypes, &[&shared, tile].concat()).await
        };
        let [a, b, c] = EPILOGUES;
        let v = match sums {
            Sums::Shared => &Self::MATVEC[..],
            Sums::Subgroup => &Self::MATVEC_SUBGROUP[..],
        };
        let m = &Self::MATMUL[..];
        let tile = &[("COLUMNS", f64::from(columns))][..];
        Ok(Self {
            matvec: [make(v, &[], a).await?, make(v, &[], b).await?, make(v, &[], c).await?],
            matmul: [make(m, tile, a).await?, make(m, tile, b).await?, make(m, tile, c).await?],
            no_bias: Tensor::zeros(gpu, "no_bias", &[1])?,
            columns,
        })
    }

    /// Records `y = epilogue(x w^T + bias)`. `frame`: `[4]`; `x`: `[T, K]`; `w`: [M, K]; `bias`: `[M]`;
    /// `y`: [T, M], or [T, M/2] with SwiGLU, either padded to whole units.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        epilogue: Epilogue,
        [frame, x, y]: [&Tensor; 3],
        w: &Linear,
        bias: Option<&Tensor>,
    ) -> Result<()> {
        const OP: &str = "matmul";
        let [tokens, width] = y.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        x.expect(OP, [tokens, w.padded_cols()])?;
        let outputs = if epilogue == Epilogue::SwiGlu { w.rows / 2 } else { w.rows };
        if width != outputs && width != outputs.next_multiple_of(32) {
            return Err(y.misfit(OP, format!("[{tokens}, {outputs}]")));
        }
        if epilogue == Epilogue::SwiGlu && (!w.rows.is_multiple_of(2) || bias.is_some()) {
            return Err(y.misfit(OP, "an even number of rows and no bias with SwiGLU".into()));
        }
        if let Some(bias) = bias {
            bias.expect(OP, [w.rows])?;
        }
        let label = label.into();
        for part in &w.parts {
            let (grid_x, beyond) = split(part.rows);
            let params = MatMulParams {
                rows: part.rows as u32,
                row0: part.row0 as u32,
                units: w.padded_cols() as u32 / 32,
                y_stride: width as u32,
                has_bias: u32::from(bias.is_some()),
                grid_x,
            };
            let bias = bias.unwrap_or(&self.no_bias);
            if tokens == 1 {
                let kernel = self.matvec[epilogue as usize].get(part.dtype)?;
                let tensors = [x, &part.quants, &part.scales, bias, y];
                recording.dispatch(&label, kernel, params, &tensors, [grid_x, beyond, 1]);
            } else {
                let kernel = self.matmul[epilogue as usize].get(part.dtype)?;
                let tensors = [frame, x, &part.quants, &part.scales, bias, y];
                let grid = [grid_x, (tokens as u32).div_ceil(self.columns), beyond];
                recording.dispatch(&label, kernel, params, &tensors, grid);
            }
        }
        Ok(())
    }
}
