//! The forward pass when what is asked is how likely every next token was. Its logits of a whole chunk take room
//! that a stream need not pay for, so a pass that scores is a thing of its own.
use super::forward::layers;
use super::pass::Recorder;
use super::{Activations, Cache, Kernels, Model, Tokens};
use crate::Result;
use crate::gpu::{Program, Tensor};
use crate::ops::{Epilogue, MatMul, Nll};

/// The program of a pass of at most T tokens that scores each of them.
pub(crate) struct Scoring {
    pub(crate) act: Activations,
    /// `[T]` what came after each token
    pub(crate) targets: Tensor,
    /// `[T]` nats
    pub(crate) nll: Tensor,
    /// Tokens and targets in, nll out, K and V stored.
    pub(crate) program: Program,
    logits: Tensor, // [T, V]
}

impl Scoring {
    /// Compiles what a stream has not, and notes down a pass of at most `chunk` tokens.
    pub(crate) async fn new(
        model: &Model,
        kernels: &Kernels,
        cache: &Cache,
        chunk: usize,
    ) -> Result<Self> {
        let (gpu, c, w) = (&*model.gpu, &model.config, &model.weights);
        // The kernels of one token have no rows to score.
        let tokens = chunk.max(2);
        let act = Activations::new(gpu, model, cache, Tokens::of(tokens))?;
        let logits = Tensor::zeros(gpu, "act.every_logits", &[tokens, c.n_vocab])?;
        let targets = Tensor::zeros(gpu, "act.targets", &[tokens])?;
        let nll = Tensor::zeros(gpu, "act.nll", &[tokens])?;
        let matmul = MatMul::new(gpu, &[], &model.products.output, kernels.variant).await?;
        let op = Nll::new(gpu).await?;

        let mut p = Recorder::new(model, kernels, cache, &act, None);
        layers(&mut p, model)?; // x [T, D]
        let (Activations { frame, x, xn, .. }, (output, output_bias)) = (&act, w.output());
        p.norm("output_norm", &w.output_norm, [x, xn])?; // xn [T, D]
        let tensors = [frame, xn, &logits];
        matmul.record(&mut p.r, "output", Epilogue::Store, tensors, output, output_bias)?; // logits [T, V]
        p.cap(&logits)?;
        op.record(&mut p.r, "nll", [frame, &logits, &targets, &nll])?; // nll [T]
        let program = p.r.finish(gpu)?;
        Ok(Self { act, targets, nll, program, logits })
    }

    /// Bytes on the device.
    pub(crate) fn bytes(&self) -> u64 {
        let own = [&self.logits, &self.targets, &self.nll].map(Tensor::size);
        self.act.bytes() + own.iter().sum::<u64>()
    }
}
