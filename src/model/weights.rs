//! The model's weights on the GPU, under their GGUF names.
use super::Config;
use super::config::{Experts, Positions, Softmax};
use super::tensors::{Role, Weight, list};
use crate::Result;
use crate::format::{Gguf, Source, TensorInfo, dequantize};
use crate::gpu::{Gpu, Tensor};
use crate::ops::{Join, Linear, Start, head_terms};
use std::collections::HashMap;

/// A matrix, quantised as it is in the file, and what is added to its product.
pub(crate) struct Matrix {
    pub(crate) w: Linear,
    pub(crate) bias: Option<Tensor>,
    /// What norms of one token fold into: [2, M] as `Fused::record_normed` has it, or [2, D] as its `record_residual` has.
    pub(super) folded: Option<Tensor>,
}

/// A norm of the residual stream.
pub(crate) struct NormWeights {
    pub(crate) gain: Tensor,         // [D]
    pub(crate) bias: Option<Tensor>, // [D]
    /// Of one that is added to the stream: what the sum is multiplied with.
    pub(crate) scale: f32,
}

/// The weights of one layer. What a family has not is not there.
pub(crate) struct Layer {
    pub(crate) attn_norm: Option<NormWeights>,
    pub(crate) attn_qkv: Matrix, // [(H + 2 KV) HD, D]: attn_q, attn_k, attn_v; all that enters another mixer
    pub(crate) attn_gate: Option<Matrix>, // [H HD, D]: gates of what heads of attention give
    pub(crate) conv: Option<Tensor>, // [C, L]: a convolution's taps
    pub(crate) ssm_terms: Option<Tensor>, // [H, 2]: ssm_a and ssm_dt of each state
    pub(crate) ssm_norm: Option<Tensor>, // [DV]
    pub(crate) head_norms: Option<Tensor>, // attn_q_norm, then attn_k_norm
    pub(crate) attn_terms: Tensor, // [H, 4]: what each head adds to its scores
    pub(crate) attn_output: Matrix, // [D, H HD], or what leaves another mixer
    pub(crate) post_attention_norm: Option<NormWeights>,
    pub(crate) ffn_norm: Option<NormWeights>,
    pub(crate) ffn_gate_inp: Option<Matrix>, // [E, D]: the router of experts, whose matrices the next two are then
    pub(crate) ffn_gate_up: Matrix, // [2 F, D] or [E 2 F, D]: rows of ffn_gate and ffn_up by turns; [F, D] without a gate
    pub(crate) ffn_down: Matrix,    // [D, F] or [E D, F]
    pub(crate) post_ffw_norm: Option<NormWeights>,
}

/// Every weight of the model.
pub(crate) struct Weights {
    pub(crate) token_embd: Linear, // [V, D]
    pub(crate) token_embd_norm: Option<NormWeights>,
    pub(crate) position_embd: Option<Tensor>, // [n_ctx, D]
    pub(crate) layers: Vec<Layer>,            // n_layer
    pub(crate) output_norm: NormWeights,
    pub(crate) output: Option<Matrix>, // [V, D]; token_embd where tied
    pub(super) output_folded: Option<Tensor>, // [2, V], where a LayerNorm folds into it
    /// Vectors on the host, by label, until they have been folded.
    pub(super) kept: HashMap<String, Vec<f32>>,
    /// Divisors of the rotary frequencies, [R/2], on the host: by the names of their tensors.
    pub(crate) divisors: HashMap<String, Vec<f32>>,
}

