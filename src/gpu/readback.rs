//! From the device to the host, through a staging buffer made once.
use super::tensor::Place;
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
    /// Room for `len` elements. An error when the device has none.
    pub fn new(gpu: &Gpu, len: usize) -> Result<Self> {
        let descriptor = wgpu::BufferDescriptor {
            label: Some("readback"),
            size: 4 * len.max(1) as u64,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let make = || gpu.device.create_buffer(&descriptor);
        let buffer = gpu.make("a staging buffer", descriptor.size, make)?;
        Counters::add(&gpu.counters.objects, 1);
        Ok(Self { buffer, submission: Mutex::new(None), mapping: Arc::default() })
    }

    pub(super) fn encode(&self, encoder: &mut wgpu::CommandEncoder, from: &Tensor) {
        self.encode_buffer(encoder, &from.buffer, from.place);
    }

    pub(super) fn encode_buffer(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        from: &wgpu::Buffer,
        Place { offset, size }: Place,
    ) {
        let bytes = self.buffer.size().min(size);
        encoder.copy_buffer_to_buffer(from, offset, &self.buffer, 0, Some(bytes));
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

    /// Asks for the first `bytes` to be mapped.
    fn map(&self, bytes: u64) -> Mapping<'_> {
        self.mapping.clear();
        // A device that goes away may drop the teller before it could tell.
        let teller = Teller::new(&self.mapping, Err(None));
        self.buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
            teller.tell(result.map_err(Some));
        });
        Mapping { readback: self, refused: false }
    }

    /// Waits for the copy that was submitted last, and gives its elements. May be dropped at any time: what is read
    /// next is not disturbed by it.
    pub async fn read<E: bytemuck::Pod>(&self, gpu: &Gpu, out: &mut [E]) -> Result<()> {
        let failed = |detail: String| Error::Readback("a staging buffer".to_owned(), detail);
        let bytes = size_of_val(out) as u64;
        let mut mapping = self.map(bytes);
        Counters::add(&gpu.counters.waits, 1);
        // A browser drives the queue by itself, and must not be blocked.
        #[cfg(not(target_arch = "wasm32"))]
        {
            let submission_index = self.submission.lock().ok().and_then(|mut s| s.take());
            let wait = wgpu::PollType::Wait { submission_index, timeout: None };
            let polled = gpu.device.poll(wait);
            gpu.check()?;
            // What was submitted is refused or never ends on a lost device alone.
            if let Err(error) = polled {
                gpu.faults.lose(error.to_string());
                gpu.check()?;
            }
        }
        #[cfg(target_arch = "wasm32")]
        let mapped = super::poke::until(gpu, self.mapping.told()).await;
        #[cfg(not(target_arch = "wasm32"))]
        let mapped = self.mapping.told().await;
        mapping.refused = mapped.is_err();
        gpu.check()?;
        mapped.map_err(|error| {
            failed(error.map_or_else(|| "the device gave no answer".into(), |e| e.to_string()))
        })?;
        let view = self.buffer.get_mapped_range(..bytes).map_err(|e| failed(e.to_string()))?;
        out.copy_from_slice(bytemuck::cast_slice(&view));
        Ok(())
    }
}

/// A staging buffer that is mapped, or is about to be. A device refuses every submission that copies into one, so it
/// ends with whoever wanted to read, whether that was done or not.
struct Mapping<'a> {
    readback: &'a Readback,
    /// It was not mapped after all.
    refused: bool,
}

impl Drop for Mapping<'_> {
    fn drop(&mut self) {
        if !self.refused && !self.readback.mapping.is(Result::is_err) {
            self.readback.buffer.unmap();
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps what is not there should fail right there"
)]
mod tests {
    use super::Readback;
    use crate::Error;
    use crate::gpu::{AdapterChoice, Gpu, Tensor};
    use pollster::block_on;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn device() -> Gpu {
        block_on(Gpu::open(AdapterChoice::Best)).unwrap()
    }

    fn read(gpu: &Gpu, back: &Readback, from: &Tensor) -> Vec<u32> {
        back.submit_copy(gpu, from);
        let mut out = vec![0; from.len()];
        block_on(back.read(gpu, &mut out)).unwrap();
        out
    }
    #[test]
    fn reads_that_are_given_up_leave_nothing_mapped() {
        let gpu = device();
        let tensor = Tensor::upload(&gpu, "t", &[3], &[7u32, 8, 9]).unwrap();
        let back = Readback::new(&gpu, 3).unwrap();
        for _ in 0..10 {
            // Polled once: natively that waits.
            back.submit_copy(&gpu, &tensor);
            let mut out = [0u32; 3];
            let _ = pin!(back.read(&gpu, &mut out)).poll(&mut Context::from_waker(Waker::noop()));
            // Dropped before the device has answered, as a browser's may be; and after.
            back.submit_copy(&gpu, &tensor);
            drop(back.map(12));
            back.submit_copy(&gpu, &tensor);
            let mapping = back.map(12);
            gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
            drop(mapping);
            gpu.check().unwrap();
        }
        assert_eq!(read(&gpu, &back, &tensor), [7, 8, 9]);
    }

    #[test]
    fn an_error_while_reading_leaves_nothing_mapped() {
        let gpu = device();
        let tensor = Tensor::upload(&gpu, "t", &[3], &[7u32, 8, 9]).unwrap();
        let back = Readback::new(&gpu, 3).unwrap();
        back.submit_copy(&gpu, &tensor);
        let noted = "something that was not there";
        gpu.faults.note(Error::Readback(noted.to_owned(), "it was not there".to_owned()));
        let error = block_on(back.read(&gpu, &mut [0u32; 3])).unwrap_err();
        assert!(error.to_string().contains(noted), "{error}");
        assert_eq!(read(&gpu, &back, &tensor), [7, 8, 9]);
    }

    #[test]
    fn reads_from_a_lost_device_end() {
        let gpu = device();
        let tensor = Tensor::upload(&gpu, "t", &[3], &[7u32, 8, 9]).unwrap();
        let back = Readback::new(&gpu, 3).unwrap();
        back.submit_copy(&gpu, &tensor);
        let mapping = back.map(12);
        gpu.destroy();
        drop(mapping);
        for _ in 0..10 {
            back.submit_copy(&gpu, &tensor);
            let error = block_on(back.read(&gpu, &mut [0u32; 3])).unwrap_err();
            assert!(matches!(error, Error::DeviceLost(_)), "{error}");
        }
        assert!(matches!(Readback::new(&gpu, 1).map(|_| ()), Err(Error::DeviceLost(_))));
    }
}
