//! What a file says of its model. Every difference between models is a field here.
use super::family::{Family, Scales};
use crate::format::{Array, Gguf, TensorInfo, Value, shown};
use crate::model::KvType;
use crate::ops::{HeadShape, MOST_HEAD_DIM};
use crate::{Error, Result};

/// Which dimensions of a head are turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// 2i and 2i + 1, as llama's files have it.
    Norm,
    /// i and i + R/2.
    Neox,
}

/// How the rotary frequencies were stretched for longer contexts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// As trained; or by the file's own divisors (`rope_freqs.weight`, Llama 3).
    None,
    /// Every frequency divided by this.
    Linear {
        /// How many times longer.
        factor: f32,
    },
    /// YaRN (arXiv 2309.00071): high frequencies kept, low ones divided, a ramp between.
    Yarn {
        /// How many times longer.
        factor: f32,
        /// The context before stretching, in tokens.
        n_ctx_orig: u32,
        /// Turns over that context above which a frequency is kept.
        beta_fast: f32,
        /// Turns below which it is divided in full.
        beta_slow: f32,
        /// The ramp's weight; 1 is YaRN, 0 is linear.
        ext_factor: f32,
        /// A further scale of queries and keys.
        attn_factor: f32,
    },
}

/// Rotary positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// The wavelength's base.
    pub base: f32,
    /// R: dimensions of a head that are turned.
    pub dim: usize,
    /// Which of them are pairs.
    pub layout: RopeLayout,
    /// Stretching.
    pub scaling: RopeScaling,
}

impl Rope {
    /// Radians a position for each pair [R/2], and what cosines and sines are multiplied by.
    /// `factors` are the file's own divisors [R/2].
    pub fn frequencies(&self, factors: Option<&[f32]>) -> (Vec<f64>, f64) {
        let (base, dim) = (f64::from(self.base), self.dim as f64);
        let plain = (0..self.dim / 2).map(|pair| {
            let divisor = factors.and_then(|f| f.get(pair)).map_or(1.0, |&f| f64::from(f));
            base.powf(-2.0 * pair as f64 / dim) / divisor
        });
        match self.scaling {
            RopeScaling::None => (plain.collect(), 1.0),
            RopeScaling::Linear { factor } => {
                (plain.map(|frequency| frequency / f64::from(factor)).collect(), 1.0)
            }
            RopeScaling::Yarn {
                factor,
                n_ctx_orig,
                beta_fast,
                beta_slow,
                ext_factor,
                attn_factor,
            } => {
                let [factor, fast, slow, ext, attn] =
                    [factor, beta_fast, beta_slow, ext_factor, attn_factor].map(f64::from);
                // The pair that turns `beta` times over the original context.
                let pair_of = |beta: f64| {
                    let turns = f64::from(n_ctx_orig) / (beta * std::f64::consts::TAU);
                    dim * turns.ln() / (2.0 * base.ln())
                };
                let low = pair_of(fast).floor().max(0.0);
                let high = pair_of(slow).ceil().min(dim - 1.0);
                let mixed = plain.enumerate().map(|(pair, frequency)| {
                    let ramp = (pair as f64 - low) / (high - low).max(0.001);
                    let kept = (1.0 - ramp.clamp(0.0, 1.0)) * ext;
                    frequency / factor * (1.0 - kept) + frequency * kept
                });
                let sharpened = if ext == 0.0 { 1.0 } else { 1.0 + 0.1 * factor.ln() };
                (mixed.collect(), attn * sharpened)
            }
        }
    }
}

/// cos and sin of every phase and pair [phases, R/2, 2], computed in f64, times `scale`.
pub fn phase_table(frequencies: &[f64], scale: f64, phases: usize) -> Vec<f32> {
    let turn = |phase: usize, frequency: &f64| {
        let (sin, cos) = (phase as f64 * frequency).sin_cos();
        [(cos * scale) as f32, (sin * scale) as f32]
    };
    (0..phases).flat_map(|phase| frequencies.iter().flat_map(move |f| turn(phase, f))).collect()
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
    /// KV
    pub n_head_kv: usize,
    /// HD
    pub head_dim: usize,
    /// F
    pub n_ff: usize,
    /// V
    pub n_vocab: usize,
    /// The trained context in tokens.
    pub n_ctx: usize,
    /// Added to the mean square in norms.
    pub rms_eps: f32,
    /// Rotary positions.
    pub rope: Rope,
    /// Of so many layers the last turns nothing: it knows no positions.
    pub no_rope_every: Option<usize>,
    /// Each head of queries and keys is normalised before it is turned.
    pub head_norms: bool,
    /// What activations are multiplied with.
    pub scales: Scales,
    /// The output matrix is the embedding.
    pub tied: bool,
}

