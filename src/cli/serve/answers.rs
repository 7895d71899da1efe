//! One answer over one stream: of a conversation, or of a text that is gone on with.
use super::engine::Engine;
use super::job::{Asked, Event, Outcome, Terms, Wanted};
use super::messages::behind_answer;
use super::metrics::add;
use super::problem::Problem;
use super::slots::{Memory, Plan, Slot, Used};
use super::turn::Turn;
use axum::http::StatusCode;
use brooklet::Error;
use brooklet::chat::{AnswerSettings, Said, Tags, Told, feed_in_turns, keep_beginning, next_turn};
use brooklet::session::{Ended, Read, Reading};
use brooklet::text::StopTexts;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::Sender;

/// None where whoever asked has left.
pub(super) type Answered = Result<Option<Outcome>, Problem>;

/// Streams that hold what is answered: one for each answer. None where whoever asked has left.
type Begun<T> = Result<Option<Vec<T>>, Problem>;

/// A stream that holds a conversation, or a text, and is ready to answer it.
pub(super) struct Opened<'a> {
    used: Used<'a>,
    plan: Plan,
    /// What the stream was known for before.
    last: Option<Memory>,
    /// Tokens that it was fed.
    fed: u64,
    forgotten: u64,
    /// When whoever asked began to wait.
    start: Instant,
}

