//! The tensors of layers that do not attend.
use super::{List, Role};
use crate::model::Config;
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
        let piece = super::Piece::whole(&self.label(Some(i), tensor), "weight", dims);
        self.add(self.label(Some(i), "conv"), Role::Vector, Join::Concat, vec![piece]);
    }
}
