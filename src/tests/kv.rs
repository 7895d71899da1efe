//! Keys and values in blocks: their arithmetic against ggml's, and what they do to a stream.
use super::invariants::{bits, device, feed};
use super::support::noise;
use super::tiny::{Tiny, session, streaming, text};
use crate::model::{CacheSettings, KvType, Policy};
use crate::reference::{KvLayout, block, kept};
use crate::session::{Session, Snapshot};
use crate::text::SamplerSettings;
use pollster::block_on;
use std::sync::Arc;

const BLOCKS: [KvType; 2] = [KvType::Q8_0, KvType::Q4_0];

/// Heads of three blocks.
fn tiny() -> Tiny {
    Tiny { head_dim: 96, rope_dim: 96, n_head: 2, n_head_kv: 1, n_embd: 64, ..Tiny::default() }
}

fn layout(kv: KvType) -> KvLayout {
    KvLayout { kv, kv_heads: 1, head_dim: 96 }
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/kv/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The same bytes as ggml's Python package makes of the same numbers.
#[test]
fn blocks_are_those_of_ggml() {
    let bytes = fixture("x.values");
    let x: Vec<f32> =
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    for (kv, name) in [(KvType::Q8_0, "Q8_0"), (KvType::Q4_0, "Q4_0")] {
        let blocks = x.chunks_exact(32).map(|x| block(kv, x));
        let bytes = blocks.flat_map(|(d, quants)| {
            let nibble = |q: i8| (q + 8) as u8;
            let quants: Vec<u8> = match kv {
                KvType::Q4_0 => {
                    (0..16).map(|i| nibble(quants[i]) | nibble(quants[i + 16]) << 4).collect()
                }
                _ => quants.iter().map(|&q| q as u8).collect(),
            };
            [d.to_le_bytes().to_vec(), quants].concat()
        });
        assert_eq!(bytes.collect::<Vec<u8>>(), fixture(&format!("{name}.blocks")), "{name}");
    }
}

/// Every number has a place of its own, and what is written is what is read.
#[test]
fn a_layout_gives_back_what_was_kept() {
    for kv in KvType::ALL {
        for (kv_heads, head_dim, slots) in [(1, 32, 1), (3, 64, 7), (2, 96, 4), (1, 512, 9)] {
            let layout = KvLayout { kv, kv_heads, head_dim };
            let x = noise(1, slots * kv_heads * head_dim);
            let words = layout.words(&x);
            let [rows, width] = kv.shape(slots, kv_heads, head_dim);
            assert_eq!(words.len(), rows * width);
            assert_eq!(layout.values(&words, slots), kept(kv, &x), "{layout:?}");
        }
    }
    // 64 dimensions, a fourth of four slots: two halves beside the quants
    let bytes = KvType::ALL.map(|kv| 4 * kv.row_words(1, 64) / kv.row_slots());
    assert_eq!(bytes, [128, 256, 68, 36]);
}

#[test]
fn heads_that_are_no_whole_blocks_are_refused_in_words() {
    let error = KvType::Q4_0.expect_heads(80).unwrap_err().to_string();
    assert!(["q4_0", "heads of 80", "f16"].iter().all(|part| error.contains(part)), "{error}");
    KvType::ALL.iter().for_each(|kv| kv.expect_heads(96).unwrap());
}

/// How far logits are from what they should be, as a share of their size.
fn share_off(found: &[f32], expected: &[f32]) -> f64 {
    let size = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let off = size(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    (off / size(&mut expected.iter().copied())).sqrt()
}

/// Invariant 2, as far as the rounding lets it: ten capacities on, a stream is no further from the paper's than at first.
#[test]
fn blocks_stream_as_the_paper_does() {
    let model = tiny().model(&device());
    let tokens = text(8, 176);
    for (kv, most) in [(KvType::Q8_0, 0.04), (KvType::Q4_0, 0.5)] {
        let mut stream = session(&model, streaming(4, 12, 1, kv));
        let mut oracle = tiny().oracle(4, 12);
        let off: Vec<f64> = tokens
            .iter()
            .map(|&token| {
                let expected: Vec<f32> =
                    oracle.step(token).iter().map(|&logit| logit as f32).collect();
                share_off(&feed(&mut stream, &[token]), &expected)
            })
            .collect();
        let mean = |off: &[f64]| off.iter().sum::<f64>() / off.len() as f64;
        let (first, last) = (mean(&off[16..96]), mean(&off[96..]));
        assert!(first < most && last < 1.5 * first, "{kv:?}: {first} then {last}");
        assert!(first > most / 20.0, "{kv:?}: {first}: is it rounded at all?");
    }
}

/// Invariant 3.
#[test]
fn blocks_are_bit_identical_after_any_number_of_laps() {
    let model = tiny().model(&device());
    for kv in BLOCKS {
        let [mut here, mut there] = [0, 1].map(|_| session(&model, streaming(4, 12, 5, kv)));
        let (before, after) = (text(9, 40), text(10, 40));
        feed(&mut here, &before);
        feed(&mut there, &before);
        there.fast_forward(1_000_000_007);
        assert!(there.position() > 1 << 33);
        for part in [&after[..1], &after[1..2], &after[2..9], &after[9..]] {
            assert_eq!(bits(&feed(&mut here, part)), bits(&feed(&mut there, part)), "{kv:?}");
        }
    }
}

/// Invariant 4, as far as the rounding lets it. Kernels that add up in another order may round a number that is about
/// halfway between two quants to the other; in a ring of another size a key is turned, and so rounded, elsewhere.
#[test]
fn blocks_are_as_good_for_every_chunk_and_ring() {
    let model = tiny().model(&device());
    let tokens = text(11, 300);
    let exact = feed(&mut session(&model, streaming(4, 12, 1, KvType::F32)), &tokens);
    for (kv, most) in [(KvType::Q8_0, 0.04), (KvType::Q4_0, 0.5)] {
        for (chunk, more) in [(1, 0), (7, 0), (64, 0), (7, 23), (64, 1)] {
            let ring = Some(12 + chunk - 1 + more);
            let settings = CacheSettings { ring, ..streaming(4, 12, chunk, kv) };
            let off = share_off(&feed(&mut session(&model, settings), &tokens), &exact);
            assert!(off < most, "{kv:?}, chunk {chunk}, ring {ring:?}: {off}");
        }
    }
}

/// Invariant 5: what shares a row with others, and words with none, is written once a lap.
#[test]
fn slots_of_blocks_are_written_once_a_lap() {
    let gpu = device();
    let model = tiny().model(&gpu);
    let (sinks, ring) = (3, 9);
    for kv in BLOCKS {
        let settings = CacheSettings { ring: Some(ring), ..streaming(sinks, 7, 1, kv) };
        let mut stream = session(&model, settings);
        let slots = |stream: &Session| -> Vec<Vec<u32>> {
            let words: Vec<u32> = block_on(stream.cache().k(1).read(&gpu)).unwrap();
            let slot = |i| layout(kv).words_of(i).into_iter().map(|at| words[at]).collect();
            (0..sinks + ring).map(slot).collect()
        };
        let mut before = slots(&stream);
        for (t, token) in text(13, 40).into_iter().enumerate() {
            feed(&mut stream, &[token]);
            let after = slots(&stream);
            let changed: Vec<_> = (0..after.len()).filter(|&i| after[i] != before[i]).collect();
            let place = if t < sinks { t } else { sinks + (t - sinks) % ring };
            assert_eq!(changed, [place], "{kv:?}, t = {t}");
            before = after;
        }
    }
}

/// Invariant 6.
#[test]
fn blocks_out_of_the_window_do_not_count() {
    let gpu = device();
    let model = tiny().model(&gpu);
    let (sinks, window, ring) = (4, 12, 20);
    for (kv, fed) in BLOCKS.iter().flat_map(|&kv| [9, 24, 100].map(|fed| (kv, fed))) {
        let settings = CacheSettings { ring: Some(ring), ..streaming(sinks, window, 1, kv) };
        let tokens = text(14, fed + 1);
        let logits = |poisoned: &[usize], poison: u32| {
            let mut stream = session(&model, settings);
            feed(&mut stream, &tokens[..fed]);
            for layer in 0..2 {
                for tensor in [stream.cache().k(layer), stream.cache().v(layer)] {
                    let mut words: Vec<u32> = block_on(tensor.read(&gpu)).unwrap();
                    let at = poisoned.iter().flat_map(|&slot| layout(kv).words_of(slot));
                    at.for_each(|at| words[at] = poison);
                    tensor.write(&gpu, 0, &words);
                }
            }
            bits(&feed(&mut stream, &tokens[fed..]))
        };
        let place = |n: usize| if n < sinks { n } else { sinks + (n - sinks) % ring };
        let oldest = (fed + 1).saturating_sub(window).max(sinks);
        let seen: Vec<_> = (0..sinks.min(fed)).chain(oldest..fed).map(place).collect();
        let unseen: Vec<_> =
            (0..sinks + ring).filter(|i| !seen.contains(i) && *i != place(fed)).collect();
        let clean = logits(&[], 0);
        // scales that are huge, and that are no numbers
        for poison in [0x7b00_7b00, u32::MAX] {
            assert_eq!(logits(&unseen, poison), clean, "{kv:?}, {fed} fed: poison in {unseen:?}");
        }
        for edge in [oldest, fed - 1] {
            assert_ne!(logits(&[place(edge)], 0x7b00_7b00), clean, "{kv:?}, {fed} fed: {edge}");
        }
    }
}

/// Invariant 9: rewound, and saved in the middle of a lap and of a row that four slots share.
#[test]
fn blocks_go_on_from_where_they_were() {
    let model = tiny().model(&device());
    let tokens = text(20, 90);
    for kv in BLOCKS {
        let settings = CacheSettings { ring: Some(19), ..streaming(4, 12, 8, kv) };
        let fed = |count: usize| {
            let mut stream = session(&model, settings);
            tokens[..count].iter().for_each(|token| _ = feed(&mut stream, &[*token]));
            stream
        };
        let mut back = fed(70);
        block_on(back.rewind(7, tokens[62])).unwrap();
        let mut never = fed(63);
        for token in &tokens[63..75] {
            let pair = [&mut back, &mut never].map(|s| bits(&feed(s, &[*token])));
            assert_eq!(pair[0], pair[1], "{kv:?}");
        }
        for count in [1, 6, 21, 50] {
            let mut here = fed(count);
            let saved = block_on(here.snapshot(None, "")).unwrap();
            let saved = Snapshot::from_bytes("stream.bin", saved.as_bytes().to_vec()).unwrap();
            assert_eq!(saved.settings().kv, kv);
            let mut there = session(&model, saved.settings());
            there.restore(&saved).unwrap();
            let by = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
            let ids = [&mut here, &mut there].map(|stream| {
                let mut generation = stream.generate(by.clone(), &[256]).unwrap();
                (0..30).map(|_| block_on(generation.next(stream)).unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(ids[0], ids[1], "{kv:?} after {count}");
            assert_eq!(bits(&feed(&mut here, &[1])), bits(&feed(&mut there, &[1])), "{kv:?}");
            let mut other = session(&model, CacheSettings { kv: KvType::F16, ..saved.settings() });
            let error = other.restore(&saved).unwrap_err().to_string();
            assert!(
                ["Q8_0", "Q4_0", "F16"].iter().filter(|kv| error.contains(**kv)).count() == 2,
                "{error}"
            );
        }
    }
}

/// A model and a policy that a type does not suit are refused by name, before anything is stored.
#[test]
fn what_cannot_be_stored_in_blocks_is_refused_in_words() {
    let gpu = device();
    let refused = |tiny: Tiny, settings: CacheSettings, words: &[&str]| {
        let made = block_on(Session::new(tiny.model(&gpu), settings)).err().unwrap().to_string();
        assert!(words.iter().all(|word| made.contains(word)), "{made}");
    };
    refused(Tiny::default(), streaming(4, 12, 8, KvType::Q8_0), &["q8_0", "heads of 16", "f16"]);
    let halves = CacheSettings { policy: Policy::HalfDiscard, ..streaming(4, 12, 8, KvType::Q4_0) };
    refused(tiny(), halves, &["q4_0", "half-discard", "f16"]);
}

/// Bytes a token are what the layout says, and what does not fit is told with a type that takes less.
#[test]
fn blocks_take_as_many_bytes_as_they_say() {
    let gpu = device();
    let model = tiny().model(&gpu);
    let filled =
        KvType::ALL.map(|kv| session(&model, streaming(4, 12, 8, kv)).cache().filled_bytes(24));
    // 2 layers of K and V of 96 dimensions, 24 slots; two words of scales, of which three blocks leave a half
    assert_eq!(filled, [192, 384, 96 + 8, 48 + 8].map(|bytes| 2 * 2 * 24 * bytes));
    // Where the rope table is longer than keys and values, a type that takes less does not help.
    let table = block_on(Session::new(Arc::clone(&model), streaming(4, 1 << 27, 8, KvType::F16)));
    let table = table.err().unwrap().to_string();
    assert!(table.contains("of 768 bytes each as f16"), "{table}");
    assert!(table.contains("try window") && !table.contains("kv q8_0"), "{table}");
    let model = Tiny { rope_dim: 8, ..tiny() }.model(&gpu);
    for (kv, smaller) in [(KvType::F16, "q8_0"), (KvType::Q8_0, "q4_0")] {
        let error = block_on(Session::new(Arc::clone(&model), streaming(4, 1 << 27, 8, kv)));
        let error = error.err().unwrap().to_string();
        assert!(error.contains(&format!("kv {smaller}")), "{error}");
    }
}
