//! The thread that owns the device: every request that is under way is a future here, and they take turns after each token.
use super::answers::Answered;
use super::job::{Event, Job, Task, Wanted, Work, all_held};
use super::metrics::{Metrics, add};
use super::problem::Problem;
use super::slots::Slots;
use axum::http::StatusCode;
use brooklet::text::Tokenizer;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// Whoever has read nothing for so long has left.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the engine's thread and the others share.
#[derive(Clone, Default)]
pub(super) struct Shared {
    pub(super) metrics: Arc<Metrics>,
    /// What is under way has to end where it is.
    pub(super) ends: Arc<AtomicBool>,
    /// The device has failed: nothing will work any more.
    pub(super) failed: Arc<AtomicBool>,
    pub(super) usual_ms: Arc<AtomicU64>,
}

/// All streams, and what is needed to answer over them.
pub(super) struct Engine {
    pub(super) slots: Slots,
    /// One for each of them.
    pub(super) permits: Semaphore,
    pub(super) shared: Shared,
    /// Tokens that a conversation which is told anew may have beside its head.
    pub(super) room: usize,
    /// Where what needs no device is computed.
    pub(super) runtime: tokio::runtime::Handle,
    /// An answer ends after so long.
    pub(super) longest: Duration,
    pub(super) tokenizer: Arc<Tokenizer>,
}

impl Engine {
    /// Until nobody can ask any more and all is answered.
    pub(super) async fn run(&self, mut jobs: mpsc::UnboundedReceiver<Task>) {
        let _timers = self.runtime.enter();
        let mut under_way = FuturesUnordered::new();
        let mut open = true;
        while open || !under_way.is_empty() {
            if under_way.is_empty() {
                match jobs.recv().await {
                    Some(task) => under_way.push(self.perform(task)),
                    None => open = false,
                }
                continue;
            }
            if !open {
                under_way.next().await;
                continue;
            }
            // Who asks comes before who is under way: a new request joins at the next token.
            let asked = match select(pin!(jobs.recv()), under_way.next()).await {
                Either::Left((asked, _)) => asked,
                Either::Right(_) => continue,
            };
            match asked {
                Some(task) => under_way.push(self.perform(task)),
                None => open = false,
            }
        }
    }

    async fn perform(&self, task: Task) {
        match task {
            Task::Answer(job) => self.answer(*job).await,
            Task::Host(connection) => self.host(*connection).await,
        }
    }

    /// Comes back when sockets have too many streams for so many answers: what waits then might wait for hours.
    async fn all_held(&self, answers: u64) {
        let (metrics, streams) = (&self.shared.metrics, self.slots.views.len() as u64);
        while metrics.held.load(Relaxed) + answers <= streams {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Waits for as many streams as answers are wanted, and answers.
    async fn answer(&self, job: Job) {
        let Job { work, wanted, cache, waiting } = job;
        let (metrics, count) = (&self.shared.metrics, wanted.len());
        let Some(first) = wanted.first() else { return };
        let permits = {
            let (closed, held) = (pin!(first.events.closed()), pin!(self.all_held(count as u64)));
            let permits = pin!(self.permits.acquire_many(count as u32));
            match select(permits, select(closed, held)).await {
                Either::Left((permits, _)) => permits,
                Either::Right((Either::Left(_), _)) => {
                    return add(&metrics.cancelled, count as u64);
                }
                Either::Right((Either::Right(_), _)) => {
                    add(&metrics.refused, count as u64);
                    for Wanted { events, .. } in &wanted {
                        tell(events, Event::Failed(all_held())).await;
                    }
                    return;
                }
            }
        };
        metrics.processing.fetch_add(count as u64, Relaxed);
        drop(waiting);
        let start = Instant::now();
        let begun = match &work {
            _ if self.shared.ends.load(Relaxed) => Err(Problem::ending()),
            Work::Messages(asked) => self.begin_answers(asked, &wanted, cache).await,
            Work::Text(ids) => self.begin_texts(ids, &wanted, cache).await,
        };
        let mut permits = permits.ok();
        let mut begun = begun.map(|begun| begun.map(Vec::into_iter));
        let answers = wanted.into_iter().map(|Wanted { terms, answer, events }| {
            let permit = permits.as_mut().and_then(|permits| permits.split(1));
            let begun = match &mut begun {
                Ok(begun) => Ok(begun.as_mut().and_then(Iterator::next)),
                Err(problem) => Err(problem.clone()),
            };
            let work = &work;
            async move {
                let answered = match (begun, work) {
                    (Err(problem), _) => Err(problem),
                    (Ok(None), _) => Ok(None),
                    (Ok(Some(begun)), Work::Messages(asked)) => {
                        self.speak(asked, begun, terms, &events).await
                    }
                    (Ok(Some(begun)), Work::Text(_)) => {
                        self.go_on(begun, &answer, terms, &events).await
                    }
                };
                drop(permit);
                self.tell_end(answered, start, &events).await;
            }
        });
        join_all(answers).await;
    }

    /// An answer has come to its end.
    async fn tell_end(&self, answered: Answered, start: Instant, events: &mpsc::Sender<Event>) {
        let metrics = &self.shared.metrics;
        metrics.processing.fetch_sub(1, Relaxed);
        let last = match answered {
            Ok(None) if events.is_closed() => return add(&metrics.cancelled, 1),
            Ok(None) => Err(self.cut_short()),
            Ok(Some(outcome)) => Ok(outcome),
            Err(problem) => Err(problem),
        };
        let last = match last {
            Ok(outcome) => {
                self.took(start.elapsed());
                Event::End(Box::new(outcome))
            }
            Err(problem) => {
                self.shared.failed.fetch_or(problem.is_fatal, Relaxed);
                add(&metrics.failed, u64::from(problem.status.is_server_error()));
                Event::Failed(problem)
            }
        };
        tell(events, last).await;
    }

    /// Why an answer has ended before its prompt was read, though somebody waits for it.
    fn cut_short(&self) -> Problem {
        if self.shared.ends.load(Relaxed) {
            return Problem::ending();
        }
        let why = "the messages took longer to read than an answer may take (--timeout)";
        Problem::new(StatusCode::GATEWAY_TIMEOUT, why)
    }

    /// What whoever is told to come again is told when.
    fn took(&self, time: Duration) {
        let usual = &self.shared.usual_ms;
        usual.store((3 * usual.load(Relaxed) + time.as_millis() as u64) / 4, Relaxed);
    }
}

/// Gives an event to whoever reads. False where nobody does any more.
pub(super) async fn tell(events: &mpsc::Sender<Event>, event: Event) -> bool {
    matches!(tokio::time::timeout(PATIENCE, events.send(event)).await, Ok(Ok(())))
}
