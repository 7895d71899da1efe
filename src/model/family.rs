//! How families of models differ from llama where their files do not say so: a family is one entry here.
use super::config::{HeadNorms, NormPlaces};
use super::{Config, RopeLayout};
use crate::format::{Gguf, shown};
use crate::ops::{Epilogue, NormKind};
use crate::{Error, Result};

/// What `general.architecture` stands for.
pub(super) struct Family {
    /// The architecture's name, with which the keys of its files begin.
    pub(super) name: &'static str,
    /// Which dimensions of a head are turned together.
    pub(super) layout: RopeLayout,
    /// How norms are computed.
    pub(super) norm: NormKind,
    /// Where in a layer they are.
    pub(super) places: NormPlaces,
    /// Whether attention and feed-forward read the same stream.
    pub(super) parallel: Parallel,
    /// How queries and keys are normalised before they are turned.
    pub(super) head_norms: Option<HeadNorms>,
    /// Where a layer has no `attn_v`, values are the products of keys, before anything else becomes of these.
    pub(super) keys_for_values: bool,
    /// What becomes of the feed-forward's first product; a gate is in it or not.
    pub(super) feed_forward: Epilogue,
    /// Its models may have experts, as `expert_count` says; in other families they are refused.
    pub(super) experts: bool,
    /// Heads have learned what softmax begins with.
    pub(super) learned_sinks: bool,
    /// What tells positions.
    pub(super) positions: PositionRule,
    /// The keys of [`Scales`] are read; in other families they are refused.
    pub(super) scales: bool,
    /// Rows of the embedding are multiplied with the root of their length.
    pub(super) root_embedding: bool,
    /// Products of queries and keys are taken as they are.
    pub(super) unscaled: bool,
    /// A layer may multiply the stream when all has been added (`layer_output_scale`).
    pub(super) layer_scales: bool,
    /// Models of so many layers scale attention by embedding and heads, not by a head's dimensions.
    pub(super) wide: Option<usize>,
    /// Which layers have a window of their own, where a file gives its length.
    pub(super) window: WindowRule,
    /// Models of so many layers have windows of so many tokens, whether their files say so or not.
    pub(super) window_of: Option<(usize, u32)>,
    /// Which layers turn no queries and keys: they know no positions.
    pub(super) unturned: Unturned,
    /// What turns queries and keys in layers with a window of their own.
    pub(super) local_rope: LocalRope,
    /// Whether the ends of YaRN's ramp are whole pairs.
    pub(super) yarn_rounded: bool,
    /// What its layers have where they do not attend.
    pub(super) mixers: MixerRule,
    /// What its files call parts of a model that have another name elsewhere: ours, theirs; the first that is there counts.
    pub(super) names: &'static [(&'static str, &'static str)],
}

/// Whether attention and feed-forward are added to the stream at once.
#[derive(Clone, Copy)]
pub(super) enum Parallel {
    Never,
    Always,
    /// As `use_parallel_residual` says.
    Key,
    /// Where there is no `ffn_norm`.
    OneNorm,
}

/// What tells positions.
#[derive(Clone, Copy)]
pub(super) enum PositionRule {
    Rope,
    /// ALiBi with the bias of `attention.max_alibi_bias`, or with this one.
    Alibi(Option<f32>),
    /// `position_embd`
    Learned,
}

/// Which layers have a window of their own.
#[derive(Clone, Copy)]
pub(super) enum WindowRule {
    /// A file that gives one is refused.
    Refused,
    All,
    /// All but the last of so many, unless the file has another pattern.
    AllBut(usize),
}

/// Which layers know no positions.
#[derive(Clone, Copy)]
pub(super) enum Unturned {
    None,
    /// The last of so many.
    Every(usize),
    /// Where layers have windows, those without.
    Global,
}

