//! Models with layers that do not attend, of many sizes, against a stream on the CPU; and what cannot be had of them.
mod made;

use super::gguf_file::GgufFile;
use super::tiny::{Tiny, hold_to_oracle, session, streaming, text};
use crate::format::{Array, Value};
use crate::model::{CacheSettings, KvType, Policy};
use crate::session::Session;
use crate::text::SamplerSettings;
use made::Made;
use pollster::block_on;

const F32: KvType = KvType::F32;

/// Of different sizes, places of the layers that attend, and lengths of what the others look back on.
fn convolutions() -> [Made; 4] {
    let (base, [c, a]) = (Tiny::default(), [false, true]);
    let wide =
        Tiny { n_embd: 96, n_head: 3, n_head_kv: 1, head_dim: 32, rope_dim: 32, ..base.clone() };
    [
        Made::lfm2(base.clone(), &[c, a], 4),
        Made::lfm2(Tiny { seed: 2, ..base.clone() }, &[a, c, c], 1),
        Made::lfm2(Tiny { seed: 3, ..wide }, &[c, c, a], 3),
        Made::lfm2(Tiny { seed: 4, n_head_kv: 4, ..base }, &[a, c], 9),
    ]
}

/// Of different heads, dimensions and convolutions; one with its layers told by a gap.
fn states() -> [Made; 4] {
    let (base, [s, a]) = (Tiny { rope_dim: 4, ..Tiny::default() }, [false, true]);
    let wide =
        Tiny { n_embd: 96, n_head: 3, n_head_kv: 1, head_dim: 32, rope_dim: 8, ..base.clone() };
    let told = Made::qwen35(Tiny { seed: 3, ..wide }, &[s, s, a], 3, [1, 2, 64, 48]);
    [
        Made::qwen35(base.clone(), &[s, a], 4, [2, 4, 32, 32]),
        Made::qwen35(Tiny { seed: 2, ..base.clone() }, &[a, s, s], 1, [4, 4, 8, 16]),
        Made { interval: Some(3), ..told },
        Made::qwen35(Tiny { seed: 4, n_head_kv: 4, ..base }, &[s, a], 6, [2, 6, 12, 16]),
    ]
}

#[test]
fn states_of_all_sizes_stream_as_the_paper_does() {
    let shapes = [(4, 9, 5), (0, 1, 1), (2, 13, 7), (3, 6, 40)];
    for (made, (sinks, window, chunk)) in states().iter().zip(shapes) {
        let mut session = session(&made.model(), streaming(sinks, window, chunk, F32));
        let what = format!("{:?}, {sinks} + {window}", made.delta);
        let tokens = text(5, 150);
        hold_to_oracle(&what, &mut session, &mut made.oracle(sinks, window), &tokens, 1e-3);
    }
}

