//! What must hold of the cache, whole models at a time: invariants 1 to 8 of the design.
use super::support::{assert_close, gpu};
use super::tiny::{Tiny, hold_to_oracle, session, streaming, text};
use crate::format::DType;
use crate::gpu::Gpu;
use crate::model::{CacheSettings, KvType, Model, Policy, RopeLayout};
use crate::session::Session;
use crate::text::SamplerSettings;
use pollster::block_on;
use std::sync::Arc;
use std::time::Duration;

const F32: KvType = KvType::F32;
const F16: KvType = KvType::F16;

pub(super) fn device() -> Arc<Gpu> {
    Arc::new(gpu())
}

pub(super) fn feed(session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    block_on(session.feed(tokens)).unwrap();
    block_on(session.logits()).unwrap()
}

pub(super) fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn dense(window: usize, chunk: usize, kv: KvType) -> CacheSettings {
    CacheSettings { policy: Policy::Dense, ..streaming(0, window, chunk, kv) }
}

/// Both layouts, grouped and not, partly turned, with biases.
fn variants() -> [Tiny; 3] {
    let neox = RopeLayout::Neox;
    [
        Tiny::default(),
        Tiny { layout: neox, n_head_kv: 4, rope_dim: 8, bias: true, seed: 2, ..Tiny::default() },
        Tiny {
            layout: neox,
            n_head_kv: 1,
            head_dim: 24,
            rope_dim: 24,
            n_embd: 96,
            seed: 3,
            ..Tiny::default()
        },
    ]
}

#[test]
fn one_bit_identical_to_dense_until_the_window_is_full() {
    let gpu = device();
    for tiny in variants() {
        let model = tiny.model(&gpu);
        for (sinks, window, chunk, kv) in [(4, 12, 5, F16), (0, 9, 1, F32), (1, 70, 16, F16)] {
            let tokens = text(7, sinks + window + 3);
            let mut stream = session(&model, streaming(sinks, window, chunk, kv));
            let mut whole = session(&model, dense(tokens.len(), chunk, kv));
            let first = (0..tokens.len()).find(|&t| {
                let pair = [&mut stream, &mut whole].map(|s| bits(&feed(s, &tokens[t..=t])));
                pair[0] != pair[1]
            });
            let what = format!("{tiny:?} {sinks} + {window}");
            assert_eq!(first, Some(sinks + window), "{what}: the first that differs");
            // and a prompt taken in chunks
            stream.reset();
            whole.reset();
            let prompt = &tokens[..sinks + window];
            assert_eq!(bits(&feed(&mut stream, prompt)), bits(&feed(&mut whole, prompt)), "{what}");
        }
    }
}

#[test]
fn two_equal_to_the_paper_over_ten_capacities() {
    let gpu = device();
    for (tiny, shapes) in variants().iter().zip([
        [(4, 12, 12, F32, 1e-3), (0, 7, 9, F16, 0.08)],
        [(2, 5, 5, F32, 1e-3), (4, 16, 40, F16, 0.08)],
        [(1, 20, 33, F32, 1e-3), (3, 1, 1, F32, 1e-3)],
    ]) {
        let model = tiny.model(&gpu);
        for (sinks, window, ring, kv, tolerance) in shapes {
            let settings = CacheSettings { ring: Some(ring), ..streaming(sinks, window, 1, kv) };
            let mut stream = session(&model, settings);
            let mut oracle = tiny.oracle(sinks, window);
            let what = format!("{sinks} + {window} of {ring}, {kv:?}");
            let tokens = text(8, 10 * (sinks + window) + 2);
            hold_to_oracle(&what, &mut stream, &mut oracle, &tokens, tolerance);
        }
    }
}

#[test]
fn three_bit_identical_after_any_number_of_laps() {
    let gpu = device();
    let model = Tiny::default().model(&gpu);
    for kv in [F16, F32] {
        let mut here = session(&model, streaming(4, 12, 5, kv));
        let mut there = session(&model, streaming(4, 12, 5, kv));
        let (before, after) = (text(9, 40), text(10, 40));
        feed(&mut here, &before);
        feed(&mut there, &before);
        // far beyond 2^32
        there.fast_forward(1_000_000_007);
        assert!(there.position() > 1 << 33);
        for part in [&after[..1], &after[1..2], &after[2..9], &after[9..]] {
            assert_eq!(bits(&feed(&mut here, part)), bits(&feed(&mut there, part)), "{kv:?}");
        }
    }
}

