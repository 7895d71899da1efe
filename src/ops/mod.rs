//! One file an op: its `Params`, its kernel, its `record`.
mod add_bias;
mod argmax;
mod attention;
mod attention_one;
mod formats;
mod fused;
mod get_rows;
mod head_norm;
mod int8;
mod linear;
mod matmul;
mod nll;
mod peak;
mod ring;
mod rms_norm;
mod rope_store;
mod sample;
mod shares;
mod shift;
mod subgroup;
mod variant;

pub use add_bias::{AddBias, AddBiasParams};
pub use argmax::{Argmax, ArgmaxParams, NO_TOKEN};
pub use attention::{Attention, AttentionParams, ChunkAttention, HeadShape, MOST_HEAD_DIM};
#[cfg(test)]
pub(crate) use attention_one::Plan;
pub use attention_one::{AttentionOne, splits};
pub use formats::ForFormats;
pub use fused::{Fused, Normed, NormedParams, ResidualParams, most_partials};
pub use get_rows::{GetRows, GetRowsParams};
pub use head_norm::{HeadNorm, HeadNormParams};
pub use int8::ActivationType;
pub(crate) use linear::same_type;
pub use linear::{Join, Linear, Part};
pub use matmul::{Epilogue, MatMul, MatMulParams, Product};
pub use nll::{Nll, NllParams};
pub use peak::{Peak, PeakParams};
pub use ring::{FRAME, RingParams};
pub use rms_norm::{RmsNorm, RmsNormParams};
pub use rope_store::RopeStore;
pub use sample::{Sample, SampleParams, SampleSelectParams, SamplerState};
pub use shares::{Shares, SharesParams};
pub use shift::{Shift, ShiftParams};
pub use subgroup::Sums;
pub use variant::{Choice, Origin, Variant};

use ring::{expect_cache, expect_turns};

/// Bytes of workgroup memory that every device has.
const WORKGROUP_MEMORY: u32 = 16 << 10;

/// Every kernel of the crate, for whoever looks at all of them.
pub fn kernels() -> Vec<crate::gpu::KernelSource> {
    let by_format = [
        GetRows::SOURCES,
        MatMul::MATVEC,
        MatMul::MATVEC_SUBGROUP,
        MatMul::MATVEC_MANY,
        MatMul::MATMUL,
        MatMul::MATMUL_COLUMNS,
        MatMul::MATMUL_TILES,
        Fused::NORMED,
        Fused::NORMED_SUBGROUP,
        Fused::NORMED_MANY,
        Fused::RESIDUAL,
        Fused::RESIDUAL_SUBGROUP,
        Fused::RESIDUAL_MANY,
        Fused::GET_ROWS,
    ];
    let bytes = [int8::MATVEC, int8::NORMED, int8::RESIDUAL].into_iter().flatten();
    let by_format: Vec<_> = by_format.into_iter().chain(bytes).collect();
    let by_format = by_format.iter().flat_map(ForFormats::all);
    let others = [RmsNorm::SOURCE, RmsNorm::SUBGROUP, RopeStore::SOURCE, Attention::SOURCE];
    let one = [
        Sample::SELECT,
        AddBias::SOURCE,
        Sample::SOURCE,
        Attention::TILES,
        Attention::COLUMNS,
        AttentionOne::SOURCE,
        AttentionOne::SUBGROUP,
        AttentionOne::JOIN,
        Argmax::SOURCE,
        HeadNorm::SOURCE,
        HeadNorm::SUBGROUP,
        Nll::SOURCE,
        Peak::SOURCE,
        Shift::SOURCE,
        Shares::SOURCE,
        crate::gpu::SUBGROUP_CHECK,
        crate::gpu::HALF_CHECK,
    ];
    others.into_iter().chain(one).chain(by_format).collect()
}
