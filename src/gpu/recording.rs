//! Dispatches noted down once, then replayed for every token.
use super::tensor::Place;
use super::{Counters, Gpu, Kernel, Readback, Reads, Tensor};
use crate::{Error, Result};
use std::ops::Range;

/// Where the parameters of a dispatch may begin.
const PARAMS_ALIGN: usize = Tensor::ALIGN;

/// Loop iterations of one invocation after which lavapipe of Mesa 22.3 ends its loops without a word, all of them
/// together.
pub const MOST_ITERATIONS: u64 = 65_535;

/// Where a kernel runs, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Workgroups in x, y and z.
    pub grid: [u32; 3],
    /// Loop iterations of the invocation that has the most of them, all its loops together, or a little more.
    pub iterations: u64,
}

pub(super) struct Dispatch {
    pub(super) label: String,
    pub(super) kernel: &'static str,
    pub(super) reads: Reads,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    buffers: Vec<(wgpu::Buffer, Place)>,
    #[cfg(test)]
    made_from: Kernel,
    params_size: u64,
    pub(super) params_offset: u64,
    pub(super) work: Work,
}

/// A list of dispatches in order. Nothing runs until [`Recording::finish`].
#[derive(Default)]
pub struct Recording {
    dispatches: Vec<Dispatch>,
    params: Vec<u8>,
    /// Dispatches that begin a piece, but for the first.
    borders: Vec<usize>,
}

impl Recording {
    /// Notes one dispatch. `tensors` are bindings 1.. in the kernel's order. An error where the kernel would loop longer
    /// than every driver lets it.
    pub fn dispatch<P: bytemuck::Pod>(
        &mut self,
        label: impl Into<String>,
        kernel: &Kernel,
        params: P,
        tensors: &[&Tensor],
        work: Work,
    ) -> Result<()> {
        assert_eq!(tensors.len(), kernel.source.bindings.len(), "{}", kernel.source.name);
        assert_eq!(size_of::<P>() as u64, kernel.source.params_size, "{}", kernel.source.name);
        let label = label.into();
        if work.iterations > MOST_ITERATIONS {
            return Err(Error::Unsupported(format!(
                "{label}: at this size {} would loop {} times in one invocation, and drivers may end it after \
                 {MOST_ITERATIONS}: choose a smaller cache, or a smaller model",
                kernel.source.name, work.iterations
            )));
        }
        let params_offset = self.params.len() as u64;
        self.params.extend_from_slice(bytemuck::bytes_of(&params));
        self.params.resize(self.params.len().next_multiple_of(PARAMS_ALIGN), 0);
        self.dispatches.push(Dispatch {
            label,
            kernel: kernel.source.name,
            reads: Reads::default(),
            pipeline: kernel.pipeline.clone(),
            layout: kernel.layout.clone(),
            buffers: tensors.iter().map(|tensor| (tensor.buffer.clone(), tensor.place)).collect(),
            #[cfg(test)]
            made_from: kernel.clone(),
            params_size: kernel.source.params_size,
            params_offset,
            work,
        });
        Ok(())
    }

    /// What follows begins a piece: it may be submitted apart from what came before.
    pub fn border(&mut self) {
        self.borders.push(self.dispatches.len());
    }

    /// Notes what the last dispatch reads.
    pub fn reads(&mut self, reads: Reads) {
        if let Some(dispatch) = self.dispatches.last_mut() {
            dispatch.reads = reads;
        }
    }

    /// Every dispatch's kernel and work.
    #[cfg(test)]
    pub(crate) fn works(&self) -> impl Iterator<Item = (&'static str, Work)> + '_ {
        self.dispatches.iter().map(|dispatch| (dispatch.kernel, dispatch.work))
    }

    /// Makes the bind groups and uploads every `Params`. An error when the device has no room for them.
    pub fn finish(self, gpu: &Gpu) -> Result<Program> {
        gpu.make("the parameters of a program", self.params.len() as u64, || self.made(gpu))
    }

    fn made(self, gpu: &Gpu) -> Program {
        let params = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: self.params.len().max(PARAMS_ALIGN) as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        gpu.queue.write_buffer(&params, 0, &self.params);
        Counters::add(&gpu.counters.objects, 1 + self.dispatches.len() as u64);
        #[cfg(test)]
        let loops = super::counted::room(gpu, self.params.len());
        let bind = |dispatch: &Dispatch| {
            let params = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &params,
                // Bound here and not at each encoding: an offset that moves is one more thing to hand to a browser and
                // to check, for every dispatch of every token.
                offset: dispatch.params_offset,
                size: wgpu::BufferSize::new(dispatch.params_size),
            });
            let storage = dispatch.buffers.iter().map(|(buffer, place)| {
                wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset: place.offset,
                    size: wgpu::BufferSize::new(place.size),
                })
            });
            let buffers = std::iter::once(params).chain(storage);
            #[cfg(test)]
            let buffers = buffers.chain(loops.as_ref().map(|loops| {
                wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &loops.buffer,
                    offset: dispatch.params_offset,
                    size: wgpu::BufferSize::new(4),
                })
            }));
            let entries: Vec<_> = buffers
                .zip(0..)
                .map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource })
                .collect();
            gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&dispatch.label),
                layout: &dispatch.layout,
                entries: &entries,
            })
        };
        let steps = self.dispatches.into_iter().map(|dispatch| (bind(&dispatch), dispatch));
        let steps: Vec<_> = steps.collect();
        let mut ends = self.borders;
        ends.push(steps.len());
        Program {
            steps,
            ends,
            #[cfg(test)]
            loops,
        }
    }
}

