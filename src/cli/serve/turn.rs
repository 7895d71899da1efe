//! An answer under way: who reads it, when it has to end, and what it has cost so far.
use super::engine::{Engine, tell};
use super::job::{Event, Outcome, Watched};
use super::metrics::{add, spend};
use super::slots::Used;
use brooklet::chat::Said;
use brooklet::session::{Ended, Session};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;

/// One answer.
pub(super) struct Turn<'a> {
    engine: &'a Engine,
    events: &'a Sender<Event>,
    start: Instant,
    /// Whether whoever asked still reads.
    reads: bool,
    prompt: u64,
    fed: u64,
    /// How long that took, and when it was done.
    prompt_time: Duration,
    decodes: Instant,
    evicted: u64,
}

impl<'a> Turn<'a> {
    /// Of whoever has waited since `start`.
    pub(super) fn new(engine: &'a Engine, events: &'a Sender<Event>, start: Instant) -> Self {
        Self {
            engine,
            events,
            start,
            reads: true,
            prompt: 0,
            fed: 0,
            prompt_time: Duration::ZERO,
            decodes: start,
            evicted: 0,
        }
    }

    /// Whether somebody still reads.
    pub(super) fn is_read(&self) -> bool {
        self.reads && !self.events.is_closed()
    }

    /// Whether it goes on: somebody reads it, its time is not over, and the server does not end.
    pub(super) fn goes_on(&self) -> bool {
        let in_time = self.start.elapsed() < self.engine.longest;
        self.is_read() && in_time && !self.engine.shared.ends.load(Relaxed)
    }

    /// The prompt is in the stream, so much of it was fed.
    pub(super) async fn begin(&mut self, session: &Session, fed: u64) {
        (self.prompt, self.fed, self.evicted) = (session.position(), fed, session.evicted());
        (self.prompt_time, self.decodes) = (self.start.elapsed(), Instant::now());
        let metrics = &self.engine.shared.metrics;
        add(&metrics.prompt_tokens, fed);
        add(&metrics.cached_tokens, self.prompt.saturating_sub(fed));
        // Each token that was fed has pushed out one, once the window was full.
        add(&metrics.evicted_tokens, self.evicted.min(fed));
        spend(&metrics.prompt_micros, self.prompt_time);
        self.tell(Event::Fed).await;
    }

    /// A token more may be in the stream.
    pub(super) fn note(&mut self, session: &Session, used: &Used<'_>) {
        let (position, evicted) = (session.position(), session.evicted());
        let metrics = &self.engine.shared.metrics;
        metrics.decoded(position);
        add(&metrics.evicted_tokens, evicted.saturating_sub(self.evicted));
        self.evicted = evicted;
        used.look(|view| (view.position, view.evicted) = (position, evicted));
    }

    /// Gives a piece to whoever reads, and how likely its tokens were.
    pub(super) async fn say(&mut self, said: Said, watched: Vec<Watched>) {
        if !said.text.is_empty() || !watched.is_empty() {
            self.tell(Event::Piece(said, watched)).await;
        }
    }

    async fn tell(&mut self, event: Event) {
        if self.is_read() {
            self.reads = tell(self.events, event).await;
        }
    }

    /// What it has come to; none where nobody has read it to its end.
    pub(super) fn end(&self, session: &Session, ended: Ended, forgotten: u64) -> Option<Outcome> {
        let (position, time) = (session.position(), self.decodes.elapsed());
        let generated = position.saturating_sub(self.prompt);
        let metrics = &self.engine.shared.metrics;
        add(&metrics.predicted_tokens, generated);
        spend(&metrics.predicted_micros, time);
        self.is_read().then(|| Outcome {
            ended,
            prompt: self.prompt,
            fed: self.fed,
            prompt_ms: ms(self.prompt_time),
            generated,
            generated_ms: ms(time),
            position,
            evicted: self.evicted,
            forgotten,
        })
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
