//! `brooklet serve` as its clients see it. On a tiny random model, which is told to speak ChatML.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
mod server;

use serde_json::{Value, json};
use server::{Server, TINY};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";

impl Server {
    fn start(args: &[&str]) -> Self {
        Self::started(&[&["--chat-template", "chatml"], args].concat())
    }

    /// Status, headers and body.
    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> (u16, String, Value) {
        let mut stream = self.connect();
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {}\r\n", self.address);
        }
        if !body.is_empty() {
            head +=
                &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        answer(stream)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.send("GET", path, &[], None);
        (status, body)
    }

    fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let (status, _, body) = self.send("POST", path, &[], Some(&body));
        (status, body)
    }

    /// The answer to messages, which has to come.
    fn chat(&self, body: Value) -> Value {
        let (status, answer) = self.post(CHAT, body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The data of a stream of events.
    fn streamed(&self, path: &str, body: &Value) -> Vec<String> {
        let (status, head, text) = self.send("POST", path, &[], Some(body));
        assert_eq!(status, 200, "{text}");
        assert!(head.contains("text/event-stream"), "{head}");
        let text = text.as_str().unwrap().to_owned();
        text.lines().filter_map(|line| line.strip_prefix("data: ").map(str::to_owned)).collect()
    }

    /// Begins to ask, and does not wait for the answer.
    fn begin(&self, body: &Value) -> TcpStream {
        let mut stream = self.connect();
        let body = body.to_string();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        stream
    }

    fn metric(&self, name: &str) -> f64 {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200);
        let text = body.as_str().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("brooklet:{name} ")));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    }

    /// Waits until a metric is so.
    #[track_caller]
    fn reaches(&self, name: &str, value: f64) {
        let start = Instant::now();
        while self.metric(name) != value {
            assert!(start.elapsed() < Duration::from_secs(30), "{name} is {}", self.metric(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Reads a response to its end: a body that is JSON as such, any other as text, chunks joined.
fn answer(stream: TcpStream) -> (u16, String, Value) {
    let mut bytes = Vec::new();
    let mut stream = stream;
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let head = head.to_ascii_lowercase();
    let body =
        if head.contains("transfer-encoding: chunked") { joined(body) } else { body.to_owned() };
    let value = serde_json::from_str(&body).unwrap_or(Value::String(body));
    (status, head, value)
}

fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = chunks.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        body += &rest[..length];
        chunks = rest[length..].strip_prefix("\r\n").unwrap_or_default();
    }
    body
}

/// Without the tiny model's end token, which it is as likely to choose as any other.
fn never_ending() -> Value {
    json!({ "256": -100 })
}

/// An answer that goes on until somebody ends it.
fn endless() -> Value {
    let messages = [user("Hi")];
    json!({ "messages": messages, "max_tokens": 1_000_000, "stream": true, "logit_bias": never_ending() })
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "content": text })
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_conversation_feeds_only_what_is_new_however_long_it_is() {
    // What a chunk needs beside the window is what can be taken back.
    let server =
        Server::start(&["--streams", "2", "--window", "180", "--sinks", "60", "--chunk", "128"]);
    let ask = |messages: &[Value], more: Value| {
        let mut body = json!({ "messages": messages, "max_tokens": 9, "temperature": 0 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.chat(body)
    };
    let mut messages =
        vec![json!({ "role": "developer", "content": "Be terse." }), user("the rain")];
    let first = ask(&messages, json!({}));
    assert_eq!(first["object"], "chat.completion");
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let usage = |answer: &Value, name: &str| number(&answer["usage"][name]);
    assert_eq!(
        usage(&first, "total_tokens"),
        usage(&first, "prompt_tokens") + usage(&first, "completion_tokens")
    );
    // The same again is made anew from what is there, and comes out the same.
    let again = ask(&messages, json!({}));
    assert_eq!(again["timings"]["prompt_n"], 0);
    assert_eq!(content(&again), content(&first));
    // So it does where nothing that is there may be used.
    let cold = ask(&messages, json!({ "cache_prompt": false }));
    assert_eq!(cold["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(content(&cold), content(&first));
    let mut position = 0;
    for turn in 0..20 {
        let answer = ask(&messages, json!({}));
        let (prompt, cached) =
            (usage(&answer, "prompt_tokens"), number(&answer["timings"]["cache_n"]));
        if turn > 0 {
            assert!(prompt - cached < 80, "turn {turn} feeds its own tokens alone: {answer}");
            assert!(cached >= position - 1, "{answer}");
        }
        position = number(&answer["brooklet"]["position"]);
        assert_eq!(prompt + usage(&answer, "completion_tokens"), position);
        messages.push(json!({ "role": "assistant", "content": content(&answer) }));
        messages.push(user(&format!("in spain, {turn}")));
    }
    let last = ask(&messages, json!({}));
    let brooklet = &last["brooklet"];
    assert!(
        number(&brooklet["evicted"]) > 100 && number(&brooklet["forgotten_messages"]) > 5,
        "{last}"
    );
    // Another last message takes the place of the last, though the beginning is long forgotten.
    *messages.last_mut().unwrap() = user("in france");
    let instead = ask(&messages, json!({}));
    assert!(number(&instead["timings"]["prompt_n"]) < 80, "{instead}");
    assert!(number(&instead["timings"]["cache_n"]) > 200, "{instead}");
    // Told anew, the longest tail that fits is told, and what does not fit is counted.
    let anew = ask(&messages, json!({ "cache_prompt": false }));
    let forgotten = number(&anew["brooklet"]["forgotten_messages"]);
    assert!(forgotten > 5 && forgotten.is_multiple_of(2) && forgotten < 40, "{anew}");
    assert!(usage(&anew, "prompt_tokens") < 240, "{anew}");
    let (_, slots) = server.get("/slots");
    assert_eq!(slots.as_array().unwrap().len(), 2);
    assert!(slots.as_array().unwrap().iter().all(|slot| slot["is_processing"] == false), "{slots}");
    assert!(server.metric("evicted_tokens_total") > 100.0);
    assert!(server.metric("forgotten_messages_total") > 5.0);
}

#[test]
fn answers_have_openais_shapes_and_errors_name_their_field() {
    let server =
        Server::start(&["--streams", "2", "--window", "180", "--sinks", "60", "--alias", "tiny"]);
    let body =
        json!({ "messages": [user("Hi")], "max_tokens": 8, "temperature": 0.0, "model": "any" });
    let with = |name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        body
    };
    let whole = server.chat(body.clone());
    assert_eq!(
        (&whole["model"], &whole["choices"][0]["finish_reason"]),
        (&json!("any"), &json!("length"))
    );
    // A stream says the same in pieces, and asks for no more than was asked for.
    let mut streaming = with("stream", true.into());
    let events = server.streamed(CHAT, &streaming);
    let chunk = |event: &String| serde_json::from_str::<Value>(event).unwrap();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1].iter().map(chunk).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, content(&whole));
    let last = chunks.last().unwrap();
    assert_eq!(
        (&last["choices"][0]["finish_reason"], &last["usage"]),
        (&json!("length"), &Value::Null)
    );
    assert_eq!(last["timings"]["predicted_n"], 8);
    streaming["stream_options"] = json!({ "include_usage": true });
    let events = server.streamed(CHAT, &streaming);
    let usage = chunk(&events[events.len() - 2]);
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(8)));
    // Several answers differ by their seeds, and the same seed gives the same again.
    let mut several = with("n", 2.into());
    (several["temperature"], several["seed"]) = (json!(1.5), json!(7));
    let [a, b] = [0, 1].map(|_| server.chat(several.clone())["choices"].clone());
    assert_eq!(a, b);
    assert_ne!(a[0]["message"], a[1]["message"]);
    // The messages are fed once: the second stream is a fork of the first.
    (several["temperature"], several["messages"][0]["content"]) =
        (json!(0), json!("something new"));
    let before = server.metric("prompt_tokens_total");
    let answer = server.chat(several.clone());
    assert_eq!(answer["choices"][0]["message"], answer["choices"][1]["message"]);
    let (prompt, details) =
        (&answer["usage"]["prompt_tokens"], &answer["usage"]["prompt_tokens_details"]);
    let fed = server.metric("prompt_tokens_total") - before;
    assert_eq!(fed, (prompt.as_u64().unwrap() - details["cached_tokens"].as_u64().unwrap()) as f64);
    let prompt = json!({ "prompt": "the rain", "max_tokens": 6, "temperature": 0, "echo": true });
    let (_, text) = server.post("/v1/completions", prompt.clone());
    assert_eq!(
        (&text["object"], &text["usage"]["completion_tokens"]),
        (&json!("text_completion"), &json!(6))
    );
    assert!(text["choices"][0]["text"].as_str().unwrap().starts_with("the rain"), "{text}");
    let mut streaming = prompt.clone();
    streaming["stream"] = true.into();
    let events = server.streamed("/v1/completions", &streaming);
    let pieces = events[..events.len() - 1].iter().map(chunk);
    let joined: String =
        pieces.map(|chunk| chunk["choices"][0]["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(json!(joined), text["choices"][0]["text"]);
    // Ids as a prompt are what a text says.
    let (_, ids) = server.post("/tokenize", json!({ "content": "the rain", "add_special": true }));
    let by_ids =
        json!({ "prompt": ids["tokens"], "max_tokens": 6, "temperature": 0, "echo": true });
    assert_eq!(server.post("/v1/completions", by_ids).1["choices"], text["choices"]);
    let (_, back) = server.post("/detokenize", ids);
    assert!(back["content"].as_str().unwrap().contains("the rain"), "{back}");
    let (_, rendered) = server.post("/apply-template", json!({ "messages": [user("Hi")] }));
    assert_eq!(rendered["prompt"], "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    for path in ["/v1/models/tiny", "/v1/models", "/props", "/health", "/v1/health", "/slots"] {
        assert_eq!(server.get(path).0, 200, "{path}");
    }
    assert_eq!(server.get("/v1/models").1["data"][0]["id"], "tiny");

    let many: Vec<Value> = (0..4097).map(|_| user("x")).collect();
    let refused = [
        ("tools", json!([{ "type": "function" }]), "tools"),
        ("tool_choice", json!("required"), "tool_choice"),
        ("response_format", json!({ "type": "xml" }), "response_format"),
        ("response_format", json!({ "type": "json_schema" }), "response_format"),
        (
            "response_format",
            json!({ "type": "json_schema", "json_schema": { "schema": { "type": 5 } } }),
            "response_format",
        ),
        ("grammar", json!("root ::= \"x\""), "grammar"),
        ("grammar", json!("start: ("), "grammar"),
        ("logprobs", json!("many"), "logprobs"),
        ("top_logprobs", json!(3), "top_logprobs"),
        ("logit_bias", json!({ "x": 1 }), "logit_bias"),
        ("logit_bias", json!({ "5": 101 }), "logit_bias"),
        ("logit_bias", json!({ "999999": 1 }), "logit_bias"),
        ("n", json!(3), "n"),
        ("n", json!(0), "n"),
        ("temperature", json!("hot"), "temperature"),
        ("temperature", json!(-1), "temperature"),
        ("top_p", json!(2), "top_p"),
        ("max_tokens", json!(0), "max_tokens"),
        ("max_completion_tokens", json!(1.5), "max_completion_tokens"),
        ("seed", json!("x"), "seed"),
        ("stop", json!([1]), "stop"),
        ("stream", json!("yes"), "stream"),
        ("reasoning_format", json!("x"), "reasoning_format"),
        ("reasoning_effort", json!("high"), "reasoning_effort"),
        ("chat_template_kwargs", json!({ "x": 1 }), "chat_template_kwargs"),
        ("messages", json!([]), "messages"),
        ("messages", json!("Hi"), "messages"),
        ("messages", json!(many), "messages"),
        ("messages", json!([3]), "messages[0]"),
        ("messages", json!([{ "role": "wizard", "content": "x" }]), "messages[0].role"),
        (
            "messages",
            json!([user("x"), { "role": "user", "content": [{ "type": "image_url" }] }]),
            "messages[1].content",
        ),
        ("messages", json!([user("x"), { "role": "assistant", "content": "y" }]), "messages"),
        (
            "messages",
            json!([{ "role": "system", "content": "word ".repeat(100) }, user("x")]),
            "messages",
        ),
    ];
    for (name, value, param) in refused {
        let (status, answer) = server.post(CHAT, with(name, value));
        let error = &answer["error"];
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{answer}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().contains(param), "{answer}");
    }
    // What says nothing is no reason to refuse.
    let mut harmless = body.clone();
    let more = json!({
        "tools": [], "tool_choice": "none", "logprobs": false, "logit_bias": {}, "user": "somebody", "stop": null,
        "response_format": { "type": "text" }, "parallel_tool_calls": true, "seed": -1, "top_k": -1, "store": false
    });
    harmless.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.chat(harmless);

    assert_eq!(server.get("/nowhere").0, 404);
    assert_eq!(server.get("/v1/models/other").0, 404);
    assert_eq!(server.get(CHAT).0, 405);
    let (status, error) = server.post("/v1/completions", json!({ "prompt": [999999999] }));
    assert_eq!((status, &error["error"]["param"]), (400, &json!("prompt")));
    let raw = |text: &[u8]| {
        let mut stream = server.connect();
        // It may have had enough before all was said.
        let _ = stream.write_all(text);
        let mut head = [0; 12];
        let read = stream.read(&mut head).unwrap_or(0);
        String::from_utf8_lossy(&head[..read]).into_owned()
    };
    let post = |kind: &str, body: &str, length: usize| {
        let at = &server.address;
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: {at}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        raw((head + body).as_bytes())
    };
    assert_eq!(post("text/plain", "{}", 2), "HTTP/1.1 415");
    assert_eq!(post("application/json", "{", 1), "HTTP/1.1 400");
    assert_eq!(post("application/json", "[]", 2), "HTTP/1.1 400");
    assert_eq!(post("application/json", "\u{0}", 1), "HTTP/1.1 400");
    let deep = "[".repeat(100_000);
    assert_eq!(post("application/json", &deep, deep.len()), "HTTP/1.1 400");
    assert_eq!(post("application/json", "{}", (4 << 20) + 1), "HTTP/1.1 413");
    let long = format!(
        "GET /health HTTP/1.1\r\nhost: {}\r\nx: {}\r\n\r\n",
        server.address,
        "x".repeat(20 << 10)
    );
    assert_eq!(raw(long.as_bytes()), "HTTP/1.1 431");
    for garbage in [
        &b"\x16\x03\x01\x00\xff\xff\xff"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\nx y z\r\n\r\n",
    ] {
        let answer = raw(garbage);
        assert!(answer.is_empty() || answer == "HTTP/1.1 400", "{answer}");
    }
    server.chat(body);
    assert_eq!(server.metric("requests_failed_total"), 0.0);
}

#[test]
fn whoever_leaves_frees_the_stream_and_whoever_is_too_many_comes_again() {
    let server =
        Server::start(&["--streams", "1", "--queue", "1", "--window", "180", "--sinks", "60"]);
    let endless = endless();
    let mut whole = endless.clone();
    whole["stream"] = false.into();
    for (asked, body) in [&endless, &whole].into_iter().enumerate() {
        // One is answered, one waits, and there is no room for a third.
        let answered = server.begin(body);
        server.reaches("requests_processing", 1.0);
        let waits = server.begin(body);
        server.reaches("requests_deferred", 1.0);
        let (status, head, error) = server.send("POST", CHAT, &[], Some(body));
        assert_eq!((status, &error["error"]["code"]), (429, &json!("queue_full")), "{error}");
        assert!(head.contains("retry-after: "), "{head}");
        drop(waits);
        server.reaches("requests_deferred", 0.0);
        drop(answered);
        server.reaches("requests_processing", 0.0);
        server.reaches("requests_cancelled_total", 2.0 * (asked + 1) as f64);
    }
    // While a prompt is read, too.
    let mut long = whole.clone();
    long["messages"] = json!([user(&"the rain ".repeat(20_000))]);
    let reading = server.begin(&long);
    server.reaches("requests_processing", 1.0);
    drop(reading);
    server.reaches("requests_processing", 0.0);
    server.chat(json!({ "messages": [user("Hi")], "max_tokens": 3 }));
    let (_, slots) = server.get("/slots");
    assert_eq!(slots[0]["is_processing"], false);
}

#[test]
fn two_streams_advance_together() {
    let server = Server::start(&["--streams", "2", "--window", "180", "--sinks", "60"]);
    let endless = endless();
    let stream = server.begin(&endless);
    server.reaches("requests_processing", 1.0);
    // One that never ends does not keep another from its answer.
    let answer = server.chat(json!({
        "messages": [user("the rain")], "max_tokens": 20, "logit_bias": never_ending()
    }));
    assert_eq!(answer["usage"]["completion_tokens"], 20);
    assert!(server.metric("n_busy_slots_per_decode") > 1.0);
    drop(stream);
    server.reaches("requests_processing", 0.0);
}

#[test]
fn only_those_who_may_are_answered() {
    let asks = |server: &Server, headers: &[(&str, &str)], path: &str| {
        let (status, head, _) = server.send("GET", path, headers, None);
        (status, head)
    };
    let server = Server::start(&["--streams", "1", "--cors-origin", "https://chat.example.org"]);
    let status = |headers: &[(&str, &str)]| asks(&server, headers, "/v1/models").0;
    assert_eq!(status(&[]), 200);
    assert_eq!(status(&[("host", "localhost")]), 200);
    assert_eq!(status(&[("host", "[::1]:80")]), 200);
    for host in ["example.org", "127.0.0.1.example.org", "", "localhost.example.org:80"] {
        assert_eq!(status(&[("host", host)]), 403, "{host}");
    }
    for (origin, may) in [
        ("http://localhost:3000", true),
        ("https://chat.example.org", true),
        ("https://example.org", false),
        ("null", false),
    ] {
        let (status, head) = asks(&server, &[("origin", origin)], "/v1/models");
        assert_eq!(status == 200, may, "{origin}");
        let allowed = head.contains(&format!("access-control-allow-origin: {origin}"));
        assert_eq!(allowed, may, "{origin}: {head}");
    }
    let preflight = [
        ("origin", "http://localhost:3000"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let (code, head, _) = server.send("OPTIONS", CHAT, &preflight, None);
    assert!(code == 200 && head.contains("authorization"), "{head}");
    drop(server);

    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "second\n\nthird\n").unwrap();
    let file = keys.path().display().to_string();
    // Nor does it have a template.
    let server =
        Server::started(&["--streams", "1", "--api-key", "first", "--api-key-file", &file]);
    let status = |headers: &[(&str, &str)]| asks(&server, headers, "/v1/models").0;
    assert_eq!(asks(&server, &[], "/health").0, 200);
    for key in ["Bearer first", "bearer second", "Bearer third"] {
        assert_eq!(status(&[("authorization", key)]), 200, "{key}");
    }
    assert_eq!(status(&[("x-api-key", "first")]), 200);
    // With a key, a name is no matter.
    assert_eq!(status(&[("x-api-key", "first"), ("host", "example.org")]), 200);
    for key in ["Bearer", "Bearer ", "Bearer fourth", "Basic first", "Bearer firs"] {
        assert_eq!(status(&[("authorization", key)]), 401, "{key}");
    }
    assert_eq!(status(&[]), 401);
    let post = |path: &str, body: Value| {
        let (status, _, answer) = server.send("POST", path, &[("x-api-key", "third")], Some(&body));
        (status, answer)
    };
    let (status, error) = post(CHAT, json!({ "messages": [user("Hi")] }));
    assert_eq!((status, &error["error"]["type"]), (501, &json!("not_supported_error")), "{error}");
    let (status, answer) =
        post("/v1/completions", json!({ "prompt": "the rain", "max_tokens": 3 }));
    assert_eq!(status, 200, "{answer}");
    let refused = |args: &[&str], why: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_brooklet"));
        let output = command.args(["serve", "-m", TINY]).args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    };
    refused(&["--host", "0.0.0.0"], "--api-key");
    refused(&["--api-key", ""], "--api-key");
    refused(&["--port", "0", "--sinks", "3000"], "--sinks 3000");
    refused(&["--port", "0", "--sinks", "auto"], "--sinks auto");
}

#[test]
fn answers_are_held_to_grammars_and_tokens_are_weighed() {
    let server = Server::start(&["--streams", "2", "--window", "180", "--sinks", "60"]);
    // Another streams beside them, and is not held to anything.
    let free = endless();
    let free = server.begin(&free);
    server.reaches("requests_processing", 1.0);
    let body = |more: Value| {
        let mut body =
            json!({ "messages": [user("the rain")], "max_tokens": 90, "temperature": 1.5 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let schema = json!({
        "type": "object",
        "properties": { "where": { "enum": ["spain", "france"] }, "wet": { "type": "boolean" } },
        "required": ["where", "wet"],
        "additionalProperties": false
    });
    let format =
        json!({ "type": "json_schema", "json_schema": { "name": "rain", "schema": schema } });
    for (seed, field) in [("response_format", &format), ("json_schema", &schema)].iter().enumerate()
    {
        let mut body = body(json!({ "seed": seed }));
        body[field.0] = field.1.clone();
        let answer = server.chat(body);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
        let said: Value = serde_json::from_str(content(&answer)).unwrap();
        assert!(said["where"] == "spain" || said["where"] == "france", "{said}");
        assert!(said["wet"].is_boolean() && said.as_object().unwrap().len() == 2, "{said}");
    }
    let object = server.chat(body(json!({ "response_format": { "type": "json_object" } })));
    assert!(content(&object).trim_start().starts_with('{'), "{object}");
    let chosen = server.chat(body(json!({ "grammar": "start: \"yes\" | \"no\"" })));
    assert!(["yes", "no"].contains(&content(&chosen)), "{chosen}");
    drop(free);
    // What is made likely enough is all that comes.
    let (_, ids) = server.post("/tokenize", json!({ "content": "x" }));
    let id = number(ids["tokens"].as_array().unwrap().last().unwrap());
    let mut biased = body(json!({ "max_tokens": 5, "logprobs": true, "top_logprobs": 3 }));
    biased["logit_bias"] = json!({ (id.to_string()): 100 });
    let answer = server.chat(biased);
    assert_eq!(content(&answer), "xxxxx");
    // How likely it was is told as it was before.
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(tokens.len(), 5);
    for token in tokens {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &token["token"], &token["bytes"]), (3, &json!("x"), &json!([120])));
        let logprob = |token: &Value| token["logprob"].as_f64().unwrap();
        assert!(logprob(token) < 0.0 && logprob(&top[0]) >= logprob(&top[1]), "{token}");
    }
    let mut greedy =
        body(json!({ "max_tokens": 4, "temperature": 0, "logprobs": true, "top_logprobs": 1 }));
    let answer = server.chat(greedy.clone());
    for token in answer["choices"][0]["logprobs"]["content"].as_array().unwrap() {
        assert_eq!(token["token"], token["top_logprobs"][0]["token"]);
    }
    greedy["stream"] = true.into();
    let events = server.streamed(CHAT, &greedy);
    let chunks = events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
    let streamed: Vec<Value> = chunks
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(json!(streamed), answer["choices"][0]["logprobs"]["content"]);
    let text = json!({
        "prompt": "the rain", "max_tokens": 3, "logprobs": 2, "logit_bias": never_ending()
    });
    let (_, text) = server.post("/v1/completions", text);
    let logprobs = &text["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 3, "{text}");
    assert!(logprobs["token_logprobs"][0].as_f64().unwrap() <= 0.0, "{text}");
}

#[test]
fn thoughts_are_told_apart_from_answers() {
    let template = tempfile::NamedTempFile::new().unwrap();
    let text = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                {% if add_generation_prompt %}<|im_start|>assistant\n\
                {% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}\
                {% endif %}{# </think> #}";
    std::fs::write(template.path(), text).unwrap();
    let file = template.path().display().to_string();
    let server = Server::started(&["--streams", "1", "--chat-template", &file]);
    let body = |more: Value| {
        let mut body = json!({ "messages": [user("Hi")], "max_tokens": 9, "temperature": 0 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let thinks = server.chat(body(json!({})))["choices"][0]["message"].clone();
    let thoughts = thinks["reasoning_content"].as_str().unwrap();
    assert!(!thoughts.is_empty() && thinks["content"] == "", "{thinks}");
    let text = server.chat(body(json!({ "reasoning_format": "none" })));
    assert_eq!(content(&text), format!("<think>\n{thoughts}\n</think>"));
    let streaming = body(json!({ "stream": true }));
    let events = server.streamed(CHAT, &streaming);
    let piece = |event: &String| -> Option<String> {
        let chunk: Value = serde_json::from_str(event).ok()?;
        Some(chunk["choices"][0]["delta"]["reasoning_content"].as_str()?.to_owned())
    };
    assert_eq!(events.iter().filter_map(piece).collect::<String>(), thoughts);
    for off in [
        json!({ "chat_template_kwargs": { "enable_thinking": false } }),
        json!({ "reasoning_effort": "none" }),
    ] {
        let plain = server.chat(body(off))["choices"][0]["message"].clone();
        assert!(plain.get("reasoning_content").is_none() && plain["content"] != "", "{plain}");
    }
}

#[cfg(unix)]
#[test]
fn it_ends_when_it_is_told_and_answers_end_before() {
    use std::io::{BufRead, BufReader};
    let terminate = |server: &Server| {
        let id = server.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    };
    let mut server =
        Server::start(&["--streams", "1", "--grace", "1", "--window", "180", "--sinks", "60"]);
    let endless = endless();
    let mut stream = BufReader::new(server.begin(&endless));
    server.reaches("requests_processing", 1.0);
    terminate(&server);
    // What is under way goes on for a while; what is new is sent elsewhere.
    let start = Instant::now();
    let (status, head) = loop {
        let (status, head, _) = server.send("GET", "/health", &[], None);
        if status != 200 || start.elapsed() > Duration::from_secs(20) {
            break (status, head);
        }
    };
    assert!(status == 503 && head.contains("retry-after"), "{status}: {head}");
    assert_eq!(server.post(CHAT, endless).0, 503);
    let mut lines = String::new();
    loop {
        let read = stream.read_line(&mut lines).unwrap();
        if read == 0 || lines.contains("[DONE]") {
            break;
        }
    }
    assert!(
        lines.contains("\"finish_reason\":\"stop\"") && lines.contains("data: [DONE]"),
        "{lines}"
    );
    assert!(server.process.wait().unwrap().success());
    // With nothing to do it ends at once.
    let mut server = Server::start(&["--streams", "1"]);
    terminate(&server);
    assert!(server.process.wait().unwrap().success());
}
