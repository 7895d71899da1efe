//! Invariant 9 of the design: a stream that was saved in the middle of a lap goes on as if it had never stopped, and
//! nothing else is taken for a saved stream.
use super::support::gpu;
use super::tiny::{Tiny, session, streaming, text};
use crate::Error;
use crate::model::{CacheSettings, KvType, Model, Policy};
use crate::session::{Generation, Session, Snapshot};
use crate::text::SamplerSettings;
use pollster::block_on;
use proptest::prelude::*;
use std::sync::{Arc, OnceLock};

fn bits(session: &mut Session) -> Vec<u32> {
    let logits = block_on(session.logits()).unwrap();
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn next(session: &mut Session, generation: &mut Generation, count: usize) -> Vec<u32> {
    (0..count).map_while(|_| block_on(generation.next(session)).unwrap()).collect()
}

fn of(policy: Policy, kv: KvType) -> CacheSettings {
    let window = if policy == Policy::Dense { 200 } else { 12 };
    let sinks = if policy == Policy::Streaming { 4 } else { 0 };
    // the least there may be
    let ring = matches!(policy, Policy::Streaming | Policy::Window).then_some(20);
    CacheSettings { policy, window, ring, ..streaming(sinks, window, 9, kv) }
}

fn samplings() -> [SamplerSettings; 3] {
    let sampled = SamplerSettings { temperature: 1.5, seed: 7, ..SamplerSettings::default() };
    let penalised = SamplerSettings { repeat_penalty: 1.3, penalty_last_n: 6, ..sampled.clone() };
    [SamplerSettings { temperature: 0.0, ..sampled.clone() }, sampled, penalised]
}

/// As bytes and back.
fn kept(stream: &Session, by: Option<&Generation>) -> Snapshot {
    let snapshot = block_on(stream.snapshot(by, "a note")).unwrap();
    let read = Snapshot::from_bytes("stream.bin", snapshot.as_bytes().to_vec()).unwrap();
    assert_eq!((read.position(), read.note()), (stream.position(), "a note"));
    read
}

/// A new session that is where the stream is.
fn moved(model: &Arc<Model>, stream: &Session) -> Session {
    let snapshot = kept(stream, None);
    let mut there = session(model, snapshot.settings());
    there.restore(&snapshot).unwrap();
    assert_eq!((there.position(), there.evicted()), (stream.position(), stream.evicted()));
    there
}

#[test]
fn a_saved_stream_goes_on_bit_for_bit() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    for policy in [Policy::Streaming, Policy::Window, Policy::Dense, Policy::Recompute] {
        for kv in [KvType::F16, KvType::F32] {
            let mut here = session(&model, of(policy, kv));
            block_on(here.feed(&[1])).unwrap();
            // what it was before does not matter
            let mut there = moved(&model, &here);
            // before the window is full, before the ring has gone round, in its second lap, and far on
            let cases = [(3, 3), (15, 1), (33, 2), (70, 3)];
            for ((given, steps), sampling) in cases.into_iter().zip(samplings().iter().cycle()) {
                let what =
                    format!("{policy:?}, {kv:?}, {given} tokens, {steps} steps, {sampling:?}");
                here.reset();
                let prompt = text(20, given);
                block_on(here.feed(&prompt)).unwrap();
                // with nothing but a prompt, the logits are there
                there.restore(&kept(&here, None)).unwrap();
                assert_eq!(bits(&mut there), bits(&mut here), "{what}: after the prompt");

                let mut generation = here.generate(sampling.clone(), &[256]).unwrap();
                prompt.iter().for_each(|&id| generation.accept(id));
                generation.submit_together(steps);
                // now the device is some tokens ahead
                next(&mut here, &mut generation, 5);
                let saved = kept(&here, Some(&generation));
                there.restore(&saved).unwrap();
                let mut resumed = there.resume(&saved).unwrap().unwrap();
                let expected = next(&mut here, &mut generation, 45);
                assert_eq!(next(&mut there, &mut resumed, 45), expected, "{what}");
                assert_eq!(bits(&mut there), bits(&mut here), "{what}: logits");
            }
        }
    }
}

