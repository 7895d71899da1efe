//! The tensors of a model, stated once: what a file is held to, what is loaded, and what products there will be.
mod experts;
mod products;
mod states;

pub(crate) use products::Products;

use super::config::{HeadNorms, LayerKind, NormPlaces, need_tensor};
use super::family::Family;
use super::{Config, Mixer, Positions};
use crate::format::{DType, Gguf, TensorInfo, shown};
use crate::ops::{Epilogue, Join, NormKind, same_type};
use crate::{Error, Result};
use std::collections::HashSet;
use std::ops::Range;

/// What a weight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Rows by token.
    Embedding,
    /// What multiplies.
    Product(Epilogue),
    /// What multiplies tokens that are sent to it: all experts' matrices.
    Experts(Epilogue),
    /// The product that gives the logits.
    Output,
    /// Numbers on the device, under the label.
    Vector,
    /// Numbers on the host.
    Host,
}

/// Part of a weight: a tensor of the file, or rows of one.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// The tensor's name.
    pub(super) name: String,
    /// Its dimensions in the file, of which the first is the contiguous one.
    pub(super) dims: Vec<u64>,
    /// Which of its rows, where it holds several matrices.
    pub(super) rows: Option<Range<u64>>,
    /// A vector that may be missing: zeros then, unless all of a weight's are.
    pub(super) optional: bool,
}

/// A weight, and what it is made from.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    pub(super) label: String,
    pub(super) role: Role,
    pub(super) join: Join,
    pub(super) pieces: Vec<Piece>,
}

impl Weight {
    /// The tensors that there are, each as if it had no more than the rows that are wanted.
    pub(super) fn tensors(&self, gguf: &Gguf) -> Result<Vec<TensorInfo>> {
        let there = self.pieces.iter().filter(|piece| piece.is_there(gguf));
        there.map(|piece| Ok(piece.of(need_tensor(gguf, &piece.name)?))).collect()
    }

    /// Whether the file has any of it.
    pub(super) fn is_there(&self, gguf: &Gguf) -> bool {
        self.pieces.iter().any(|piece| piece.is_there(gguf))
    }
}

impl Piece {
    /// A whole tensor: `NAME.weight`, which must be there, or `NAME.bias`, which need not.
    fn whole(name: &str, suffix: &str, dims: &[u64]) -> Self {
        let name = format!("{name}.{suffix}");
        Self { name, dims: dims.to_vec(), rows: None, optional: suffix == "bias" }
    }

    /// Whether the file has it; what must be there is.
    pub(super) fn is_there(&self, gguf: &Gguf) -> bool {
        !self.optional || gguf.tensor(&self.name).is_some()
    }

    /// Elements of a vector.
    pub(super) fn len(&self) -> usize {
        self.dims.iter().product::<u64>() as usize
    }

    fn of(&self, tensor: &TensorInfo) -> TensorInfo {
        let Some(rows) = &self.rows else { return tensor.clone() };
        tensor.part(rows.clone(), self.dims.len() == 1)
    }
}

/// Makes the list.
struct List<'a> {
    gguf: &'a Gguf,
    family: &'a Family,
    list: Vec<Weight>,
}

