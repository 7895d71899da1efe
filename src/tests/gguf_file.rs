//! A GGUF file made in memory, right by default and wrong on request, and random weights to put in it.
use half::{bf16, f16};

use super::support::noise;
use crate::format::{Array, BytesSource, DType, Value};

/// The tensors in the order they are written, one after the other, each padded to the alignment.
#[derive(Clone)]
pub(super) struct GgufFile {
    pub(super) version: u32,
    pub(super) metadata: Vec<(String, Value)>,
    /// Name, dims (the contiguous one first), the type's number, bytes.
    pub(super) tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

impl GgufFile {
    /// Nothing in it.
    pub(super) fn new() -> Self {
        Self { version: 3, metadata: Vec::new(), tensors: Vec::new() }
    }

    /// One more key.
    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        self.metadata.push((key.to_owned(), value));
        self
    }

    /// One more tensor of random blocks.
    pub(super) fn with_tensor(mut self, name: &str, dims: &[u64], dtype: DType) -> Self {
        let elements = dims.iter().product::<u64>() as usize;
        let blocks = random_blocks(dtype, self.tensors.len() as u64, elements);
        self.tensors.push((name.to_owned(), dims.to_vec(), dtype.ggml_id(), blocks));
        self
    }

    /// The file's bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let alignment = self.metadata.iter().find(|(key, _)| key == "general.alignment");
        let alignment = alignment.and_then(|(_, value)| value.integer()).unwrap_or(32) as usize;
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut file, key);
            file.extend(value.type_id().to_le_bytes());
            put_value(&mut file, value);
        }
        let mut data: Vec<u8> = Vec::new();
        for (name, dims, type_id, bytes) in &self.tensors {
            put_string(&mut file, name);
            file.extend((dims.len() as u32).to_le_bytes());
            file.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
            file.extend(type_id.to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(alignment), 0);
        }
        file.resize(file.len().next_multiple_of(alignment), 0);
        file.extend(data);
        file
    }

    /// The file as a source called `test.gguf`.
    pub(super) fn source(&self) -> BytesSource {
        BytesSource::new("test.gguf", self.bytes())
    }
}

fn put_string(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

fn put_value(file: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(n) => file.extend(n.to_le_bytes()),
        Value::I8(n) => file.extend(n.to_le_bytes()),
        Value::U16(n) => file.extend(n.to_le_bytes()),
        Value::I16(n) => file.extend(n.to_le_bytes()),
        Value::U32(n) => file.extend(n.to_le_bytes()),
        Value::I32(n) => file.extend(n.to_le_bytes()),
        Value::U64(n) => file.extend(n.to_le_bytes()),
        Value::I64(n) => file.extend(n.to_le_bytes()),
        Value::F32(x) => file.extend(x.to_le_bytes()),
        Value::F64(x) => file.extend(x.to_le_bytes()),
        Value::Bool(b) => file.push(u8::from(*b)),
        Value::String(s) => put_string(file, s),
        Value::Array(array) => put_array(file, array),
    }
}

fn put_array(file: &mut Vec<u8>, array: &Array) {
    file.extend(array.type_id().to_le_bytes());
    file.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(items) => file.extend(items),
        Array::I8(items) => file.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        Array::U16(items) => file.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        Array::I16(items) => file.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        Array::U32(items) => file.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        Array::I32(items) => file.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        Array::U64(items) => file.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        Array::I64(items) => file.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        Array::F32(items) => file.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        Array::F64(items) => file.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        Array::Bool(items) => file.extend(items.iter().map(|&b| u8::from(b))),
        Array::String(items) => items.iter().for_each(|s| put_string(file, s)),
        Array::Array(items) => items.iter().for_each(|inner| put_array(file, inner)),
    }
}

/// Blocks whose every bit is random but the scales', which are chosen so that values stay within about 0.2.
pub(super) fn random_blocks(dtype: DType, seed: u64, n_elements: usize) -> Vec<u8> {
    assert_eq!(n_elements % dtype.block_len(), 0, "{n_elements} elements of {dtype}");
    let blocks = n_elements / dtype.block_len();
    let mut numbers = noise(seed ^ 0xb10c, blocks * (dtype.block_bytes() + 5)).into_iter();
    let mut next = || numbers.next().unwrap();
    let mut file = Vec::new();
    for _ in 0..blocks {
        let x = 0.15 * next();
        match dtype {
            DType::F32 => file.extend(x.to_le_bytes()),
            DType::F16 => file.extend(f16::from_f32(x).to_le_bytes()),
            DType::BF16 => file.extend(bf16::from_f32(x).to_le_bytes()),
            _ => {
                let start = file.len();
                file.extend((0..dtype.block_bytes()).map(|_| (128.0 * (next() + 1.0)) as u8));
                if dtype == DType::MXFP4 {
                    file[start] = 121 + u8::from(next() < 0.0);
                }
                for &(at, largest) in scales(dtype) {
                    // At least half of the largest, so that no block vanishes. Scales beside minima keep their sign, as ggml's do.
                    let sign = if next() < 0.0 && scales(dtype).len() == 1 { -1.0 } else { 1.0 };
                    let scale = largest * sign * (0.75 + 0.25 * next());
                    file[start + at..start + at + 2]
                        .copy_from_slice(&f16::from_f32(scale).to_le_bytes());
                }
            }
        }
    }
    file
}

/// The same blocks with every half in them, scales and F16 weights, too small for a normal one but not nothing.
pub(super) fn with_subnormal_halves(dtype: DType, mut blocks: Vec<u8>) -> Vec<u8> {
    for block in blocks.chunks_exact_mut(dtype.block_bytes()) {
        let weights = (dtype == DType::F16).then_some(0);
        for at in scales(dtype).iter().map(|(at, _)| *at).chain(weights) {
            let bits = u16::from_le_bytes([block[at], block[at + 1]]);
            // Sign and fraction stay.
            block[at..at + 2].copy_from_slice(&(bits & 0x81ff | 0x200).to_le_bytes());
        }
    }
    blocks
}

/// Where the f16 scales of a block lie, and the largest value each may take.
fn scales(dtype: DType) -> &'static [(usize, f32)] {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => &[],
        DType::Q4_0 => &[(0, 0.02)],
        DType::Q4_1 => &[(0, 0.02), (2, -0.15)],
        DType::Q5_0 => &[(0, 0.01)],
        DType::Q5_1 => &[(0, 0.01), (2, -0.15)],
        DType::Q8_0 => &[(0, 0.0012)],
        DType::Q2K => &[(80, 0.006), (82, 0.009)],
        DType::Q3K => &[(108, 0.0015)],
        DType::Q4K => &[(0, 0.0002), (2, 0.003)],
        DType::Q5K => &[(0, 0.0001), (2, 0.003)],
        DType::Q6K => &[(208, 0.00004)],
        DType::IQ4NL => &[(0, 0.0015)],
        DType::IQ4XS => &[(0, 0.00005)],
        DType::MXFP4 => &[],
        DType::TQ2_0 => &[(64, 0.15)],
        DType::TQ1_0 => &[(52, 0.15)],
    }
}