/// A finished recording: ready-made bind groups, to be encoded as often as wanted.
pub struct Program {
    pub(super) steps: Vec<Step>,
    /// Where each piece ends.
    ends: Vec<usize>,
    /// How often the loops of each dispatch went round, where the device counts that.
    #[cfg(test)]
    pub(super) loops: Option<super::Tensor>,
}

/// One dispatch and what it is bound to.
pub(super) type Step = (wgpu::BindGroup, Dispatch);

impl Dispatch {
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>, bind_group: &wgpu::BindGroup) {
        let [x, y, z] = self.work.grid;
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }

    fn count(&self, counters: &Counters) {
        Counters::add(&counters.dispatches, 1);
        Counters::add(&counters.weight_bytes, self.reads.weights);
        Counters::add(&counters.activation_bytes, self.reads.activations);
    }
}

impl Program {
    /// Submits the program by itself. See [`Gpu::run`].
    pub fn run(&self, gpu: &Gpu, copies: &[(&Tensor, &Readback)]) {
        gpu.run(&[self], copies);
    }

    /// Pieces that may be submitted apart, one at least.
    pub fn pieces(&self) -> usize {
        self.ends.len()
    }

    fn piece(&self, index: usize) -> &[Step] {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.steps[begin..self.ends[index]]
    }
}

/// The piece of so many programs in a row, over and over.
fn piece<'a>(programs: &[&'a Program], index: usize) -> &'a [Step] {
    let mut index = index % pieces(programs);
    for program in programs {
        match index.checked_sub(program.pieces()) {
            Some(beyond) => index = beyond,
            None => return program.piece(index),
        }
    }
    &[]
}

/// The pieces of programs together.
pub(crate) fn pieces(programs: &[&Program]) -> usize {
    programs.iter().map(|program| program.pieces()).sum()
}

impl Gpu {
    /// Submits programs one after another in one pass and one submission, then the copies for the
    /// host.
    pub fn run(&self, programs: &[&Program], copies: &[(&Tensor, &Readback)]) {
        self.run_times(1, programs, copies);
    }

    /// The same with the programs that many times over.
    pub fn run_times(&self, times: usize, programs: &[&Program], copies: &[(&Tensor, &Readback)]) {
        self.run_pieces(programs, 0..times * pieces(programs), copies);
    }

    /// Submits some pieces of the programs, which are there over and over. What is submitted piece by piece computes
    /// the same as what goes together.
    pub fn run_pieces(
        &self,
        programs: &[&Program],
        range: Range<usize>,
        copies: &[(&Tensor, &Readback)],
    ) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for (bind_group, dispatch) in range.flat_map(|index| piece(programs, index)) {
            #[cfg(test)]
            dispatch.made_from.note_run(self);
            dispatch.encode(&mut pass, bind_group);
            dispatch.count(&self.counters);
        }
        drop(pass);
        Counters::add(&self.counters.passes, 1);
        for (tensor, readback) in copies {
            readback.encode(&mut encoder, tensor);
        }
        let index = self.submit(encoder);
        for (_, readback) in copies {
            readback.submitted(index.clone());
        }
    }

    /// Hands the writes so far to the device, so that their staging memory is freed early.
    pub fn flush(&self) {
        self.queue.submit([]);
        #[cfg(not(target_arch = "wasm32"))]
        // A failure is noted by the device's own callbacks, and told by `check`.
        let _ = self.device.poll(wgpu::PollType::Poll);
    }

    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        Counters::add(&self.counters.submits, 1);
        self.queue.submit([encoder.finish()])
    }
}
