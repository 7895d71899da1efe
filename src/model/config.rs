//! What a model is. Every difference between models is a field here.
use super::{Rope, Scales};
use crate::format::{Gguf, TensorInfo};
use crate::model::Policy;
use crate::ops::{Epilogue, MOST_EXPERTS, MOST_HEAD_DIM, MOST_USED, NormKind, RingParams};
use crate::{Error, Result};

/// Where in a layer the residual stream is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlaces {
    /// What attention and feed-forward read.
    Before,
    /// What they give, before it is added to the stream.
    After,
    /// Both.
    Both,
}

/// How the residual stream is normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norms {
    /// By the root of the mean square, or by mean and variance.
    pub kind: NormKind,
    /// Added to the mean square, or to the variance.
    pub eps: f32,
    /// Where in a layer.
    pub places: NormPlaces,
    /// Whether the embedding is normalised too (`token_embd_norm`).
    pub embedding: bool,
}

/// How queries and keys are normalised before they are turned (`attn_q_norm`, `attn_k_norm`), and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorms {
    /// Each head by itself, all with the same gains.
    Heads,
    /// Likewise, and each head of values too, without gains.
    WithValues,
    /// Each head by itself, with gains of its own, by mean and variance.
    OwnGains,
    /// All heads of a token together.
    Rows,
}

/// What tells a token's position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// Queries and keys are turned, in the layers that [`LayerKind::turns`].
    Rope,
    /// Scores fall with the distance, by slopes of this bias.
    Alibi(f32),
    /// A vector a position is added to the embedding: there are no positions beyond [`Config::n_ctx`].
    Learned,
}

/// What a softmax over scores begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Softmax {
    /// Nothing.
    #[default]
    Plain,
    /// One more, of score 0, that has no value.
    OffByOne,
    /// One more that has no value, of a score that each head learned (`attn_sinks`).
    Learned,
}

/// Feed-forwards that each token is sent to a few of, by a router (`ffn_gate_inp`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// E, how many a layer has.
    pub count: usize,
    /// K, how many a token goes to: those of the highest logits, weighed by the softmax over these.
    pub used: usize,
    /// What these weights are multiplied with.
    pub scale: f32,
}

/// Bounds that numbers come close to and do not pass: c tanh(x / c).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Caps {
    /// Of scores.
    pub attention: Option<f32>,
    /// Of logits.
    pub logits: Option<f32>,
    /// Of queries, keys and values before all else; what is beyond is cut off.
    pub qkv: Option<f32>,
}

/// What mixes the tokens of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixer {
    /// Softmax attention over the cache.
    Attention,
    /// A gated convolution over the last [`Config::conv_taps`] tokens.
    ShortConv,
    /// The gated delta rule, behind such a convolution: [`Config::delta_net`].
    DeltaNet,
}

/// Heads of layers whose states follow the gated delta rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaHeads {
    /// G, of queries and of keys.
    pub key_heads: usize,
    /// How many of values and of states: a multiple of G.
    pub heads: usize,
    /// DK, dimensions of a key.
    pub key_dim: usize,
    /// DV, dimensions of a value.
    pub value_dim: usize,
}

impl DeltaHeads {
    /// Elements of a token that enter the convolution: 2 G DK + H DV.
    pub(super) fn channels(self) -> usize {
        2 * self.key_heads * self.key_dim + self.heads * self.value_dim
    }

    /// Those, and two gates for each state: what the rule reads of a token.
    pub(super) fn row(self) -> usize {
        self.channels() + 2 * self.heads
    }
}

/// What a layer looks back on, how it knows where, and with which heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKind {
    /// What mixes its tokens.
    pub mixer: Mixer,
    /// The window that the layer was trained with, the current token included; none where the policy has its way.
    pub window: Option<usize>,
    /// Whether queries and keys are turned.
    pub turns: bool,
    /// KV
    pub n_head_kv: usize,
    /// HD
    pub head_dim: usize,
}

impl LayerKind {
    /// Whether it has keys and values; others have a state.
    pub fn attends(&self) -> bool {
        self.mixer == Mixer::Attention
    }
}

