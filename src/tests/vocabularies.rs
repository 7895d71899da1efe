//! Vocabularies as files have them: odd, incomplete, damaged. What is right is llama.cpp's behaviour.
mod lines;

use super::gguf_file::GgufFile;
use super::text::{FixtureVocab, Ids, byte_vocab, check_ids, fixture, printed};
use crate::Error;
use crate::format::{Array, BytesSource, Gguf, Value};
use crate::text::{Detokenizer, Tokenizer, Vocab, byte_of_char};
use pollster::block_on;
use std::collections::{BTreeMap, HashMap};

/// The keys of a vocabulary, by their names after `tokenizer.ggml.`.
type Keys = BTreeMap<&'static str, Value>;

fn strings<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Value {
    Value::Array(Array::String(texts.into_iter().map(Into::into).collect()))
}

/// 256 bytes, seven merges, three control tokens, the last of them EOS.
fn bpe() -> Keys {
    let mut chars: Vec<(u8, char)> = byte_of_char().into_iter().map(|(c, b)| (b, c)).collect();
    chars.sort_unstable();
    let mut tokens: Vec<String> = chars.iter().map(|(_, c)| c.to_string()).collect();
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or"];
    tokens.extend(merges.map(|merge| merge.replace(' ', "")));
    tokens.extend(["<|im_start|>", "<|im_end|>", "<|endoftext|>"].map(String::from));
    let types = (0..tokens.len() as i32).map(|id| if id < 263 { 1 } else { 3 }).collect();
    BTreeMap::from([
        ("model", Value::String("gpt2".into())),
        ("pre", Value::String("gpt-2".into())),
        ("eos_token_id", Value::U32(265)),
        ("tokens", strings(tokens)),
        ("merges", strings(merges)),
        ("token_type", Value::Array(Array::I32(types))),
    ])
}

const WORDS: [&str; 25] = [
    "▁", "h", "e", "l", "o", "w", "r", "d", "t", "he", "ll", "hell", "hello", "▁hello", "▁h", "▁w",
    "or", "▁wor", "ld", "▁world", "▁t", "th", "the", "▁the", ".",
];

/// `<unk> <s> </s>`, 256 bytes, words that score the less the later they stand.
fn spm() -> Keys {
    let bytes = (0..=255).map(|b| format!("<0x{b:02X}>"));
    let special = ["<unk>", "<s>", "</s>"].map(String::from);
    let tokens = special.into_iter().chain(bytes).chain(WORDS.map(String::from));
    let types = [2, 3, 3].into_iter().chain([6; 256]).chain([1; 25]).collect();
    let scores = [0.0; 259].into_iter().chain((0..25).map(|i| -i as f32)).collect();
    BTreeMap::from([
        ("model", Value::String("llama".into())),
        ("tokens", strings(tokens)),
        ("token_type", Value::Array(Array::I32(types))),
        ("scores", Value::Array(Array::F32(scores))),
        ("bos_token_id", Value::U32(1)),
        ("eos_token_id", Value::U32(2)),
        ("unknown_token_id", Value::U32(0)),
    ])
}

fn with(mut keys: Keys, name: &'static str, value: Value) -> Keys {
    keys.insert(name, value);
    keys
}

fn without(mut keys: Keys, names: &[&str]) -> Keys {
    keys.retain(|name, _| !names.contains(name));
    keys
}

fn file(keys: Keys) -> Vec<u8> {
    let key = |file: GgufFile, (name, value)| file.with(&format!("tokenizer.ggml.{name}"), value);
    keys.into_iter().fold(GgufFile::new(), key).bytes()
}

fn read(bytes: Vec<u8>) -> crate::Result<Tokenizer> {
    let gguf = block_on(Gguf::read(&BytesSource::new("test.gguf", bytes))).unwrap();
    Vocab::from_gguf(&gguf).and_then(Tokenizer::new)
}

fn tokenizer(keys: Keys) -> Tokenizer {
    read(file(keys)).unwrap()
}