#[test]
fn four_the_same_for_every_chunk_and_ring() {
    let gpu = device();
    let tokens = text(11, 600);
    for (tiny, (sinks, window)) in variants().iter().zip([(4, 12), (0, 100), (3, 40)]) {
        let model = tiny.model(&gpu);
        let mut reference: Option<Vec<f32>> = None;
        for (chunk, more) in [(1, 0), (7, 0), (64, 0), (512, 0), (7, 23), (64, 1)] {
            let ring = Some(window + chunk - 1 + more);
            let settings = CacheSettings { ring, ..streaming(sinks, window, chunk, F32) };
            let logits = feed(&mut session(&model, settings), &tokens);
            let expected = reference.get_or_insert_with(|| logits.clone());
            let what = format!("chunk {chunk}, ring {ring:?}");
            assert_close(&what, &logits, expected, 1e-4, 0.0);
        }
    }
}

#[test]
fn four_the_same_greedy_tokens_for_every_chunk() {
    let gpu = device();
    let model = Tiny::default().model(&gpu);
    let generate = |chunk| {
        let mut session = session(&model, streaming(4, 12, chunk, F32));
        block_on(session.feed(&text(12, 90))).unwrap();
        let greedy = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
        let mut generation = session.generate(greedy, &[256]).unwrap();
        let ids: Vec<_> =
            (0..40).map(|_| block_on(generation.next(&mut session)).unwrap().unwrap()).collect();
        assert!(!ids.contains(&256), "a banned token");
        ids
    };
    let expected = generate(1);
    for chunk in [7, 64, 512] {
        assert_eq!(generate(chunk), expected, "chunk {chunk}");
    }
}

#[test]
fn five_sinks_stay_and_slots_are_written_once_a_lap() {
    let gpu = device();
    let model = Tiny::default().model(&gpu);
    let (sinks, ring) = (3, 9);
    let mut stream =
        session(&model, CacheSettings { ring: Some(ring), ..streaming(sinks, 7, 1, F32) });
    let rows = |stream: &Session| -> Vec<Vec<u32>> {
        let k: Vec<u32> = block_on(stream.cache().k(1).read(&gpu)).unwrap();
        k.chunks_exact(k.len() / (sinks + ring)).map(<[u32]>::to_vec).collect()
    };
    let mut before = rows(&stream);
    for (t, token) in text(13, 40).into_iter().enumerate() {
        feed(&mut stream, &[token]);
        let after = rows(&stream);
        let changed: Vec<_> = (0..after.len()).filter(|&i| after[i] != before[i]).collect();
        let place = if t < sinks { t } else { sinks + (t - sinks) % ring };
        assert_eq!(changed, [place], "t = {t}");
        before = after;
    }
}

#[test]
fn six_what_is_out_of_the_window_does_not_count() {
    let gpu = device();
    let model = Tiny::default().model(&gpu);
    let (sinks, window, ring) = (4, 12, 20);
    for (kv, poison) in [(F32, 1e30f32.to_bits()), (F16, 0x7b00_7b00)] {
        let settings = CacheSettings { ring: Some(ring), ..streaming(sinks, window, 1, kv) };
        for fed in [1, 4, 9, 16, 24, 25, 100] {
            let tokens = text(14, fed + 1);
            let logits = |poisoned: &[usize]| {
                let mut stream = session(&model, settings);
                feed(&mut stream, &tokens[..fed]);
                for layer in 0..2 {
                    let cache = [stream.cache().k(layer), stream.cache().v(layer)];
                    for tensor in cache {
                        let row = vec![poison; tensor.shape[1]];
                        poisoned.iter().for_each(|i| tensor.write(&gpu, i * row.len(), &row));
                    }
                }
                bits(&feed(&mut stream, &tokens[fed..]))
            };
            // The token to come is number `fed`; a slot is seen when its token is within the window.
            let place = |n: usize| if n < sinks { n } else { sinks + (n - sinks) % ring };
            let oldest = (fed + 1).saturating_sub(window).max(sinks);
            let seen: Vec<_> = (0..sinks.min(fed)).chain(oldest..fed).map(place).collect();
            let unseen: Vec<_> =
                (0..sinks + ring).filter(|i| !seen.contains(i) && *i != place(fed)).collect();
            let clean = logits(&[]);
            assert_eq!(logits(&unseen), clean, "{kv:?}, {fed} fed: poison in {unseen:?}");
            for edge in [oldest, fed - 1].into_iter().filter(|&n| n < fed) {
                assert_ne!(logits(&[place(edge)]), clean, "{kv:?}, {fed} fed: token {edge}");
            }
            if fed > sinks + window {
                // Distance W - 1 matters (above); distance W is among the unseen.
                assert!(unseen.contains(&place(oldest - 1)), "{fed} fed");
            }
        }
    }
}

