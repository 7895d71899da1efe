//! The oracle: a whole model in `f64`, its attention as the paper writes it. Raw keys are kept in a
//! list and every one is turned anew at every step, at its place inside the cache. No ring, no phases.
mod states;

use super::{gelu, gelu_tanh, silu, swiglu_clamped};
use crate::Result;
use crate::format::{Gguf, Source, dequantize};
use crate::model::{
    Config, Experts, HeadNorms, LayerKind, Mixer, NormPlaces, Norms, Positions, RopeLayout,
    RopeScaling, Softmax,
};
use crate::ops::{Epilogue, NormKind};
use std::collections::HashMap;

/// A stream on the CPU.
pub struct Oracle {
    config: Config,
    weights: HashMap<String, Vec<f32>>,
    /// Of each layer: radians a position for each pair, and what cosines and sines are multiplied by.
    turns: Vec<(Vec<f64>, f64)>,
    sinks: usize,
    window: usize,
    /// A full list throws the older half of its window away, as `half-discard` does.
    halves: bool,
    /// Raw keys and values of the tokens that can still be seen, by layer: [HD KV] each.
    seen: Vec<Vec<(Vec<f64>, Vec<f64>)>>,
    /// Of layers that do not attend.
    states: Vec<states::State>,
    /// What the last token gave to each of them, by layer and head.
    shares: Vec<Vec<Vec<f64>>>,
}

/// x W^T, W: [rows, x.len()].
fn product(x: &[f64], w: &[f32]) -> Vec<f64> {
    let dot = |row: &[f32]| x.iter().zip(row).map(|(x, &w)| x * f64::from(w)).sum();
    w.chunks_exact(x.len()).map(dot).collect()
}

/// By mean and variance, or by the mean square alone.
fn normed(kind: NormKind, eps: f32, x: &[f64], gain: &[f32], bias: &[f32]) -> Vec<f64> {
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / x.len() as f64;
    let middle = if kind == NormKind::Layer { mean(&mut x.iter().copied()) } else { 0.0 };
    let spread = mean(&mut x.iter().map(|x| (x - middle).powi(2)));
    let scale = 1.0 / (spread + f64::from(eps)).sqrt();
    let biases = bias.iter().copied().chain(std::iter::repeat(0.0));
    let one = |((x, &gain), bias): ((&f64, &f32), f32)| {
        (x - middle) * scale * f64::from(gain) + f64::from(bias)
    };
    x.iter().zip(gain).zip(biases).map(one).collect()
}

/// What becomes of the two products that a gate is made of.
fn gated(epilogue: Epilogue, gate: f64, up: f64) -> f64 {
    match epilogue {
        Epilogue::SwiGluClamped => swiglu_clamped(gate, up),
        Epilogue::GeGluTanh => gelu_tanh(gate) * up,
        _ => silu(gate) * up,
    }
}

/// c tanh(x / c), where there is a bound.
fn capped(x: f64, cap: Option<f32>) -> f64 {
    cap.map(f64::from).map_or(x, |cap| cap * (x / cap).tanh())
}

/// The slope of ALiBi for a head (Press et al. 2021): a geometric sequence, and where heads are no power of two every
/// other number of the next one.
fn slope(bias: f64, heads: usize, head: usize) -> f64 {
    let whole = 1 << heads.ilog2();
    let exponent = match head < whole {
        true => (head + 1) as f64 / whole as f64,
        false => (2 * (head - whole) + 1) as f64 / (2 * whole) as f64,
    };
    (-bias * exponent).exp2()
}

impl Oracle {
    /// The stream of a file's model: every tensor dequantised.
    pub async fn read(
        source: &impl Source,
        gguf: &Gguf,
        config: Config,
        sinks: usize,
        window: usize,
    ) -> Result<Self> {
        let mut weights = HashMap::new();
        for tensor in &gguf.tensors {
            let bytes = source.bytes(tensor.offset..tensor.offset + tensor.size).await?;
            let mut values = vec![0.0; (tensor.rows() * tensor.cols()) as usize];
            dequantize(tensor.dtype()?, &bytes, &mut values);
            weights.insert(tensor.name.clone(), values);
        }
        Ok(Self::new(config, weights, sinks, window))
    }