#[test]
fn a_byte_level_vocabulary_without_merges_is_refused() {
    let error = read(file(without(bpe(), &["merges"]))).err().unwrap();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");
    assert!(error.to_string().contains("tokenizer.ggml.merges"), "{error}");
}

/// Written by hand from the rule: a text's leftmost pair of the best score is joined first.
#[test]
fn of_equal_scores_the_leftmost_pair_merges_first() {
    let more = ["a", "b", "c", "bc", "ab", "abc", "lo", "el"].map(String::from);
    let mut vocab = spm();
    let Some(Value::Array(Array::String(tokens))) = vocab.get_mut("tokens") else { panic!() };
    tokens.extend(more);
    let count = tokens.len();
    let types = [2, 3, 3].into_iter().chain([6; 256]).chain([1; 33]).collect();
    let scores = (0..count).map(|id| if id < 259 { 0.0 } else { -1000.0 }).collect();
    let vocab = with(vocab, "token_type", Value::Array(Array::I32(types)));
    let vocab = with(vocab, "scores", Value::Array(Array::F32(scores)));
    let tokenizer = tokenizer(vocab.clone());
    assert_eq!(tokenizer.encode("hello", true).unwrap(), [1, 273, 291, 290]);
    // "el" before "lo", though its id is the larger
    assert_eq!(tokenizer.encode("elo", false).unwrap(), [259, 291, 263]);
    assert_eq!(tokenizer.encode("abc", false).unwrap(), [259, 289]);
    let scores = (0..count).map(|id| if id == 291 { -0.0 } else { 0.0 }).collect();
    let zeros = read(file(with(vocab, "scores", Value::Array(Array::F32(scores))))).unwrap();
    assert_eq!(zeros.encode("elo", false).unwrap(), [259, 291, 263]);
}

#[test]
fn a_part_that_is_no_token_may_become_one() {
    // "é" alone is its bytes; "éa" and "aé" are joined at once, as their parts need not be tokens
    let mut keys = spm();
    let Some(Value::Array(Array::String(tokens))) = keys.get_mut("tokens") else { panic!() };
    tokens[259 + 24] = "éa".into();
    let ids = tokenizer(keys).encode("éa é", false).unwrap();
    assert_eq!(ids, [259, 283, 259, 3 + 0xc3, 3 + 0xa9]);
}

#[test]
fn sentence_piece_has_its_usual_tokens_where_the_file_names_none() {
    let keys = without(spm(), &["bos_token_id", "eos_token_id", "unknown_token_id"]);
    let made = tokenizer(with(keys, "add_eos_token", Value::Bool(true)));
    assert_eq!((made.bos(), made.eos(), made.eog()), (Some(1), Some(2), &[2][..]));
    assert_eq!(made.encode("hello", true).unwrap(), [1, 272, 2]);
    assert!(made.warnings().is_empty(), "{:?}", made.warnings());
    let none = tokenizer(without(bpe(), &["eos_token_id"]));
    assert_eq!((none.bos(), none.eos()), (None, None));
}

