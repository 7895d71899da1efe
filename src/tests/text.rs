//! Detokenizer and sampler against plain twins; tokenizers of hostile and synthetic vocabularies.
use super::support::noise;
use crate::text::{Detokenizer, Sampler, SamplerSettings, Tokenizer, Vocab, byte_of_char};
use proptest::prelude::*;
use std::collections::HashMap;

fn all_off() -> SamplerSettings {
    SamplerSettings { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Default::default() }
}

/// Probabilities after the whole chain, in the plainest way.
fn distribution(logits: &[f32], s: &SamplerSettings) -> Vec<f64> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    if s.top_k > 0 {
        order.truncate(s.top_k as usize);
    }
    let softmax = |order: &[usize], temperature: f64| -> Vec<f64> {
        let high = f64::from(logits[order[0]]);
        let w: Vec<f64> =
            order.iter().map(|&i| ((f64::from(logits[i]) - high) / temperature).exp()).collect();
        let total: f64 = w.iter().sum();
        w.iter().map(|w| w / total).collect()
    };
    let p = softmax(&order, 1.0);
    let mut sum = 0.0;
    let enough = p.iter().position(|p| {
        sum += p;
        sum >= f64::from(s.top_p) - 1e-12
    });
    order.truncate(enough.map_or(order.len(), |last| last + 1));
    let p = softmax(&order, 1.0);
    let keep = p.iter().take_while(|&&q| q >= f64::from(s.min_p) * p[0]).count().max(1);
    order.truncate(keep);
    let mut out = vec![0.0; logits.len()];
    for (&i, p) in order.iter().zip(softmax(&order, f64::from(s.temperature))) {
        out[i] = p;
    }
    out
}

proptest! {
    #[test]
    fn draws_follow_the_distribution(seed in 0u64..1000, top_k in 0u32..12, top_p in 0.2f32..1.0,
                                     min_p in 0.0f32..0.3, temperature in 0.3f32..2.0) {
        let logits: Vec<f32> = noise(seed, 20).iter().map(|v| 4.0 * v).collect();
        let settings = SamplerSettings { temperature, top_k, top_p, min_p, seed, ..all_off() };
        let expected = distribution(&logits, &settings);
        let mut sampler = Sampler::new(settings, 20, &[]).unwrap();
        let (draws, mut counts) = (2000, [0.0; 20]);
        for _ in 0..draws {
            counts[sampler.sample(&mut logits.clone()).unwrap() as usize] += 1.0;
        }
        for (i, (count, p)) in counts.iter().zip(&expected).enumerate() {
            // never what the chain cut off; five standard deviations otherwise
            let spread = 5.0 * (draws as f64 * p * (1.0 - p)).sqrt() + 1e-9;
            prop_assert!((count - draws as f64 * p).abs() <= spread, "token {}: {} of {}", i, count, p);
        }
    }

    #[test]
    fn text_comes_out_whole_however_it_is_cut(text in "\\PC{0,40}", cuts in proptest::collection::vec(1usize..5, 0..200)) {
        let (mut detokenizer, mut out, mut rest) = (Detokenizer::new(), String::new(), text.as_bytes());
        for cut in cuts.into_iter().chain(std::iter::repeat(7)) {
            if rest.is_empty() { break; }
            let (now, later) = rest.split_at(cut.min(rest.len()));
            out.push_str(detokenizer.push_bytes(now));
            rest = later;
        }
        out.push_str(detokenizer.finish());
        prop_assert_eq!(out, text);
    }

    #[test]
    fn any_bytes_come_out_as_the_standard_library_has_them(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let (mut detokenizer, mut out) = (Detokenizer::new(), String::new());
        bytes.iter().for_each(|&byte| out.push_str(detokenizer.push_bytes(&[byte])));
        out.push_str(detokenizer.finish());
        prop_assert_eq!(out, String::from_utf8_lossy(&bytes).into_owned());
    }

    #[test]
    fn byte_level_text_survives(text in "\\PC{0,60}") {
        let tokenizer = Tokenizer::new(byte_vocab("default", &[])).unwrap();
        prop_assert_eq!(printed(&tokenizer, &tokenizer.encode(&text, true).unwrap()), text);
    }
}

pub(super) fn printed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let (mut detokenizer, mut out) = (Detokenizer::new(), String::new());
    ids.iter().for_each(|&id| out.push_str(detokenizer.push(tokenizer, id)));
    out.push_str(detokenizer.finish());
    out
}

