//! A pass on its way into a list of ops: what a layer asks for, and how it is computed for one token and for many.
mod mixers;

use super::folded::Folded;
use super::forward::HeadActivations;
use super::weights::{Matrix, NormWeights};
use super::{Activations, Cache, Config, Kernels, Model};
use crate::Result;
use crate::gpu::{Recording, Tensor};
use crate::ops::{Added, Epilogue, ExpertWeights, Linear, Next, Normed, RouteParams, Shares};

/// Records the ops of one pass. The residual stream is `act.x` [T, D]; between two blocks nothing else is left.
///
/// Of one token, norms before a block fold into the products around them where [`Config::folds`]: whoever adds to the
/// stream also writes it times the gain of the norm that reads it next. Where what a block gives is normalised, whoever
/// adds that also writes the norm that comes next. So what adds waits until that norm is known.
pub(super) struct Recorder<'a> {
    pub(super) r: Recording,
    pub(super) model: &'a Model,
    pub(super) kernels: &'a Kernels,
    cache: &'a Cache,
    pub(super) act: &'a Activations,
    /// A look at every layer's attention.
    look: Option<(&'a [Shares], &'a Tensor)>,
    layer: usize,
    pub(super) folded: Option<Folded<'a>>,
    /// What a block gave, [T, D] in `act.block`, is to be normalised and added to the stream as soon as the next norm is
    /// known: its label and its weights.
    post: Option<(String, &'a NormWeights)>,
    /// Whether `act.xn` is the stream, normalised for the output.
    ready: bool,
}

impl<'a> Recorder<'a> {
    /// Begins a pass of `act`'s tokens.
    pub(super) fn new(
        model: &'a Model,
        kernels: &'a Kernels,
        cache: &'a Cache,
        act: &'a Activations,
        look: Option<(&'a [Shares], &'a Tensor)>,
    ) -> Self {
        let one = act.one() && look.is_none();
        let folded = (one && kernels.fused.is_some()).then(Folded::default);
        let r = Recording::apart();
        Self { r, model, kernels, cache, act, look, layer: 0, folded, post: None, ready: false }
    }

    pub(super) fn label(&self, op: &str) -> String {
        format!("blk.{}/{op}", self.layer)
    }

