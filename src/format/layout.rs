//! The bytes of each block type, and the formula that turns them into values. The layouts are ggml's.
//!
//! In the types of 32 (`Q4_0` to `Q8_0`) a block has one scale `d` and perhaps one offset `m`. In the types of 256 (`Q2_K`
//! to `Q6_K`) it has small integer scales for parts of 16 or 32, which `d` and `dmin` scale in turn. Then there are those
//! whose numbers are codes (`IQ4_NL`, `IQ4_XS`, `MXFP4`), and those of three numbers alone (`TQ2_0`, `TQ1_0`).
use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

/// A block that knows its values.
pub(super) trait Block: Pod {
    /// How many values.
    const LEN: usize;
    /// Writes all `LEN` of them.
    fn dequantize(&self, out: &mut [f32]);
}

/// A block struct without padding, its size held to the format's. Its formula is its `write`, below.
macro_rules! block {
    ($(#[$doc:meta])* $name:ident: $len:literal values in $bytes:literal bytes { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        pub(super) struct $name { $($field: $type),* }
        const _: () = assert!(size_of::<$name>() == $bytes);
        impl Block for $name {
            const LEN: usize = $len;
            fn dequantize(&self, out: &mut [f32]) {
                self.write(out);
            }
        }
    };
}

block!(F32: 1 values in 4 bytes { value: [u8; 4] });
block!(F16: 1 values in 2 bytes { value: f16 });
block!(BF16: 1 values in 2 bytes { value: bf16 });
block!(
    /// `d (q - 8)`.
    Q4_0: 32 values in 18 bytes { d: f16, qs: [u8; 16] });
block!(
    /// `d q + m`.
    Q4_1: 32 values in 20 bytes { d: f16, m: f16, qs: [u8; 16] });
block!(
    /// `d (q - 16)`, the fifth bit of value `i` at bit `i` of `qh`.
    Q5_0: 32 values in 22 bytes { d: f16, qh: [u8; 4], qs: [u8; 16] });
block!(
    /// `d q + m`, the fifth bit of value `i` at bit `i` of `qh`.
    Q5_1: 32 values in 24 bytes { d: f16, m: f16, qh: [u8; 4], qs: [u8; 16] });
block!(
    /// `d q`.
    Q8_0: 32 values in 34 bytes { d: f16, qs: [i8; 32] });
block!(
    /// `d s q - dmin t`, with `s` the low and `t` the high four bits of each part of 16's `scales`.
    Q2K: 256 values in 84 bytes { scales: [u8; 16], qs: [u8; 64], d: f16, dmin: f16 });
block!(
    /// `d (s - 32) (q - 4)`, the third bit of `q` in `hmask`, `s` six bits for each part of 16.
    Q3K: 256 values in 110 bytes { hmask: [u8; 32], qs: [u8; 64], scales: [u8; 12], d: f16 });
block!(
    /// `d s q - dmin t`, with six bits of `s` and of `t` for each part of 32.
    Q4K: 256 values in 144 bytes { d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128] });
block!(
    /// As `Q4_K`, the fifth bit of `q` in `qh`.
    Q5K: 256 values in 176 bytes { d: f16, dmin: f16, scales: [u8; 12], qh: [u8; 32], qs: [u8; 128] });
block!(
    /// `d s (q - 32)`, the upper two bits of `q` in `qh`.
    Q6K: 256 values in 210 bytes { ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16 });
block!(
    /// `d q`, with `q` one of sixteen numbers.
    IQ4NL: 32 values in 18 bytes { d: f16, qs: [u8; 16] });
block!(
    /// `d (s - 32) q`, with `q` as in `IQ4_NL`, `s` six bits for each part of 32.
    IQ4XS: 256 values in 136 bytes { d: f16, scales_h: [u8; 2], scales_l: [u8; 4], qs: [u8; 128] });
