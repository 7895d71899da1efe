//! Weights as the kernels read them: the same bytes in another order.
//!
//! Thirty-two neighbouring weights of a row are a *unit*, whatever the type. Their quants become whole
//! words, 16-byte aligned for the types of four bits and more; scales go to an array of their own.
//! What each type keeps where is said in `shaders/lib/<type>.wgsl`, which reads it.
use super::DType;
use super::layout::base_three;

/// Weights of one type, unit after unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Quants, in 32-bit words.
    pub quants: Vec<u32>,
    /// Scales and whatever else a unit needs.
    pub scales: Vec<u32>,
}

/// Words that a run of eight units takes: of quants, of scales.
pub const fn words_of_eight_units(dtype: DType) -> (usize, usize) {
    dtype.format().words
}

/// Repacks whole rows of `cols` weights. The unquantised types are padded with zeros to whole units.
///
/// Where two or four units share a word, the last word is padded: pieces that are to be joined must hold
/// a multiple of four units.
pub fn repack(dtype: DType, bytes: &[u8], cols: usize) -> Packed {
    let row_bytes = cols / dtype.block_len() * dtype.block_bytes();
    assert!(bytes.len().is_multiple_of(row_bytes.max(1)), "{dtype}: not whole rows");
    let mut out = Packed::default();
    let (quants, scales) = words_of_eight_units(dtype);
    let units = bytes.len() / row_bytes.max(1) * cols.div_ceil(32);
    out.quants.reserve(units * quants / 8);
    out.scales.reserve(units * scales / 8 + 2);
    (dtype.format().repack)(&mut out, bytes, row_bytes);
    out
}

pub(super) fn floats(out: &mut Packed, bytes: &[u8], row_bytes: usize) {
    rows(bytes, row_bytes, |row| padded(&mut out.quants, row, 32 * 4));
}

pub(super) fn halves(out: &mut Packed, bytes: &[u8], row_bytes: usize) {
    rows(bytes, row_bytes, |row| padded(&mut out.quants, row, 32 * 2));
}

pub(super) fn q4_0(out: &mut Packed, bytes: &[u8], _: usize) {
    scale_and_words(out, bytes, 18);
}

pub(super) fn q8_0(out: &mut Packed, bytes: &[u8], _: usize) {
    scale_and_words(out, bytes, 34);
}

/// Blocks of a half and of words, which stay as they are.
fn scale_and_words(out: &mut Packed, bytes: &[u8], size: usize) {
    pairs(bytes, size, |first, second| {
        out.scales.push(u16_at(first, 0) | second.map_or(0, |b| u16_at(b, 0)) << 16);
        words(&mut out.quants, &first[2..]);
        words(&mut out.quants, second.map_or(&[], |b| &b[2..]));
    });
}

pub(super) fn q4_1(out: &mut Packed, bytes: &[u8], _: usize) {
    rows(bytes, 20, |block| {
        words(&mut out.scales, &block[..4]);
        words(&mut out.quants, &block[4..]);
    });
}

pub(super) fn q5_0(out: &mut Packed, bytes: &[u8], _: usize) {
    pairs(bytes, 22, |first, second| {
        out.scales.push(u16_at(first, 0) | second.map_or(0, |b| u16_at(b, 0)) << 16);
        out.scales.push(spread(u32_at(first, 2)));
        out.scales.push(second.map_or(0, |b| spread(u32_at(b, 2))));
        words(&mut out.quants, &first[6..]);
        words(&mut out.quants, second.map_or(&[], |b| &b[6..]));
    });
}

pub(super) fn q5_1(out: &mut Packed, bytes: &[u8], _: usize) {
    rows(bytes, 24, |block| {
        words(&mut out.scales, &block[..4]);
        out.scales.push(spread(u32_at(block, 4)));
        words(&mut out.quants, &block[8..]);
    });
}

pub(super) fn q2_k(out: &mut Packed, bytes: &[u8], _: usize) {
    rows(bytes, 84, |block| {
        let (scales, qs, d) = (&block[..16], &block[16..80], &block[80..]);
        words(&mut out.scales, scales);
        words(&mut out.scales, d);
        (0..8).for_each(|unit| two_bits(&mut out.quants, |e| qs_two_bits(qs, unit, e)));
    });
}

pub(super) fn q3_k(out: &mut Packed, bytes: &[u8], _: usize) {
    rows(bytes, 110, |block| {
        let (hmask, qs) = (&block[..32], &block[32..96]);
        words(&mut out.scales, &block[96..108]);
        out.scales.push(u16_at(block, 108));
        for unit in 0..8 {
            out.scales.push(bits(|e| hmask[e] >> unit));
            two_bits(&mut out.quants, |e| qs_two_bits(qs, unit, e));
        }
    });
}

pub(super) fn q4_k(out: &mut Packed, bytes: &[u8], _: usize) {
    rows(bytes, 144, |block| {
        words(&mut out.scales, &block[..16]);
        (0..8).for_each(|unit| nibbles(&mut out.quants, |e| qs_nibble(&block[16..], unit, e)));
    });
}

pub(super) fn q5_k(out: &mut Packed, bytes: &[u8], _: usize) {
    rows(bytes, 176, |block| {
        let (qh, qs) = (&block[16..48], &block[48..]);
        words(&mut out.scales, &block[..16]);
        for unit in 0..8 {
            out.scales.push(bits(|e| qh[e] >> unit));
            nibbles(&mut out.quants, |e| qs_nibble(qs, unit, e));
        }
    });
}

