//! The policy `half-discard`: a cache that is full throws the older half of its window away and goes on.
use super::{Cache, Model, Policy, RopeLayout};
use crate::Result;
use crate::gpu::{Program, Recording};
use crate::ops::{Shift, ShiftParams};

/// Makes room in a cache that fills up, and knows what is left of the stream in it.
pub(crate) struct Shifter {
    program: Program,
    /// S + W
    capacity: u64,
    /// Tokens that go each time.
    discards: u64,
    /// Tokens that have gone so far.
    gone: u64,
}

impl Shifter {
    /// For a cache of that policy; none for others.
    pub(crate) async fn new(model: &Model, cache: &Cache) -> Result<Option<Self>> {
        let (c, settings, ring) = (&model.config, cache.settings(), cache.geometry());
        if settings.policy != Policy::HalfDiscard {
            return Ok(None);
        }
        let neox = c.rope.layout == RopeLayout::Neox;
        // Heads differ in size only where some have a window, which this policy is not for.
        let op = Shift::new(&model.gpu, c.layers[0].head_dim, neox, settings.kv).await?;
        let half = |layer: usize| {
            let kv_heads = c.layers[layer].n_head_kv as u32;
            ShiftParams::half(ring, kv_heads, c.rope_dim(layer) as u32)
        };
        let mut recording = Recording::default();
        for layer in 0..c.n_layer {
            let params = half(layer);
            let tensors = [cache.turns(layer), cache.k(layer), cache.v(layer)];
            op.record(&mut recording, format!("blk.{layer}/shift"), ring, params, tensors)?;
        }
        Ok(Some(Self {
            program: recording.finish(&model.gpu)?,
            capacity: u64::from(ring.sinks) + u64::from(ring.window),
            discards: u64::from(half(0).shift),
            gone: 0,
        }))
    }

    /// Tokens that have been thrown away.
    pub(crate) fn gone(&self) -> u64 {
        self.gone
    }

    /// Tokens after `position` that the cache has room for, one at least: when there is none, room is made.
    pub(crate) fn room(&mut self, model: &Model, position: u64) -> u64 {
        if position - self.gone == self.capacity {
            self.program.run(&model.gpu, &[]);
            self.gone += self.discards;
        }
        self.capacity - (position - self.gone)
    }

    /// Tokens that were fed since the last time: they saw what they would see now.
    pub(crate) fn since(&self, position: u64) -> u64 {
        match self.gone {
            0 => position,
            gone => position - gone - (self.capacity - self.discards),
        }
    }

    /// Starts anew.
    pub(crate) fn reset(&mut self) {
        self.gone = 0;
    }
}
