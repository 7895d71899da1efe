//! The tokens of a pass by the experts that they go to.
use super::{FRAME, MOST_EXPERTS};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/group_experts.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct GroupExpertsParams {
    /// E
    pub experts: u32,
    /// K
    pub used: u32,
    /// Choices of a tile.
    pub tile: u32,
    /// Tiles that there is room for.
    pub tiles: u32,
}

/// Sorts the choices of a pass by their experts.
pub struct GroupExperts {
    kernel: Kernel,
}

impl GroupExperts {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "group_experts",
        wgsl: wgsl!("group_experts.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Write],
        params_size: size_of::<GroupExpertsParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        let overrides = [("WG", f64::from(gpu.tier.lanes_alone()))];
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCE, overrides).await? })
    }

    /// The most tiles that so many tokens may need, of which each goes to `used` of the experts: one for each expert, as
    /// far as they have any, and one more whenever a tile is full.
    pub fn most_tiles([tokens, used, experts]: [usize; 3], tile: usize) -> usize {
        let choices = tokens * used;
        let begun = experts.min(choices);
        ((choices - begun) / tile + begun).min(experts * tokens.div_ceil(tile))
    }

    /// Records the tiles of what is chosen. `frame`: `[4]`; `chosen`: [T, K, 2]; `groups`: [tiles, 2 + TILE].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        experts: usize,
        [frame, chosen, groups]: [&Tensor; 3],
    ) -> Result<()> {
        const OP: &str = "group_experts";
        let [tokens, used, _] = chosen.dims(OP)?;
        let [tiles, stride] = groups.dims(OP)?;
        let tile = stride.saturating_sub(2).max(1);
        frame.expect(OP, [FRAME])?;
        chosen.expect(OP, [tokens, used, 2])?;
        groups.expect(OP, [Self::most_tiles([tokens, used, experts], tile), 2 + tile])?;
        if experts > MOST_EXPERTS {
            return Err(groups.misfit(OP, format!("at most {MOST_EXPERTS} experts")));
        }
        let [experts, used, tile, tiles] = [experts, used, tile, tiles].map(|n| n as u32);
        let (tokens, lanes) = (tokens as u32, self.kernel.lanes());
        // A choice is counted, and then its place found.
        let (each, rounds) = (experts.div_ceil(lanes), (tokens * used).div_ceil(lanes));
        let counted = each * (3 + tokens.div_ceil(tile)) + lanes + tiles.div_ceil(lanes);
        let iterations = u64::from(counted + rounds * (2 + lanes.div_ceil(4)));
        let params = GroupExpertsParams { experts, used, tile, tiles };
        let work = Work { grid: [1, 1, 1], iterations };
        recording.dispatch(label, &self.kernel, params, &[frame, chosen, groups], work)
    }
}