block!(
    /// `2^(e - 128) q`, with `q` twice a number of one sign, two exponent and one fraction bit.
    MXFP4: 32 values in 17 bytes { e: u8, qs: [u8; 16] });
block!(
    /// `d (q - 1)`.
    TQ2_0: 256 values in 66 bytes { qs: [u8; 64], d: f16 });
block!(
    /// `d (q - 1)`, five of `q` in a byte of `qs`, four in one of `qh`, as digits to the base of three.
    TQ1_0: 256 values in 54 bytes { qs: [u8; 48], qh: [u8; 4], d: f16 });

impl F32 {
    fn write(&self, out: &mut [f32]) {
        out[0] = f32::from_le_bytes(self.value);
    }
}

impl F16 {
    fn write(&self, out: &mut [f32]) {
        out[0] = self.value.to_f32();
    }
}

impl BF16 {
    fn write(&self, out: &mut [f32]) {
        out[0] = self.value.to_f32();
    }
}

/// Value `i` of 32 whose low halves of bytes come first, then the high halves.
fn nibble(qs: &[u8; 16], i: usize) -> u8 {
    if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 }
}

/// Bit `i` of `bits`, as the fifth bit of a value.
fn fifth(bits: &[u8; 4], i: usize) -> u8 {
    (bits[i / 8] >> (i % 8) & 1) << 4
}

impl Q4_0 {
    fn write(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * (f32::from(nibble(&self.qs, i)) - 8.0);
        }
    }
}

impl Q4_1 {
    fn write(&self, out: &mut [f32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * f32::from(nibble(&self.qs, i)) + m;
        }
    }
}

impl Q5_0 {
    fn write(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * (f32::from(nibble(&self.qs, i) | fifth(&self.qh, i)) - 16.0);
        }
    }
}

impl Q5_1 {
    fn write(&self, out: &mut [f32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * f32::from(nibble(&self.qs, i) | fifth(&self.qh, i)) + m;
        }
    }
}

impl Q8_0 {
    fn write(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (q, out) in self.qs.iter().zip(out) {
            *out = d * f32::from(*q);
        }
    }
}

/// The two bits of value `i` in `Q2_K` and `Q3_K`: 32 bytes hold 128 values, 32 apart within a byte.
fn two_bits(qs: &[u8; 64], i: usize) -> u8 {
    qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

impl Q2K {
    fn write(&self, out: &mut [f32]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (i, out) in out.iter_mut().enumerate() {
            let scale = self.scales[i / 16];
            let (scale, min) = (d * f32::from(scale & 15), dmin * f32::from(scale >> 4));
            *out = scale * f32::from(two_bits(&self.qs, i)) - min;
        }
    }
}

impl Q3K {
    /// Scale `part` of 16: four bits from the first eight bytes, two from the last four.
    fn scale(&self, part: usize) -> i8 {
        let low = self.scales[part % 8] >> (part / 8 * 4) & 15;
        let high = self.scales[8 + part % 4] >> (part / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    }
}

impl Q3K {
    fn write(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, out) in out.iter_mut().enumerate() {
            let third = self.hmask[i % 32] >> (i / 32) & 1;
            let q = (two_bits(&self.qs, i) | third << 2) as i8 - 4;
            *out = d * f32::from(self.scale(i / 16)) * f32::from(q);
        }
    }
}

/// The scale and minimum of `part` of 8 in `Q4_K` and `Q5_K`: the first four parts keep their six bits in
/// one byte each, the last four split theirs between the spare upper bits and the last four bytes.
fn scale_min(scales: &[u8; 12], part: usize) -> (u8, u8) {
    if part < 4 {
        return (scales[part] & 63, scales[part + 4] & 63);
    }
    let low = scales[part + 4];
    (low & 15 | scales[part - 4] >> 6 << 4, low >> 4 | scales[part] >> 6 << 4)
}

/// The nibble of value `i` in `Q4_K` and `Q5_K`: 32 bytes hold 64 values, 32 apart within a byte.
fn nibble_of_64(qs: &[u8; 128], i: usize) -> u8 {
    qs[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15
}

impl Q4K {
    fn write(&self, out: &mut [f32]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (i, out) in out.iter_mut().enumerate() {
            let (scale, min) = scale_min(&self.scales, i / 32);
            let q = nibble_of_64(&self.qs, i);
            *out = d * f32::from(scale) * f32::from(q) - dmin * f32::from(min);
        }
    }
}

impl Q5K {
    fn write(&self, out: &mut [f32]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (i, out) in out.iter_mut().enumerate() {
            let (scale, min) = scale_min(&self.scales, i / 32);
            let q = nibble_of_64(&self.qs, i) | (self.qh[i % 32] >> (i / 32) & 1) << 4;
            *out = d * f32::from(scale) * f32::from(q) - dmin * f32::from(min);
        }
    }
}

impl Q6K {
    fn write(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, out) in out.iter_mut().enumerate() {
            // In each half of 128, 64 bytes of nibbles are read low then high, and 32 bytes of bit pairs four times.
            let (half, i_half) = (i / 128, i % 128);
            let low = self.ql[half * 64 + i_half % 64] >> (i_half / 64 * 4) & 15;
            let high = self.qh[half * 32 + i_half % 32] >> (i_half / 32 * 2) & 3;
            let q = (low | high << 4) as i8 - 32;
            *out = d * f32::from(self.scales[i / 16]) * f32::from(q);
        }
    }
}

/// What the codes of `IQ4_NL` and `IQ4_XS` stand for.
const IQ4_CODES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl IQ4NL {
    fn write(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * f32::from(IQ4_CODES[usize::from(nibble(&self.qs, i))]);
        }
    }
}

