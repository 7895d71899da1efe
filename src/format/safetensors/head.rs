//! The head of a GGUF file as it is written.

/// Every tensor begins at a multiple of it.
pub(super) const ALIGNMENT: u64 = 32;

const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Keys and their values.
#[derive(Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
    count: u64,
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

impl Head {
    fn key(&mut self, name: &str, kind: u32) {
        self.count += 1;
        string(&mut self.bytes, name);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn array(&mut self, name: &str, kind: u32, len: usize) {
        self.key(name, ARRAY);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((len as u64).to_le_bytes());
    }

    pub(super) fn key_u32(&mut self, name: &str, value: u32) {
        self.key(name, U32);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn key_f32(&mut self, name: &str, value: f32) {
        self.key(name, F32);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn key_bool(&mut self, name: &str, value: bool) {
        self.key(name, BOOL);
        self.bytes.push(value.into());
    }

    pub(super) fn key_str(&mut self, name: &str, value: &str) {
        self.key(name, STRING);
        string(&mut self.bytes, value);
    }

    pub(super) fn key_strings(&mut self, name: &str, values: &[String]) {
        self.array(name, STRING, values.len());
        values.iter().for_each(|value| string(&mut self.bytes, value));
    }

    pub(super) fn key_i32s(&mut self, name: &str, values: &[i32]) {
        self.array(name, I32, values.len());
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }

    pub(super) fn key_f32s(&mut self, name: &str, values: &[f32]) {
        self.array(name, F32, values.len());
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }

    /// All of it up to the first tensor. A tensor is a name, dimensions, the number of its type, and an offset.
    pub(super) fn finish(self, tensors: &[(String, Vec<u64>, u32, u64)]) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend((tensors.len() as u64).to_le_bytes());
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(self.bytes);
        for (name, dims, kind, offset) in tensors {
            string(&mut bytes, name);
            bytes.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        bytes
    }
}