#[test]
fn saving_disturbs_nothing_and_holds_only_what_is_filled() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let run = |save: bool| {
        let mut stream = session(&model, of(Policy::Streaming, KvType::F16));
        block_on(stream.feed(&text(21, 10))).unwrap();
        let mut generation = stream.generate(samplings()[1].clone(), &[]).unwrap();
        let held = gpu.counters.held();
        let mut ids = Vec::new();
        let mut sizes = Vec::new();
        for _ in 0..40 {
            ids.extend(next(&mut stream, &mut generation, 1));
            if save {
                let snapshot = block_on(stream.snapshot(Some(&generation), "")).unwrap();
                sizes.push(snapshot.as_bytes().len());
            }
        }
        assert_eq!(gpu.counters.held(), held);
        (ids, sizes)
    };
    let ((with, sizes), (without, _)) = (run(true), run(false));
    assert_eq!(with, without);
    // 2 layers of K and V, 2 heads of 16 halves: 256 bytes a token, and never more than S + N of them
    let most = 256 * (4 + 20);
    assert!(sizes[0] < most && sizes[39] - most < 2000, "{sizes:?}");
}

#[test]
fn what_was_taken_back_stays_lost_to_a_restored_stream() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let mut stream = session(&model, of(Policy::Streaming, KvType::F32));
    let tokens = text(22, 60);
    block_on(stream.feed(&tokens)).unwrap();
    // N - W = 8; five of them are spent
    block_on(stream.rewind(5, tokens[54])).unwrap();
    let mut there = moved(&model, &stream);
    for stream in [&mut stream, &mut there] {
        assert!(block_on(stream.rewind(4, tokens[50])).is_err(), "the ring has lost what it needs");
        block_on(stream.rewind(3, tokens[51])).unwrap();
    }
    let mut whole = session(&model, of(Policy::Streaming, KvType::F32));
    tokens[..52].iter().for_each(|&id| block_on(whole.feed(&[id])).unwrap());
    let close = |a: &[u32], b: &[u32]| {
        a.iter().zip(b).all(|(&a, &b)| (f32::from_bits(a) - f32::from_bits(b)).abs() < 1e-4)
    };
    let expected = bits(&mut whole);
    assert_eq!(bits(&mut there), bits(&mut stream));
    assert!(close(&bits(&mut there), &expected));
}

#[test]
fn a_feed_that_was_cut_short_can_be_saved_where_nothing_can_be_taken_back() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    for spare in [0, 1, 3] {
        let cache = streaming(4, 12, 1, KvType::F32);
        let mut here = session(&model, CacheSettings { ring: Some(12 + spare), ..cache });
        let mut asked = 0;
        let enough = || {
            asked += 1;
            asked <= 40
        };
        let done = block_on(here.feed_while(&text(26, 60), enough)).unwrap();
        // The first pass may go in parts, and is asked about before each.
        assert!((39..=40).contains(&done), "{done}");
        let mut there = moved(&model, &here);
        for stream in [&mut here, &mut there] {
            assert_eq!(stream.position(), done as u64);
        }
        assert_eq!(bits(&mut there), bits(&mut here), "N - W = {spare}");
    }
}

#[test]
fn sinks_taken_away_stay_away() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let mut stream = session(&model, of(Policy::Streaming, KvType::F32));
    block_on(stream.feed(&text(23, 50))).unwrap();
    stream.set_policy(Policy::Window).unwrap();
    let mut there = moved(&model, &stream);
    assert_eq!(there.policy(), Policy::Window);
    for stream in [&mut stream, &mut there] {
        block_on(stream.feed(&[5])).unwrap();
    }
    assert_eq!(bits(&mut there), bits(&mut stream));
}

#[test]
fn another_model_or_cache_is_refused_in_words() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let mut stream = session(&model, of(Policy::Streaming, KvType::F16));
    assert!(block_on(stream.snapshot(None, "")).is_err(), "nothing to save yet");
    block_on(stream.feed(&text(24, 30))).unwrap();
    let snapshot = block_on(stream.snapshot(None, "")).unwrap();
    let refused = |model: &Arc<Model>, settings: CacheSettings, words: &[&str]| {
        let mut other = session(model, settings);
        block_on(other.feed(&[1, 2, 3])).unwrap();
        let before = bits(&mut other);
        let Err(Error::Usage(error)) = other.restore(&snapshot) else { panic!("{words:?}") };
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert_eq!((bits(&mut other), other.position()), (before, 3), "changed");
    };
    // the same shapes and the same vocabulary: other numbers
    let trained_again = Tiny { seed: 2, ..Tiny::default() }.model(&gpu);
    refused(&trained_again, snapshot.settings(), &["model", "resume it with the file"]);
    let wider = Tiny { n_layer: 3, ..Tiny::default() }.model(&gpu);
    refused(&wider, snapshot.settings(), &["model"]);
    refused(&model, of(Policy::Window, KvType::F16), &["Window", "Streaming"]);
    refused(&model, of(Policy::Streaming, KvType::F32), &["F32", "F16"]);
    let shorter = CacheSettings { window: 11, ..snapshot.settings() };
    refused(&model, shorter, &["window: 11", "window: 12"]);
}

