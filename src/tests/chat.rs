//! Conversations on a tiny model: those of the ten invariants that need a session. `turns` has the others.
use super::support::gpu;
use super::tiny::Tiny;
use crate::chat::{AnswerSettings, Chat, Message, Script, Seen};
use crate::format::{Array, BytesSource, Gguf, Value};
use crate::gpu::Gpu;
use crate::model::{CacheSettings, Config, KvType, LoadSettings, Model, Policy};
use crate::session::{Ended, Session};
use crate::text::{SamplerSettings, Template, Tokenizer, Vocab};
use pollster::block_on;
use std::sync::Arc;

pub(super) const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + \
                      '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
                      {% endif %}";
pub(super) const SYSTEM: &str = "You are terse.";

/// The tiny model with a vocabulary for conversations.
pub(super) fn tiny_file() -> (BytesSource, Gguf) {
    let mut file = Tiny::default().parts();
    for (key, value) in &mut file.metadata {
        match (key.as_str(), value) {
            ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))) => {
                tokens[318] = "<|im_start|>".into();
                tokens[319] = "<|im_end|>".into();
            }
            ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))) => {
                types[318] = 3;
                types[319] = 3;
            }
            _ => {}
        }
    }
    let source = BytesSource::new("tiny.gguf", file.bytes());
    let gguf = block_on(Gguf::read(&source)).unwrap();
    (source, gguf)
}

pub(super) fn tokenizer_of(gguf: &Gguf) -> Arc<Tokenizer> {
    Arc::new(Tokenizer::new(Vocab::from_gguf(gguf).unwrap()).unwrap())
}

pub(super) fn tiny(gpu: &Arc<Gpu>) -> (Arc<Model>, Arc<Tokenizer>) {
    let (source, gguf) = tiny_file();
    let settings = LoadSettings::new(Config::from_gguf(&gguf).unwrap());
    let mut unheard = |_, _| ();
    let model = Model::with_settings(gpu.clone(), &source, &gguf, settings, &mut unheard);
    (Arc::new(block_on(model).unwrap()), tokenizer_of(&gguf))
}

/// A template's text, for the model of a tokenizer.
pub(super) fn template_for(tokenizer: &Tokenizer, text: &str) -> Template {
    let piece = |id: Option<u32>| id.map_or("", |id| tokenizer.piece(id));
    Template::new(text, piece(tokenizer.bos()), piece(tokenizer.eos())).unwrap()
}

pub(super) fn script(tokenizer: &Arc<Tokenizer>, template: &str, system: Option<&str>) -> Script {
    let template = template_for(tokenizer, template);
    Script::new(tokenizer.clone(), template, system.map(str::to_owned), None).unwrap()
}

/// A conversation of so many tokens of cache, one of chunks of 8.
fn chat(model: &Arc<Model>, tokenizer: &Arc<Tokenizer>, capacity: usize) -> Chat {
    let script = script(tokenizer, CHATML, Some(SYSTEM));
    let settings = CacheSettings {
        chunk: 8,
        kv: KvType::F32,
        ..CacheSettings::for_model(&model.config, Policy::Streaming)
    };
    let settings = Chat::cache(&script, settings, Some(capacity), 4096).unwrap();
    block_on(Chat::new(model.clone(), script, settings)).unwrap()
}

/// So many tokens at most, the same for the same seed.
pub(super) fn answer(tokens: u64, seed: u64) -> AnswerSettings {
    let sampling = SamplerSettings { temperature: 1.0, top_k: 0, seed, ..Default::default() };
    AnswerSettings { sampling, tokens, ..AnswerSettings::default() }
}

/// One turn, read to its end.
pub(super) fn turn(chat: &mut Chat, text: &str, settings: &AnswerSettings) -> String {
    assert!(block_on(chat.send(text, settings, || true)).unwrap());
    rest(chat)
}

pub(super) fn rest(chat: &mut Chat) -> String {
    let mut text = String::new();
    while let Some(said) = block_on(chat.next()).unwrap() {
        text += &said.text;
    }
    text
}

fn ids(session: &Session) -> Vec<u32> {
    session.recent().collect()
}

#[test]
fn three_and_seven_a_turn_feeds_its_own_tokens_and_memory_is_flat() {
    turns_alike(120);
}

#[test]
#[ignore = "10,000 turns"]
fn seven_memory_is_flat_over_ten_thousand_turns() {
    turns_alike(10_000);
}

fn turns_alike(turns: u64) {
    let gpu = Arc::new(gpu());
    let (model, tokenizer) = tiny(&gpu);
    let mut chat = chat(&model, &tokenizer, 96);
    let delta = chat.script().next("the rain").unwrap().len() as u64;
    let (mut after_twenty, mut most) = (None, 0);
    for at in 1..=turns {
        let before = (chat.fed(), chat.session().recent().next_back());
        turn(&mut chat, "the rain", &answer(3, at));
        let fed = chat.fed() - before.0;
        if at > 1 {
            // An end token that the model has said is not fed again.
            let ended = before.1.is_some_and(|last| tokenizer.eog().contains(&last));
            assert!(fed == delta || ended && fed + 1 == delta, "turn {at}: {fed} of {delta}");
        }
        let window = chat.window();
        most = most.max(window.messages.len());
        assert_eq!(window.gone + window.messages.len() as u64, 2 * at, "every message is told of");
        if at == 20 {
            after_twenty = Some(gpu.counters.held());
        }
    }
    assert_eq!(after_twenty.unwrap(), gpu.counters.held(), "no device memory is taken");
    assert!(most <= 96 / 3, "messages that are seen at all: {most}");
    let window = chat.window();
    assert!(window.forgotten > 0 && window.gone > 200);
    assert_eq!(window.messages.last().unwrap().seen, Seen::Whole);
}

