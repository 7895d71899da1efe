//! Rows of the embedding, by token id.
use super::formats::{ByFormat, ForFormats, for_formats};
use super::{FRAME, Linear};
use crate::Result;
use crate::format::DType;
use crate::gpu::{Access, Gpu, Recording, Tensor, Work};

/// `Params` of `shaders/get_rows.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct GetRowsParams {
    /// Rows of this part.
    pub rows: u32,
    /// Where the part starts.
    pub row0: u32,
    /// D/32
    pub units: u32,
    /// What weights are multiplied with.
    pub scale: f32,
    /// Elements from one token's id to that of the next.
    pub stride: u32,
}

/// Looks tokens up.
pub struct GetRows {
    kernels: ByFormat,
}

impl GetRows {
    /// The kernel for every type.
    pub const SOURCES: ForFormats = for_formats!(
        "get_rows",
        "",
        PLAIN,
        ["lib/block.wgsl", "lib/reads.wgsl"],
        &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
        GetRowsParams
    );

    /// Compiles the kernels of the given types.
    pub async fn new(gpu: &Gpu, dtypes: &[DType]) -> Result<Self> {
        let overrides = [("WG", f64::from(gpu.tier.lanes()))];
        Ok(Self { kernels: ByFormat::new(gpu, &[Self::SOURCES], dtypes, &overrides).await? })
    }

    /// Records `x[t] = scale w[tokens[t]]`. `frame`: `[4]`; `tokens`: `[T]`, or [T, n], of which the first of each row counts;
    /// `w`: `[V, D]`; `x`: [T, D].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        scale: f32,
        [frame, tokens, x]: [&Tensor; 3],
        w: &Linear,
    ) -> Result<()> {
        const OP: &str = "get_rows";
        let (count, stride) = match tokens.shape[..] {
            [count, stride] => (count, stride),
            _ => (tokens.dims::<1>(OP)?[0], 1),
        };
        frame.expect(OP, [FRAME])?;
        x.expect(OP, [count, w.padded_cols()])?;
        let label = label.into();
        for part in &w.parts {
            let params = GetRowsParams {
                rows: part.rows as u32,
                row0: part.row0 as u32,
                units: w.padded_cols() as u32 / 32,
                scale,
                stride: stride as u32,
            };
            let tensors = [frame, tokens, &part.quants, &part.scales, x];
            let kernel = self.kernels.get(part.dtype)?;
            let iterations = u64::from(params.units.div_ceil(kernel.lanes()));
            let work = Work { grid: [count as u32, 1, 1], iterations };
            recording.dispatch(&label, kernel, params, &tensors, work)?;
        }
        Ok(())
    }
}
