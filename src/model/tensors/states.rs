//! The tensors of layers that do not attend.
use super::{List, Piece, Role};
use crate::model::{Config, DeltaHeads, LayerKind};
use crate::ops::{Epilogue, Join};

impl List<'_> {
    /// What enters a gated convolution, and its taps.
    pub(super) fn short_conv_in(&mut self, c: &Config, i: usize) {
        let (d, taps, layer) = (c.n_embd as u64, c.conv_taps as u64, Some(i));
        let store = (Role::Product(Epilogue::Store), Join::Concat);
        self.product(layer, "attn_qkv", store, d, &[("shortconv.in_proj", 3 * d)]);
        self.taps(i, "shortconv.conv", &[taps, d]);
    }

    /// The taps of a convolution, under one label.
    fn taps(&mut self, i: usize, tensor: &str, dims: &[u64]) {
        let piece = Piece::whole(&self.label(Some(i), tensor), "weight", dims);
        self.add(self.label(Some(i), "conv"), Role::Vector, Join::Concat, vec![piece]);
    }

    /// What enters a gated delta rule: queries, keys and values, gates of the state, and gates of what it gives.
    pub(super) fn delta_net_in(&mut self, c: &Config, i: usize) {
        let Some(DeltaHeads { key_heads, heads, key_dim, value_dim }) = c.delta_net else { return };
        let (d, taps, layer) = (c.n_embd as u64, c.conv_taps as u64, Some(i));
        let [keys, values, heads] =
            [key_heads * key_dim, heads * value_dim, heads].map(|n| n as u64);
        let qkv = 2 * keys + values;
        let store = (Role::Product(Epilogue::Store), Join::Concat);
        let parts =
            [("attn_qkv", qkv), ("ssm_alpha", heads), ("ssm_beta", heads), ("attn_gate", values)];
        self.product(layer, "attn_qkv", store, d, &parts);
        self.taps(i, "ssm_conv1d", &[taps, qkv]);
        let vector = |name: &str| {
            let name = self.label(layer, name);
            Piece { name, dims: vec![heads], rows: None, optional: false }
        };
        let terms = vec![vector("ssm_a"), vector("ssm_dt.bias")];
        self.add(self.label(layer, "ssm_terms"), Role::Vector, Join::Interleave, terms);
        self.alone(layer, "ssm_norm", Role::Vector, &[value_dim as u64]);
    }

    /// Queries, keys and values of attention, where the rows of a head's query come with those of its gate behind them.
    pub(super) fn gated_heads(&mut self, c: &Config, i: usize) {
        let LayerKind { n_head_kv, head_dim, .. } = c.layers[i];
        let [d, size] = [c.n_embd, head_dim].map(|n| n as u64);
        let [rows, kv] = [2 * c.n_head, n_head_kv].map(|heads| heads as u64 * size);
        let name = |part: &str| self.label(Some(i), part);
        let queries = name("attn_q");
        let head = |nth: usize, suffix: &str| {
            let dims = if suffix == "bias" { vec![rows] } else { vec![d, rows] };
            let first = nth as u64 * size;
            Piece { rows: Some(first..first + size), ..Piece::whole(&queries, suffix, &dims) }
        };
        let of_heads = |gates: usize, suffix: &str| -> Vec<Piece> {
            (0..c.n_head).map(|h| head(2 * h + gates, suffix)).collect()
        };
        let others = |suffix: &str| {
            let dims = if suffix == "bias" { vec![kv] } else { vec![d, kv] };
            ["attn_k", "attn_v"].map(|part| Piece::whole(&name(part), suffix, &dims))
        };
        let all = |suffix: &str| {
            let mut pieces = of_heads(0, suffix);
            pieces.extend(others(suffix));
            pieces
        };
        let weights = [
            ("attn_qkv.bias", Role::Vector, all("bias")),
            ("attn_qkv", Role::Product(Epilogue::Store), all("weight")),
            ("attn_gate.bias", Role::Vector, of_heads(1, "bias")),
            ("attn_gate", Role::Product(Epilogue::Store), of_heads(1, "weight")),
        ];
        for (label, role, pieces) in weights {
            self.add(self.label(Some(i), label), role, Join::Concat, pieces);
        }
    }
}