#[test]
fn greedy_takes_the_lowest_of_equals_and_never_a_banned_one() {
    let greedy = SamplerSettings { temperature: 0.0, ..Default::default() };
    let mut sampler = Sampler::new(greedy.clone(), 4, &[1]).unwrap();
    assert_eq!(sampler.sample(&mut [1.0, 9.0, 3.0, 3.0]).unwrap(), 2);
    // That every token is banned is wrong usage; that a model's numbers are none is not.
    let error = Sampler::new(greedy.clone(), 2, &[0, 1, 7]).err().unwrap();
    assert!(error.is_usage() && error.to_string().contains("banned"), "{error}");
    let mut sampler = Sampler::new(greedy, 3, &[2]).unwrap();
    for (mut logits, named) in [
        ([1.0, f32::NAN, 0.0], "token 1"),
        ([f32::INFINITY, 1.0, 0.0], "token 0"),
        ([1.0, 1.0, f32::NAN], "token 2"),
        ([f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0], "-inf"),
    ] {
        let error = sampler.sample(&mut logits).unwrap_err();
        assert!(!error.is_usage() && error.to_string().contains(named), "{error}");
    }
    assert_eq!(sampler.sample(&mut [f32::NEG_INFINITY, 1.0, 9.0]).unwrap(), 1);
}

#[test]
fn penalties_are_llama_cpps_over_the_last_n() {
    let settings = SamplerSettings {
        temperature: 0.0,
        repeat_penalty: 2.0,
        frequency_penalty: 0.5,
        presence_penalty: 0.25,
        penalty_last_n: 3,
        ..Default::default()
    };
    let mut sampler = Sampler::new(settings, 4, &[]).unwrap();
    // 0 has left the window of three; 1 is in it twice, 2 once
    [0, 1, 1, 2].into_iter().for_each(|id| sampler.accept(id));
    let mut logits = [1.0, 4.0, -1.0, 0.5];
    sampler.sample(&mut logits).unwrap();
    assert_eq!(logits, [1.0, 4.0 / 2.0 - 2.0 * 0.5 - 0.25, -2.0 - 0.5 - 0.25, 0.5]);
}

#[test]
fn settings_that_cannot_work_are_named() {
    for (settings, name) in [
        (SamplerSettings { temperature: f32::NAN, ..all_off() }, "temperature NaN: "),
        (SamplerSettings { top_p: 1.5, ..all_off() }, "top_p 1.5: "),
        (SamplerSettings { min_p: -0.1, ..all_off() }, "min_p -0.1: "),
        (SamplerSettings { repeat_penalty: 0.0, ..all_off() }, "repeat_penalty 0: "),
        (SamplerSettings { penalty_last_n: u32::MAX, ..all_off() }, "penalty_last_n 4294967295: "),
    ] {
        assert!(settings.check().unwrap_err().to_string().starts_with(name));
    }
}

/// 256 bytes, then the merges' tokens, then `<|end|>` as a control token.
pub(super) fn byte_vocab(pre: &str, merges: &[&str]) -> Vocab {
    let chars: HashMap<u8, char> = byte_of_char().into_iter().map(|(c, b)| (b, c)).collect();
    let mut tokens: Vec<String> = (0..=255).map(|b| chars[&b].to_string()).collect();
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    tokens.push("<|end|>".into());
    let types = (0..tokens.len()).map(|i| if i + 1 == tokens.len() { 3 } else { 1 }).collect();
    let (model, pre) = ("gpt2".into(), Some(pre.into()));
    let merges = merges.iter().map(|&merge| merge.to_owned()).collect();
    Vocab { model, pre, tokens, types, merges, ..Vocab::default() }
}

/// Pieces of a text when every pair within a piece merges: shows where the splits are.
fn pieces(pre: &str, text: &str) -> Vec<String> {
    // every prefix of the text's bytes, in the byte-level alphabet, as a chain of merges
    let chars: HashMap<u8, char> = byte_of_char().into_iter().map(|(c, b)| (b, c)).collect();
    let letters: Vec<char> = text.bytes().map(|b| chars[&b]).collect();
    let mut merges: Vec<String> = Vec::new();
    for start in 0..letters.len() {
        for end in start + 2..=letters.len() {
            let left: String = letters[start..end - 1].iter().collect();
            let merge = format!("{left} {}", letters[end - 1]);
            if !merges.contains(&merge) {
                merges.push(merge);
            }
        }
    }
    let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
    let tokenizer = Tokenizer::new(byte_vocab(pre, &merges)).unwrap();
    let ids = tokenizer.encode(text, false).unwrap();
    ids.iter().map(|&id| printed(&tokenizer, &[id])).collect()
}