    fn config(&self) -> &'a Config {
        &self.model.config
    }

    /// Activations of this layer's heads.
    pub(super) fn heads(&self) -> &'a HeadActivations {
        &self.act.heads[self.config().heads_of(self.layer)]
    }

    /// The rows of the tokens into the stream: x [T, D].
    pub(super) fn embed(&mut self) -> Result<()> {
        let Self { model, kernels, act, .. } = *self;
        let (c, w) = (&model.config, &model.weights);
        if let Some(folded) = &mut self.folded
            && folded.wait_for_embedding(c)
        {
            return Ok(());
        }
        let rows = if w.token_embd_norm.is_some() { &act.xn } else { &act.x };
        let (r, tensors) = (&mut self.r, [&act.frame, &act.tokens, rows]);
        kernels.get_rows.record(r, "token_embd", c.embedding_scale(), tensors, &w.token_embd)?;
        if let Some(norm) = &w.token_embd_norm {
            self.norm("token_embd_norm", norm, [rows, &act.x])?;
        }
        if let (Some(op), Some(positions)) = (&kernels.add_position, &w.position_embd) {
            op.record(&mut self.r, "position_embd", [&act.frame, positions, &act.x])?;
        }
        Ok(())
    }

    /// A norm of the stream by itself, into `to` [T, D].
    pub(super) fn norm(
        &mut self,
        label: impl Into<String>,
        NormWeights { gain, bias, .. }: &NormWeights,
        [x, to]: [&Tensor; 2],
    ) -> Result<()> {
        let (eps, tensors) = (self.config().norm_eps(), [&self.act.frame, x, gain, to]);
        self.kernels.norm.record(&mut self.r, label, eps, tensors, bias.as_ref())
    }

    /// Begins a layer.
    pub(super) fn begin(&mut self, layer: usize) {
        self.layer = layer;
    }

    /// The stream, normalised: what a block reads. Where there is no norm it is the stream itself.
    pub(super) fn normed(
        &mut self,
        name: &str,
        norm: Option<&'a NormWeights>,
    ) -> Result<&'a Tensor> {
        let act = self.act;
        let Some(norm) = norm else {
            self.add_post(None)?;
            return Ok(&act.x);
        };
        if self.folded.is_some() {
            self.settle(self.label(name), norm)?;
        } else if !self.add_post(Some(norm))? {
            self.norm(self.label(name), norm, [&act.x, &act.xn])?; // xn [T, D]
        }
        Ok(&act.xn)
    }

    /// Adds what a block gave, normalised; whether the norm that comes next is then there, too: xn [T, D].
    fn add_post(&mut self, next: Option<&NormWeights>) -> Result<bool> {
        let (Some((label, norm)), Some(op)) = (self.post.take(), &self.kernels.norm_added) else {
            return Ok(false);
        };
        let (act, eps) = (self.act, self.config().norm_eps());
        let next = next.filter(|next| op.has_next() && next.bias.is_none());
        let next = next.map(|next| Next { gain: &next.gain, eps, yn: &act.xn });
        let NormWeights { gain, bias, scale } = norm;
        let eps = self.config().norms.eps;
        let added = Added { x: &act.block, gain, bias: bias.as_ref(), eps, scale: *scale };
        op.record(&mut self.r, label, [&act.frame, &act.x], added, next)?; // x += [T, D]
        Ok(next.is_some())
    }

    /// A product of what a norm gave, into `out`.
    pub(super) fn linear(
        &mut self,
        name: &str,
        epilogue: Epilogue,
        from: &'a Tensor,
        matrix: &'a Matrix,
        out: &'a Tensor,
    ) -> Result<()> {
        let label = self.label(name);
        let biases = [matrix.bias.as_ref(), matrix.folded.as_ref()];
        self.product(&label, epilogue, from, (&matrix.w, biases), out)
    }

    /// The same with a label of its own. Where norms fold, `from` is what a norm is still to divide.
    fn product(
        &mut self,
        label: &str,
        epilogue: Epilogue,
        from: &Tensor,
        (w, [bias, folded]): (&Linear, [Option<&Tensor>; 2]),
        out: &Tensor,
    ) -> Result<()> {
        let Self { model, kernels, act, .. } = *self;
        let r = &mut self.r;
        match (&self.folded, &kernels.fused) {
            (Some(Folded { partials, .. }), Some(fused)) => {
                let (eps, partials) = (model.config.norm_eps(), partials.unwrap_or(0));
                let input = Normed { xn: from, sums: &act.sums, partials };
                let bias = if partials > 0 { folded.or(bias) } else { bias };
                fused.record_normed(r, label, epilogue, eps, input, out, w, bias)
            }
            _ if act.frames.is_none() => {
                kernels.matmul.record(r, label, epilogue, [&act.frame, from, out], w, bias)
            }
            // No row's bits depend on how many there are.
            _ => match &kernels.few {
                Some(few) => few.record(r, label, epilogue, [&act.frame, from, out], w, bias),
                None => {
                    let tensors = [&act.frame, from, out];
                    kernels.matmul.record_many(r, label, epilogue, tensors, w, bias)
                }
            },
        }
    }

    /// A product that is added to the stream: by itself, or normalised where there is a norm after it.
    pub(super) fn linear_residual(
        &mut self,
        name: &str,
        from: &'a Tensor,
        matrix: &'a Matrix,
        post: (&str, Option<&'a NormWeights>),
    ) -> Result<()> {
        let act = self.act;
        if let Some(folded) = &mut self.folded {
            folded.wait(format!("blk.{}/{name}", self.layer), from, matrix);
            return Ok(());
        }
        let (post_name, Some(norm)) = post else {
            return self.linear(name, Epilogue::Add, from, matrix, &act.x);
        };
        self.linear(name, Epilogue::Store, from, matrix, &act.block)?;
        self.post = Some((self.label(post_name), norm));
        Ok(())
    }

    /// Which experts each token goes to: chosen [T, K].
    pub(super) fn route(&mut self) -> Result<()> {
        let Self { kernels, act, .. } = *self;
        let (Some((op, _)), Some(experts)) = (&kernels.experts, self.config().experts) else {
            return Ok(());
        };
        let [count, used] = [experts.count, experts.used].map(|n| n as u32);
        let params = RouteParams { experts: count, used, scale: experts.scale };
        let label = self.label("route");
        op.record(&mut self.r, label, params, [&act.frame, &act.routes, &act.chosen])?;
        self.group(experts.count)
    }

    /// Many tokens by their experts: groups [tiles, 2 + TILE].
    fn group(&mut self, experts: usize) -> Result<()> {
        let Self { kernels, act, .. } = *self;
        let Some(op) = kernels.grouped.as_ref().filter(|_| !act.one()) else { return Ok(()) };
        let label = self.label("group_experts");
        op.group.record(&mut self.r, label, experts, [&act.frame, &act.chosen, &act.groups])
    }

    /// Products of tokens with the matrices of their experts, into `out` or added to it.
    pub(super) fn experts(
        &mut self,
        name: &str,
        epilogue: Epilogue,
        from: &'a Tensor,
        matrix: &'a Matrix,
        out: &'a Tensor,
    ) -> Result<()> {
        let Self { kernels, act, .. } = *self;
        let (Some((_, op)), Some(experts)) = (&kernels.experts, self.config().experts) else {
            return Ok(());
        };
        let Matrix { w, bias, .. } = matrix;
        let weights = ExpertWeights { w, bias: bias.as_ref(), experts: experts.count };
        let (label, eps) = (self.label(name), self.config().norm_eps());
        if let Some(op) = kernels.grouped.as_ref().filter(|_| !act.one()) {
            return op.record(&mut self.r, &label, epilogue, act, [from, out], weights);
        }
        let (r, chosen) = (&mut self.r, &act.chosen);
        match &mut self.folded {
            Some(folded) if epilogue != Epilogue::Add => {
                let partials = folded.partials.unwrap_or(0);
                let input = Normed { xn: from, sums: &act.sums, partials };
                return op.record_normed(r, label, epilogue, eps, input, [chosen, out], weights);
            }
            // The stream is another then.
            Some(folded) => folded.partials = None,
            None => {}
        }
        op.record(r, label, epilogue, [&act.frame, from, chosen, out], weights)
    }

    /// The logits of the last token, logits [1, V], or of each row, [R, V].
    pub(super) fn head(&mut self, logits: &Tensor) -> Result<()> {
        let Self { model, kernels, act, .. } = *self;
        let (w, eps) = (&model.weights, model.config.norm_eps());
        if act.frames.is_some() && !self.ready {
            self.norm("output_norm", &w.output_norm, [&act.x, &act.xn])?; // xn [R, D]
            self.ready = true;
        }
        let last = match &mut self.folded {
            Some(Folded { partials: Some(_), .. }) => &act.xn,
            None if self.ready => &act.xn,
            folded => {
                if let Some(folded) = folded {
                    folded.partials = Some(0);
                }
                let NormWeights { gain, bias, .. } = &w.output_norm;
                let norm = [&act.frame, &act.x, gain, &act.last];
                kernels.norm.record_last(&mut self.r, "output_norm", eps, norm, bias.as_ref())?; // last [1, D]
                &act.last
            }
        };
        let (output, bias) = w.output();
        let biases = [bias, w.output_folded.as_ref()];
        self.product("output", Epilogue::Store, last, (output, biases), logits)?;
        self.cap(logits)
    }

    /// Bounds logits where the model does.
    pub(super) fn cap(&mut self, logits: &Tensor) -> Result<()> {
        match (&self.kernels.softcap, self.config().caps.logits) {
            (Some(op), Some(cap)) => op.record(&mut self.r, "output_cap", cap, logits),
            _ => Ok(()),
        }
    }

    /// What is left to be added after the last layer.
    pub(super) fn finish_layers(&mut self) -> Result<()> {
        let norm = &self.model.weights.output_norm;
        if self.folded.as_ref().is_some_and(Folded::waits) {
            self.settle("output_norm".into(), norm)?;
        }
        // Of many tokens, who asks for the norm wants it of one, or computes it anew.
        let all = self.act.one() || self.act.frames.is_some();
        self.ready = self.add_post(all.then_some(norm))?;
        Ok(())
    }
}
