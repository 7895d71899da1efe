//! Streams of the server as the package for JavaScript drives them: the messages of its worker, over a WebSocket.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | the socket: who may, what is heard, what is told, and its end |
//! | `calls`, `args` | calls and their answers |
//! | `cache` | what is asked of the cache |
//! | `host` | the engine's side: the streams of one socket, and whose turn it is |
//! | `seat` | one of them |
//! | `talk` | conversations over it |
//!
//! A socket takes streams for itself, one at least. They are free again at the moment that it closes.
mod args;
mod cache;
mod calls;
mod host;
mod seat;
mod talk;

use super::app::App;
use super::guard::Guard;
use super::job::Task;
use super::problem::Problem;
use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use calls::{Call, Heard, Reply, Thrown};
use futures_util::FutureExt;
pub(super) use host::Connection;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The longest message, and as much as may wait of one socket's.
const MOST: usize = 4 << 20;
const WAITING_BYTES: usize = 2 * MOST;
/// Calls that wait.
const WAITING: usize = 64;
/// The first call has come after so long, or never will.
const FIRST: Duration = Duration::from_secs(10);
/// Whoever has read nothing for so long, or has not answered a ping, has left.
const PATIENCE: Duration = Duration::from_secs(60);
const PING: Duration = Duration::from_secs(20);
/// How often the loading of the model is told.
const TOLD: Duration = Duration::from_millis(100);

const GOING_AWAY: u16 = 1001;
const POLICY: u16 = 1008;

pub(super) async fn attach(
    State(app): State<Arc<App>>,
    Extension(rules): Extension<Arc<Guard>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        let why = "this route is a WebSocket for Engine.connect of the package; docs/server.md says what it takes";
        return Problem::new(StatusCode::BAD_REQUEST, why).into_response();
    };
    let Ok(waits) = app.sockets.unknown.clone().try_acquire_owned() else {
        let why = "too many sockets have not said yet who they are; try again";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, why);
        return problem.retry_after(1).into_response();
    };
    let known = rules.keys.is_empty() || rules.knows(&headers);
    let upgrade = upgrade.max_message_size(MOST).max_frame_size(MOST);
    upgrade.on_upgrade(move |socket| async move {
        let socket = Socket { app, rules, known, socket, heard: Instant::now() };
        socket.serve(waits).await;
    })
}

/// Sockets, as the server counts them.
pub(super) struct Sockets {
    /// Those that have not said yet who they are.
    unknown: Arc<Semaphore>,
    /// How many there are beside.
    pub(super) count: tokio::sync::watch::Sender<usize>,
}

impl Default for Sockets {
    fn default() -> Self {
        Self { unknown: Arc::new(Semaphore::new(32)), count: tokio::sync::watch::Sender::new(0) }
    }
}

/// A socket that is counted.
struct Present(Arc<App>);

impl Present {
    fn new(app: &Arc<App>) -> Self {
        app.sockets.count.send_modify(|count| *count += 1);
        Self(app.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.sockets.count.send_modify(|count| *count -= 1);
    }
}

struct Socket {
    app: Arc<App>,
    rules: Arc<Guard>,
    /// Whether a header has brought the key.
    known: bool,
    socket: WebSocket,
    /// When anything was.
    heard: Instant,
}

/// The way to the engine's thread.
struct Way {
    calls: mpsc::Sender<Call>,
    room: Arc<Semaphore>,
    /// Calls under way, by their numbers.
    under_way: HashMap<u64, Arc<AtomicBool>>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.under_way.values().for_each(|aborted| aborted.store(true, Relaxed));
    }
}

impl Socket {
    async fn serve(mut self, waits: OwnedSemaphorePermit) {
        let Ok(Some(first)) = tokio::time::timeout(FIRST, self.first()).await else {
            return self.close(POLICY, "the first message is a call of load").await;
        };
        let key = first.args.get("key").and_then(Value::as_str);
        if !self.known && !key.is_some_and(|key| self.rules.has(key)) {
            let why =
                "key: this server wants one, and this is not it; it says which with --api-key";
            self.tell(&Reply::failed(first.id, Thrown::option(why))).await;
            return self.close(POLICY, "a key is wanted").await;
        }
        drop(waits);
        let _present = Present::new(&self.app);
        let (calls, asked) = mpsc::channel(WAITING);
        let (replies, told) = mpsc::channel(4);
        let room = Arc::new(Semaphore::new(WAITING_BYTES));
        let mut way = Way { calls, room, under_way: HashMap::new() };
        let number = first.id;
        if let Some(reply) = way.call(first, 0) {
            self.tell(&reply).await;
        }
        let connection = Connection { app: self.app.clone(), calls: asked, replies };
        self.converse(way, told, connection, number).await;
    }

