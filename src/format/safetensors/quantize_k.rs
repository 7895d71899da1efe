//! Values as blocks of Q4_K, rounded as ggml rounds them where nothing is known of what matters (no imatrix).
//!
//! A block has 256 values in eight groups of 32. A group is `d s q - m t`: `q` of four bits, `s` and `t` of six bits each,
//! `d` and `m` halves for all eight. What is looked for is the scale and the least value of each group for which the sum of
//! `w (s q + least - x)²` is least, `w = |x|` and the root of the mean square of the group.
use half::f16;

/// Values in a block.
const BLOCK: usize = 256;
const GROUP: usize = 32;
const GROUPS: usize = BLOCK / GROUP;
/// The largest quant, and the largest scale of a group.
const MOST: f32 = 15.0;
const MOST_SCALE: f32 = 63.0;
/// How many ranges are tried beside the group's own, which is `MOST - 1` to `MOST + 1` quants wide in steps of a tenth.
const TRIES: usize = 20;

/// A group's values as `scale q - below`.
struct Fit {
    scale: f32,
    below: f32,
    /// What is left where the scale is so small beside the other groups' that it is stored as zero.
    quants: [u8; GROUP],
}

fn quant(scaled: f32) -> f32 {
    scaled.round_ties_even().clamp(0.0, MOST)
}

/// The best fit that is tried.
fn fit(x: &[f32]) -> Fit {
    let square = x.iter().fold(0.0, |sum, x| sum + x * x);
    let common = (square / GROUP as f32).sqrt();
    let weight = |x: f32| common + x.abs();
    let (mut least, mut most) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (weight(x[0]), weight(x[0]) * x[0]);
    for &x in &x[1..] {
        least = least.min(x);
        most = most.max(x);
        sum_w += weight(x);
        sum_x += weight(x) * x;
    }
    least = least.min(0.0);
    if most == least {
        return Fit { scale: 0.0, below: -least, quants: [0; GROUP] };
    }
    let error = |scale: f32, below: f32, quants: &[f32; GROUP]| {
        x.iter().zip(quants).fold(0.0, |sum, (&x, q)| {
            let off = scale * q + below - x;
            sum + weight(x) * (off * off)
        })
    };
    let quants = |inverse: f32, below: f32| -> [f32; GROUP] {
        std::array::from_fn(|i| quant(inverse * (x[i] - below)))
    };
    let inverse = MOST / (most - least);
    let (mut scale, mut below, mut chosen) = (1.0 / inverse, least, quants(inverse, least));
    let mut best = error(scale, below, &chosen);
    for step in 0..=TRIES {
        // From the least value that is best so far.
        let inverse = (-1.0 + 0.1 * step as f32 + MOST) / (most - below);
        let tried = quants(inverse, below);
        let (mut sum_q, mut sum_qq, mut sum_qx) = (0.0f32, 0.0f32, 0.0f32);
        for (&x, q) in x.iter().zip(tried) {
            let w = weight(x);
            sum_q += w * q;
            sum_qq += w * q * q;
            sum_qx += w * q * x;
        }
        // The line through what these quants stand for.
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        if determinant <= 0.0 {
            continue;
        }
        let mut slope = (sum_w * sum_qx - sum_x * sum_q) / determinant;
        let mut at = (sum_qq * sum_x - sum_q * sum_qx) / determinant;
        if at > 0.0 {
            (slope, at) = (sum_qx / sum_qq, 0.0);
        }
        let found = error(slope, at, &tried);
        if found < best {
            (best, scale, below, chosen) = (found, slope, at, tried);
        }
    }
    Fit { scale, below: -below, quants: chosen.map(|q| q as u8) }
}

/// Writes one block.
pub(super) fn q4_k((values, out): (&[f32], &mut [u8])) {
    let fits: [Fit; GROUPS] = std::array::from_fn(|group| fit(&values[group * GROUP..][..GROUP]));
    let largest = |of: fn(&Fit) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let [scale, below] = [largest(|fit| fit.scale), largest(|fit| fit.below)];
    let inverse = |most: f32| if most > 0.0 { MOST_SCALE / most } else { 0.0 };
    let six = |value: f32| value.round_ties_even().clamp(0.0, MOST_SCALE) as u8;
    let scales = fits.each_ref().map(|fit| six(inverse(scale) * fit.scale));
    let belows = fits.each_ref().map(|fit| six(inverse(below) * fit.below));
    let [d, m] = [scale, below].map(|most| f16::from_f32(most / MOST_SCALE));
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..4].copy_from_slice(&m.to_le_bytes());
    // Six bits of the first four of each, then four bits of the others, whose upper two are above the first.
    for i in 0..GROUPS / 2 {
        let (upper, lower) = (i + GROUPS / 2, 4 + i);
        out[lower] = scales[i] | (scales[upper] >> 4) << 6;
        out[lower + 4] = belows[i] | (belows[upper] >> 4) << 6;
        out[lower + 8] = (scales[upper] & 15) | (belows[upper] & 15) << 4;
    }
    let mut quants = [0u8; BLOCK];
    for group in 0..GROUPS {
        let scale = d.to_f32() * f32::from(scales[group]);
        let below = m.to_f32() * f32::from(belows[group]);
        let of_group = values[group * GROUP..].iter().zip(&fits[group].quants);
        for (q, (x, &fitted)) in quants[group * GROUP..].iter_mut().zip(of_group) {
            *q = if scale == 0.0 { fitted } else { quant((x + below) / scale) as u8 };
        }
    }
    for (out, pair) in out[16..].chunks_exact_mut(GROUP).zip(quants.chunks_exact(2 * GROUP)) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = pair[i] | pair[i + GROUP] << 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, q4_k};

    const VALUES: &[u8] = include_bytes!("../../../tests/fixtures/safetensors/q4_k.values");
    const BLOCKS: &[u8] = include_bytes!("../../../tests/fixtures/safetensors/q4_k.blocks");

    #[test]
    fn blocks_are_ggmls_byte_for_byte() {
        let values: Vec<f32> =
            VALUES.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let blocks = values.chunks_exact(BLOCK).zip(BLOCKS.chunks_exact(144)).enumerate();
        for (at, (values, expected)) in blocks {
            let mut out = [0; 144];
            q4_k((values, &mut out));
            assert_eq!(out[..], expected[..], "block {at}");
        }
        assert_eq!(values.len() / BLOCK, 10);
    }
}
