//! One file an op: its `Params`, its kernel, its `record`.
mod add_position;
mod argmax;
mod attention;
mod attention_one;
mod delta_net;
mod epilogue;
mod experts;
mod experts_many;
mod formats;
mod fused;
mod gate;
mod get_rows;
mod group_experts;
mod head_norm;
mod head_terms;
mod int8;
mod kv;
mod linear;
mod matmul;
mod matmul_few;
mod nll;
mod norm;
mod norm_added;
mod peak;
mod ring;
mod rope_store;
mod route;
mod sample;
mod sampler_state;
mod shares;
mod shift;
mod short_conv;
mod softcap;
mod subgroup;
mod sum_experts;
mod variant;

pub use add_position::{AddPosition, AddPositionParams};
pub use argmax::{Argmax, ArgmaxParams, NO_TOKEN};
pub use attention::{
    Attention, AttentionParams, ChunkAttention, HeadShape, MOST_HEAD_DIM, carried,
};
#[cfg(test)]
pub(crate) use attention_one::Plan;
pub use attention_one::{AttentionOne, splits};
pub use delta_net::{DeltaNet, DeltaNetParams, MOST_KEY_DIM};
pub use epilogue::{Epilogue, Product};
pub use experts::{ExpertWeights, Experts, ExpertsParams};
pub use experts_many::{ExpertTiles, ExpertsMany, ExpertsManyParams};
pub use formats::ForFormats;
pub use fused::{Folds, Fused, Normed, NormedParams, ResidualParams, most_partials};
pub use gate::{Gate, GateParams};
pub use get_rows::{GetRows, GetRowsParams};
pub use group_experts::{GroupExperts, GroupExpertsParams};
pub use head_norm::{HeadNorm, HeadNormParams};
pub use head_terms::{Start, head_terms};
pub use int8::ActivationType;
pub use kv::{ForKv, KvType};
pub(crate) use linear::same_type;
pub use linear::{Join, Linear, Part};
#[cfg(test)]
pub(crate) use matmul::Most;
pub use matmul::{MatMul, MatMulParams};
pub use matmul_few::MatMulFew;
pub use nll::{Nll, NllParams};
pub use norm::{Norm, NormKind, NormParams};
pub use norm_added::{Added, Next, NormAdded, NormAddedParams};
pub use peak::{Peak, PeakParams};
pub use ring::{FRAME, FRAME_ROW, RingParams};
pub use rope_store::RopeStore;
pub use route::{MOST_EXPERTS, MOST_USED, Route, RouteParams};
pub use sample::{Sample, SampleParams, SampleSelectParams};
pub use sampler_state::{SamplerState, SamplingParams};
pub use shares::{Shares, SharesParams};
pub use shift::{Shift, ShiftParams};
pub use short_conv::{ShortConv, ShortConvParams};
pub use softcap::{Softcap, SoftcapParams};
pub use subgroup::Sums;
pub use sum_experts::{SumExperts, SumExpertsParams};
pub use variant::{Choice, Origin, Variant};

use head_terms::HEAD_TERMS;
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
        MatMulFew::SOURCES,
        Fused::NORMED,
        Fused::NORMED_SUBGROUP,
        Fused::NORMED_MANY,
        Fused::RESIDUAL,
        Fused::RESIDUAL_SUBGROUP,
        Fused::RESIDUAL_MANY,
        Fused::GET_ROWS,
        Experts::SOURCES,
        Experts::SUBGROUP,
        ExpertsMany::ROWS,
        ExpertsMany::TILES,
    ];
    let bytes = [int8::MATVEC, int8::NORMED, int8::RESIDUAL].into_iter().flatten();
    let by_format: Vec<_> = by_format.into_iter().chain(bytes).collect();
    let by_format = by_format.iter().flat_map(ForFormats::all);
    let by_kv = [
        RopeStore::SOURCES,
        Attention::SOURCES,
        Attention::TILES,
        Attention::COLUMNS,
        AttentionOne::SOURCES,
        AttentionOne::SUBGROUP,
        Shares::SOURCES,
    ];
    let by_kv = by_kv.iter().flat_map(ForKv::all);
    let one = [
        Sample::SELECT,
        AddPosition::SOURCE,
        Sample::SOURCE,
        Norm::SOURCE,
        Norm::SUBGROUP,
        AttentionOne::JOIN,
        Argmax::SOURCE,
        DeltaNet::SOURCE,
        Gate::SOURCE,
        Gate::SUBGROUP,
        GroupExperts::SOURCE,
        HeadNorm::SOURCE,
        HeadNorm::SUBGROUP,
        Nll::SOURCE,
        NormAdded::SOURCE,
        NormAdded::SUBGROUP,
        Peak::SOURCE,
        Route::SOURCE,
        Shift::SOURCE,
        ShortConv::SOURCE,
        Softcap::SOURCE,
        SumExperts::SOURCE,
        crate::gpu::SUBGROUP_CHECK,
        crate::gpu::HALF_CHECK,
    ];
    one.into_iter().chain(by_kv).chain(by_format).collect()
}
