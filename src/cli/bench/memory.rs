//! What the process holds of the host's memory.
use serde::Serialize;

#[derive(Clone, Copy, Serialize)]
pub(super) struct HostMemory {
    /// Bytes held now, where the system tells.
    pub(super) resident: Option<u64>,
    /// The most that was held at a time, where the system tells.
    pub(super) peak: Option<u64>,
}

impl HostMemory {
    pub(super) fn now() -> Self {
        let resident = memory_stats::memory_stats().map(|stats| stats.physical_mem as u64);
        Self { resident, peak: peak() }
    }
}

#[cfg(unix)]
fn peak() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};
    // In bytes on macOS, in kibibytes elsewhere.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    getrusage(UsageWho::RUSAGE_SELF)
        .ok()
        .and_then(|usage| u64::try_from(usage.max_rss()).ok())
        .map(|rss| rss * unit)
}

#[cfg(not(unix))]
fn peak() -> Option<u64> {
    None
}