    /// A stream with `sinks` and a window of `window` tokens, the current one included. `weights`:
    /// every tensor of the file by name, dequantised.
    fn new(
        config: Config,
        weights: HashMap<String, Vec<f32>>,
        sinks: usize,
        window: usize,
    ) -> Self {
        let divisors = match config.rope.scaling {
            RopeScaling::Long { n_ctx_orig, .. } if sinks + window > n_ctx_orig as usize => {
                "rope_factors_long.weight"
            }
            RopeScaling::Long { .. } => "rope_factors_short.weight",
            _ => "rope_freqs.weight",
        };
        let divisors = weights.get(divisors).map(Vec::as_slice);
        let turns = config.layers.iter().map(|kind| match (kind.window, config.local_rope) {
            // What a file has of its own divides the frequencies of one rope alone.
            (Some(_), Some(own)) => own.frequencies(None),
            _ => config.rope.frequencies(divisors),
        });
        let turns = turns.collect();
        let seen = vec![Vec::new(); config.n_layer];
        let shares = vec![Vec::new(); config.n_layer];
        let states = vec![states::State::default(); config.n_layer];
        Self { config, weights, turns, sinks, window, halves: false, seen, states, shares }
    }

    /// The same that throws half of its window away whenever it is full.
    pub fn half_discarding(self) -> Self {
        Self { halves: true, ..self }
    }

    /// Begins anew, with nothing seen.
    pub fn restart(&mut self) {
        self.seen.iter_mut().for_each(Vec::clear);
        self.states.fill_with(states::State::default);
    }

    fn weight(&self, name: &str) -> &[f32] {
        self.weights.get(name).map_or(&[], Vec::as_slice)
    }

