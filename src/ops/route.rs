//! Which experts each token goes to, and with what shares.
use super::FRAME;
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/route.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RouteParams {
    /// E
    pub experts: u32,
    /// K
    pub used: u32,
    /// What shares are multiplied with.
    pub scale: f32,
}

/// The most experts that a layer may have.
pub const MOST_EXPERTS: usize = 512;
/// The most experts that a token may go to.
pub const MOST_USED: usize = 16;

/// Chooses the experts of every token.
pub struct Route {
    kernel: Kernel,
}

impl Route {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "route",
        wgsl: wgsl!("route.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Write],
        params_size: size_of::<RouteParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self { kernel: Kernel::plain(gpu, Self::SOURCE).await? })
    }

    /// Records `chosen[t] = the K highest of logits[t]`. `frame`: `[4]`; `logits`: [T, E]; `chosen`: [T, K, 2], an expert
    /// and the bits of its share.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        params: RouteParams,
        [frame, logits, chosen]: [&Tensor; 3],
    ) -> Result<()> {
        const OP: &str = "route";
        let [experts, used] = [params.experts, params.used].map(|n| n as usize);
        let [tokens, _] = logits.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        logits.expect(OP, [tokens, experts])?;
        chosen.expect(OP, [tokens, used, 2])?;
        if experts > MOST_EXPERTS {
            return Err(logits.misfit(OP, format!("at most {MOST_EXPERTS} experts")));
        }
        if used > experts.min(MOST_USED) {
            return Err(chosen.misfit(OP, format!("at most {MOST_USED} of the {experts} experts")));
        }
        let lanes = self.kernel.lanes();
        let (each, slots) = (params.experts.div_ceil(lanes), params.used.div_ceil(lanes));
        let iterations = each + params.used * (1 + each + lanes - 1) + slots * (1 + params.used);
        let work = Work { grid: [tokens as u32, 1, 1], iterations: u64::from(iterations) };
        recording.dispatch(label, &self.kernel, params, &[frame, logits, chosen], work)
    }
}
