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

impl Work {
    /// Loops of all workgroups, and one more for each of these.
    fn loops(&self) -> u64 {
        let groups: u64 = self.grid.iter().map(|&n| u64::from(n)).product();
        groups.saturating_mul(1 + self.iterations)
    }
}

/// What the loops of a dispatch go over, by which some take longer than others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loops {
    /// A number, or a few.
    #[default]
    Numbers,
    /// A unit of weights for some tokens.
    Units,
    /// A slot of a cache for some queries: as long as a unit, or no time while it is empty.
    Slots {
        /// The first of them.
        first: u32,
        /// The first that is not one of them.
        end: u32,
    },
}

/// How much longer than one over numbers a loop over a unit takes, as measured on SwiftShader and lavapipe.
pub(crate) const UNIT_LOOP: u64 = 32;

/// A dispatch over slots of a cache, of some piece of a program.
struct OverSlots {
    piece: usize,
    first: u32,
    end: u32,
    /// With all of them filled.
    effort: u64,
}

impl OverSlots {
    /// What is spared while the cache holds so many tokens.
    fn spared(&self, filled: u64) -> f64 {
        let (first, end) = (u64::from(self.first), u64::from(self.end));
        let empty = end - filled.clamp(first, end);
        self.effort as f64 * empty as f64 / (end - first).max(1) as f64
    }
}

pub(super) struct Dispatch {
    pub(super) label: String,
    pub(super) kernel: &'static str,
    pub(super) reads: Reads,
    loops: Loops,
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
    /// Whether each dispatch is a piece.
    apart: bool,
}

impl Recording {
    /// A list of which each dispatch is a piece: it may be submitted apart from the others.
    pub fn apart() -> Self {
        Self { apart: true, ..Self::default() }
    }

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
            loops: Loops::default(),
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

    /// Notes what the last dispatch reads.
    pub fn reads(&mut self, reads: Reads) {
        if let Some(dispatch) = self.dispatches.last_mut() {
            dispatch.reads = reads;
        }
    }

    /// Notes what the loops of the last dispatch go over.
    pub fn loops(&mut self, loops: Loops) {
        if let Some(dispatch) = self.dispatches.last_mut() {
            dispatch.loops = loops;
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
        let mut efforts = sums(steps.iter().map(|(_, dispatch)| dispatch.effort()));
        let apart = self.apart && !efforts.is_empty();
        if !apart {
            efforts = vec![efforts.last().copied().unwrap_or_default()];
        }
        let over_slots = |(index, (_, dispatch)): (usize, &Step)| match dispatch.loops {
            Loops::Slots { first, end } => {
                let piece = if apart { index } else { 0 };
                Some(OverSlots { piece, first, end, effort: dispatch.effort() })
            }
            Loops::Numbers | Loops::Units => None,
        };
        let slots = steps.iter().enumerate().filter_map(over_slots).collect();
        Program {
            steps,
            efforts,
            slots,
            #[cfg(test)]
            loops,
        }
    }
}

/// A finished recording: ready-made bind groups, to be encoded as often as wanted.
pub struct Program {
    pub(super) steps: Vec<Step>,
    /// What each piece and all before it are thought to take beside other work, with a full cache: loops over numbers.
    efforts: Vec<u64>,
    /// The dispatches that take less while the cache is not full, in the order of their pieces.
    slots: Vec<OverSlots>,
    /// How often the loops of each dispatch went round, where the device counts that.
    #[cfg(test)]
    pub(super) loops: Option<super::Tensor>,
}

/// One dispatch and what it is bound to.
pub(super) type Step = (wgpu::BindGroup, Dispatch);

impl Dispatch {
    fn effort(&self) -> u64 {
        match self.loops {
            Loops::Numbers => self.work.loops(),
            Loops::Units | Loops::Slots { .. } => UNIT_LOOP * self.work.loops(),
        }
    }

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
        self.efforts.len()
    }

    fn piece(&self, index: usize) -> &[Step] {
        if self.efforts.len() == 1 { &self.steps } else { &self.steps[index..=index] }
    }

