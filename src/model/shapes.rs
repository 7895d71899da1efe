//! Holds the tensors of a file to what its config says: every one known, none missing.
use super::Config;
use super::config::need_tensor;
use super::weights::BIASES;
use crate::format::{DType, Gguf, shown};
use crate::ops::same_type;
use crate::{Error, Result};
use std::collections::HashSet;

/// An error that names the first tensor which is missing, of a wrong shape or type, or unknown.
pub(super) fn check(config: &Config, gguf: &Gguf) -> Result<()> {
    let Config { n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab, .. } = *config;
    let [d, f, v] = [n_embd, n_ff, n_vocab].map(|n| n as u64);
    let [q, kv] = [n_head, n_head_kv].map(|heads| (heads * head_dim) as u64);
    if n_layer > gguf.tensors.len() {
        let found = gguf.tensors.len();
        return Err(Error::Unsupported(format!("{n_layer} layers in a file of {found} tensors")));
    }
    // GGUF names the contiguous dimension first.
    let mut known: Vec<(String, Vec<u64>)> =
        vec![("token_embd.weight".into(), vec![d, v]), ("output_norm.weight".into(), vec![d])];
    if !config.tied {
        known.push(("output.weight".into(), vec![d, v]));
    }
    if gguf.tensor("rope_freqs.weight").is_some() {
        known.push(("rope_freqs.weight".into(), vec![config.rope.dim as u64 / 2]));
    }
    for i in 0..n_layer {
        let mut add = |name: &str, dims: &[u64]| {
            known.push((format!("blk.{i}.{name}"), dims.to_vec()));
        };
        add("attn_norm.weight", &[d]);
        add("attn_q.weight", &[d, q]);
        add("attn_k.weight", &[d, kv]);
        add("attn_v.weight", &[d, kv]);
        add("attn_output.weight", &[q, d]);
        if config.head_norms {
            add("attn_q_norm.weight", &[head_dim as u64]);
            add("attn_k_norm.weight", &[head_dim as u64]);
        }
        add("ffn_norm.weight", &[d]);
        add("ffn_gate.weight", &[d, f]);
        add("ffn_up.weight", &[d, f]);
        add("ffn_down.weight", &[f, d]);
        let rows = |matrix: &str| match matrix {
            "attn_q" => q,
            "attn_k" | "attn_v" => kv,
            "ffn_gate" | "ffn_up" => f,
            _ => d,
        };
        for matrix in BIASES.iter().flat_map(|(_, _, matrices)| *matrices) {
            let bias = format!("{matrix}.bias");
            if gguf.tensor(&format!("blk.{i}.{bias}")).is_some() {
                add(&bias, &[rows(matrix)]);
            }
        }
    }
    for (name, dims) in &known {
        let tensor = need_tensor(gguf, name)?;
        let dtype = tensor.dtype()?;
        // A vector may be written with trailing dimensions of one.
        let mut found = tensor.dims.clone();
        while found.len() > dims.len() && found.last() == Some(&1) {
            found.pop();
        }
        if found != *dims {
            let detail = format!("{name} has shape {found:?}, and the model's sizes want {dims:?}");
            return Err(gguf.fault(tensor.offset, detail));
        }
        if dims.len() == 1 && !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Err(Error::Unsupported(format!(
                "{name} is {dtype}; a vector must be F32 or F16"
            )));
        }
    }
    for i in 0..n_layer {
        let [gate, up] = ["ffn_gate", "ffn_up"].map(|name| format!("blk.{i}.{name}.weight"));
        same_type(&[need_tensor(gguf, &gate)?, need_tensor(gguf, &up)?])?;
    }
    let known: HashSet<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    match gguf.tensors.iter().find(|tensor| !known.contains(tensor.name.as_str())) {
        Some(tensor) => Err(Error::Unsupported(format!(
            "the tensor {} belongs to no part of a model of this kind",
            shown(&tensor.name, 80)
        ))),
        None => Ok(()),
    }
}
