//! The model's weights on the GPU, under their GGUF names.
use super::Config;
use super::config::need_tensor;
use crate::Result;
use crate::format::{DType, Gguf, Source, TensorInfo, dequantize};
use crate::gpu::{Gpu, Tensor};
use crate::ops::{Epilogue, Join, Linear, Product};
use std::collections::HashMap;

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

/// What one weight on the GPU is made from.
enum Kind {
    Matrix(Join),
    Vector,
}

/// The tensors of one weight, under the name it will have.
struct Wanted<'a> {
    label: String,
    kind: Kind,
    tensors: Vec<&'a TensorInfo>,
}

/// Every weight of a model, to be loaded in whatever order the file has them.
struct Wants<'a> {
    gguf: &'a Gguf,
    list: Vec<Wanted<'a>>,
}

impl<'a> Wants<'a> {
    fn add(&mut self, label: String, kind: Kind, names: &[String]) -> Result<()> {
        let tensors = names.iter().map(|name| need_tensor(self.gguf, name));
        let tensors = tensors.collect::<Result<_>>()?;
        self.list.push(Wanted { label, kind, tensors });
        Ok(())
    }

    fn matrix(&mut self, label: &str, join: Join, names: &[&str]) -> Result<()> {
        let names: Vec<_> = names.iter().map(|name| format!("{name}.weight")).collect();
        self.add(label.to_owned(), Kind::Matrix(join), &names)
    }

    fn vector(&mut self, label: &str, names: &[&str]) -> Result<()> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        self.add(label.to_owned(), Kind::Vector, &names)
    }

    fn of(gguf: &'a Gguf, config: &Config) -> Result<Vec<Wanted<'a>>> {
        let mut want = Wants { gguf, list: Vec::new() };
        want.matrix("token_embd", Join::Concat, &["token_embd"])?;
        want.vector("output_norm", &["output_norm.weight"])?;
        if !config.tied {
            want.matrix("output", Join::Concat, &["output"])?;
        }
        for i in 0..config.n_layer {
            let n = |part: &str| format!("blk.{i}.{part}");
            let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(n);
            let [gate, up] = ["ffn_gate", "ffn_up"].map(n);
            want.matrix(&n("attn_qkv"), Join::Concat, &[&q, &k, &v])?;
            want.matrix(&n("ffn_gate_up"), Join::Interleave, &[&gate, &up])?;
            for alone in ["attn_output", "ffn_down"].map(n) {
                want.matrix(&alone, Join::Concat, &[&alone])?;
            }
            for norm in ["attn_norm", "ffn_norm"].map(n) {
                want.vector(&norm, &[&format!("{norm}.weight")])?;
            }
            if config.qkv_bias {
                let [q, k, v] = [q, k, v].map(|name| format!("{name}.bias"));
                want.vector(&n("qkv_bias"), &[&q, &k, &v])?;
            }
        }
        Ok(want.list)
    }
}

async fn floats(source: &impl Source, info: &TensorInfo) -> Result<Vec<f32>> {
    let bytes = source.bytes(info.offset..info.offset + info.size).await?;
    let mut values = vec![0.0; (info.rows() * info.cols()) as usize];
    dequantize(info.dtype()?, &bytes, &mut values);
    Ok(values)
}

impl Weights {
    /// Streams every tensor to the GPU, in the order of the file. `progress` is told of bytes as they
    /// arrive there.
    pub(crate) async fn load(
        gpu: &Gpu,
        source: &impl Source,
        gguf: &Gguf,
        config: &Config,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let mut wanted = Wants::of(gguf, config)?;
        let start =
            |wanted: &Wanted| wanted.tensors.iter().map(|tensor| tensor.offset).min().unwrap_or(0);
        wanted.sort_by_key(start);
        let rope_freqs = match gguf.tensor("rope_freqs.weight") {
            Some(info) => Some(floats(source, info).await?),
            None => None,
        };
        let (mut matrices, mut vectors) = (HashMap::new(), HashMap::new());
        for Wanted { label, kind, tensors } in &wanted {
            // In the order of the file: everything before this one's first tensor is done.
            source.release(tensors.iter().map(|tensor| tensor.offset).min().unwrap_or(0));
            let name = format!("w.{label}");
            match kind {
                Kind::Matrix(join) => {
                    let matrix = Linear::load(gpu, source, &name, tensors, *join, progress).await?;
                    matrices.insert(label.as_str(), matrix);
                }
                Kind::Vector => {
                    let mut values = Vec::new();
                    for info in tensors {
                        values.extend(floats(source, info).await?);
                        progress(info.size);
                    }
                    let vector = Tensor::upload(gpu, name, &[values.len()], &values)?;
                    vectors.insert(label.as_str(), vector);
                }
            }
            gpu.check()?;
        }
        Ok(Self::assemble(config, matrices, vectors, rope_freqs))
    }

