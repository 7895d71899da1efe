//! What holds of a stream whoever leads it on, and of what is not a number.
use super::support::{assert_close, dropped_after, gpu};
use super::tiny::{Tiny, session, streaming, text};
use crate::Error;
use crate::eval::score::Scorer;
use crate::format::{BytesSource, Gguf};
use crate::gpu::Gpu;
use crate::model::{Cache, CacheSettings, KvType, Model, Policy};
use crate::session::{Generation, Session, Snapshot};
use crate::text::SamplerSettings;
use pollster::block_on;
use std::collections::HashMap;
use std::sync::Arc;

const POLICIES: [Policy; 4] = [Policy::Streaming, Policy::Window, Policy::Dense, Policy::Recompute];

/// Caches that a stream of 200 tokens goes round more than once, where it can.
fn of(policy: Policy) -> CacheSettings {
    let (sinks, window) = match policy {
        Policy::Streaming => (4, 12),
        Policy::Dense => (0, 200),
        // several passes
        Policy::Recompute => (0, 100),
        _ => (0, 12),
    };
    CacheSettings { policy, window, ..streaming(sinks, window, 16, KvType::F32) }
}

fn greedy() -> SamplerSettings {
    SamplerSettings { temperature: 0.0, ..SamplerSettings::default() }
}

/// On the device by chance, and with penalties.
fn samplings() -> [SamplerSettings; 3] {
    let sampled = SamplerSettings { temperature: 1.5, seed: 7, ..SamplerSettings::default() };
    let penalised = SamplerSettings { repeat_penalty: 1.5, penalty_last_n: 8, ..sampled.clone() };
    [greedy(), sampled, penalised]
}

fn fed(model: &Arc<Model>, settings: CacheSettings, tokens: &[u32]) -> Session {
    let mut stream = session(model, settings);
    block_on(stream.feed(tokens)).unwrap();
    stream
}

fn take(stream: &mut Session, by: &mut Generation, count: usize) -> Vec<u32> {
    (0..count).map(|_| block_on(by.next(stream)).unwrap().unwrap()).collect()
}

fn logits(stream: &mut Session) -> Vec<f32> {
    block_on(stream.logits()).unwrap()
}

/// The likeliest, by the host.
fn likeliest(stream: &mut Session) -> u32 {
    let logits = logits(stream);
    (0..logits.len() as u32)
        .rev()
        .max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize]))
        .unwrap()
}

fn words<T>(result: crate::Result<T>) -> (bool, String) {
    let error = result.err().expect("an error");
    (error.is_usage(), error.to_string())
}

#[test]
fn each_generation_keeps_to_its_own_bans() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let prompt = text(30, 20);
    let mut stream = fed(&model, of(Policy::Streaming), &prompt);
    let first = likeliest(&mut stream);
    for settings in [greedy(), SamplerSettings { top_k: 1, ..SamplerSettings::default() }] {
        let mut alone = fed(&model, of(Policy::Streaming), &prompt);
        let mut by = alone.generate(settings.clone(), &[first]).unwrap();
        let expected = take(&mut alone, &mut by, 12);
        assert!(!expected.contains(&first));
        let mut stream = fed(&model, of(Policy::Streaming), &prompt);
        let mut older = stream.generate(settings.clone(), &[first]).unwrap();
        let mut newer = stream.generate(settings.clone(), &[]).unwrap();
        assert_eq!(take(&mut stream, &mut older, 12), expected, "{settings:?}");
        // in turns, each goes on from what the other gave
        let before = [&prompt[..], &expected].concat();
        let mut told = fed(&model, of(Policy::Streaming), &before[..1]);
        before[1..].iter().for_each(|&id| block_on(told.feed(&[id])).unwrap());
        assert_eq!(take(&mut stream, &mut newer, 1), [likeliest(&mut told)]);
    }
}

#[test]
fn a_generation_says_when_there_is_nothing_to_go_on_from() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    for policy in POLICIES {
        let prompt = text(31, 15);
        let mut stream = fed(&model, of(policy), &text(32, 30));
        let mut by = stream.generate(greedy(), &[]).unwrap();
        take(&mut stream, &mut by, 5);
        stream.reset();
        for result in
            [block_on(by.next(&mut stream)).map(drop), block_on(stream.logits()).map(drop)]
        {
            let (usage, error) = words(result);
            assert!(usage && error.contains("feed a token first"), "{policy:?}: {error}");
        }
        block_on(stream.feed(&prompt)).unwrap();
        let mut anew = fed(&model, of(policy), &prompt);
        let mut by_anew = anew.generate(greedy(), &[]).unwrap();
        let expected = take(&mut anew, &mut by_anew, 8);
        assert_eq!(take(&mut stream, &mut by, 8), expected, "{policy:?}");
    }
}

