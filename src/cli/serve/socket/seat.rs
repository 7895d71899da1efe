//! A stream of the server that a socket has for itself. Calls are those of `core.js`, and answered as there.
use super::super::app::{App, Ready};
use super::super::engine::Engine;
use super::super::metrics::{Metrics, add};
use super::super::slots::Used;
use super::args::{BeginArgs, IdArgs, LoadArgs, PolicyArgs, ResetArgs, StopArgs, TextArgs};
use super::cache;
use super::calls::{Call, Thrown};
use super::talk::Talk;
use brooklet::chat::{feed_in_turns, next_turn};
use brooklet::model::Policy;
use brooklet::session::{Constraint, Read, Reading, Session};
use brooklet::text::{SamplerSettings, StopTexts};
use brooklet::wire;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::SemaphorePermit;

type Told = Result<Value, Thrown>;

/// Tokens are handed over at least this often.
pub(super) const BATCH: Duration = Duration::from_millis(30);
/// Whoever connects waits so long for a stream.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a stream under way has come to.
struct Stream {
    reading: Reading,
    /// So many pieces at a time: they can all be taken back.
    most: usize,
    /// Token, or none for text that was held back, and place of each piece given out last.
    pieces: Vec<(Option<u32>, u64)>,
    /// The token before them.
    before: Option<u32>,
}

pub(super) struct Seat<'a> {
    pub(super) engine: &'a Engine,
    pub(super) app: Arc<App>,
    pub(super) used: Used<'a>,
    stream: Option<Stream>,
    pub(super) talk: Talk,
    _permit: SemaphorePermit<'a>,
    _held: Held<'a>,
}

/// A stream that no request can have is counted.
struct Held<'a>(&'a Metrics);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}

/// A call that is under way, until it comes back or nobody waits for it any more.
struct Busy<'a>(&'a Metrics);

impl<'a> Busy<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.processing.fetch_add(1, Relaxed);
        Self(metrics)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.processing.fetch_sub(1, Relaxed);
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        // Nothing of it is left to whoever has the stream next.
        if let Ok(session) = self.used.slot.bare() {
            session.reset();
            let _ = session.set_policy(Policy::Streaming);
        }
        self.used.look(|view| {
            (view.position, view.evicted) = (0, 0);
            (view.messages, view.forgotten_messages) = (0, 0);
        });
    }
}

impl<'a> Seat<'a> {
    /// A stream for a socket that has none.
    pub(super) async fn open(
        engine: &'a Engine,
        app: Arc<App>,
        call: &Call,
    ) -> Result<Self, Thrown> {
        let args: LoadArgs = call.args()?;
        let (all, wanted) = (app.takes()?.queue.streams, args.streams.unwrap_or(1));
        let held = engine.shared.metrics.held.load(Relaxed);
        if held + wanted.max(1) > all {
            let why = format!("streams: {wanted} are wanted; {}", none_free(all, held));
            return Err(Thrown::option(why));
        }
        let acquired = tokio::time::timeout(PATIENCE, engine.permits.acquire()).await;
        match acquired {
            Ok(Ok(permit)) => Self::over(engine, app, permit),
            _ => Err(Thrown::new("network", format!("{}; try again later", none_free(all, held)))),
        }
    }

    fn over(
        engine: &'a Engine,
        app: Arc<App>,
        permit: SemaphorePermit<'a>,
    ) -> Result<Self, Thrown> {
        let metrics = &*engine.shared.metrics;
        metrics.held.fetch_add(1, Relaxed);
        let held = Held(metrics);
        let none = || Thrown::new("internal", "no stream is free, though one should be");
        let mut used = engine.slots.any(&[]).ok_or_else(none)?;
        used.slot.memory = None;
        used.slot.bare()?.reset();
        let talk = Talk::default();
        Ok(Self { engine, app, used, stream: None, talk, _permit: permit, _held: held })
    }

    /// Another one, which begins as a copy of this one; behind a conversation with nothing.
    pub(super) fn fork(&self) -> Result<Self, Thrown> {
        let streams = self.ready()?.queue.streams;
        let held = self.engine.shared.metrics.held.load(Relaxed);
        let none = |_| Thrown::option(none_free(streams, held));
        let permit = self.engine.permits.try_acquire().map_err(none)?;
        let mut fork = Self::over(self.engine, self.app.clone(), permit)?;
        if let (None, Some(own)) = (self.talk.current(), self.used.slot.session())
            && own.position() > 0
        {
            fork.used.slot.bare()?.fork_from(own)?;
        }
        Ok(fork)
    }

    /// Answers a call.
    pub(super) async fn call(&mut self, call: &Call) -> Told {
        let busy = Busy::new(&self.engine.shared.metrics);
        let told = self.answered(call).await;
        drop(busy);
        if let Some(session) = self.used.slot.session() {
            let (position, evicted) = (session.position(), session.evicted());
            self.used.look(|view| (view.position, view.evicted) = (position, evicted));
        }
        told
    }