/// What loads although something is odd: what is said of it, and that the text is the same as without the oddity.
#[test]
fn odd_vocabularies_load_with_a_warning() {
    let minus_one = || Value::U32(u32::MAX);
    let merge = |place: usize, line: &str| {
        let Some(Value::Array(Array::String(mut merges))) = bpe().remove("merges") else {
            panic!()
        };
        merges.insert(place, line.into());
        with(bpe(), "merges", strings(merges))
    };
    let Some(Value::Array(Array::F32(scores))) = spm().remove("scores") else { panic!() };
    let Some(Value::Array(Array::I32(types))) = bpe().remove("token_type") else { panic!() };
    let integers = Array::I32(scores.iter().map(|&x| x as i32).collect());
    let long = Array::F32(scores.iter().copied().chain([0.0; 4]).collect());
    let wide = Array::I64(types.iter().map(|&n| n.into()).collect());
    let many = Array::I32(types.iter().copied().chain([1; 4]).collect());
    let [hello_bpe, hello_spm] = [vec![259, 262], vec![1, 272, 276]];
    for (keys, ids, warning) in [
        (bpe(), &hello_bpe, ""),
        (with(bpe(), "bos_token_id", minus_one()), &hello_bpe, "the BOS token is 4294967295"),
        (with(bpe(), "unknown_token_id", minus_one()), &hello_bpe, "the unknown token is 42949"),
        (with(bpe(), "eot_token_id", minus_one()), &hello_bpe, "the EOT token is 4294967295"),
        (with(bpe(), "eom_token_id", minus_one()), &hello_bpe, "the EOM token is 4294967295"),
        (with(bpe(), "fim_sep_token_id", minus_one()), &hello_bpe, "the FIM file token is 4294"),
        (with(bpe(), "eos_token_id", Value::U32(266)), &hello_bpe, "266, of a vocabulary of 266"),
        (with(bpe(), "bos_token_id", Value::I32(-1)), &hello_bpe, ""),
        (with(spm(), "bos_token_id", minus_one()), &hello_spm, "the BOS token is 4294967295"),
        (merge(7, "z q"), &hello_bpe, "1 of 8 merges are skipped, as \"z q\" is"),
        (merge(0, "zz q"), &hello_bpe, "as \"zz q\" is"),
        (merge(0, "  a"), &hello_bpe, "as \"  a\" is"),
        (merge(3, "h e l"), &hello_bpe, "as \"h e l\" is"),
        (merge(3, ""), &hello_bpe, "as \"\" is"),
        (merge(7, "h e"), &hello_bpe, ""),
        (with(bpe(), "token_type", Value::Array(wide)), &hello_bpe, ""),
        (with(bpe(), "token_type", Value::Array(many)), &hello_bpe, "270 token types; the last"),
        (without(bpe(), &["pre"]), &hello_bpe, "how its model splits text (tokenizer.ggml.pre)"),
        (with(bpe(), "pre", Value::String(String::new())), &hello_bpe, "(tokenizer.ggml.pre)"),
        (spm(), &hello_spm, ""),
        (with(spm(), "scores", Value::Array(integers)), &hello_spm, ""),
        (with(spm(), "scores", Value::Array(long)), &hello_spm, "288 scores; the last"),
    ] {
        let tokenizer = tokenizer(keys);
        assert_eq!(tokenizer.encode("hello wor", true).unwrap(), *ids, "{warning}");
        match tokenizer.warnings() {
            [] => assert_eq!(warning, ""),
            [one] => assert!(!warning.is_empty() && one.contains(warning), "{warning:?}: {one:?}"),
            many => panic!("{many:?}"),
        }
    }
}

#[test]
fn scores_that_are_left_out_are_all_alike() {
    // "▁h" comes first from the left, then "el", which here is no token: "ll"
    let tokenizer = tokenizer(without(spm(), &["scores"]));
    assert_eq!(tokenizer.encode("hello", true).unwrap(), [1, 273, 261, 269, 263]);
    assert!(tokenizer.warnings()[0].contains("without scores"), "{:?}", tokenizer.warnings());
}

#[test]
fn a_damaged_vocabulary_is_not_wrong_usage() {
    let short = Value::Array(Array::F32(vec![0.0; 3]));
    for keys in [
        with(spm(), "scores", short),
        with(bpe(), "pre", Value::String("klingon".into())),
        with(bpe(), "merges", Value::U32(1)),
        with(bpe(), "eos_token_id", Value::F32(1.0)),
        with(bpe(), "tokens", strings([] as [&str; 0])),
        without(spm(), &["tokens"]),
    ] {
        let error = read(file(keys)).err().unwrap();
        let kind = matches!(error, Error::Tokenizer(_) | Error::Format { .. });
        assert!(kind, "{error:?}");
    }
}

/// The keys' file, with each `Zq-` in its strings become these bytes.
fn damaged(keys: Keys, with: &[u8; 3]) -> Tokenizer {
    let mut bytes = file(keys);
    while let Some(at) = bytes.windows(3).position(|w| w == b"Zq-") {
        bytes[at..at + 3].copy_from_slice(with);
    }
    read(bytes).unwrap()
}