/// The model's dimensions and constants. Letters as in [`crate::model`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `general.architecture`
    pub architecture: String,
    /// `general.name`, or nothing
    pub name: String,
    /// Layers.
    pub n_layer: usize,
    /// D
    pub n_embd: usize,
    /// H
    pub n_head: usize,
    /// F; with experts, of each of them
    pub n_ff: usize,
    /// V
    pub n_vocab: usize,
    /// The trained context in tokens.
    pub n_ctx: usize,
    /// How the residual stream is normalised.
    pub norms: Norms,
    /// Whether attention and feed-forward read the same stream and are added to it at once.
    pub parallel: bool,
    /// How queries and keys are normalised.
    pub head_norms: Option<HeadNorms>,
    /// What becomes of the feed-forward's first product.
    pub feed_forward: Epilogue,
    /// The experts of a layer, where there is more than one feed-forward.
    pub experts: Option<Experts>,
    /// What tells positions.
    pub positions: Positions,
    /// What attention's softmax begins with.
    pub softmax: Softmax,
    /// Bounds of scores and logits.
    pub caps: Caps,
    /// Rotary positions.
    pub rope: Rope,
    /// Those of layers with a window of their own, where they are others.
    pub local_rope: Option<Rope>,
    /// Each layer's kind.
    pub layers: Vec<LayerKind>,
    /// Tokens that convolutions see, the current one included; 0 where there are none.
    pub conv_taps: usize,
    /// Heads of layers with the gated delta rule.
    pub delta_net: Option<DeltaHeads>,
    /// Whether what a head of attention gives goes through a gate, which comes with its query.
    pub gated_heads: bool,
    /// What activations are multiplied with.
    pub scales: Scales,
    /// More tokens in sight would scale queries by their position, which is not done.
    pub most_capacity: Option<usize>,
    /// The output matrix is the embedding.
    pub tied: bool,
    /// Layers after the last that a file has for other ends (`nextn_predict_layers`).
    pub ignored_layers: usize,
}

/// A bound on every count of a config, far above any model's.
pub(super) const MOST: u32 = 1 << 24;

impl Config {
    /// [`Config::from_gguf`] for a tokenizer of so many tokens: the embedding must have a row for each, and no more.
    pub fn for_tokens(gguf: &Gguf, tokens: usize) -> Result<Self> {
        let config = Self::from_gguf(gguf)?;
        match config.n_vocab {
            rows if rows == tokens => Ok(config),
            rows => Err(Error::Unsupported(format!(
                "the embedding has {rows} rows and the tokenizer {tokens} tokens"
            ))),
        }
    }

    /// An error unless every one of `tokens` is an id of the vocabulary.
    pub(crate) fn expect_ids(&self, tokens: &[u32]) -> Result<()> {
        match tokens.iter().find(|&&id| id as usize >= self.n_vocab) {
            None => Ok(()),
            Some(id) => {
                Err(Error::Usage(format!("token {id} is not one of the model's {}", self.n_vocab)))
            }
        }
    }

    /// What turns queries and keys in layers of a kind that turns them.
    pub(crate) fn rope_of(&self, kind: LayerKind) -> Rope {
        self.local_rope.filter(|_| kind.window.is_some()).unwrap_or(self.rope)
    }

