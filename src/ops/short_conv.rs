//! A short causal convolution over the tokens of each channel.
use super::FRAME;
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};

/// `Params` of `shaders/short_conv.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ShortConvParams {
    /// C
    pub channels: u32,
    /// Elements of a row of the input.
    pub stride: u32,
    /// L: tokens that are seen, the current one included.
    pub taps: u32,
    /// N: slots of the ring.
    pub slots: u32,
}

/// Convolves the channels of every token, and keeps what later tokens need.
pub struct ShortConv {
    kernel: Kernel,
    gated: bool,
}

impl ShortConv {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "short_conv",
        wgsl: wgsl!("short_conv.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Write],
        params_size: size_of::<ShortConvParams>() as u64,
        subgroups: false,
    };

    /// Compiles the kernel: of an input that holds two gates and what they gate, or of one that goes through SiLU.
    pub async fn new(gpu: &Gpu, gated: bool) -> Result<Self> {
        let overrides =
            [("WG", f64::from(gpu.tier.lanes())), ("GATED", f64::from(u8::from(gated)))];
        Ok(Self { kernel: Kernel::new(gpu, Self::SOURCE, overrides).await?, gated })
    }

    /// Records the convolution of `from` [T, stride] into `y` [T, C]. `frame`: `[4]`; `conv`: [C L]; `history`: [N, C].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        taps: usize,
        [frame, from, conv, history, y]: [&Tensor; 5],
    ) -> Result<()> {
        const OP: &str = "short_conv";
        let [tokens, stride] = from.dims(OP)?;
        let [slots, channels] = history.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        conv.expect(OP, [channels * taps])?;
        y.expect(OP, [tokens, channels])?;
        let read = if self.gated { 3 * channels } else { channels };
        if stride < read {
            return Err(from.misfit(OP, format!("[{tokens}, {read}] or wider")));
        }
        let [channels, stride, taps, slots] = [channels, stride, taps, slots].map(|n| n as u32);
        let params = ShortConvParams { channels, stride, taps, slots };
        let grid = [channels.div_ceil(self.kernel.lanes()), tokens as u32, 1];
        let work = Work { grid, iterations: u64::from(taps.saturating_sub(1)) };
        recording.dispatch(label, &self.kernel, params, &[frame, from, conv, history, y], work)
    }
}
