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
    /// K: columns of the input behind the channels, that come through as they are.
    pub kept: u32,
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

    /// Records the convolution of `mix` [T, stride] into `y` [T, C], or [N, C + K] where it is not gated. `frame`: `[4]`;
    /// `conv`: [C L]; `history`: [N, C].
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        taps: usize,
        [frame, mix, conv, history, y]: [&Tensor; 5],
    ) -> Result<()> {
        const OP: &str = "short_conv";
        let [tokens, stride] = mix.dims(OP)?;
        let [slots, channels] = history.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        conv.expect(OP, [channels * taps])?;
        let [_, width] = y.dims(OP)?;
        let (rows, read) = match self.gated {
            true => (tokens, 3 * channels),
            false => (slots, width),
        };
        y.expect(OP, [rows, if self.gated { channels } else { width.max(channels) }])?;
        if stride < read {
            return Err(mix.misfit(OP, format!("[{tokens}, {read}] or wider")));
        }
        let kept = width - channels;
        let [channels, kept, stride, taps, slots] =
            [channels, kept, stride, taps, slots].map(|n| n as u32);
        let params = ShortConvParams { channels, kept, stride, taps, slots };
        let grid = [(channels + kept).div_ceil(self.kernel.lanes()), tokens as u32, 1];
        let work = Work { grid, iterations: u64::from(taps.saturating_sub(1)) };
        recording.dispatch(label, &self.kernel, params, &[frame, mix, conv, history, y], work)
    }
}
