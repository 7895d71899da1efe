//! Tokens that are biased, and tokens that somebody watches.
use super::support::gpu;
use super::tiny::{Tiny, session, streaming, text};
use crate::model::KvType::F32;
use crate::model::{CacheSettings, Model, Policy};
use crate::session::{Generation, Logprobs, Session};
use crate::text::SamplerSettings;
use pollster::block_on;
use std::sync::{Arc, LazyLock};

/// The end token of the tiny model.
pub(super) const END: u32 = 256;

/// Small and random, on the device, and what it is asked by.
pub(super) static MODEL: LazyLock<Arc<Model>> =
    LazyLock::new(|| Tiny::default().model(&Arc::new(gpu())));

pub(super) fn samplings() -> [SamplerSettings; 3] {
    let greedy = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
    let penalties = SamplerSettings { repeat_penalty: 1.3, ..SamplerSettings::default() };
    [greedy, SamplerSettings { seed: 4, ..SamplerSettings::default() }, penalties]
}

pub(super) fn begun(policy: Policy) -> Session {
    let settings = CacheSettings { policy, ..streaming(4, 60, 8, F32) };
    let settings = match policy {
        Policy::Streaming | Policy::HalfDiscard => settings,
        _ => CacheSettings { sinks: 0, window: 64, ..settings },
    };
    let mut session = session(&MODEL, settings);
    block_on(session.feed(&[72, 101, 108, 108, 111])).unwrap();
    session
}

pub(super) fn next(generation: &mut Generation, session: &mut Session) -> u32 {
    block_on(generation.next(session)).unwrap().unwrap()
}

#[test]
fn a_bias_bans_and_prefers_on_the_device_as_on_the_host() {
    let free = |by: &SamplerSettings, policy| -> Vec<u32> {
        let mut session = begun(policy);
        let mut generation = session.generate(by.clone(), &[END]).unwrap();
        (0..20).map(|_| next(&mut generation, &mut session)).collect()
    };
    for by in samplings() {
        let expected = free(&by, Policy::Streaming);
        let bans = |value: f32| {
            let bias = expected.iter().map(|&id| (id, value)).collect();
            free(&SamplerSettings { bias, ..by.clone() }, Policy::Streaming)
        };
        for value in [-100.0, f32::NEG_INFINITY] {
            let found = bans(value);
            assert!(!found.iter().any(|id| expected.contains(id)), "{found:?}");
        }
        let bias = vec![(70, 60.0), (71, 59.0), (expected[0], -3.5)];
        let preferred = SamplerSettings { bias, ..by.clone() };
        let found = free(&preferred, Policy::Streaming);
        assert!(found.iter().all(|id| [70, 71].contains(id)), "{found:?}");
        assert_eq!(found[..5], free(&preferred, Policy::Recompute)[..5], "the host's own");
    }
    let session = begun(Policy::Streaming);
    for (bias, word) in [
        (vec![(320, 1.0)], "below 320"),
        (vec![(1, f32::NAN)], "NaN of token 1"),
        (vec![(1, f32::INFINITY)], "inf of token 1"),
        (vec![(1, 1.0); 1025], "at most 1024"),
        ((0..320).map(|id| (id, -100.0)).collect(), "every token is banned"),
    ] {
        let by = SamplerSettings { bias, ..SamplerSettings::default() };
        let error = session.generate(by, &[]).map(drop).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn who_watches_changes_nothing_and_sees_how_likely_each_token_was() {
    for policy in [Policy::Streaming, Policy::Recompute] {
        let samplings = samplings();
        for by in &samplings[..if policy == Policy::Recompute { 1 } else { 3 }] {
            let by = SamplerSettings { bias: vec![(65, 4.0)], ..by.clone() };
            let mut session = begun(policy);
            let mut generation = session.generate(by.clone(), &[END]).unwrap();
            let expected: Vec<u32> = (0..8).map(|_| next(&mut generation, &mut session)).collect();
            let mut watched = begun(policy);
            let mut other = begun(policy);
            let mut generation = watched.generate(by, &[END]).unwrap();
            generation.watch(3);
            for token in expected {
                let logits = block_on(other.logits()).unwrap();
                assert_eq!(next(&mut generation, &mut watched), token);
                let found = generation.logprobs().unwrap();
                let exp: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
                let sum: f64 = exp.iter().sum();
                let close =
                    |found: f64, id: u32| (found - (exp[id as usize] / sum).ln()).abs() < 1e-4;
                assert!(close(found.token, token), "{found:?}");
                assert_eq!(found.top.len(), 3);
                assert!(found.top.iter().all(|&(id, value)| close(value, id)), "{found:?}");
                assert!(found.top.is_sorted_by(|a, b| a.1 >= b.1));
                let likeliest = (0..).zip(&exp).max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
                assert_eq!(found.top[0].0, likeliest);
                block_on(other.feed(&[token])).unwrap();
            }
        }
    }
    let none = Logprobs::new(&[1.0, f32::NEG_INFINITY, 1.0], 1, 9);
    assert_eq!(none.token, f64::NEG_INFINITY);
    assert_eq!(none.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 2, 1]);
}

#[test]
fn among_streams_that_share_passes_it_is_the_same() {
    let settings = streaming(4, 60, 8, F32);
    let several = || block_on(Session::several(MODEL.clone(), settings, 3)).unwrap();
    let prompts = [text(1, 5), text(2, 9), text(3, 7)];
    let kinds = |i: usize, stream: &Session| {
        let bias =
            if i == 0 { Vec::new() } else { vec![(65, 3.0), (66, -100.0), (320 - i as u32, 9.0)] };
        let by = SamplerSettings { bias, ..samplings()[i].clone() };
        let mut generation = stream.generate(by, &[END]).unwrap();
        if i == 2 {
            generation.watch(2);
        }
        generation
    };
    let mut expected = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        let stream = &mut several()[0];
        block_on(stream.feed(prompt)).unwrap();
        let mut generation = kinds(i, stream);
        let tokens: Vec<u32> = (0..30).map(|_| next(&mut generation, stream)).collect();
        expected.push(tokens);
    }
    let mut streams = several();
    let mut generations = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        block_on(streams[i].feed(prompt)).unwrap();
        generations.push(kinds(i, &streams[i]));
    }
    let mut found = vec![Vec::new(); 3];
    for n in 0..90 {
        // Sometimes one goes twice.
        let i = if n % 7 == 3 { (n + 1) % 3 } else { n % 3 };
        if found[i].len() < 30 {
            found[i].push(next(&mut generations[i], &mut streams[i]));
        }
    }
    for (found, expected) in found.iter().zip(&expected) {
        assert!(found.len() >= 20);
        assert_eq!(found[..], expected[..found.len()]);
    }
    assert!(generations[2].logprobs().is_some());
}
