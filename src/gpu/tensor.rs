//! A buffer with a name and a shape.
use super::{Counters, Gpu};
use crate::{Error, Result};
use std::sync::Arc;

/// Four-byte elements (`f32`, `u32`, packed quants) on the device, row-major, the last dimension
/// contiguous.
pub struct Tensor {
    /// What captures and errors call it: `act.x`, `w.blk.3.attn_q`, `kv.3.k`.
    pub label: String,
    /// In elements of four bytes.
    pub shape: Vec<usize>,
    pub(super) buffer: wgpu::Buffer,
    /// Where it begins in the buffer, in bytes, and how many it has there.
    pub(super) place: Place,
    held: Arc<Held>,
}

/// Bytes of a buffer.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Bytes on the device, for as long as a tensor has them.
struct Held {
    bytes: u64,
    counters: Arc<Counters>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counters.held.fetch_sub(self.bytes, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Tensor {
    /// A tensor of zeros. An error when the device has no room or cannot bind one so large.
    pub fn zeros(gpu: &Gpu, label: impl Into<String>, shape: &[usize]) -> Result<Self> {
        let label = label.into();
        let size = shape.iter().try_fold(4u64, |n, &d| n.checked_mul(d as u64));
        let limit = gpu.tier.max_binding.min(gpu.tier.max_buffer);
        let size = size.filter(|&size| size <= limit).ok_or_else(|| Error::OutOfMemory {
            what: label.clone(),
            needed: size.unwrap_or(u64::MAX),
            advice: format!("this adapter binds at most {limit} bytes at once"),
        })?;
        let descriptor = wgpu::BufferDescriptor {
            label: Some(&label),
            // WebGPU has no empty bindings.
            size: size.max(16),
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_DST
                | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        };
        let buffer = gpu.make(&label, size, || gpu.device.create_buffer(&descriptor))?;
        Counters::add(&gpu.counters.objects, 1);
        Counters::add(&gpu.counters.held, buffer.size());
        let place = Place { offset: 0, size: buffer.size() };
        let held = Held { bytes: place.size, counters: gpu.counters.clone() };
        Ok(Self { label, shape: shape.to_vec(), buffer, place, held: Arc::new(held) })
    }

    /// A tensor that lies in the memory of this one, from row `first` on. What a row takes, times `first`, must be a multiple
    /// of [`Tensor::ALIGN`] bytes, and it must end where this one does, or before.
    pub fn view(&self, label: impl Into<String>, first: usize, shape: &[usize]) -> Self {
        let row = self.shape.iter().skip(1).product::<usize>();
        let (offset, size) = (4 * (first * row) as u64, 4 * shape.iter().product::<usize>() as u64);
        let label = label.into();
        assert!(offset.is_multiple_of(Self::ALIGN as u64), "{label}: {offset} bytes into another");
        assert!(offset + size <= self.place.size, "{label}: beyond what it is a part of");
        let place = Place { offset: self.place.offset + offset, size: size.max(16) };
        let (buffer, held) = (self.buffer.clone(), self.held.clone());
        Self { label, shape: shape.to_vec(), buffer, place, held }
    }

    /// Bytes that a view's beginning must be a multiple of, on every WebGPU device.
    pub const ALIGN: usize = 256;

    /// Tensors of these shapes, of which one at a time is in use: they lie in the same memory.
    pub fn in_turn(gpu: &Gpu, label: &str, shapes: &[Vec<usize>]) -> Result<Vec<Self>> {
        let elements = |shape: &&Vec<usize>| shape.iter().product::<usize>();
        let largest = shapes.iter().max_by_key(elements).map_or(&[][..], Vec::as_slice);
        let whole = Self::zeros(gpu, label, largest)?;
        // All of it is bound, whatever the shape.
        let view = |shape: &Vec<usize>| {
            let (buffer, held) = (whole.buffer.clone(), whole.held.clone());
            Self { label: label.to_owned(), shape: shape.clone(), buffer, held, ..whole }
        };
        Ok(shapes.iter().map(view).collect())
    }

    /// A tensor holding `data`, which must fill the shape.
    pub fn upload<E: bytemuck::Pod>(
        gpu: &Gpu,
        label: impl Into<String>,
        shape: &[usize],
        data: &[E],
    ) -> Result<Self> {
        let tensor = Self::zeros(gpu, label, shape)?;
        tensor.write(gpu, 0, data);
        Ok(tensor)
    }

    /// Overwrites elements from `offset` (in elements) on, after all work submitted so far.
    pub fn write<E: bytemuck::Pod>(&self, gpu: &Gpu, offset: usize, data: &[E]) {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let end = 4 * offset + bytes.len();
        assert!(end as u64 <= self.place.size, "{}: {end} bytes do not fit", self.label);
        gpu.queue.write_buffer(&self.buffer, self.place.offset + 4 * offset as u64, bytes);
        Counters::add(&gpu.counters.writes, 1);
    }

    /// Bytes on the device.
    pub fn size(&self) -> u64 {
        self.place.size
    }

    /// Elements in the shape.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the shape holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the tensor to the host, after all work submitted so far. For tests and rare reads.
    pub async fn read<E: bytemuck::Pod>(&self, gpu: &Gpu) -> Result<Vec<E>> {
        let staging = super::Readback::new(gpu, self.len())?;
        staging.submit_copy(gpu, self);
        let mut out = vec![E::zeroed(); self.len()];
        staging.read(gpu, &mut out).await?;
        Ok(out)
    }

    /// The dimensions, when there are `N` of them.
    pub fn dims<const N: usize>(&self, op: &'static str) -> Result<[usize; N]> {
        self.shape.as_slice().try_into().map_err(|_| self.misfit(op, format!("{N} dimensions")))
    }

    /// An error unless the shape is `expected`. Every op asks it of every tensor it is given.
    pub fn expect<const N: usize>(&self, op: &'static str, expected: [usize; N]) -> Result<()> {
        match self.shape == expected {
            true => Ok(()),
            false => Err(self.misfit(op, format!("{expected:?}"))),
        }
    }

    /// The error of a tensor that does not have the shape `op` needs.
    pub fn misfit(&self, op: &'static str, expected: String) -> Error {
        let (tensor, found) = (self.label.clone(), self.shape.clone());
        Error::Shape { op, tensor, found, expected }
    }
}
