//! The forward pass: a layer, once, for one token and for many.
use super::config::NormPlaces;
use super::pass::{Recorder, params};
use super::weights::{Layer, Matrix};
use super::{Cache, Config, Kernels, Model};
use crate::Result;
use crate::gpu::{Gpu, Program, Tensor};
use crate::ops::{Epilogue, FRAME, Shares, most_partials, splits};

/// A layer of the model, over the residual stream x [T, D].
fn layer<'a>(p: &mut Recorder<'a>, c: &Config, w: &'a Layer) -> Result<()> {
    let xn = p.normed("attn_norm", w.attn_norm.as_ref())?;
    p.linear("attn_qkv", Epilogue::Store, xn, &w.attn_qkv, &p.act.qkv)?; // qkv [T, (H + 2 KV) HD]
    let att = p.attend(w)?; // att [T, H HD]: Q and K normed and turned, stored, attended to
    let post = ("post_attention_norm", w.post_attention_norm.as_ref());
    let xn = if c.parallel {
        // Both blocks read the stream as it was; one norm may serve both.
        let xn = if w.ffn_norm.is_some() { p.normed("ffn_norm", w.ffn_norm.as_ref())? } else { xn };
        p.linear_beside("attn_output", att, &w.attn_output, post)?; // x += [T, D]
        p.border();
        xn
    } else {
        p.linear_residual("attn_output", att, &w.attn_output, post)?; // x += [T, D]
        p.border();
        p.normed("ffn_norm", w.ffn_norm.as_ref())?
    };
    match &w.ffn_gate_inp {
        None => feed_forward(p, c, w, xn),
        Some(router) => experts(p, c, w, router, xn),
    }
}

/// One feed-forward for all tokens, x += [T, D].
fn feed_forward<'a>(p: &mut Recorder<'a>, c: &Config, w: &'a Layer, xn: &'a Tensor) -> Result<()> {
    p.linear("ffn_gate_up", c.feed_forward, xn, &w.ffn_gate_up, &p.act.h)?; // h [T, F]
    p.border();
    let post = ("post_ffw_norm", w.post_ffw_norm.as_ref());
    p.linear_residual("ffn_down", &p.act.h, &w.ffn_down, post) // x += [T, D]
}

/// Each token to K of E feed-forwards, x += [T, D].
fn experts<'a>(
    p: &mut Recorder<'a>,
    c: &Config,
    w: &'a Layer,
    router: &'a Matrix,
    xn: &'a Tensor,
) -> Result<()> {
    p.linear("ffn_gate_inp", Epilogue::Store, xn, router, &p.act.routes)?; // routes [T, E]
    p.route()?; // chosen [T, K]: experts and their shares
    p.experts("ffn_gate_up", c.feed_forward, xn, &w.ffn_gate_up, &p.act.h)?; // h [T, K, F]
    p.border();
    p.experts("ffn_down", Epilogue::Add, &p.act.h, &w.ffn_down, &p.act.x) // x += [T, D], by their shares
}

/// What flows between the ops of a pass of at most T tokens.
pub(crate) struct Activations {
    /// `[T]` ids of this pass
    pub(crate) tokens: Tensor,
    /// [4] n: the first token's position, reduced; tokens: how many of T are there; sinks kept; step
    pub(crate) frame: Tensor,
    pub(super) x: Tensor,     // [T, D]
    pub(super) xn: Tensor,    // [T, D]
    pub(super) block: Tensor, // [T, D] what a block gave, where that is normalised
    pub(super) qkv: Tensor,   // [T, (H + 2 KV) HD]
    pub(super) q: Tensor,     // [T, 3, H HD]
    pub(super) att: Tensor,   // [T, H HD]
    pub(super) carry: Tensor, // [T, H, 2 ceil(HD/256)], between the spans of a long cache
    pub(super) h: Tensor,     // [T, F], F padded to a multiple of 32; [T, K, F] with experts
    /// Of each token for each expert, and its experts with their shares: where there are some.
    pub(super) routes: Tensor, // [T, E]
    pub(super) chosen: Tensor, // [T, K, 2]
    pub(super) last: Tensor,  // [1, D]
    /// Partial sums of x and of its squares, for one token alone.
    pub(super) sums: Tensor, // [about D/4], or three times as many
    /// What each split of the cache gives, for one token alone.
    pub(super) parts: Tensor, // [splits, H, HD + 4]
}