    async fn answered(&mut self, call: &Call) -> Told {
        match call.method.as_str() {
            "tokenize" => self.tokenize(call.args()?).await,
            "feed" => {
                let TextArgs { text } = call.args()?;
                self.take_back()?;
                self.stream = None;
                Ok(json!(self.feed(text, call).await?))
            }
            "begin" => self.begin(call.args()?, call).await,
            "next" => self.next(call).await,
            "stop" => self.stop(call.args()?).await,
            "answer" => {
                self.stream = None;
                let mut told = self.answer(call.args()?, call).await?;
                told["info"] = self.info()?;
                Ok(told)
            }
            "hear" => self.hear(call.args::<IdArgs>()?.id, call).await,
            "hush" => self.hush(call.args::<IdArgs>()?.id).await,
            "window" => Ok(self.window(call.args::<IdArgs>()?.id)),
            "setPolicy" => {
                let PolicyArgs { policy } = call.args()?;
                if self.talk.current().is_some() {
                    let why = "a conversation has the cache: reset the engine to stream again";
                    return Err(Thrown::option(why));
                }
                self.used.slot.bare()?.set_policy(policy)?;
                self.info()
            }
            "reset" => self.reset(call.args()?),
            other => Err(Thrown::option(format!("{other}: there is no such call"))),
        }
    }

    pub(super) fn ready(&self) -> Result<&Ready, Thrown> {
        Ok(self.app.ready()?)
    }

    pub(super) fn session(&self) -> Result<&Session, Thrown> {
        let lost = || Thrown::new("internal", "a stream of the server was lost in an error before");
        self.used.slot.session().ok_or_else(lost)
    }

    pub(super) fn info(&self) -> Told {
        let ready = self.ready()?;
        let template = ready.template.is_ok();
        let mut info = wire::info(self.session()?, &ready.info, &ready.answer.sampling, template);
        info["kept"] = json!(false);
        info["bytes"]["wasm"] = json!(0);
        info["server"] = json!({ "streams": ready.queue.streams, "model": ready.name });
        Ok(info)
    }

    pub(super) fn goes_on(&self, call: &Call) -> impl Fn() -> bool + use<> {
        let (aborted, ends) = (call.aborted.clone(), self.engine.shared.ends.clone());
        move || !aborted.load(Relaxed) && !ends.load(Relaxed)
    }

    fn place(&self) -> Result<(u64, u64), Thrown> {
        let session = self.session()?;
        Ok((session.position(), session.evicted()))
    }

    /// The ids of a text that follows what was fed so far.
    async fn encoded(&self, text: String) -> Result<Vec<u32>, Thrown> {
        let (first, tokenizer) = (self.session()?.position() == 0, self.engine.tokenizer.clone());
        let encode = move || match first {
            true => tokenizer.encode_first(&text),
            false => tokenizer.encode(&text, false),
        };
        Ok(self.engine.apart(encode).await?)
    }

    async fn tokenize(&mut self, TextArgs { text }: TextArgs) -> Told {
        let (ids, tokenizer) = (self.encoded(text).await?, &self.engine.tokenizer);
        let told = ids.into_iter().map(|token| {
            let text = String::from_utf8_lossy(tokenizer.bytes(token));
            json!({ "token": token, "text": text })
        });
        Ok(told.collect())
    }

    async fn feed(&mut self, text: String, call: &Call) -> Result<usize, Thrown> {
        let ids = self.encoded(text).await?;
        let goes_on = self.goes_on(call);
        let fed = feed_in_turns(self.used.slot.bare()?, &ids, &goes_on).await?;
        add(&self.engine.shared.metrics.prompt_tokens, fed as u64);
        if goes_on() { Ok(fed) } else { Err(Thrown::aborted()) }
    }

    /// What holds a call's output to its rules, if it has any.
    pub(super) async fn rules(&self, call: &Call) -> Result<Option<Box<dyn Constraint>>, Thrown> {
        let Some(rules) = call.rules()? else { return Ok(None) };
        let app = self.app.clone();
        let made = self.apart(move || rules.matcher(app.ready()?)).await?;
        Ok(Some(made))
    }

