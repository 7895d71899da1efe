//! What kernels rely on and neither sizes nor specifications promise: tried out once, when a device is opened.
use super::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};
use crate::{Error, Result, reference};

/// `Params` of `shaders/subgroup_check.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SubgroupCheckParams {
    /// Workgroups that are asked.
    pub groups: u32,
}

/// The kernel that asks whether a workgroup is one subgroup.
pub const SUBGROUP_CHECK: KernelSource = KernelSource {
    name: "subgroup_check",
    wgsl: wgsl!("subgroup_check.wgsl"),
    bindings: &[Access::Write],
    params_size: size_of::<SubgroupCheckParams>() as u64,
    subgroups: true,
};

/// `Params` of `shaders/half_check.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct HalfCheckParams {
    /// Halves above zero that are asked for.
    pub len: u32,
}

/// The kernel that asks whether the smallest halves are kept.
pub const HALF_CHECK: KernelSource = KernelSource {
    name: "half_check",
    wgsl: wgsl!("lib/unpack_half.wgsl", "half_check.wgsl"),
    bindings: &[Access::Write],
    params_size: size_of::<HalfCheckParams>() as u64,
    subgroups: false,
};

/// Subnormal halves, zero among them, and the least that is normal.
const SMALLEST: u16 = 1025;

impl Gpu {
    /// Finds out what the kernels of this device can rely on.
    pub(super) async fn tried_out(mut self) -> Result<Self> {
        if let Some(lanes) = self.tier.may_be_one_subgroup(&self.name)
            && self.is_one_subgroup(lanes).await?
        {
            self.tier.lanes = Some(lanes);
            self.tier.one_subgroup = true;
        }
        self.tier.half_by_bits =
            self.halves(SMALLEST).await? != bits(&reference::half_check(SMALLEST));
        Ok(self)
    }

    /// Whether workgroups of so many lanes are one subgroup each, whose lanes are counted as the workgroup's.
    pub(crate) async fn is_one_subgroup(&self, lanes: u32) -> Result<bool> {
        const GROUPS: u32 = 16;
        let kernel = match Kernel::new(self, SUBGROUP_CHECK, [("WG", f64::from(lanes))]).await {
            // No kernel needs subgroups: whoever compiles none has none.
            Err(Error::Kernel { .. }) => return Ok(false),
            made => made?,
        };
        let seen = Tensor::zeros(self, "subgroup_check", &[(GROUPS * lanes) as usize, 8])?;
        let work = Work { grid: [GROUPS, 1, 1], iterations: 0 };
        let mut recording = Recording::default();
        let params = SubgroupCheckParams { groups: GROUPS };
        recording.dispatch("subgroup_check", &kernel, params, &[&seen], work)?;
        recording.finish(self)?.run(self, &[]);
        let seen: Vec<u32> = seen.read(self).await?;
        Ok(seen == reference::subgroup_check(GROUPS as usize, lanes))
    }

    /// The bits of the first halves, above zero and below it, as this device unpacks them.
    pub(crate) async fn halves(&self, len: u16) -> Result<Vec<u32>> {
        const LANES: u32 = 64;
        let kernel = Kernel::new(self, HALF_CHECK, [("WG", f64::from(LANES))]).await?;
        let y = Tensor::zeros(self, "half_check", &[len.into(), 2])?;
        let params = HalfCheckParams { len: len.into() };
        let work = Work { grid: [params.len.div_ceil(LANES), 1, 1], iterations: 0 };
        let mut recording = Recording::default();
        recording.dispatch("half_check", &kernel, params, &[&y], work)?;
        recording.finish(self)?.run(self, &[]);
        y.read(self).await
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}
