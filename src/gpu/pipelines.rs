//! Pipelines: how many are being compiled, and what a driver has compiled, kept for the next start where the backend
//! can tell it (Vulkan).
use super::Gpu;
use crossbeam_utils::sync::WaitGroup;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// More than any set of our kernels comes to; a file that grew beyond it is started anew.
const MOST_BYTES: usize = 64 << 20;
/// The checksum at the start of a file.
const SUM_BYTES: usize = size_of::<u64>();

/// A driver's cache, and the file it came from and goes to.
#[derive(Default)]
pub(super) struct Pipelines {
    cache: Option<wgpu::PipelineCache>,
    file: PathBuf,
    /// The checksum of what the file held.
    sum: u64,
    /// Held by every thread that compiles for the device.
    compiling: WaitGroup,
}

/// A process may end once its device is dropped, and a driver must neither compile nor be unloaded by another thread
/// then.
impl Drop for Pipelines {
    fn drop(&mut self) {
        std::mem::take(&mut self.compiling).wait();
    }
}

/// wgpu checks the head of its data alone, and hands the rest to the driver as it is.
fn sum(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}

/// What the file holds, if it is whole.
fn read(file: &Path) -> Option<Vec<u8>> {
    let length = std::fs::metadata(file).ok()?.len();
    if length > (MOST_BYTES + SUM_BYTES) as u64 {
        return None;
    }
    let bytes = std::fs::read(file).ok()?;
    let (head, data) = bytes.split_at_checked(SUM_BYTES)?;
    (head == sum(data).to_le_bytes()).then(|| data.to_vec())
}

impl Pipelines {
    /// Opens what `folder` keeps for this adapter. Nothing that lies there, or fails to, is an error: at worst
    /// everything is compiled anew.
    pub(super) fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: &Path) -> Self {
        let key = wgpu::util::pipeline_cache_key(info);
        let offered = device.features().contains(wgpu::Features::PIPELINE_CACHE);
        let Some(key) = key.filter(|_| offered) else { return Self::default() };
        let file = folder.join(format!("{key}.bin"));
        let data = read(&file);
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("pipelines"),
            data: data.as_deref(),
            fallback: true,
        };
        // SAFETY: the data was written by `keep`, as the checksum says, from what wgpu had given; wgpu and the
        // driver each check that it is theirs.
        #[allow(unsafe_code, reason = "wgpu cannot prove where data on a disk comes from")]
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        let sum = data.as_deref().map_or(0, sum);
        Self { cache: Some(cache), file, sum, compiling: WaitGroup::new() }
    }

    /// To be held by a thread for as long as it compiles.
    pub(super) fn compiling(&self) -> WaitGroup {
        self.compiling.clone()
    }

    pub(super) fn cache(&self) -> Option<wgpu::PipelineCache> {
        self.cache.clone()
    }

    fn keep(&self) {
        let Some(data) = self.cache.as_ref().and_then(wgpu::PipelineCache::get_data) else {
            return;
        };
        let sum = sum(&data);
        if sum == self.sum || data.len() > MOST_BYTES {
            return;
        }
        let bytes = [&sum.to_le_bytes()[..], &data].concat();
        // Without it the next start is slower; nothing else depends on it.
        let _ = crate::kept::keep(&self.file, &bytes);
    }
}

impl Gpu {
    /// Writes what the driver has compiled so far to the folder that the device was opened with, if that is anything
    /// new. A folder that cannot be written to is left alone.
    pub fn keep_pipelines(&self) {
        self.pipelines.keep();
    }
}
