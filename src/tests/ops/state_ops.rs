//! short_conv against its twin.
use super::run;
use crate::gpu::{Recording, Tensor};
use crate::ops::{FRAME, ShortConv, ShortConvParams};
use crate::reference;
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

#[test]
fn short_conv() {
    let gpu = gpu();
    // Channels: one; a few; one over a workgroup; real. Slots: the fewest; a multiple; more. The ring goes round.
    let shapes = [
        (1, 1, 1, [1, 4, 1]),
        (7, 3, 6, [4, 4, 3]),
        (65, 4, 12, [9, 1, 8]),
        (2048, 3, 9, [5, 7, 6]),
        (33, 6, 64, [3, 20, 2]),
    ];
    for gated in [true, false] {
        let op = block_on(ShortConv::new(&gpu, gated)).unwrap();
        for (channels, taps, slots, passes) in shapes {
            let stride = if gated { 3 * channels } else { channels + 5 };
            let all = passes.iter().sum::<usize>();
            let (input, conv) = (noise(1, all * stride), noise(2, channels * taps));
            let [params_channels, params_stride, params_taps] =
                [channels, stride, taps].map(|n| n as u32);
            let params = ShortConvParams {
                channels: params_channels,
                stride: params_stride,
                taps: params_taps,
                slots: slots as u32,
            };
            let [kept, expected] = reference::short_conv(params, gated, &input, &conv);
            let upload =
                |shape: &[usize], data: &[f32]| Tensor::upload(&gpu, "t", shape, data).unwrap();
            let taps_there = upload(&[channels * taps], &conv);
            let nan = |len: usize| vec![f32::NAN; len];
            let history = upload(&[slots, channels], &nan(slots * channels));
            let (mut n, mut found) = (0, vec![]);
            for tokens in passes {
                // One row more than there are tokens: it is left alone.
                let mut rows = input[n * stride..(n + tokens) * stride].to_vec();
                rows.extend(nan(stride));
                let mix = upload(&[tokens + 1, stride], &rows);
                let y = upload(&[tokens + 1, channels], &nan((tokens + 1) * channels));
                let frame = [n as u32, tokens as u32, 1, 0];
                let frame = Tensor::upload(&gpu, "frame", &[FRAME], &frame).unwrap();
                let mut recording = Recording::default();
                let tensors = [&frame, &mix, &taps_there, &history, &y];
                op.record(&mut recording, "test", taps, tensors).unwrap();
                run(&gpu, recording);
                let mut out: Vec<f32> = block_on(y.read(&gpu)).unwrap();
                assert!(out.split_off(tokens * channels).iter().all(|v| v.is_nan()), "beyond");
                found.extend(out);
                n += tokens;
            }
            let what = format!("{channels} channels, {taps} taps, gated {gated}");
            assert_close(&what, &found, &expected, 1e-5, 1e-5);
            let ring: Vec<f32> = block_on(history.read(&gpu)).unwrap();
            for token in n.saturating_sub(slots)..n {
                let slot = &ring[token % slots * channels..][..channels];
                assert_close(&what, slot, &kept[token * channels..][..channels], 1e-6, 1e-6);
            }
        }
        let [frame, mix, conv, history, y] = [&[FRAME][..], &[2, 3], &[8], &[5, 4], &[2, 4]]
            .map(|shape| Tensor::zeros(&gpu, "t", shape).unwrap());
        let tensors = [&frame, &mix, &conv, &history, &y];
        let error = op.record(&mut Recording::default(), "test", 2, tensors).unwrap_err();
        let width = if gated { 12 } else { 4 };
        let text = format!("short_conv: t has shape [2, 3], expected [2, {width}] or wider");
        assert_eq!(error.to_string(), text);
    }
}
