//! Normalisation of rows.
use super::{FRAME, Sums};
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};
use crate::{Error, Result};
use futures_util::future::try_join3;

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
    /// What a sum is multiplied with, where the result is added to what is there.
    pub scale: f32,
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
    added: Option<Kernel>,
    no_bias: Tensor,
    kind: NormKind,
}

impl Norm {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "norm",
        wgsl: wgsl!("lib/reduce.wgsl", "norm.wgsl"),
        bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
        params_size: size_of::<NormParams>() as u64,
        subgroups: false,
    };
    /// The kernel where a workgroup is one subgroup.
    pub const SUBGROUP: KernelSource = KernelSource {
        name: "norm_subgroup",
        wgsl: wgsl!("lib/reduce_subgroup.wgsl", "norm.wgsl"),
        subgroups: true,
        ..Self::SOURCE
    };

    /// Compiles the kernel. `added`: whether some norm's result is added to what is there.
    pub async fn new(gpu: &Gpu, sums: Sums, kind: NormKind, added: bool) -> Result<Self> {
        let lanes = f64::from(gpu.tier.lanes());
        let source = if sums == Sums::Subgroup { Self::SUBGROUP } else { Self::SOURCE };
        let make = async |last: bool, add: bool| {
            let [last, add] = [last, add].map(|flag| f64::from(u8::from(flag)));
            let overrides =
                [("WG", lanes), ("LAST", last), ("CENTRED", kind.centred()), ("ADD", add)];
            Kernel::new(gpu, source, overrides).await
        };
        let make_added = async || if added { make(false, true).await.map(Some) } else { Ok(None) };
        let (every, last, added) =
            try_join3(make(false, false), make(true, false), make_added()).await?;
        Ok(Self { every, last, added, no_bias: Tensor::zeros(gpu, "no_bias", &[1])?, kind })
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
        self.note(recording, label.into(), &self.every, rows, [eps, 1.0], tensors, bias)
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
        self.note(recording, label.into(), &self.last, 1, [eps, 1.0], tensors, bias)
    }

    /// Records `y <- (y + norm(x) * w + bias) * scale` for every row. `frame`: `[4]`; `x`, `y`: [T, D]; `w`, `bias`: `[D]`.
    /// An error unless the op was made for it.
    ///
    /// A model whose layers scale what they give is scaled here, in the last op of a layer. The stream could be kept in
    /// units in which nothing is ever multiplied, as where [`Scales::residual`](crate::model::Scales) is one for all layers;
    /// but the product of sixty scales of a fifth is 1e-42, and squares of the stream in units of that no f32 can hold.
    pub fn record_added(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        [eps, scale]: [f32; 2],
        tensors: [&Tensor; 4],
        bias: Option<&Tensor>,
    ) -> Result<()> {
        let none = || Error::Unsupported("norm: no kernel was made that adds its result".into());
        let kernel = self.added.as_ref().ok_or_else(none)?;
        let [rows, _] = tensors[1].dims("norm")?;
        self.note(recording, label.into(), kernel, rows, [eps, scale], tensors, bias)
    }

    #[allow(clippy::too_many_arguments, reason = "as record, and the kernel")]
    fn note(
        &self,
        recording: &mut Recording,
        label: String,
        kernel: &Kernel,
        rows: usize,
        [eps, scale]: [f32; 2],
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
        let params = NormParams { cols: cols as u32, has_bias, eps, scale };
        let iterations = self.kind.iterations(params.cols, kernel.lanes());
        let work = Work { grid: [rows as u32, 1, 1], iterations };
        let tensors = [frame, x, w, bias.unwrap_or(&self.no_bias), y];
        recording.dispatch(label, kernel, params, &tensors, work)
    }
}