#[test]
fn a_new_generation_can_be_told_what_the_stream_remembers() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let prompt = text(41, 20);
    let settings = SamplerSettings {
        repeat_penalty: 1.5,
        frequency_penalty: 0.3,
        penalty_last_n: 24,
        ..greedy()
    };
    let begin = |stream: &Session| {
        let mut by = stream.generate(settings.clone(), &[]).unwrap();
        stream.recent().for_each(|id| by.accept(id));
        by
    };
    let make = || fed(&model, of(Policy::Streaming), &prompt);
    let (mut whole, mut stream) = (make(), make());
    let mut by = begin(&whole);
    let expected = take(&mut whole, &mut by, 30);
    // as a page does: stopped, and continued
    let mut found = Vec::new();
    for count in [4, 7, 19] {
        let mut by = begin(&stream);
        found.extend(take(&mut stream, &mut by, count));
    }
    assert_eq!(found, expected);
}

#[test]
fn rewind_wants_the_token_that_was_there() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let tokens = text(33, 40);
    let mut stream = fed(&model, of(Policy::Streaming), &tokens);
    for (back, last) in [(0, 320), (3, u32::MAX), (0, tokens[39] ^ 1), (3, tokens[36] ^ 1)] {
        let (usage, error) = words(block_on(stream.rewind(back, last)));
        assert!(usage && error.contains(&last.to_string()), "{back} to {last}: {error}");
        assert_eq!(stream.position(), 40);
    }
    block_on(stream.rewind(3, tokens[36])).unwrap();
    // also of what was generated, and given out but not fed
    let mut by = stream.generate(greedy(), &[]).unwrap();
    let given = take(&mut stream, &mut by, 4);
    assert!(stream.recent().eq([&tokens[37 + 4 - 33..37], &given].concat()), "S + N + 1 of them");
    assert!(block_on(stream.rewind(2, given[1] ^ 1)).is_err());
    block_on(stream.rewind(2, given[1])).unwrap();
    assert_eq!((stream.position(), stream.recent().last()), (39, Some(given[1])));
}

#[test]
fn rewind_leaves_a_token_at_least() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let tokens = text(42, 10);
    for policy in POLICIES {
        let mut stream = session(&model, of(policy));
        let (usage, error) = words(block_on(stream.rewind(0, 5)));
        assert!(usage && error.contains("holds 0"), "{policy:?}: {error}");
        block_on(stream.feed(&tokens)).unwrap();
        assert!(stream.recent().eq(tokens.iter().copied()), "{policy:?}");
        let mut by = stream.generate(greedy(), &[]).unwrap();
        by.submit_together(4);
        take(&mut stream, &mut by, 2);
        let known: Vec<u32> = stream.recent().collect();
        for back in [12, 13, u64::MAX] {
            let (usage, error) = words(block_on(stream.rewind(back, 5)));
            assert!(usage && error.contains("holds 12"), "{policy:?}: {error}");
        }
        assert!(stream.recent().eq(known), "{policy:?}");
    }
}

#[test]
fn a_policy_changes_with_the_next_token_however_far_the_device_is_ahead() {
    let gpu = Arc::new(gpu());
    // One layer sees raw embeddings alone: its keys do not remember what was seen before.
    let model = Tiny { n_layer: 1, ..Tiny::default() }.model(&gpu);
    let prompt = text(34, 30);
    let wide = CacheSettings { ring: Some(60), ..of(Policy::Streaming) };
    for together in [1, 4, 8] {
        let mut stream = fed(&model, wide, &prompt);
        let mut by = stream.generate(greedy(), &[]).unwrap();
        by.submit_together(together);
        let before = take(&mut stream, &mut by, 5);
        stream.set_policy(Policy::Window).unwrap();
        let after = take(&mut stream, &mut by, 20);
        // told the same, one by one: the last one is the first that sees no sinks
        let mut told = fed(&model, wide, &prompt);
        let (last, others) = before.split_last().unwrap();
        others.iter().for_each(|&id| block_on(told.feed(&[id])).unwrap());
        told.set_policy(Policy::Window).unwrap();
        block_on(told.feed(&[*last])).unwrap();
        for (i, &id) in after.iter().enumerate() {
            assert_eq!(likeliest(&mut told), id, "{together} together, token {i}");
            block_on(told.feed(&[id])).unwrap();
        }
        // saved at once, it goes on as if it had not been
        stream.set_policy(Policy::Streaming).unwrap();
        let saved = block_on(stream.snapshot(Some(&by), "")).unwrap();
        let saved = Snapshot::from_bytes("kept", saved.as_bytes().to_vec()).unwrap();
        let mut there = session(&model, saved.settings());
        there.restore(&saved).unwrap();
        let mut resumed = there.resume(&saved).unwrap().unwrap();
        assert_eq!(take(&mut there, &mut resumed, 9), take(&mut stream, &mut by, 9));
    }
}

