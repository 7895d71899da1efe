//! How the lanes of a workgroup add up.
use crate::gpu::Gpu;

/// How the lanes of a workgroup add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sums {
    /// Through workgroup memory, behind barriers: everywhere.
    Shared,
    /// By `subgroupAdd`, where a workgroup is one subgroup.
    Subgroup,
}

impl Sums {
    /// The best way of this device, which was tried out when it was opened.
    pub fn of(gpu: &Gpu) -> Self {
        if gpu.tier.one_subgroup { Self::Subgroup } else { Self::Shared }
    }
}