#[test]
fn each_pre_tokenizer_splits_as_its_models_do() {
    // Written from the models' own tokenizer files.
    let text = "It's 2024, ok";
    assert_eq!(pieces("gpt-2", text), ["It", "'s", " 2024", ",", " ok"]);
    assert_eq!(pieces("smollm", text), ["It", "'s", " ", "2", "0", "2", "4", ",", " ok"]);
    assert_eq!(pieces("llama-bpe", text), ["It", "'s", " ", "202", "4", ",", " ok"]);
    assert_eq!(pieces("qwen2", text), ["It", "'s", " ", "2", "0", "2", "4", ",", " ok"]);
    assert_eq!(pieces("default", text), ["It", "'", "s", " ", "202", "4", ",", " ok"]);
    assert_eq!(pieces("llama-bpe", "I'M a\n\nb  c"), ["I", "'M", " a", "\n\n", "b", " ", " c"]);
    assert_eq!(pieces("gpt-2", "a  b "), ["a", " ", " b", " "]);
}

#[test]
fn control_tokens_are_parsed_and_print_nothing() {
    let tokenizer = Tokenizer::new(byte_vocab("gpt-2", &["h i"])).unwrap();
    let ids = tokenizer.encode("hi<|end|>hi", true).unwrap();
    assert_eq!(ids, [256, 257, 256]);
    assert_eq!(printed(&tokenizer, &ids), "hihi");
    assert_eq!(tokenizer.eog(), [257], "an end by its name");
}

#[test]
fn llama_bpe_takes_whole_tokens_and_starts_with_bos() {
    // "abc" is a token that no merge makes
    let mut vocab = byte_vocab("llama-bpe", &["a b"]);
    (vocab.tokens[256], vocab.merges) = ("abc".into(), vec![]);
    vocab.bos = Some(257);
    let tokenizer = Tokenizer::new(vocab).unwrap();
    assert_eq!(tokenizer.encode("abc", true).unwrap(), [257, 256]);
    assert_eq!(tokenizer.encode("abc", false).unwrap(), [256]);
}

/// `<unk> <s> </s>`, 256 byte tokens, pieces by score.
pub(super) fn sentence_pieces() -> Vocab {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    tokens.extend((0..=255).map(|b| format!("<0x{b:02X}>")));
    let pieces = ["\u{2581}", "h", "e", "l", "o", "he", "ll", "hell", "\u{2581}hell", "lo"];
    tokens.extend(pieces.map(String::from));
    let mut types = vec![2, 3, 3];
    types.extend([6; 256]);
    types.extend([1; 10]);
    let scores = (0..tokens.len()).map(|i| -(i as f32)).collect();
    let (bos, eos, unk) = (Some(1), Some(2), Some(0));
    Vocab { model: "llama".into(), tokens, scores, types, bos, eos, unk, ..Vocab::default() }
}

#[test]
fn sentence_piece_merges_by_score_and_falls_back_to_bytes() {
    let tokenizer = Tokenizer::new(sentence_pieces()).unwrap();
    let pieces = |text| -> Vec<String> {
        let ids = tokenizer.encode(text, true).unwrap();
        ids.iter().map(|&id| tokenizer.piece(id).to_owned()).collect()
    };
    // "he", then "ll", "hell", "_hell" score above "lo"
    assert_eq!(pieces("hello"), ["<s>", "\u{2581}hell", "o"]);
    assert_eq!(pieces("é"), ["<s>", "\u{2581}", "<0xC3>", "<0xA9>"]);
    let ids = tokenizer.encode("hello é", true).unwrap();
    assert_eq!(printed(&tokenizer, &ids), " hello é");
    let mut vocab = sentence_pieces();
    vocab.add_space_prefix = Some(false);
    (vocab.add_bos, vocab.add_eos) = (Some(false), Some(true));
    let tokenizer = Tokenizer::new(vocab).unwrap();
    let ids = tokenizer.encode("hello", true).unwrap();
    assert_eq!(ids.last(), Some(&2));
    assert_eq!(printed(&tokenizer, &ids), "hello");
}

#[test]
fn white_space_behind_a_special_token_is_phi_3s() {
    let mut vocab = sentence_pieces();
    vocab.tokens[259] = "<|user|>".into();
    vocab.types[259] = 3;
    for (strips, expected) in
        [(true, &["\u{2581}hell", "o"][..]), (false, &["<0x0A>", "hell", "o"])]
    {
        let tokenizer = Tokenizer::new(Vocab { strips, ..vocab.clone() }).unwrap();
        let ids = tokenizer.encode("<s>\n<|user|>\nhello", false).unwrap();
        let pieces: Vec<_> = ids.iter().map(|&id| tokenizer.piece(id)).collect();
        let at = pieces.iter().position(|&piece| piece == "<|user|>").unwrap();
        assert!(pieces[at + 1..].ends_with(expected), "{pieces:?}");
        assert_eq!(pieces[at + 1..].contains(&"<0x0A>"), !strips, "{pieces:?}");
        assert!(pieces[..at].contains(&"<0x0A>"), "{pieces:?}: <s> has nothing behind it");
    }
}

