//! The forward pass of the llama family, noted down as a list of ops.
use super::weights::Products;
use super::{Cache, Config, KernelSettings, Model};
use crate::Result;
use crate::gpu::{Gpu, Program, Recording, Tensor};
use crate::model::RopeLayout;
use crate::ops::{
    AddBias, Argmax, Attention, AttentionOne, AttentionParams, ChunkAttention, Epilogue, FRAME,
    Fused, GetRows, HeadNorm, HeadNormParams, HeadShape, MatMul, Normed, RmsNorm, RopeStore,
    Sample, SamplerState, Shares, Sums, Variant, most_partials, splits,
};
use futures_util::future::{try_join, try_join3, try_join4};

/// Every kernel that a pass needs, compiled once for a session.
pub(crate) struct Kernels {
    get_rows: GetRows,
    pub(super) norm: RmsNorm,
    matmul: MatMul,
    fused: Fused,
    add_bias: Option<AddBias>,
    head_norm: Option<HeadNorm>,
    rope_store: RopeStore,
    attention: Attention,
    attention_one: AttentionOne,
    argmax: Argmax,
    sample: Sample,
    pub(super) variant: Variant,
}

/// What a kernel is made by, where it is wanted.
async fn wanted<T>(wanted: bool, made: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    if wanted { made.await.map(Some) } else { Ok(None) }
}

/// What kernels are compiled for: all of it is known before the weights have come.
#[derive(Clone)]
pub(crate) struct Needs {
    heads: HeadShape,
    neox: bool,
    head_norms: bool,
    products: Products,
    variant: Variant,
}

impl Needs {
    pub(crate) fn new(
        config: &Config,
        products: Products,
        variant: Variant,
        settings: KernelSettings,
    ) -> Self {
        let KernelSettings { kv, activations, tiles } = settings;
        let variant = Variant { activations, tiles: tiles && variant.tiles, ..variant };
        let heads = config.heads(kv);
        let (neox, head_norms) = (config.rope.layout == RopeLayout::Neox, config.head_norms);
        Self { heads, neox, head_norms, products, variant }
    }
}

impl Kernels {
    /// Compiles them side by side.
    pub(crate) async fn new(gpu: &Gpu, needs: &Needs) -> Result<Self> {
        let &Needs { heads, neox, head_norms, ref products, variant } = needs;
        let Products { embedding, layers, output, residual_bias } = products;
        let all = [&layers[..], output].concat();
        // The variant is one of products; here what counts is what the device can do.
        let sums = Sums::of(gpu);
        let way = ChunkAttention::of(gpu, heads, sums, variant.tiles);
        let attention =
            try_join(AttentionOne::new(gpu, heads, neox, sums), Attention::new(gpu, heads, way));
        let add_bias = wanted(*residual_bias, AddBias::new(gpu));
        let head_norm = wanted(head_norms, HeadNorm::new(gpu, sums));
        // Nothing is awaited before everything is begun: the weights stream from the first pause on.
        let (
            (get_rows, norm, matmul, (fused, add_bias, head_norm)),
            (rope_store, attention, argmax, sample),
        ) = try_join(
            try_join4(
                GetRows::new(gpu, embedding),
                RmsNorm::new(gpu, sums),
                // A chunk gives the logits of its last token alone.
                MatMul::new(gpu, output, layers, variant),
                try_join3(Fused::new(gpu, &all, embedding, variant), add_bias, head_norm),
            ),
            try_join4(
                RopeStore::new(gpu, neox, heads.kv_f16),
                attention,
                Argmax::new(gpu),
                Sample::new(gpu),
            ),
        )
        .await?;
        let (attention_one, attention) = attention;
        Ok(Self {
            add_bias,
            head_norm,
            get_rows,
            norm,
            matmul,
            fused,
            rope_store,
            attention,
            attention_one,
            argmax,
            sample,
            variant,
        })
    }

    /// Fewer tokens than these take a chunk's pass as long.
    pub(crate) fn tile_tokens(&self) -> usize {
        self.matmul.tokens()
    }

    /// So few tokens go through faster one by one than in a pass that is made for many.
    pub(crate) fn few_tokens(&self) -> usize {
        if self.variant.columns { 6 } else { 1 }
    }