/// The numbers of a vector, zeros where a piece is missing.
async fn vector(
    source: &impl Source,
    gguf: &Gguf,
    weight: &Weight,
    tensors: &[TensorInfo],
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<f32>> {
    let (mut columns, mut tensors) = (Vec::new(), tensors.iter());
    for piece in &weight.pieces {
        columns.push(match if piece.is_there(gguf) { tensors.next() } else { None } {
            Some(info) => {
                progress(info.size);
                floats(source, info).await?
            }
            None => vec![0.0; piece.len()],
        });
    }
    Ok(joined(weight.join, &columns))
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

/// What was loaded, by label.
#[derive(Default)]
struct Found {
    matrices: HashMap<String, Linear>,
    vectors: HashMap<String, Tensor>,
    /// What stays on the host.
    host: HashMap<String, Vec<f32>>,
    kept: HashMap<String, Vec<f32>>,
}

const LOADED: &str = "every weight that is wanted was loaded";

impl Found {
    fn linear(&mut self, label: &str) -> Linear {
        self.matrices.remove(label).expect(LOADED)
    }

    fn matrix(&mut self, label: &str) -> Matrix {
        let bias = self.vectors.remove(&format!("{label}.bias"));
        Matrix { w: self.linear(label), bias, folded: None }
    }

    /// A matrix that not every layer has.
    fn optional(&mut self, label: &str) -> Option<Matrix> {
        self.matrices.contains_key(label).then(|| self.matrix(label))
    }

    fn norm(&mut self, label: &str) -> Option<NormWeights> {
        let gain = self.vectors.remove(label)?;
        let bias = self.vectors.remove(&format!("{label}.bias"));
        Some(NormWeights { gain, bias, scale: 1.0 })
    }

    /// The norm that is the last to be added in a layer, and the scale of what the layer gives.
    fn last_norm(&mut self, layer: usize) -> Option<NormWeights> {
        let scale = self.host.remove(&format!("blk.{layer}.layer_output_scale"));
        let scale = scale.and_then(|scale| scale.first().copied()).unwrap_or(1.0);
        let norm = self.norm(&format!("blk.{layer}.post_ffw_norm"))?;
        Some(NormWeights { scale, ..norm })
    }

    /// What the heads of a layer add to their scores.
    fn terms(&mut self, gpu: &Gpu, config: &Config, layer: usize) -> Result<Tensor> {
        let learned = self.host.remove(&format!("blk.{layer}.attn_sinks"));
        let alibi = match config.positions {
            Positions::Alibi(bias) => Some(bias),
            _ => None,
        };
        let start = match config.softmax {
            Softmax::Plain => Start::Plain,
            Softmax::OffByOne => Start::OffByOne,
            Softmax::Learned => Start::Learned(learned.expect(LOADED)),
        };
        let terms = head_terms(config.n_head, alibi, &start);
        Tensor::upload(gpu, format!("w.blk.{layer}.attn_terms"), &[config.n_head, 4], &terms)
    }

    /// Puts every weight where the forward pass looks for it.
    fn assembled(mut self, gpu: &Gpu, config: &Config) -> Result<Weights> {
        let mut layers = Vec::with_capacity(config.n_layer);
        for i in 0..config.n_layer {
            let n = |part: &str| format!("blk.{i}.{part}");
            layers.push(Layer {
                attn_norm: self.norm(&n("attn_norm")),
                attn_qkv: self.matrix(&n("attn_qkv")),
                attn_gate: self.optional(&n("attn_gate")),
                conv: self.vectors.remove(&n("conv")),
                ssm_terms: self.vectors.remove(&n("ssm_terms")),
                ssm_norm: self.vectors.remove(&n("ssm_norm")),
                head_norms: self.vectors.remove(&n("head_norms")),
                attn_terms: self.terms(gpu, config, i)?,
                attn_output: self.matrix(&n("attn_output")),
                post_attention_norm: self.norm(&n("post_attention_norm")),
                ffn_norm: self.norm(&n("ffn_norm")),
                ffn_gate_inp: self.optional(&n("ffn_gate_inp")),
                ffn_gate_up: self.matrix(&n("ffn_gate_up")),
                ffn_down: self.matrix(&n("ffn_down")),
                post_ffw_norm: self.last_norm(i),
            });
        }
        Ok(Weights {
            layers,
            token_embd: self.linear("token_embd"),
            token_embd_norm: self.norm("token_embd_norm"),
            position_embd: self.vectors.remove("position_embd"),
            output_norm: self.norm("output_norm").expect(LOADED),
            output: if config.tied { None } else { Some(self.matrix("output")) },
            output_folded: None,
            kept: self.kept,
            divisors: self.host,
        })
    }
}

impl Weights {
    /// Streams every tensor to the GPU, in the order of the file. `progress` is told of bytes as they
    /// arrive there. `keeps_vectors`: on the host as well.
    pub(crate) async fn load(
        gpu: &Gpu,
        source: &impl Source,
        gguf: &Gguf,
        config: &Config,
        keeps_vectors: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let mut wanted = Vec::new();
        for weight in list(config, gguf).into_iter().filter(|weight| weight.is_there(gguf)) {
            let tensors = weight.tensors(gguf)?;
            let first = tensors.iter().map(|tensor| tensor.offset).min().unwrap_or(0);
            wanted.push((first, weight, tensors));
        }
        wanted.sort_by_key(|(first, ..)| *first);
        let mut found = Found::default();
        for (first, weight, tensors) in &wanted {
            // In the order of the file: everything before this one's first tensor is done.
            source.release(*first);
            let (label, name) = (weight.label.clone(), format!("w.{}", weight.label));
            match weight.role {
                Role::Embedding | Role::Product(_) | Role::Experts(_) | Role::Output => {
                    let tensors: Vec<_> = tensors.iter().collect();
                    let matrix = Linear::load(gpu, source, &name, &tensors, weight.join, progress);
                    found.matrices.insert(label, matrix.await?);
                }
                Role::Host => {
                    let values = vector(source, gguf, weight, tensors, progress).await?;
                    found.host.insert(label, values);
                }
                Role::Vector => {
                    let mut values = vector(source, gguf, weight, tensors, progress).await?;
                    if label.starts_with("output_norm") {
                        values.iter_mut().for_each(|value| *value /= config.scales.logits);
                    }
                    let shape = match weight.label.as_str() {
                        "position_embd" => vec![config.n_ctx, config.n_embd],
                        _ => vec![values.len()],
                    };
                    let tensor = Tensor::upload(gpu, name, &shape, &values)?;
                    if keeps_vectors && shape.len() == 1 {
                        found.kept.insert(label.clone(), values);
                    }
                    found.vectors.insert(label, tensor);
                }
            }
            gpu.check()?;
        }
        found.assembled(gpu, config)
    }

    /// The matrix of the logits, and its bias.
    pub(crate) fn output(&self) -> (&Linear, Option<&Tensor>) {
        match &self.output {
            Some(Matrix { w, bias, .. }) => (w, bias.as_ref()),
            None => (&self.token_embd, None),
        }
    }

    /// The most parts that a matrix had to be cut into.
    pub(crate) fn most_parts(&self) -> usize {
        self.matrices().map(|matrix| matrix.parts.len()).max().unwrap_or(1)
    }

    /// Every matrix of the layers.
    fn products(&self) -> impl Iterator<Item = &Matrix> {
        let layers = self.layers.iter().flat_map(|layer| {
            let all = [&layer.attn_qkv, &layer.attn_output, &layer.ffn_gate_up, &layer.ffn_down];
            all.into_iter().chain(&layer.attn_gate).chain(&layer.ffn_gate_inp)
        });
        layers.chain(&self.output)
    }

    /// Every matrix.
    fn matrices(&self) -> impl Iterator<Item = &Linear> {
        self.products().map(|matrix| &matrix.w).chain([&self.token_embd])
    }

    /// Bytes of the matrices that a step multiplies with.
    pub(crate) fn step_bytes(&self, experts: Option<Experts>) -> u64 {
        let embedding = if self.output.is_some() { self.token_embd.bytes() } else { 0 };
        let unused = experts.map_or(0, |Experts { count, used, .. }| {
            let all = self.layers.iter().map(|l| l.ffn_gate_up.w.bytes() + l.ffn_down.w.bytes());
            all.sum::<u64>() / count as u64 * (count - used) as u64
        });
        self.matrices().map(Linear::bytes).sum::<u64>() - embedding - unused
    }

    /// Bytes on the GPU.
    pub(crate) fn bytes(&self) -> u64 {
        let norms = self.layers.iter().flat_map(|layer| {
            let Layer { attn_norm, post_attention_norm, ffn_norm, post_ffw_norm, .. } = layer;
            [attn_norm, post_attention_norm, ffn_norm, post_ffw_norm]
        });
        let norms = norms.chain([&self.token_embd_norm]).flatten().chain([&self.output_norm]);
        let norms = norms.flat_map(|norm| [Some(&norm.gain), norm.bias.as_ref()]);
        let heads = self.layers.iter().flat_map(|layer| {
            let Layer { conv, ssm_terms, ssm_norm, head_norms, attn_terms, .. } = layer;
            [conv, ssm_terms, ssm_norm, head_norms]
                .map(Option::as_ref)
                .into_iter()
                .chain([Some(attn_terms)])
        });
        let biases = self.products().flat_map(|m| [m.bias.as_ref(), m.folded.as_ref()]);
        let few = [self.position_embd.as_ref(), self.output_folded.as_ref()];
        let vectors = norms.chain(heads).chain(biases).chain(few);
        vectors.flatten().map(Tensor::size).sum::<u64>()
            + self.matrices().map(Linear::bytes).sum::<u64>()
    }
}
