//! How long the rings of a cache's layers are, and what they take.
use super::{CacheSettings, Policy};
use crate::Result;
use crate::model::Config;
use crate::model::config::LayerKind;
use crate::ops::{KvType, RingParams};

/// The rings of a cache: the policy's, that of layers with a window of their own, and that of layers with a state.
///
/// Slots of the longest ring are a multiple of the others', so that one position, reduced to fit the longer, has its
/// place in each: nothing on the device counts twice.
#[derive(Clone, Copy)]
pub(super) struct Rings {
    pub(super) policy: RingParams,
    pub(super) own: Option<RingParams>,
    pub(super) states: Option<RingParams>,
}

impl Rings {
    pub(super) fn of(settings: &CacheSettings, config: &Config) -> Result<Self> {
        let mut policy = settings.geometry()?;
        // No model has layers of both kinds besides.
        if let Some(states) = config.state_ring(settings) {
            policy.slots = policy.slots.next_multiple_of(states.slots);
            return Ok(Self { policy, own: None, states: Some(states) });
        }
        let Some(window) = config.own_window().filter(|_| config.keeps_own_window(settings.window))
        else {
            return Ok(Self { policy, own: None, states: None });
        };
        let window = u32::try_from(window).unwrap_or(u32::MAX);
        let least = window.saturating_add(settings.chunk as u32);
        let slots = match settings.policy {
            // All of the cache is written anew, or moved.
            Policy::Recompute | Policy::HalfDiscard => policy.slots,
            // A dense cache ends before a window that is longer than it begins to matter.
            Policy::Dense => least.min(policy.slots),
            Policy::Streaming | Policy::Window => least,
        };
        let mut own = RingParams { window: window.min(slots), slots, ..policy };
        match own.slots < policy.slots {
            true => policy.slots = policy.slots.next_multiple_of(own.slots),
            false => own.slots = own.slots.next_multiple_of(policy.slots),
        }
        Ok(Self { policy, own: Some(own), states: None })
    }

    /// The ring that positions are reduced to fit.
    pub(super) fn longest(self) -> RingParams {
        let slots = self.own.map_or(0, |own| own.slots).max(self.policy.slots);
        RingParams { slots, ..self.policy }
    }

    pub(super) fn of_layer(self, kind: LayerKind) -> RingParams {
        match (kind.window, self.own, self.states) {
            (_, _, Some(states)) if !kind.attends() => states,
            (Some(_), Some(own), _) => own,
            _ => self.policy,
        }
    }
}

/// Bytes of the widest row of keys or of values, which so many slots share, and of one phase of the widest rope table.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) row: u64,
    pub(super) row_slots: u64,
    pub(super) phase: u64,
}

impl Size {
    /// All that a cache takes: of each layer its ring, and the bytes of a row.
    pub(super) fn of(self, layers: &[(RingParams, u64)]) -> u64 {
        let stored = |ring: &RingParams| {
            (u64::from(ring.sinks) + u64::from(ring.slots)).div_ceil(self.row_slots)
        };
        let phases = layers.iter().map(|(ring, _)| ring.phases() as u64).max().unwrap_or(0);
        let rows = layers.iter().map(|(ring, row)| stored(ring) * row);
        2 * rows.sum::<u64>() + phases * self.phase
    }

    /// The largest window with the same sinks and as many slots beside it, of which no tensor passes `limit`.
    pub(super) fn window(self, ring: RingParams, limit: u64) -> u64 {
        let (sinks, spare) = (u64::from(ring.sinks), u64::from(ring.slots - ring.window));
        // S + N rows, S + 2 N phases
        let by_rows = (limit / self.row.max(1) * self.row_slots).saturating_sub(sinks);
        let by_phases = (limit / self.phase.max(1)).saturating_sub(sinks) / 2;
        by_rows.min(by_phases).saturating_sub(spare)
    }

    /// What to try instead: a window that fits, or a type that takes less.
    pub(super) fn tries(self, window: u64, smaller: Option<KvType>) -> Vec<(&'static str, String)> {
        let window = (window > 0).then(|| ("window", window.to_string()));
        let kv = smaller.map(|kv| ("kv", kv.name().to_owned()));
        window.into_iter().chain(kv).collect()
    }
}
