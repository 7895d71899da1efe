//! Outputs that are held to grammars: of small random models, whose words are noise, so that all that is right about an
//! output is the grammar's doing. What is valid is said by another crate.
mod real;
mod schemas;

use super::alone::{END, MODEL, begun, next, samplings};
use super::text::{byte_vocab, sentence_pieces};
use super::tiny::{Tiny, streaming};
use crate::format::{BytesSource, Gguf};
use crate::grammar::{Grammar, GrammarMatcher, GrammarVocabulary};
use crate::model::Policy;
use crate::session::{Constraint, Session};
use crate::text::{SamplerSettings, Tokenizer, Vocab, random};
use pollster::block_on;
use serde_json::Value;
use std::sync::Arc;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    asks: String,
    schema: Value,
}

/// Schemas of many kinds.
fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../../tests/fixtures/grammar/schemas.json")).unwrap()
}

fn tokenizer() -> Arc<Tokenizer> {
    let source = BytesSource::new("tiny.gguf", Tiny::default().file());
    tokenizer_of(&block_on(Gguf::read(&source)).unwrap())
}

fn tokenizer_of(gguf: &Gguf) -> Arc<Tokenizer> {
    Arc::new(Vocab::from_gguf(gguf).and_then(Tokenizer::new).unwrap())
}

fn tiny() -> GrammarVocabulary {
    GrammarVocabulary::new(tokenizer()).unwrap()
}

fn expect_valid(schema: &Value, text: &str) {
    let value: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    if let Err(error) = validator.validate(&value) {
        panic!("{text} is not valid by {schema}: {error}");
    }
}

/// Draws tokens of those that may come until the output has ended, without a model.
fn walk(matcher: &mut GrammarMatcher, tokenizer: &Tokenizer, seed: u64) -> Vec<u32> {
    walked(matcher, tokenizer, seed).expect("an end")
}

/// The same, or nothing where it does not end soon.
fn walked(matcher: &mut GrammarMatcher, tokenizer: &Tokenizer, seed: u64) -> Option<Vec<u32>> {
    let mut ids = Vec::new();
    for draw in 0..1000 {
        let mut banned = vec![0; tokenizer.len().div_ceil(32)];
        matcher.ban(&mut banned).unwrap();
        let may = |id: &u32| banned[*id as usize / 32] >> (id % 32) & 1 == 0;
        let allowed: Vec<u32> = (0..tokenizer.len() as u32).filter(may).collect();
        let ends = allowed.iter().copied().find(|id| tokenizer.eog().contains(id));
        assert_eq!(ends.is_some(), matcher.may_end());
        // It ends as soon as it may.
        let id = ends.unwrap_or_else(|| allowed[random(seed, draw) as usize % allowed.len()]);
        matcher.accept(id).unwrap();
        if ends.is_some() {
            assert!(matcher.has_ended());
            return Some(ids);
        }
        ids.push(id);
    }
    None
}