/// A bound on every count of a config, far above any model's.
const MOST: u32 = 1 << 24;

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

    /// R in a layer: 0 in one that knows no positions.
    pub(crate) fn rope_dim(&self, layer: usize) -> usize {
        match self.no_rope_every {
            Some(every) if (layer + 1).is_multiple_of(every) => 0,
            _ => self.rope.dim,
        }
    }

    /// What rows of the embedding are multiplied with. Norms do not see a scale of the residual stream, so all of it is
    /// kept in units of what blocks add to it, and nothing is multiplied there.
    pub(crate) fn embedding_scale(&self) -> f32 {
        self.scales.embedding / self.scales.residual
    }

    /// Added to the mean square of a residual stream in those units.
    pub(crate) fn norm_eps(&self) -> f32 {
        self.rms_eps / self.scales.residual.powi(2)
    }

    /// What kernels of attention are compiled for.
    pub(crate) fn heads(&self, kv: KvType) -> HeadShape {
        let sharing = self.n_head / self.n_head_kv;
        let kv_f16 = kv == KvType::F16;
        HeadShape { head_dim: self.head_dim, sharing, kv_f16, alibi: false, capped: false }
    }

    /// Reads and checks a config; what this engine does not do is refused by name.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let family = Family::of(gguf)?;
        let key = |name: &str| format!("{}.{name}", family.name);
        refuse_variants(gguf, family, &key)?;
        let size = |name: &str| -> Result<usize> {
            let key = key(name);
            match gguf.need_u32(&key)? {
                n @ 1..=MOST => Ok(n as usize),
                n => Err(Error::Unsupported(format!("{key} is {n}; 1 to {MOST} would do"))),
            }
        };
        let n_layer = size("block_count")?;
        let of_layers = |name: &str| match gguf.get(&key(name)) {
            Some(Value::Array(sizes)) => same_in_layers(gguf, &key(name), sizes, n_layer),
            _ => size(name),
        };
        let optional = |name: &str, default: usize| match gguf.get(&key(name)) {
            Some(_) => of_layers(name),
            None => Ok(default),
        };
        let (n_embd, n_head) = (size("embedding_length")?, of_layers("attention.head_count")?);
        let head_dim = optional("attention.key_length", n_embd / n_head)?;
        let value_dim = optional("attention.value_length", head_dim)?;
        let embedding = need_tensor(gguf, "token_embd.weight")?;
        let config = Self {
            name: gguf.str("general.name")?.unwrap_or_default().to_owned(),
            n_layer,
            n_embd,
            n_head,
            n_head_kv: optional("attention.head_count_kv", n_head)?,
            head_dim,
            n_ff: of_layers("feed_forward_length")?,
            n_vocab: usize::try_from(embedding.rows()).unwrap_or(usize::MAX),
            n_ctx: size("context_length")?,
            rms_eps: gguf.need_f32(&key("attention.layer_norm_rms_epsilon"))?,
            rope: Rope {
                base: gguf.f32(&key("rope.freq_base"))?.unwrap_or(10_000.0),
                dim: optional("rope.dimension_count", head_dim)?,
                layout: family.layout,
                scaling: rope_scaling(gguf, &key)?,
            },
            no_rope_every: match gguf.bool(&key("rope.scaling.finetuned"))? {
                // So Granite says that no layer turns anything.
                Some(false) if family.scales => Some(1),
                _ => family.no_rope_every,
            },
            head_norms: family.head_norms,
            scales: Scales::read(gguf, family, &key, head_dim)?,
            tied: gguf.tensor("output.weight").is_none(),
            architecture: family.name.to_owned(),
        };
        config.check(value_dim)?;
        super::shapes::check(&config, gguf)?;
        Ok(config)
    }

    /// An error unless the kernels can run these dimensions.
    fn check(&self, value_dim: usize) -> Result<()> {
        let wrong = |text: String| Err(Error::Unsupported(text));
        let Self { n_embd, n_head, n_head_kv, head_dim, rope, .. } = self;
        if value_dim != *head_dim {
            return wrong(format!("keys have {head_dim} dimensions and values {value_dim}"));
        }
        if !head_dim.is_multiple_of(8) || *head_dim == 0 || *head_dim > MOST_HEAD_DIM {
            return wrong(format!(
                "heads of {head_dim} dimensions; 8 to {MOST_HEAD_DIM} in steps of 8 work"
            ));
        }
        if !n_head.is_multiple_of(*n_head_kv) {
            return wrong(format!(
                "{n_head} query heads do not share {n_head_kv} key heads evenly"
            ));
        }
        if n_head.checked_mul(*head_dim).is_none_or(|width| width > MOST as usize) {
            return wrong(format!(
                "{n_head} heads of {head_dim} dimensions, wider than any model: at most {MOST} in all"
            ));
        }
        if !n_embd.is_multiple_of(32) || !(n_head * head_dim).is_multiple_of(32) {
            return wrong(format!(
                "an embedding of {n_embd} and {n_head} heads of {head_dim}; both widths must be \
                 multiples of 32"
            ));
        }
        if !rope.dim.is_multiple_of(2) || rope.dim > *head_dim {
            return wrong(format!("{} of {head_dim} dimensions are to be turned", rope.dim));
        }
        if !(rope.base.is_finite() && rope.base > 1.0) {
            return wrong(format!("a rotary base of {}", rope.base));
        }
        if !(self.rms_eps.is_finite() && self.rms_eps >= 0.0) {
            return wrong(format!("an epsilon of {} in norms", self.rms_eps));
        }
        if self.n_vocab == 0 || self.n_vocab > MOST as usize {
            return wrong(format!("a vocabulary of {} tokens", self.n_vocab));
        }
        Ok(())
    }
}

