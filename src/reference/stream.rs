//! The oracle: a whole model in `f64`, its attention as the paper writes it. Raw keys are kept in a
//! list and every one is turned anew at every step, at its place inside the cache. No ring, no phases.
use crate::Result;
use crate::format::{Gguf, Source, dequantize};
use crate::model::{Config, RopeLayout};
use std::collections::HashMap;

/// A stream on the CPU.
pub struct Oracle {
    config: Config,
    weights: HashMap<String, Vec<f32>>,
    frequencies: Vec<f64>,
    scale: f64,
    sinks: usize,
    window: usize,
    /// A full list throws the older half of its window away, as `half-discard` does.
    halves: bool,
    /// Raw keys and values of the tokens that can still be seen, by layer: [HD KV] each.
    seen: Vec<Vec<(Vec<f64>, Vec<f64>)>>,
    /// What the last token gave to each of them, by layer and head.
    shares: Vec<Vec<Vec<f64>>>,
}

/// x W^T, W: [rows, x.len()].
fn product(x: &[f64], w: &[f32]) -> Vec<f64> {
    let dot = |row: &[f32]| x.iter().zip(row).map(|(x, &w)| x * f64::from(w)).sum();
    w.chunks_exact(x.len()).map(dot).collect()
}

fn norm(x: &[f64], w: &[f32], eps: f32) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + f64::from(eps)).sqrt();
    x.iter().zip(w).map(|(x, &w)| x * scale * f64::from(w)).collect()
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
        let factors = weights.get("rope_freqs.weight").map(Vec::as_slice);
        let (frequencies, scale) = config.rope.frequencies(factors);
        let seen = vec![Vec::new(); config.n_layer];
        let shares = vec![Vec::new(); config.n_layer];
        Self { config, weights, frequencies, scale, sinks, window, halves: false, seen, shares }
    }

    /// The same that throws half of its window away whenever it is full.
    pub fn half_discarding(self) -> Self {
        Self { halves: true, ..self }
    }

    /// Begins anew, with nothing seen.
    pub fn restart(&mut self) {
        self.seen.iter_mut().for_each(Vec::clear);
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

    /// Every head normed by itself, in models that do so.
    fn normed(&self, gain: &[f32], heads: Vec<f64>) -> Vec<f64> {
        let Config { head_norms, head_dim, rms_eps, .. } = self.config;
        match head_norms {
            true => {
                heads.chunks_exact(head_dim).flat_map(|head| norm(head, gain, rms_eps)).collect()
            }
            false => heads,
        }
    }

    /// A head turned to a position.
    fn turned(&self, layer: usize, head: &[f64], position: usize) -> Vec<f64> {
        let (mut out, half) = (head.to_vec(), self.frequencies.len());
        if self.config.no_rope_every.is_some_and(|every| (layer + 1).is_multiple_of(every)) {
            return out;
        }
        for (pair, frequency) in self.frequencies.iter().enumerate() {
            let (a, b) = match self.config.rope.layout {
                RopeLayout::Norm => (2 * pair, 2 * pair + 1),
                RopeLayout::Neox => (pair, pair + half),
            };
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            out[a] = (head[a] * cos - head[b] * sin) * self.scale;
            out[b] = (head[a] * sin + head[b] * cos) * self.scale;
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
        let mut x: Vec<f64> = embedded.map(|weight| embedding * f64::from(weight)).collect();
        for layer in 0..c.n_layer {
            let name = |part: &str| format!("blk.{layer}.{part}");
            let xn = norm(&x, self.weight(&name("attn_norm.weight")), c.rms_eps);
            let [q, k, v] =
                ["attn_q", "attn_k", "attn_v"].map(|part| self.linear(&name(part), &xn));
            let [q, k] = [("attn_q_norm.weight", q), ("attn_k_norm.weight", k)]
                .map(|(gain, heads)| self.normed(self.weight(&name(gain)), heads));
            let seen = &mut self.seen[layer];
            if self.halves && seen.len() == self.sinks + self.window {
                seen.drain(self.sinks..self.sinks + self.window / 2);
            }
            seen.push((k, v));
            if seen.len() > self.sinks + self.window {
                seen.remove(self.sinks);
            }
            let att = self.attend(layer, &q);
            let out = self.linear(&name("attn_output"), &att);
            x.iter_mut().zip(out).for_each(|(x, out)| *x += residual * out);

            let xn = norm(&x, self.weight(&name("ffn_norm.weight")), c.rms_eps);
            let [gate, up] = ["ffn_gate", "ffn_up"].map(|part| self.linear(&name(part), &xn));
            let swiglu = |(gate, up): (&f64, &f64)| gate / (1.0 + (-gate).exp()) * up;
            let h: Vec<f64> = gate.iter().zip(&up).map(swiglu).collect();
            let down = self.linear(&name("ffn_down"), &h);
            x.iter_mut().zip(down).for_each(|(x, down)| *x += residual * down);
        }
        let xn = norm(&x, self.weight("output_norm.weight"), c.rms_eps);
        let output = if c.tied { "token_embd.weight" } else { "output.weight" };
        let out = product(&xn, self.weight(output));
        out.into_iter().map(|logit| logit / logits).collect()
    }

    /// The softmax weights of the last token on all that is kept. [L, H, kept]
    pub fn shares(&self) -> &[Vec<Vec<f64>>] {
        &self.shares
    }

    /// Attention of one token over all that is kept, numbered by its place in the list.
    fn attend(&mut self, layer: usize, q: &[f64]) -> Vec<f64> {
        let Config { n_head, n_head_kv, head_dim, scales, .. } = self.config;
        let seen = &self.seen[layer];
        let mut given = Vec::with_capacity(n_head);
        let mut att = Vec::with_capacity(q.len());
        for (h, q) in q.chunks_exact(head_dim).enumerate() {
            let kv = h / (n_head / n_head_kv) * head_dim..;
            let q = self.turned(layer, q, seen.len() - 1);
            let score = |(place, (k, _)): (usize, &(Vec<f64>, Vec<f64>))| {
                let k = self.turned(layer, &k[kv.clone()][..head_dim], place);
                q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * f64::from(scales.attention)
            };
            let scores: Vec<f64> = seen.iter().enumerate().map(score).collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
            let total: f64 = shares.iter().sum();
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
