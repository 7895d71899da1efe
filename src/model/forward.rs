//! The forward pass: a layer, once, for one token and for many.
use super::config::{LayerKind, Mixer, NormPlaces};
use super::pass::Recorder;
use super::weights::{Layer, Matrix};
use super::{Cache, Config, Kernels, Model};
use crate::Result;
use crate::gpu::{Gpu, Program, Recording, Tensor};
use crate::ops::{Epilogue, ExpertTiles, FRAME, FRAME_ROW, carried, most_partials, splits};

/// A layer of the model, over the residual stream x [T, D].
fn layer<'a>(p: &mut Recorder<'a>, c: &Config, kind: LayerKind, w: &'a Layer) -> Result<()> {
    let xn = p.normed("attn_norm", w.attn_norm.as_ref())?;
    let att = match kind.mixer {
        Mixer::Attention => {
            p.linear("attn_qkv", Epilogue::Store, xn, &w.attn_qkv, &p.heads().qkv)?; // qkv [T, (H + 2 KV) HD]
            let att = p.attend(w)?; // att [T, H HD]: Q and K normed and turned, stored, attended to
            if let Some(gate) = &w.attn_gate {
                p.linear("attn_gate", Epilogue::Store, xn, gate, &p.act.gate)?; // gate [T, H HD]
                p.gate(att)?; // att *= sigmoid(gate)
            }
            att
        }
        Mixer::ShortConv => {
            p.linear("attn_qkv", Epilogue::Store, xn, &w.attn_qkv, &p.act.mix)?; // mix [T, 3 D]: b, c, u
            p.short_conv(w)? // mixed [T, D]: c times the convolution of b u
        }
        Mixer::DeltaNet => {
            p.linear("attn_qkv", Epilogue::Store, xn, &w.attn_qkv, &p.act.mix)?; // mix [T, …]: q, k, v, alpha, beta, z
            p.delta_net(w)? // mixed [T, H DV]: what states make of convolved q, k, v, normed and gated
        }
    };
    let post = ("post_attention_norm", w.post_attention_norm.as_ref());
    let xn = if c.parallel {
        // Both blocks read the stream as it was; one norm may serve both.
        let xn = if w.ffn_norm.is_some() { p.normed("ffn_norm", w.ffn_norm.as_ref())? } else { xn };
        p.linear_beside("attn_output", att, &w.attn_output, post)?; // x += [T, D]
        xn
    } else {
        p.linear_residual("attn_output", att, &w.attn_output, post)?; // x += [T, D]
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
    p.experts("ffn_down", Epilogue::Add, &p.act.h, &w.ffn_down, &p.act.x) // x += [T, D], by their shares
}

/// What flows between the ops of a pass of at most T tokens.
pub(crate) struct Activations {
    /// `[T]` ids of this pass; of rows the first of each [R, 64]
    pub(crate) tokens: Tensor,
    /// [4] n: the first token's position, reduced; tokens: how many of T are there; sinks kept; step
    pub(crate) frame: Tensor,
    /// [R, 64] the same of every row, with its stream: where rows are of several
    pub(crate) frames: Option<Tensor>,
    pub(super) x: Tensor,     // [T, D]
    pub(super) xn: Tensor,    // [T, D]
    pub(super) block: Tensor, // [T, D], what a block gave, where that is normalised
    /// What enters the mixer of a layer that does not attend, and what leaves it.
    pub(super) mix: Tensor, // [T, 3 D], or [T, 2 G DK + 2 H DV + 2 H]
    pub(super) mixed: Tensor, // [T, D], or [T, H DV]
    pub(super) gate: Tensor,  // [T, H HD], where heads of attention have gates
    /// Those of attention, for each of [`Config::heads`].
    pub(super) heads: Vec<HeadActivations>,
    pub(super) h: Tensor, // [T, F], F padded to a multiple of 32; [T, K, F] with experts
    /// Of each token for each expert, and its experts with their shares: where there are some.
    pub(super) routes: Tensor, // [T, E]
    pub(super) chosen: Tensor, // [T, K, 2]
    /// Of many tokens: these by their experts, and what each expert gives.
    pub(super) groups: Tensor, // [tiles, 2 + TILE]
    pub(super) given: Tensor, // [T, K, D]
    pub(super) last: Tensor, // [1, D]
    /// Partial sums of x and of its squares, for one token alone.
    pub(super) sums: Tensor, // [about D/4], or three times as many
}

