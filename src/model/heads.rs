//! Heads of attention, which layers may have in several numbers and sizes.
use super::config::MOST;
use super::{CacheSettings, Config, KvType, LayerKind, Policy, Positions};
use crate::ops::{HeadShape, MOST_HEAD_DIM};
use crate::{Error, Result};

impl LayerKind {
    /// Whether another has as many key heads, of the same size.
    fn same_heads(self, other: Self) -> bool {
        (self.n_head_kv, self.head_dim) == (other.n_head_kv, other.head_dim)
    }
}

impl Config {
    /// One layer of each kind of heads, in their order: a number and size of key heads comes once.
    pub(crate) fn heads(&self) -> Vec<LayerKind> {
        let mut heads: Vec<LayerKind> = Vec::new();
        for &kind in &self.layers {
            if !heads.iter().any(|other| other.same_heads(kind)) {
                heads.push(kind);
            }
        }
        heads
    }

    /// Which of [`Config::heads`] a layer has.
    pub(crate) fn heads_of(&self, layer: usize) -> usize {
        let kind = self.layers[layer];
        self.heads().iter().position(|other| other.same_heads(kind)).unwrap_or(0)
    }

    /// What kernels of attention are compiled for: of each of [`Config::heads`].
    pub(crate) fn head_shapes(&self, kv: KvType) -> Vec<HeadShape> {
        let shape = |LayerKind { n_head_kv, head_dim, .. }| HeadShape {
            head_dim,
            sharing: self.n_head / n_head_kv,
            kv,
            alibi: matches!(self.positions, Positions::Alibi(_)),
            capped: self.caps.attention.is_some(),
        };
        self.heads().into_iter().map(shape).collect()
    }

    /// Sizes of the heads that keys and values have.
    fn kept_heads(&self) -> impl Iterator<Item = usize> {
        self.layers.iter().filter(|kind| kind.attends()).map(|kind| kind.head_dim)
    }

    /// An error unless keys and values can be stored so.
    pub(crate) fn expect_kv(&self, kv: KvType) -> Result<()> {
        self.kept_heads().try_for_each(|head_dim| kv.expect_heads(head_dim))
    }

    /// Bytes that the keys and values of a token take in all layers, unless some cannot be stored so.
    pub fn kv_bytes(&self, kv: KvType) -> Option<u64> {
        self.expect_kv(kv).ok()?;
        let attend = self.layers.iter().filter(|kind| kind.attends());
        let words = attend.map(|kind| kv.row_words(kind.n_head_kv, kind.head_dim));
        Some(2 * 4 * words.sum::<usize>() as u64 / kv.row_slots() as u64)
    }

    /// A type of keys and values that takes less than what was asked for, and that works as well.
    pub(super) fn smaller_kv(&self, settings: &CacheSettings) -> Option<KvType> {
        let works = |kv: &KvType| {
            let shifts = settings.policy == Policy::HalfDiscard && kv.in_blocks();
            !shifts && self.expect_kv(*kv).is_ok()
        };
        settings.kv.smaller().filter(works)
    }

    /// An error unless the kernels can run a layer of this kind.
    pub(super) fn check_kind(&self, kind: LayerKind) -> Result<()> {
        let wrong = |text: String| Err(Error::Unsupported(text));
        let (Self { n_embd, n_head, .. }, LayerKind { n_head_kv, head_dim, .. }) = (self, kind);
        if !head_dim.is_multiple_of(8) || head_dim == 0 || head_dim > MOST_HEAD_DIM {
            return wrong(format!(
                "heads of {head_dim} dimensions; 8 to {MOST_HEAD_DIM} in steps of 8 work"
            ));
        }
        if !n_head.is_multiple_of(n_head_kv) {
            return wrong(format!(
                "{n_head} query heads do not share {n_head_kv} key heads evenly"
            ));
        }
        if n_head.checked_mul(head_dim).is_none_or(|width| width > MOST as usize) {
            return wrong(format!(
                "{n_head} heads of {head_dim} dimensions, wider than any model: at most {MOST} in all"
            ));
        }
        if !n_embd.is_multiple_of(32) || !(n_head * head_dim).is_multiple_of(32) {
            return wrong(format!(
                "an embedding of {n_embd} and {n_head} heads of {head_dim}; both widths must be \
                 multiples of 32"
            ));
        }
        let turned = self.rope_of(kind).dim;
        if !turned.is_multiple_of(2) || turned > head_dim {
            return wrong(format!("{turned} of {head_dim} dimensions are to be turned"));
        }
        Ok(())
    }
}
