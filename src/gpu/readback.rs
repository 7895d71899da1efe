//! From the device to the host, through a staging buffer made once.
use super::told::{Teller, Told};
use super::{Counters, Gpu, Tensor};
use crate::{Error, Result};
use std::sync::{Arc, Mutex};

/// A staging buffer of four-byte elements. At most one copy may be under way in it.
pub struct Readback {
    buffer: wgpu::Buffer,
    /// The submission whose copy is awaited.
    submission: Mutex<Option<wgpu::SubmissionIndex>>,
    /// Made once, so that a read allocates nothing.
    mapping: Arc<Told<Mapped>>,
}

/// An error without words: the device gave no answer.
type Mapped = Result<(), Option<wgpu::BufferAsyncError>>;

impl Readback {
    /// Room for `len` elements.
    pub fn new(gpu: &Gpu, len: usize) -> Self {
        Counters::add(&gpu.counters.objects, 1);
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: 4 * len.max(1) as u64,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self { buffer, submission: Mutex::new(None), mapping: Arc::default() }
    }

    pub(super) fn encode(&self, encoder: &mut wgpu::CommandEncoder, from: &Tensor) {
        self.encode_buffer(encoder, &from.buffer);
    }

    pub(super) fn encode_buffer(&self, encoder: &mut wgpu::CommandEncoder, from: &wgpu::Buffer) {
        let bytes = self.buffer.size().min(from.size());
        encoder.copy_buffer_to_buffer(from, 0, &self.buffer, 0, Some(bytes));
    }

    pub(super) fn submitted(&self, index: wgpu::SubmissionIndex) {
        if let Ok(mut submission) = self.submission.lock() {
            *submission = Some(index);
        }
    }

    pub(super) fn submit_copy(&self, gpu: &Gpu, from: &Tensor) {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        self.encode(&mut encoder, from);
        self.submitted(gpu.submit(encoder));
    }

    /// Waits for the copy that was submitted last, and gives its elements.
    pub async fn read<E: bytemuck::Pod>(&self, gpu: &Gpu, out: &mut [E]) -> Result<()> {
        let failed = |detail: String| Error::Readback("a staging buffer".to_owned(), detail);
        self.mapping.clear();
        // A device that goes away may drop the teller before it could tell.
        let teller = Teller::new(&self.mapping, Err(None));
        let bytes = size_of_val(out) as u64;
        self.buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
            teller.tell(result.map_err(Some));
        });
        Counters::add(&gpu.counters.waits, 1);
        // A browser drives the queue by itself, and must not be blocked.
        #[cfg(not(target_arch = "wasm32"))]
        {
            let submission_index = self.submission.lock().ok().and_then(|mut s| s.take());
            let wait = wgpu::PollType::Wait { submission_index, timeout: None };
            let polled = gpu.device.poll(wait);
            gpu.check()?;
            // What was submitted is refused or never ends on a lost device alone.
            polled.map_err(|e| Error::DeviceLost(e.to_string()))?;
        }
        let mapped = self.mapping.told().await;
        gpu.check()?;
        mapped.map_err(|error| {
            failed(error.map_or_else(|| "the device gave no answer".into(), |e| e.to_string()))
        })?;
        let view = self.buffer.get_mapped_range(..bytes).map_err(|e| failed(e.to_string()))?;
        out.copy_from_slice(bytemuck::cast_slice(&view));
        drop(view);
        self.buffer.unmap();
        Ok(())
    }
}