/// A size that a file gives for each of its layers: one that holds for all of them.
fn same_in_layers(gguf: &Gguf, key: &str, sizes: &Array, n_layer: usize) -> Result<usize> {
    let sizes = sizes.i32s().unwrap_or_default();
    let wrong = |text: String| Err(Error::Unsupported(text));
    match sizes.first() {
        _ if sizes.len() != n_layer => {
            let count = sizes.len();
            Err(gguf.fault(0, format!("the key {key} has {count} sizes for {n_layer} layers")))
        }
        Some(&size) if size < 1 || size > MOST as i32 => {
            wrong(format!("{key} is {size}; 1 to {MOST} would do"))
        }
        Some(&size) => match sizes.iter().position(|&other| other != size) {
            None => Ok(size as usize),
            Some(layer) => wrong(format!(
                "{key} is {size} in layer 0 and {} in layer {layer}; layers of different sizes do not run",
                sizes[layer]
            )),
        },
        None => Err(gguf.fault(0, format!("the key {key} has no sizes"))),
    }
}

/// Variants of the architecture whose result would be wrong.
fn refuse_variants(gguf: &Gguf, family: &Family, key: &impl Fn(&str) -> String) -> Result<()> {
    let scales = [
        ("logit_scale", "scaled logits"),
        ("embedding_scale", "a scaled embedding"),
        ("residual_scale", "scaled residuals"),
        ("attention.scale", "a scale of attention of its own"),
    ];
    let others = [
        ("expert_count", "a mixture of experts"),
        ("attention.sliding_window", "attention trained with a sliding window"),
        ("attention.clamp_kqv", "clamped attention"),
        ("attention.max_alibi_bias", "ALiBi"),
    ];
    for &(name, what) in others.iter().chain(scales.iter().filter(|_| !family.scales)) {
        if gguf.get(&key(name)).and_then(Value::number).is_some_and(|n| n != 0.0) {
            let key = key(name);
            return Err(Error::Unsupported(format!("the model has {what} ({key})")));
        }
    }
    Ok(())
}

fn rope_scaling(gguf: &Gguf, key: &impl Fn(&str) -> String) -> Result<RopeScaling> {
    let factor = match gguf.f32(&key("rope.scaling.factor"))? {
        Some(factor) => Some(factor),
        None => gguf.f32(&key("rope.scale_linear"))?,
    };
    let kind = gguf.str(&key("rope.scaling.type"))?;
    let kind = kind.unwrap_or(if factor.is_some_and(|f| f != 1.0) { "linear" } else { "none" });
    let number = |name: &str, default: f32| -> Result<f32> {
        match gguf.f32(&key(name))?.unwrap_or(default) {
            value if value.is_finite() && value >= 0.0 => Ok(value),
            value => Err(Error::Unsupported(format!("{} is {value}", key(name)))),
        }
    };
    let factor = match factor.unwrap_or(1.0) {
        factor if factor.is_finite() && factor > 0.0 => factor,
        factor => return Err(Error::Unsupported(format!("a rotary scaling factor of {factor}"))),
    };
    match kind {
        "none" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor }),
        "yarn" => Ok(RopeScaling::Yarn {
            factor,
            n_ctx_orig: match gguf.u32(&key("rope.scaling.original_context_length"))? {
                Some(n) if n > 0 => n,
                _ => gguf.need_u32(&key("context_length"))?,
            },
            beta_fast: number("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: number("rope.scaling.yarn_beta_slow", 1.0)?,
            ext_factor: number("rope.scaling.yarn_ext_factor", 1.0)?,
            attn_factor: number("rope.scaling.attn_factor", 1.0)?,
        }),
        other => Err(Error::Unsupported(format!(
            "rotary scaling of type {}; none, linear, yarn and rope_freqs work",
            shown(other, 80)
        ))),
    }
}

/// The tensor of that name.
pub(super) fn need_tensor<'a>(gguf: &'a Gguf, name: &str) -> Result<&'a TensorInfo> {
    gguf.tensor(name).ok_or_else(|| {
        gguf.fault(0, format!("the tensor {name} is missing; the file is not a whole model"))
    })
}
