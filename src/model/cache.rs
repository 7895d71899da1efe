//! The cache: sinks and a ring on the GPU, and the positions that never grow.
mod rings;
mod shares;

use super::config::LayerKind;
use super::rope::phase_table;
use super::{Config, Rope, RopeScaling};
use crate::gpu::{Gpu, Tensor};
use crate::ops::{ActivationType, KvType, RingParams, Shift};
use crate::{Error, Result};
use rings::{Rings, Size};
use std::collections::HashMap;

/// Which tokens a query may look back on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The first S tokens and the last W: endless, stable.
    Streaming,
    /// The last W tokens: endless, and soon unstable, as the first tokens are lost.
    Window,
    /// Every token, up to W; then the cache is full and the stream ends.
    Dense,
    /// The last W tokens, computed anew for every token: the slow yardstick.
    Recompute,
    /// The first S tokens and W others; when they are W, the older half of those goes at once and the rest moves up,
    /// as other engines do it: endless, with less and less to see between, and a pause.
    HalfDiscard,
}

impl Policy {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Window => "window",
            Self::Dense => "dense",
            Self::Recompute => "recompute",
            Self::HalfDiscard => "half-discard",
        }
    }

    /// Whether the first S tokens are kept.
    pub fn has_sinks(self) -> bool {
        matches!(self, Self::Streaming | Self::HalfDiscard)
    }
}

/// What a stream's cache should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Which tokens a query may look back on.
    pub policy: Policy,
    /// S, of `streaming` and `half-discard` alone.
    pub sinks: usize,
    /// W, the current token included.
    pub window: usize,
    /// Tokens of a prompt that one pass takes.
    pub chunk: usize,
    /// How K and V are stored.
    pub kv: KvType,
    /// N, when it should be another than W + chunk: W + chunk - 1 or more.
    pub ring: Option<usize>,
    /// How products of one token take their activations. Bytes change the result.
    pub activations: ActivationType,
}

impl CacheSettings {
    /// The default for a model: S = 4, and a window that fills the trained context or 1020,
    /// whichever is smaller.
    pub fn for_model(config: &Config, policy: Policy) -> Self {
        let sinks = if policy.has_sinks() { 4 } else { 0 };
        let window = match policy {
            Policy::Dense => config.n_ctx,
            _ => config.n_ctx.saturating_sub(sinks).clamp(1, 1020),
        };
        let (kv, activations) = (KvType::F16, ActivationType::F32);
        Self { policy, sinks, window, chunk: 64, kv, ring: None, activations }
    }

    /// Tokens of a prompt that one pass should take on a device, where nobody has a wish of his own. Small passes leave a
    /// GPU idle; but every token of a pass takes a slot of the ring, which all steps read: a quarter of the window at most.
    pub fn usual_chunk(&self, gpu: &Gpu) -> usize {
        match gpu.tier.cpu {
            true => 64,
            false => self.window.div_ceil(4).next_power_of_two().clamp(64, 256),
        }
    }

    /// S, W and N, or a sentence on why these settings cannot work.
    pub fn geometry(&self) -> Result<RingParams> {
        const MOST: usize = 1 << 28; // keeps S + 2N + chunk inside u32 and the table inside a file
        let wrong = |which, found: usize, works: &str| {
            Err(Error::Setting { which, found: found.to_string(), works: works.to_owned() })
        };
        if self.window == 0 {
            return wrong("window", 0, "a token must at least see itself; 1 or more works");
        }
        if self.chunk == 0 || self.chunk > 4096 {
            return wrong("chunk", self.chunk, "1 to 4096 works");
        }
        if self.policy == Policy::HalfDiscard && self.window < 2 {
            return wrong("window", 1, "half-discard needs 2 or more, to throw half away");
        }
        if self.policy == Policy::HalfDiscard {
            Shift::expect(self.kv)?;
        }
        if !self.policy.has_sinks() && self.sinks > 0 {
            let works = format!(
                "only policy streaming and half-discard have sinks; leave it out or 0 with {}",
                self.policy.name()
            );
            return wrong("sinks", self.sinks, &works);
        }
        for (which, found) in [("sinks", self.sinks), ("window", self.window)] {
            if found > MOST {
                return wrong(which, found, &format!("{MOST} at most works"));
            }
        }
        let (least, usual) = match self.policy {
            // As many can be taken back as one pass takes, and so can a pass that is left in the middle.
            Policy::Streaming | Policy::Window => {
                (self.window + self.chunk - 1, self.window + self.chunk)
            }
            // These never go round.
            Policy::Dense | Policy::Recompute | Policy::HalfDiscard => (self.window, self.window),
        };
        let slots = self.ring.unwrap_or(usual);
        if slots < least || slots > 2 * MOST {
            let most = 2 * MOST;
            return wrong(
                "ring",
                slots,
                &format!("{least}, for window and chunk, to {most} works"),
            );
        }
        let [sinks, window, slots] = [self.sinks, self.window, slots].map(|n| n as u32);
        Ok(RingParams { sinks, window, slots })
    }
}

