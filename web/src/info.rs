//! What is loaded, where, and how large, for JavaScript: `Info` of `js/index.d.ts`.
use crate::Core;
use crate::errors::Thrown;
use brooklet::Result;
use brooklet::format::{Gguf, TensorInfo};
use brooklet::model::Config;
use serde::Serialize;
use wasm_bindgen::prelude::*;

/// What a file says of its model.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelInfo {
    name: String,
    architecture: String,
    kinds: String,
    bytes: u64,
    parameters: u64,
    quantization: String,
    n_ctx: usize,
    n_vocab: usize,
    n_layer: usize,
    n_embd: usize,
}

impl ModelInfo {
    pub(crate) fn new(gguf: &Gguf, config: &Config, bytes: u64) -> Result<Self> {
        let count = |tensor: &TensorInfo| tensor.rows() * tensor.cols();
        let largest = gguf.tensors.iter().max_by_key(|tensor| {
            let same = gguf.tensors.iter().filter(|other| other.type_id == tensor.type_id);
            same.map(count).sum::<u64>()
        });
        Ok(Self {
            name: gguf.str("general.name")?.unwrap_or(gguf.file()).to_owned(),
            architecture: gguf.need_str("general.architecture")?.to_owned(),
            kinds: config.kinds(),
            bytes,
            parameters: gguf.tensors.iter().map(count).sum(),
            quantization: largest.map_or_else(String::new, TensorInfo::type_text),
            n_ctx: config.n_ctx,
            n_vocab: config.n_vocab,
            n_layer: config.n_layer,
            n_embd: config.n_embd,
        })
    }
}

#[wasm_bindgen]
impl Core {
    /// Model, adapter, kernels, tier, cache and bytes, as JSON.
    pub fn info(&self) -> Result<String, Thrown> {
        let (session, gpu) = (self.session()?, &self.loaded.model.gpu);
        let (settings, ring) = (session.cache().settings(), session.cache().geometry());
        let (weights, kv) = (self.loaded.model.bytes(), session.cache().bytes());
        let activations = session.activation_bytes();
        let tier = &gpu.tier;
        let info = serde_json::json!({
            "model": self.loaded.info,
            "chat": { "template": self.loaded.templates.find(None).is_ok() },
            "sampling": {
                "temperature": self.loaded.sampling.temperature,
                "topK": self.loaded.sampling.top_k,
                "topP": self.loaded.sampling.top_p,
                "minP": self.loaded.sampling.min_p,
                "repeatPenalty": self.loaded.sampling.repeat_penalty,
            },
            "adapter": { "name": gpu.name, "backend": gpu.backend, "driver": gpu.driver },
            "kernels": self.loaded.model.variant,
            "tier": {
                "f16": tier.f16,
                "subgroups": tier.subgroups,
                "subgroupSize": tier.subgroup_size,
                "timestamps": tier.timestamps,
                "cpu": tier.cpu,
            },
            "limits": {
                "maxBinding": tier.max_binding,
                "maxBuffer": tier.max_buffer,
                "workgroupMemory": tier.workgroup_memory,
            },
            "cache": {
                "policy": session.policy(),
                "sinks": ring.sinks,
                "window": ring.window,
                "ring": ring.slots,
                "chunk": settings.chunk,
                "kv": settings.kv,
                "activations": settings.activations,
            },
            "bytes": {
                "weights": weights,
                "kv": kv,
                "activations": activations,
                "gpu": gpu.counters.held(),
            },
        });
        Ok(info.to_string())
    }
}