#[test]
fn a_feed_that_is_dropped_or_ended_has_fed_what_it_has() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let (first, prompt) = (text(35, 7), text(36, 180));
    for policy in POLICIES {
        let mut cut = 0;
        let (mut stream, mut whole) = (session(&model, of(policy)), session(&model, of(policy)));
        for waits in 0..10 {
            stream.reset();
            whole.reset();
            block_on(stream.feed(&first)).unwrap();
            let mut by = stream.generate(greedy(), &[]).unwrap();
            let given = take(&mut stream, &mut by, 2);
            // Either the future is dropped at a wait, or the caller has enough.
            let mut asked = 0;
            let mut enough = || {
                asked += 1;
                asked <= waits
            };
            let count = match waits % 2 {
                0 => dropped_after(waits, stream.feed_while(&prompt, || true)).transpose().unwrap(),
                _ => Some(block_on(stream.feed_while(&prompt, &mut enough)).unwrap()),
            };
            let position = stream.position() as usize;
            let done = position - first.len() - given.len();
            cut += usize::from(done < prompt.len());
            assert!(count.is_none_or(|count| count == done), "{policy:?} {waits}: {count:?}");
            assert!(policy != Policy::Recompute || [0, prompt.len()].contains(&done), "{done}");
            let known = [&first[..], &given, &prompt[..done]].concat();
            assert_eq!(stream.recent().last(), known.last().copied(), "{policy:?} {waits}");
            // It is the stream of what was fed: its logits, and all that comes after.
            block_on(whole.feed(&known)).unwrap();
            let what = format!("{policy:?} after {waits} waits, {done} fed");
            assert_close(&what, &logits(&mut stream), &logits(&mut whole), 1e-4, 1e-4);
            for part in [&prompt[done..], &first] {
                block_on(stream.feed(part)).unwrap();
                block_on(whole.feed(part)).unwrap();
                assert_close(&what, &logits(&mut stream), &logits(&mut whole), 1e-4, 1e-4);
            }
            assert_eq!(stream.position(), whole.position());
        }
        assert!(cut >= 4, "{policy:?}: {cut} were cut short");
    }
}

#[test]
fn a_token_whose_future_was_dropped_comes_again() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let prompt = text(37, 20);
    let one_by_one = CacheSettings { chunk: 1, ..of(Policy::Streaming) };
    for cache in [of(Policy::Streaming), one_by_one, of(Policy::Dense), of(Policy::Recompute)] {
        for settings in samplings() {
            let make = || {
                let stream = fed(&model, cache, &prompt);
                let mut by = stream.generate(settings.clone(), &[]).unwrap();
                by.submit_together(2);
                (stream, by)
            };
            let (mut whole, mut by_whole) = make();
            let expected = take(&mut whole, &mut by_whole, 18);
            let (mut stream, mut by) = make();
            let (mut found, mut drops) = (Vec::new(), 0);
            while found.len() < 18 {
                // at the first wait of a token, the second, and so on; then one goes by
                let dropped = dropped_after(found.len() % 3, by.next(&mut stream));
                let token = dropped.unwrap_or_else(|| {
                    drops += 1;
                    assert_eq!(stream.position() as usize, prompt.len() + found.len());
                    block_on(by.next(&mut stream))
                });
                found.push(token.unwrap().unwrap());
            }
            assert_eq!(found, expected, "{cache:?}, {settings:?}");
            assert!(drops >= 6, "{cache:?}: {drops}");
            assert_close("logits", &logits(&mut stream), &logits(&mut whole), 1e-4, 1e-4);
        }
    }
}

#[test]
fn what_a_full_cache_cannot_take_is_refused_before_anything_is_computed() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let mut stream = fed(&model, of(Policy::Dense), &text(38, 3));
    let before = gpu.counters.snapshot();
    let (usage, error) = words(block_on(stream.feed(&text(39, 198))));
    assert!(usage && error.contains("holds 200 tokens and 201 were asked"), "{error}");
    assert_eq!((gpu.counters.snapshot().submits, stream.position()), (before.submits, 3));
    block_on(stream.feed(&text(39, 197))).unwrap();
}