    /// x W^T, and the bias where there is one.
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mut out = product(x, self.weight(&format!("{name}.weight")));
        let bias = self.weight(&format!("{name}.bias"));
        out.iter_mut().zip(bias).for_each(|(out, &bias)| *out += f64::from(bias));
        out
    }

    /// x W^T with rows of W that begin at `first` of a tensor that holds several matrices, and its bias.
    fn linear_rows(&self, name: &str, x: &[f64], first: usize, rows: usize) -> Vec<f64> {
        let w = &self.weight(&format!("{name}.weight"))[first * x.len()..][..rows * x.len()];
        let bias = self.weight(&format!("{name}.bias"));
        let bias = bias.iter().skip(first).copied().chain(std::iter::repeat(0.0));
        product(x, w).into_iter().zip(bias).map(|(out, bias)| out + f64::from(bias)).collect()
    }

    /// The stream normalised, where there is such a norm.
    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let gain = self.weight(&format!("{name}.weight"));
        let Norms { kind, eps, .. } = self.config.norms;
        match gain {
            [] => x.to_vec(),
            _ => normed(kind, eps, x, gain, self.weight(&format!("{name}.bias"))),
        }
    }

    /// Queries or keys normalised, in models that do so.
    fn heads_normed(&self, head_dim: usize, gain: &[f32], heads: Vec<f64>) -> Vec<f64> {
        let Config { head_norms, norms: Norms { eps, .. }, .. } = self.config;
        let (rms, layer) = (NormKind::Rms, NormKind::Layer);
        match head_norms {
            None => heads,
            Some(HeadNorms::Rows) => normed(rms, eps, &heads, gain, &[]),
            Some(HeadNorms::Heads | HeadNorms::WithValues) => heads
                .chunks_exact(head_dim)
                .flat_map(|head| normed(rms, eps, head, gain, &[]))
                .collect(),
            Some(HeadNorms::OwnGains) => {
                let own = heads.chunks_exact(head_dim).zip(gain.chunks_exact(head_dim));
                own.flat_map(|(head, gain)| normed(layer, eps, head, gain, &[])).collect()
            }
        }
    }

    /// Queries, keys and values of a layer.
    fn qkv(&self, layer: usize, xn: &[f64]) -> [Vec<f64>; 3] {
        let LayerKind { n_head_kv, head_dim, .. } = self.config.layers[layer];
        let [q, kv] = [self.config.n_head, n_head_kv].map(|heads| heads * head_dim);
        let name = |part: &str| format!("blk.{layer}.{part}");
        let fused = name("attn_qkv");
        // Gemma 4's layers without a matrix of values take that of keys.
        let no_values = !self.weights.contains_key(&name("attn_v.weight"));
        let values = if no_values { "attn_k" } else { "attn_v" };
        let [q, k, v] = match self.weights.contains_key(&format!("{fused}.weight")) {
            true => [(0, q), (q, kv), (q + kv, kv)]
                .map(|(first, rows)| self.linear_rows(&fused, xn, first, rows)),
            false => ["attn_q", "attn_k", values].map(|part| self.linear(&name(part), xn)),
        };
        let q = self.ungated(layer, q);
        let clamped = |values: Vec<f64>| match self.config.caps.qkv.map(f64::from) {
            Some(cap) => values.into_iter().map(|value| value.clamp(-cap, cap)).collect(),
            None => values,
        };
        let [q, k, v] = [q, k, v].map(clamped);
        let [q, k] = [("attn_q_norm.weight", q), ("attn_k_norm.weight", k)]
            .map(|(gain, heads)| self.heads_normed(head_dim, self.weight(&name(gain)), heads));
        let v = match self.config.head_norms {
            Some(HeadNorms::WithValues) => self.heads_normed(head_dim, &vec![1.0; head_dim], v),
            _ => v,
        };
        [q, k, v]
    }

    /// The feed-forward of a layer.
    fn feed_forward(&self, layer: usize, xn: &[f64]) -> Vec<f64> {
        let Config { n_ff, feed_forward, .. } = self.config;
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (gate, up) = (name("ffn_gate"), name("ffn_up"));
        if let Some(experts) = self.config.experts {
            return self.experts(layer, experts, xn);
        }
        let h: Vec<f64> = match feed_forward {
            Epilogue::Gelu => self.linear(&up, xn).into_iter().map(gelu).collect(),
            Epilogue::GeluTanh => self.linear(&up, xn).into_iter().map(gelu_tanh).collect(),
            _ => {
                let [gate, up] = match self.weights.contains_key(&format!("{gate}.weight")) {
                    true => [&gate, &up].map(|name| self.linear(name, xn)),
                    false => [0, n_ff].map(|first| self.linear_rows(&up, xn, first, n_ff)),
                };
                gate.iter().zip(&up).map(|(&g, &up)| gated(feed_forward, g, up)).collect()
            }
        };
        self.linear(&name("ffn_down"), &h)
    }

    /// What the experts of a token give, by the softmax over all of which theirs are kept and made to add up to one.
    fn experts(&self, layer: usize, experts: Experts, xn: &[f64]) -> Vec<f64> {
        let Config { n_ff, n_embd, feed_forward, .. } = self.config;
        let name = |part: &str| format!("blk.{layer}.{part}");
        let scores: Vec<f64> =
            self.linear(&name("ffn_gate_inp"), xn).into_iter().map(f64::exp).collect();
        let mut order: Vec<usize> = (0..experts.count).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        order.truncate(experts.used);
        let total: f64 = order.iter().map(|&expert| scores[expert]).sum();
        let mut out = vec![0.0; n_embd];
        for expert in order {
            let [gate, up] = ["ffn_gate_exps", "ffn_up_exps"]
                .map(|part| self.linear_rows(&name(part), xn, expert * n_ff, n_ff));
            let h = gate.iter().zip(up).map(|(&gate, up)| gated(feed_forward, gate, up));
            let h: Vec<f64> = h.collect();
            let down = self.linear_rows(&name("ffn_down_exps"), &h, expert * n_embd, n_embd);
            let share = f64::from(experts.scale) * scores[expert] / total;
            out.iter_mut().zip(down).for_each(|(out, down)| *out += share * down);
        }
        out
    }

    /// A head turned to a position.
    fn turned(&self, layer: usize, head: &[f64], position: usize) -> Vec<f64> {
        let (frequencies, scale) = &self.turns[layer];
        let (mut out, half) = (head.to_vec(), frequencies.len());
        if !self.config.layers[layer].turns {
            return out;
        }
        for (pair, frequency) in frequencies.iter().enumerate() {
            let (a, b) = match self.config.rope.layout {
                RopeLayout::Norm => (2 * pair, 2 * pair + 1),
                RopeLayout::Neox => (pair, pair + half),
            };
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            out[a] = (head[a] * cos - head[b] * sin) * scale;
            out[b] = (head[a] * sin + head[b] * cos) * scale;
        }
        out
    }

    /// Feeds a token and gives the logits of the next. `[V]`
    pub fn step(&mut self, token: u32) -> Vec<f64> {
        let c = self.config.clone();
        let row = |w: &[f32]| w[token as usize * c.n_embd..][..c.n_embd].to_vec();
        let scales = c.scales;
        let [embedding, residual, logits] =
            [scales.embedding, scales.residual, scales.logits].map(f64::from);
        let embedded = row(self.weight("token_embd.weight")).into_iter();
        let x: Vec<f64> = embedded.map(|weight| embedding * f64::from(weight)).collect();
        let mut x = if c.norms.embedding { self.norm("token_embd_norm", &x) } else { x };
        if c.positions == Positions::Learned {
            let at = self.seen[0].len() * c.n_embd;
            let learned = &self.weight("position_embd.weight")[at..][..c.n_embd];
            x.iter_mut().zip(learned).for_each(|(x, &learned)| *x += f64::from(learned));
        }
        for layer in 0..c.n_layer {
            let name = |part: &str| format!("blk.{layer}.{part}");
            // Falcon's larger models call the norm of attention the second, and the first is the feed-forward's.
            let second = name("attn_norm_2");
            let falcon = self.weights.contains_key(&format!("{second}.weight"));
            let attn_norm = if falcon { second } else { name("attn_norm") };
            // What gpt-oss calls a norm after attention is the experts'.
            let post =
                if c.norms.places == NormPlaces::Before { "" } else { "post_attention_norm" };
            let ffn_norm = match self.weights.contains_key(&name("ffn_norm.weight")) {
                false if c.softmax == Softmax::Learned || c.gated_heads => {
                    name("post_attention_norm")
                }
                false if c.norms.places != NormPlaces::After => name("attn_norm"),
                _ => name("ffn_norm"),
            };
            let xn = self.norm(&attn_norm, &x);
            let out = match c.layers[layer].mixer {
                Mixer::Attention => {
                    let [q, k, v] = self.qkv(layer, &xn);
                    self.see(layer, k, v);
                    let att = self.attend(layer, &q);
                    self.linear(&name("attn_output"), &self.heads_gated(layer, &xn, att))
                }
                Mixer::ShortConv => self.short_conv(layer, &xn),
                Mixer::DeltaNet => self.delta_net(layer, &xn),
            };
            let out = self.norm(&name(post), &out);
            let before = x.clone();
            x.iter_mut().zip(out).for_each(|(x, out)| *x += residual * out);

            let xn = self.norm(&ffn_norm, if c.parallel { &before } else { &x });
            let down = self.feed_forward(layer, &xn);
            let down = self.norm(&name("post_ffw_norm"), &down);
            x.iter_mut().zip(down).for_each(|(x, down)| *x += residual * down);
            if let [scale] = *self.weight(&name("layer_output_scale.weight")) {
                x.iter_mut().for_each(|x| *x *= f64::from(scale));
            }
        }
        let xn = self.norm(self.last_norm(), &x);
        let output = if c.tied { "token_embd" } else { "output" };
        let out = self.linear(output, &xn);
        out.into_iter().map(|logit| capped(logit / logits, c.caps.logits)).collect()
    }

    /// Keeps a key and a value, and lets go of what is out of sight.
    fn see(&mut self, layer: usize, k: Vec<f64>, v: Vec<f64>) {
        let (sinks, window) = match self.config.layers[layer].window {
            Some(own) if self.config.keeps_own_window(self.window) => (0, own),
            _ => (self.sinks, self.window),
        };
        let seen = &mut self.seen[layer];
        if self.halves && seen.len() == self.sinks + self.window {
            seen.drain(self.sinks..self.sinks + self.window / 2);
        }
        seen.push((k, v));
        if seen.len() > sinks.saturating_add(window) {
            seen.remove(sinks);
        }
    }

    /// The softmax weights of the last token on all that is kept. [L, H, kept]
    pub fn shares(&self) -> &[Vec<Vec<f64>>] {
        &self.shares
    }

    /// Attention of one token over all that is kept, numbered by its place in the list.
    fn attend(&mut self, layer: usize, q: &[f64]) -> Vec<f64> {
        let Config { n_head, scales, caps, positions, softmax, .. } = self.config;
        let LayerKind { n_head_kv, head_dim, .. } = self.config.layers[layer];
        let seen = &self.seen[layer];
        let mut given = Vec::with_capacity(n_head);
        let mut att = Vec::with_capacity(q.len());
        for (h, q) in q.chunks_exact(head_dim).enumerate() {
            let kv = h / (n_head / n_head_kv) * head_dim..;
            let q = self.turned(layer, q, seen.len() - 1);
            let slope = match positions {
                Positions::Alibi(bias) => slope(f64::from(bias), n_head, h),
                _ => 0.0,
            };
            let score = |(place, (k, _)): (usize, &(Vec<f64>, Vec<f64>))| {
                let k = self.turned(layer, &k[kv.clone()][..head_dim], place);
                let product: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                let distance = (seen.len() - 1 - place) as f64;
                capped(product * f64::from(scales.attention), caps.attention) - slope * distance
            };
            let scores: Vec<f64> = seen.iter().enumerate().map(score).collect();
            // One more score, that has no value.
            let more = match softmax {
                Softmax::Plain => None,
                Softmax::OffByOne => Some(0.0),
                Softmax::Learned => {
                    Some(f64::from(self.weight(&format!("blk.{layer}.attn_sinks.weight"))[h]))
                }
            };
            let highest = scores.iter().copied().chain(more).fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
            let more = more.map_or(0.0, |score: f64| (score - highest).exp());
            let total: f64 = shares.iter().sum::<f64>() + more;
            att.extend((0..head_dim).map(|d| {
                let value = |(_, v): &(Vec<f64>, Vec<f64>)| v[kv.clone()][d];
                seen.iter().zip(&shares).map(|(kept, p)| p * value(kept)).sum::<f64>() / total
            }));
            given.push(shares.into_iter().map(|p| p / total).collect());
        }
        self.shares[layer] = given;
        att
    }
}
