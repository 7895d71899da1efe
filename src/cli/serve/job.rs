//! What the routes ask of the engine's thread, and what comes back.
use super::messages::Mark;
use super::metrics::{Metrics, add};
use super::problem::Problem;
use super::socket::Connection;
use brooklet::chat::{AnswerSettings, Said, Script};
use brooklet::session::{Constraint, Ended, Logprobs};
use brooklet::text::Json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::mpsc;

/// Pieces that wait for a client who reads slowly, at most.
const PIECES: usize = 256;

/// What is answered.
#[derive(Clone)]
pub(super) enum Work {
    Messages(Arc<Asked>),
    /// The ids of a text that is gone on with.
    Text(Arc<Vec<u32>>),
}

/// A conversation that is answered.
pub(super) struct Asked {
    /// Its system prompt, and what the template makes of the rest.
    pub(super) script: Arc<Script>,
    /// Without the system prompt.
    pub(super) messages: Vec<Json>,
    /// What it is known again by, before the first message and behind each.
    pub(super) marks: Vec<Mark>,
    /// Whether the model was told to think, or not to: the text that asks for an answer may say so.
    pub(super) thinking: Option<bool>,
    /// Whether thoughts stay in the text, between their tags.
    pub(super) thoughts_in_text: bool,
}

/// Answers that are asked for.
pub(super) struct Job {
    pub(super) work: Work,
    /// One, or several to the same.
    pub(super) wanted: Vec<Wanted>,
    /// Whether what a stream holds already may be used.
    pub(super) cache: bool,
    pub(super) waiting: Vec<Waiting>,
}

/// One answer that is asked for.
pub(super) struct Wanted {
    pub(super) answer: AnswerSettings,
    pub(super) terms: Terms,
    /// Closed when whoever asked has left.
    pub(super) events: mpsc::Sender<Event>,
}

/// What comes of an answer, in this order: the prompt is fed, pieces, the end; or a problem at any time.
#[derive(Debug)]
pub(super) enum Event {
    Fed,
    /// With the tokens that were watched since the piece before.
    Piece(Said, Vec<Watched>),
    End(Box<Outcome>),
    Failed(Problem),
}

/// A token, and how likely it was.
pub(super) type Watched = (u32, Logprobs);

/// What an answer is held to, and of how many of the likeliest tokens is told.
#[derive(Default)]
pub(super) struct Terms {
    pub(super) constraint: Option<Box<dyn Constraint>>,
    pub(super) watch: Option<usize>,
}

/// What an answer has cost, and where it has left its stream.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) ended: Ended,
    /// Tokens before the answer, also those that are forgotten.
    pub(super) prompt: u64,
    /// Those of them that were fed.
    pub(super) fed: u64,
    pub(super) prompt_ms: f64,
    pub(super) generated: u64,
    pub(super) generated_ms: f64,
    pub(super) position: u64,
    pub(super) evicted: u64,
    /// Messages that the model cannot look back on.
    pub(super) forgotten: u64,
}

/// A place in the queue. Whoever drops it has left.
pub(super) struct Waiting(Arc<Metrics>);

impl Waiting {
    /// None where so many wait or are answered already.
    fn take(metrics: &Arc<Metrics>, most: u64) -> Option<Self> {
        let answered = metrics.processing.load(Relaxed);
        let more = |waiting: u64| (waiting + answered < most).then_some(waiting + 1);
        metrics.deferred.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Self(metrics.clone()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.deferred.fetch_sub(1, Relaxed);
    }
}

/// What the engine's thread is given to do.
pub(super) enum Task {
    Answer(Box<Job>),
    /// A socket, whose calls come by themselves.
    Host(Box<Connection>),
}

/// The way to the engine's thread.
pub(super) struct Queue {
    pub(super) jobs: mpsc::UnboundedSender<Task>,
    pub(super) metrics: Arc<Metrics>,
    /// So many wait at most.
    pub(super) most: u64,
    pub(super) streams: u64,
    /// What the last answers took, in milliseconds.
    pub(super) usual_ms: Arc<AtomicU64>,
}

impl Queue {
    /// An error where the queue is full: then a request need not be read.
    pub(super) fn expect_room(&self) -> Result<(), Problem> {
        if self.metrics.held.load(Relaxed) >= self.streams {
            add(&self.metrics.refused, 1);
            return Err(all_held());
        }
        match Waiting::take(&self.metrics, self.most + self.streams) {
            Some(_) => Ok(()),
            None => {
                add(&self.metrics.refused, 1);
                Err(self.full())
            }
        }
    }

    /// Asks for answers to the same, all or none of them.
    pub(super) fn ask(
        &self,
        work: &Work,
        answers: Vec<(AnswerSettings, Terms)>,
        cache: bool,
    ) -> Result<Vec<mpsc::Receiver<Event>>, Problem> {
        add(&self.metrics.requests, answers.len() as u64);
        let most = self.most + self.streams;
        let places = answers.iter().map(|_| Waiting::take(&self.metrics, most));
        let Some(places) = places.collect::<Option<Vec<_>>>() else {
            add(&self.metrics.refused, answers.len() as u64);
            return Err(self.full());
        };
        let asked = answers.into_iter().map(|(answer, terms)| {
            let (events, receiver) = mpsc::channel(PIECES);
            (Wanted { answer, terms, events }, receiver)
        });
        let (wanted, receivers) = asked.unzip();
        let job = Job { work: work.clone(), wanted, cache, waiting: places };
        self.jobs.send(Task::Answer(Box::new(job))).map_err(|_| Problem::ending())?;
        Ok(receivers)
    }

    fn full(&self) -> Problem {
        let waiting = self.metrics.deferred.load(Relaxed);
        let seconds = self.usual_ms.load(Relaxed) * waiting / self.streams.max(1) / 1000;
        let why = format!("{waiting} requests wait already, which is the most; try again later");
        Problem::new(axum::http::StatusCode::TOO_MANY_REQUESTS, why)
            .coded("queue_full")
            .retry_after(seconds.clamp(1, 60))
    }
}

/// Where sockets have all streams: they may have them for hours.
pub(super) fn all_held() -> Problem {
    let why = "every stream of the server is held by a page or a program over a socket: close one, or start the server with \
               more --streams";
    let problem = Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, why);
    problem.coded("streams_held").retry_after(5)
}