/// K and V of every layer, and the table of turns. [S + N, words] each, or, of blocks, a fourth of the rows; the storage
/// index of a key is the phase it was turned to.
pub struct Cache {
    settings: CacheSettings,
    rings: Rings,
    layers: Vec<Stored>,
    /// cos and sin of every phase: [S + 2N, R/2, 2]. Where layers with a window of their own have another, it comes second.
    turns: Vec<Tensor>,
}

/// What a layer keeps.
struct Stored {
    ring: RingParams,
    k: Tensor,
    v: Tensor,
    /// Slots that share a row of both.
    row_slots: usize,
    /// Rows from the first of one stream to that of the next.
    stride: usize,
    /// Where a layer has states that are not of one token.
    states: Option<Tensor>,
    /// Whether sinks are forgotten when they leave the window: it is the layer's own.
    own: bool,
    /// Which rope table is the layer's.
    turns: usize,
}

impl Cache {
    /// Makes room on the device. `divisors` are the model's own of frequencies, if any, by the names of their tensors.
    pub fn new(
        gpu: &Gpu,
        config: &Config,
        settings: CacheSettings,
        divisors: &HashMap<String, Vec<f32>>,
    ) -> Result<Self> {
        Self::of_streams(gpu, config, settings, divisors, 1)
    }

    /// The same for several streams, whose keys and values lie one after another: each has a share ([`Cache::share`]).
    pub(crate) fn of_streams(
        gpu: &Gpu,
        config: &Config,
        settings: CacheSettings,
        divisors: &HashMap<String, Vec<f32>>,
        streams: usize,
    ) -> Result<Self> {
        let rings = Rings::of(&settings, config)?;
        let ring = rings.policy;
        config.expect_capacity(settings.policy, ring)?;
        let kv = settings.kv;
        config.expect_kv(kv)?;
        let words = |kind: LayerKind| kv.row_words(kind.n_head_kv, kind.head_dim);
        let attend = || config.layers.iter().copied().filter(|kind| kind.attends());
        let of_layers: Vec<_> =
            attend().map(|kind| (rings.of_layer(kind), 4 * words(kind) as u64)).collect();
        let turned = (0..config.n_layer).map(|layer| config.rope_dim(layer) as u64);
        let phase = 8 * turned.max().unwrap_or(0) / 2;
        let widest = |kv: KvType, has: &dyn Fn(RingParams) -> bool| {
            let rows = attend().filter(|&kind| has(rings.of_layer(kind)));
            let rows = rows.map(|kind| 4 * kv.row_words(kind.n_head_kv, kind.head_dim) as u64);
            Size { row: rows.max().unwrap_or(0), row_slots: kv.row_slots() as u64, phase }
        };
        // How long the policy's window may be, only those layers decide that it is for.
        let of_policy = |kv| widest(kv, &|of| of == ring);
        let (size, any) = (of_policy(kv), widest(kv, &|_| true));
        let no_room = |window: u64, smaller: Option<KvType>| Error::NoRoom {
            what: format!(
                "a cache of {} + {} tokens, of {} bytes each as {},",
                ring.sinks,
                ring.slots,
                config.kv_bytes(kv).unwrap_or(0),
                kv.name()
            ),
            needed: size.of(&of_layers) + rings.states.map_or(0, |ring| config.state_bytes(ring)),
            tries: config
                .chunk_to_try(&settings)
                .into_iter()
                .chain(size.tries(window, smaller))
                .collect(),
        };
        // What a buffer takes is known before. What a device has is not: then half of what was asked for may fit.
        let limit = gpu.tier.max_binding.min(gpu.tier.max_buffer);
        let (fits, smaller) = (size.window(ring, limit), config.smaller_kv(&settings));
        if u64::from(ring.window) > fits || any.window(rings.longest(), limit) == 0 {
            // The rope table may be what does not fit.
            let smaller = smaller.filter(|&kv| of_policy(kv).window(ring, limit) > fits);
            return Err(no_room(fits, smaller));
        }
        let whole = |error| match error {
            Error::OutOfMemory { .. } if streams > 1 => shares::no_room(error, streams),
            Error::OutOfMemory { .. } => no_room(u64::from(ring.window) / 2, smaller),
            other => other,
        };
        // Where the policy has its way in all layers, theirs may still be turned in another way.
        let local = match (rings.own, config.local_rope) {
            (None, None) => None,
            (own, rope) => Some((rope.unwrap_or(config.rope), own.unwrap_or(ring))),
        };
        let store = |(layer, &kind): (usize, &LayerKind)| {
            let ring = rings.of_layer(kind);
            let slots = (ring.sinks + ring.slots) as usize;
            let row_slots = if kind.attends() { kv.row_slots() } else { 1 };
            let [k, v] = if kind.attends() { [words(kind); 2] } else { config.state_words() };
            let stride = shares::stride(slots.div_ceil(row_slots), [k, v], streams);
            let make = |name: &str, words| {
                Tensor::zeros(gpu, format!("kv.{layer}.{name}"), &[streams * stride, words])
            };
            let own = kind.window.is_some() && rings.own.is_some();
            let turns = usize::from(kind.window.is_some() && local.is_some());
            let states = config.states_shape(kind, ring);
            let states = states
                .map(|shape| Tensor::zeros(gpu, format!("kv.{layer}.states"), &shape))
                .transpose()?;
            let (k, v) = (make("k", k)?, make("v", v)?);
            Ok(Stored { ring, k, v, row_slots, stride, states, own, turns })
        };
        let layers = config.layers.iter().enumerate().map(store);
        let layers = layers.collect::<Result<Vec<_>>>().map_err(whole)?;
        let factors = match config.rope.scaling {
            RopeScaling::Long { n_ctx_orig, .. } if ring.capacity() > u64::from(n_ctx_orig) => {
                divisors.get("rope_factors_long")
            }
            RopeScaling::Long { .. } => divisors.get("rope_factors_short"),
            _ => divisors.get("rope_freqs"),
        };
        let factors = factors.map(Vec::as_slice);
        let table = |((rope, ring), factors): ((Rope, RingParams), Option<&[f32]>)| {
            let (frequencies, scale) = rope.frequencies(factors);
            let table = phase_table(&frequencies, scale, ring.phases());
            let shape = [ring.phases(), frequencies.len(), 2];
            Tensor::upload(gpu, "turns", &shape, &table).map_err(whole)
        };
        let local = local.map(|local| (local, config.local_factors(factors)));
        let turns = [((config.rope, ring), factors)].into_iter().chain(local).map(table);
        let turns = turns.collect::<Result<_>>()?;
        Ok(Self { settings, rings, layers, turns })
    }