impl IQ4XS {
    fn write(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (part, out) in out.chunks_exact_mut(32).enumerate() {
            let low = self.scales_l[part / 2] >> (part % 2 * 4) & 15;
            let high = self.scales_h[part / 4] >> (part % 4 * 2) & 3;
            let scale = d * f32::from((low | high << 4) as i8 - 32);
            for (i, out) in out.iter_mut().enumerate() {
                let code = self.qs[part * 16 + i % 16] >> (i / 16 * 4) & 15;
                *out = scale * f32::from(IQ4_CODES[usize::from(code)]);
            }
        }
    }
}

/// What the codes of `MXFP4` stand for, twice.
const MXFP4_CODES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

impl MXFP4 {
    /// `2^(e - 128)`, of which the two smallest are subnormal. ggml knows no scale that is not a number.
    fn scale(&self) -> f32 {
        let e = u32::from(self.e);
        f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 })
    }

    fn write(&self, out: &mut [f32]) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = self.scale() * f32::from(MXFP4_CODES[usize::from(nibble(&self.qs, i))]);
        }
    }
}

impl TQ2_0 {
    fn write(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * (f32::from(two_bits(&self.qs, i)) - 1.0);
        }
    }
}

/// Number `i` of a block of `TQ1_0`, of which these are `qs`, then `qh`. A byte is a fraction of 256 whose digits to the
/// base of three are its numbers: 32 bytes hold 160, 32 apart within a byte; 16 hold 80, 16 apart; four hold 16, four
/// apart.
pub(super) fn base_three(bytes: &[u8], i: usize) -> u8 {
    let (first, width, i) = match i {
        0..160 => (0, 32, i),
        160..240 => (32, 16, i - 160),
        _ => (48, 4, i - 240),
    };
    let fraction = bytes[first + i % width].wrapping_mul(3u8.pow((i / width) as u32));
    ((u16::from(fraction) * 3) >> 8) as u8
}

impl TQ1_0 {
    fn write(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        let bytes = &bytemuck::bytes_of(self)[..52];
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * (f32::from(base_three(bytes, i)) - 1.0);
        }
    }
}
