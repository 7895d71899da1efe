//! Whether a workgroup is one subgroup, so that its lanes can add up without a barrier.
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};
use crate::reference;

/// How the lanes of a workgroup add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sums {
    /// Through workgroup memory, behind barriers: everywhere.
    Shared,
    /// By `subgroupAdd`, where a workgroup is one subgroup.
    Subgroup,
}

/// `Params` of `shaders/subgroup_check.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SubgroupCheckParams {
    /// Workgroups that are asked.
    pub groups: u32,
}

/// The kernel that asks.
pub(super) const SOURCE: KernelSource = KernelSource {
    name: "subgroup_check",
    wgsl: wgsl!("subgroup_check.wgsl"),
    bindings: &[Access::Write],
    params_size: size_of::<SubgroupCheckParams>() as u64,
    subgroups: true,
};

impl Sums {
    /// The best way of this device. Sizes alone do not promise that lanes come together, so it is tried out, once.
    pub async fn of(gpu: &Gpu) -> Result<Self> {
        let known = gpu.one_subgroup.get().copied();
        let one = match known {
            Some(one) => one,
            None => Self::try_out(gpu).await?,
        };
        Ok(if *gpu.one_subgroup.get_or_init(|| one) { Self::Subgroup } else { Self::Shared })
    }

    async fn try_out(gpu: &Gpu) -> Result<bool> {
        let lanes = gpu.tier.lanes();
        if !gpu.tier.subgroups || lanes > gpu.tier.subgroup_size[0] {
            return Ok(false);
        }
        const GROUPS: u32 = 16;
        let kernel = Kernel::new(gpu, SOURCE, [("WG", f64::from(lanes))]).await?;
        let sum = Tensor::zeros(gpu, "subgroup_check", &[GROUPS as usize, lanes as usize])?;
        let mut recording = Recording::default();
        let params = SubgroupCheckParams { groups: GROUPS };
        let work = Work { grid: [GROUPS, 1, 1], iterations: 0 };
        recording.dispatch("subgroup_check", &kernel, params, &[&sum], work)?;
        recording.finish(gpu)?.run(gpu, &[]);
        let found: Vec<u32> = sum.read(gpu).await?;
        Ok(found == reference::subgroup_check(GROUPS as usize, lanes))
    }
}