    /// Puts every weight where the forward pass looks for it.
    fn assemble(
        config: &Config,
        mut matrices: HashMap<&str, Linear>,
        mut vectors: HashMap<&str, Tensor>,
        rope_freqs: Option<Vec<f32>>,
    ) -> Self {
        const LOADED: &str = "every weight that is wanted was loaded";
        let mut matrix = |label: &str| matrices.remove(label);
        let mut vector = |label: &str| vectors.remove(label);
        let layers = (0..config.n_layer).map(|i| {
            let n = |part: &str| format!("blk.{i}.{part}");
            Layer {
                attn_norm: vector(&n("attn_norm")).expect(LOADED),
                attn_qkv: matrix(&n("attn_qkv")).expect(LOADED),
                qkv_bias: vector(&n("qkv_bias")),
                attn_output: matrix(&n("attn_output")).expect(LOADED),
                ffn_norm: vector(&n("ffn_norm")).expect(LOADED),
                ffn_gate_up: matrix(&n("ffn_gate_up")).expect(LOADED),
                ffn_down: matrix(&n("ffn_down")).expect(LOADED),
            }
        });
        Self {
            layers: layers.collect(),
            token_embd: matrix("token_embd").expect(LOADED),
            output_norm: vector("output_norm").expect(LOADED),
            output: matrix("output"),
            rope_freqs,
        }
    }

    /// The matrix of the logits.
    pub(crate) fn output(&self) -> &Linear {
        self.output.as_ref().unwrap_or(&self.token_embd)
    }

    /// The most parts that a matrix had to be cut into.
    pub(crate) fn most_parts(&self) -> usize {
        self.matrices().map(|matrix| matrix.parts.len()).max().unwrap_or(1)
    }

    /// Every matrix.
    fn matrices(&self) -> impl Iterator<Item = &Linear> {
        let layers = self.layers.iter().flat_map(|layer| {
            [&layer.attn_qkv, &layer.attn_output, &layer.ffn_gate_up, &layer.ffn_down]
        });
        layers.chain([&self.token_embd]).chain(&self.output)
    }

    /// Bytes of the matrices that a step multiplies with.
    pub(crate) fn step_bytes(&self) -> u64 {
        let embedding = if self.output.is_some() { self.token_embd.bytes() } else { 0 };
        self.matrices().map(Linear::bytes).sum::<u64>() - embedding
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

/// What a model multiplies with: known from its file's head, before any weight has come.
#[derive(Clone, Default)]
pub(crate) struct Products {
    /// Types of the embedding.
    pub(crate) embedding: Vec<DType>,
    /// The products of the layers, each kind once.
    pub(crate) layers: Vec<Product>,
    /// The products that give the logits.
    pub(crate) output: Vec<Product>,
}

impl Products {
    pub(crate) fn of(gguf: &Gguf, config: &Config) -> Result<Self> {
        let mut found = Self::default();
        for Wanted { label, kind, tensors } in Wants::of(gguf, config)? {
            let Kind::Matrix(_) = kind else { continue };
            for tensor in tensors {
                let dtype = tensor.dtype()?;
                let output = label == "output" || config.tied && label == "token_embd";
                if label == "token_embd" {
                    note(&mut found.embedding, dtype);
                }
                if output {
                    note(&mut found.output, (Epilogue::Store, dtype));
                }
                let epilogue = match label.rsplit('.').next() {
                    Some("attn_qkv") => Epilogue::Store,
                    Some("ffn_gate_up") => Epilogue::SwiGlu,
                    Some("attn_output" | "ffn_down") => Epilogue::Add,
                    _ => continue,
                };
                note(&mut found.layers, (epilogue, dtype));
            }
        }
        Ok(found)
    }
}

/// Adds what is not there yet.
fn note<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) {
        list.push(value);
    }
}