    /// The settings it was made from.
    pub fn settings(&self) -> CacheSettings {
        self.settings
    }

    /// S, W and N.
    pub fn geometry(&self) -> RingParams {
        self.rings.policy
    }

    /// The same with the slots of the longest ring of any layer: positions are reduced to fit it.
    pub fn longest(&self) -> RingParams {
        self.rings.longest()
    }

    /// S, W and N of a layer: those of the cache, or of the layer's own window.
    pub fn ring(&self, layer: usize) -> RingParams {
        self.layers[layer].ring
    }

    /// Whether a layer forgets sinks like other tokens: its window is the one that it was trained with.
    pub fn forgets_sinks(&self, layer: usize) -> bool {
        self.layers[layer].own
    }

    /// cos and sin of every phase of a layer's ring.
    pub(super) fn turns(&self, layer: usize) -> &Tensor {
        &self.turns[self.layers[layer].turns]
    }

    /// Stored keys of a layer.
    pub fn k(&self, layer: usize) -> &Tensor {
        &self.layers[layer].k
    }

    /// Stored values of a layer.
    pub fn v(&self, layer: usize) -> &Tensor {
        &self.layers[layer].v
    }

    /// States of a layer that has some, each in one row.
    pub(crate) fn states(&self, layer: usize) -> Option<&Tensor> {
        self.layers[layer].states.as_ref()
    }

    /// Every tensor of keys and values, a layer's after the other's; of a layer that does not attend, what it keeps instead.
    /// With each how many slots share a row of it.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (&Tensor, usize)> {
        self.layers.iter().flat_map(|layer| {
            let (each, states) = (layer.row_slots, layer.states.as_ref());
            [(&layer.k, each), (&layer.v, each)].into_iter().chain(states.map(|states| (states, 1)))
        })
    }

    /// Bytes that K, V and the tables hold on the device.
    pub fn bytes(&self) -> u64 {
        let stored = self.stored().map(|(tensor, _)| tensor);
        stored.chain(&self.turns).map(Tensor::size).sum()
    }

    /// Bytes of keys and values that the cache holds once `tokens` have been stored.
    pub fn filled_bytes(&self, tokens: u64) -> u64 {
        let held = |(tensor, row_slots): (&Tensor, usize)| {
            let slots = (tensor.shape[0] * row_slots) as u64;
            tensor.size() * tokens.min(slots) / slots
        };
        self.stored().map(held).sum()
    }

    /// Tokens that can be taken back once so many were written: no ring has written over what one of them would see.
    pub(crate) fn spare(&self, reach: u64) -> u64 {
        let rings = self.layers.iter().map(|layer| layer.ring);
        let round = rings.filter(|ring| reach > u64::from(ring.sinks) + u64::from(ring.slots));
        round.map(|ring| u64::from(ring.slots - ring.window)).min().unwrap_or(u64::MAX)
    }

    /// Tokens that fit before the stream must end, where it must.
    pub fn capacity(&self) -> Option<u64> {
        match self.settings.policy {
            Policy::Dense => Some(u64::from(self.rings.policy.window)),
            _ => None,
        }
    }
}

/// A position the kernels take for `t`: the same number while the ring first fills, then one in
/// [S + N, S + 2N) with the same slot. Every test a kernel makes gives the same answer for both.
pub fn reduce(t: u64, ring: RingParams) -> u32 {
    let (sinks, slots) = (u64::from(ring.sinks), u64::from(ring.slots));
    let reduced = if t < sinks + slots { t } else { sinks + slots + (t - sinks) % slots };
    reduced as u32
}
