//! The likelihoods of a text against those of the oracle in f64.
use super::support::{assert_close, gpu};
use super::tiny::{Tiny, session, streaming, text};
use crate::eval::score::{Scorer, log_loss, recomputed};
use crate::format::DType;
use crate::model::{CacheSettings, KvType, Model, Policy};
use pollster::block_on;
use std::sync::Arc;

fn scored(model: &Arc<Model>, settings: CacheSettings, tokens: &[u32]) -> Vec<f32> {
    let mut scorer = block_on(Scorer::new(model.clone(), settings)).unwrap();
    let mut nll = Vec::new();
    let told = |part: &[f32]| {
        nll.extend_from_slice(part);
        true
    };
    block_on(scorer.score(tokens, told)).unwrap();
    nll
}

/// In f64, without the loss of cancelling large terms.
fn of_logits(logits: &[f64], target: u32) -> f64 {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - highest).exp()).sum();
    sum.ln() + highest - logits[target as usize]
}

fn expected(tiny: &Tiny, settings: CacheSettings, tokens: &[u32]) -> Vec<f32> {
    let mut oracle = tiny.oracle(settings.sinks, settings.window);
    if settings.policy == Policy::HalfDiscard {
        oracle = oracle.half_discarding();
    }
    let pairs = tokens.iter().zip(&tokens[1..]);
    pairs.map(|(&token, &next)| of_logits(&oracle.step(token), next) as f32).collect()
}

fn with(policy: Policy, window: usize, chunk: usize) -> CacheSettings {
    CacheSettings { policy, ..streaming(0, window, chunk, KvType::F32) }
}

#[test]
fn every_token_scores_as_in_the_oracle() {
    let gpu = Arc::new(gpu());
    let tokens = text(21, 150);
    let untied = Tiny { tied: false, seed: 5, ..Tiny::default() };
    for tiny in [Tiny::default(), untied] {
        let model = tiny.model(&gpu);
        for settings in [
            streaming(4, 12, 7, KvType::F32),
            streaming(1, 30, 64, KvType::F32),
            with(Policy::Window, 9, 16),
            with(Policy::Dense, 200, 40),
            CacheSettings { sinks: 3, ..with(Policy::HalfDiscard, 17, 6) },
        ] {
            let found = scored(&model, settings, &tokens);
            let what = format!("{settings:?}");
            assert_close(&what, &found, &expected(&tiny, settings, &tokens), 1e-3, 0.0);
        }
    }
}

#[test]
fn every_chunk_size_scores_the_same() {
    let gpu = Arc::new(gpu());
    let tokens = text(22, 140);
    let tiny = Tiny::of_type(DType::Q4_1);
    let model = tiny.model(&gpu);
    let expected = scored(&model, streaming(4, 20, 1, KvType::F32), &tokens);
    assert_eq!(expected.len(), tokens.len() - 1);
    // one less, as many and one more than there are to predict; odd; a chunk of each parity at the end
    for chunk in [2, 7, 46, 64, 138, 139, 140] {
        let found = scored(&model, streaming(4, 20, chunk, KvType::F32), &tokens);
        assert_close(&format!("chunk {chunk}"), &found, &expected, 1e-4, 1e-4);
    }
}

#[test]
fn a_scorer_starts_anew_and_stops_when_told() {
    let model = Tiny::default().model(&Arc::new(gpu()));
    let mut scorer = block_on(Scorer::new(model, streaming(2, 9, 8, KvType::F16))).unwrap();
    let tokens = text(23, 90);
    let mut parts: Vec<Vec<f32>> = Vec::new();
    for stop in [2, usize::MAX] {
        let mut nll = Vec::new();
        let mut left = stop;
        let told = |part: &[f32]| {
            nll.extend_from_slice(part);
            left -= 1;
            left > 0
        };
        block_on(scorer.score(&tokens, told)).unwrap();
        parts.push(nll);
    }
    assert_eq!(parts[0].len(), 16);
    assert_eq!(parts[1].len(), 89);
    assert_eq!(parts[0], parts[1][..16]);
}

#[test]
fn a_scorer_refuses_what_it_cannot_score() {
    let model = Tiny::default().model(&Arc::new(gpu()));
    let settings = with(Policy::Dense, 10, 4);
    let mut scorer = block_on(Scorer::new(model, settings)).unwrap();
    let mut error = |tokens: &[u32]| {
        block_on(scorer.score(tokens, |_| true)).err().map(|error| error.to_string())
    };
    assert_eq!(error(&[1, 320]).unwrap(), "token 320 is not one of the model's 320");
    assert!(error(&text(24, 12)).unwrap().contains("dense cache holds 10 tokens and 11 were"));
    assert_eq!(error(&text(24, 11)), None);
    assert_eq!(error(&[]), None);
}

#[test]
fn recomputing_scores_as_a_stream_that_starts_there() {
    let tiny = Tiny::default();
    let model = tiny.model(&Arc::new(gpu()));
    let mut stream = session(&model, with(Policy::Recompute, 20, 8));
    let tokens = text(25, 90);
    for index in [1, 5, 19, 20, 21, 47, 89] {
        let found = block_on(recomputed(&mut stream, &tokens, index)).unwrap();
        let from = index - index.min(20);
        let mut oracle = tiny.oracle(0, 20);
        let logits = tokens[from..index].iter().map(|&token| oracle.step(token)).last().unwrap();
        let expected = of_logits(&logits, tokens[index]) as f32;
        assert_close(&format!("token {index}"), &[found], &[expected], 1e-3, 0.0);
        // While nothing is forgotten, it is what a stream says.
        if index <= 20 {
            let dense = scored(&model, with(Policy::Dense, 90, 8), &tokens);
            assert_close("dense", &[found], &[dense[index - 1]], 1e-4, 0.0);
        }
    }
}

#[test]
fn the_host_scores_as_the_device() {
    let logits = [1.0f32, -2.0, 700.0, 699.5];
    let wide: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    for target in 0..4 {
        let found = log_loss(&logits, target);
        assert!((f64::from(found) - of_logits(&wide, target)).abs() < 1e-4, "{target}: {found}");
    }
}
