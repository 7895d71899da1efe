//! shift against its twin.
use super::cache_ops::{numbers, stored};
use super::{flags, run};
use crate::gpu::{Recording, Tensor};
use crate::ops::{RingParams, Shift, ShiftParams};
use crate::reference;
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

#[test]
fn shift() {
    let gpu = gpu();
    // (KV, HD, R) and (S, W): the least; an odd window, whose middle moves twice as far as others; partly turned;
    // wider than a workgroup, without sinks
    let cases = [
        ((1, 8, 8), (1, 2)),
        ((2, 16, 16), (4, 7)),
        ((3, 64, 32), (2, 40)),
        ((1, 256, 256), (0, 33)),
    ];
    // What the model's own factor leaves in the table is not to count.
    let factor = 1.3;
    for [neox, kv_f16] in flags() {
        for ((kv_heads, head_dim, rope_dim), (sinks, window)) in cases {
            let ring = RingParams { sinks, window, slots: window };
            let params = ShiftParams::half(ring, kv_heads, rope_dim);
            assert_eq!((params.shift, params.kept), (window / 2, window.div_ceil(2)));
            let [kv, hd, half] = [kv_heads, head_dim, rope_dim / 2].map(|n| n as usize);
            let held = (sinks + window) as usize;
            let turn = |phase: u64, pair: usize| {
                let (sin, cos) = (phase as f64 * 0.3 / (1.0 + pair as f64)).sin_cos();
                (cos, sin)
            };
            let table: Vec<f32> = (0..ring.phases() as u64)
                .flat_map(|phase| (0..half).map(move |pair| turn(phase, pair)))
                .flat_map(|(cos, sin)| [(cos * factor) as f32, (sin * factor) as f32])
                .collect();
            let (k_words, mut k) = stored(&noise(1, held * kv * hd), kv_f16);
            let (v_words, mut v) = stored(&noise(2, held * kv * hd), kv_f16);
            reference::shift(params, (hd, neox), turn, [&mut k, &mut v]);

            let words = k_words.len() / held;
            let upload = |data: &[u32]| Tensor::upload(&gpu, "kv", &[held, words], data).unwrap();
            let (gpu_k, gpu_v) = (upload(&k_words), upload(&v_words));
            let turns = Tensor::upload(&gpu, "turns", &[ring.phases(), half, 2], &table).unwrap();
            let op = block_on(Shift::new(&gpu, hd, neox, kv_f16)).unwrap();
            // more slots than workgroups: each has several of them
            for lines in [params.lines, 1] {
                let params = ShiftParams { lines, ..params };
                gpu_k.write(&gpu, 0, &k_words);
                gpu_v.write(&gpu, 0, &v_words);
                let mut recording = Recording::default();
                let tensors = [&turns, &gpu_k, &gpu_v];
                op.record(&mut recording, "test", ring, params, tensors).unwrap();
                run(&gpu, recording);
                let what = format!("shift neox {neox} f16 {kv_f16} {params:?}");
                let tolerance = if kv_f16 { 1e-3 } else { 1e-6 };
                for (name, tensor, expected) in [("k", &gpu_k, &k), ("v", &gpu_v, &v)] {
                    let found: Vec<u32> = block_on(tensor.read(&gpu)).unwrap();
                    let found = numbers(&found, kv_f16);
                    assert_close(&format!("{name} of {what}"), &found, expected, tolerance, 1e-5);
                }
            }
        }
    }
}

#[test]
fn shift_refuses_a_cache_without_room() {
    let gpu = gpu();
    let op = block_on(Shift::new(&gpu, 8, false, false)).unwrap();
    let ring = RingParams { sinks: 1, window: 4, slots: 4 };
    let make = |name: &str, shape: &[usize]| Tensor::zeros(&gpu, name, shape).unwrap();
    let [turns, k, v] = [make("turns", &[9, 4, 2]), make("k", &[5, 8]), make("v", &[5, 8])];
    let params = ShiftParams { kept: 3, ..ShiftParams::half(ring, 1, 8) };
    let error = op.record(&mut Recording::default(), "test", ring, params, [&turns, &k, &v]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "shift: k has shape [5, 8], expected 3 slots and 2 that go"
    );
}
