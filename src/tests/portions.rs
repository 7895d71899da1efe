//! Passes that are submitted a layer at a time: what they compute, and what is left where one ends in the middle.
use super::support::{assert_close, dropped_after, gpu};
use super::tiny::{Tiny, session, streaming, text};
use crate::gpu::Gpu;
use crate::model::{CacheSettings, KvType, Model, Policy};
use crate::session::Session;
use crate::text::SamplerSettings;
use pollster::block_on;
use std::sync::Arc;
use std::time::Duration;

const LAYERS: usize = 3;
const CHUNK: usize = 16;
/// Of a pass over a chunk: an embedding, and two norms, four products, keys and values turned and stored, and attention.
const DISPATCHES: u64 = 1 + 8 * LAYERS as u64;

fn model(gpu: &Arc<Gpu>) -> Arc<Model> {
    Tiny { n_layer: LAYERS, ..Tiny::default() }.model(gpu)
}

/// Caches that a stream of 200 tokens goes round more than once, where it can; one of them with the least ring.
fn caches() -> [CacheSettings; 6] {
    let of = |policy, sinks, window| CacheSettings {
        policy,
        ..streaming(sinks, window, CHUNK, KvType::F32)
    };
    let least = CacheSettings { ring: Some(12 + CHUNK - 1), ..of(Policy::Streaming, 4, 12) };
    [
        of(Policy::Streaming, 4, 12),
        least,
        of(Policy::Window, 0, 12),
        of(Policy::Dense, 0, 300),
        of(Policy::Recompute, 0, 100),
        of(Policy::HalfDiscard, 2, 40),
    ]
}

/// A stream whose submissions may take so long.
fn within(model: &Arc<Model>, cache: CacheSettings, time: Duration) -> Session {
    let mut stream = session(model, cache);
    stream.submit_within(time);
    stream
}

/// Every pass in one submission, but for the first, of which nobody knows yet; and every dispatch in its own.
const WHOLE: Duration = Duration::from_secs(1 << 20);
const PARTED: Duration = Duration::ZERO;

