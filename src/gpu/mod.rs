//! The only module that names wgpu: a device, tensors, kernels, recordings.
mod kernel;
mod open;
mod readback;
mod recording;
mod tensor;

pub(crate) use kernel::wgsl;
pub use kernel::{Access, Kernel, KernelSource};
pub use open::{AdapterChoice, AdapterReport, BrowserAdapter, Gpu, Tier, adapters};
pub use readback::Readback;
pub use recording::{Program, Recording};
pub use tensor::Tensor;

use std::sync::atomic::{AtomicU64, Ordering};

/// What the engine has asked of the device so far. Speed is counted before it is timed.
#[derive(Debug, Default)]
pub struct Counters {
    /// Compute dispatches encoded.
    pub dispatches: AtomicU64,
    /// Submissions to the queue.
    pub submits: AtomicU64,
    /// Times the host waited for the device.
    pub waits: AtomicU64,
    /// Small writes from the host (frame, token ids).
    pub writes: AtomicU64,
    /// Buffers, bind groups and pipelines made.
    pub objects: AtomicU64,
    /// Bytes of device memory now held in tensors.
    pub bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Bytes of device memory now held in tensors.
    pub fn held(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The counters as plain numbers: dispatches, submits, waits, writes, objects, bytes.
    pub fn snapshot(&self) -> [u64; 6] {
        [&self.dispatches, &self.submits, &self.waits, &self.writes, &self.objects, &self.bytes]
            .map(|counter| counter.load(Ordering::Relaxed))
    }
}