impl Engine {
    /// Gets a stream ready for each answer to a conversation: the first is told it, the others are its forks.
    pub(super) async fn begin_answers(
        &self,
        asked: &Arc<Asked>,
        wanted: &[Wanted],
        cache: bool,
    ) -> Begun<Opened<'_>> {
        let Some((first, others)) = wanted.split_first() else { return Ok(None) };
        let start = Instant::now();
        let turn = Turn::new(self, &first.events, start);
        let Some((mut used, plan, fed)) = self.prepared(asked, &first.answer, cache, &turn).await?
        else {
            return Ok(None);
        };
        // Until it is known what the stream holds, it is known for nothing.
        let last = used.slot.memory.take();
        let forgotten = if plan == Plan::Open { 0 } else { used.view().forgotten_messages };
        let first = Opened { used, plan, last, fed, forgotten, start };
        self.with_forks(first, others, |origin, twin, Wanted { answer, .. }| {
            let origin = origin.chat(&asked.script)?;
            twin.chat(&asked.script)?.fork_from(origin, answer)
        })
    }

    /// Answers a conversation.
    pub(super) async fn speak(
        &self,
        asked: &Arc<Asked>,
        opened: Opened<'_>,
        terms: Terms,
        events: &Sender<Event>,
    ) -> Answered {
        let Opened { mut used, plan, last, fed, forgotten, start } = opened;
        let mut turn = Turn::new(self, events, start);
        let chat = used.slot.chat(&asked.script)?;
        terms.constraint.into_iter().for_each(|constraint| chat.constrain(constraint));
        terms.watch.into_iter().for_each(|top| chat.watch(top));
        turn.begin(chat.session(), fed).await;
        let (mut text, mut shown) = (String::new(), Shown::new(asked));
        loop {
            let chat = used.slot.chat(&asked.script)?;
            if !turn.goes_on() {
                chat.stop();
            }
            let said = chat.next().await?;
            let watched = chat.take_watched();
            if let Some(session) = used.slot.session() {
                turn.note(session, &used);
            }
            let Some(said) = said else {
                turn.say(Said { text: String::new(), thought: false }, watched).await;
                break;
            };
            let said = shown.piece(said);
            if !said.thought {
                text.push_str(&said.text);
            }
            turn.say(said, watched).await;
            next_turn().await;
        }
        let rest = shown.rest();
        text.push_str(&rest.text);
        turn.say(rest, Vec::new()).await;
        used.slot.memory = Some(remembered(asked, plan, last, &text));
        let chat = used.slot.chat(&asked.script)?;
        let gone = chat.window().gone;
        add(&self.shared.metrics.forgotten_messages, gone.saturating_sub(forgotten));
        let ended = chat.ended().unwrap_or(Ended::Stopped);
        let outcome = turn.end(chat.session(), ended, gone);
        used.look(|view| {
            (view.messages, view.forgotten_messages) = (asked.marks.len() as u64, gone);
        });
        Ok(outcome)
    }

    /// A stream that holds the conversation and is ready to answer it; how it came to, and how many tokens it was fed.
    async fn prepared(
        &self,
        asked: &Arc<Asked>,
        answer: &AnswerSettings,
        cache: bool,
        turn: &Turn<'_>,
    ) -> Result<Option<(Used<'_>, Plan, u64)>, Problem> {
        let known = if cache { self.slots.known(asked) } else { None };
        let used = match known {
            None => None,
            Some((mut used, plan)) => match self
                .go_on_with(&mut used, plan, asked, answer, turn)
                .await
            {
                Ok(fed) => return Ok(fed.map(|fed| (used, plan, fed))),
                // What a template cannot go on with, or a ring has lost, is told anew.
                Err(error) if error.is_usage() || matches!(error, Error::Template(_)) => Some(used),
                Err(error) => return Err(error.into()),
            },
        };
        if !turn.goes_on() {
            return Ok(None);
        }
        let (of, capacity) = (asked.clone(), self.room);
        let told = self.apart(move || {
            let room = capacity.saturating_sub(of.script.head().len());
            of.script.told(&of.messages, room)
        });
        let told = told.await?;
        let used = used.or_else(|| self.slots.any(if cache { &told.ids } else { &[] }));
        let mut used = used.ok_or_else(no_stream)?;
        let fed = open(&mut used, asked, &told, !cache, answer, turn).await?;
        Ok(fed.map(|fed| (used, Plan::Open, fed)))
    }

    /// Feeds what a stream that holds the beginning of a conversation lacks of it, and gives how many tokens that was.
    async fn go_on_with(
        &self,
        used: &mut Used<'_>,
        plan: Plan,
        asked: &Arc<Asked>,
        answer: &AnswerSettings,
        turn: &Turn<'_>,
    ) -> Result<Option<u64>, Error> {
        let chat = used.slot.chat(&asked.script)?;
        let from = match plan {
            Plan::Again => return chat.regenerate(answer).await.map(|()| Some(0)),
            Plan::Instead(from) => {
                chat.undo().await?;
                used.slot.memory = Some(Memory::of((asked.marks[from], from)));
                from
            }
            Plan::Follow(from) => from,
            Plan::Open => 0,
        };
        let of = asked.clone();
        let told = self.apart(move || of.script.following(&of.messages[from..])).await?;
        let chat = used.slot.chat(&asked.script)?;
        chat.follow(asked.script.clone(), &told, answer, || turn.goes_on()).await
    }

    /// Computes what needs no device in another thread, while other answers go on here.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let lost = |_| Error::Usage("the server is ending".into());
        self.runtime.spawn_blocking(work).await.map_err(lost)?
    }

    /// Gets a stream ready for each text that goes on with these ids: the first is fed them, the others are its forks.
    pub(super) async fn begin_texts(
        &self,
        ids: &[u32],
        wanted: &[Wanted],
        cache: bool,
    ) -> Begun<Opened<'_>> {
        let Some((first, others)) = wanted.split_first() else { return Ok(None) };
        let start = Instant::now();
        let turn = Turn::new(self, &first.events, start);
        let mut used = self.slots.any(if cache { ids } else { &[] }).ok_or_else(no_stream)?;
        used.slot.memory = None;
        let session = used.slot.bare()?;
        if !cache {
            session.reset();
        }
        let there = keep_beginning(session, ids).await?;
        let fed = feed_in_turns(session, &ids[there..], || turn.goes_on()).await?;
        if there + fed < ids.len() {
            return Ok(None);
        }
        let (plan, fed) = (Plan::Open, fed as u64);
        let first = Opened { used, plan, last: None, fed, forgotten: 0, start };
        self.with_forks(first, others, |origin, twin, _| twin.bare()?.fork_from(origin.bare()?))
    }

    /// The first stream, and a fork of it for each of the others: `fork` makes what one holds of what the first does.
    fn with_forks<'a>(
        &'a self,
        mut first: Opened<'a>,
        others: &[Wanted],
        fork: impl Fn(&mut Slot, &mut Slot, &Wanted) -> Result<(), Error>,
    ) -> Begun<Opened<'a>> {
        let mut all = Vec::with_capacity(others.len() + 1);
        for wanted in others {
            let mut used = self.slots.any(&[]).ok_or_else(no_stream)?;
            used.slot.memory = None;
            fork(&mut first.used.slot, &mut used.slot, wanted)?;
            all.push(Opened { used, last: first.last.clone(), fed: 0, ..first });
        }
        all.insert(0, first);
        Ok(Some(all))
    }

    /// Goes on with a text.
    pub(super) async fn go_on(
        &self,
        opened: Opened<'_>,
        answer: &AnswerSettings,
        terms: Terms,
        events: &Sender<Event>,
    ) -> Answered {
        let Opened { mut used, fed, start, .. } = opened;
        let mut turn = Turn::new(self, events, start);
        let session = used.slot.bare()?;
        let mut generation = session.generate_on(answer.sampling.clone(), &[], answer.pace)?;
        terms.constraint.into_iter().for_each(|constraint| generation.constrain(constraint));
        terms.watch.into_iter().for_each(|top| generation.watch(top));
        let stop = StopTexts::new(answer.stop.iter().cloned());
        let mut reading = Reading::new(generation, self.tokenizer.eog(), stop, answer.tokens);
        turn.begin(session, fed).await;
        let ended = loop {
            if !turn.goes_on() {
                break Ended::Stopped;
            }
            let session = used.slot.bare()?;
            let read = reading.next(session, &self.tokenizer).await?;
            if let Some(session) = used.slot.session() {
                turn.note(session, &used);
            }
            match read {
                Read::End(why) => break why,
                Read::Token { token, text } => {
                    let logprobs = reading.generation().logprobs().cloned();
                    let watched = logprobs.map(|logprobs| (token, logprobs));
                    turn.say(Said { text, thought: false }, watched.into_iter().collect()).await;
                }
            }
            next_turn().await;
        };
        turn.say(Said { text: reading.finish(), thought: false }, Vec::new()).await;
        used.look(|view| (view.messages, view.forgotten_messages) = (0, 0));
        Ok(turn.end(used.slot.bare()?, ended, 0))
    }
}

