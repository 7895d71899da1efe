//! Layers that do not attend, a token at a time, as their papers write them.
use super::{Oracle, normed, silu};
use crate::model::DeltaHeads;
use crate::ops::NormKind;

/// What such a layer keeps.
#[derive(Clone, Default)]
pub(super) struct State {
    /// What entered its convolution last, the oldest first.
    recent: Vec<Vec<f64>>,
    /// S of each head: [DK][DV].
    states: Vec<Vec<Vec<f64>>>,
}

/// x divided by its length.
fn unit(x: &[f64]) -> Vec<f64> {
    let length = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
    x.iter().map(|x| x / length).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Oracle {
    /// LFM2 calls the last norm the embedding's.
    pub(super) fn last_norm(&self) -> &'static str {
        let last = self.weights.contains_key("output_norm.weight");
        if last { "output_norm" } else { "token_embd_norm" }
    }

    /// A causal convolution over the channels of this token and those before it; `weights`: a row of taps a channel.
    fn convolved(&mut self, layer: usize, tensor: &str, z: Vec<f64>) -> Vec<f64> {
        let taps = self.config.conv_taps;
        let recent = &mut self.states[layer].recent;
        recent.push(z);
        if recent.len() > taps {
            recent.remove(0);
        }
        let (recent, missing) =
            (&self.states[layer].recent, taps - self.states[layer].recent.len());
        let weights = self.weight(&format!("blk.{layer}.{tensor}.weight"));
        let channel = |(i, row): (usize, &[f32])| {
            let seen = row[missing..].iter().zip(recent);
            seen.map(|(&tap, z)| f64::from(tap) * z[i]).sum()
        };
        weights.chunks_exact(taps).enumerate().map(channel).collect()
    }

    /// LFM2's gated short convolution.
    pub(super) fn short_conv(&mut self, layer: usize, xn: &[f64]) -> Vec<f64> {
        let name = |part: &str| format!("blk.{layer}.shortconv.{part}");
        let all = self.linear(&name("in_proj"), xn);
        let [b, c, u] = [0, 1, 2].map(|third| &all[third * xn.len()..][..xn.len()]);
        let z = b.iter().zip(u).map(|(b, u)| b * u).collect();
        let y = self.convolved(layer, "shortconv.conv", z);
        let gated: Vec<f64> = c.iter().zip(y).map(|(c, y)| c * y).collect();
        self.linear(&name("out_proj"), &gated)
    }

    /// Queries without the gates that come behind each head's, in models that have some.
    pub(super) fn ungated(&self, layer: usize, q: Vec<f64>) -> Vec<f64> {
        let size = self.config.layers[layer].head_dim;
        match self.config.gated_heads {
            true => q.chunks_exact(size).step_by(2).flatten().copied().collect(),
            false => q,
        }
    }

    /// What heads of attention give, through the gates that come with their queries.
    pub(super) fn heads_gated(&self, layer: usize, xn: &[f64], att: Vec<f64>) -> Vec<f64> {
        if !self.config.gated_heads {
            return att;
        }
        let size = self.config.layers[layer].head_dim;
        let both = self.linear(&format!("blk.{layer}.attn_q"), xn);
        let gates = both.chunks_exact(size).skip(1).step_by(2).flatten();
        att.iter().zip(gates).map(|(att, &gate)| att * sigmoid(gate)).collect()
    }

    /// Qwen 3.5's gated delta rule (Yang et al. 2024, equation 10), a head after another.
    pub(super) fn delta_net(&mut self, layer: usize, xn: &[f64]) -> Vec<f64> {
        let Some(DeltaHeads { key_heads, heads, key_dim, value_dim }) = self.config.delta_net
        else {
            return Vec::new();
        };
        let name = |part: &str| format!("blk.{layer}.{part}");
        let qkv = self.linear(&name("attn_qkv"), xn);
        let qkv = self.convolved(layer, "ssm_conv1d", qkv);
        let qkv: Vec<f64> = qkv.into_iter().map(silu).collect();
        let (q, kv) = qkv.split_at(key_heads * key_dim);
        let (k, v) = kv.split_at(key_heads * key_dim);
        let [alpha, beta, z] =
            ["ssm_alpha", "ssm_beta", "attn_gate"].map(|part| self.linear(&name(part), xn));
        let mut state = std::mem::take(&mut self.states[layer]);
        state.states.resize(heads, vec![vec![0.0; value_dim]; key_dim]);
        let mut out = Vec::new();
        for (h, s) in state.states.iter_mut().enumerate() {
            // Heads of values are in the file by turns of the heads of keys.
            let [q, k] = [q, k].map(|all| unit(&all[h % key_heads * key_dim..][..key_dim]));
            let v = &v[h * value_dim..][..value_dim];
            let [a, dt] =
                ["ssm_a", "ssm_dt.bias"].map(|part| f64::from(self.weight(&name(part))[h]));
            let g = a * (alpha[h] + dt).exp().ln_1p();
            s.iter_mut().flatten().for_each(|s| *s *= g.exp());
            let read = |s: &[Vec<f64>], by: &[f64], j: usize| -> f64 {
                s.iter().zip(by).map(|(row, by)| row[j] * by).sum()
            };
            let change: Vec<f64> =
                (0..value_dim).map(|j| sigmoid(beta[h]) * (v[j] - read(s, &k, j))).collect();
            for (row, k) in s.iter_mut().zip(&k) {
                row.iter_mut().zip(&change).for_each(|(s, change)| *s += k * change);
            }
            let root = (key_dim as f64).sqrt();
            let o: Vec<f64> = (0..value_dim).map(|j| read(s, &q, j) / root).collect();
            let (eps, gain) = (self.config.norms.eps, self.weight(&name("ssm_norm.weight")));
            let o = normed(NormKind::Rms, eps, &o, gain, &[]);
            let z = &z[h * value_dim..][..value_dim];
            out.extend(o.into_iter().zip(z).map(|(o, &z)| o * silu(z)));
        }
        self.states[layer] = state;
        self.linear(&name("ssm_out"), &out)
    }
}
