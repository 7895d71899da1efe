//! The tensors of experts.
use super::{List, Piece, Role};
use crate::model::{Config, Experts};
use crate::ops::{Epilogue, Join};

impl List<'_> {
    /// The feed-forward of a layer whose tokens go to experts: the router, and the matrices of all experts.
    pub(super) fn experts(&mut self, c: &Config, layer: usize, experts: Experts) {
        let [d, f, count] = [c.n_embd, c.n_ff, experts.count].map(|n| n as u64);
        let router = (Role::Product(Epilogue::Store), Join::Concat);
        self.product(Some(layer), "ffn_gate_inp", router, d, &[("ffn_gate_inp", count)]);
        let up = (Role::Experts(c.feed_forward), Join::Interleave);
        self.of_all(layer, "ffn_gate_up", up, [d, f, count], &["ffn_gate_exps", "ffn_up_exps"]);
        let down = (Role::Experts(Epilogue::Add), Join::Concat);
        self.of_all(layer, "ffn_down", down, [f, d, count], &["ffn_down_exps"]);
    }

    /// The matrices of so many experts, the rows of one after those of another, and their biases.
    fn of_all(
        &mut self,
        layer: usize,
        label: &str,
        (role, join): (Role, Join),
        [cols, rows, count]: [u64; 3],
        parts: &[&str],
    ) {
        let label = self.label(Some(layer), label);
        let pieces = |suffix: &str, dims: &[u64]| -> Vec<Piece> {
            let piece = |part: &&str| Piece::whole(&self.name(Some(layer), part), suffix, dims);
            parts.iter().map(piece).collect()
        };
        let matrix = pieces("weight", &[cols, rows, count]);
        let bias = pieces("bias", &[rows, count]);
        self.add(format!("{label}.bias"), Role::Vector, join, bias);
        self.add(label, role, join, matrix);
    }
}
