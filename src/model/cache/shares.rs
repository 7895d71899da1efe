//! The caches of several streams, in the same tensors: each has a share of its own, which no other can take from it.
use super::{Cache, Stored};
use crate::Error;
use crate::gpu::Tensor;

/// Rows from the first of one stream to that of the next, where a stream has so many, of so many words: what is bound begins
/// where it may.
pub(super) fn stride(rows: usize, words: [usize; 2], streams: usize) -> usize {
    if streams == 1 {
        return rows;
    }
    let whole = |words: usize| {
        let bytes = (4 * words).max(4);
        let common = 1 << bytes.trailing_zeros().min(Tensor::ALIGN.trailing_zeros());
        Tensor::ALIGN / common
    };
    rows.next_multiple_of(words.map(whole).into_iter().max().unwrap_or(1))
}

/// That so many streams do not fit.
pub(super) fn no_room(error: Error, streams: usize) -> Error {
    match error {
        Error::OutOfMemory { what, needed, advice } => Error::OutOfMemory {
            what: format!("{what} of {streams} streams"),
            needed,
            advice: format!(
                "{advice}; fewer streams, a smaller window, or smaller keys and values may fit"
            ),
        },
        other => other,
    }
}

impl Cache {
    /// Slots from the first of one stream to that of the next.
    pub(in crate::model) fn stride(&self, layer: usize) -> u32 {
        let Stored { stride, row_slots, .. } = self.layers[layer];
        (stride * row_slots) as u32
    }

    /// The cache of one stream of several.
    pub(crate) fn share(&self, stream: usize) -> Self {
        let share = |layer: &Stored| {
            let Stored { ring, row_slots, stride, own, turns, .. } = *layer;
            let slots = (ring.sinks + ring.slots) as usize;
            let part = |tensor: &Tensor| {
                let shape = [slots.div_ceil(row_slots), tensor.shape[1]];
                tensor.view(format!("{}.{stream}", tensor.label), stream * stride, &shape)
            };
            let (k, v) = (part(&layer.k), part(&layer.v));
            Stored { ring, k, v, row_slots, stride, states: None, own, turns }
        };
        let (settings, rings) = (self.settings, self.rings);
        let layers = self.layers.iter().map(share).collect();
        let turns = self.turns.iter().map(|table| table.view(&table.label, 0, &table.shape));
        Self { settings, rings, layers, turns: turns.collect() }
    }
}
