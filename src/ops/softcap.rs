//! A bound that logits come near and never pass, or that products are cut off at.
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};
use crate::{Error, Result};

/// `Params` of `shaders/softcap.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SoftcapParams {
    /// V
    pub cols: u32,
    /// The bound.
    pub cap: f32,
    /// 1 where what is beyond is cut off instead of bent.
    pub hard: u32,
}

/// Elements that a lane has.
const EACH: u32 = 4;

/// Bends logits so that their magnitude stays below a bound, or cuts them off there.
pub struct Softcap {
    kernel: Kernel,
}

impl Softcap {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "softcap",
        wgsl: wgsl!("softcap.wgsl"),
        bindings: &[Access::Write],
        params_size: size_of::<SoftcapParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self { kernel: Kernel::plain(gpu, Self::SOURCE).await? })
    }

    /// Records `y <- cap tanh(y / cap)`. `y`: [rows, V]. An error unless `cap` is above zero.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        cap: f32,
        y: &Tensor,
    ) -> Result<()> {
        self.record_either(recording, label, (cap, false), y)
    }

    /// Records `y <- clamp(y, -cap, cap)`, likewise.
    pub fn record_clamp(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        cap: f32,
        y: &Tensor,
    ) -> Result<()> {
        self.record_either(recording, label, (cap, true), y)
    }

    fn record_either(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        (cap, hard): (f32, bool),
        y: &Tensor,
    ) -> Result<()> {
        let [rows, cols] = y.dims("softcap")?;
        if !(cap > 0.0 && cap.is_finite()) {
            return Err(Error::Unsupported(format!(
                "softcap: a bound of {cap}, where one above zero is wanted"
            )));
        }
        let params = SoftcapParams { cols: cols as u32, cap, hard: u32::from(hard) };
        let grid = [params.cols.div_ceil(EACH * self.kernel.lanes()), rows as u32, 1];
        let work = Work { grid, iterations: u64::from(EACH) };
        recording.dispatch(label, &self.kernel, params, &[y], work)
    }
}