#[test]
fn vocabularies_that_cannot_be_are_refused_in_words() {
    let good = || byte_vocab("gpt-2", &["h i"]);
    let error = |vocab| Tokenizer::new(vocab).err().unwrap().to_string();
    let cases = [
        (Vocab { pre: Some("klingon".into()), ..good() }, "\"klingon\" is not known"),
        (Vocab { model: "bert".into(), ..good() }, "\"bert\""),
        (Vocab { tokens: vec![], types: vec![], ..good() }, "0 tokens"),
        (Vocab { types: vec![1], ..good() }, "1 token types"),
        (Vocab { scores: vec![0.0], ..good() }, "1 scores"),
    ];
    for (vocab, message) in cases {
        let found = error(vocab);
        assert!(found.contains(message), "{message:?} is not in {found:?}");
    }
}

/// What llama.cpp makes of `strings.json` with a vocabulary (tests/fixtures/tokenizer/make.py).
#[derive(serde::Deserialize)]
pub(super) struct Ids {
    add_bos: bool,
    add_eos: bool,
    eog: Vec<u32>,
    ids: Vec<Vec<u32>>,
}

pub(super) fn fixture<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Holds a tokenizer to every string; returns how many.
pub(super) fn check_ids(what: &str, tokenizer: &Tokenizer, expected: &Ids) -> usize {
    let strings: Vec<String> = fixture("strings");
    assert_eq!(strings.len(), expected.ids.len(), "{what}");
    let mut wrong = Vec::new();
    for (text, wanted) in strings.iter().zip(&expected.ids) {
        let found = tokenizer.encode(text, false).unwrap();
        if found != *wanted {
            wrong.push(format!("{text:?}\n  found    {found:?}\n  expected {wanted:?}"));
        }
        // BOS and EOS go round it
        let mut all = tokenizer.encode(text, true).unwrap();
        assert!(!expected.add_bos || all.remove(0) == tokenizer.bos().unwrap(), "{what} BOS");
        assert!(!expected.add_eos || all.pop() == tokenizer.eos(), "{what} EOS");
        assert_eq!(all, found, "{what}: {text:?} with BOS and EOS");
    }
    assert!(wrong.is_empty(), "{what}: {} differ\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(tokenizer.eog(), expected.eog, "{what}: ends of generation");
    strings.len()
}

#[derive(serde::Deserialize)]
pub(super) struct FixtureVocab {
    model: String,
    tokens: Vec<String>,
    scores: Option<Vec<f32>>,
    types: Vec<i32>,
    merges: Option<Vec<String>>,
    bos: Option<u32>,
    eos: Option<u32>,
    unk: Option<u32>,
}

impl FixtureVocab {
    pub(super) fn vocab(self, pre: Option<&str>, add_space_prefix: Option<bool>) -> Vocab {
        let Self { model, tokens, scores, types, merges, bos, eos, unk } = self;
        let (scores, merges) = (scores.unwrap_or_default(), merges.unwrap_or_default());
        let pre = pre.map(str::to_owned);
        Vocab {
            model,
            pre,
            tokens,
            scores,
            types,
            merges,
            bos,
            eos,
            unk,
            add_space_prefix,
            ..Vocab::default()
        }
    }
}

#[test]
fn byte_level_ids_are_llama_cpps_for_every_pre_tokenizer() {
    let all: HashMap<String, Ids> = fixture("bpe_ids");
    for (name, expected) in &all {
        let vocab: FixtureVocab = fixture("bpe_vocab");
        let tokenizer = Tokenizer::new(vocab.vocab(Some(name), None)).unwrap();
        check_ids(name, &tokenizer, expected);
    }
}

#[test]
fn sentence_piece_ids_are_llama_cpps() {
    let all: HashMap<String, Ids> = fixture("spm_ids");
    for (name, expected) in &all {
        let vocab: FixtureVocab = fixture("spm_vocab");
        let prefix = if name == "prefix" { None } else { Some(false) };
        let tokenizer = Tokenizer::new(vocab.vocab(None, prefix)).unwrap();
        check_ids(name, &tokenizer, expected);
    }
}