#[test]
fn seven_policies_are_the_same_kernel_with_other_numbers() {
    let gpu = device();
    let model = Tiny::default().model(&gpu);
    let tokens = text(15, 60);
    let policy = |policy, window| CacheSettings { policy, ..dense(window, 8, F32) };
    let run = |settings| bits(&feed(&mut session(&model, settings), &tokens));
    // S = 0 is window
    assert_eq!(run(streaming(0, 16, 8, F32)), run(policy(Policy::Window, 16)));
    // W >= T is dense
    let all = run(policy(Policy::Dense, 60));
    assert_eq!(run(streaming(4, 60, 8, F32)), all);
    assert_eq!(run(policy(Policy::Window, 61)), all);
    // recompute with L >= T is dense
    assert_eq!(run(policy(Policy::Recompute, 64)), all);
    // and with less it is dense over the last L alone
    let last = bits(&feed(&mut session(&model, dense(16, 8, F32)), &tokens[44..]));
    assert_eq!(run(policy(Policy::Recompute, 16)), last);
}

#[test]
fn eight_nothing_grows_and_a_token_is_one_submit() {
    let gpu = device();
    let model: Arc<Model> = Tiny::default().model(&gpu);
    let layers = model.config.n_layer as u64;
    for temperature in [0.0, 0.8] {
        let mut stream = session(&model, streaming(4, 12, 16, F16));
        block_on(stream.feed(&text(16, 50))).unwrap();
        let settings = SamplerSettings { temperature, ..SamplerSettings::default() };
        let mut generation = stream.generate(settings, &[256]).unwrap();
        generation.submit_together(4);
        // However slow this machine is just now.
        stream.submit_within(Duration::from_secs(1 << 20));
        let mut run = |count| {
            (0..count).for_each(|_| _ = block_on(generation.next(&mut stream)).unwrap().unwrap());
            (gpu.counters.snapshot(), gpu.counters.held())
        };
        let ((start, room), (middle, _), (end, room_after)) = (run(20), run(100), run(100));
        let (first, second) = (middle - start, end - middle);
        assert_eq!(first.objects, 0, "no buffer, bind group or pipeline is made");
        assert_eq!(room, room_after, "no device memory is taken");
        assert_eq!(first, second, "a hundred tokens cost what a hundred others do");
        // Four steps to a submission, whoever chooses.
        assert_eq!([first.submits, first.passes, first.waits], [25; 3]);
        assert_eq!(first.writes, 25, "the frame alone");
        // embedding, output, choice, of which a draw takes two; a layer: five, as its cache is one split of attention
        let each = 5;
        let choice = 1 + u64::from(temperature > 0.0);
        assert_eq!(first.dispatches, 100 * (each * layers + 2 + choice));
        assert_eq!(first.weight_bytes, 100 * model.step_bytes(), "every weight once");
    }
}

/// A sampled generation and a greedy one.
fn samplings() -> [SamplerSettings; 2] {
    [0.0, 0.8].map(|temperature| SamplerSettings { temperature, ..SamplerSettings::default() })
}