/// What turns queries and keys in layers with a window of their own.
#[derive(Clone, Copy)]
pub(super) enum LocalRope {
    /// What does so elsewhere.
    Same,
    /// The same without scaling.
    Unscaled,
    /// That of `rope.freq_base_swa`, 10,000 where it is missing, and of `rope.dimension_count_swa`; without scaling.
    Base,
}

/// What mixes the tokens of a layer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MixerRule {
    Attention,
    /// A convolution, where `attention.head_count_kv` is 0 for a layer.
    ShortConv,
    /// The gated delta rule, but in layers that `attention.recurrent_layers` leaves out, or the last of so many; these
    /// attend, with gated heads.
    DeltaNet,
}

const LLAMA: Family = Family {
    name: "llama",
    layout: RopeLayout::Norm,
    norm: NormKind::Rms,
    places: NormPlaces::Before,
    parallel: Parallel::Never,
    head_norms: None,
    keys_for_values: false,
    feed_forward: Epilogue::SwiGlu,
    experts: false,
    learned_sinks: false,
    positions: PositionRule::Rope,
    scales: false,
    root_embedding: false,
    unscaled: false,
    layer_scales: false,
    wide: None,
    window: WindowRule::Refused,
    window_of: None,
    unturned: Unturned::None,
    local_rope: LocalRope::Same,
    yarn_rounded: true,
    mixers: MixerRule::Attention,
    names: &[],
};

/// llama with pairs that are half a head apart.
const NEOX: Family = Family { layout: RopeLayout::Neox, ..LLAMA };

/// What GPT-2 and those after it have alike.
const GPT: Family = Family { norm: NormKind::Layer, feed_forward: Epilogue::GeluTanh, ..NEOX };

const GEMMA2: Family = Family {
    name: "gemma2",
    places: NormPlaces::Both,
    feed_forward: Epilogue::GeGluTanh,
    root_embedding: true,
    wide: Some(46),
    window: WindowRule::AllBut(2),
    ..NEOX
};

const FAMILIES: &[Family] = &[
    // Mixtral is called so, too.
    Family { experts: true, ..LLAMA },
    Family { name: "qwen2", ..NEOX },
    Family { name: "qwen3", head_norms: Some(HeadNorms::Heads), ..NEOX },
    Family { name: "gptneox", feed_forward: Epilogue::Gelu, parallel: Parallel::Key, ..GPT },
    Family {
        name: "mpt",
        feed_forward: Epilogue::Gelu,
        positions: PositionRule::Alibi(None),
        ..GPT
    },
    Family {
        name: "falcon",
        feed_forward: Epilogue::Gelu,
        parallel: Parallel::Always,
        names: &[("attn_norm", "attn_norm_2"), ("ffn_norm", "attn_norm")],
        ..GPT
    },
    Family { name: "bloom", positions: PositionRule::Alibi(Some(8.0)), ..GPT },
    Family { name: "gemma", feed_forward: Epilogue::GeGluTanh, root_embedding: true, ..NEOX },
    GEMMA2,
    Family {
        name: "gemma3",
        head_norms: Some(HeadNorms::Heads),
        wide: Some(62),
        window: WindowRule::AllBut(6),
        local_rope: LocalRope::Base,
        ..GEMMA2
    },
    Family {
        name: "gemma4",
        head_norms: Some(HeadNorms::WithValues),
        keys_for_values: true,
        unscaled: true,
        layer_scales: true,
        wide: None,
        window: WindowRule::AllBut(6),
        local_rope: LocalRope::Base,
        ..GEMMA2
    },
    Family { name: "phi3", window: WindowRule::All, ..NEOX },
    Family { name: "smollm3", unturned: Unturned::Every(4), ..LLAMA },
    Family { name: "granite", scales: true, ..LLAMA },
    Family {
        name: "stablelm",
        feed_forward: Epilogue::SwiGlu,
        parallel: Parallel::OneNorm,
        head_norms: Some(HeadNorms::OwnGains),
        ..GPT
    },
    Family { name: "starcoder2", ..GPT },
    Family { name: "phi2", parallel: Parallel::OneNorm, ..GPT },
    Family {
        name: "olmo2",
        places: NormPlaces::After,
        head_norms: Some(HeadNorms::Rows),
        window: WindowRule::AllBut(4),
        local_rope: LocalRope::Unscaled,
        ..NEOX
    },
    Family { name: "glm4", places: NormPlaces::Both, ..LLAMA },
    Family {
        name: "exaone4",
        places: NormPlaces::After,
        head_norms: Some(HeadNorms::Heads),
        window: WindowRule::AllBut(4),
        window_of: Some((64, 4096)),
        unturned: Unturned::Global,
        ..NEOX
    },
    Family { name: "gpt2", positions: PositionRule::Learned, ..GPT },
    // Yarn's keys, with the multiplier of a logarithm, are read in every family.
    Family { name: "mistral3", ..LLAMA },
    Family { name: "qwen3moe", head_norms: Some(HeadNorms::Heads), experts: true, ..NEOX },
    Family {
        name: "gpt-oss",
        feed_forward: Epilogue::SwiGluClamped,
        experts: true,
        learned_sinks: true,
        window: WindowRule::AllBut(2),
        yarn_rounded: false,
        names: &[("ffn_norm", "post_attention_norm")],
        ..NEOX
    },
    Family {
        name: "lfm2",
        head_norms: Some(HeadNorms::Heads),
        mixers: MixerRule::ShortConv,
        names: &[("output_norm", "token_embd_norm")],
        ..NEOX
    },
    Family {
        name: "qwen35",
        head_norms: Some(HeadNorms::Heads),
        mixers: MixerRule::DeltaNet,
        names: &[("ffn_norm", "post_attention_norm")],
        ..NEOX
    },
];