    /// The model's own divisors of frequencies that hold in layers with a window of their own, too: those of a model that
    /// turns all layers in one way.
    pub(crate) fn local_factors<'a>(&self, factors: Option<&'a [f32]>) -> Option<&'a [f32]> {
        factors.filter(|_| self.local_rope.is_none())
    }

    /// R in a layer: 0 in one that knows no positions.
    pub(crate) fn rope_dim(&self, layer: usize) -> usize {
        let kind = self.layers[layer];
        if kind.turns { self.rope_of(kind).dim } else { 0 }
    }

    /// The window that some of the layers have of their own.
    pub(crate) fn own_window(&self) -> Option<usize> {
        self.layers.iter().find_map(|kind| kind.window)
    }

    /// Whether layers with a window of their own keep it beside a policy's of so many tokens. Where all layers have one,
    /// a shorter one with sinks is the policy's: it would have its way nowhere.
    pub(crate) fn keeps_own_window(&self, policy: usize) -> bool {
        let all = self.layers.iter().all(|kind| kind.window.is_some());
        self.own_window().is_some_and(|own| !all || policy > own)
    }

    /// An error unless a cache of that policy can be what the model was trained for.
    pub(crate) fn expect_capacity(&self, policy: Policy, ring: RingParams) -> Result<()> {
        let wrong = |works: String| {
            Err(Error::Setting { which: "policy", found: policy.name().to_owned(), works })
        };
        if policy == Policy::HalfDiscard && self.own_window().is_some() {
            return wrong(
                "layers of this model have a window of their own, which half-discard would move; streaming works".into(),
            );
        }
        if policy == Policy::HalfDiscard && self.layers.iter().any(|kind| !kind.attends()) {
            return wrong(
                "layers of this model have a state, out of which no token can be taken; streaming works".into(),
            );
        }
        let learned = self.positions == Positions::Learned;
        if learned && !matches!(policy, Policy::Dense | Policy::Recompute) {
            return wrong(format!(
                "{} learned its {} positions one by one, and a stream would need more: dense and recompute work",
                self.architecture, self.n_ctx
            ));
        }
        let most = if learned { Some(self.n_ctx) } else { self.most_capacity };
        match most {
            Some(most) if ring.capacity() > most as u64 => Err(Error::Setting {
                which: "window",
                found: ring.window.to_string(),
                works: format!(
                    "the model knows no positions beyond {most}; sinks and window of {most} together work"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Its family, and what is special about its layers, for people: "gemma3; 5 of 6 layers have a window of …".
    pub fn kinds(&self) -> String {
        let Self { architecture, n_layer, layers, .. } = self;
        let own = layers.iter().filter(|kind| kind.window.is_some()).count();
        let unturned = layers.iter().filter(|kind| kind.attends() && !kind.turns).count();
        let mut text = architecture.clone();
        text += &self.states_text();
        if let Some(window) = self.own_window() {
            text += &format!(
                "; {own} of {n_layer} layers have a window of {window} tokens of their own"
            );
        }
        let size = |own: bool| layers.iter().find(|kind| kind.window.is_some() == own);
        if let [Some(local), Some(global)] = [true, false].map(size)
            && local.head_dim != global.head_dim
        {
            let [local, global] = [local, global].map(|kind| kind.head_dim);
            text += &format!(" and heads of {local} dimensions, the others of {global}");
        }
        if let Some(Experts { count, used, .. }) = self.experts {
            text += &format!("; a token goes to {used} of {count} experts");
        }
        match self.positions {
            Positions::Alibi(_) => text += "; positions by ALiBi",
            Positions::Learned => {
                text += "; positions learned one by one: dense and recompute only"
            }
            Positions::Rope if unturned > 0 => {
                text += &format!("; {unturned} of {n_layer} layers know no positions");
            }
            Positions::Rope => {}
        }
        text
    }

    /// What rows of the embedding are multiplied with. Norms do not see a scale of the residual stream, so all of it is
    /// kept in units of what blocks add to it, and nothing is multiplied there.
    pub(crate) fn embedding_scale(&self) -> f32 {
        self.scales.embedding / self.scales.residual
    }

    /// Added to the mean square of a residual stream in those units.
    pub(crate) fn norm_eps(&self) -> f32 {
        self.norms.eps / self.scales.residual.powi(2)
    }

    /// An error unless the kernels can run these dimensions.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Unsupported(text));
        self.layers.iter().try_for_each(|&kind| self.check_kind(kind))?;
        for Rope { base, dim, .. } in [Some(self.rope), self.local_rope].into_iter().flatten() {
            if !(base.is_finite() && base > 1.0) {
                return wrong(format!("a rotary base of {base}"));
            }
            // Whether or not a layer is turned by it.
            if dim > MOST_HEAD_DIM {
                return wrong(format!("{dim} dimensions of a head are to be turned"));
            }
        }
        if !(self.norms.eps.is_finite() && self.norms.eps >= 0.0) {
            return wrong(format!("an epsilon of {} in norms", self.norms.eps));
        }
        if let Some(Experts { count, used, .. }) = self.experts
            && (count > MOST_EXPERTS || used > MOST_USED.min(count))
        {
            return wrong(format!(
                "{used} of {count} experts for a token; at most {MOST_USED} of {MOST_EXPERTS} work"
            ));
        }
        if self.n_vocab == 0 || self.n_vocab > MOST as usize {
            return wrong(format!("a vocabulary of {} tokens", self.n_vocab));
        }
        Ok(())
    }
}

/// The tensor of that name.
pub(super) fn need_tensor<'a>(gguf: &'a Gguf, name: &str) -> Result<&'a TensorInfo> {
    gguf.tensor(name).ok_or_else(|| {
        gguf.fault(0, format!("the tensor {name} is missing; the file is not a whole model"))
    })
}