/// What flows between the ops of attention, with key heads of one number and size. Those of others lie in the same memory.
pub(super) struct HeadActivations {
    pub(super) qkv: Tensor,   // [T, (H + 2 KV) HD]
    pub(super) q: Tensor,     // [T, 3, H HD]
    pub(super) att: Tensor,   // [T, H HD]
    pub(super) carry: Tensor, // [T, H, 2 ceil(HD/256)], between the spans of a long cache
    /// What each split of the cache gives, for one token alone.
    pub(super) parts: Tensor, // [splits, H, HD + 4]
}

impl HeadActivations {
    /// Of so many tokens, for each of [`Config::heads`].
    fn new(gpu: &Gpu, c: &Config, cache: &Cache, of: Tokens) -> Result<Vec<Self>> {
        let heads = c.heads();
        let tokens = of.count();
        let splits = splits(cache.longest()) as usize;
        let make = |name: &str, shape: &dyn Fn(LayerKind) -> Vec<usize>| {
            let shapes: Vec<_> = heads.iter().map(|&kind| shape(kind)).collect();
            Tensor::in_turn(gpu, &format!("act.{name}.{tokens}"), &shapes).map(Vec::into_iter)
        };
        let parts = |kind: LayerKind| match of {
            Tokens::Many(_) => vec![1; 3],
            _ => vec![tokens * splits, c.n_head, kind.head_dim + 4],
        };
        // What turns apart from attending, as a chunk does, has its queries and what they carry on the way.
        let between = if matches!(of, Tokens::Rows(_)) { 0 } else { tokens };
        let mut qkv =
            make("qkv", &|kind| vec![tokens, (c.n_head + 2 * kind.n_head_kv) * kind.head_dim])?;
        let mut q = make("q", &|kind| vec![between, 3, c.n_head * kind.head_dim])?;
        let mut att = make("att", &|kind| vec![tokens, c.n_head * kind.head_dim])?;
        let mut carry = make("carry", &|kind| vec![between, c.n_head, carried(kind.head_dim)])?;
        let mut parts = make("parts", &parts)?;
        let one = || {
            Some(Self {
                qkv: qkv.next()?,
                q: q.next()?,
                att: att.next()?,
                carry: carry.next()?,
                parts: parts.next()?,
            })
        };
        Ok(std::iter::from_fn(one).collect())
    }
}

/// Which tokens a pass is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// One, whose norms fold into its products.
    One,
    /// So many of one stream at most, one after another.
    Many(usize),
    /// One each of so many streams at most.
    Rows(usize),
}

impl Tokens {
    /// Of one stream.
    #[cfg(feature = "cli")]
    pub(crate) fn of(count: usize) -> Self {
        if count == 1 { Self::One } else { Self::Many(count) }
    }

    fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Many(count) | Self::Rows(count) => count,
        }
    }
}

impl Activations {
    pub(crate) fn new(gpu: &Gpu, model: &Model, cache: &Cache, of: Tokens) -> Result<Self> {
        let c = &model.config;
        let tokens = of.count();
        let width = c.n_ff.next_multiple_of(32);
        let (experts, used) = c.experts.map_or((0, 0), |experts| (experts.count, experts.used));
        let hidden = match c.experts {
            None => vec![tokens, width],
            Some(_) => vec![tokens, used, width],
        };
        let partials = most_partials(c.n_embd, model.weights.most_parts());
        let block = if c.norms.places == NormPlaces::Before { 0 } else { c.n_embd };
        let ([mix, mixed], gates) = (c.mix_widths(), c.gate_width());
        let (groups, given) = match of {
            Tokens::One => ([0, 1], [0, used, c.n_embd]),
            _ => {
                let groups = ExpertTiles::of(gpu).groups([tokens, used, experts]);
                (groups, [tokens, used, c.n_embd])
            }
        };
        let make =
            |name: &str, shape: &[usize]| Tensor::zeros(gpu, format!("act.{name}.{tokens}"), shape);
        let rows = matches!(of, Tokens::Rows(_));
        let frames = rows.then(|| make("frames", &[tokens, FRAME_ROW])).transpose()?;
        Ok(Self {
            tokens: match rows {
                true => make("tokens", &[tokens, FRAME_ROW])?,
                false => make("tokens", &[tokens])?,
            },
            frame: match &frames {
                Some(frames) => frames.view("act.frame", 0, &[FRAME]),
                None => make("frame", &[FRAME])?,
            },
            frames,
            x: make("x", &[tokens, c.n_embd])?,
            xn: make("xn", &[tokens, c.n_embd])?,
            block: make("block", &[tokens, block])?,
            mix: make("mix", &[tokens, mix])?,
            mixed: make("mixed", &[tokens, mixed])?,
            gate: make("gate", &[tokens, gates])?,
            heads: HeadActivations::new(gpu, c, cache, of)?,
            h: make("h", &hidden)?,
            routes: make("routes", &[tokens, experts])?,
            chosen: make("chosen", &[tokens, used, 2])?,
            groups: make("groups", &groups)?,
            given: make("given", &given)?,
            last: make("last", &[1, c.n_embd])?,
            sums: make("sums", &[partials * c.norms.kind.sums()])?,
        })
    }

