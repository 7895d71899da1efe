//! Values as blocks, rounded as ggml rounds them.
use super::quantize_k::q4_k;
use crate::format::DType;
use half::{bf16, f16};

/// Values in a block of the types here.
const BLOCK: usize = 32;

/// Writes a row of values, a whole number of blocks, as `dtype`.
pub(super) fn quantize(dtype: DType, values: &[f32], out: &mut [u8]) {
    let blocks = values.chunks_exact(BLOCK);
    match dtype {
        DType::F16 => each(values, out, |value| f16::from_f32(value).to_le_bytes()),
        DType::BF16 => each(values, out, |value| bf16::from_f32(value).to_le_bytes()),
        DType::Q8_0 => blocks.zip(out.chunks_exact_mut(2 + BLOCK)).for_each(q8_0),
        DType::Q4_0 => blocks.zip(out.chunks_exact_mut(2 + BLOCK / 2)).for_each(q4_0),
        DType::Q4K => {
            let blocks = values.chunks_exact(dtype.block_len());
            blocks.zip(out.chunks_exact_mut(dtype.block_bytes())).for_each(q4_k)
        }
        _ => each(values, out, f32::to_le_bytes),
    }
}

fn each<const N: usize>(values: &[f32], out: &mut [u8], bytes: impl Fn(f32) -> [u8; N]) {
    for (value, out) in values.iter().zip(out.chunks_exact_mut(N)) {
        out.copy_from_slice(&bytes(*value));
    }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// `round(x / d)` with `d = max |x| / 127`.
fn q8_0((values, out): (&[f32], &mut [u8])) {
    let most = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let scale = most / 127.0;
    let inverse = inverse(scale);
    out[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (value, out) in values.iter().zip(&mut out[2..]) {
        *out = (value * inverse).round() as i8 as u8;
    }
}

/// `floor(x / d + 8.5)`, 15 at most, with `d` such that the value farthest from zero becomes 0.
fn q4_0((values, out): (&[f32], &mut [u8])) {
    let farther = |most: f32, &value: &f32| if value.abs() > most.abs() { value } else { most };
    let scale = values.iter().fold(0.0, farther) / -8.0;
    let inverse = inverse(scale);
    out[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    let quant = |value: f32| ((value * inverse + 8.5) as u8).min(15);
    for (i, out) in out[2..].iter_mut().enumerate() {
        *out = quant(values[i]) | quant(values[i + BLOCK / 2]) << 4;
    }
}
