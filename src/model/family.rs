//! How families of models differ from llama where their files do not say so: a family of llama's kind is one entry here.
use super::RopeLayout;
use crate::format::{Gguf, shown};
use crate::{Error, Result};

/// What `general.architecture` stands for.
#[derive(Debug)]
pub(super) struct Family {
    /// The architecture's name, with which the keys of its files begin.
    pub(super) name: &'static str,
    /// Which dimensions of a head are turned together.
    pub(super) layout: RopeLayout,
    /// Of so many layers the last turns no queries and keys: it knows no positions.
    pub(super) no_rope_every: Option<usize>,
    /// Each head of queries and keys is normalised before it is turned (`attn_q_norm`, `attn_k_norm`).
    pub(super) head_norms: bool,
    /// The keys of [`Scales`] are read; in other families they are refused.
    pub(super) scales: bool,
}

const LLAMA: Family = Family {
    name: "llama",
    layout: RopeLayout::Norm,
    no_rope_every: None,
    head_norms: false,
    scales: false,
};

const FAMILIES: [Family; 5] = [
    LLAMA,
    Family { name: "qwen2", layout: RopeLayout::Neox, ..LLAMA },
    Family { name: "qwen3", layout: RopeLayout::Neox, head_norms: true, ..LLAMA },
    Family { name: "smollm3", no_rope_every: Some(4), ..LLAMA },
    Family { name: "granite", scales: true, ..LLAMA },
];

impl Family {
    /// That of a file; one that does not run is refused by name.
    pub(super) fn of(gguf: &Gguf) -> Result<&'static Self> {
        let name = gguf.need_str("general.architecture")?;
        FAMILIES.iter().find(|family| family.name == name).ok_or_else(|| {
            let all = FAMILIES.map(|family| family.name).join(", ");
            let found = shown(name, 80);
            Error::Unsupported(format!(
                "the model's architecture is {found}; this version runs {all}"
            ))
        })
    }
}

/// Constants that activations are multiplied with; 1, and 1 / sqrt(HD) for attention, unless the file has others.
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
    /// What a file says, for heads of so many dimensions.
    pub(super) fn read(
        gguf: &Gguf,
        family: &Family,
        key: &impl Fn(&str) -> String,
        head_dim: usize,
    ) -> Result<Self> {
        let number = |name: &str, default: f32| match gguf.f32(&key(name))? {
            _ if !family.scales => Ok(default),
            // Zero is how a file says that there is none.
            None | Some(0.0) => Ok(default),
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => Err(Error::Unsupported(format!("{} is {value}", key(name)))),
        };
        Ok(Self {
            embedding: number("embedding_scale", 1.0)?,
            residual: number("residual_scale", 1.0)?,
            attention: number("attention.scale", (1.0 / (head_dim as f64).sqrt()) as f32)?,
            logits: number("logit_scale", 1.0)?,
        })
    }
}
