//! shift against its twin.
use super::kept::{rounding, stored, uploaded};
use super::{flags, run};
use crate::gpu::{Recording, Tensor};
use crate::ops::{KvType, RingParams, Shift, ShiftParams};
use crate::reference::{self, KvLayout};
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
    // Turned, keys of 60,000 may be beyond what a half can be.
    let switches = flags().into_iter().flat_map(|flags| [(1.0, flags), (60_000.0, flags)]);
    for (gain, [neox, f16]) in switches {
        let kv_type = if f16 { KvType::F16 } else { KvType::F32 };
        for ((kv_heads, head_dim, rope_dim), (sinks, window)) in cases {
            let ring = RingParams { sinks, window, slots: window };
            let params = ShiftParams::half(ring, kv_heads, rope_dim);
            assert_eq!((params.shift, params.kept), (window / 2, window.div_ceil(2)));
            let [kv, hd, half] = [kv_heads, head_dim, rope_dim / 2].map(|n| n as usize);
            let held = (sinks + window) as usize;
            let layout = KvLayout { kv: kv_type, kv_heads: kv, head_dim: hd };
            let turn = |phase: u64, pair: usize| {
                let (sin, cos) = (phase as f64 * 0.3 / (1.0 + pair as f64)).sin_cos();
                (cos, sin)
            };
            let table: Vec<f32> = (0..ring.phases() as u64)
                .flat_map(|phase| (0..half).map(move |pair| turn(phase, pair)))
                .flat_map(|(cos, sin)| [(cos * factor) as f32, (sin * factor) as f32])
                .collect();
            let large = |seed| -> Vec<f32> {
                noise(seed, held * kv * hd).iter().map(|x| gain * x).collect()
            };
            let (k_words, mut k) = stored(&large(1), layout);
            let (v_words, mut v) = stored(&large(2), layout);
            reference::shift(params, (hd, neox), turn, [&mut k, &mut v]);
            if f16 {
                k.iter_mut().for_each(|x| *x = reference::half(*x));
            }

            let upload = |words: &[u32]| uploaded(&gpu, layout, held, words);
            let (gpu_k, gpu_v) = (upload(&k_words), upload(&v_words));
            let turns = Tensor::upload(&gpu, "turns", &[ring.phases(), half, 2], &table).unwrap();
            let op = block_on(Shift::new(&gpu, hd, neox, kv_type)).unwrap();
            // more slots than workgroups: each has several of them
            for lines in [params.lines, 1] {
                let params = ShiftParams { lines, ..params };
                gpu_k.write(&gpu, 0, &k_words);
                gpu_v.write(&gpu, 0, &v_words);
                let mut recording = Recording::default();
                let tensors = [&turns, &gpu_k, &gpu_v];
                op.record(&mut recording, "test", ring, params, tensors).unwrap();
                run(&gpu, recording);
                let what = format!("shift gain {gain} neox {neox} {kv_type:?} {params:?}");
                let tolerance = rounding(kv_type);
                // A half has 11 bits.
                let (tolerance, relative) = match gain > 1.0 {
                    true => (1e-6 * gain, tolerance),
                    false => (tolerance, 1e-5),
                };
                for (name, tensor, expected) in [("k", &gpu_k, &k), ("v", &gpu_v, &v)] {
                    let found: Vec<u32> = block_on(tensor.read(&gpu)).unwrap();
                    let found = layout.values(&found, held);
                    let what = format!("{name} of {what}");
                    assert_close(&what, &found, expected, tolerance, relative);
                }
            }
        }
    }
}

#[test]
fn shift_refuses_a_cache_without_room() {
    let gpu = gpu();
    let op = block_on(Shift::new(&gpu, 8, false, KvType::F32)).unwrap();
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