    /// How often a pass of so many tokens reads each key and value that is stored.
    pub(crate) fn cache_readers(&self, tokens: usize) -> usize {
        match tokens {
            1 => self.attention_one.readers(),
            _ => self.attention.readers(tokens),
        }
    }

    /// The program that turns `logits` [1, V], less those in `banned` [ceil(V/32)] bits, into the
    /// first of `act`'s tokens, notes it in `chosen`, and moves `act`'s frame on: `act` is ready for a next step.
    /// By `draws`, or the likeliest.
    pub(crate) fn choice(
        &self,
        gpu: &Gpu,
        cache: &Cache,
        [logits, banned, chosen]: [&Tensor; 3],
        act: &Activations,
        draws: Option<&SamplerState>,
    ) -> Result<Program> {
        let mut recording = Recording::default();
        let tensors = [logits, banned, &act.tokens, &act.frame, chosen];
        let ring = cache.geometry();
        match draws {
            Some(draws) => self.sample.record(&mut recording, "sample", ring, draws, tensors)?,
            None => self.argmax.record(&mut recording, "argmax", ring, tensors)?,
        }
        recording.finish(gpu)
    }
}

/// What flows between the ops of a pass of at most T tokens.
pub(crate) struct Activations {
    /// `[T]` ids of this pass
    pub(crate) tokens: Tensor,
    /// [4] n: the first token's position, reduced; tokens: how many of T are there; sinks kept; step
    pub(crate) frame: Tensor,
    pub(super) x: Tensor,  // [T, D]
    pub(super) xn: Tensor, // [T, D]
    qkv: Tensor,           // [T, (H + 2 KV) HD]
    q: Tensor,             // [T, 3, H HD]
    att: Tensor,           // [T, H HD]
    carry: Tensor,         // [T, H, 2 ceil(HD/256)], between the spans of a long cache
    h: Tensor,             // [T, F], F padded to a multiple of 32
    last: Tensor,          // [1, D]
    /// Partial sums of the squares of x, for one token alone.
    squares: Tensor, // [about D/4]
    /// What each split of the cache gives, for one token alone.
    parts: Tensor, // [splits, H, HD + 4]
}