/// However tokens were taken back, generated ahead, or left in the middle, what follows is the same to the bit.
#[test]
fn a_state_is_what_its_tokens_make_it() {
    for made in [&convolutions()[0], &states()[0]] {
        let (model, tokens) = (made.model(), text(8, 400));
        let make = |chunk| session(&model, streaming(3, 11, chunk, F32));
        let logits = |session: &mut Session| {
            let logits = block_on(session.logits()).unwrap();
            logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        // One by one, so that all products are of one kind.
        let mut plain = make(1);
        let mut expected = Vec::new();
        for &token in &tokens[..200] {
            block_on(plain.feed(&[token])).unwrap();
            expected.push(logits(&mut plain));
        }
        let mut wild = make(1);
        let mut at = 0;
        for (i, back) in [1, 0, 1, 1, 0].into_iter().cycle().enumerate().take(60) {
            let fed = 1 + 7 * i % 5;
            if at + fed > 190 {
                break;
            }
            for token in &tokens[at..at + fed] {
                block_on(wild.feed(&[*token])).unwrap();
            }
            at += fed;
            assert_eq!(logits(&mut wild), expected[at - 1], "fed {at}");
            if back > 0 && at > 2 {
                // Others come in between, and are forgotten.
                block_on(wild.feed(&tokens[300 + i..301 + i])).unwrap();
                block_on(wild.rewind(1, tokens[at - 1])).unwrap();
                assert_eq!(logits(&mut wild), expected[at - 1], "forgot at {at}");
            }
            if i % 7 == 3 {
                let mut generation = wild.generate(SamplerSettings::default(), &[]).unwrap();
                let next = block_on(generation.next(&mut wild)).unwrap();
                assert!(next.is_some());
                drop(generation);
                block_on(wild.rewind(1, tokens[at - 1])).unwrap();
                assert_eq!(logits(&mut wild), expected[at - 1], "generated at {at}");
            }
            if i % 11 == 5 {
                let saved = block_on(wild.snapshot(None, "")).unwrap();
                let mut other = session(&model, saved.settings());
                // What was there before is not seen.
                block_on(other.feed(&tokens[200..290])).unwrap();
                other.restore(&saved).unwrap();
                assert_eq!(logits(&mut other), expected[at - 1], "saved at {at}");
                wild = other;
            }
        }
        assert!(at > 100, "{at}");
        wild.reset();
        block_on(wild.feed(&tokens[..1])).unwrap();
        assert_eq!(logits(&mut wild), expected[0], "begun anew");
        // In chunks: back by as many as can be, again and again.
        let mut chunks = make(16);
        block_on(chunks.feed(&tokens[..150])).unwrap();
        let expected = logits(&mut chunks);
        for back in [1, 9, 16] {
            block_on(chunks.feed(&tokens[200..200 + back])).unwrap();
            block_on(chunks.rewind(back as u64, tokens[149])).unwrap();
            let found = logits(&mut chunks);
            let close =
                |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs() < 1e-4;
            assert!(found.iter().zip(&expected).all(close), "back by {back}");
        }
        let error = block_on(chunks.rewind(100, tokens[49])).unwrap_err().to_string();
        assert!(error.contains("cannot be taken back"), "{error}");
        assert!(logits(&mut chunks).len() == expected.len(), "and goes on");
    }
}

#[test]
fn convolutions_of_all_sizes_stream_as_the_paper_does() {
    let shapes = [(4, 9, 5), (0, 1, 1), (2, 13, 7), (3, 6, 32)];
    for (made, (sinks, window, chunk)) in convolutions().iter().zip(shapes) {
        let mut session = session(&made.model(), streaming(sinks, window, chunk, F32));
        let what = format!("{} taps, {sinks} + {window}", made.taps);
        let tokens = text(5, 120);
        hold_to_oracle(&what, &mut session, &mut made.oracle(sinks, window), &tokens, 1e-3);
    }
}

/// A token computed anew with others before it begins where nothing was.
#[test]
fn all_policies_are_right_or_refused() {
    for made in [&convolutions()[0], &states()[0]] {
        policies(made);
    }
}

fn policies(made: &Made) {
    let (model, tokens) = (made.model(), text(6, 40));
    let settings = streaming(0, 16, 5, F32);
    let recompute = CacheSettings { policy: Policy::Recompute, ..settings };
    let mut anew = session(&model, recompute);
    let mut oracle = made.oracle(0, 64);
    for (i, &token) in tokens.iter().enumerate() {
        block_on(anew.feed(&[token])).unwrap();
        if i % 7 != 0 {
            continue;
        }
        oracle.restart();
        let seen = &tokens[(i + 1).saturating_sub(16)..=i];
        let expected = seen.iter().map(|&token| oracle.step(token)).last().unwrap();
        let expected: Vec<f32> = expected.iter().map(|&logit| logit as f32).collect();
        let found = block_on(anew.logits()).unwrap();
        super::support::assert_close("recompute", &found, &expected, 1e-3, 0.0);
    }
    let mut dense =
        session(&model, CacheSettings { policy: Policy::Dense, window: 40, ..settings });
    hold_to_oracle("dense", &mut dense, &mut made.oracle(0, 64), &tokens, 1e-3);
    let half = CacheSettings { policy: Policy::HalfDiscard, ..settings };
    let error = block_on(Session::new(model, half)).err().unwrap().to_string();
    assert!(error.contains("half-discard") && error.contains("state"), "{error}");
}

#[test]
fn files_of_convolutions_that_cannot_run_are_refused_in_words() {
    let made = &convolutions()[0];
    let set = |name: &'static str, value: Value| {
        move |file: &mut GgufFile| {
            let key = format!("lfm2.{name}");
            file.metadata.retain(|(k, _)| *k != key);
            file.metadata.push((key, value.clone()));
        }
    };
    let heads =
        |heads: &[i32]| set("attention.head_count_kv", Value::Array(Array::I32(heads.to_vec())));
    for (error, text) in [
        (made.refused(heads(&[0, 0])), "a model without attention"),
        (made.refused(heads(&[0, -2])), "head_count_kv is -2"),
        (made.refused(heads(&[0, 2, 0])), "3 sizes for 2 layers"),
        (made.refused(heads(&[2, 0])), "attn_q.weight is missing"),
        (made.refused(set("shortconv.l_cache", Value::U32(0))), "shortconv.l_cache is 0"),
        (made.refused(set("shortconv.l_cache", Value::U32(65))), "shortconv.l_cache is 65"),
        (made.refused(set("shortconv.l_cache", Value::U32(3))), "shortconv.conv.weight has shape"),
    ] {
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn files_of_states_that_cannot_run_are_refused_in_words() {
    let made = &states()[0];
    let set = |name: &'static str, value: Value| {
        move |file: &mut GgufFile| {
            let key = format!("qwen35.{name}");
            file.metadata.retain(|(k, _)| *k != key);
            file.metadata.push((key, value.clone()));
        }
    };
    let list = |layers: &[bool]| {
        set("attention.recurrent_layers", Value::Array(Array::Bool(layers.to_vec())))
    };
    let size = |name: &'static str, value: u32| set(name, Value::U32(value));
    let lost = |name: &'static str| {
        move |file: &mut GgufFile| file.tensors.retain(|(tensor, ..)| tensor != name)
    };
    for (error, text) in [
        (made.refused(list(&[true, true])), "no layer attends"),
        (made.refused(list(&[true])), "no list of 2 truths"),
        (made.refused(size("attention.recurrent_layers", 1)), "no list of 2 truths"),
        (made.refused(size("ssm.conv_kernel", 65)), "ssm.conv_kernel is 65"),
        (made.refused(size("ssm.group_count", 3)), "do not share evenly"),
        (made.refused(size("ssm.group_count", 0)), "ssm.group_count is 0"),
        (made.refused(size("ssm.state_size", 30)), "30 dimensions a key"),
        (made.refused(size("ssm.state_size", 516)), "516 dimensions a key"),
        (made.refused(size("ssm.inner_size", 124)), "124 of values"),
        (made.refused(size("ssm.inner_size", 1 << 24)), "wider than any model"),
        (made.refused(size("ssm.state_size", 64)), "attn_qkv.weight has shape"),
        (made.refused(size("ssm.time_step_rank", u32::MAX)), "ssm.time_step_rank is"),
        (made.refused(lost("blk.0.ssm_a")), "blk.0.ssm_a is missing"),
        (made.refused(lost("blk.0.ssm_dt.bias")), "blk.0.ssm_dt.bias is missing"),
    ] {
        assert!(error.contains(text), "{text}: {error}");
    }
    let no_gap = Made { interval: Some(0), ..made.clone() };
    assert!(no_gap.refused(|_| ()).contains("full_attention_interval is 0"));
}