    /// The first message; none where it is not what it has to be.
    async fn first(&mut self) -> Option<Heard> {
        loop {
            match self.socket.recv().await? {
                Ok(Message::Text(text)) => {
                    let heard = serde_json::from_str::<Heard>(&text).ok()?;
                    return (heard.is_call() && heard.method == "load").then_some(heard);
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                _ => return None,
            }
        }
    }

    async fn converse(
        &mut self,
        mut way: Way,
        mut told: mpsc::Receiver<Reply>,
        connection: Connection,
        load: u64,
    ) {
        let mut connection = Some(connection);
        let (mut loading, mut ping) = (tokio::time::interval(TOLD), tokio::time::interval(PING));
        let app = self.app.clone();
        let mut over = app.over.subscribe();
        let mut last = (0, 0);
        loop {
            tokio::select! {
                message = self.socket.recv() => {
                    self.heard = Instant::now();
                    let text = match message {
                        Some(Ok(Message::Text(text))) => text,
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                        Some(Ok(Message::Binary(_))) => {
                            return self.close(POLICY, "messages are texts of JSON").await;
                        }
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    };
                    let gone = connection.is_some() && aborts(&text, load);
                    let reply = if gone { Some(Reply::aborted(load)) } else { way.hear(&text) };
                    let told = match &reply {
                        Some(reply) => self.tell(reply).await,
                        None => true,
                    };
                    if gone || !told {
                        return;
                    }
                }
                reply = told.recv() => {
                    let Some(reply) = reply else { return };
                    reply.id.map(|id| way.under_way.remove(&id));
                    if !self.tell(&reply).await || reply.last {
                        return;
                    }
                }
                _ = loading.tick(), if connection.is_some() => {
                    if let Ok(ready) = app.ready() {
                        let task = connection.take().map(|connection| Task::Host(Box::new(connection)));
                        if task.is_some_and(|task| ready.queue.jobs.send(task).is_err()) {
                            return;
                        }
                    } else if let now = app.loaded.get() && now != last {
                        last = now;
                        let (loaded, total) = now;
                        let stage = if loaded == total { "compile" } else { "load" };
                        let progress = json!({ "stage": stage, "from": "file", "loaded": loaded, "total": total });
                        let event = json!({ "brooklet": "event", "id": load, "event": { "progress": progress } });
                        if !self.send(Message::Text(event.to_string().into())).await {
                            return;
                        }
                    }
                }
                _ = ping.tick() => {
                    if self.heard.elapsed() > PATIENCE || !self.send(Message::Ping(Default::default())).await {
                        return;
                    }
                }
                () = over.wait_for(|over| *over).map(drop) => {
                    return self.close(GOING_AWAY, "the server is ending").await;
                }
            }
        }
    }

    async fn tell(&mut self, reply: &Reply) -> bool {
        self.send(Message::Text(reply.text().into())).await
    }

    /// False where nobody reads any more.
    async fn send(&mut self, message: Message) -> bool {
        matches!(tokio::time::timeout(PATIENCE, self.socket.send(message)).await, Ok(Ok(())))
    }

    async fn close(&mut self, code: u16, reason: &'static str) {
        self.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
    }
}

/// Reads a message as it comes, and its arguments as each call has them; whether any took them.
#[cfg(test)]
pub(super) fn is_read(bytes: &[u8]) -> bool {
    let heard =
        std::str::from_utf8(bytes).ok().and_then(|text| serde_json::from_str::<Heard>(text).ok());
    heard.is_some_and(|heard| args::is_read(&heard.args) | talk::is_read(&heard.args))
}

/// Whether a message takes back this call.
fn aborts(text: &str, call: u64) -> bool {
    let heard = serde_json::from_str::<Heard>(text);
    heard.is_ok_and(|heard| heard.brooklet == "abort" && heard.id == call)
}

impl Way {
    /// Passes on a message; gives what is answered at once.
    fn hear(&mut self, text: &str) -> Option<Reply> {
        match serde_json::from_str::<Heard>(text) {
            Ok(heard) if heard.is_call() => self.call(heard, text.len()),
            Ok(heard) if heard.brooklet == "abort" => {
                let call = self.under_way.get(&heard.id)?;
                call.store(true, Relaxed);
                None
            }
            Ok(heard) => {
                let why =
                    format!("{:?}: messages are of brooklet \"call\" or \"abort\"", heard.brooklet);
                Some(Reply::failed(heard.id, Thrown::option(why)))
            }
            Err(error) => {
                let why = format!("the message is not one of the package's: {error}");
                Some(Reply { id: None, told: Err(Thrown::option(why)), last: false })
            }
        }
    }

    fn call(&mut self, heard: Heard, bytes: usize) -> Option<Reply> {
        let full = || {
            let why = format!(
                "more than {WAITING} calls wait already, or more than {WAITING_BYTES} bytes of them"
            );
            Some(Reply::failed(heard.id, Thrown::option(why)))
        };
        let Ok(room) = self.room.clone().try_acquire_many_owned(bytes as u32) else {
            return full();
        };
        if self.under_way.len() >= WAITING {
            return full();
        }
        let aborted = Arc::new(AtomicBool::new(false));
        let Heard { id, of, method, args, .. } = heard;
        let call = Call { id, of, method, args, aborted: aborted.clone(), _room: room };
        match self.calls.try_send(call) {
            Ok(()) => {
                self.under_way.insert(id, aborted);
                None
            }
            Err(_) => Some(Reply::failed(id, Thrown::option("the socket takes no more calls"))),
        }
    }
}