impl Activations {
    pub(crate) fn new(gpu: &Gpu, model: &Model, cache: &Cache, tokens: usize) -> Result<Self> {
        let c = &model.config;
        let q_rows = c.n_head * c.head_dim;
        let kv_rows = c.n_head_kv * c.head_dim;
        let parts = [splits(cache.geometry()) as usize, c.n_head, c.head_dim + 4];
        let make =
            |name: &str, shape: &[usize]| Tensor::zeros(gpu, format!("act.{name}.{tokens}"), shape);
        Ok(Self {
            tokens: make("tokens", &[tokens])?,
            frame: make("frame", &[FRAME])?,
            x: make("x", &[tokens, c.n_embd])?,
            xn: make("xn", &[tokens, c.n_embd])?,
            qkv: make("qkv", &[tokens, q_rows + 2 * kv_rows])?,
            q: make("q", &[tokens, 3, q_rows])?,
            att: make("att", &[tokens, q_rows])?,
            carry: make("carry", &[tokens, c.n_head, params(model, cache, 0).carried()])?,
            h: make("h", &[tokens, c.n_ff.next_multiple_of(32)])?,
            last: make("last", &[1, c.n_embd])?,
            parts: make("parts", &if tokens == 1 { parts } else { [1, 1, 1] })?,
            squares: make("squares", &[most_partials(c.n_embd, model.weights.most_parts())])?,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        let Self { tokens, frame, x, xn, qkv, q, att, carry, h, last, squares, parts } = self;
        [tokens, frame, x, xn, qkv, q, att, carry, h, last, squares, parts]
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
        let (c, w) = (&model.config, &model.weights);
        let mut body = Recording::default();
        record_body(&mut body, model, kernels, cache, &act)?;
        let mut head = Recording::default();
        let norm = [&act.frame, &act.x, &w.output_norm, &act.last];
        kernels.norm.record_last(&mut head, "output_norm", c.norm_eps(), norm)?; // last [1, D]
        let tensors = [&act.frame, &act.last, logits];
        kernels.matmul.record(&mut head, "output", Epilogue::Store, tensors, w.output(), None)?; // logits [1, V]
        let (body, head) = (body.finish(&model.gpu)?, head.finish(&model.gpu)?);
        Ok(Self { act, body, head })
    }

    /// The same for one token, with the norms folded into the products: six dispatches a layer.
    pub(crate) fn fused(
        model: &Model,
        kernels: &Kernels,
        cache: &Cache,
        act: Activations,
        logits: &Tensor,
    ) -> Result<Self> {
        let mut body = Recording::default();
        let partials = record_fused(&mut body, model, kernels, cache, &act)?;
        let mut head = Recording::default();
        let (fused, store, eps) = (&kernels.fused, Epilogue::Store, model.config.norm_eps());
        let last = Normed { xn: &act.xn, squares: &act.squares, partials };
        let output = model.weights.output();
        fused.record_normed(&mut head, "output", store, eps, last, logits, output, None)?; // logits [1, V]
        let (body, head) = (body.finish(&model.gpu)?, head.finish(&model.gpu)?);
        Ok(Self { act, body, head })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.act.bytes()
    }
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
    let mut body = Recording::default();
    record_layers(&mut body, model, kernels, cache, act, Some(look))?;
    body.finish(&model.gpu)
}

/// The ops between the products of a layer.
fn params(model: &Model, cache: &Cache, layer: usize) -> AttentionParams {
    let (c, ring) = (&model.config, cache.geometry());
    let [heads, kv_heads, head_dim] = [c.n_head, c.n_head_kv, c.head_dim].map(|n| n as u32);
    let (rope_dim, scale) = (c.rope_dim(layer) as u32, c.scales.attention);
    let (cap, first, span) = (0.0, 0, 0);
    AttentionParams { heads, kv_heads, head_dim, rope_dim, ring, scale, cap, first, span }
}

/// The norms of heads, which are of what a product gives and not of the residual stream.
fn head_norms(c: &Config) -> HeadNormParams {
    let [heads, kv_heads, head_dim] = [c.n_head, c.n_head_kv, c.head_dim].map(|n| n as u32);
    HeadNormParams { heads, kv_heads, head_dim, eps: c.rms_eps }
}

/// A border before every layer but the first, which the embedding goes with.
fn begin_layer(r: &mut Recording, layer: usize) {
    if layer > 0 {
        r.border();
    }
}

/// One token; how many partial sums of squares the last layer leaves.
fn record_fused(
    r: &mut Recording,
    model: &Model,
    kernels: &Kernels,
    cache: &Cache,
    act: &Activations,
) -> Result<u32> {
    let Kernels { fused, add_bias, head_norm, attention_one, .. } = kernels;
    let Activations { tokens, frame, x, xn, qkv, att, h, squares, parts, .. } = act;
    let (c, w) = (&model.config, &model.weights);
    let eps = c.norm_eps();
    let (store, swiglu) = (Epilogue::Store, Epilogue::SwiGlu);
    let normed = |partials| Normed { xn, squares, partials };
    // The gain of the norm that reads what layer i - 1 leaves.
    let gain = |i: usize| w.layers.get(i).map_or(&w.output_norm, |layer| &layer.attn_norm);

    let embedding = [tokens, gain(0), x, xn, squares];
    let scale = c.embedding_scale();
    let mut n = fused.record_get_rows(r, "token_embd", scale, embedding, &w.token_embd)?; // x [1, D]
    for (i, layer) in w.layers.iter().enumerate() {
        begin_layer(r, i);
        let name = |op: &str| format!("blk.{i}/{op}");
        let (k, v, turns) = (cache.k(i), cache.v(i), &cache.turns);
        let (w, bias) = (layer, layer.qkv_bias.as_ref());
        let label = name("attn_qkv");
        fused.record_normed(r, &label, store, eps, normed(n), qkv, &w.attn_qkv, bias)?; // qkv [1, (H + 2 KV) HD]
        let tensors = [frame, qkv, turns, k, v, parts, att, &layer.attn_terms];
        if let (Some(op), Some(gain)) = (head_norm, &layer.head_norms) {
            op.record(r, name("head_norm"), head_norms(c), [frame, gain, qkv])?; // qkv [1, (H + 2 KV) HD]
        }
        let attend = params(model, cache, i);
        attention_one.record(r, &name("attention"), attend, tensors)?; // att [1, H HD]
        if let (Some(op), Some(bias)) = (add_bias, &w.attn_output_bias) {
            op.record(r, name("attn_output_bias"), [bias, x])?; // x += [D]
        }
        let out = [att, &w.ffn_norm, x, xn, squares];
        n = fused.record_residual(r, &name("attn_output"), out, &w.attn_output)?; // x += [1, D]
        let (label, bias) = (name("ffn_gate_up"), w.ffn_gate_up_bias.as_ref());
        fused.record_normed(r, &label, swiglu, eps, normed(n), h, &w.ffn_gate_up, bias)?; // h [1, F]
        if let (Some(op), Some(bias)) = (add_bias, &w.ffn_down_bias) {
            op.record(r, name("ffn_down_bias"), [bias, x])?; // x += [D]
        }
        let down = [h, gain(i + 1), x, xn, squares];
        n = fused.record_residual(r, &name("ffn_down"), down, &w.ffn_down)?; // x += [1, D]
    }
    Ok(n)
}

pub(super) fn record_body(
    r: &mut Recording,
    model: &Model,
    kernels: &Kernels,
    cache: &Cache,
    act: &Activations,
) -> Result<()> {
    record_layers(r, model, kernels, cache, act, None)
}

/// The same, with a look at every layer's attention where one is wanted.
fn record_layers(
    r: &mut Recording,
    model: &Model,
    kernels: &Kernels,
    cache: &Cache,
    act: &Activations,
    look: Option<(&Shares, &Tensor)>,
) -> Result<()> {
    let Kernels { get_rows, norm, matmul, head_norm, rope_store, attention, .. } = kernels;
    let Activations { tokens, frame, x, xn, qkv, q, att, carry, h, .. } = act;
    let (c, w) = (&model.config, &model.weights);
    let eps = c.norm_eps();

    get_rows.record(r, "token_embd", c.embedding_scale(), [frame, tokens, x], &w.token_embd)?; // x [T, D]
    for (i, layer) in w.layers.iter().enumerate() {
        begin_layer(r, i);
        let name = |op: &str| format!("blk.{i}/{op}");
        let (k, v, turns) = (cache.k(i), cache.v(i), &cache.turns);
        let bias = layer.qkv_bias.as_ref();
        let (store, add, swiglu) = (Epilogue::Store, Epilogue::Add, Epilogue::SwiGlu);
        norm.record(r, name("attn_norm"), eps, [frame, x, &layer.attn_norm, xn])?; // xn [T, D]
        matmul.record(r, name("attn_qkv"), store, [frame, xn, qkv], &layer.attn_qkv, bias)?; // qkv [T, (H + 2 KV) HD]
        if let (Some(op), Some(gain)) = (head_norm, &layer.head_norms) {
            op.record(r, name("head_norm"), head_norms(c), [frame, gain, qkv])?; // qkv [T, (H + 2 KV) HD]
        }
        let attend = params(model, cache, i);
        rope_store.record(r, name("rope_store"), attend, [frame, qkv, turns, q, k, v])?; // q [T, 3, H HD]
        let tensors = [frame, q, k, v, att, carry, &layer.attn_terms];
        attention.record(r, name("attention"), attend, tensors)?; // att [T, H HD]
        if let Some((shares, seen)) = look {
            let tensors = [frame, q, k, v, seen, &layer.attn_terms];
            shares.record(r, name("shares"), attend, i, tensors)?; // seen [L, T, H, FIRST]
        }
        let bias = layer.attn_output_bias.as_ref();
        matmul.record(r, name("attn_output"), add, [frame, att, x], &layer.attn_output, bias)?; // x += [T, D]
        r.border(); // of a large model and a long chunk, each of these is long
        norm.record(r, name("ffn_norm"), eps, [frame, x, &layer.ffn_norm, xn])?; // xn [T, D]
        let bias = layer.ffn_gate_up_bias.as_ref();
        matmul.record(r, name("ffn_gate_up"), swiglu, [frame, xn, h], &layer.ffn_gate_up, bias)?; // h [T, F]
        r.border();
        let bias = layer.ffn_down_bias.as_ref();
        matmul.record(r, name("ffn_down"), add, [frame, h, x], &layer.ffn_down, bias)?; // x += [T, D]
    }
    Ok(())
}