impl List<'_> {
    /// What a family calls part of a layer, or of the model.
    fn name(&self, layer: Option<usize>, ours: &str) -> String {
        let full = |name: &str| match layer {
            Some(layer) => format!("blk.{layer}.{name}"),
            None => name.to_owned(),
        };
        let theirs = self.family.names.iter().filter(|(name, _)| *name == ours);
        let theirs = theirs.map(|(_, name)| full(name));
        let there = |name: &String| self.gguf.tensor(&format!("{name}.weight")).is_some();
        theirs.into_iter().find(there).unwrap_or_else(|| full(ours))
    }

    fn add(&mut self, label: String, role: Role, join: Join, pieces: Vec<Piece>) {
        self.list.push(Weight { label, role, join, pieces });
    }

    /// A matrix of `cols` columns, whose parts have so many rows each, and its bias.
    fn product(
        &mut self,
        layer: Option<usize>,
        label: &str,
        (role, join): (Role, Join),
        cols: u64,
        parts: &[(&str, u64)],
    ) {
        let label = self.label(layer, label);
        let piece = |part: &str, suffix: &str, dims: &[u64]| {
            Piece::whole(&self.name(layer, part), suffix, dims)
        };
        let matrix = parts.iter().map(|&(part, rows)| piece(part, "weight", &[cols, rows]));
        let bias = parts.iter().map(|&(part, rows)| piece(part, "bias", &[rows]));
        let (matrix, bias) = (matrix.collect(), bias.collect());
        self.add(format!("{label}.bias"), Role::Vector, join, bias);
        self.add(label, role, join, matrix);
    }

    /// The same where one tensor holds all parts, one after another.
    fn fused(
        &mut self,
        layer: usize,
        (label, tensor): (&str, &str),
        (role, join): (Role, Join),
        cols: u64,
        parts: &[u64],
        biases: &[&str],
    ) {
        let (label, tensor) = (self.label(Some(layer), label), self.name(Some(layer), tensor));
        let all: u64 = parts.iter().sum();
        let mut at = 0;
        let ranges: Vec<Range<u64>> = parts
            .iter()
            .map(|rows| {
                at += rows;
                at - rows..at
            })
            .collect();
        let piece = |suffix: &str, dims: &[u64], rows: &Range<u64>| Piece {
            rows: Some(rows.clone()),
            ..Piece::whole(&tensor, suffix, dims)
        };
        let matrix = ranges.iter().map(|rows| piece("weight", &[cols, all], rows)).collect();
        // A converter may fuse matrices and leave their biases apart.
        let apart = biases
            .iter()
            .zip(parts)
            .map(|(part, &rows)| Piece::whole(&self.label(Some(layer), part), "bias", &[rows]));
        let apart: Vec<_> = apart.collect();
        let bias = match apart.iter().any(|piece| piece.is_there(self.gguf)) {
            false => ranges.iter().map(|rows| piece("bias", &[all], rows)).collect(),
            true => apart,
        };
        self.add(format!("{label}.bias"), Role::Vector, join, bias);
        self.add(label, role, join, matrix);
    }

    /// A norm of so many elements: its gain, and its bias where there may be one.
    fn norm(&mut self, layer: Option<usize>, label: &str, len: u64, kind: NormKind) {
        let (name, label) = (self.name(layer, label), self.label(layer, label));
        let [gain, bias] = ["weight", "bias"].map(|suffix| Piece::whole(&name, suffix, &[len]));
        if kind == NormKind::Layer {
            self.add(format!("{label}.bias"), Role::Vector, Join::Concat, vec![bias]);
        }
        self.add(label, Role::Vector, Join::Concat, vec![gain]);
    }

    fn label(&self, layer: Option<usize>, ours: &str) -> String {
        layer.map_or_else(|| ours.to_owned(), |layer| format!("blk.{layer}.{ours}"))
    }

    /// A tensor by itself.
    fn alone(&mut self, layer: Option<usize>, name: &str, role: Role, dims: &[u64]) {
        let name = self.label(layer, name);
        let piece = Piece::whole(&name, "weight", dims);
        self.add(name, role, Join::Concat, vec![piece]);
    }

    fn has(&self, name: &str) -> bool {
        self.gguf.tensor(&format!("{name}.weight")).is_some()
    }

    /// Queries, keys and values, and what belongs to them.
    fn attention(&mut self, c: &Config, i: usize) {
        let (d, layer) = (c.n_embd as u64, Some(i));
        let LayerKind { n_head_kv, head_dim, .. } = c.layers[i];
        let [q, kv] = [c.n_head, n_head_kv].map(|heads| (heads * head_dim) as u64);
        let attn_qkv = (Role::Product(Epilogue::Store), Join::Concat);
        match self.has(&format!("blk.{i}.attn_qkv")) {
            _ if c.gated_heads => self.gated_heads(c, i),
            true => self.fused(
                i,
                ("attn_qkv", "attn_qkv"),
                attn_qkv,
                d,
                &[q, kv, kv],
                &["attn_q", "attn_k", "attn_v"],
            ),
            false => {
                let own = self.has(&format!("blk.{i}.attn_v")) || !self.family.keys_for_values;
                let values = if own { "attn_v" } else { "attn_k" };
                let parts = [("attn_q", q), ("attn_k", kv), (values, kv)];
                self.product(layer, "attn_qkv", attn_qkv, d, &parts);
            }
        }
        if let Some(norms) = c.head_norms {
            let head = head_dim as u64;
            let dims = |heads: usize| match norms {
                HeadNorms::Heads | HeadNorms::WithValues => vec![head],
                HeadNorms::OwnGains => vec![head, heads as u64],
                HeadNorms::Rows => vec![heads as u64 * head],
            };
            let parts = [("attn_q_norm", c.n_head), ("attn_k_norm", n_head_kv)];
            let piece = |(name, heads): (&str, usize)| {
                Piece::whole(&self.label(layer, name), "weight", &dims(heads))
            };
            let label = format!("blk.{i}.head_norms");
            self.add(label, Role::Vector, Join::Concat, parts.map(piece).into());
        }
        if self.family.learned_sinks {
            self.alone(layer, "attn_sinks", Role::Host, &[c.n_head as u64]);
        }
    }

    fn layer(&mut self, c: &Config, i: usize) {
        let [d, f] = [c.n_embd, c.n_ff].map(|n| n as u64);
        let q = (c.n_head * c.layers[i].head_dim) as u64;
        let (layer, kind) = (Some(i), c.norms.kind);
        let before = c.norms.places != NormPlaces::After;
        if before {
            self.norm(layer, "attn_norm", d, kind);
        }
        match c.layers[i].mixer {
            Mixer::Attention => self.attention(c, i),
            Mixer::ShortConv => self.short_conv_in(c, i),
            Mixer::DeltaNet => self.delta_net_in(c, i),
        }
        // What a norm comes after is not added as it is.
        let added = match c.norms.places {
            NormPlaces::Before => Epilogue::Add,
            NormPlaces::After | NormPlaces::Both => Epilogue::Store,
        };
        let add = (Role::Product(added), Join::Concat);
        match c.layers[i].mixer {
            Mixer::Attention => self.product(layer, "attn_output", add, q, &[("attn_output", d)]),
            Mixer::ShortConv => {
                self.product(layer, "attn_output", add, d, &[("shortconv.out_proj", d)]);
            }
            Mixer::DeltaNet => {
                let [_, cols] = c.mix_widths();
                self.product(layer, "attn_output", add, cols as u64, &[("ssm_out", d)]);
            }
        }
        if c.norms.places != NormPlaces::Before {
            self.norm(layer, "post_attention_norm", d, kind);
            self.norm(layer, "post_ffw_norm", d, kind);
        }
        if self.family.layer_scales && self.has(&format!("blk.{i}.layer_output_scale")) {
            self.alone(layer, "layer_output_scale", Role::Host, &[1]);
        }
        // What reads the same stream may read it through the same norm.
        let ffn_norm = self.name(layer, "ffn_norm");
        let own = self.has(&ffn_norm) && ffn_norm != self.name(layer, "attn_norm");
        if before && (own || !c.parallel) {
            self.norm(layer, "ffn_norm", d, kind);
        }
        if let Some(experts) = c.experts {
            return self.experts(c, i, experts);
        }
        let up = Role::Product(c.feed_forward);
        match (c.feed_forward.gated(), self.has(&format!("blk.{i}.ffn_gate"))) {
            (true, true) => {
                let parts = [("ffn_gate", f), ("ffn_up", f)];
                self.product(layer, "ffn_gate_up", (up, Join::Interleave), d, &parts);
            }
            (true, false) => {
                self.fused(i, ("ffn_gate_up", "ffn_up"), (up, Join::Interleave), d, &[f, f], &[]);
            }
            (false, _) => {
                self.product(layer, "ffn_gate_up", (up, Join::Concat), d, &[("ffn_up", f)])
            }
        }
        self.product(layer, "ffn_down", add, f, &[("ffn_down", d)]);
    }
}