#[test]
fn four_keys_and_values_of_the_head_are_bit_identical_after_a_million_tokens() {
    let gpu = Arc::new(gpu());
    let (model, tokenizer) = tiny(&gpu);
    let mut chat = chat(&model, &tokenizer, 96);
    let sinks = chat.session().cache().geometry().sinks as usize;
    assert_eq!(sinks, chat.script().head().len().max(4));
    let head = |chat: &Chat| -> Vec<Vec<u32>> {
        let cache = chat.session().cache();
        let layers = 0..model.config.n_layer;
        let tensors = layers.flat_map(|layer| [cache.k(layer), cache.v(layer)]);
        let rows = |tensor: &crate::gpu::Tensor| {
            let all: Vec<u32> = block_on(tensor.read(&gpu)).unwrap();
            let row = all.len() / tensor.shape[0];
            all[..sinks * row].to_vec()
        };
        tensors.map(rows).collect()
    };
    turn(&mut chat, "hello", &answer(8, 1));
    let before = head(&chat);
    for at in 2..30 {
        turn(&mut chat, "the rain in spain", &answer(8, at));
    }
    assert!(chat.session().evicted() > 0);
    chat.session_mut().fast_forward(1_000_000);
    for at in 30..40 {
        turn(&mut chat, "the rain in spain", &answer(8, at));
    }
    assert!(chat.session().position() > 1_000_000);
    assert_eq!(before, head(&chat));
}