    /// Computes in another thread what needs no device.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Thrown> + Send + 'static,
    ) -> Result<T, Thrown> {
        let lost = |_| Thrown::new("network", "the server is ending");
        self.engine.runtime.spawn_blocking(work).await.map_err(lost)?
    }

    /// A stream after a conversation begins anew.
    fn take_back(&mut self) -> Result<(), Thrown> {
        if self.talk.current().is_some() {
            self.talk.leave();
            self.used.slot.bare()?.reset();
        }
        Ok(())
    }

    async fn begin(&mut self, BeginArgs { prompt, settings }: BeginArgs, call: &Call) -> Told {
        self.app.takes()?;
        // Before anything changes: what cannot be used is not.
        let rules = self.rules(call).await?;
        self.take_back()?;
        self.stream = None;
        let start = Instant::now();
        let nothing_new = prompt.is_empty() && self.session()?.position() > 0;
        let fed = if nothing_new { 0 } else { self.feed(prompt, call).await? };
        let ms = millis(start);
        let tokenizer = self.engine.tokenizer.clone();
        // What is held to rules ends where they do.
        let (banned, ends) = match settings.stop_at_eos || rules.is_some() {
            true => (&[][..], tokenizer.eog()),
            false => (tokenizer.eog(), &[][..]),
        };
        let sampling = settings.sampler(SamplerSettings::default());
        sampling.check()?;
        let session = self.used.slot.bare()?;
        let mut generation = session.generate_on(sampling, banned, settings.pace)?;
        rules.into_iter().for_each(|rules| generation.constrain(rules));
        let (tokens, stop) =
            (settings.max_tokens.unwrap_or(u64::MAX), StopTexts::new(settings.stop));
        let reading = Reading::new(generation, ends, stop, tokens);
        // All that was not taken can be taken back: half of what the ring allows; the other half is for what is ahead.
        let ring = session.cache().geometry();
        let most = (ring.slots.saturating_sub(ring.window) as usize / 2).max(1);
        self.stream = Some(Stream { reading, most, pieces: Vec::new(), before: None });
        Ok(json!({ "promptTokens": fed, "ms": ms, "info": self.info()? }))
    }

    async fn next(&mut self, call: &Call) -> Told {
        let goes_on = self.goes_on(call);
        let ended_by = "this stream was ended by another, by feed or by reset";
        let stream = self.stream.as_mut().ok_or_else(|| Thrown::option(ended_by))?;
        let session = self.used.slot.bare()?;
        let (start, mut first, mut ended) = (Instant::now(), None, None);
        stream.before = session.recent().next_back();
        stream.pieces.clear();
        let mut pieces: Vec<Value> = Vec::new();
        while ended.is_none()
            && pieces.len() < stream.most
            && (pieces.is_empty() || start.elapsed() < BATCH)
        {
            if !goes_on() {
                ended = Some("aborted");
                break;
            }
            let read = stream.reading.next(session, &self.engine.tokenizer).await?;
            first.get_or_insert_with(|| millis(start));
            let position = session.position();
            match read {
                Read::Token { token, text } => {
                    self.engine.shared.metrics.decoded(position);
                    stream.pieces.push((Some(token), position - 1));
                    pieces.push(json!({ "text": text, "token": token, "index": position - 1 }));
                }
                Read::End(why) => {
                    ended = Some(wire::reason(why));
                    let rest = stream.reading.finish();
                    match pieces.last_mut() {
                        _ if rest.is_empty() => {}
                        Some(Value::Object(last)) => {
                            let text = last["text"].as_str().unwrap_or_default().to_owned() + &rest;
                            last["text"] = text.into();
                        }
                        _ => {
                            stream.pieces.push((None, position));
                            pieces.push(json!({ "text": rest, "token": -1, "index": position }));
                        }
                    }
                }
            }
            next_turn().await;
        }
        add(&self.engine.shared.metrics.predicted_tokens, pieces.len() as u64);
        let (ms, (position, evicted)) = (millis(start), self.place()?);
        Ok(json!({
            "pieces": pieces, "ended": ended, "ms": ms, "firstMs": first, "position": position, "evicted": evicted,
            "wasmBytes": 0,
        }))
    }

    /// Ends the stream; the last `unseen` pieces were not taken, and have never been.
    async fn stop(&mut self, StopArgs { unseen }: StopArgs) -> Told {
        if let Some(stream) = self.stream.take().filter(|_| unseen > 0) {
            let Some(seen) = stream.pieces.len().checked_sub(unseen) else {
                let why = format!("unseen {unseen}: {} pieces were given out", stream.pieces.len());
                return Err(Thrown::option(why));
            };
            let session = self.used.slot.bare()?;
            let before = seen.checked_sub(1).and_then(|at| stream.pieces[at].0);
            let back = session.position().saturating_sub(stream.pieces[seen].1);
            // With them goes a token that has ended the text.
            if let Some(last) = before.or(stream.before).filter(|_| back > 0) {
                session.rewind(back, last).await?;
            }
        }
        let (position, evicted) = self.place()?;
        Ok(json!({ "position": position, "evicted": evicted }))
    }

    fn reset(&mut self, ResetArgs { cache }: ResetArgs) -> Told {
        if let Some(wanted) = &cache {
            cache::check(wanted, &self.ready()?.cache)?;
        }
        self.stream = None;
        self.talk.leave();
        let session = self.used.slot.bare()?;
        session.reset();
        if let Some(cache) = cache {
            session.set_policy(cache.policy.unwrap_or(Policy::Streaming))?;
        }
        self.info()
    }
}

pub(super) fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn none_free(streams: u64, held: u64) -> String {
    format!(
        "the server has {streams} streams (--streams), of which pages and programs hold {held}, and none is free for \
         another: close one of them"
    )
}
