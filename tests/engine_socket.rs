//! The socket that `Engine.connect` of the package speaks over, held to a live server with the tiny random model.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
mod server;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use server::{Server, TINY};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

impl Server {
    fn start(args: &[&str]) -> Self {
        let usual = ["--chat-template", "chatml", "--window", "180", "--sinks", "60"];
        Self::started(&[&usual, args].concat())
    }

    async fn socket(&self, headers: &[(&'static str, &str)]) -> Result<Socket, Box<Error>> {
        let mut request = format!("ws://{}/v1/engine", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let (socket, _) = connect_async(request).await.map_err(Box::new)?;
        Ok(Socket { socket, last: 0 })
    }

    /// A socket with an engine, and what is told of it.
    async fn engine(&self) -> (Socket, Value) {
        let mut socket = self.socket(&[]).await.unwrap();
        let info = socket.call(0, "load", json!({})).await.unwrap();
        (socket, info)
    }

    /// Status and body of a request.
    async fn http(&self, request: String) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let host = &self.address;
        self.http(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let (host, body) = (&self.address, body.to_string());
        let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        let length = body.len();
        let head = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n");
        self.http(format!("{head}\r\n{body}")).await
    }

    /// Waits until so many streams are held by sockets.
    async fn holds(&self, streams: u64) {
        let start = Instant::now();
        let line = format!("brooklet:streams_held {streams}\n");
        while !self.get("/metrics").await.1.contains(&line) {
            assert!(start.elapsed() < Duration::from_secs(20), "{streams} streams are not held");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Socket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last: u64,
}

impl Socket {
    async fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.unwrap();
    }

    /// The next message that is no ping; none where the socket has closed.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(60), self.socket.next());
            match next.await.expect("something comes")? {
                Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn begin(&mut self, of: u64, method: &str, args: Value) -> u64 {
        self.last += 1;
        let call = json!({ "brooklet": "call", "id": self.last, "of": of, "method": method, "args": args });
        self.send(call.to_string()).await;
        self.last
    }

    /// What comes of a call, or the code and sentence of its error.
    async fn call(
        &mut self,
        of: u64,
        method: &str,
        args: Value,
    ) -> Result<Value, (String, String)> {
        let id = self.begin(of, method, args).await;
        loop {
            let told = self.next().await.expect("the socket is open");
            if told["id"] != id || told["brooklet"] == "event" {
                continue;
            }
            let text = |name: &str| told["error"][name].as_str().unwrap_or_default().to_owned();
            return match told["brooklet"] == "result" {
                true => Ok(told["result"].clone()),
                false => Err((text("code"), text("message"))),
            };
        }
    }

    /// So many greedy tokens behind a prompt.
    async fn tokens(&mut self, of: u64, prompt: &str, count: usize) -> Vec<u64> {
        let settings = json!({ "temperature": 0, "seed": 1, "maxTokens": count });
        let begun = self.call(of, "begin", json!({ "prompt": prompt, "settings": settings })).await;
        begun.unwrap();
        let mut tokens = Vec::new();
        loop {
            let next = self.call(of, "next", json!({})).await.unwrap();
            let pieces = next["pieces"].as_array().unwrap();
            tokens.extend(pieces.iter().filter_map(|piece| piece["token"].as_u64()));
            if !next["ended"].is_null() {
                assert_eq!(next["ended"], "length");
                return tokens;
            }
        }
    }
}

/// The tokens that `brooklet run` writes.
fn native(prompt: &str, count: usize) -> Vec<u64> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brooklet"));
    command.args(["run", "-m", TINY, "--tune", "off", "--temp", "0", "--json", "--quiet"]);
    command.args(["--window", "180", "--sinks", "60", "-p", prompt, "-n", &count.to_string()]);
    let output = command.output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line["token"].as_u64()).collect()
}

#[tokio::test]
async fn a_stream_over_the_socket_is_the_one_of_the_command_line() {
    let server = Server::start(&["--streams", "3"]);
    let (mut socket, info) = server.engine().await;
    assert_eq!((&info["cache"]["window"], &info["cache"]["sinks"]), (&json!(180), &json!(60)));
    assert_eq!(info["server"]["streams"], 3);
    assert!(info["chat"]["template"] == true && info["bytes"]["weights"].as_u64().unwrap() > 0);
    // Longer than the window: the ring has turned.
    let expected = native("the rain", 300);
    assert_eq!(expected.len(), 300);
    assert_eq!(socket.tokens(0, "the rain", 300).await, expected);
    // A fork goes on from where it was made, and the first is where it was.
    socket.call(0, "reset", json!({})).await.unwrap();
    socket.call(0, "feed", json!({ "text": "the rain" })).await.unwrap();
    let fork = socket.call(0, "fork", json!({})).await.unwrap()["number"].as_u64().unwrap();
    assert_eq!(socket.tokens(fork, "", 20).await, expected[..20]);
    assert_eq!(socket.tokens(0, "", 20).await, expected[..20]);
    // What was given out and not taken has never been there.
    socket
        .call(0, "reset", json!({ "cache": { "policy": "streaming", "window": 180 } }))
        .await
        .unwrap();
    let settings = json!({ "temperature": 0, "seed": 1 });
    let begin = json!({ "prompt": "the rain", "settings": settings });
    let position = socket.call(0, "begin", begin).await.unwrap()["promptTokens"].as_u64().unwrap();
    let pieces =
        socket.call(0, "next", json!({})).await.unwrap()["pieces"].as_array().unwrap().len();
    let stopped = socket.call(0, "stop", json!({ "unseen": pieces })).await.unwrap();
    assert_eq!(stopped["position"], position);
    assert_eq!(socket.tokens(0, "", 5).await, expected[..5]);
    // Another cache than the server's is refused, with what it has.
    let (code, why) =
        socket.call(0, "reset", json!({ "cache": { "window": 99 } })).await.unwrap_err();
    assert!(code == "bad-option" && why.contains("180") && why.contains("--window"), "{why}");
    let window = socket.call(0, "setPolicy", json!({ "policy": "window" })).await.unwrap();
    assert_eq!(window["cache"]["policy"], "window");
}

#[tokio::test]
async fn a_conversation_over_the_socket_is_the_one_of_the_routes() {
    let server = Server::start(&["--streams", "2"]);
    let (mut socket, _) = server.engine().await;
    let settings = json!({ "temperature": 0, "seed": 1, "maxTokens": 8 });
    let ask = |how: &str, before: Value, text: &str| json!({ "id": 5, "how": how, "before": before, "text": text, "settings": settings, "options": { "system": "Be terse." } });
    // Without what was said before it is not known what it is about.
    let untold = socket.call(0, "answer", ask("send", Value::Null, "Hi")).await.unwrap();
    assert_eq!(untold["untold"], true);
    let heard = async |socket: &mut Socket| {
        let mut text = String::new();
        loop {
            let heard = socket.call(0, "hear", json!({ "id": 5 })).await.unwrap();
            let pieces = heard["pieces"].as_array().unwrap().iter();
            pieces.for_each(|piece| text += piece["text"].as_str().unwrap());
            if !heard["ended"].is_null() {
                return (text, heard);
            }
        }
    };
    let begun = socket.call(0, "answer", ask("send", json!([]), "the rain")).await.unwrap();
    assert_eq!((&begun["begun"], &begun["retold"]), (&json!(true), &json!(false)));
    let (first, last) = heard(&mut socket).await;
    let system = json!({ "role": "system", "content": "Be terse." });
    let user = |text: &str| json!({ "role": "user", "content": text });
    let chat = |messages: Value| json!({ "messages": messages, "temperature": 0, "max_tokens": 8, "cache_prompt": false });
    let content = |(status, text): (u16, String)| {
        assert_eq!(status, 200, "{text}");
        let body: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        body["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    let asked = server.post("/v1/chat/completions", &chat(json!([system, user("the rain")]))).await;
    assert_eq!(first.trim(), content(asked).trim());
    assert_eq!(last["window"]["messages"].as_array().unwrap().len(), 2);
    // The same answer anew, from what is there.
    let again = socket.call(0, "answer", ask("regenerate", json!([]), "the rain")).await.unwrap();
    assert_eq!((&again["begun"], &again["fed"]), (&json!(true), &json!(0)));
    assert_eq!(heard(&mut socket).await.0, first);
    // Another turn feeds itself alone.
    let begun = socket.call(0, "answer", ask("send", Value::Null, "in spain")).await.unwrap();
    assert!(begun["fed"].as_u64().unwrap() < 60, "{begun}");
    heard(&mut socket).await;
    // A turn in the place of the last.
    let said = json!([user("the rain"), { "role": "assistant", "content": first }]);
    let edited = socket.call(0, "answer", ask("edit", said.clone(), "in france")).await.unwrap();
    assert_eq!(edited["begun"], true);
    let (edited, _) = heard(&mut socket).await;
    assert!(!edited.is_empty());
    assert!(socket.call(0, "window", json!({ "id": 5 })).await.unwrap().is_object());
    assert!(socket.call(0, "window", json!({ "id": 6 })).await.unwrap().is_null());
    // A stream takes the cache; then the conversation is told anew.
    socket.tokens(0, "the rain", 3).await;
    let retold = socket.call(0, "answer", ask("send", said, "in france")).await.unwrap();
    assert_eq!((&retold["begun"], &retold["retold"]), (&json!(true), &json!(true)));
    let hushed = socket.call(0, "hush", json!({ "id": 5 })).await.unwrap();
    assert_eq!(hushed["ended"], "stopped");
    // A system prompt that has no place is refused, with both numbers.
    let mut long = ask("send", json!([]), "Hi");
    long["id"] = json!(7);
    long["options"]["system"] = json!("much ".repeat(300));
    let (_, why) = socket.call(0, "answer", long).await.unwrap_err();
    assert!(why.contains("60"), "{why}");
}

#[tokio::test]
async fn outputs_over_the_socket_are_held_to_rules() {
    let server = Server::start(&["--streams", "2"]);
    let (mut socket, _) = server.engine().await;
    let rules = |kind: &str, source: &str| json!({ "seed": 3, "temperature": 0, "held": { "kind": kind, "source": source } });
    let begin = |settings: Value| json!({ "prompt": "the rain", "settings": settings });
    socket.call(0, "begin", begin(rules("regex", "[xyz]{7}"))).await.unwrap();
    let (mut text, mut ended) = (String::new(), Value::Null);
    while ended.is_null() {
        let told = socket.call(0, "next", json!({})).await.unwrap();
        for piece in told["pieces"].as_array().unwrap() {
            text.push_str(piece["text"].as_str().unwrap());
        }
        ended = told["ended"].clone();
    }
    assert!(text.len() == 7 && text.chars().all(|c| "xyz".contains(c)), "{text}");
    assert_eq!(ended, "end of text");
    let answer = json!({
        "id": 1, "how": "send", "before": [], "text": "Hi",
        "settings": rules("schema", r#"{"enum": ["yes", "no"]}"#),
    });
    let begun = socket.call(0, "answer", answer).await.unwrap();
    assert_eq!(begun["begun"], true);
    let (mut text, mut ended) = (String::new(), Value::Null);
    while ended.is_null() {
        let told = socket.call(0, "hear", json!({ "id": 1 })).await.unwrap();
        for piece in told["pieces"].as_array().unwrap() {
            text.push_str(piece["text"].as_str().unwrap());
        }
        ended = told["ended"].clone();
    }
    assert!([r#""yes""#, r#""no""#].contains(&&*text), "{text}");
}

#[tokio::test]
async fn a_socket_that_closes_frees_its_streams_at_once() {
    let server = Server::start(&["--streams", "2"]);
    let (mut socket, _) = server.engine().await;
    socket.call(0, "fork", json!({})).await.unwrap();
    server.holds(2).await;
    // Nobody else has one: not a fork, not another socket, not a request; each is told so.
    let (code, why) = socket.call(0, "fork", json!({})).await.unwrap_err();
    assert!(code == "bad-option" && why.contains("2 streams"), "{why}");
    let mut other = server.socket(&[]).await.unwrap();
    assert!(other.call(0, "load", json!({})).await.unwrap_err().1.contains("none is free"));
    let ask = json!({ "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 2 });
    let (status, text) = server.post("/v1/chat/completions", &ask).await;
    assert!(status == 503 && text.contains("retry-after") && text.contains("held"), "{text}");
    // In the middle of its work it is gone, without a word.
    let settings = json!({ "temperature": 0, "seed": 1 });
    socket.call(0, "begin", json!({ "prompt": "the rain", "settings": settings })).await.unwrap();
    for _ in 0..8 {
        socket.begin(0, "next", json!({})).await;
    }
    drop(socket);
    server.holds(0).await;
    assert!(server.get("/metrics").await.1.contains("brooklet:requests_processing 0\n"));
    assert_eq!(server.post("/v1/chat/completions", &ask).await.0, 200);
    let (mut socket, _) = server.engine().await;
    assert_eq!(socket.tokens(0, "the rain", 9).await, native("the rain", 9));
    // A fork that leaves is free, and what waits for it is told.
    let fork = socket.call(0, "fork", json!({})).await.unwrap()["number"].as_u64().unwrap();
    socket.begin(fork, "leave", json!({})).await;
    assert!(
        socket
            .call(fork, "tokenize", json!({ "text": "x" }))
            .await
            .unwrap_err()
            .1
            .contains("unloaded")
    );
    server.holds(1).await;
    // An abort is heard while a long text is fed.
    let id = socket.begin(0, "feed", json!({ "text": "the rain in spain ".repeat(4000) })).await;
    socket.send(json!({ "brooklet": "abort", "id": id }).to_string()).await;
    let told = socket.next().await.unwrap();
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!(id), &json!("aborted")));
    socket.begin(0, "unload", json!({})).await;
    assert_eq!(socket.next().await.unwrap()["brooklet"], "result");
    assert!(socket.next().await.is_none(), "it is closed");
    server.holds(0).await;
}

#[tokio::test]
async fn keys_and_origins_are_asked_for() {
    let server = Server::start(&["--streams", "1", "--api-key", "secret"]);
    // The page is anybody's; what it is about is not.
    let (status, page) = server.get("/").await;
    assert!(
        status == 200 && page.contains("<html data-server") && page.contains("no-cache"),
        "{page}"
    );
    assert!(page.contains("frame-ancestors 'none'"));
    for (path, kind) in [
        ("/main.js", "text/javascript"),
        ("/brooklet/index.js", "text/javascript"),
        ("/style.css", "text/css"),
    ] {
        let (status, text) = server.get(path).await;
        assert!(status == 200 && text.contains(kind), "{path}");
    }
    assert_eq!(server.get("/props").await.0, 401);
    for key in [json!({}), json!({ "key": "other" }), json!({ "key": 5 })] {
        let mut socket = server.socket(&[]).await.unwrap();
        let (code, why) = socket.call(0, "load", key).await.unwrap_err();
        assert!(code == "bad-option" && why.contains("key"), "{why}");
        assert!(socket.next().await.is_none(), "it is closed");
    }
    let mut socket = server.socket(&[]).await.unwrap();
    socket.begin(0, "tokenize", json!({ "text": "x" })).await;
    assert!(socket.next().await.is_none(), "nothing comes before the key");
    let mut socket = server.socket(&[]).await.unwrap();
    socket.call(0, "load", json!({ "key": "secret" })).await.unwrap();
    drop(socket);
    let mut socket = server.socket(&[("authorization", "Bearer secret")]).await.unwrap();
    socket.call(0, "load", json!({})).await.unwrap();
    // Pages of others may not, with a key or without.
    for origin in ["https://example.org", "null", "http://localhost.example.org"] {
        let refused = server.socket(&[("origin", origin)]).await.err().unwrap();
        assert!(matches!(*refused, Error::Http(response) if response.status() == 403), "{origin}");
    }
    let own = format!("http://{}", server.address);
    assert!(server.socket(&[("origin", &own)]).await.is_ok());
    let open = Server::start(&["--streams", "1"]);
    let refused = open.socket(&[("host", "example.org")]).await.err().unwrap();
    assert!(matches!(*refused, Error::Http(response) if response.status() == 403));
}

#[tokio::test]
async fn whatever_is_sent_the_server_goes_on() {
    let server = Server::start(&["--streams", "2"]);
    let (mut socket, _) = server.engine().await;
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "null",
        "[]",
        "{}",
        "nonsense",
        &deep,
        r#"{"brooklet":"call"}"#,
        r#"{"brooklet":"call","id":-1}"#,
        r#"{"brooklet":"call","id":1e99,"method":"next"}"#,
        r#"{"brooklet":5,"id":1}"#,
        r#"{"brooklet":"dance","id":1}"#,
    ] {
        socket.send(text).await;
        let told = socket.next().await.unwrap();
        assert_eq!(
            (&told["brooklet"], &told["error"]["code"]),
            (&json!("error"), &json!("bad-option")),
            "{text:.40}"
        );
    }
    let settings = json!({ "seed": 1 });
    let with =
        |name: &str, value: Value| json!({ "prompt": "x", "settings": { "seed": 1, name: value } });
    for (of, method, args) in [
        (0, "", json!({})),
        (0, "load", json!({})),
        (0, "destroy", json!({})),
        (9, "next", json!({})),
        (u64::MAX, "leave", json!({})),
        (0, "next", json!({})),
        (0, "hear", json!({ "id": 3 })),
        (0, "hear", json!([])),
        (0, "feed", json!({ "text": 5 })),
        (0, "feed", Value::Null),
        (0, "begin", json!({ "prompt": "", "settings": settings })),
        (0, "begin", json!({ "prompt": "x" })),
        (0, "begin", with("seed", json!(-1))),
        (0, "begin", with("temperature", json!(-5))),
        (0, "begin", with("topP", json!(1e300))),
        (0, "begin", with("minP", json!("x"))),
        (0, "begin", with("nonsense", json!(1))),
        (0, "stop", json!({ "unseen": -1 })),
        (0, "setPolicy", json!({ "policy": "dense" })),
        (0, "setPolicy", json!({ "policy": 7 })),
        (0, "reset", json!({ "cache": { "policy": "dense" } })),
        (0, "reset", json!({ "cache": { "kv": "q4_0" } })),
        (0, "reset", json!({ "cache": { "sinks": 1e9 } })),
        (
            0,
            "answer",
            json!({ "id": 1, "how": "sing", "before": [], "text": "x", "settings": settings }),
        ),
        (
            0,
            "answer",
            json!({ "id": 1, "how": "edit", "before": [{}], "text": "x", "settings": settings }),
        ),
        (
            0,
            "answer",
            json!({ "id": 1, "how": "send", "before": [], "text": "x", "settings": settings, "template": "{{ x" }),
        ),
        (
            0,
            "answer",
            json!({ "id": 1, "how": "send", "before": [], "text": "x", "settings": settings, "options": { "window": 5 } }),
        ),
    ] {
        let told = socket.call(of, method, args.clone()).await;
        let (code, why) = told.expect_err(&format!("{method} {args}"));
        assert!(code == "bad-option" && why.len() > 10, "{method} {args}: {code} {why}");
    }
    for (kind, source, says) in [
        ("regex", "(", "regex: "),
        ("schema", r#"{"type": "strange"}"#, "schema: "),
        ("grammar", "begin: x", "grammar: "),
        ("rhyme", "x", "rhyme"),
    ] {
        let held = with("held", json!({ "kind": kind, "source": source }));
        let (code, why) = socket.call(0, "begin", held).await.unwrap_err();
        assert!(code == "bad-option" && why.contains(says), "{why}");
    }
    // More pieces than were given out.
    socket.call(0, "begin", json!({ "prompt": "x", "settings": settings })).await.unwrap();
    assert!(socket.call(0, "stop", json!({ "unseen": 5 })).await.is_err());
    // Roles of any order, and texts of any kind, are read or refused.
    for before in [
        json!([{ "role": "assistant", "content": "x" }]),
        json!([{ "role": "\u{0}", "content": "<|im_end|>" }]),
    ] {
        let args = json!({ "id": 2, "how": "send", "before": before, "text": "\u{0}", "settings": settings });
        let _ = socket.call(0, "answer", args).await;
    }
    // So many calls that nobody waits for.
    for _ in 0..200 {
        socket.begin(0, "tokenize", json!({ "text": "x" })).await;
    }
    let (mut told, mut refused) = (0, 0);
    while told + refused < 200 {
        match socket.next().await.unwrap()["brooklet"].as_str().unwrap() {
            "result" => told += 1,
            _ => refused += 1,
        }
    }
    assert!(told >= 64, "{told} were answered");
    // A message that is too long, or no text, closes the socket, and frees its stream.
    let _ = socket.socket.send(Message::text("x".repeat(5 << 20))).await;
    while socket.next().await.is_some() {}
    let (mut socket, _) = server.engine().await;
    socket.socket.send(Message::binary(vec![0; 9])).await.unwrap();
    assert!(socket.next().await.is_none());
    server.holds(0).await;
    assert_eq!(server.get("/health").await.0, 200);
    assert_eq!(server.get("/v1/engine").await.0, 400);
}

#[tokio::test]
async fn the_program_ends_with_its_last_page() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brooklet"));
    command.args([
        "app",
        "-m",
        TINY,
        "--tune",
        "off",
        "--port",
        "0",
        "--no-browser",
        "--streams",
        "2",
    ]);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let (address, key) = url.trim().strip_prefix("http://").unwrap().split_once("/#key=").unwrap();
    let (address, key) = (address.to_owned(), json!({ "key": key }));
    let mut server = Server { process, address };
    // A page that is there before the model is waits for it.
    let mut socket = server.socket(&[]).await.unwrap();
    socket.call(0, "load", key.clone()).await.unwrap();
    // One that is loaded anew leaves, and is back.
    drop(socket);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut socket = server.socket(&[]).await.unwrap();
    socket.call(0, "load", key).await.unwrap();
    socket.call(0, "tokenize", json!({ "text": "x" })).await.unwrap();
    assert!(server.process.try_wait().unwrap().is_none(), "it is there while there is a page");
    drop(socket);
    let start = Instant::now();
    loop {
        match server.process.try_wait().unwrap() {
            Some(status) => return assert!(status.success(), "{status}"),
            None => assert!(start.elapsed() < Duration::from_secs(60), "it goes on without a page"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