/// A small saved stream, made once.
fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let gpu = Arc::new(gpu());
        let model = Tiny::default().model(&gpu);
        let mut stream = session(&model, of(Policy::Streaming, KvType::F16));
        block_on(stream.feed(&text(25, 4))).unwrap();
        let mut generation = stream.generate(samplings()[2].clone(), &[256]).unwrap();
        // some tokens ahead, so that the last one is saved as pending, without logits
        generation.submit_together(3);
        next(&mut stream, &mut generation, 2);
        block_on(stream.snapshot(Some(&generation), "")).unwrap().as_bytes().to_vec()
    })
}

#[test]
fn whatever_is_cut_off_or_flipped_is_noticed() {
    let whole = bytes();
    assert!(Snapshot::from_bytes("whole", whole.to_vec()).is_ok());
    for len in 0..whole.len() {
        let cut = Snapshot::from_bytes("cut.bin", whole[..len].to_vec());
        assert!(matches!(cut, Err(Error::Format { .. })), "{len} bytes of {}", whole.len());
    }
    for at in 0..whole.len() {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1 << (at % 8);
        let error = Snapshot::from_bytes("flipped.bin", flipped).err().map(|e| e.to_string());
        let error = error.unwrap_or_else(|| panic!("byte {at} was not missed"));
        assert!(error.starts_with("flipped.bin: byte "), "{error}");
    }
}

/// The same with another head or length, and a checksum that is right.
fn sealed(change: impl FnOnce(&mut serde_json::Value), len: Option<u32>) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let whole = bytes();
    let old = u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
    let mut head = serde_json::from_slice(&whole[16..16 + old]).unwrap();
    change(&mut head);
    let head = serde_json::to_vec(&head).unwrap();
    let mut made = whole[..12].to_vec();
    made.extend(len.unwrap_or(head.len() as u32).to_le_bytes());
    made.extend(&head);
    made.extend(&whole[16 + old..whole.len() - 32]);
    let checksum = Sha256::digest(&made);
    made.extend(checksum.as_slice());
    made
}

#[test]
fn a_lie_with_a_right_checksum_is_refused() {
    assert!(Snapshot::from_bytes("same", sealed(|_| (), None)).is_ok());
    for len in [0, 1, 1 << 20, u32::MAX] {
        assert!(Snapshot::from_bytes("length", sealed(|_| (), Some(len))).is_err(), "{len}");
    }
    for value in [u64::MAX, 1 << 62, 1 << 32, 1 << 20] {
        for key in ["rows", "cache_bytes", "logits", "window", "position", "reach"] {
            let made = sealed(|head| head[key] = value.into(), None);
            assert!(Snapshot::from_bytes("lie", made).is_err(), "{key} = {value}");
        }
    }
    // A larger cache than this is one that nobody can have; a smaller one is asked of the device.
    for value in [u64::MAX, 1 << 62, 1 << 32] {
        for key in ["sinks", "slots"] {
            let made = sealed(|head| head[key] = value.into(), None);
            assert!(Snapshot::from_bytes("lie", made).is_err(), "{key} = {value}");
        }
    }
    for (key, value) in [
        ("pending", serde_json::Value::Null),
        ("policy", "dense".into()),
        ("policy", "eternal".into()),
        ("kv", 7.into()),
        ("recent", vec![1, 2].into()),
        ("unknown", 1.into()),
    ] {
        let made = sealed(|head| head[key] = value.clone(), None);
        assert!(Snapshot::from_bytes("lie", made).is_err(), "{key} = {value}");
    }
    // What only the model can tell.
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    for (key, value) in [("last", 320), ("pending", u32::MAX)] {
        let made = sealed(|head| head[key] = value.into(), None);
        let read = Snapshot::from_bytes("lie", made).unwrap();
        let error = session(&model, read.settings()).restore(&read).unwrap_err();
        assert!(!error.is_usage() && error.to_string().starts_with("lie: byte "), "{error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
        let mut made = if head { b"BROOKLET\x02\0\0\0".to_vec() } else { Vec::new() };
        made.extend(tail);
        prop_assert!(Snapshot::from_bytes("noise", made).is_err());
    }
}
