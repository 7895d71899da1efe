//! The values of blocks. A row is a whole number of blocks; a block is a few bytes that stand for `block_len` values
//! (see `layout` for the bytes).
use super::formats::DType;
use super::layout::Block;

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
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        40 => "NVFP4",
        _ => return None,
    })
}

/// Why a type that brooklet does not know cannot be multiplied: what a sentence goes on with after "which".
pub(super) fn why_not(id: u32) -> &'static str {
    match ggml_type_name(id) {
        Some("Q8_1" | "Q8_K") => {
            "is meant for activations while they are multiplied and not for a file's weights"
        }
        Some(_) => "brooklet cannot multiply yet",
        None => "no version of ggml that brooklet knows has given a meaning to",
    }
}

/// The values of `bytes`, which are whole blocks of `dtype`. Any bytes will do; scales may be NaN.
///
/// # Panics
/// If `bytes` and `out` differ in length: a bug in the crate, as the lengths of a loaded file are checked.
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    (dtype.format().dequantize)(bytes, out);
}

/// Blocks are copied out one at a time because nothing aligns the bytes of a file.
pub(super) fn dequantize_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
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