pub(super) fn q6_k(out: &mut Packed, bytes: &[u8], _: usize) {
    rows(bytes, 210, |block| {
        let (ql, qh) = (&block[..128], &block[128..192]);
        words(&mut out.scales, &block[192..208]);
        out.scales.push(u16_at(block, 208));
        for unit in 0..8 {
            // 128 weights share 64 bytes of ql and 32 of qh.
            let (half, group) = (unit / 4, unit % 4);
            let low = |e| ql[half * 64 + group % 2 * 32 + e] >> (group / 2 * 4) & 15;
            nibbles(&mut out.quants, low);
            two_bits(&mut out.scales, |e| qh[half * 32 + e] >> (2 * group) & 3);
        }
    });
}

pub(super) fn iq4_nl(out: &mut Packed, bytes: &[u8], _: usize) {
    scale_and_words(out, bytes, 18);
}

pub(super) fn iq4_xs(out: &mut Packed, bytes: &[u8], _: usize) {
    rows(bytes, 136, |block| {
        words(&mut out.scales, &block[..8]);
        words(&mut out.quants, &block[8..]);
    });
}

pub(super) fn mxfp4(out: &mut Packed, bytes: &[u8], _: usize) {
    for four in bytes.chunks(4 * 17) {
        let blocks = || four.chunks_exact(17);
        out.scales.push(word(|i| blocks().nth(i).map_or(0, |block| block[0].into())));
        blocks().for_each(|block| words(&mut out.quants, &block[1..]));
    }
}

pub(super) fn tq2_0(out: &mut Packed, bytes: &[u8], _: usize) {
    rows(bytes, 66, |block| {
        out.scales.push(u16_at(block, 64));
        (0..8).for_each(|unit| two_bits(&mut out.quants, |e| qs_two_bits(block, unit, e)));
    });
}

pub(super) fn tq1_0(out: &mut Packed, bytes: &[u8], _: usize) {
    rows(bytes, 54, |block| {
        out.scales.push(u16_at(block, 52));
        (0..8).for_each(|unit| two_bits(&mut out.quants, |e| base_three(block, 32 * unit + e)));
    });
}

fn rows(bytes: &[u8], size: usize, each: impl FnMut(&[u8])) {
    bytes.chunks_exact(size.max(1)).for_each(each);
}

fn pairs(bytes: &[u8], size: usize, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
    bytes.chunks(2 * size).for_each(|pair| {
        let (first, second) = pair.split_at(size);
        each(first, (!second.is_empty()).then_some(second));
    });
}

fn u16_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(bytes[at]) | u32::from(bytes[at + 1]) << 8
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn words(out: &mut Vec<u32>, bytes: &[u8]) {
    out.extend(bytes.chunks_exact(4).map(|word| u32_at(word, 0)));
}

/// A row's bytes, then zeros to a whole number of units of `unit` bytes.
fn padded(out: &mut Vec<u32>, row: &[u8], unit: usize) {
    let end = out.len() + row.len().next_multiple_of(unit) / 4;
    words(out, row);
    if let [low, high] = row.chunks_exact(4).remainder() {
        out.push(u32::from(*low) | u32::from(*high) << 8);
    }
    out.resize(end, 0);
}

/// 32 numbers of four bits: byte i holds number i low and number i + 16 high.
fn nibbles(out: &mut Vec<u32>, get: impl Fn(usize) -> u8) {
    let byte = |i| u32::from(get(i)) | u32::from(get(i + 16)) << 4;
    out.extend((0..16).step_by(4).map(|i| word(|j| byte(i + j))));
}

/// 32 numbers of two bits: byte i holds numbers i, i + 8, i + 16 and i + 24, the first lowest.
fn two_bits(out: &mut Vec<u32>, get: impl Fn(usize) -> u8) {
    let byte = |i| (0..4).fold(0, |byte, j| byte | u32::from(get(i + 8 * j)) << (2 * j));
    out.extend((0..8).step_by(4).map(|i| word(|j| byte(i + j))));
}

fn word(byte: impl Fn(usize) -> u32) -> u32 {
    (0..4).fold(0, |word, j| word | byte(j) << (8 * j))
}

/// The lowest bit of each of 32 numbers: byte i holds those of numbers i, i + 4, ... i + 28, the first lowest.
fn bits(get: impl Fn(usize) -> u8) -> u32 {
    (0..32).fold(0, |word, e| word | u32::from(get(e) & 1) << (e % 4 * 8 + e / 4))
}

/// The same of 32 bits in the order of the numbers.
fn spread(of: u32) -> u32 {
    bits(|e| (of >> e) as u8)
}

/// Number `e` of a unit in the two-bit quants of Q2_K and Q3_K: 32 bytes hold 128 weights.
fn qs_two_bits(qs: &[u8], unit: usize, e: usize) -> u8 {
    qs[unit / 4 * 32 + e] >> (2 * (unit % 4)) & 3
}

/// Number `e` of a unit in the four-bit quants of Q4_K and Q5_K: 32 bytes hold 64 weights.
fn qs_nibble(qs: &[u8], unit: usize, e: usize) -> u8 {
    qs[unit / 2 * 32 + e] >> (4 * (unit % 2)) & 15
}