#[test]
fn a_token_that_is_not_utf8_keeps_its_bytes() {
    for (mut keys, id) in [(bpe(), 262), (spm(), 283)] {
        let Some(Value::Array(Array::String(tokens))) = keys.get_mut("tokens") else { panic!() };
        tokens[id] = "Zq-".into();
        tokens[id - 1] = "▁Zq-".into();
        let tokenizer = damaged(keys, b"\xff\xe2\x96");
        assert_eq!(tokenizer.bytes(id as u32), b"\xff\xe2\x96");
        // The text of replacement characters is neither this token nor the one before.
        let shown = tokenizer.piece(id as u32).to_owned();
        let ids = tokenizer.encode(&shown, false).unwrap();
        assert!(ids.iter().all(|&found| found + 1 < id as u32), "{ids:?}");
        assert!(printed(&tokenizer, &ids).ends_with(&shown));
        // Half a character waits for its other half.
        let mut out = Detokenizer::new();
        assert_eq!(out.push(&tokenizer, id as u32), "\u{fffd}");
        let byte = tokenizer.encode("é", false).unwrap().pop().unwrap();
        assert_eq!(out.push(&tokenizer, byte), "\u{25a9}");
    }
    let mut keys = spm();
    let Some(Value::Array(Array::String(tokens))) = keys.get_mut("tokens") else { panic!() };
    tokens[283] = "▁Zq-▁".into();
    assert_eq!(damaged(keys, b"\xe2\x96x").bytes(283), b" \xe2\x96x ");
}

#[derive(serde::Deserialize)]
struct Ends {
    cases: Vec<EndsCase>,
}

#[derive(serde::Deserialize)]
struct EndsCase {
    tokens: Vec<(String, i32)>,
    ends: Vec<String>,
}

#[test]
fn ends_are_llama_cpps_whatever_their_type() {
    let fixture: Ends = fixture("ends");
    for EndsCase { tokens, mut ends } in fixture.cases {
        let mut vocab = byte_vocab("gpt-2", &[]);
        let first = vocab.tokens.len() as u32;
        for (text, kind) in &tokens {
            vocab.tokens.push(text.clone());
            vocab.types.push(*kind);
        }
        // `byte_vocab` has one of its own.
        (vocab.tokens[256], vocab.types[256]) = ("aa".into(), 1);
        if tokens == [("</s>".to_owned(), 1)] {
            // llama.cpp ends there. But in the vocabulary of Qwen 2 it is text, of a page that strikes something out.
            assert_eq!(ends, ["</s>"]);
            ends.clear();
        }
        let tokenizer = Tokenizer::new(vocab).unwrap();
        let found = tokenizer.eog().iter().map(|&id| tokenizer.piece(id));
        assert_eq!(found.collect::<Vec<_>>(), ends, "{tokens:?}");
        // An end is found in a text, and says nothing.
        for (id, (text, _)) in (first..).zip(&tokens).filter(|(_, (text, _))| ends.contains(text)) {
            let ids = tokenizer.encode(&format!("a{text}b"), false).unwrap();
            assert_eq!(ids, [97, id, 98]);
            assert_eq!(printed(&tokenizer, &ids), "ab");
        }
    }
}

#[test]
fn ends_are_named_by_keys_too() {
    for name in ["eot", "eom", "fim_pad", "fim_rep", "fim_sep"] {
        let key = match name {
            "eot" => "eot_token_id",
            "eom" => "eom_token_id",
            "fim_pad" => "fim_pad_token_id",
            "fim_rep" => "fim_rep_token_id",
            _ => "fim_sep_token_id",
        };
        let tokenizer = tokenizer(with(bpe(), key, Value::U32(263)));
        assert_eq!(tokenizer.eog(), [263, 264, 265], "{key}");
    }
}

