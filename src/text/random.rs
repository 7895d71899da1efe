//! Numbers from a counter, the same on every device: Philox 4x32-10 (Salmon et al., SC'11), as `lib/random.wgsl` has it.

/// The first of the four numbers of `counter` under `key`.
pub(crate) fn random(key: u64, counter: u64) -> u32 {
    let mut key = [key as u32, (key >> 32) as u32];
    let mut c = [counter as u32, (counter >> 32) as u32, 0, 0];
    for _ in 0..10 {
        let [p, q] = [(0xd251_1f53, c[0]), (0xcd9e_8d57, c[2])].map(|(a, b)| a * u64::from(b));
        c = [
            (q >> 32) as u32 ^ c[1] ^ key[0],
            q as u32,
            (p >> 32) as u32 ^ c[3] ^ key[1],
            p as u32,
        ];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    c[0]
}

#[cfg(test)]
mod tests {
    use super::random;

    #[test]
    fn the_known_answer_of_the_authors() {
        assert_eq!(random(0, 0), 0x6627_e8d5);
    }
}
