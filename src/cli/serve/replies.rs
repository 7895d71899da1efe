//! From what the engine's thread tells to a response: all at once, or as server-sent events.
use super::job::{Event, Outcome};
use super::problem::Problem;
use super::shapes::{Choice, Head};
use axum::Json;
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SelectAll, StreamExt, poll_fn, select_all, unfold};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

/// What comes before the first text, if it comes soon: an error with its status, instead of one in a stream.
const SOON: Duration = Duration::from_secs(10);

fn lost() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the engine has ended before the answer did")
}

/// The answers as one object.
pub(super) async fn whole(head: Head, answers: Vec<Receiver<Event>>) -> Result<Response, Problem> {
    let choices = futures_util::future::try_join_all(answers.into_iter().map(choice)).await?;
    Ok(Json(head.whole(choices)).into_response())
}

async fn choice(mut events: Receiver<Event>) -> Result<Choice, Problem> {
    let (mut text, mut thoughts, mut watched) = (String::new(), String::new(), Vec::new());
    loop {
        match events.recv().await.ok_or_else(lost)? {
            Event::Fed => {}
            Event::Piece(said, more) => {
                watched.extend(more);
                if said.thought { &mut thoughts } else { &mut text }.push_str(&said.text);
            }
            Event::Failed(problem) => return Err(problem),
            Event::End(outcome) => {
                return Ok(Choice { text, thoughts, watched, outcome: *outcome });
            }
        }
    }
}

/// The answers as a stream. What is wrong with a request is an error of its own where it is known soon.
pub(super) async fn streamed(
    head: Head,
    mut answers: Vec<Receiver<Event>>,
    include_usage: bool,
    keep_alive: Duration,
) -> Result<Response, Problem> {
    let mut ready = VecDeque::new();
    if let Some(first) = answers.first_mut() {
        match tokio::time::timeout(SOON, first.recv()).await {
            Ok(Some(Event::Failed(problem))) => return Err(problem),
            Ok(None) => return Err(lost()),
            Ok(Some(_)) | Err(_) => {}
        }
    }
    ready.extend(
        (0..answers.len()).filter_map(|index| head.first(index)).map(|chunk| chunk.to_string()),
    );
    let events = answers.into_iter().enumerate().map(|(index, mut events)| {
        poll_fn(move |context| events.poll_recv(context)).map(move |event| (index, event)).boxed()
    });
    let chunks = Chunks {
        head,
        events: select_all(events),
        ready,
        ends: Vec::new(),
        include_usage,
        done: false,
    };
    let stream = unfold(chunks, Chunks::next);
    // Whoever stands between may buffer, unless it is told.
    let headers = [("x-accel-buffering", "no"), ("cache-control", "no-cache")];
    let sse = Sse::new(stream).keep_alive(KeepAlive::new().interval(keep_alive));
    Ok((headers, sse).into_response())
}

type Events = futures_util::stream::BoxStream<'static, (usize, Event)>;

/// Events on their way to chunks.
struct Chunks {
    head: Head,
    events: SelectAll<Events>,
    /// Chunks that are to be sent.
    ready: VecDeque<String>,
    /// Of the choices that have come to their end.
    ends: Vec<Outcome>,
    include_usage: bool,
    done: bool,
}

impl Chunks {
    async fn next(mut self) -> Option<(Result<sse::Event, Infallible>, Self)> {
        loop {
            if let Some(text) = self.ready.pop_front() {
                return Some((Ok(sse::Event::default().data(text)), self));
            }
            if self.done {
                return None;
            }
            let chunk = match self.events.next().await {
                Some((_, Event::Fed)) => continue,
                Some((index, Event::Piece(said, watched))) => {
                    self.head.piece(index, &said, &watched)
                }
                Some((index, Event::End(outcome))) => {
                    let chunk = self.head.last(index, &outcome);
                    self.ends.push(*outcome);
                    chunk
                }
                Some((_, Event::Failed(problem))) => {
                    self.done = true;
                    problem.object()
                }
                None => {
                    self.done = true;
                    self.finish();
                    continue;
                }
            };
            self.ready.push_back(chunk.to_string());
        }
    }

    /// Behind the last chunk of all choices.
    fn finish(&mut self) {
        if self.ends.is_empty() {
            return self.ready.push_back(lost().object().to_string());
        }
        if self.include_usage {
            self.ready.push_back(self.head.usage(&self.ends).to_string());
        }
        self.ready.push_back("[DONE]".into());
    }
}
