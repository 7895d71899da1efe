//! The only module that names wgpu: a device, tensors, kernels, recordings.
#[cfg(target_arch = "wasm32")]
mod ahead;
mod copies;
#[cfg(test)]
mod counted;
mod faults;
mod kernel;
mod open;
#[cfg(not(target_arch = "wasm32"))]
mod pipelines;
#[cfg(target_arch = "wasm32")]
mod poke;
mod profile;
#[cfg(test)]
mod ran;
mod readback;
mod recording;
mod tensor;
mod tier;
mod told;
mod trial;
#[cfg(test)]
mod within;

pub(crate) use crate::shaders::wgsl;
#[cfg(test)]
pub(crate) use counted::counted_loops;
pub use kernel::{Access, Kernel, KernelSource};
pub use open::{AdapterChoice, AdapterReport, BrowserAdapter, Gpu, adapters};
pub use profile::KernelTime;
#[cfg(test)]
pub(crate) use ran::with_overrides;
pub use readback::Readback;
pub use recording::{Loops, MOST_ITERATIONS, Program, Recording, Work};
pub(crate) use recording::{Pieces, UNIT_LOOP};
pub use tensor::Tensor;
pub use tier::{Class, Tier};
pub use trial::{HALF_CHECK, HalfCheckParams, SUBGROUP_CHECK, SubgroupCheckParams};

use std::sync::atomic::{AtomicU64, Ordering};

/// What the engine has asked of the device so far. Speed is counted before it is timed.
#[derive(Debug, Default)]
pub struct Counters {
    dispatches: AtomicU64,
    passes: AtomicU64,
    submits: AtomicU64,
    waits: AtomicU64,
    writes: AtomicU64,
    objects: AtomicU64,
    held: AtomicU64,
    weight_bytes: AtomicU64,
    cache_bytes: AtomicU64,
    activation_bytes: AtomicU64,
}

/// The counters as plain numbers; the difference of two is what happened in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Compute dispatches encoded.
    pub dispatches: u64,
    /// Compute passes encoded.
    pub passes: u64,
    /// Submissions to the queue.
    pub submits: u64,
    /// Times the host waited for the device.
    pub waits: u64,
    /// Small writes from the host (frame, token ids).
    pub writes: u64,
    /// Buffers, bind groups and pipelines made.
    pub objects: u64,
    /// Bytes of weights that kernels were bound to read.
    pub weight_bytes: u64,
    /// Bytes of keys and values that kernels were bound to read.
    pub cache_bytes: u64,
    /// Bytes of activations that products were bound to read, once for each workgroup that does.
    pub activation_bytes: u64,
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            dispatches: self.dispatches - before.dispatches,
            passes: self.passes - before.passes,
            submits: self.submits - before.submits,
            waits: self.waits - before.waits,
            writes: self.writes - before.writes,
            objects: self.objects - before.objects,
            weight_bytes: self.weight_bytes - before.weight_bytes,
            cache_bytes: self.cache_bytes - before.cache_bytes,
            activation_bytes: self.activation_bytes - before.activation_bytes,
        }
    }
}

/// Bytes that one dispatch is bound to read from the device's memory, by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Reads {
    /// Weights and their scales.
    pub weights: u64,
    /// Inputs of products, once for each workgroup that reads them.
    pub activations: u64,
}

impl Reads {
    /// So many times the same.
    pub(crate) fn times(self, times: u64) -> Self {
        Self { weights: times * self.weights, activations: times * self.activations }
    }
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Notes keys and values that a step will read.
    pub(crate) fn read_cache(&self, bytes: u64) {
        Self::add(&self.cache_bytes, bytes);
    }

    /// Bytes of device memory now held in tensors.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The counters as they are now.
    pub fn snapshot(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            dispatches: get(&self.dispatches),
            passes: get(&self.passes),
            submits: get(&self.submits),
            waits: get(&self.waits),
            writes: get(&self.writes),
            objects: get(&self.objects),
            weight_bytes: get(&self.weight_bytes),
            cache_bytes: get(&self.cache_bytes),
            activation_bytes: get(&self.activation_bytes),
        }
    }
}
