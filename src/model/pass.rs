//! A pass on its way into a list of ops: what a layer asks for, and how it is computed for one token and for many.
use super::config::{HeadNorms, LayerKind};
use super::forward::HeadActivations;
use super::weights::{Layer, Matrix, NormWeights};
use super::{Activations, Cache, Config, Kernels, Model};
use crate::Result;
use crate::gpu::{Recording, Tensor};
use crate::ops::{
    AttentionParams, Epilogue, ExpertWeights, HeadNormParams, Linear, Normed, RouteParams, Shares,
};

/// Records the ops of one pass. The residual stream is `act.x` [T, D]; between two blocks nothing else is left.
///
/// Of one token, norms before a block fold into the products around them where [`Config::folds`]: whoever adds to the
/// stream also writes it times the gain of the norm that reads it next. So what adds waits until that norm is known.
pub(super) struct Recorder<'a> {
    pub(super) r: Recording,
    model: &'a Model,
    kernels: &'a Kernels,
    cache: &'a Cache,
    pub(super) act: &'a Activations,
    /// A look at every layer's attention.
    look: Option<(&'a [Shares], &'a Tensor)>,
    layer: usize,
    folded: Option<Folded<'a>>,
}

/// Where norms fold into products.
#[derive(Default)]
struct Folded<'a> {
    /// What is to be added to the stream, as soon as the next norm is known: the embedding, or a product of these.
    waits: Option<Waits<'a>>,
    /// Partial sums of the squares of the stream.
    partials: u32,
    /// Whether a layer begins after what waits.
    border: bool,
}