    /// One that does nothing, with pieces of such efforts: always, and for what slots of a cache.
    #[cfg(test)]
    pub(crate) fn of_efforts(efforts: &[(u64, Range<u32>)]) -> Self {
        let over_slots = |(piece, (effort, slots)): (usize, &(u64, Range<u32>))| {
            let Range { start: first, end } = *slots;
            (first < end).then_some(OverSlots { piece, first, end, effort: *effort })
        };
        let slots = efforts.iter().enumerate().filter_map(over_slots).collect();
        let efforts = sums(efforts.iter().map(|(effort, _)| *effort));
        Self { steps: Vec::new(), efforts, slots, loops: None }
    }
}

/// Of each and all before it.
fn sums(efforts: impl Iterator<Item = u64>) -> Vec<u64> {
    let add = |sum: &mut u64, effort| {
        *sum = sum.saturating_add(effort);
        Some(*sum)
    };
    efforts.scan(0, add).collect()
}

/// The pieces of programs in a row, over and over.
#[derive(Clone, Copy)]
pub(crate) struct Pieces<'a> {
    programs: &'a [&'a Program],
    /// Of all the programs once.
    count: usize,
    /// Of a piece, in the mean, with a full cache.
    effort: f64,
    /// The tokens that the cache holds, or more than it can.
    filled: u64,
}

impl<'a> Pieces<'a> {
    /// Over a full cache.
    pub(crate) fn of(programs: &'a [&'a Program]) -> Self {
        Self::over(programs, u64::MAX)
    }

    /// Over a cache in which so many tokens have been stored.
    pub(crate) fn over(programs: &'a [&'a Program], filled: u64) -> Self {
        let count: usize = programs.iter().map(|program| program.pieces()).sum();
        let all = programs.iter().filter_map(|program| program.efforts.last());
        let all: f64 = all.map(|&effort| effort as f64).sum();
        // A program has one piece at least.
        Self { programs, count, effort: (all / count as f64).max(1.0), filled }
    }

    /// How many there are until it begins again.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// What a piece is thought to take, in the mean, in loops over numbers.
    pub(crate) fn effort(&self) -> f64 {
        self.effort
    }

    /// What all pieces before this one are thought to take, in mean pieces.
    pub(crate) fn until(&self, index: usize) -> f64 {
        let whole = index / self.count;
        self.within(index % self.count)
            + if whole > 0 { whole as f64 * self.within(self.count) } else { 0.0 }
    }

    /// Of the first so many.
    fn within(&self, mut index: usize) -> f64 {
        let mut effort = 0.0;
        for program in self.programs {
            let there = index.min(program.pieces());
            effort += there.checked_sub(1).map_or(0.0, |last| program.efforts[last] as f64);
            if self.filled < u64::MAX {
                let slots = program.slots.iter().take_while(|slots| slots.piece < there);
                effort -= slots.map(|slots| slots.spared(self.filled)).sum::<f64>();
            }
            index -= there;
        }
        effort / self.effort
    }

    /// The largest, in mean pieces.
    pub(crate) fn largest(&self) -> f64 {
        let each = (0..self.count).map(|index| self.until(index + 1) - self.until(index));
        each.fold(0.0, f64::max)
    }

    fn get(&self, index: usize) -> &'a [Step] {
        let mut index = index % self.count;
        for program in self.programs {
            match index.checked_sub(program.pieces()) {
                Some(beyond) => index = beyond,
                None => return program.piece(index),
            }
        }
        &[]
    }
}

impl Gpu {
    /// Submits programs one after another in one pass and one submission, then the copies for the
    /// host.
    pub fn run(&self, programs: &[&Program], copies: &[(&Tensor, &Readback)]) {
        self.run_times(1, programs, copies);
    }

    /// The same with the programs that many times over.
    pub fn run_times(&self, times: usize, programs: &[&Program], copies: &[(&Tensor, &Readback)]) {
        self.run_pieces(programs, 0..times * Pieces::of(programs).count(), copies);
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
        let pieces = Pieces::of(programs);
        for (bind_group, dispatch) in range.flat_map(|index| pieces.get(index)) {
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
