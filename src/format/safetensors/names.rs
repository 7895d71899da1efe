//! What transformers calls a tensor, and what GGUF calls it.
use super::config::Settings;
use crate::{Error, Result};

/// A family that can be read from a folder: `model_type` in `config.json`, the architecture in a GGUF file.
pub(super) struct Family {
    pub(super) name: &'static str,
    /// Rows of queries and keys change their order: files turn dimensions that are neighbours.
    pairs: bool,
    /// Heads of queries and keys are normalised.
    head_norms: bool,
}

const FAMILIES: [Family; 3] = [
    Family { name: "llama", pairs: true, head_norms: false },
    Family { name: "qwen2", pairs: false, head_norms: false },
    Family { name: "qwen3", pairs: false, head_norms: true },
];

/// A tensor in a GGUF file.
pub(super) struct Place {
    pub(super) name: String,
    /// In so many heads rows change their order.
    pub(super) heads: Option<u64>,
}

/// Parts of a layer.
const LAYER: [(&str, &str); 13] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    // Nothing that is learned.
    ("self_attn.rotary_emb", ""),
    ("rotary_emb", ""),
];

impl Family {
    pub(super) fn of(settings: &Settings) -> Result<Self> {
        let wanted = settings.str("model_type").unwrap_or_default();
        FAMILIES.into_iter().find(|family| family.name == wanted).ok_or_else(|| {
            let names = FAMILIES.map(|family| family.name).join(", ");
            Error::Unsupported(format!(
                "{}: a model of the type {wanted:?} cannot be read from a folder; these can: {names}. Convert it with \
                 llama.cpp's convert_hf_to_gguf.py, or fetch it as a GGUF file",
                settings.file()
            ))
        })
    }

    /// Where a tensor goes; None if it is not needed; else what is wrong.
    pub(super) fn place(&self, settings: &Settings, name: &str) -> Result<Option<Place>, String> {
        let plain = |name: &str| Ok(Some(Place { name: name.to_owned(), heads: None }));
        match name {
            "model.embed_tokens.weight" => return plain("token_embd.weight"),
            "model.norm.weight" => return plain("output_norm.weight"),
            "lm_head.weight" if settings.is_tied() => return Ok(None),
            "lm_head.weight" => return plain("output.weight"),
            _ => {}
        }
        let unknown = || format!("models of the type {} have none of this name", self.name);
        let rest = name.strip_prefix("model.layers.").ok_or_else(unknown)?;
        let (layer, rest) = rest.split_once('.').ok_or_else(unknown)?;
        let layer: u32 = layer.parse().map_err(|_| unknown())?;
        let (part, end) = rest.rsplit_once('.').ok_or_else(unknown)?;
        let to = LAYER.iter().find(|(from, _)| *from == part).ok_or_else(unknown)?.1;
        if to.is_empty() {
            return Ok(None);
        }
        // What is not asked for would be left out, and the result be wrong.
        let of_heads = ["attn_q_norm", "attn_k_norm"].contains(&to);
        if of_heads && !self.head_norms || to.ends_with("norm") && end == "bias" {
            return Err(unknown());
        }
        if !["weight", "bias"].contains(&end) {
            return Err(format!(
                "its values are {end}: the model is quantised in a way that cannot be read"
            ));
        }
        let heads = match to {
            "attn_q" if self.pairs => Some(settings.heads()),
            "attn_k" if self.pairs => Some(settings.kv_heads()),
            _ => None,
        };
        Ok(Some(Place { name: format!("blk.{layer}.{to}.{end}"), heads }))
    }
}

/// Tensors in the order of the pass.
pub(super) fn order(name: &str) -> (u32, u32, String) {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let layer = layer.and_then(|(layer, _)| layer.parse().ok());
    let group = match (name, layer) {
        ("token_embd.weight" | "rope_freqs.weight", _) => 0,
        (_, Some(_)) => 1,
        _ => 2,
    };
    (group, layer.unwrap_or(0), name.to_owned())
}