/// A model some of whose numbers are none.
fn damaged(gpu: &Arc<Gpu>, tensor: &str, row: usize, with: f32) -> Arc<Model> {
    let mut parts = Tiny { tied: false, ..Tiny::default() }.parts();
    let (_, dims, _, bytes) =
        parts.tensors.iter_mut().find(|(name, ..)| name == tensor).expect("there is one");
    let len = 4 * dims[0] as usize;
    bytes[row * len..][..len].as_chunks_mut().0.iter_mut().for_each(|x| *x = with.to_le_bytes());
    let source = BytesSource::new("damaged.gguf", parts.bytes());
    let gguf = block_on(Gguf::read(&source)).unwrap();
    Arc::new(block_on(Model::load(gpu.clone(), &source, &gguf, &mut |_, _| ())).unwrap())
}

#[test]
fn what_is_not_a_number_is_said_alike_by_whoever_meets_it() {
    let gpu = Arc::new(gpu());
    // longer than the cache
    let prompt = text(40, 30);
    let one_by_one = CacheSettings { chunk: 1, ..of(Policy::Streaming) };
    let cases = [
        ("output_norm.weight", 0, f32::NAN),
        ("blk.1.attn_v.weight", 0, f32::NAN),
        // one token of all, which the others win against
        ("output.weight", 77, f32::NAN),
        ("output.weight", 77, f32::INFINITY),
    ];
    for (tensor, row, with) in cases {
        let model = damaged(&gpu, tensor, row, with);
        let check = |result: crate::Result<()>, who: &str| {
            let error =
                result.err().unwrap_or_else(|| panic!("{tensor} {with}: {who} says nothing"));
            assert!(matches!(error, Error::NotNumbers(_)), "{tensor} {with}: {who}: {error}");
            assert!(error.to_string().contains("file is damaged"), "{error}");
        };
        for cache in [of(Policy::Streaming), one_by_one, of(Policy::Recompute)] {
            let mut stream = fed(&model, cache, &prompt);
            check(block_on(stream.logits()).map(drop), "logits");
            for settings in samplings() {
                let who = format!("{cache:?} {settings:?}");
                // a ban does not hide it, and it is said each time
                let mut by = stream.generate(settings, &[77]).unwrap();
                check(block_on(by.next(&mut stream)).map(drop), &who);
                check(block_on(by.next(&mut stream)).map(drop), &who);
            }
        }
        let mut scorer = block_on(Scorer::new(model, of(Policy::Streaming))).unwrap();
        check(block_on(scorer.score(&prompt, |_| true)), "perplexity");
    }
}

#[test]
fn a_cache_without_room_names_the_largest_window_that_has() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let limit = gpu.tier.max_binding.min(gpu.tier.max_buffer);
    let asked = streaming(4, 1 << 27, 64, KvType::F32);
    let made = Cache::new(&gpu, &model.config, asked, &HashMap::new()).err();
    let Some(Error::NoRoom { needed, tries, .. }) = made else { panic!("{made:?}") };
    // 2 heads of 16 numbers; 8 pairs of a sine and a cosine
    let (row, phase, slots) = (2 * 16 * 4, 8 * 2 * 4, (1u64 << 27) + 64);
    assert_eq!(needed, 2 * 2 * (4 + slots) * row + (4 + 2 * slots) * phase);
    let largest = |row: u64| {
        let fits = |slots: u64| (4 + slots) * row <= limit && (4 + 2 * slots) * phase <= limit;
        let (mut least, mut most) = (0, 1 << 40);
        while most - least > 1 {
            let middle = (least + most) / 2;
            if fits(middle) { least = middle } else { most = middle }
        }
        (least - 64).to_string()
    };
    assert_eq!(tries, [("window", largest(row)), ("kv", "f16".to_owned())]);
    // halves are half as long: now the rope table is as large as keys and values
    let asked = CacheSettings { kv: KvType::F16, ..asked };
    let made = Cache::new(&gpu, &model.config, asked, &HashMap::new()).err();
    let Some(Error::NoRoom { tries, .. }) = made else { panic!("{made:?}") };
    assert_eq!(tries, [("window", largest(row / 2))]);
}

#[test]
fn the_library_names_no_flags_of_the_command_line() {
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path.ends_with("cli") || path.ends_with("tests") => {}
                true => folders.push(path),
                false if path.extension().is_none_or(|e| e != "rs") => {}
                false => {
                    files += 1;
                    for line in std::fs::read_to_string(&path).unwrap().lines() {
                        let code = line.split("//").next().unwrap_or_default();
                        let flag = code.match_indices("--").any(|(at, _)| {
                            code[at + 2..].starts_with(|c: char| c.is_ascii_lowercase())
                        });
                        assert!(!flag, "{}: {line}", path.display());
                    }
                }
            }
        }
    }
    assert!(files > 50, "{files}");
}
