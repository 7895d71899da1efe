//! The forward pass when what is asked is how likely every next token was. Its logits of a whole chunk take room
//! that a stream need not pay for, so a pass that scores is a thing of its own.
use super::forward::record_body;
use super::{Activations, Cache, Kernels, Model};
use crate::Result;
use crate::gpu::{Program, Recording, Tensor};
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
        let act = Activations::new(gpu, model, cache, tokens)?;
        let logits = Tensor::zeros(gpu, "act.every_logits", &[tokens, c.n_vocab])?;
        let targets = Tensor::zeros(gpu, "act.targets", &[tokens])?;
        let nll = Tensor::zeros(gpu, "act.nll", &[tokens])?;
        let matmul = MatMul::new(gpu, &[], &model.products.output, kernels.variant).await?;
        let op = Nll::new(gpu).await?;

        let mut r = Recording::default();
        record_body(&mut r, model, kernels, cache, &act)?; // x [T, D]
        r.border();
        let Activations { frame, x, xn, .. } = &act;
        let norm = [frame, x, &w.output_norm, xn];
        kernels.norm.record(&mut r, "output_norm", c.norm_eps(), norm, None)?; // xn [T, D]
        let output = [frame, xn, &logits];
        matmul.record(&mut r, "output", Epilogue::Store, output, w.output(), None)?; // logits [T, V]
        op.record(&mut r, "nll", [frame, &logits, &targets, &nll])?; // nll [T]
        let program = r.finish(gpu)?;
        Ok(Self { act, targets, nll, program, logits })
    }

    /// Bytes on the device.
    pub(crate) fn bytes(&self) -> u64 {
        let own = [&self.logits, &self.targets, &self.nll].map(Tensor::size);
        self.act.bytes() + own.iter().sum::<u64>()
    }
}