#[test]
fn five_logits_are_bit_identical_to_dense_before_the_window_is_full() {
    let gpu = Arc::new(gpu());
    let (model, tokenizer) = tiny(&gpu);
    let mut chat = chat(&model, &tokenizer, 256);
    let settings = chat.session().cache().settings();
    let dense =
        CacheSettings { policy: Policy::Dense, sinks: 0, window: 256, ring: None, ..settings };
    let mut dense = block_on(Session::new(model.clone(), dense)).unwrap();
    for at in 0..4 {
        // As the conversation takes them in: a turn together, an answer one by one.
        assert!(block_on(chat.send("the rain", &answer(9, at), || true)).unwrap());
        block_on(dense.feed(&ids(chat.session())[dense.position() as usize..])).unwrap();
        rest(&mut chat);
        assert_eq!(chat.ended(), Some(Ended::Length));
        for token in &ids(chat.session())[dense.position() as usize..] {
            block_on(dense.feed(&[*token])).unwrap();
        }
        let logits = [chat.session_mut(), &mut dense].map(|s| block_on(s.logits()).unwrap());
        let [a, b] = logits.map(|logits| logits.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        assert!(a == b, "turn {at}");
    }
    assert_eq!(chat.session().evicted(), 0);
}

#[test]
fn eight_no_end_token_is_fed_twice_and_none_is_missing() {
    let gpu = Arc::new(gpu());
    let (model, tokenizer) = tiny(&gpu);
    let [im_end, end_of_text] = ["<|im_end|>", "<|endoftext|>"].map(|t| tokenizer.id(t).unwrap());
    let start = tokenizer.id("<|im_start|>").unwrap();
    let mut ends = [0; 3];
    let mut chat = chat(&model, &tokenizer, 256);
    for seed in 0..30 {
        chat.clear();
        // So hot that every token is as likely as another, ends among them.
        let mut hot = answer(60, seed);
        hot.sampling = SamplerSettings { temperature: 1e5, top_p: 1.0, min_p: 0.0, ..hot.sampling };
        turn(&mut chat, "the rain", &hot);
        let last = chat.session().recent().next_back();
        match last {
            Some(last) if last == im_end => ends[0] += 1,
            Some(last) if last == end_of_text => ends[1] += 1,
            _ => ends[2] += 1,
        }
        assert_eq!(
            chat.ended() == Some(Ended::EndOfText),
            last.is_some_and(|id| tokenizer.eog().contains(&id))
        );
        assert!(block_on(chat.send("hello", &answer(1, 1), || true)).unwrap());
        let ids = ids(chat.session());
        // An answer, however it was ended, ends with one end token, and a turn follows.
        let turns = ids.windows(3).filter(|w| w[0] == im_end && w[2] == start).count();
        assert_eq!(turns, 4, "seed {seed}, ended by {last:?}");
        assert!(!ids.windows(2).any(|w| w == [im_end, im_end]), "seed {seed}");
        assert!(!ids.contains(&end_of_text), "another end than the turn's is taken out");
        chat.stop();
    }
    assert!(ends.iter().all(|&count| count > 0), "every kind of end was met: {ends:?}");
}

#[test]
fn nine_stopped_while_it_speaks_a_chat_goes_on_as_if_it_had_ended_there() {
    let gpu = Arc::new(gpu());
    let (model, tokenizer) = tiny(&gpu);
    let [mut stopped, mut ended] = [0; 2].map(|_| chat(&model, &tokenizer, 256));
    for seed in 0..4 {
        assert!(block_on(stopped.send("the rain", &answer(50, seed), || true)).unwrap());
        let start = stopped.session().position();
        while stopped.session().position() < start + 7
            && block_on(stopped.next()).unwrap().is_some()
        {}
        stopped.stop();
        let told = stopped.session().position() - start;
        turn(&mut ended, "the rain", &answer(told, seed));
        assert_eq!(ids(stopped.session()), ids(ended.session()));
    }
    assert!(block_on(stopped.send("x", &answer(1, 1), || true)).unwrap());
    assert!(block_on(ended.send("x", &answer(1, 1), || true)).unwrap());
    assert_eq!(ids(stopped.session()), ids(ended.session()));
}

#[test]
fn a_turn_is_regenerated_edited_and_told_anew() {
    let gpu = Arc::new(gpu());
    let (model, tokenizer) = tiny(&gpu);
    let mut chat = chat(&model, &tokenizer, 192);
    assert!(block_on(chat.regenerate(&answer(5, 1))).is_err(), "nothing was said yet");
    for at in 0..6 {
        turn(&mut chat, "the rain", &answer(6, at));
    }
    let before = (ids(chat.session()), chat.window());
    let first = turn(&mut chat, "in spain", &answer(9, 3));
    let whole = ids(chat.session());
    block_on(chat.regenerate(&answer(9, 4))).unwrap();
    rest(&mut chat);
    block_on(chat.regenerate(&answer(9, 3))).unwrap();
    assert_eq!(rest(&mut chat), first);
    assert_eq!(ids(chat.session()), whole, "the same seed says the same again");
    block_on(chat.undo()).unwrap();
    let [now, then] = [&chat.window(), &before.1].map(|w| (w.tokens, w.messages.len(), w.gone));
    // An end token that was not the turn's may be gone.
    assert!(now == then || now == (then.0 - 1, then.1, then.2), "{now:?} {then:?}");
    assert_eq!(turn(&mut chat, "in spain", &answer(9, 3)), first);
    // Interrupted while it is fed, a turn has never been.
    let before = chat.session().position();
    assert!(!block_on(chat.send("hello", &answer(1, 1), || false)).unwrap());
    assert!(before - chat.session().position() <= 1);
    // An answer that is longer than what the ring holds beside its window is lost to it.
    turn(&mut chat, "in spain", &AnswerSettings { stop: Vec::new(), ..answer(20, 5) });
    let messages: Vec<Message> = (0..40)
        .map(|at| Message::new(["user", "assistant"][at % 2], "the rain in spain"))
        .collect();
    let left_out = block_on(chat.retell(&messages, || true)).unwrap();
    assert!(left_out > 0 && left_out.is_multiple_of(2));
    let window = chat.window();
    assert_eq!((window.messages.len(), window.gone), (40 - left_out, left_out as u64));
    assert!(window.messages.iter().all(|m| m.seen == Seen::Whole), "{window:?}");
    assert!(ids(chat.session()).starts_with(chat.script().head()));
    assert!(block_on(chat.retell(&[Message::new("assistant", "x")], || true)).is_err());
    turn(&mut chat, "hello", &answer(3, 1));
}

#[test]
fn a_saved_chat_goes_on_as_if_it_had_never_stopped() {
    let gpu = Arc::new(gpu());
    let (model, tokenizer) = tiny(&gpu);
    let mut chat = chat(&model, &tokenizer, 96);
    for at in 0..8 {
        turn(&mut chat, "the rain", &answer(6, at));
    }
    let saved = block_on(chat.save("texts".into())).unwrap();
    let made = |system: Option<String>| Ok(script(&tokenizer, CHATML, system.as_deref()));
    let (mut restored, texts) = block_on(Chat::restored(model.clone(), &saved, made)).unwrap();
    assert_eq!((texts.as_str(), restored.window()), ("texts", chat.window()));
    let both = [&mut chat, &mut restored].map(|chat| turn(chat, "in spain", &answer(12, 9)));
    assert_eq!(both[0], both[1]);
}

#[test]
fn a_system_prompt_longer_than_half_the_cache_is_refused_with_both_numbers() {
    let (_, gguf) = tiny_file();
    let tokenizer = tokenizer_of(&gguf);
    let script = script(&tokenizer, CHATML, Some(&"word ".repeat(40)));
    let settings = CacheSettings::for_model(&Config::from_gguf(&gguf).unwrap(), Policy::Streaming);
    let error = Chat::cache(&script, settings, Some(200), 4096).unwrap_err().to_string();
    let head = script.head().len().to_string();
    assert!(error.contains(&head) && error.contains("200"), "{error}");
    assert!(Chat::cache(&script, settings, Some(1024), 4096).is_ok());
}