#[test]
fn nine_what_is_taken_back_has_never_been() {
    let gpu = device();
    let model = Tiny::default().model(&gpu);
    let (before, after) = (text(20, 70), text(21, 12));
    for (fed, back) in [(70, 0), (70, 1), (70, 7), (9, 7), (21, 5)] {
        // N - W = 7
        let least = CacheSettings { ring: Some(19), ..streaming(4, 12, 8, F32) };
        let mut stream = session(&model, least);
        let mut never = session(&model, least);
        for token in &before[..fed] {
            feed(&mut stream, &[*token]);
        }
        let kept = fed - back;
        before[..kept].iter().for_each(|token| _ = feed(&mut never, &[*token]));
        block_on(stream.rewind(back as u64, before[kept - 1])).unwrap();
        assert_eq!(stream.position(), kept as u64);
        let pair = [&mut stream, &mut never].map(|s| bits(&block_on(s.logits()).unwrap()));
        assert_eq!(pair[0], pair[1], "{fed} less {back}");
        for token in &after {
            let pair = [&mut stream, &mut never].map(|s| bits(&feed(s, &[*token])));
            assert_eq!(pair[0], pair[1], "{fed} less {back}");
        }
        let last = stream.recent().nth_back(8).unwrap();
        let refused = block_on(stream.rewind(8, last)).is_err();
        assert_eq!(refused, stream.position() > 4 + 19, "once the ring has gone round, 7 at most");
    }
}

#[test]
fn a_generation_can_be_dropped_and_its_tokens_fed_taken_back_or_gone_on_from() {
    let gpu = device();
    let model = Tiny::default().model(&gpu);
    let [greedy, sampled] = samplings();
    for (settings, together) in
        [(greedy.clone(), 1), (greedy.clone(), 3), (greedy, 4), (sampled, 1)]
    {
        let start = || {
            let mut stream = session(&model, streaming(4, 12, 20, F32));
            block_on(stream.feed(&text(22, 30))).unwrap();
            stream
        };
        let take = |stream: &mut Session, n| -> Vec<u32> {
            let mut generation = stream.generate(settings.clone(), &[256]).unwrap();
            generation.submit_together(together);
            (0..n).map(|_| block_on(generation.next(stream)).unwrap().unwrap()).collect()
        };
        let (mut stream, mut told) = (start(), start());
        let ids = take(&mut stream, 6);
        assert_eq!(stream.position(), 36, "everything given out is in the stream");
        // the same as being told these tokens one by one
        ids.iter().for_each(|&id| _ = feed(&mut told, &[id]));
        assert_eq!(bits(&feed(&mut stream, &[5])), bits(&feed(&mut told, &[5])));
        // the same as if only two of the next had been made
        let mut two = start();
        ids.iter().chain(&[5]).for_each(|&id| _ = feed(&mut two, &[id]));
        let more = take(&mut stream, 5);
        assert_eq!(take(&mut two, 2), more[..2]);
        block_on(stream.rewind(3, more[1])).unwrap();
        assert_eq!(stream.position(), two.position());
        assert_eq!(
            take(&mut stream, 4),
            take(&mut two, 4),
            "{} by {together}",
            settings.temperature
        );
        let logits = [&mut stream, &mut two].map(|s| bits(&block_on(s.logits()).unwrap()));
        assert_eq!(logits[0], logits[1], "the logits are those of what was given out");
    }
}

#[test]
fn greedy_tokens_do_not_depend_on_how_many_steps_go_together() {
    let gpu = device();
    let model = Tiny::default().model(&gpu);
    let tokens = |policy: CacheSettings, together: usize| {
        let mut stream = session(&model, policy);
        block_on(stream.feed(&text(24, 9))).unwrap();
        let [greedy, _] = samplings();
        let mut generation = stream.generate(greedy, &[256]).unwrap();
        generation.submit_together(together);
        let mut ids = Vec::new();
        while ids.len() < 150 {
            let Some(id) = block_on(generation.next(&mut stream)).unwrap() else { break };
            ids.push(id);
        }
        (ids, stream.position())
    };
    // over many laps, and up to the end of a cache that has one
    let dense = dense(20, 8, F32);
    assert_eq!(tokens(dense, 1).0.len(), 12, "eleven that are fed, and the last");
    let wide = CacheSettings { ring: Some(300), ..streaming(4, 12, 64, F32) };
    for settings in [streaming(4, 12, 64, F32), wide, streaming(0, 7, 40, F16), dense] {
        let expected = tokens(settings, 1);
        for together in [2, 5, 16, 64] {
            assert_eq!(tokens(settings, together), expected, "{settings:?} by {together}");
        }
    }
}

