//! The model's weights on the GPU, under their GGUF names.
use super::Config;
use super::config::need_tensor;
use crate::Result;
use crate::format::{DType, Gguf, Source, TensorInfo, dequantize};
use crate::gpu::{Gpu, Tensor};
use crate::ops::{Epilogue, Join, Linear, Product, Start, head_terms};
use std::collections::HashMap;

/// The weights of one layer. Matrices are quantised as they are in the file.
pub(crate) struct Layer {
    pub(crate) attn_norm: Tensor,                // [D]
    pub(crate) attn_qkv: Linear,                 // [(H + 2 KV) HD, D]: attn_q, attn_k, attn_v
    pub(crate) qkv_bias: Option<Tensor>,         // [(H + 2 KV) HD]
    pub(crate) head_norms: Option<Tensor>,       // [2 HD]: attn_q_norm, attn_k_norm
    pub(crate) attn_terms: Tensor,               // [H, 4]: what softmax starts from
    pub(crate) attn_output: Linear,              // [D, H HD]
    pub(crate) attn_output_bias: Option<Tensor>, // [D]
    pub(crate) ffn_norm: Tensor,                 // [D]
    pub(crate) ffn_gate_up: Linear,              // [2 F, D]: rows of ffn_gate and ffn_up by turns
    pub(crate) ffn_gate_up_bias: Option<Tensor>, // [2 F], by turns too
    pub(crate) ffn_down: Linear,                 // [D, F]
    pub(crate) ffn_down_bias: Option<Tensor>,    // [D]
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
    /// The length of each part, and whether there is a tensor for it; else it is zeros.
    Vector(Join, Vec<(usize, bool)>),
}

/// Matrices that may have a bias, by the label of their biases as one vector, and how they become one.
pub(super) const BIASES: [(&str, Join, &[&str]); 4] = [
    ("qkv_bias", Join::Concat, &["attn_q", "attn_k", "attn_v"]),
    ("attn_output_bias", Join::Concat, &["attn_output"]),
    ("ffn_gate_up_bias", Join::Interleave, &["ffn_gate", "ffn_up"]),
    ("ffn_down_bias", Join::Concat, &["ffn_down"]),
];

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

    fn norm(&mut self, label: &str) -> Result<()> {
        let name = format!("{label}.weight");
        let kind = Kind::Vector(Join::Concat, vec![(need_tensor(self.gguf, &name)?.len(), true)]);
        self.add(label.to_owned(), kind, &[name])
    }

    /// The gains of a layer's norms of heads, as one.
    fn head_norms(&mut self, layer: usize) -> Result<()> {
        let names = ["q", "k"].map(|of| format!("blk.{layer}.attn_{of}_norm.weight"));
        let len = |name: &String| Ok((need_tensor(self.gguf, name)?.len(), true));
        let parts = names.iter().map(len).collect::<Result<_>>()?;
        self.add(format!("blk.{layer}.head_norms"), Kind::Vector(Join::Concat, parts), &names)
    }

    /// The biases of a layer's matrices, where there are some: each may be left out.
    fn bias(&mut self, layer: usize, label: &str, join: Join, matrices: &[&str]) -> Result<()> {
        let (mut parts, mut names) = (Vec::new(), Vec::new());
        for matrix in matrices {
            let [weight, bias] = ["weight", "bias"].map(|s| format!("blk.{layer}.{matrix}.{s}"));
            let there = self.gguf.tensor(&bias).is_some();
            parts.push((need_tensor(self.gguf, &weight)?.rows() as usize, there));
            names.extend(there.then_some(bias));
        }
        match names[..] {
            [] => Ok(()),
            _ => self.add(format!("blk.{layer}.{label}"), Kind::Vector(join, parts), &names),
        }
    }

    fn of(gguf: &'a Gguf, config: &Config) -> Result<Vec<Wanted<'a>>> {
        let mut want = Wants { gguf, list: Vec::new() };
        want.matrix("token_embd", Join::Concat, &["token_embd"])?;
        want.norm("output_norm")?;
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
                want.norm(&norm)?;
            }
            if config.head_norms {
                want.head_norms(i)?;
            }
            for (label, join, matrices) in BIASES {
                want.bias(i, label, join, matrices)?;
            }
        }
        Ok(want.list)
    }
}