impl Activations {
    pub(crate) fn new(gpu: &Gpu, model: &Model, cache: &Cache, tokens: usize) -> Result<Self> {
        let c = &model.config;
        let q_rows = c.n_head * c.head_dim;
        let kv_rows = c.n_head_kv * c.head_dim;
        let parts = [splits(cache.longest()) as usize, c.n_head, c.head_dim + 4];
        let width = c.n_ff.next_multiple_of(32);
        let (experts, used) = c.experts.map_or((0, 0), |experts| (experts.count, experts.used));
        let hidden = match c.experts {
            None => vec![tokens, width],
            Some(_) => vec![tokens, used, width],
        };
        let partials = most_partials(c.n_embd, model.weights.most_parts());
        let block = if c.norms.places == NormPlaces::Before { 0 } else { c.n_embd };
        let make =
            |name: &str, shape: &[usize]| Tensor::zeros(gpu, format!("act.{name}.{tokens}"), shape);
        Ok(Self {
            tokens: make("tokens", &[tokens])?,
            frame: make("frame", &[FRAME])?,
            x: make("x", &[tokens, c.n_embd])?,
            xn: make("xn", &[tokens, c.n_embd])?,
            block: make("block", &[tokens, block])?,
            qkv: make("qkv", &[tokens, q_rows + 2 * kv_rows])?,
            q: make("q", &[tokens, 3, q_rows])?,
            att: make("att", &[tokens, q_rows])?,
            carry: make("carry", &[tokens, c.n_head, params(c, cache, 0).carried()])?,
            h: make("h", &hidden)?,
            routes: make("routes", &[tokens, experts])?,
            chosen: make("chosen", &[tokens, used, 2])?,
            last: make("last", &[1, c.n_embd])?,
            parts: make("parts", &if tokens == 1 { parts } else { [1, 1, 1] })?,
            sums: make("sums", &[partials * c.norms.kind.sums()])?,
        })
    }

    /// Whether they are of one token.
    pub(super) fn one(&self) -> bool {
        self.tokens.len() == 1
    }

    pub(super) fn bytes(&self) -> u64 {
        let Self { tokens, frame, x, xn, qkv, q, att, carry, h, last, sums, parts, .. } = self;
        let Self { routes, chosen, block, .. } = self;
        [block, tokens, frame, x, xn, qkv, q, att, carry, h, routes, chosen, last, sums, parts]
            .map(Tensor::size)
            .iter()
            .sum()
    }
}

/// The programs of a pass of at most T tokens over one cache.
pub(crate) struct Pass {
    pub(crate) act: Activations,
    /// Tokens in, hidden states out, K and V stored.
    pub(crate) body: Program,
    /// The last token's logits.
    pub(crate) head: Program,
}

impl Pass {
    /// Notes down a pass of at most `act`'s T tokens. `logits`: [1, V].
    pub(crate) fn new(
        model: &Model,
        kernels: &Kernels,
        cache: &Cache,
        act: Activations,
        logits: &Tensor,
    ) -> Result<Self> {
        let mut p = Recorder::new(model, kernels, cache, &act, None);
        layers(&mut p, model)?;
        let body = std::mem::take(&mut p.r).finish(&model.gpu)?;
        p.head(logits)?;
        let head = p.r.finish(&model.gpu)?;
        Ok(Self { act, body, head })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.act.bytes()
    }
}

/// All layers of a pass.
pub(super) fn layers<'a>(p: &mut Recorder<'a>, model: &'a Model) -> Result<()> {
    p.embed()?;
    for (i, w) in model.weights.layers.iter().enumerate() {
        p.begin(i);
        layer(p, &model.config, w)?;
    }
    p.finish_layers()
}

/// The body of a pass of which every layer's attention is looked at. `seen`: [L, T, H, FIRST].
#[cfg(feature = "cli")]
pub(crate) fn watched(
    model: &Model,
    kernels: &Kernels,
    cache: &Cache,
    act: &Activations,
    look: (&Shares, &Tensor),
) -> Result<Program> {
    let mut p = Recorder::new(model, kernels, cache, act, Some(look));
    layers(&mut p, model)?;
    p.r.finish(&model.gpu)
}
