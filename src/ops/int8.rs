//! The kernels of one token whose activations are rounded to bytes, 32 of them with one scale.
use super::formats::{ForFormats, for_formats};
use super::fused::{NormedParams, READS_NORMED, ResidualParams, WRITES_RESIDUAL};
use super::matmul::{MatMulParams, ONE};
use crate::format::DType;

/// How a product of one token takes its activations.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ActivationType {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bytes with a scale for each 32, where the weights are integers of three bits or more.
    Int8,
}

impl std::fmt::Display for ActivationType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

impl ActivationType {
    /// Whether weights of this type are multiplied with activations of this one; else f32 ones are used.
    pub fn suits(self, dtype: DType) -> bool {
        self == Self::F32 || MATVEC[0].of(dtype).is_some()
    }
}

/// With barriers, with subgroups, with many rows.
type Shapes = [ForFormats; 3];

/// The three shapes of a kernel file.
macro_rules! shapes {
    ($stem:literal, [$($library:literal),*], $bindings:expr, $params:ty) => {
        [
            for_formats!($stem, "_int8", BYTES,
                [$($library,)* "lib/four_rows.wgsl", "lib/reduce4.wgsl"], $bindings, $params),
            for_formats!($stem, "_int8_subgroup", BYTES,
                [$($library,)* "lib/four_rows.wgsl", "lib/reduce_subgroup.wgsl"], $bindings, $params),
            for_formats!($stem, "_int8_many", BYTES,
                [$($library,)* "lib/many_rows.wgsl", "lib/reduce_subgroup.wgsl"], $bindings, $params),
        ]
    };
}

/// Products.
pub(super) const MATVEC: Shapes = shapes!(
    "matvec",
    ["lib/block.wgsl", "lib/inputs.wgsl", "lib/reads.wgsl", "lib/epilogue.wgsl"],
    ONE,
    MatMulParams
);
/// Products of a normed input.
pub(super) const NORMED: Shapes = shapes!(
    "matvec_normed",
    ["lib/folded.wgsl", "lib/block.wgsl", "lib/inputs.wgsl", "lib/reads.wgsl", "lib/epilogue.wgsl"],
    READS_NORMED,
    NormedParams
);
/// Products that are added to the residual stream.
pub(super) const RESIDUAL: Shapes = shapes!(
    "matvec_residual",
    ["lib/folded.wgsl", "lib/block.wgsl", "lib/inputs.wgsl", "lib/reads.wgsl"],
    WRITES_RESIDUAL,
    ResidualParams
);
