//! Normalisation of rows.
use super::{FRAME, Sums};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};
use futures_util::future::try_join;

/// `Params` of `shaders/norm.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct NormParams {
    /// Elements of a row.
    pub cols: u32,
    /// Whether a bias is added.
    pub has_bias: u32,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// What a norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// The root of the mean of the squares: RMSNorm.
    Rms,
    /// The standard deviation, once the mean is subtracted: LayerNorm.
    Layer,
}

impl NormKind {
    /// The value of the kernels' override `CENTRED`.
    pub(super) fn centred(self) -> f64 {
        f64::from(u8::from(self == Self::Layer))
    }

    /// Numbers of a partial sum that folds into a product: the squares' sum; or how many, their mean, and the sum of the
    /// squares of what is off it.
    pub fn sums(self) -> usize {
        match self {
            Self::Rms => 1,
            Self::Layer => 3,
        }
    }

    /// Iterations of a norm of so many elements by so many lanes.
    pub(super) fn iterations(self, cols: u32, lanes: u32) -> u64 {
        let (each, sum) = (u64::from(cols.div_ceil(lanes)), u64::from(lanes.ilog2()));
        match self {
            Self::Rms => 2 * each + sum,
            Self::Layer => 3 * each + 2 * sum,
        }
    }
}

/// Normalises every row of a pass, or only its last token's.
pub struct Norm {
    every: Kernel,
    last: Kernel,
    no_bias: Tensor,
    kind: NormKind,
}

impl Norm {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "norm",
        wgsl: wgsl!("lib/reduce.wgsl", "lib/moments.wgsl", "norm.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
        params_size: size_of::<NormParams>() as u64,
        subgroups: false,
    };
    /// The kernel where a workgroup is one subgroup.
    pub const SUBGROUP: KernelSource = KernelSource {
        name: "norm_subgroup",
        wgsl: wgsl!("lib/reduce_subgroup.wgsl", "lib/moments.wgsl", "norm.wgsl"),
        subgroups: true,
        ..Self::SOURCE
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu, sums: Sums, kind: NormKind) -> Result<Self> {
        let lanes = f64::from(gpu.tier.lanes());
        let source = if sums == Sums::Subgroup { Self::SUBGROUP } else { Self::SOURCE };
        let make = async |last: bool| {
            let last = f64::from(u8::from(last));
            let overrides = [("WG", lanes), ("LAST", last), ("CENTRED", kind.centred())];
            Kernel::new(gpu, source, overrides).await
        };
        let (every, last) = try_join(make(false), make(true)).await?;
        Ok(Self { every, last, no_bias: Tensor::zeros(gpu, "no_bias", &[1])?, kind })
    }

    /// Records `y = norm(x) * w + bias` for every row. `frame`: `[4]`; `x`, `y`: [T, D]; `w`, `bias`: `[D]`.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        eps: f32,
        tensors: [&Tensor; 4],
        bias: Option<&Tensor>,
    ) -> Result<()> {
        let [rows, _] = tensors[1].dims("norm")?;
        self.note(recording, label.into(), &self.every, rows, eps, tensors, bias)
    }

    /// Records `y = norm(x) * w + bias` for the last token of the pass alone. `frame`: `[4]`; `x`: [T, D]; `w`, `bias`:
    /// `[D]`; `y`: [1, D].
    pub fn record_last(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        eps: f32,
        tensors: [&Tensor; 4],
        bias: Option<&Tensor>,
    ) -> Result<()> {
        self.note(recording, label.into(), &self.last, 1, eps, tensors, bias)
    }

    #[allow(clippy::too_many_arguments, reason = "as record, and the kernel")]
    fn note(
        &self,
        recording: &mut Recording,
        label: String,
        kernel: &Kernel,
        rows: usize,
        eps: f32,
        [frame, x, w, y]: [&Tensor; 4],
        bias: Option<&Tensor>,
    ) -> Result<()> {
        let [_, cols] = x.dims("norm")?;
        frame.expect("norm", [FRAME])?;
        w.expect("norm", [cols])?;
        y.expect("norm", [rows, cols])?;
        if let Some(bias) = bias {
            bias.expect("norm", [cols])?;
        }
        let has_bias = u32::from(bias.is_some());
        let params = NormParams { cols: cols as u32, has_bias, eps };
        let iterations = self.kind.iterations(params.cols, kernel.lanes());
        let work = Work { grid: [rows as u32, 1, 1], iterations };
        let tensors = [frame, x, w, bias.unwrap_or(&self.no_bias), y];
        recording.dispatch(label, kernel, params, &tensors, work)
    }
}