async fn floats(source: &impl Source, info: &TensorInfo) -> Result<Vec<f32>> {
    let bytes = source.bytes(info.offset..info.offset + info.size).await?;
    let mut values = vec![0.0; info.len()];
    dequantize(info.dtype()?, &bytes, &mut values);
    Ok(values)
}

/// Vectors as one, in the order that the rows of their matrices have.
fn joined(join: Join, vectors: &[Vec<f32>]) -> Vec<f32> {
    match join {
        Join::Concat => vectors.concat(),
        Join::Interleave => {
            let rows = vectors.first().map_or(0, Vec::len);
            (0..rows).flat_map(|row| vectors.iter().map(move |vector| vector[row])).collect()
        }
    }
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
                Kind::Vector(join, parts) => {
                    let (mut columns, mut tensors) = (Vec::new(), tensors.iter());
                    for &(len, there) in parts {
                        columns.push(match if there { tensors.next() } else { None } {
                            Some(info) => {
                                progress(info.size);
                                floats(source, info).await?
                            }
                            None => vec![0.0; len],
                        });
                    }
                    let mut values = joined(*join, &columns);
                    if label == "output_norm" {
                        values.iter_mut().for_each(|value| *value /= config.scales.logits);
                    }
                    let vector = Tensor::upload(gpu, name, &[values.len()], &values)?;
                    vectors.insert(label.as_str(), vector);
                }
            }
            gpu.check()?;
        }
        let terms = head_terms(config.n_head, None, &Start::Plain);
        let upload = |i| {
            let name = format!("w.blk.{i}.attn_terms");
            Tensor::upload(gpu, name, &[config.n_head, 4], &terms)
        };
        let terms = (0..config.n_layer).map(upload).collect::<Result<Vec<_>>>()?;
        Ok(Self::assemble(matrices, vectors, terms, rope_freqs))
    }

    /// Puts every weight where the forward pass looks for it.
    fn assemble(
        mut matrices: HashMap<&str, Linear>,
        mut vectors: HashMap<&str, Tensor>,
        terms: Vec<Tensor>,
        rope_freqs: Option<Vec<f32>>,
    ) -> Self {
        const LOADED: &str = "every weight that is wanted was loaded";
        let mut matrix = |label: &str| matrices.remove(label);
        let mut vector = |label: &str| vectors.remove(label);
        let layers = terms.into_iter().enumerate().map(|(i, attn_terms)| {
            let n = |part: &str| format!("blk.{i}.{part}");
            Layer {
                attn_norm: vector(&n("attn_norm")).expect(LOADED),
                attn_qkv: matrix(&n("attn_qkv")).expect(LOADED),
                qkv_bias: vector(&n("qkv_bias")),
                head_norms: vector(&n("head_norms")),
                attn_terms,
                attn_output: matrix(&n("attn_output")).expect(LOADED),
                attn_output_bias: vector(&n("attn_output_bias")),
                ffn_norm: vector(&n("ffn_norm")).expect(LOADED),
                ffn_gate_up: matrix(&n("ffn_gate_up")).expect(LOADED),
                ffn_gate_up_bias: vector(&n("ffn_gate_up_bias")),
                ffn_down: matrix(&n("ffn_down")).expect(LOADED),
                ffn_down_bias: vector(&n("ffn_down_bias")),
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
            let Layer { qkv_bias, attn_output_bias, ffn_gate_up_bias, ffn_down_bias, .. } = layer;
            let there = [qkv_bias, attn_output_bias, ffn_gate_up_bias, ffn_down_bias];
            let there = there.into_iter().chain([&layer.head_norms]).flatten();
            [&layer.attn_norm, &layer.ffn_norm, &layer.attn_terms].into_iter().chain(there)
        });
        let vectors = vectors.chain([&self.output_norm]).map(Tensor::size);
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
    /// Whether a product that is added to the residual stream has a bias.
    pub(crate) residual_bias: bool,
}

impl Products {
    pub(crate) fn of(gguf: &Gguf, config: &Config) -> Result<Self> {
        let mut found = Self::default();
        for Wanted { label, kind, tensors } in Wants::of(gguf, config)? {
            let Kind::Matrix(_) = kind else {
                found.residual_bias |=
                    label.ends_with("attn_output_bias") || label.ends_with("ffn_down_bias");
                continue;
            };
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