fn logits(stream: &mut Session) -> Vec<f32> {
    block_on(stream.logits()).unwrap()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn take(stream: &mut Session, temperature: f32, count: usize) -> Vec<u32> {
    let settings = SamplerSettings { temperature, seed: 5, ..SamplerSettings::default() };
    let mut by = stream.generate(settings, &[]).unwrap();
    by.submit_together(4);
    (0..count).map(|_| block_on(by.next(stream)).unwrap().unwrap()).collect()
}

#[test]
fn what_is_submitted_layer_by_layer_is_what_goes_together() {
    let gpu = Arc::new(gpu());
    let model = model(&gpu);
    let prompt = text(50, 150);
    for cache in caches() {
        let [whole, parted] = [WHOLE, PARTED].map(|time| {
            let mut stream = within(&model, cache, time);
            // A pass that nothing is known of is parted, too.
            block_on(stream.feed(&prompt[..CHUNK])).unwrap();
            let mut found = Vec::new();
            for part in [&prompt[..7], &prompt[7..], &prompt[..1]] {
                block_on(stream.feed(part)).unwrap();
                found.push(bits(&logits(&mut stream)));
            }
            for temperature in [0.0, 1.5] {
                // The policy that computes all anew is slow.
                let count = if cache.policy == Policy::Recompute { 2 } else { 30 };
                found.push(take(&mut stream, temperature, count));
                found.push(bits(&logits(&mut stream)));
            }
            found
        });
        assert_eq!(whole, parted, "{cache:?}");
    }
}

#[test]
fn a_chunk_that_goes_a_few_tiles_at_a_time_computes_the_same() {
    let gpu = Arc::new(gpu());
    let model = model(&gpu);
    let prompt = text(54, 700);
    let cache = CacheSettings { ring: Some(12 + 300), ..streaming(4, 12, 300, KvType::F32) };
    let [whole, parted] = [WHOLE, PARTED].map(|time| {
        let mut stream = within(&model, cache, time);
        // What is measured here decides what goes together next.
        block_on(stream.feed(&prompt[..300])).unwrap();
        let before = gpu.counters.snapshot().submits;
        block_on(stream.feed(&prompt)).unwrap();
        (gpu.counters.snapshot().submits - before, bits(&logits(&mut stream)))
    });
    assert_eq!(whole.1, parted.1);
    // Passes of whole tiles instead of three.
    assert!(whole.0 == 3 && parted.0 > 3 * 3 * DISPATCHES, "{} and {}", whole.0, parted.0);
}

#[test]
fn a_pass_that_fits_is_one_submission_and_one_that_does_not_is_one_a_dispatch() {
    let gpu = Arc::new(gpu());
    let model = model(&gpu);
    let prompt = text(51, 6 * CHUNK);
    // The logits are two more, a norm and a product.
    let parted = 6 * DISPATCHES + 2;
    for (time, submits, waits) in [(WHOLE, 6, 1), (PARTED, parted, parted)] {
        let mut stream = within(&model, streaming(4, 12, CHUNK, KvType::F16), time);
        block_on(stream.feed(&prompt)).unwrap();
        let before = gpu.counters.snapshot();
        block_on(stream.feed(&prompt)).unwrap();
        let cost = gpu.counters.snapshot() - before;
        assert_eq!(cost.dispatches, parted, "no dispatch is parted");
        assert_eq!([cost.submits, cost.waits, cost.objects], [submits, waits, 0], "{time:?}");
        assert!(stream.longest_submission() > Duration::ZERO);
    }
}

#[test]
fn a_prompt_that_ends_in_the_middle_of_a_pass_leaves_the_stream_as_it_was() {
    let gpu = Arc::new(gpu());
    let model = model(&gpu);
    let (first, prompt) = (text(52, 45), text(53, 5 * CHUNK));
    for cache in caches() {
        let mut cut_within = 0;
        let (mut stream, mut whole) = (within(&model, cache, PARTED), within(&model, cache, WHOLE));
        // so many waits or submissions into it: most are in the middle of a pass
        for end in [0, 1, 2, 5, 8, 13, 23, 34, 47, 60] {
            stream.reset();
            whole.reset();
            block_on(stream.feed(&first)).unwrap();
            let mut asked = 0;
            let submits = gpu.counters.snapshot().submits;
            match end % 2 {
                0 => drop(dropped_after(end, stream.feed_while(&prompt, || true))),
                _ => {
                    let go_on = || {
                        asked += 1;
                        asked <= end
                    };
                    block_on(stream.feed_while(&prompt, go_on)).unwrap();
                }
            }
            let submits = (gpu.counters.snapshot().submits - submits) as usize;
            let done = stream.position() as usize - first.len();
            assert!(done.is_multiple_of(CHUNK) || cache.policy == Policy::HalfDiscard, "{done}");
            cut_within += usize::from(submits > done / CHUNK * DISPATCHES as usize + 1);
            let known = [&first[..], &prompt[..done]].concat();
            block_on(whole.feed(&known)).unwrap();
            let what = format!("{cache:?} ended at {end}, {done} fed");
            // A generation whose first token nobody waits for is ahead, and leaves nothing behind.
            // Once half of a cache has gone for it, what was before cannot be fed anew.
            if end % 3 == 0 && cache.policy != Policy::HalfDiscard {
                let greedy = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
                let mut by = stream.generate(greedy, &[]).unwrap();
                by.submit_together(4);
                assert!(dropped_after(0, by.next(&mut stream)).is_none());
            }
            assert_close(&what, &logits(&mut stream), &logits(&mut whole), 1e-4, 1e-4);
            if end == 5 && cache.policy != Policy::HalfDiscard {
                let saved = block_on(stream.snapshot(None, "")).unwrap();
                let mut there = session(&model, saved.settings());
                there.restore(&saved).unwrap();
                assert_eq!(bits(&logits(&mut there)), bits(&logits(&mut stream)), "{what}");
            }
            assert_eq!(take(&mut stream, 0.0, 3), take(&mut whole, 0.0, 3), "{what}");
            for part in [&prompt[done..], &first] {
                block_on(stream.feed(part)).unwrap();
                block_on(whole.feed(part)).unwrap();
                assert_close(&what, &logits(&mut stream), &logits(&mut whole), 1e-4, 1e-4);
            }
        }
        let least = cache.ring.is_some();
        assert!(
            cut_within >= 4 || least,
            "{cache:?}: {cut_within} were cut in the middle of a pass"
        );
    }
}
