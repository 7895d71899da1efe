//! The norm of what a block gave, added to the residual stream, and the norm of the stream that comes next.
use super::{FRAME, NormKind, Sums};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work, wgsl};
use futures_util::future::try_join;

/// `Params` of `shaders/norm_added.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct NormAddedParams {
    /// Elements of a row.
    pub cols: u32,
    /// Whether a bias is added.
    pub has_bias: u32,
    /// Added to the mean of the squares.
    pub eps: f32,
    /// What the sum is multiplied with.
    pub scale: f32,
    /// Added to the mean of the squares of the norm that comes next.
    pub next_eps: f32,
}

/// What is normalised by rows and added, and with what.
#[derive(Clone, Copy)]
pub struct Added<'a> {
    /// [T, D]
    pub x: &'a Tensor,
    /// `[D]`
    pub gain: &'a Tensor,
    /// `[D]`
    pub bias: Option<&'a Tensor>,
    /// Added to the mean of the squares.
    pub eps: f32,
    /// What the sum is multiplied with.
    pub scale: f32,
}

/// The norm that comes next: an RMSNorm without a bias.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    /// `[D]`
    pub gain: &'a Tensor,
    /// Added to the mean of the squares.
    pub eps: f32,
    /// What it gives: [T, D].
    pub yn: &'a Tensor,
}

/// Adds the norm of every row of a pass.
pub struct NormAdded {
    alone: Kernel,
    /// Where norms are RMSNorms.
    next: Option<Kernel>,
    nothing: [Tensor; 2],
    kind: NormKind,
}

impl NormAdded {
    /// The kernel and its bindings.
    pub const SOURCE: KernelSource = KernelSource {
        name: "norm_added",
        wgsl: wgsl!("lib/reduce.wgsl", "lib/moments.wgsl", "norm_added.wgsl"),
        bindings: &[
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Read,
            Access::Write,
            Access::Write,
        ],
        params_size: size_of::<NormAddedParams>() as u64,
        subgroups: false,
    };
    /// The kernel where a workgroup is one subgroup.
    pub const SUBGROUP: KernelSource = KernelSource {
        name: "norm_added_subgroup",
        wgsl: wgsl!("lib/reduce_subgroup.wgsl", "lib/moments.wgsl", "norm_added.wgsl"),
        subgroups: true,
        ..Self::SOURCE
    };

    /// Compiles the kernel.
    pub async fn new(gpu: &Gpu, sums: Sums, kind: NormKind) -> Result<Self> {
        let lanes = f64::from(gpu.tier.lanes());
        let source = if sums == Sums::Subgroup { Self::SUBGROUP } else { Self::SOURCE };
        let make = async |next: f64| {
            let overrides = [("WG", lanes), ("CENTRED", kind.centred()), ("NEXT", next)];
            Kernel::new(gpu, source, overrides).await
        };
        let next = async || match kind {
            NormKind::Rms => make(1.0).await.map(Some),
            NormKind::Layer => Ok(None),
        };
        let (alone, next) = try_join(make(0.0), next()).await?;
        let nothing = || Tensor::zeros(gpu, "nothing", &[1]);
        Ok(Self { alone, next, nothing: [nothing()?, nothing()?], kind })
    }

    /// Whether it gives the norm that comes next, too.
    pub fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Records `y <- (y + norm(x) * gain + bias) * scale` for every row, and what comes next. `frame`: `[4]`; `y`: [T, D].
    ///
    /// A model whose layers scale what they give is scaled here, in the last op of a layer. The stream could be kept in
    /// units in which nothing is ever multiplied, as where [`Scales::residual`](crate::model::Scales) is one for all layers;
    /// but the product of sixty scales of a fifth is 1e-42, and squares of the stream in units of that no f32 can hold.
    pub fn record(
        &self,
        recording: &mut Recording,
        label: impl Into<String>,
        [frame, y]: [&Tensor; 2],
        Added { x, gain, bias, eps, scale }: Added<'_>,
        next: Option<Next<'_>>,
    ) -> Result<()> {
        const OP: &str = "norm_added";
        let [rows, cols] = x.dims(OP)?;
        frame.expect(OP, [FRAME])?;
        y.expect(OP, [rows, cols])?;
        for vector in [Some(gain), bias, next.map(|next| next.gain)].into_iter().flatten() {
            vector.expect(OP, [cols])?;
        }
        let kernel = match (&next, &self.next) {
            (None, _) => &self.alone,
            (Some(next), Some(kernel)) => {
                next.yn.expect(OP, [rows, cols])?;
                kernel
            }
            (Some(next), None) => return Err(next.yn.misfit(OP, "RMSNorms".into())),
        };
        let [nothing, nowhere] = &self.nothing;
        let params = NormAddedParams {
            cols: cols as u32,
            has_bias: u32::from(bias.is_some()),
            eps,
            scale,
            next_eps: next.map_or(0.0, |next| next.eps),
        };
        let lanes = kernel.lanes();
        let of_next =
            if next.is_some() { cols.div_ceil(lanes as usize) as u32 + lanes.ilog2() } else { 0 };
        let iterations = self.kind.iterations(params.cols, lanes) + u64::from(of_next);
        let work = Work { grid: [rows as u32, 1, 1], iterations };
        let (after, yn) = next.map_or((nothing, nowhere), |next| (next.gain, next.yn));
        let tensors = [frame, x, gain, bias.unwrap_or(nothing), after, y, yn];
        recording.dispatch(label, kernel, params, &tensors, work)
    }
}