/// Tells a stream all of a conversation.
async fn open(
    used: &mut Used<'_>,
    asked: &Asked,
    told: &Told,
    anew: bool,
    answer: &AnswerSettings,
    turn: &Turn<'_>,
) -> Result<Option<u64>, Error> {
    used.slot.memory = None;
    let chat = used.slot.chat(&asked.script)?;
    chat.open(asked.script.clone(), told, anew, answer, || turn.goes_on()).await
}

fn no_stream() -> Problem {
    let why = "no stream is free, though one should be";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why)
}

/// What a stream is known again by behind an answer.
fn remembered(asked: &Asked, plan: Plan, last: Option<Memory>, answer: &str) -> Memory {
    let marks = &asked.marks;
    let all = marks.len() - 1;
    let before = match plan {
        Plan::Follow(from) | Plan::Instead(from) => (marks[from], from),
        Plan::Again => last.map_or((marks[0], 0), |last| last.before),
        Plan::Open => (marks[0], 0),
    };
    let answered = (behind_answer(&marks[all], answer), all + 1);
    Memory { before, asked: (marks[all], all), answered, thinking: asked.thinking }
}

/// Thoughts between their tags, where they are to stay in the text.
struct Shown {
    tags: Option<Tags>,
    thinking: bool,
}

impl Shown {
    fn new(asked: &Asked) -> Self {
        let tags = asked.script.tags().filter(|_| asked.thoughts_in_text);
        Self { tags: tags.cloned(), thinking: false }
    }

    fn piece(&mut self, said: Said) -> Said {
        let Some(Tags { open, close, .. }) = &self.tags else { return said };
        let before = match (self.thinking, said.thought) {
            (false, true) => format!("{open}\n"),
            (true, false) => format!("\n{close}\n\n"),
            _ => String::new(),
        };
        self.thinking = said.thought;
        Said { text: before + &said.text, thought: false }
    }

    /// What closes thoughts that nothing follows.
    fn rest(&self) -> Said {
        let close = self.tags.as_ref().filter(|_| self.thinking);
        let text = close.map_or(String::new(), |tags| format!("\n{}", tags.close));
        Said { text, thought: false }
    }
}
