//! A hub and the host that it sends downloads to, on two ports of this machine, with whatever may be wrong with them.
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub(crate) const TINY: &[u8] = include_bytes!("../fixtures/tiny.gguf");
/// What the stand-in gives one after the other, so that a download takes a while.
const PIECE: usize = 16 << 10;

/// What is wrong.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    /// Answers of these statuses first, one a request for a file.
    pub(crate) statuses: Vec<u16>,
    /// What goes with them.
    pub(crate) retry_after: Option<u64>,
    /// The status of every answer of the hub itself.
    pub(crate) hub_status: Option<u16>,
    /// Connections that end after so many bytes of a body, one each.
    pub(crate) cuts: Vec<usize>,
    /// Connections that say nothing more after so many bytes, one each.
    pub(crate) stalls: Vec<usize>,
    /// Ranges are not known.
    pub(crate) no_ranges: bool,
    /// Ranges begin a byte later than they should.
    pub(crate) wrong_range: bool,
    /// No ETag is told.
    pub(crate) no_etag: bool,
    /// The bytes that are sent have one bit that is another.
    pub(crate) damaged: bool,
    /// The tree has no sha256.
    pub(crate) no_sha256: bool,
    /// Headers that come with a file.
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    /// Between two pieces.
    pub(crate) pause: Duration,
    /// Where the hub sends downloads instead.
    pub(crate) location: Option<String>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Whether it came to the hub, and not to the other host.
    pub(crate) to_hub: bool,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) faults: Faults,
    pub(crate) requests: Vec<Request>,
    /// Bytes of files that were sent.
    pub(crate) sent: usize,
    pub(crate) commit: String,
}

pub(crate) struct Hub {
    pub(crate) endpoint: String,
    pub(crate) cdn: String,
    state: Arc<Mutex<State>>,
}

/// A GGUF file that is longer than the tiny one: what follows it is no part of any tensor.
pub(crate) fn long(len: usize) -> Vec<u8> {
    let mut bytes = TINY.to_vec();
    let mut state = 1u32;
    bytes.extend((bytes.len()..len).map(|_| {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 24) as u8
    }));
    bytes
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Hub {
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, cdn) = (listen(), listen());
        let address = |of: &TcpListener| format!("http://{}", of.local_addr().unwrap());
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec()));
        let state = State { files: files.collect(), commit: "c0ffee".into(), ..State::default() };
        let this = Self {
            endpoint: address(&hub),
            cdn: address(&cdn),
            state: Arc::new(Mutex::new(state)),
        };
        for (listener, to_hub) in [(hub, true), (cdn, false)] {
            let (state, cdn) = (this.state.clone(), this.cdn.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, cdn) = (state.clone(), cdn.clone());
                    std::thread::spawn(move || {
                        // Who asked may leave at any moment.
                        let _ = serve(&stream, to_hub, &state, &cdn);
                        let _ = stream.shutdown(std::net::Shutdown::Both);
                    });
                }
            });
        }
        this
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn with(self, faults: Faults) -> Self {
        self.state().faults = faults;
        self
    }

    /// Requests for files, and not for what the hub knows of them.
    pub(crate) fn downloads(&self) -> Vec<Request> {
        let all = self.state().requests.clone();
        all.into_iter().filter(|request| !request.to_hub).collect()
    }
}

fn request(stream: &TcpStream, to_hub: bool) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_owned()))
    });
    Some(Request { to_hub, path, headers: headers.collect() })
}

fn answer(
    mut stream: &TcpStream,
    status: u16,
    headers: &[(&str, String)],
    body: &[u8],
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)
}

