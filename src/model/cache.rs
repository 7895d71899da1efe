//! The cache: sinks and a ring on the GPU, and the positions that never grow.
use crate::gpu::{Gpu, Tensor};
use crate::model::Config;
use crate::ops::{ActivationType, RingParams};
use crate::{Error, Result};

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

/// How K and V are stored. Sums are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    /// Half precision, packed in pairs; needs no `shader-f16`.
    #[default]
    F16,
    /// Single precision.
    F32,
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

/// K and V of every layer, and the table of turns. [S + N, words] each; the storage index of a key
/// is the phase it was turned to.
pub struct Cache {
    settings: CacheSettings,
    ring: RingParams,
    k: Vec<Tensor>,
    v: Vec<Tensor>,
    /// cos and sin of every phase: [S + 2N, R/2, 2].
    pub(super) turns: Tensor,
}

/// Bytes of one row of keys or of values, and of one phase of the rope table.
#[derive(Clone, Copy)]
struct Size {
    row: u64,
    phase: u64,
}

impl Size {
    /// All that a cache takes.
    fn of(self, ring: RingParams, layers: usize) -> u64 {
        let stored = u64::from(ring.sinks) + u64::from(ring.slots);
        2 * layers as u64 * stored * self.row + ring.phases() as u64 * self.phase
    }

    /// The largest window with the same sinks and as many slots beside it, of which no tensor passes `limit`.
    fn window(self, ring: RingParams, limit: u64) -> u64 {
        let (sinks, spare) = (u64::from(ring.sinks), u64::from(ring.slots - ring.window));
        // S + N rows, S + 2 N phases
        let by_rows = (limit / self.row.max(1)).saturating_sub(sinks);
        let by_phases = (limit / self.phase.max(1)).saturating_sub(sinks) / 2;
        by_rows.min(by_phases).saturating_sub(spare)
    }

    /// What to try instead.
    fn tries(self, window: u64, kv: KvType) -> Vec<(&'static str, String)> {
        let window = (window > 0).then(|| ("window", window.to_string()));
        let kv = (kv == KvType::F32).then(|| ("kv", "f16".to_owned()));
        window.into_iter().chain(kv).collect()
    }
}

impl Cache {
    /// Makes room on the device. `factors` are the model's own divisors of frequencies, if any.
    pub fn new(
        gpu: &Gpu,
        config: &Config,
        settings: CacheSettings,
        factors: Option<&[f32]>,
    ) -> Result<Self> {
        let ring = settings.geometry()?;
        let elements = config.n_head_kv as u64 * config.head_dim as u64;
        let words = if settings.kv == KvType::F16 { elements / 2 } else { elements };
        let size = Size { row: 4 * words, phase: 8 * config.rope.dim as u64 / 2 };
        let no_room = |window: u64| Error::NoRoom {
            what: format!("a cache of {} + {} tokens", ring.sinks, ring.slots),
            needed: size.of(ring, config.n_layer),
            tries: size.tries(window, settings.kv),
        };
        // What a buffer takes is known before. What a device has is not: then half of what was asked for may fit.
        let limit = gpu.tier.max_binding.min(gpu.tier.max_buffer);
        let fits = size.window(ring, limit);
        if u64::from(ring.window) > fits {
            return Err(no_room(fits));
        }
        let whole = |error| match error {
            Error::OutOfMemory { .. } => no_room(u64::from(ring.window) / 2),
            other => other,
        };
        let (stored, words) = ((ring.sinks + ring.slots) as usize, words as usize);
        let make = |name: &str| -> Result<Vec<Tensor>> {
            (0..config.n_layer)
                .map(|layer| Tensor::zeros(gpu, format!("kv.{layer}.{name}"), &[stored, words]))
                .collect()
        };
        let (k, v) = (make("k").map_err(whole)?, make("v").map_err(whole)?);
        let (frequencies, scale) = config.rope.frequencies(factors);
        let table = crate::model::config::phase_table(&frequencies, scale, ring.phases());
        let shape = [ring.phases(), frequencies.len(), 2];
        let turns = Tensor::upload(gpu, "turns", &shape, &table).map_err(whole)?;
        Ok(Self { settings, ring, k, v, turns })
    }

    /// The settings it was made from.
    pub fn settings(&self) -> CacheSettings {
        self.settings
    }

    /// S, W and N.
    pub fn geometry(&self) -> RingParams {
        self.ring
    }

    /// Stored keys of a layer.
    pub fn k(&self, layer: usize) -> &Tensor {
        &self.k[layer]
    }

    /// Stored values of a layer.
    pub fn v(&self, layer: usize) -> &Tensor {
        &self.v[layer]
    }

    /// Bytes that K, V and the table hold on the device.
    pub fn bytes(&self) -> u64 {
        self.k.iter().chain(&self.v).chain([&self.turns]).map(Tensor::size).sum()
    }

    /// Bytes of keys and values that the cache holds once `tokens` have been stored.
    pub fn filled_bytes(&self, tokens: u64) -> u64 {
        let stored = u64::from(self.ring.sinks) + u64::from(self.ring.slots);
        let all: u64 = self.k.iter().chain(&self.v).map(Tensor::size).sum();
        all / stored * tokens.min(stored)
    }

    /// Tokens that fit before the stream must end, where it must.
    pub fn capacity(&self) -> Option<u64> {
        match self.settings.policy {
            Policy::Dense => Some(u64::from(self.ring.window)),
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
