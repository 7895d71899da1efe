//! Keys and values as the cache stores them.
use super::half;
use crate::ops::KvType;
use ::half::f16;

/// Dimensions that share a scale.
const BLOCK: usize = 32;

/// The twin of `shaders/lib/kv_q8_0.wgsl` and `shaders/lib/kv_q4_0.wgsl`: the scale of 32 numbers and the quants that it
/// multiplies, in the order of ggml's own arithmetic. Floats are no blocks, and have neither.
pub fn block(kv: KvType, x: &[f32]) -> (f16, Vec<i8>) {
    let largest = x.iter().fold(0.0f32, |most, &x| if x.abs() > most.abs() { x } else { most });
    let (d, quant): (f32, fn(f32, f32) -> i8) = match kv {
        KvType::F16 | KvType::F32 => return (f16::ZERO, Vec::new()),
        KvType::Q8_0 => (largest.abs() / 127.0, |x, by| (x * by).round() as i8),
        KvType::Q4_0 => (largest / -8.0, |x, by| {
            (f64::from(x) * f64::from(by) + 8.5).clamp(0.0, 15.0) as i8 - 8
        }),
    };
    // What is no number stays so.
    let d = if x.iter().any(|x| x.is_nan()) { f32::NAN } else { d };
    let by = if d == 0.0 { 0.0 } else { 1.0 / d };
    (f16::from_f32(half(d)), x.iter().map(|&x| quant(x, by)).collect())
}

/// Numbers as they will be read back: dimensions of whole heads, one after another.
pub fn kept(kv: KvType, x: &[f32]) -> Vec<f32> {
    match kv {
        KvType::F32 => x.to_vec(),
        KvType::F16 => x.iter().map(|&x| f16::from_f32(half(x)).to_f32()).collect(),
        KvType::Q8_0 | KvType::Q4_0 => {
            let of_block = |x: &[f32]| {
                let (d, quants) = block(kv, x);
                quants.into_iter().map(move |q| d.to_f32() * f32::from(q))
            };
            x.chunks_exact(BLOCK).flat_map(of_block).collect()
        }
    }
}

/// What the cache of a layer looks like: the twin of `kv_at` of `shaders/lib/kv.wgsl` and `shaders/lib/kv_blocks.wgsl`.
#[derive(Clone, Copy, Debug)]
pub struct KvLayout {
    /// How it is stored.
    pub kv: KvType,
    /// KV
    pub kv_heads: usize,
    /// HD
    pub head_dim: usize,
}

impl KvLayout {
    /// Words of a slot's quants, of a head.
    fn quants(self) -> usize {
        if self.kv == KvType::Q8_0 { self.head_dim / 4 } else { self.head_dim / 8 }
    }

    /// The word where a head of four slots begins.
    fn begin(self, slot: usize, head: usize) -> usize {
        (slot / 4 * self.kv_heads + head) * self.kv.row_words(1, self.head_dim)
    }

    /// The word that has dimension `d` of a head of a slot, and the bit that it begins at.
    fn quant_at(self, slot: usize, head: usize, d: usize) -> (usize, usize) {
        let plain = (slot * self.kv_heads + head) * self.head_dim + d;
        let quants = self.begin(slot, head) + slot % 4 * self.quants();
        match self.kv {
            KvType::F32 => (plain, 0),
            KvType::F16 => (plain / 2, 16 * (plain % 2)),
            KvType::Q8_0 => (quants + d / 4, 8 * (d % 4)),
            KvType::Q4_0 => (quants + d / 8, 8 * (d % 4) + 4 * (d / 4 % 2)),
        }
    }

    /// The word that has the scale of that dimension, and the bit that it begins at.
    fn scale_at(self, slot: usize, head: usize, d: usize) -> (usize, usize) {
        let scales = self.begin(slot, head) + 4 * self.quants();
        (scales + 4 * (d / (2 * BLOCK)) + slot % 4, 16 * (d / BLOCK % 2))
    }

    /// Every word that holds something of a slot, and nothing of others.
    pub fn words_of(self, slot: usize) -> Vec<usize> {
        let heads = (0..self.kv_heads).flat_map(|head| (0..self.head_dim).map(move |d| (head, d)));
        let words = heads.flat_map(|(head, d)| {
            let scale = self.kv.in_blocks().then(|| self.scale_at(slot, head, d).0);
            [self.quant_at(slot, head, d).0].into_iter().chain(scale)
        });
        words.collect()
    }

    /// `values` [slots, KV HD] as the device holds them.
    pub fn words(self, values: &[f32]) -> Vec<u32> {
        let Self { kv, kv_heads, head_dim } = self;
        let [rows, words] = kv.shape(values.len() / (kv_heads * head_dim), kv_heads, head_dim);
        let mut out = vec![0; rows * words];
        for (i, head) in values.chunks_exact(head_dim).enumerate() {
            let (slot, head_of) = (i / kv_heads, i % kv_heads);
            let mut put = |(word, bit): (usize, usize), bits: u32| out[word] |= bits << bit;
            for (d, &x) in head.iter().enumerate() {
                match kv {
                    KvType::F32 => put(self.quant_at(slot, head_of, d), x.to_bits()),
                    KvType::F16 => {
                        let bits = f16::from_f32(half(x)).to_bits();
                        put(self.quant_at(slot, head_of, d), bits.into());
                    }
                    KvType::Q8_0 | KvType::Q4_0 => {}
                }
            }
            for (b, x) in head.chunks_exact(BLOCK).enumerate().filter(|_| kv.in_blocks()) {
                let (scale, quants) = block(kv, x);
                put(self.scale_at(slot, head_of, b * BLOCK), scale.to_bits().into());
                for (d, q) in quants.into_iter().enumerate() {
                    let bits = if kv == KvType::Q8_0 { q as u8 } else { (q + 8) as u8 };
                    put(self.quant_at(slot, head_of, b * BLOCK + d), bits.into());
                }
            }
        }
        out
    }

    /// What so many slots of `words` stand for: [slots, KV HD].
    pub fn values(self, words: &[u32], slots: usize) -> Vec<f32> {
        let Self { kv, kv_heads, head_dim } = self;
        let places = (0..slots * kv_heads * head_dim).map(|i| {
            let (slot, head) = (i / (kv_heads * head_dim), i / head_dim % kv_heads);
            (slot, head, i % head_dim)
        });
        let half_at =
            |(word, bit): (usize, usize)| f16::from_bits((words[word] >> bit) as u16).to_f32();
        let value = |(slot, head, d)| {
            let (word, bit) = self.quant_at(slot, head, d);
            let scale = || half_at(self.scale_at(slot, head, d));
            match kv {
                KvType::F32 => f32::from_bits(words[word]),
                KvType::F16 => half_at((word, bit)),
                KvType::Q8_0 => scale() * f32::from((words[word] >> bit) as i8),
                KvType::Q4_0 => scale() * ((words[word] >> bit & 15) as f32 - 8.0),
            }
        };
        places.map(value).collect()
    }
}
