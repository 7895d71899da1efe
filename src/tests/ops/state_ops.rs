//! short_conv, delta_net and gate against their twins.
use super::{run, sums};
use crate::gpu::{Gpu, Recording, Tensor};
use crate::ops::{DeltaNet, DeltaNetParams, FRAME, Gate, GateParams, ShortConv, ShortConvParams};
use crate::reference;
use crate::tests::support::{assert_close, gpu, noise};
use pollster::block_on;

#[test]
fn short_conv() {
    let gpu = gpu();
    // Channels: one; a few; one over a workgroup; real. Slots: the fewest; a multiple; more. The ring goes round.
    let shapes = [
        (1, 1, 4, [1, 4, 1]),
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
            let beside = if gated { 0 } else { 3 };
            let params = ShortConvParams {
                channels: params_channels,
                kept: beside as u32,
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
                // Behind a gate each token has its row, else its slot of a ring.
                let rows = if gated { tokens + 1 } else { slots };
                let width = channels + beside;
                let y = upload(&[rows, width], &nan(rows * width));
                let frame = [n as u32, tokens as u32, 1, 0];
                let frame = Tensor::upload(&gpu, "frame", &[FRAME], &frame).unwrap();
                let mut recording = Recording::default();
                let tensors = [&frame, &mix, &taps_there, &history, &y];
                op.record(&mut recording, "test", taps, tensors).unwrap();
                run(&gpu, recording);
                let mut out: Vec<f32> = block_on(y.read(&gpu)).unwrap();
                match gated {
                    true => {
                        let beyond = out.split_off(tokens * channels);
                        assert!(beyond.iter().all(|v| v.is_nan()), "beyond");
                        found.extend(out);
                    }
                    false => {
                        let written = out.chunks_exact(width).filter(|row| !row[0].is_nan());
                        assert_eq!(written.count(), tokens);
                        let slot = |token: usize| &out[(n + token) % slots * width..][..width];
                        found.extend((0..tokens).flat_map(slot));
                    }
                }
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
        let y = if gated { y } else { Tensor::zeros(&gpu, "t", &[5, 4]).unwrap() };
        let tensors = [&frame, &mix, &conv, &history, &y];
        let error = op.record(&mut Recording::default(), "test", 2, tensors).unwrap_err();
        let width = if gated { 12 } else { 4 };
        let text = format!("short_conv: t has shape [2, 3], expected [2, {width}] or wider");
        assert_eq!(error.to_string(), text);
    }
}

/// Passes of so many tokens of a stream, from token `n` on.
struct Stream {
    params: DeltaNetParams,
    op: DeltaNet,
    input: Vec<f32>,
    rows: Tensor,
    terms: Tensor,
    states: Tensor,
}

impl Stream {
    fn new(gpu: &Gpu, params: DeltaNetParams, all: usize) -> Self {
        let [width, slots] = [params.width, params.slots].map(|n| n as usize);
        let input: Vec<f32> = noise(1, all * width);
        // Decay that is to be seen, from nearly none to much.
        let terms: Vec<f32> = noise(2, 2 * params.heads as usize);
        let terms: Vec<f32> =
            terms.iter().enumerate().map(|(i, v)| if i % 2 == 0 { -v.abs() } else { *v }).collect();
        let upload = |shape: &[usize], data: &[f32]| Tensor::upload(gpu, "t", shape, data).unwrap();
        let [kept, words] = params.states();
        let mut states = vec![f32::NAN; kept * words];
        states[..words].fill(0.0);
        Self {
            op: block_on(DeltaNet::new(gpu, params.key_dim as usize)).unwrap(),
            rows: upload(&[slots, width], &vec![f32::NAN; slots * width]),
            terms: upload(&[terms.len()], &terms),
            states: upload(&[kept, words], &states),
            input,
            params,
        }
    }

    /// What comes of the tokens, of which the ring is told first.
    fn pass(&self, gpu: &Gpu, n: usize, tokens: usize) -> Vec<f32> {
        let [width, slots] = [self.params.width, self.params.slots].map(|n| n as usize);
        for token in n..n + tokens {
            let row = &self.input[token * width..][..width];
            self.rows.write(gpu, token % slots * width, row);
        }
        let out = (self.params.heads * self.params.value_dim) as usize;
        let o = vec![f32::NAN; (tokens + 1) * out];
        let o = Tensor::upload(gpu, "o", &[tokens + 1, out], &o).unwrap();
        let frame = [n as u32, tokens as u32, 1, 0];
        let frame = Tensor::upload(gpu, "frame", &[FRAME], &frame).unwrap();
        let mut recording = Recording::default();
        let tensors = [&frame, &self.rows, &self.terms, &self.states, &o];
        self.op.record(&mut recording, "test", self.params, tensors).unwrap();
        run(gpu, recording);
        let mut found: Vec<f32> = block_on(o.read(gpu)).unwrap();
        assert!(found.split_off(tokens * out).iter().all(|v| v.is_nan()), "beyond");
        found
    }
}

#[test]
fn delta_net() {
    let gpu = gpu();
    // Dimensions: fewest; no multiples of anything; more columns than a workgroup; real; the most.
    for (shape, step, slots, passes) in [
        ([1, 1, 4, 1], 1, 8, vec![1, 3, 1]),
        ([2, 4, 12, 7], 4, 16, vec![1, 1, 9, 2, 6, 1]),
        ([1, 3, 8, 70], 8, 32, vec![20, 1, 1, 20]),
        ([2, 4, 128, 128], 32, 96, vec![33, 1, 30]),
        ([1, 1, 512, 5], 2, 300, vec![290, 1]),
    ] {
        let [key_heads, heads, key_dim, value_dim] = shape;
        let width = 2 * key_heads * key_dim + heads * (value_dim + 2);
        let (first, span, eps) = (0, 0, 0.01);
        let params = DeltaNetParams {
            key_heads,
            heads,
            key_dim,
            value_dim,
            width,
            slots,
            step,
            first,
            span,
            eps,
        };
        let all: usize = passes.iter().sum();
        let stream = Stream::new(&gpu, params, all);
        let terms: Vec<f32> = block_on(stream.terms.read(&gpu)).unwrap();
        let [expected, state] = reference::delta_net(params, &stream.input, &terms);
        let (mut n, mut found) = (0, vec![]);
        for tokens in passes {
            let out = stream.pass(&gpu, n, tokens);
            n += tokens;
            // Once more, from a state that was kept on: the same to the bit.
            for back in
                [1, tokens / 2, tokens].into_iter().filter(|&back| (1..=tokens).contains(&back))
            {
                let again = stream.pass(&gpu, n - back, back);
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&again), bits(&out[out.len() - again.len()..]), "{shape:?} {back}");
            }
            found.extend(out);
        }
        assert_close(&format!("{shape:?}"), &found, &expected, 2e-5, 1e-4);
        let kept: Vec<f32> = block_on(stream.states.read(&gpu)).unwrap();
        let [dk, dv] = [key_dim, value_dim].map(|n| n as usize);
        let kept: Vec<f32> = kept[..params.states()[1]]
            .chunks_exact((dk + 1) * dv)
            .flat_map(|head| head[..dk * dv].to_vec())
            .collect();
        assert_close(&format!("{shape:?}: state"), &kept, &state, 2e-5, 1e-4);
    }
    let params = DeltaNetParams {
        key_heads: 1,
        heads: 1,
        key_dim: 4,
        value_dim: 1,
        width: 11,
        slots: 8,
        step: 4,
        first: 0,
        span: 0,
        eps: 0.0,
    };
    let stream = Stream::new(&gpu, params, 6);
    let frame = Tensor::zeros(&gpu, "frame", &[FRAME]).unwrap();
    let o = Tensor::zeros(&gpu, "o", &[6, 1]).unwrap();
    let tensors = [&frame, &stream.rows, &stream.terms, &stream.states, &o];
    let error = stream.op.record(&mut Recording::default(), "test", params, tensors).unwrap_err();
    assert!(error.to_string().contains("for 6 tokens"), "{error}");
}

