//! The types a weight can have. A row is a whole number of blocks; a block is a few bytes that stand for
//! `block_len` values (see `layout` for the bytes).
use std::fmt;

use super::layout::{self, Block};

/// The type of a tensor's elements: every one that brooklet can multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the GGUF type of the same name")]
pub enum DType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// `$body` with `$B` standing for the block struct of `$dtype`.
macro_rules! with_block {
    ($dtype:expr, $B:ident => $body:expr) => {
        with_block!(@ $dtype, $B, $body, F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2K Q3K Q4K Q5K Q6K)
    };
    (@ $dtype:expr, $B:ident, $body:expr, $($T:ident)*) => {
        match $dtype { $(DType::$T => { type $B = layout::$T; $body })* }
    };
}

impl DType {
    /// Every type, in the order of the documentation.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The type with this number in a GGUF file, if brooklet can multiply it.
    pub fn from_ggml(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.ggml_id() == id)
    }

    /// Its number in a GGUF file.
    pub const fn ggml_id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::BF16 => 30,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
        }
    }

    /// How many elements a block stands for; a row's length is a multiple of it.
    pub const fn block_len(self) -> usize {
        with_block!(self, B => B::LEN)
    }

    /// How many bytes a block takes.
    pub const fn block_bytes(self) -> usize {
        with_block!(self, B => size_of::<B>())
    }

    /// Its name in the GGUF world, such as `Q4_K`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The name of any type that ggml has given a number, whether or not brooklet can multiply it.
pub fn ggml_type_name(id: u32) -> Option<&'static str> {
    if let Some(dtype) = DType::from_ggml(id) {
        return Some(dtype.name());
    }
    Some(match id {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        40 => "NVFP4",
        _ => return None,
    })
}

/// The values of `bytes`, which are whole blocks of `dtype`. Any bytes will do; scales may be NaN.
///
/// # Panics
/// If `bytes` and `out` differ in length: a bug in the crate, as the lengths of a loaded file are checked.
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    with_block!(dtype, B => dequantize_blocks::<B>(bytes, out));
}

/// Blocks are copied out one at a time because nothing aligns the bytes of a file.
fn dequantize_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let (blocks, rest) = (bytes.chunks_exact(size_of::<B>()), bytes.len() % size_of::<B>());
    assert!(
        rest == 0 && blocks.len() * B::LEN == out.len(),
        "dequantize: {} bytes do not hold {} elements",
        bytes.len(),
        out.len()
    );
    for (block, out) in blocks.zip(out.chunks_exact_mut(B::LEN)) {
        bytemuck::pod_read_unaligned::<B>(block).dequantize(out);
    }
}
