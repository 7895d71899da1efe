//! The policy `half-discard` against the oracle, which keeps raw keys and turns each anew at its new place.
use super::support::{assert_close, gpu};
use super::tiny::{Tiny, session, streaming, text};
use crate::model::{CacheSettings, KvType, Policy, RopeLayout};
use crate::session::Session;
use crate::text::SamplerSettings;
use pollster::block_on;
use std::sync::Arc;

fn half_discard(sinks: usize, window: usize, chunk: usize, kv: KvType) -> CacheSettings {
    CacheSettings { policy: Policy::HalfDiscard, ..streaming(sinks, window, chunk, kv) }
}

fn feed(session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    block_on(session.feed(tokens)).unwrap();
    block_on(session.logits()).unwrap()
}

#[test]
fn equal_to_an_oracle_that_turns_what_it_keeps_anew() {
    let gpu = Arc::new(gpu());
    let neox =
        Tiny { layout: RopeLayout::Neox, rope_dim: 8, bias: true, seed: 2, ..Tiny::default() };
    for (tiny, sinks, window, kv, tolerance) in [
        (Tiny::default(), 4, 12, KvType::F32, 1e-3),
        (Tiny::default(), 0, 2, KvType::F32, 1e-3),
        (neox.clone(), 1, 9, KvType::F32, 1e-3),
        (neox, 3, 15, KvType::F16, 0.08),
    ] {
        let model = tiny.model(&gpu);
        let tokens = text(31, 5 * (sinks + window));
        let mut stream = session(&model, half_discard(sinks, window, 1, kv));
        let mut oracle = tiny.oracle(sinks, window).half_discarding();
        let mut last = Vec::new();
        for (t, &token) in tokens.iter().enumerate() {
            last = oracle.step(token).iter().map(|&logit| logit as f32).collect();
            let found = feed(&mut stream, &[token]);
            assert_close(
                &format!("{sinks} + {window}, {kv:?}, t = {t}"),
                &found,
                &last,
                tolerance,
                0.0,
            );
        }
        let discards = window as u64 / 2;
        assert!(stream.evicted() >= 4 * discards && stream.evicted().is_multiple_of(discards));
        // and as a prompt, in chunks that would pass the end
        for chunk in [5, 64] {
            let mut stream = session(&model, half_discard(sinks, window, chunk, kv));
            let found = feed(&mut stream, &tokens);
            assert_close(
                &format!("{sinks} + {window}, chunks of {chunk}"),
                &found,
                &last,
                tolerance,
                0.0,
            );
            // a second time, from the start
            stream.reset();
            assert_eq!(stream.evicted(), 0);
            assert_eq!(feed(&mut stream, &tokens), found);
        }
    }
}

#[test]
fn equal_to_streaming_until_it_is_full() {
    let model = Tiny::default().model(&Arc::new(gpu()));
    let mut half = session(&model, half_discard(4, 12, 1, KvType::F32));
    let mut ring = session(&model, streaming(4, 12, 1, KvType::F32));
    let first = (text(32, 20).into_iter().enumerate())
        .find(|&(_, token)| feed(&mut half, &[token]) != feed(&mut ring, &[token]));
    assert_eq!(first.map(|(t, _)| t), Some(16));
}

#[test]
fn generates_what_it_would_be_fed() {
    let model = Tiny::default().model(&Arc::new(gpu()));
    let settings = half_discard(2, 8, 4, KvType::F32);
    let mut stream = session(&model, settings);
    let mut fed = session(&model, settings);
    let prompt = text(33, 7);
    let mut logits = feed(&mut fed, &prompt);
    block_on(stream.feed(&prompt)).unwrap();
    let greedy = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
    let mut generation = stream.generate(greedy, &[]).unwrap();
    for i in 0..40 {
        let token = block_on(generation.next(&mut stream)).unwrap().unwrap();
        let best =
            (0..logits.len()).fold(0, |best, id| if logits[id] > logits[best] { id } else { best });
        assert_eq!(token as usize, best, "token {i}");
        logits = feed(&mut fed, &[token]);
    }
    assert_eq!(stream.position(), fed.position());
}

#[test]
fn takes_back_what_came_after_the_last_discard() {
    let model = Tiny::default().model(&Arc::new(gpu()));
    let mut stream = session(&model, half_discard(4, 12, 1, KvType::F32));
    let tokens = text(34, 21);
    // 16 fill it; six go; five more, so that ten and five are there
    let expected = tokens.iter().map(|&token| feed(&mut stream, &[token])).collect::<Vec<_>>();
    let error = block_on(stream.rewind(5, tokens[15])).unwrap_err().to_string();
    assert!(error.contains("5 tokens cannot be taken back"), "{error}");
    block_on(stream.rewind(4, tokens[16])).unwrap();
    assert_eq!(block_on(stream.logits()).unwrap(), expected[16]);
    for t in 17..21 {
        assert_eq!(feed(&mut stream, &[tokens[t]]), expected[t], "t = {t}");
    }
}

#[test]
fn needs_two_tokens_to_halve() {
    let error = half_discard(4, 1, 1, KvType::F32).geometry().unwrap_err().to_string();
    assert!(error.contains("half-discard needs 2"), "{error}");
}