#[test]
fn gate() {
    let gpu = gpu();
    for sums in sums(&gpu) {
        for (normed, [tokens, heads, size, first, after]) in [
            (true, [1, 1, 1, 0, 0]),
            (true, [3, 2, 7, 5, 1]),
            (true, [2, 4, 128, 8, 0]),
            (false, [1, 3, 65, 0, 2]),
            (false, [4, 2, 256, 3, 0]),
        ] {
            let stride = first + heads * size + after;
            let op = block_on(Gate::new(&gpu, sums, normed)).unwrap();
            let z: Vec<f32> = noise(1, (tokens + 1) * stride).iter().map(|z| 4.0 * z).collect();
            let (gain, x) = (noise(2, size), noise(3, (tokens + 1) * heads * size));
            let [heads_, size_, stride_, first_] = [heads, size, stride, first].map(|n| n as u32);
            let params =
                GateParams { heads: heads_, size: size_, stride: stride_, first: first_, eps: 0.1 };
            let (mut expected, untouched) = (x.clone(), x[tokens * heads * size..].to_vec());
            reference::gate(params, &z, normed.then_some(&gain), &mut expected);
            let upload =
                |shape: &[usize], data: &[f32]| Tensor::upload(&gpu, "t", shape, data).unwrap();
            let (z, gain) = (upload(&[tokens + 1, stride], &z), upload(&[size], &gain));
            let x = upload(&[tokens + 1, heads * size], &x);
            let frame = Tensor::upload(&gpu, "frame", &[FRAME], &[9, tokens as u32, 1, 0]).unwrap();
            let mut recording = Recording::default();
            op.record(&mut recording, "test", params, [&frame, &z, &gain, &x]).unwrap();
            run(&gpu, recording);
            let mut found: Vec<f32> = block_on(x.read(&gpu)).unwrap();
            assert_eq!(found.split_off(tokens * heads * size), untouched, "one row too many");
            expected.truncate(found.len());
            assert_close(&format!("{sums:?} {normed} {size}"), &found, &expected, 1e-5, 1e-5);
            let narrow = GateParams { first: first_ + after as u32 + 1, ..params };
            let error =
                op.record(&mut Recording::default(), "test", narrow, [&frame, &z, &gain, &x]);
            assert!(error.unwrap_err().to_string().contains("or wider"));
        }
    }
}
