//! The model's weights on the GPU, under their GGUF names.
use super::Config;
use super::config::need_tensor;
use crate::Result;
use crate::format::{DType, Gguf, Source, TensorInfo, dequantize};
use crate::gpu::{Gpu, Tensor};
use crate::ops::{Join, Linear};

/// The weights of one layer. Matrices are quantised as they are in the file.
pub(crate) struct Layer {
    pub(crate) attn_norm: Tensor,        // [D]
    pub(crate) attn_qkv: Linear,         // [(H + 2 KV) HD, D]: attn_q, attn_k, attn_v
    pub(crate) qkv_bias: Option<Tensor>, // [(H + 2 KV) HD]
    pub(crate) attn_output: Linear,      // [D, H HD]
    pub(crate) ffn_norm: Tensor,         // [D]
    pub(crate) ffn_gate_up: Linear,      // [2 F, D]: rows of ffn_gate and ffn_up by turns
    pub(crate) ffn_down: Linear,         // [D, F]
}

/// Every weight of the model.
pub(crate) struct Weights {
    pub(crate) token_embd: Linear,     // [V, D]
    pub(crate) layers: Vec<Layer>,     // n_layer
    pub(crate) output_norm: Tensor,    // [D]
    pub(crate) output: Option<Linear>, // [V, D]; token_embd where tied
    /// Divisors of the rotary frequencies, [R/2], on the host.
    pub(crate) rope_freqs: Option<Vec<f32>>,
}

/// Reads tensors of one file by name.
struct Loader<'a, S> {
    gpu: &'a Gpu,
    source: &'a S,
    gguf: &'a Gguf,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a, S: Source> Loader<'a, S> {
    fn info(&self, name: &str) -> Result<&'a TensorInfo> {
        need_tensor(self.gguf, name)
    }

    async fn linear(&mut self, label: &str, names: &[&str], join: Join) -> Result<Linear> {
        let tensors = names.iter().map(|name| self.info(name)).collect::<Result<Vec<_>>>()?;
        let label = format!("w.{label}");
        Linear::load(self.gpu, self.source, &label, &tensors, join, &mut *self.progress).await
    }

    async fn floats(&mut self, name: &str) -> Result<Vec<f32>> {
        let info = self.info(name)?;
        let bytes = self.source.bytes(info.offset..info.offset + info.size).await?;
        let mut values = vec![0.0; (info.rows() * info.cols()) as usize];
        dequantize(info.dtype()?, &bytes, &mut values);
        (self.progress)(info.size);
        Ok(values)
    }

    async fn vector(&mut self, names: &[&str]) -> Result<Tensor> {
        let mut values = Vec::new();
        for name in names {
            values.extend(self.floats(name).await?);
        }
        Tensor::upload(self.gpu, format!("w.{}", names[0]), &[values.len()], &values)
    }
}

impl Weights {
    /// Streams every tensor to the GPU. `progress` is told of bytes as they arrive there.
    pub(crate) async fn load(
        gpu: &Gpu,
        source: &impl Source,
        gguf: &Gguf,
        config: &Config,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let mut load = Loader { gpu, source, gguf, progress };
        let one = |name: &str| [name.to_owned()];
        let token_embd = load.linear("token_embd", &["token_embd.weight"], Join::Concat).await?;
        let mut layers = Vec::with_capacity(config.n_layer);
        for i in 0..config.n_layer {
            let n = |part: &str| format!("blk.{i}.{part}");
            let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|p| n(&format!("{p}.weight")));
            let [qb, kb, vb] = ["attn_q", "attn_k", "attn_v"].map(|p| n(&format!("{p}.bias")));
            let [gate, up] = ["ffn_gate.weight", "ffn_up.weight"].map(n);
            let [out] = one(&n("attn_output.weight"));
            let [down] = one(&n("ffn_down.weight"));
            layers.push(Layer {
                attn_norm: load.vector(&[&n("attn_norm.weight")]).await?,
                attn_qkv: load.linear(&n("attn_qkv"), &[&q, &k, &v], Join::Concat).await?,
                qkv_bias: match config.qkv_bias {
                    true => Some(load.vector(&[&qb, &kb, &vb]).await?),
                    false => None,
                },
                attn_output: load.linear(&n("attn_output"), &[&out], Join::Concat).await?,
                ffn_norm: load.vector(&[&n("ffn_norm.weight")]).await?,
                ffn_gate_up: load
                    .linear(&n("ffn_gate_up"), &[&gate, &up], Join::Interleave)
                    .await?,
                ffn_down: load.linear(&n("ffn_down"), &[&down], Join::Concat).await?,
            });
        }
        let output_norm = load.vector(&["output_norm.weight"]).await?;
        let output = match config.tied {
            true => None,
            false => Some(load.linear("output", &["output.weight"], Join::Concat).await?),
        };
        let rope_freqs = match gguf.tensor("rope_freqs.weight") {
            Some(_) => Some(load.floats("rope_freqs.weight").await?),
            None => None,
        };
        Ok(Self { token_embd, layers, output_norm, output, rope_freqs })
    }

    /// Every matrix.
    fn matrices(&self) -> impl Iterator<Item = &Linear> {
        let layers = self.layers.iter().flat_map(|layer| {
            [&layer.attn_qkv, &layer.attn_output, &layer.ffn_gate_up, &layer.ffn_down]
        });
        layers.chain([&self.token_embd]).chain(&self.output)
    }

    /// The types of the matrices, each once.
    pub(crate) fn dtypes(&self) -> Vec<DType> {
        let parts = self.matrices().flat_map(|matrix| &matrix.parts);
        let mut types: Vec<_> = parts.map(|part| part.dtype).collect();
        types.sort_by_key(|dtype| dtype.name());
        types.dedup();
        types
    }

    /// Bytes on the GPU.
    pub(crate) fn bytes(&self) -> u64 {
        let vectors = self.layers.iter().flat_map(|layer| {
            [Some(&layer.attn_norm), Some(&layer.ffn_norm), layer.qkv_bias.as_ref()]
        });
        let vectors = vectors.flatten().chain([&self.output_norm]).map(Tensor::size);
        vectors.sum::<u64>() + self.matrices().map(Linear::bytes).sum::<u64>()
    }
}