/// Every weight of a model.
pub(super) fn list(config: &Config, gguf: &Gguf) -> Vec<Weight> {
    let family = Family::named(config);
    let mut list = List { gguf, family, list: Vec::new() };
    let [d, v] = [config.n_embd, config.n_vocab].map(|n| n as u64);
    list.alone(None, "token_embd", Role::Embedding, &[d, v]);
    if config.norms.embedding {
        list.norm(None, "token_embd_norm", d, config.norms.kind);
    }
    if config.positions == Positions::Learned {
        list.alone(None, "position_embd", Role::Vector, &[d, config.n_ctx as u64]);
    }
    list.norm(None, "output_norm", d, config.norms.kind);
    if !config.tied {
        list.product(None, "output", (Role::Output, Join::Concat), d, &[("output", v)]);
    }
    for divisors in ["rope_freqs", "rope_factors_long", "rope_factors_short"] {
        if list.has(divisors) {
            list.alone(None, divisors, Role::Host, &[config.rope.dim as u64 / 2]);
        }
    }
    for layer in 0..config.n_layer {
        list.layer(config, layer);
    }
    list.list
}

/// An error that names the first tensor which is missing, of a wrong shape or type, or unknown.
pub(super) fn check(config: &Config, gguf: &Gguf) -> Result<()> {
    let weights = list(config, gguf);
    let mut known = HashSet::new();
    for weight in &weights {
        for piece in &weight.pieces {
            known.insert(piece.name.as_str());
            if !piece.is_there(gguf) {
                continue;
            }
            let tensor = need_tensor(gguf, &piece.name)?;
            check_one(gguf, piece, weight.role, tensor)?;
        }
        if weight.join == Join::Interleave && weight.role != Role::Vector {
            let tensors = weight.tensors(gguf)?;
            same_type(&tensors.iter().collect::<Vec<_>>())?;
        }
    }
    let ignored = config.n_layer..config.n_layer + config.ignored_layers;
    let prefixes: Vec<_> = ignored.map(|layer| format!("blk.{layer}.")).collect();
    let unknown =
        |name: &str| !known.contains(name) && !prefixes.iter().any(|p| name.starts_with(p));
    match gguf.tensors.iter().find(|tensor| unknown(&tensor.name)) {
        Some(tensor) => Err(Error::Unsupported(format!(
            "the tensor {} belongs to no part of a model of this kind",
            shown(&tensor.name, 80)
        ))),
        None => Ok(()),
    }
}

fn check_one(gguf: &Gguf, piece: &Piece, role: Role, tensor: &TensorInfo) -> Result<()> {
    let (name, dims) = (&piece.name, &piece.dims);
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
    let vector = matches!(role, Role::Vector | Role::Host);
    if vector && dims.len() == 1 && !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Err(Error::Unsupported(format!("{name} is {dtype}; a vector must be F32 or F16")));
    }
    Ok(())
}