fn serve(stream: &TcpStream, to_hub: bool, state: &Mutex<State>, cdn: &str) -> std::io::Result<()> {
    let Some(request) = request(stream, to_hub) else { return Ok(()) };
    let path = request.path.clone();
    let mut held = state.lock().unwrap();
    held.requests.push(request.clone());
    let (commit, faults) = (held.commit.clone(), held.faults.clone());
    if let Some(status) = faults.hub_status.filter(|_| to_hub) {
        drop(held);
        return answer(stream, status, &[], b"no");
    }
    if to_hub && path.ends_with("/refs") {
        let refs = serde_json::json!({ "branches": [{
            "name": "main", "ref": "refs/heads/main", "targetCommit": commit }], "tags": [] });
        drop(held);
        return answer(stream, 200, &[], refs.to_string().as_bytes());
    }
    if to_hub && path.contains(&format!("/tree/{commit}?recursive=true")) {
        let items = held.files.iter().map(|(path, bytes)| {
            let mut item = serde_json::json!({ "type": "file", "path": path, "size": bytes.len(), "oid": "1" });
            if !faults.no_sha256 {
                let size = bytes.len();
                item["lfs"] = serde_json::json!({ "oid": sha256(bytes), "size": size, "pointerSize": 134 });
            }
            item
        });
        // Two to a page.
        let page = path.rsplit_once("&page=").map_or(0, |(_, page)| page.parse().unwrap());
        let tree: Vec<_> = items.skip(2 * page).take(2).collect();
        let next = format!("<{}&page={}>; rel=\"next\"", path.split('&').next().unwrap(), page + 1);
        let link = (held.files.len() > 2 * (page + 1)).then_some(("Link", next));
        drop(held);
        let tree = serde_json::json!(tree).to_string();
        return answer(stream, 200, link.as_slice(), tree.as_bytes());
    }
    if to_hub && path.starts_with("/u/r/resolve/") {
        drop(held);
        let file = path.rsplit_once(&format!("/{commit}/")).map_or("", |(_, file)| file);
        let location = faults.location.unwrap_or_else(|| format!("{cdn}/{file}?signature=secret"));
        return answer(stream, 302, &[("Location", location)], b"");
    }
    if to_hub && path.starts_with("/page/") {
        drop(held);
        return answer(
            stream,
            200,
            &[("Content-Type", "text/html; charset=utf-8".into())],
            b"<!doctype html>",
        );
    }
    let name = path[1..].split('?').next().unwrap_or_default().to_owned();
    let Some(bytes) = held.files.get(&name).cloned() else {
        drop(held);
        return answer(stream, 404, &[], b"no");
    };
    if !held.faults.statuses.is_empty() {
        let status = held.faults.statuses.remove(0);
        drop(held);
        let after = faults.retry_after.map(|after| ("Retry-After", after.to_string()));
        return answer(stream, status, after.as_slice(), b"no");
    }
    let take = |list: &mut Vec<usize>| (!list.is_empty()).then(|| list.remove(0));
    let (cut, stall) = (take(&mut held.faults.cuts), take(&mut held.faults.stalls));
    drop(held);
    file(stream, &request, bytes, &faults, [cut, stall], state)
}

/// A file, or what is asked for of it.
fn file(
    mut stream: &TcpStream,
    request: &Request,
    mut bytes: Vec<u8>,
    faults: &Faults,
    [cut, stall]: [Option<usize>; 2],
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let (len, etag) = (bytes.len(), format!("\"{}\"", &sha256(&bytes)[..16]));
    let range = request
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.split_once('-')?.0.parse::<usize>().ok());
    let held = request.headers.get("if-range").is_none_or(|wanted| *wanted == etag);
    let from = range.filter(|_| held && !faults.no_ranges);
    let mut headers: Vec<(&str, String)> = Vec::new();
    let mut at = from.unwrap_or(0);
    if from.is_some() && faults.wrong_range {
        at += 1;
    }
    if from.is_some_and(|from| from >= len) {
        return answer(stream, 416, &[("Content-Range", format!("bytes */{len}"))], b"");
    }
    if !faults.no_etag {
        headers.push(("ETag", etag));
    }
    if from.is_some() {
        headers.push(("Content-Range", format!("bytes {at}-{}/{len}", len - 1)));
    }
    if !faults.headers.iter().any(|(name, _)| *name == "Content-Length") {
        headers.push(("Content-Length", (len - at).to_string()));
    }
    headers.extend(faults.headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
    answer(stream, if from.is_some() { 206 } else { 200 }, &headers, b"")?;
    if faults.damaged {
        bytes[len - 1] ^= 1;
    }
    let end = cut.or(stall).map_or(len, |after| (at + after).min(len));
    for piece in bytes[at..end].chunks(PIECE) {
        stream.write_all(piece)?;
        state.lock().unwrap().sent += piece.len();
        std::thread::sleep(faults.pause);
    }
    if stall.is_some() {
        std::thread::sleep(Duration::from_secs(20));
    }
    Ok(())
}
