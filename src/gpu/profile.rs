//! Time per dispatch, one pass each: by the device's own clock where it has one, else by the host's.
use super::recording::Step;
use super::tensor::Place;
use super::{Gpu, Program, Readback, Reads, Tensor};
use crate::Result;
use web_time::Instant;

/// What one dispatch took.
#[derive(Clone, Debug, serde::Serialize)]
pub struct KernelTime {
    /// What the recording calls it: `blk.3/ffn_down`.
    pub label: String,
    /// The kernel's name.
    pub kernel: &'static str,
    /// Nanoseconds.
    pub ns: f64,
    /// Bytes it is bound to read.
    pub reads: Reads,
}

/// Dispatches that are timed together: two timestamps each fit every device's query sets.
const AT_A_TIME: usize = 1024;

impl Gpu {
    /// Runs programs in order, and times every dispatch by itself. Slower than [`Gpu::run`], as no dispatch
    /// overlaps the next.
    pub async fn profile(&self, programs: &[&Program]) -> Result<Vec<KernelTime>> {
        let steps: Vec<_> = programs.iter().flat_map(|program| &program.steps).collect();
        let mut times = Vec::with_capacity(steps.len());
        for steps in steps.chunks(AT_A_TIME) {
            let ns = match self.tier.timestamps {
                true => self.by_timestamps(steps).await?,
                false => self.by_waiting(steps).await?,
            };
            times.extend(steps.iter().zip(ns).map(|((_, dispatch), ns)| KernelTime {
                label: dispatch.label.clone(),
                kernel: dispatch.kernel,
                ns,
                reads: dispatch.reads,
            }));
        }
        Ok(times)
    }

    async fn by_timestamps(&self, steps: &[&Step]) -> Result<Vec<f64>> {
        let count = 2 * steps.len() as u32;
        let queries = wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count,
        };
        let resolved = wgpu::BufferDescriptor {
            label: Some("profile"),
            size: 8 * u64::from(count),
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        };
        let (query_set, resolved) = self.make("a profile", resolved.size, || {
            (self.device.create_query_set(&queries), self.device.create_buffer(&resolved))
        })?;
        let back = Readback::new(self, 2 * count as usize)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for ((bind_group, dispatch), i) in steps.iter().zip(0u32..) {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some(&dispatch.label),
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &query_set,
                    beginning_of_pass_write_index: Some(2 * i),
                    end_of_pass_write_index: Some(2 * i + 1),
                }),
            });
            dispatch.encode(&mut pass, bind_group);
        }
        encoder.resolve_query_set(&query_set, 0..count, &resolved, 0);
        back.encode_buffer(&mut encoder, &resolved, Place { offset: 0, size: resolved.size() });
        back.submitted(self.submit(encoder));
        let mut ticks = vec![0u64; count as usize];
        back.read(self, &mut ticks).await?;
        let period = f64::from(self.queue.get_timestamp_period());
        Ok(ticks.chunks(2).map(|t| t[1].saturating_sub(t[0]) as f64 * period).collect())
    }

    async fn by_waiting(&self, steps: &[&Step]) -> Result<Vec<f64>> {
        let back = Readback::new(self, 1)?;
        let token = Tensor::zeros(self, "profile", &[1])?;
        let mut ns = Vec::with_capacity(steps.len());
        for (bind_group, dispatch) in steps {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            dispatch.encode(&mut pass, bind_group);
            drop(pass);
            back.encode(&mut encoder, &token);
            let start = Instant::now();
            back.submitted(self.submit(encoder));
            back.read(self, &mut [0u32]).await?;
            ns.push(start.elapsed().as_secs_f64() * 1e9);
        }
        Ok(ns)
    }
}