    /// Whether they are of one token.
    pub(super) fn one(&self) -> bool {
        self.tokens.len() == 1
    }

    /// The first rows of these, in the same memory: for passes of fewer streams.
    pub(crate) fn first(&self, gpu: &Gpu, c: &Config, rows: usize) -> Self {
        let all = |tensor: &Tensor| tensor.view(&tensor.label, 0, &tensor.shape);
        let first = |tensor: &Tensor| {
            let shape = [&[rows.min(tensor.shape[0])], &tensor.shape[1..]].concat();
            tensor.view(&tensor.label, 0, &shape)
        };
        let groups = c
            .experts
            .map(|experts| ExpertTiles::of(gpu).groups([rows, experts.used, experts.count]));
        let heads = self.heads.iter().map(|HeadActivations { qkv, q, att, carry, parts }| {
            let [qkv, q, att, carry] = [qkv, q, att, carry].map(first);
            HeadActivations { qkv, q, att, carry, parts: all(parts) }
        });
        Self {
            tokens: first(&self.tokens),
            frame: all(&self.frame),
            // Of the first row is how many there are: the others' are as they are.
            frames: self.frames.as_ref().map(all),
            x: first(&self.x),
            xn: first(&self.xn),
            block: first(&self.block),
            mix: first(&self.mix),
            mixed: first(&self.mixed),
            gate: first(&self.gate),
            heads: heads.collect(),
            h: first(&self.h),
            routes: first(&self.routes),
            chosen: first(&self.chosen),
            groups: match groups {
                Some(shape) => self.groups.view(&self.groups.label, 0, &shape),
                None => all(&self.groups),
            },
            given: first(&self.given),
            last: all(&self.last),
            sums: all(&self.sums),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        let Self { tokens, frame, x, xn, mix, mixed, gate, heads, h, last, sums, .. } = self;
        let Self { routes, chosen, groups, given, block, .. } = self;
        let frame = self.frames.as_ref().unwrap_or(frame);
        let all = [tokens, frame, x, xn, mix, mixed, gate, h, last, sums];
        let all = all.into_iter().chain([routes, chosen, groups, given, block]);
        // The others lie where the first do.
        let heads = heads
            .iter()
            .take(1)
            .flat_map(|HeadActivations { qkv, q, att, carry, parts }| [qkv, q, att, carry, parts]);
        all.chain(heads).map(Tensor::size).sum()
    }
}

/// The programs of a pass of at most T tokens over one cache.
pub(crate) struct Pass {
    pub(crate) act: Activations,
    /// Tokens in, hidden states out, K and V stored.
    pub(crate) body: Program,
    /// The last token's logits; of rows those of each.
    pub(crate) head: Program,
}

impl Pass {
    /// Notes down a pass of at most `act`'s T tokens. `logits`: [1, V]; of rows [R, V], padded so that a binding may begin with
    /// each.
    pub(crate) fn new(
        model: &Model,
        kernels: &Kernels,
        cache: &Cache,
        act: Activations,
        logits: &Tensor,
    ) -> Result<Self> {
        let mut p = Recorder::new(model, kernels, cache, &act, None);
        layers(&mut p, model)?;
        let body = std::mem::replace(&mut p.r, Recording::apart()).finish(&model.gpu)?;
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
        layer(p, &model.config, model.config.layers[i], w)?;
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
    look: (&[crate::ops::Shares], &Tensor),
) -> Result<Program> {
    let mut p = Recorder::new(model, kernels, cache, act, Some(look));
    layers(&mut p, model)?;
    p.r.finish(&model.gpu)
}