#[test]
fn sinks_taken_away_from_a_running_stream_are_the_window_policy() {
    let gpu = device();
    let model = Tiny::default().model(&gpu);
    let tokens = text(23, 120);
    let window = CacheSettings { policy: Policy::Window, ..streaming(0, 12, 5, F32) };
    let (mut stream, mut pure) =
        (session(&model, streaming(4, 12, 5, F32)), session(&model, window));
    // One layer sees raw embeddings alone, so its keys do not remember the sinks.
    let shallow = Tiny { n_layer: 1, ..Tiny::default() }.model(&gpu);
    let mut late = session(&shallow, streaming(4, 12, 5, F32));
    let mut late_pure = session(&shallow, window);
    stream.set_policy(Policy::Window).unwrap();
    for (t, token) in tokens.iter().enumerate() {
        let found = feed(&mut stream, &[*token]);
        assert_close(&format!("t = {t}"), &found, &feed(&mut pure, &[*token]), 1e-4, 0.0);
        let (found, expected) = (feed(&mut late, &[*token]), feed(&mut late_pure, &[*token]));
        match t {
            0..16 => {}
            16..40 => assert_ne!(bits(&found), bits(&expected), "the sinks still count at {t}"),
            _ => assert_close(&format!("switched, t = {t}"), &found, &expected, 1e-4, 0.0),
        }
        if t == 39 {
            late.set_policy(Policy::Window).unwrap();
            assert_eq!(late.evicted(), 40 - 12);
        }
    }
    // and back, as if nothing had been
    let mut never = session(&shallow, streaming(4, 12, 5, F32));
    tokens.iter().for_each(|token| _ = feed(&mut never, &[*token]));
    late.set_policy(Policy::Streaming).unwrap();
    assert_eq!(bits(&feed(&mut late, &[1])), bits(&feed(&mut never, &[1])));
    let error = pure.set_policy(Policy::Streaming).unwrap_err().to_string();
    assert!(error.contains("was made for Window"), "{error}");
}

#[test]
fn every_type_runs_a_whole_model() {
    let gpu = device();
    for dtype in DType::ALL {
        let tiny = Tiny::of_type(dtype);
        let model = tiny.model(&gpu);
        let mut stream = session(&model, streaming(2, 9, 4, F32));
        let mut oracle = tiny.oracle(2, 9);
        let tokens = text(17, 40);
        let (prompt, rest) = tokens.split_at(30);
        let mut expected = Vec::new();
        prompt.iter().for_each(|&token| expected = oracle.step(token));
        let mut found = feed(&mut stream, prompt);
        for (i, &token) in rest.iter().enumerate() {
            let wanted: Vec<f32> = expected.iter().map(|&l| l as f32).collect();
            let spread = wanted.iter().fold(0.0f32, |most, l| most.max(l.abs()));
            assert!(spread > 0.5, "{dtype}: logits that say nothing");
            assert_close(&format!("{dtype} after {}", 30 + i), &found, &wanted, 1e-3, 1e-4);
            expected = oracle.step(token);
            found = feed(&mut stream, &[token]);
        }
    }
}

#[test]
fn a_lost_device_is_an_error_and_another_works() {
    let gpu = device();
    let model = Tiny::default().model(&gpu);
    let mut stream = session(&model, streaming(4, 12, 4, F16));
    feed(&mut stream, &text(18, 9));
    gpu.destroy();
    let error = block_on(async {
        stream.feed(&[1]).await?;
        stream.logits().await
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("lost"), "{error}");
    let gpu = device();
    let model = Tiny::default().model(&gpu);
    feed(&mut session(&model, streaming(4, 12, 4, F16)), &text(18, 9));
}
