//! Conversations that somebody else keeps the messages of: opened with all of them, gone on with some, over streams that
//! were another conversation's before.
use super::chat::{CHATML, SYSTEM, answer, rest, script, tiny, tiny_file, tokenizer_of, turn};
use super::support::gpu;
use crate::chat::{Chat, Message, Script, Seen, Told, encoded};
use crate::model::{CacheSettings, KvType, Model, Policy};
use crate::session::Session;
use crate::text::{Conversation, Json};
use pollster::block_on;
use std::sync::Arc;

fn message(role: &str, content: &str) -> Json {
    Json::of(Message::new(role, content))
}

/// So many messages of a user, each with its answer, and one more.
fn messages(turns: usize) -> Vec<Json> {
    let turn = |at| [message("user", &format!("the rain {at}")), message("assistant", "in spain")];
    (0..turns).flat_map(turn).chain([message("user", "and now?")]).collect()
}

/// 40 sinks and a window of 56, for any system prompt.
fn for_any(model: &Arc<Model>, script: &Arc<Script>) -> Chat {
    let settings = CacheSettings {
        chunk: 8,
        kv: KvType::F32,
        ..CacheSettings::for_model(&model.config, Policy::Streaming)
    };
    let settings = Chat::cache_for_any(settings, Some(40), Some(56), 4096).unwrap();
    let session = block_on(Session::new(model.clone(), settings)).unwrap();
    Chat::over(session, script.clone())
}

/// What the template makes of a whole conversation.
fn rendered(script: &Script, messages: &[Json]) -> Vec<u32> {
    let system = script.system().map(|text| message("system", text));
    let all: Vec<Json> = system.into_iter().chain(messages.iter().cloned()).collect();
    let conversation = Conversation::of(Json::of(all)).marked(script.tokenizer());
    encoded(script.tokenizer(), &script.template().render(&conversation).unwrap()).unwrap()
}

#[test]
fn messages_are_told_as_the_template_renders_them() {
    let tokenizer = tokenizer_of(&tiny_file().1);
    let script = script(&tokenizer, CHATML, Some(SYSTEM));
    let all = messages(20);
    let whole = script.told(&all, 100_000).unwrap();
    assert_eq!((&whole.ids, whole.left_out), (&rendered(&script, &all), 0));
    // Where there is less room, whole turns are left out, and no more of them than has to be.
    for room in [0, 10, 30, 100, 200, 333] {
        let told = script.told(&all, room).unwrap();
        assert_eq!(told.ids, rendered(&script, &all[told.left_out..]), "room for {room}");
        assert_eq!(told.left_out % 2, 0);
        let fits = |told: &Told| told.ids.len() <= script.head().len() + room;
        assert!(fits(&told) || told.left_out == all.len() - 1, "room for {room}");
        if told.left_out > 0 {
            let more = rendered(&script, &all[told.left_out - 2..]).len();
            assert!(more > script.head().len() + room, "room for {room}: a turn more had fit");
        }
    }
    // Of one message that follows it is what a turn is.
    let text = "the rain <|im_end|>";
    let following = script.following(&[message("user", text)]).unwrap();
    assert_eq!(following.ids, script.next(text).unwrap());
    // Two that follow are two.
    let two = [message("user", "the rain"), message("user", "in spain")];
    assert!(script.following(&two).unwrap().ids.len() > script.next("the rain").unwrap().len() + 3);
}

#[test]
fn a_stream_keeps_what_another_conversation_begins_with_as_well() {
    let gpu = Arc::new(gpu());
    let (model, tokenizer) = tiny(&gpu);
    let script = Arc::new(script(&tokenizer, CHATML, Some(SYSTEM)));
    let open = |chat: &mut Chat, messages: &[Json], anew| {
        let told = script.told(messages, 70).unwrap();
        let settings = answer(12, 5);
        let fed = chat.open(script.clone(), &told, anew, &settings, || true);
        (block_on(fed).unwrap().unwrap() as usize, told.ids.len(), rest(chat))
    };
    let mut chat = for_any(&model, &script);
    let mut other = for_any(&model, &script);
    open(&mut chat, &[message("user", "the rain in spain")], false);
    let question = [message("user", "the rain in france")];
    let (fed, all, text) = open(&mut chat, &question, false);
    assert!(fed < all / 2, "{fed} of {all}");
    let (fed, all, anew) = open(&mut other, &question, true);
    assert_eq!((fed, &anew), (all, &text), "what was kept is what would have been fed");
    // The same again: one token has to be fed, for what comes behind it.
    let (fed, _, again) = open(&mut chat, &question, false);
    assert_eq!((fed, &again), (1, &anew));
    // A stream that has forgotten its beginning keeps nothing.
    for at in 0..20 {
        turn(&mut chat, "the rain", &answer(4, at));
    }
    let (fed, all, again) = open(&mut chat, &question, false);
    assert_eq!((fed, again), (all, anew));
    assert_eq!(chat.window().messages[0].message, 0);
}

#[test]
fn first_messages_that_fit_beside_the_system_prompt_stay() {
    let gpu = Arc::new(gpu());
    let (model, tokenizer) = tiny(&gpu);
    let script = Arc::new(script(&tokenizer, CHATML, Some(SYSTEM)));
    let mut chat = for_any(&model, &script);
    for at in 1..=30 {
        turn(&mut chat, "the rain", &answer(3, at));
        let window = chat.window();
        assert_eq!(window.gone + window.messages.len() as u64, 2 * at, "every message is told of");
        let numbers = window.messages.iter().map(|seen| seen.message);
        assert!(numbers.is_sorted_by(|a, b| a < b), "{window:?}");
        assert_eq!(window.messages.last().unwrap().message, 2 * at - 1);
        assert_eq!((window.messages[0].message, window.messages[0].seen), (0, Seen::Whole));
    }
    assert!(chat.window().gone > 40);
    // Messages that are left out when it is told come before those.
    let told = script.told(&messages(20), 70).unwrap();
    let settings = answer(3, 1);
    let fed = chat.open(script.clone(), &told, false, &settings, || true);
    assert!(block_on(fed).unwrap().is_some());
    rest(&mut chat);
    let window = chat.window();
    assert_eq!(window.gone, told.left_out as u64);
    assert_eq!(window.messages[0].message, told.left_out as u64);
    assert_eq!(window.messages.len(), 41 - told.left_out + 1);
}

#[test]
fn messages_that_nobody_waits_for_are_taken_back() {
    let gpu = Arc::new(gpu());
    let (model, tokenizer) = tiny(&gpu);
    let script = Arc::new(script(&tokenizer, CHATML, Some(SYSTEM)));
    let mut chat = for_any(&model, &script);
    turn(&mut chat, "the rain", &answer(3, 1));
    let before: Vec<u32> = chat.session().recent().collect();
    let told = script.following(&[message("user", "in spain in spain in spain")]).unwrap();
    let mut left = 2;
    let go_on = || {
        left -= 1;
        left > 0
    };
    let fed = block_on(chat.follow(script.clone(), &told, &answer(3, 2), go_on)).unwrap();
    assert_eq!(fed, None);
    let now: Vec<u32> = chat.session().recent().collect();
    assert!(before.starts_with(&now) && before.len() - now.len() <= 1, "an end token may be gone");
    let fed = block_on(chat.follow(script.clone(), &told, &answer(3, 2), || true)).unwrap();
    assert!(fed.is_some());
    assert!(!rest(&mut chat).is_empty());
}