#[cfg(feature = "cli")]
#[test]
fn a_scan_looks_at_layers_that_attend() {
    use crate::eval::sinks::SinkScan;
    let made = &states()[0];
    let mut scan = block_on(SinkScan::new(made.model(), 80, F32)).unwrap();
    let tokens = text(3, 60);
    let mut oracle = made.oracle(0, 80);
    tokens.iter().for_each(|&token| drop(oracle.step(token)));
    for part in tokens.chunks(scan.pass()) {
        block_on(scan.feed(part, 59)).unwrap();
    }
    let seen = scan.seen().unwrap();
    assert!(seen.is_finite() && seen.shares[0].is_empty() && seen.of_layer(0, 4) == 0.0);
    let found: Vec<f32> = seen.shares[1].iter().map(|head| head[0] as f32).collect();
    let expected: Vec<f32> = oracle.shares()[1].iter().map(|head| head[0] as f32).collect();
    super::support::assert_close("shares", &found, &expected, 1e-5, 0.0);
    let mean = expected.iter().sum::<f32>() / expected.len() as f32;
    super::support::assert_close("of all", &[seen.by_token()[0] as f32], &[mean], 1e-5, 0.0);
}

#[test]
fn models_that_see_what_follows_are_refused() {
    let both = |file: &mut GgufFile| {
        file.metadata.push(("lfm2.attention.causal".into(), Value::Bool(false)));
    };
    assert!(convolutions()[0].refused(both).contains("lfm2.attention.causal"));
}