#[test]
fn a_text_with_a_bos_of_its_own_has_two() {
    let tokenizer = tokenizer(with(spm(), "add_eos_token", Value::Bool(true)));
    let doubled = |text| tokenizer.doubled(&tokenizer.encode(text, true).unwrap());
    assert!(doubled("<s>hello").unwrap().contains("begins with \"<s>\""));
    assert!(doubled("hello</s>").unwrap().contains("ends with \"</s>\""));
    assert_eq!(doubled("hello<s>"), None);
    assert_eq!(doubled(""), None);
    let plain = Tokenizer::new(byte_vocab("gpt-2", &[])).unwrap();
    assert_eq!(plain.doubled(&plain.encode("<|end|><|end|>", true).unwrap()), None);
}

#[test]
fn pre_tokenizers_of_other_names_split_alike() {
    let (all, aliases): (HashMap<String, Ids>, HashMap<String, String>) =
        (fixture("bpe_ids"), fixture("bpe_aliases"));
    for (alias, name) in &aliases {
        let vocab: FixtureVocab = fixture("bpe_vocab");
        let tokenizer = Tokenizer::new(vocab.vocab(Some(alias), None)).unwrap();
        check_ids(alias, &tokenizer, &all[name]);
    }
}

/// Ids of whole vocabularies, which are too large to keep here: each `NAME` with a `NAME.inp` and a `NAME.out` beside it
/// in the folder that `BROOKLET_VOCABULARIES` names, as in llama.cpp's `models`.
#[test]
#[ignore = "needs a folder of vocabularies"]
fn whole_vocabularies_give_the_ids_that_lie_beside_them() {
    let folder = std::env::var("BROOKLET_VOCABULARIES").unwrap();
    let (mut checked, mut wrong) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path().display().to_string();
        let Some(path) = path.strip_suffix(".inp") else { continue };
        let text = |end| std::fs::read_to_string(format!("{path}{end}")).unwrap();
        let tokenizer = match std::fs::read(path).map(read).unwrap() {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                eprintln!("{path}: {error}");
                continue;
            }
        };
        let ids = |line: &str| line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let expected: Vec<Vec<u32>> = text(".out").lines().map(ids).collect();
        let texts = text(".inp");
        let texts: Vec<_> = texts.split("\n__ggml_vocab_test__\n").collect();
        for (text, expected) in texts.iter().zip(&expected) {
            let found = tokenizer.encode(text, false).unwrap();
            if found != *expected {
                wrong.push(format!(
                    "{path}: {text:?}\n  found    {found:?}\n  expected {expected:?}"
                ));
            }
        }
        eprintln!("{path}: {} texts, warnings {:?}", texts.len(), tokenizer.warnings());
        checked.push(path.to_owned());
    }
    assert!(
        !checked.is_empty() && wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// As llama.cpp has it of a text whose special tokens are not parsed: it is one text, with one space before it.
#[cfg(feature = "templates")]
#[test]
fn what_is_marked_is_text_in_any_vocabulary() {
    let user_defined = |mut keys: Keys, id: usize| {
        let Some(Value::Array(Array::I32(types))) = keys.get_mut("token_type") else { panic!() };
        types[id] = 4;
        keys
    };
    for (keys, control, own) in [(spm(), "<s>", "."), (bpe(), "<|im_end|>", "w")] {
        let spm = control == "<s>";
        // A token that the user may write is found in a marked text as in any.
        let tokenizer = tokenizer(user_defined(keys, if spm { 283 } else { 86 }));
        let text = format!("hello{control} world{control}{own}");
        let ids = tokenizer.encode_marked(&tokenizer.marked(&text)).unwrap();
        assert!(ids.iter().all(|&id| !tokenizer.is_control(id) || id == 0), "{ids:?}");
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id)).copied().collect();
        let shown = String::from_utf8(bytes).unwrap();
        assert_eq!(shown.trim_start(), text, "{ids:?}");
        assert_eq!(tokenizer.marked("hello world"), "hello world");
        // Beside what is marked, control tokens are what they are.
        let mixed = format!("{control}{}", tokenizer.marked(control));
        let ids = tokenizer.encode_marked(&mixed).unwrap();
        assert_eq!(ids.iter().filter(|&&id| tokenizer.is_control(id)).count(), 1);
        assert_eq!(Some(ids[0]), tokenizer.id(control));
    }
}