enum Waits<'a> {
    Embedding,
    Product { label: String, from: &'a Tensor, matrix: &'a Matrix },
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
        Self { r: Recording::default(), model, kernels, cache, act, look, layer: 0, folded }
    }

    fn label(&self, op: &str) -> String {
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
        if let Some(folded) = &mut self.folded {
            folded.waits = Some(Waits::Embedding);
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

    /// Begins a layer. A pass may be submitted in parts that end before one.
    pub(super) fn begin(&mut self, layer: usize) {
        self.layer = layer;
        match &mut self.folded {
            Some(folded) => folded.border = layer > 0,
            None if layer > 0 => self.r.border(),
            None => {}
        }
    }

    /// Writes what waits to be added to the stream, for the norm of `gain` to be read next.
    fn settle(&mut self, gain: &Tensor) -> Result<()> {
        let Self { model, kernels, act, .. } = *self;
        let (Some(folded), Some(fused)) = (&mut self.folded, &kernels.fused) else { return Ok(()) };
        let (r, w) = (&mut self.r, &model.weights);
        match folded.waits.take() {
            Some(Waits::Embedding) => {
                let embedding = [&act.tokens, gain, &act.x, &act.xn, &act.squares];
                let scale = model.config.embedding_scale();
                folded.partials =
                    fused.record_get_rows(r, "token_embd", scale, embedding, &w.token_embd)?;
            }
            Some(Waits::Product { label, from, matrix }) => {
                // The kernel has no room for a bias.
                if let (Some(op), Some(bias)) = (&kernels.add_bias, &matrix.bias) {
                    op.record(r, format!("{label}_bias"), [bias, &act.x])?;
                }
                let out = [from, gain, &act.x, &act.xn, &act.squares];
                folded.partials = fused.record_residual(r, &label, out, &matrix.w)?;
            }
            None => {}
        }
        if std::mem::take(&mut folded.border) {
            r.border();
        }
        Ok(())
    }

    /// The stream, normalised: what a block reads. Where there is no norm it is the stream itself.
    pub(super) fn normed(
        &mut self,
        name: &str,
        norm: Option<&'a NormWeights>,
    ) -> Result<&'a Tensor> {
        let act = self.act;
        let Some(norm) = norm else { return Ok(&act.x) };
        match self.folded {
            Some(_) => self.settle(&norm.gain)?,
            None => self.norm(self.label(name), norm, [&act.x, &act.xn])?, // xn [T, D]
        }
        Ok(&act.xn)
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
        self.product(&label, epilogue, from, (&matrix.w, matrix.bias.as_ref()), out)
    }

    /// The same with a label of its own. Where norms fold, `from` is what a norm is still to divide.
    fn product(
        &mut self,
        label: &str,
        epilogue: Epilogue,
        from: &Tensor,
        (w, bias): (&Linear, Option<&Tensor>),
        out: &Tensor,
    ) -> Result<()> {
        let Self { model, kernels, act, .. } = *self;
        let r = &mut self.r;
        match (&self.folded, &kernels.fused) {
            (Some(Folded { partials, .. }), Some(fused)) => {
                let (eps, partials) = (model.config.norm_eps(), *partials);
                let input = Normed { xn: from, squares: &act.squares, partials };
                fused.record_normed(r, label, epilogue, eps, input, out, w, bias)
            }
            _ => kernels.matmul.record(r, label, epilogue, [&act.frame, from, out], w, bias),
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
        let Self { model, kernels, act, .. } = *self;
        let label = self.label(name);
        if let Some(folded) = &mut self.folded {
            folded.waits = Some(Waits::Product { label, from, matrix });
            return Ok(());
        }
        let (post_name, Some(NormWeights { gain, bias, scale })) = post else {
            return self.linear(name, Epilogue::Add, from, matrix, &act.x);
        };
        self.linear(name, Epilogue::Store, from, matrix, &act.xn)?;
        let (eps, label) = ([model.config.norms.eps, *scale], self.label(post_name));
        let tensors = [&act.frame, &act.xn, gain, &act.x];
        kernels.norm.record_added(&mut self.r, label, eps, tensors, bias.as_ref()) // x += [T, D]
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
        let Matrix { w, bias } = matrix;
        let weights = ExpertWeights { w, bias: bias.as_ref(), experts: experts.count };
        let label = self.label(name);
        if let Some(op) = kernels.grouped.as_ref().filter(|_| !act.one()) {
            return op.record(&mut self.r, &label, epilogue, act, [from, out], weights);
        }
        op.record(&mut self.r, label, epilogue, [&act.frame, from, &act.chosen, out], weights)
    }

    /// A place where a pass of many tokens may be submitted in two.
    pub(super) fn border(&mut self) {
        if !self.act.one() {
            self.r.border();
        }
    }

    /// Attention of the layer's qkv, which comes into the cache, over what is there: att [T, H HD].
    pub(super) fn attend(&mut self, layer: &'a Layer) -> Result<&'a Tensor> {
        let Self { kernels, cache, act, .. } = *self;
        let HeadActivations { qkv, q, att, carry, parts } = self.heads();
        let (c, i, frame) = (self.config(), self.layer, &act.frame);
        let heads = c.heads_of(i);
        let (attention_one, attention) = &kernels.attention[heads];
        let (k, v, turns, terms) = (cache.k(i), cache.v(i), cache.turns(i), &layer.attn_terms);
        if let (Some(op), Some(cap)) = (&kernels.softcap, c.caps.qkv) {
            let label = self.label("clamp_kqv");
            op.record_clamp(&mut self.r, label, cap, qkv)?; // qkv [T, (H + 2 KV) HD]
        }
        if let (Some(op), Some(norms), Some(gain)) =
            (&kernels.head_norm, c.head_norms, &layer.head_norms)
        {
            let label = self.label("head_norm");
            op.record(&mut self.r, label, head_norms(c, i, norms), [frame, gain, qkv])?; // qkv [T, (H + 2 KV) HD]
        }
        let params = params(c, cache, i);
        if act.one() && self.look.is_none() {
            let tensors = [frame, qkv, turns, k, v, parts, att, terms];
            let label = self.label("attention");
            attention_one.record(&mut self.r, &label, params, tensors)?; // att [1, H HD]
            return Ok(att);
        }
        let label = self.label("rope_store");
        kernels.rope_store.record(&mut self.r, label, params, [frame, qkv, turns, q, k, v])?; // q [T, 3, H HD]
        let label = self.label("attention");
        attention.record(&mut self.r, label, params, [frame, q, k, v, att, carry, terms])?; // att [T, H HD]
        if let Some((shares, seen)) = self.look {
            let label = self.label("shares");
            shares[heads].record(&mut self.r, label, params, i, [frame, q, k, v, seen, terms])?; // seen [L, T, H, FIRST]
        }
        Ok(att)
    }

    /// The gated convolution of `act.mix`, of which the layer's state keeps what comes next: mixed [T, D].
    pub(super) fn short_conv(&mut self, layer: &'a Layer) -> Result<&'a Tensor> {
        let Self { kernels, cache, act, .. } = *self;
        let (Some(op), Some(conv)) = (&kernels.short_conv, &layer.conv) else {
            return Ok(&act.mixed);
        };
        let tensors = [&act.frame, &act.mix, conv, cache.k(self.layer), &act.mixed];
        let (label, taps) = (self.label("short_conv"), self.config().conv_taps);
        op.record(&mut self.r, label, taps, tensors)?;
        Ok(&act.mixed)
    }

    /// The logits of the last token: logits [1, V].
    pub(super) fn head(&mut self, logits: &Tensor) -> Result<()> {
        let Self { model, kernels, act, .. } = *self;
        let (w, eps) = (&model.weights, model.config.norm_eps());
        let last = match self.folded {
            Some(_) => &act.xn,
            None => {
                let NormWeights { gain, bias, .. } = &w.output_norm;
                let norm = [&act.frame, &act.x, gain, &act.last];
                kernels.norm.record_last(&mut self.r, "output_norm", eps, norm, bias.as_ref())?; // last [1, D]
                &act.last
            }
        };
        self.product("output", Epilogue::Store, last, w.output(), logits)?;
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
        self.settle(&self.model.weights.output_norm.gain)
    }
}

/// What every op around the cache is told.
pub(super) fn params(c: &Config, cache: &Cache, layer: usize) -> AttentionParams {
    let LayerKind { n_head_kv, head_dim, .. } = c.layers[layer];
    let [heads, kv_heads, head_dim] = [c.n_head, n_head_kv, head_dim].map(|n| n as u32);
    AttentionParams {
        heads,
        kv_heads,
        head_dim,
        rope_dim: c.rope_dim(layer) as u32,
        ring: cache.ring(layer),
        scale: c.scales.attention,
        cap: c.caps.attention.unwrap_or(0.0),
        forgets: u32::from(cache.forgets_sinks(layer)),
        first: 0,
        span: 0,
    }
}

/// How queries, keys and values are normalised, which are what a product gives and not the residual stream.
fn head_norms(c: &Config, layer: usize, norms: HeadNorms) -> HeadNormParams {
    let LayerKind { n_head_kv, head_dim, .. } = c.layers[layer];
    let [heads, kv_heads, head_dim] = [c.n_head, n_head_kv, head_dim].map(|n| n as u32);
    let whole = norms == HeadNorms::Rows;
    HeadNormParams {
        stride: (heads + 2 * kv_heads) * head_dim,
        q_norms: if whole { 1 } else { heads },
        q_size: if whole { heads * head_dim } else { head_dim },
        k_norms: if whole { 1 } else { kv_heads },
        k_size: if whole { kv_heads * head_dim } else { head_dim },
        v_norms: if norms == HeadNorms::WithValues { kv_heads } else { 0 },
        own: u32::from(norms == HeadNorms::OwnGains),
        eps: c.norms.eps,
    }
}
