//! How fast a device's memory is: copies between buffers, which no kernel is in.
use super::{Gpu, Readback, Tensor};
use crate::Result;
use web_time::Instant;

impl Gpu {
    /// Seconds that `times` copies of all of `from` to `to`, of the same size, take together in one submission, the wait for
    /// them included. Each reads its bytes once and writes them once.
    pub async fn time_copies(&self, times: usize, from: &Tensor, to: &Tensor) -> Result<f64> {
        to.expect("copy", [from.len()])?;
        let back = Readback::new(self, 1)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for _ in 0..times {
            encoder.copy_buffer_to_buffer(&from.buffer, 0, &to.buffer, 0, None);
        }
        back.encode(&mut encoder, to);
        let start = Instant::now();
        back.submitted(self.submit(encoder));
        back.read(self, &mut [0u32]).await?;
        Ok(start.elapsed().as_secs_f64())
    }
}
