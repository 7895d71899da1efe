//! The streams of one socket, in the engine's thread: calls of one stream come one after another, those of several go on
//! together.
use super::super::app::App;
use super::super::engine::Engine;
use super::super::metrics::add;
use super::calls::{Call, Reply, Thrown};
use super::seat::Seat;
use futures_util::FutureExt;
use futures_util::future::{Either, LocalBoxFuture, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::mpsc;

/// A socket on its way to the engine's thread.
pub(in super::super) struct Connection {
    pub(super) app: Arc<App>,
    pub(super) calls: mpsc::Receiver<Call>,
    pub(super) replies: mpsc::Sender<Reply>,
}

/// A stream, and the calls that wait for it.
#[derive(Default)]
struct Place<'a> {
    /// None while it is at work.
    seat: Option<Seat<'a>>,
    waiting: VecDeque<Call>,
}

/// What a call has come to.
struct Done<'a> {
    of: u64,
    seat: Option<Seat<'a>>,
    /// Another one that came of it.
    made: Option<Seat<'a>>,
    reply: Reply,
}

/// All streams of a socket.
struct Places<'a> {
    engine: &'a Engine,
    app: Arc<App>,
    places: BTreeMap<u64, Place<'a>>,
    under_way: FuturesUnordered<LocalBoxFuture<'a, Done<'a>>>,
    last: u64,
    /// What is to be sent.
    replies: Vec<Reply>,
}

impl Engine {
    /// Answers the calls of a socket until it closes. Whatever it has is free when this comes back.
    pub(in super::super) async fn host(&self, connection: Connection) {
        let Connection { app, mut calls, replies } = connection;
        let (places, under_way) = (BTreeMap::new(), FuturesUnordered::new());
        let none = Vec::new();
        let mut all = Places { engine: self, app, places, under_way, last: 0, replies: none };
        loop {
            let next = match all.under_way.is_empty() {
                true => Either::Left(calls.recv().await),
                false => match select(pin!(calls.recv()), all.under_way.next()).await {
                    Either::Left((call, _)) => Either::Left(call),
                    Either::Right((done, _)) => Either::Right(done),
                },
            };
            match next {
                Either::Left(None) => return,
                Either::Left(Some(call)) => all.take(call),
                Either::Right(None) => {}
                Either::Right(Some(done)) => all.done(done),
            }
            for reply in std::mem::take(&mut all.replies) {
                self.note(&reply);
                let last = reply.last;
                if replies.send(reply).await.is_err() || last {
                    return;
                }
            }
        }
    }

    fn note(&self, reply: &Reply) {
        if let Err(Thrown { is_fatal, code, .. }) = &reply.told {
            self.shared.failed.fetch_or(*is_fatal, Relaxed);
            add(&self.shared.metrics.failed, u64::from(*code == "internal"));
        }
    }
}

impl<'a> Places<'a> {
    /// A call that has come.
    fn take(&mut self, call: Call) {
        let told = match call.method.as_str() {
            "unload" => Ok(Value::Null),
            "load" if self.places.contains_key(&0) => {
                Err(Thrown::option("this socket has an engine already; open another"))
            }
            "load" => {
                self.places.insert(0, Place::default());
                self.under_way.push(opened(self.engine, self.app.clone(), call).boxed_local());
                return;
            }
            _ => match self.places.get_mut(&call.of) {
                Some(place) => {
                    let of = call.of;
                    place.waiting.push_back(call);
                    return self.start(of);
                }
                None => Err(gone(call.of)),
            },
        };
        let last = call.method == "unload";
        self.replies.push(Reply { last, ..Reply::to(&call, told) });
    }

    /// Begins with what waits for a stream, if it is free.
    fn start(&mut self, of: u64) {
        let Some(place) = self.places.get_mut(&of) else { return };
        if let Some(seat) = place.seat.take() {
            match place.waiting.pop_front() {
                Some(call) => self.under_way.push(answered(seat, call).boxed_local()),
                None => place.seat = Some(seat),
            }
        }
    }

    fn done(&mut self, done: Done<'a>) {
        let Done { of, seat, made, mut reply } = done;
        if let (Some(made), Ok(told)) = (made, &mut reply.told) {
            self.last += 1;
            told["number"] = json!(self.last);
            self.places.insert(self.last, Place { seat: Some(made), waiting: VecDeque::new() });
        }
        self.replies.push(reply);
        match (seat, self.places.get_mut(&of)) {
            (Some(seat), Some(place)) => {
                place.seat = Some(seat);
                self.start(of);
            }
            // It has left, or there never was one.
            _ => {
                let place = self.places.remove(&of).unwrap_or_default();
                let told = |call: &Call| Reply::to(call, Err(gone(of)));
                self.replies.extend(place.waiting.iter().map(told));
            }
        }
    }
}

async fn opened<'a>(engine: &'a Engine, app: Arc<App>, call: Call) -> Done<'a> {
    let seat = Seat::open(engine, app, &call).await;
    let (seat, told) = match seat {
        Ok(seat) => {
            let info = seat.info();
            (Some(seat), info)
        }
        Err(why) => (None, Err(why)),
    };
    Done { of: 0, seat, made: None, reply: Reply::to(&call, told) }
}

async fn answered<'a>(mut seat: Seat<'a>, call: Call) -> Done<'a> {
    let of = call.of;
    let done = |seat, made, told| Done { of, seat, made, reply: Reply::to(&call, told) };
    if call.is_aborted() {
        return done(Some(seat), None, Err(Thrown::aborted()));
    }
    match call.method.as_str() {
        "leave" => {
            drop(seat);
            done(None, None, Ok(Value::Null))
        }
        "fork" => match seat.fork() {
            Ok(made) => {
                let told = made.info().map(|info| json!({ "info": info }));
                done(Some(seat), Some(made), told)
            }
            Err(why) => done(Some(seat), None, Err(why)),
        },
        _ => {
            let told = seat.call(&call).await;
            done(Some(seat), None, told)
        }
    }
}

fn gone(of: u64) -> Thrown {
    Thrown::option(match of {
        0 => "the engine is not loaded",
        _ => "this fork was unloaded; fork another",
    })
}
