//! Copies between buffers, which no kernel is in; and how fast a device's memory is by them.
#[cfg(feature = "cli")]
use super::Readback;
use super::{Gpu, Tensor};
use crate::Result;
#[cfg(feature = "cli")]
use web_time::Instant;

impl Tensor {
    pub(super) fn encode_copy(&self, encoder: &mut wgpu::CommandEncoder, to: &Self) {
        let (from, into) = (self.place, to.place);
        let size = Some(from.size.min(into.size));
        encoder.copy_buffer_to_buffer(&self.buffer, from.offset, &to.buffer, into.offset, size);
    }
}

impl Gpu {
    /// Submits copies of all of each first tensor to the second, of the same size, one after another. Both may lie in the same
    /// buffer, apart from each other.
    pub fn copy(&self, copies: &[(&Tensor, &Tensor)]) -> Result<()> {
        let through = |(from, to): &&(&Tensor, &Tensor)| from.buffer == to.buffer;
        let largest = copies.iter().filter(through).map(|(from, _)| from.len()).max().unwrap_or(0);
        // WebGPU copies from one buffer to another alone.
        let between = Tensor::zeros(self, "copy", &[largest])?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for copy in copies {
            let (from, to) = copy;
            if from.shape != to.shape {
                return Err(to.misfit("copy", format!("{:?}", from.shape)));
            }
            if !through(&copy) {
                from.encode_copy(&mut encoder, to);
                continue;
            }
            from.encode_copy(&mut encoder, &between);
            let (at, size) = (to.place.offset, Some(from.place.size));
            encoder.copy_buffer_to_buffer(&between.buffer, 0, &to.buffer, at, size);
        }
        self.submit(encoder);
        Ok(())
    }

    #[cfg(feature = "cli")]
    /// Seconds that `times` copies of all of `from` to `to`, of the same size, take together in one submission, the wait for
    /// them included. Each reads its bytes once and writes them once.
    pub async fn time_copies(&self, times: usize, from: &Tensor, to: &Tensor) -> Result<f64> {
        to.expect("copy", [from.len()])?;
        let back = Readback::new(self, 1)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for _ in 0..times {
            from.encode_copy(&mut encoder, to);
        }
        back.encode(&mut encoder, to);
        let start = Instant::now();
        back.submitted(self.submit(encoder));
        back.read(self, &mut [0u32]).await?;
        Ok(start.elapsed().as_secs_f64())
    }
}
