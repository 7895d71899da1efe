//! Whatever is sent, a request is read or refused; nothing of it ends the server.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
use super::fields::Fields;
use super::messages::Messages;
use super::request::Ask;
use brooklet::chat::AnswerSettings;

const BODIES: [&str; 4] = [
    r#"{"model":"x","messages":[{"role":"system","content":"Be terse."},{"role":"user","content":[{"type":"text","text":"Hi"}]},{"role":"assistant","content":null,"tool_calls":[{"function":{"arguments":"{}"}}]},{"role":"tool","content":"5","tool_call_id":"a"}],"stream":true,"stream_options":{"include_usage":true}}"#,
    r#"{"messages":[{"role":"user","content":"\ud83d\ude00 \u0000"}],"temperature":1e38,"top_p":0.9,"top_k":-1,"seed":-9223372036854775808,"max_tokens":18446744073709551615,"stop":["a","b"],"n":2}"#,
    r#"{"prompt":[1,2,3],"echo":true,"logit_bias":{"5":-100},"logprobs":5,"response_format":{"type":"json_schema","json_schema":{"schema":{}}},"cache_prompt":false}"#,
    r#"{"tokens":[4294967295,0],"content":"x","add_special":true,"chat_template_kwargs":{"enable_thinking":false},"reasoning_effort":"none","repeat_last_n":-1}"#,
];
const MESSAGES: [&str; 4] = [
    r#"{"brooklet":"call","id":1,"of":0,"method":"load","args":{"key":"secret","streams":4}}"#,
    r#"{"brooklet":"call","id":2,"of":3,"method":"begin","args":{"prompt":"x","settings":{"seed":9007199254740991,"temperature":0.5,"topK":40,"stop":["a"],"maxTokens":5,"pace":"throughput","stopAtEos":true}}}"#,
    r#"{"brooklet":"call","id":3,"of":0,"method":"answer","args":{"id":1,"how":"edit","before":[{"role":"user","content":"Hi"},{"role":"assistant","content":"x","thoughts":"y"}],"text":"\ud83d\ude00","settings":{"seed":1},"options":{"system":"Be terse.","window":180},"think":false}}"#,
    r#"{"brooklet":"call","id":4,"of":0,"method":"reset","args":{"cache":{"policy":"window","sinks":0,"window":180,"chunk":64,"kv":"f16","activations":"f32"}}}"#,
];
const PIECES: [&str; 16] = [
    "null",
    "{}",
    "[",
    "]",
    "}",
    "\"",
    "1e999",
    "-1",
    "0.5",
    "true",
    "[[]]",
    "\"user\"",
    "\\u0000",
    ",",
    ":",
    "18446744073709551616",
];

/// The numbers of xorshift, from a seed.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// One of these with some of its bytes lost, changed, doubled, or with something else among them.
fn broken(draws: &mut Draws, of: &[&str]) -> Vec<u8> {
    let mut body = of[draws.below(of.len())].as_bytes().to_vec();
    for _ in 0..=draws.below(6) {
        let at = draws.below(body.len() + 1);
        let end = (at + draws.below(12)).min(body.len());
        match draws.below(5) {
            0 => drop(body.drain(at..end)),
            1 if at < body.len() => body[at] = draws.below(256) as u8,
            2 => {
                let again = body[at..end].to_vec();
                body.splice(at..at, again);
            }
            3 => drop(body.splice(at..end, PIECES[draws.below(PIECES.len())].bytes())),
            _ => body.truncate(at),
        }
    }
    body
}

/// How many of so many bodies were read whole.
fn read(bodies: u64) -> u64 {
    let mut draws = Draws(0x9e37_79b9_7f4a_7c15);
    let usual = AnswerSettings::default();
    let mut sound = 0;
    for _ in 0..bodies {
        let Ok(fields) = Fields::parse(&broken(&mut draws, &BODIES)) else { continue };
        let ids = fields.ids("tokens", 256).is_ok() && fields.ids("prompt", 256).is_ok();
        let asked = Ask::read(&fields, &usual, 4);
        if let Ok(messages) = Messages::read(&fields) {
            assert!(!messages.marks(&[1, 2]).is_empty());
            let _ = messages.expect_question();
        }
        sound += u64::from(ids && asked.is_ok());
    }
    sound
}

#[test]
fn broken_messages_of_a_socket_are_read_or_refused() {
    let mut draws = Draws(0x2545_f491_4f6c_dd1d);
    assert!(MESSAGES.iter().all(|message| super::socket::is_read(message.as_bytes())));
    let read = (0..20_000).filter(|_| super::socket::is_read(&broken(&mut draws, &MESSAGES)));
    assert!(read.count() > 100, "some are sound all the same");
}

#[test]
fn broken_requests_are_read_or_refused() {
    assert!(read(20_000) > 100, "some are sound all the same");
}

#[test]
#[ignore = "a million of them take some seconds"]
fn a_million_broken_requests_are_read_or_refused() {
    assert!(read(1_000_000) > 5_000);
}