fn said(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let bytes = ids.iter().flat_map(|&id| tokenizer.bytes(id)).copied().collect();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn whatever_is_drawn_is_valid_by_its_schema() {
    walk_cases(&tokenizer(), 10);
}

/// So many outputs of each schema, whose tokens are drawn from all that may come.
fn walk_cases(tokenizer: &Arc<Tokenizer>, each: u64) {
    let vocabulary = GrammarVocabulary::new(tokenizer.clone()).unwrap();
    let mut ended = 0;
    for Case { name, schema, .. } in cases() {
        let grammar = Grammar::json_schema(&schema.to_string())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        for seed in 0..each {
            let mut matcher = vocabulary.matcher(&grammar).unwrap();
            // A name of any length seldom ends where most tokens go on with it.
            if let Some(ids) = walked(&mut matcher, tokenizer, seed) {
                expect_valid(&schema, &said(tokenizer, &ids));
                ended += 1;
            }
        }
    }
    eprintln!("{ended} of {} have ended", 20 * each);
    assert!(ended >= 19 * each, "{ended} of {} have ended", 20 * each);
}

#[test]
fn every_kind_of_vocabulary_keeps_to_a_grammar() {
    let grammar = Grammar::regex("(hello|hell|h\u{e9}|lo) lo?l{1,3}").unwrap();
    let pattern = serde_json::json!({ "pattern": "^(hello|hell|h\u{e9}|lo) lo?l{1,3}$" });
    let spaced = Vocab { add_space_prefix: Some(true), ..sentence_pieces() };
    let bytes = byte_vocab("gpt-2", &["h e", "l l", "he ll", "hell o", "\u{120} l", "l o"]);
    for vocab in [bytes, sentence_pieces(), spaced] {
        let tokenizer = Arc::new(Tokenizer::new(vocab).unwrap());
        let vocabulary = GrammarVocabulary::new(tokenizer.clone()).unwrap();
        for seed in 0..30 {
            let mut matcher = vocabulary.matcher(&grammar).unwrap();
            let ids = walk(&mut matcher, &tokenizer, seed);
            assert!(!ids.iter().any(|&id| tokenizer.is_control(id)));
            expect_valid(&pattern, &Value::from(said(&tokenizer, &ids)).to_string());
        }
    }
}

#[test]
fn what_is_forced_is_what_the_model_would_write() {
    let vocab = byte_vocab("gpt-2", &["h e", "l l", "he ll", "hell o"]);
    let tokenizer = Arc::new(Tokenizer::new(vocab).unwrap());
    let vocabulary = GrammarVocabulary::new(tokenizer.clone()).unwrap();
    let mut matcher = vocabulary.matcher(&Grammar::regex("hello, hello!").unwrap()).unwrap();
    let forced = matcher.forced();
    assert_eq!(forced, tokenizer.encode("hello, hello!", false).unwrap());
    let mut banned = vec![0; tokenizer.len().div_ceil(32)];
    matcher.ban(&mut banned).unwrap();
    let left: u32 = banned.iter().map(|word| word.count_zeros()).sum();
    assert_eq!(left, 1, "one token may come");
}

#[test]
fn rolled_back_it_is_where_it_was() {
    let (tokenizer, vocabulary) = (tokenizer(), tiny());
    let schema = &cases()[1].schema;
    let grammar = Grammar::json_schema(&schema.to_string()).unwrap();
    let mut matcher = vocabulary.matcher(&grammar).unwrap();
    let ids = walk(&mut matcher, &tokenizer, 7);
    let masks = |matcher: &mut GrammarMatcher| -> Vec<Vec<u32>> {
        let mut mask = |id: u32| {
            let mut banned = vec![0; tokenizer.len().div_ceil(32)];
            matcher.ban(&mut banned).unwrap();
            matcher.accept(id).unwrap();
            banned
        };
        ids.iter().copied().chain([END]).map(&mut mask).collect()
    };
    matcher.roll_back(ids.len() + 1).unwrap();
    let whole = masks(&mut matcher);
    for back in [1, 2, 3, ids.len() / 2, ids.len() + 1] {
        matcher.roll_back(back).unwrap();
        let from = ids.len() + 1 - back;
        for (id, expected) in ids.iter().copied().chain([END]).zip(&whole).skip(from) {
            let mut banned = vec![0; tokenizer.len().div_ceil(32)];
            matcher.ban(&mut banned).unwrap();
            assert_eq!(&banned, expected, "{back} back");
            matcher.accept(id).unwrap();
        }
    }
    assert!(matcher.roll_back(ids.len() + 2).is_err());
}

#[test]
fn a_vocabulary_without_an_end_is_refused() {
    let mut vocab = byte_vocab("gpt-2", &[]);
    vocab.tokens.pop();
    vocab.types.pop();
    let tokenizer = Arc::new(Tokenizer::new(vocab).unwrap());
    let error = GrammarVocabulary::new(tokenizer).map(drop).unwrap_err().to_string();
    assert!(error.contains("no token that ends"), "{error}");
    // Longer than the trie has bits for, and a byte that is in no text.
    let mut vocab = byte_vocab("gpt-2", &[]);
    vocab.tokens[65] = "a".repeat(5000);
    let tokenizer = Arc::new(Tokenizer::new(vocab).unwrap());
    let vocabulary = GrammarVocabulary::new(tokenizer.clone()).unwrap();
    let mut matcher = vocabulary.matcher(&Grammar::regex("(?s:.){3}").unwrap()).unwrap();
    walk(&mut matcher, &tokenizer, 3);
}

#[test]
fn a_grammar_that_allows_everything_changes_nothing() {
    let vocabulary = tiny();
    // Any bytes, and nothing has to end.
    let all =
        Grammar::lark("%llguidance {\"allow_invalid_utf8\": true}\nstart: /(?s-u:.)*/").unwrap();
    for policy in [Policy::Streaming, Policy::HalfDiscard, Policy::Recompute] {
        for by in samplings() {
            let free = |constrained: bool| -> Vec<u32> {
                let mut session = begun(policy);
                // What is no text is banned in both: control tokens, and bytes that are in none.
                let mut generation = session.generate(by.clone(), &[256, 255]).unwrap();
                if constrained {
                    generation.constrain(Box::new(vocabulary.matcher(&all).unwrap()));
                }
                let tokens = if policy == Policy::Recompute { 8 } else { 40 };
                (0..tokens).map(|_| next(&mut generation, &mut session)).collect()
            };
            assert_eq!(free(true), free(false), "{policy:?}");
        }
    }
}

#[test]
fn a_model_of_noise_writes_what_is_valid() {
    let (tokenizer, vocabulary) = (tokenizer(), tiny());
    // A thousand with 50.
    let each = std::env::var("BROOKLET_OUTPUTS").map_or(1, |each| each.parse().unwrap());
    let (mut ended, cases) = (0, cases());
    let all = (0..each).flat_map(|seed| cases.iter().map(move |case| (seed, case)));
    for (i, (seed, case)) in all.enumerate() {
        let policy = [Policy::Streaming, Policy::HalfDiscard, Policy::Streaming][i % 3];
        // Such a model would write one digit for ever, if it were not drawn from widely.
        let by = SamplerSettings {
            temperature: 4.0,
            top_k: 0,
            seed: seed * 100 + i as u64,
            ..samplings()[i % 3].clone()
        };
        let grammar = Grammar::json_schema(&case.schema.to_string()).unwrap();
        let mut session = begun(policy);
        let mut generation = session.generate(by, &[]).unwrap();
        generation.constrain(Box::new(vocabulary.matcher(&grammar).unwrap()));
        let mut ids = Vec::new();
        while ids.len() < 250 {
            match next(&mut generation, &mut session) {
                END => break,
                id => ids.push(id),
            }
        }
        // It is drawn from too narrowly to end everything.
        if ids.len() == 250 {
            eprintln!("{} has not ended: {}", case.name, said(&tokenizer, &ids));
            continue;
        }
        ended += 1;
        expect_valid(&case.schema, &said(&tokenizer, &ids));
        // After its end nothing but the end may come.
        assert_eq!(next(&mut generation, &mut session), END);
    }
    eprintln!("{ended} have ended");
    assert!(ended >= 12 * each, "{ended} have ended");
}

#[test]
fn what_is_disturbed_goes_on_as_if_it_had_not_been() {
    let (tokenizer, vocabulary) = (tokenizer(), tiny());
    let case = &cases()[5];
    let grammar = Grammar::json_schema(&case.schema.to_string()).unwrap();
    for by in samplings().into_iter().take(2) {
        let run = |disturbed: bool| -> Vec<u32> {
            let mut session = begun(Policy::Streaming);
            let mut generation = session.generate(by.clone(), &[]).unwrap();
            generation.constrain(Box::new(vocabulary.matcher(&grammar).unwrap()));
            let mut ids = Vec::new();
            for n in 0..300 {
                if disturbed && n % 5 == 3 {
                    // Dropped while it waits, at one wait or another; read by somebody else; and taken back.
                    let waits = n / 5 % 3;
                    let next = generation.next(&mut session);
                    if let Some(token) = super::support::dropped_after(waits, next) {
                        ids.push(token.unwrap().unwrap());
                        if ids.last() == Some(&END) {
                            return ids;
                        }
                    }
                    block_on(session.logits()).unwrap();
                }
                ids.push(next(&mut generation, &mut session));
                if ids.last() == Some(&END) {
                    break;
                }
            }
            ids
        };
        let ids = run(false);
        expect_valid(&case.schema, &said(&tokenizer, &ids[..ids.len() - 1]));
        assert_eq!(run(true), ids);
    }
}

/// The same rules, and nothing is forced.
struct Unforced(GrammarMatcher);

impl Constraint for Unforced {
    fn ban(&mut self, banned: &mut [u32]) -> crate::Result<()> {
        self.0.ban(banned)
    }

    fn accept(&mut self, token: u32) -> crate::Result<()> {
        self.0.accept(token)
    }

    fn roll_back(&mut self, tokens: usize) -> crate::Result<()> {
        self.0.roll_back(tokens)
    }
}

#[test]
fn what_is_forced_together_is_what_comes_one_by_one() {
    let vocabulary = tiny();
    for (i, case) in cases().iter().enumerate().step_by(2) {
        let grammar = Grammar::json_schema(&case.schema.to_string()).unwrap();
        let policy = [Policy::Streaming, Policy::HalfDiscard][i / 2 % 2];
        let run = |forced: bool| -> Vec<u32> {
            let mut session = begun(policy);
            let mut generation = session.generate(samplings()[i / 2 % 3].clone(), &[]).unwrap();
            let matcher = vocabulary.matcher(&grammar).unwrap();
            match forced {
                true => generation.constrain(Box::new(matcher)),
                false => generation.constrain(Box::new(Unforced(matcher))),
            }
            (0..60).map(|_| next(&mut generation, &mut session)).collect()
        };
        assert_eq!(run(true), run(false), "{}", case.name);
    }
}

#[test]
fn what_is_taken_back_comes_again() {
    let vocabulary = tiny();
    let grammar = Grammar::json_schema(&cases()[0].schema.to_string()).unwrap();
    let mut session = begun(Policy::Streaming);
    let mut generation = session.generate(samplings()[0].clone(), &[]).unwrap();
    generation.constrain(Box::new(vocabulary.matcher(&grammar).unwrap()));
    let ids: Vec<u32> = (0..12).map(|_| next(&mut generation, &mut session)).collect();
    block_on(session.rewind(5, ids[6])).unwrap();
    generation.roll_back(5).unwrap();
    let again: Vec<u32> = (0..5).map(|_| next(&mut generation, &mut session)).collect();
    assert_eq!(again, ids[7..]);
    let error = block_on(session.snapshot(Some(&generation), "")).map(drop).unwrap_err();
    assert!(error.to_string().contains("grammar"), "{error}");
}

#[test]
fn where_nothing_may_come_it_says_so() {
    let vocabulary = tiny();
    for policy in [Policy::Streaming, Policy::Recompute] {
        let mut session = begun(policy);
        // The end is banned, and nothing else may come.
        let mut generation = session.generate(samplings()[0].clone(), &[END]).unwrap();
        generation.constrain(Box::new(vocabulary.matcher(&Grammar::regex("ab").unwrap()).unwrap()));
        assert_eq!([97, 98], [(); 2].map(|()| next(&mut generation, &mut session)));
        let error = block_on(generation.next(&mut session)).unwrap_err().to_string();
        assert!(error.contains("banned otherwise"), "{error}");
    }
}

#[test]
fn a_neighbour_that_shares_passes_changes_nothing() {
    let (tokenizer, vocabulary) = (tokenizer(), tiny());
    let case = &cases()[5];
    let grammar = Grammar::json_schema(&case.schema.to_string()).unwrap();
    let settings = streaming(4, 60, 8, crate::model::KvType::F32);
    // Which of two go: the one that is held to a schema, the free one.
    let run = |go: [bool; 2]| -> [Vec<u32>; 2] {
        let mut streams = block_on(Session::several(MODEL.clone(), settings, 2)).unwrap();
        let mut generations = Vec::new();
        for (i, stream) in streams.iter_mut().enumerate() {
            block_on(stream.feed(&super::tiny::text(i as u64, 9 + i))).unwrap();
            let by =
                SamplerSettings { temperature: 4.0, top_k: 0, seed: 5, ..samplings()[1].clone() };
            generations.push(stream.generate(by, &[]).unwrap());
        }
        generations[0].constrain(Box::new(vocabulary.matcher(&grammar).unwrap()));
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..150 {
            for i in [0, 1].into_iter().filter(|&i| go[i]) {
                if found[i].last() != Some(&END) || i == 1 {
                    found[i].push(next(&mut generations[i], &mut streams[i]));
                }
            }
        }
        found
    };
    let [held, free] = run([true, true]);
    assert_eq!(run([true, false])[0], held);
    assert_eq!(run([false, true])[1], free);
    assert_eq!(held.last(), Some(&END), "{}", said(&tokenizer, &held));
    expect_valid(&case.schema, &said(&tokenizer, &held[..held.len() - 1]));
}