impl Family {
    /// That of a file; one that does not run is refused by name.
    pub(super) fn of(gguf: &Gguf) -> Result<&'static Self> {
        let name = gguf.need_str("general.architecture")?;
        FAMILIES.iter().find(|family| family.name == name).ok_or_else(|| {
            let all = FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ");
            let found = shown(name, 80);
            Error::Unsupported(format!(
                "the model's architecture is {found}; this version runs {all}"
            ))
        })
    }

    /// That of a config.
    pub(super) fn named(config: &Config) -> &'static Self {
        FAMILIES.iter().find(|family| family.name == config.architecture).unwrap_or(&LLAMA)
    }
}

/// Constants that activations are multiplied with; 1, and 1 / sqrt(HD) for attention, unless the file or its family has
/// others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// Rows of the embedding, before the first layer.
    pub embedding: f32,
    /// What attention and feed-forward give, before it is added to the residual stream.
    pub residual: f32,
    /// Products of queries and keys.
    pub attention: f32,
    /// The logits, which are **divided** by it.
    pub logits: f32,
}

impl Scales {
    /// What a file says, for a model of so many layers, with D, H and HD.
    pub(super) fn read(
        gguf: &Gguf,
        family: &Family,
        key: &impl Fn(&str) -> String,
        [n_layer, n_embd, n_head, head_dim]: [usize; 4],
    ) -> Result<Self> {
        let number = |name: &str, default: f32| match gguf.f32(&key(name))? {
            _ if !family.scales => Ok(default),
            // Zero is how a file says that there is none.
            None | Some(0.0) => Ok(default),
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => Err(Error::Unsupported(format!("{} is {value}", key(name)))),
        };
        let wide = family.wide == Some(n_layer);
        let each = if wide { n_embd / n_head } else { head_dim };
        let scores = if family.unscaled { 1.0 } else { (1.0 / (each as f64).sqrt()) as f32 };
        let root = if family.root_embedding { (n_embd as f32).sqrt() } else { 1.0 };
        Ok(Self {
            embedding: number("embedding_scale", root)?,
            residual: number("residual_scale", 1.0)?,
            attention: number("attention.scale", scores)?,
            logits: number("logit_scale", 1.0)?,
        })
    }
}
