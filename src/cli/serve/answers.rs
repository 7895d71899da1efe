//! One answer over one stream: of a conversation, or of a text that is gone on with.
use super::engine::Engine;
use super::job::{Asked, Event, Outcome};
use super::messages::behind_answer;
use super::metrics::{add, spend};
use super::problem::Problem;
use super::slots::{Memory, Plan, Used};
use axum::http::StatusCode;
use brooklet::Error;
use brooklet::chat::{
    AnswerSettings, Said, Script, Tags, Told, feed_in_turns, keep_beginning, next_turn,
};
use brooklet::session::{Ended, Read, Reading};
use brooklet::text::StopTexts;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;

type Answered = Result<Option<Outcome>, Problem>;

impl Engine {
    /// Answers a conversation. None where whoever asked has left.
    pub(super) async fn speak(
        &self,
        asked: &Arc<Asked>,
        answer: AnswerSettings,
        cache: bool,
        events: &Sender<Event>,
        until: Instant,
    ) -> Answered {
        let start = Instant::now();
        let known = if cache { self.slots.known(&asked.marks) } else { None };
        let (mut used, fed, held) = match known {
            Some((mut used, plan)) => {
                match self.go_on_with(&mut used, plan, asked, &answer, events, until).await {
                    Ok(fed) => (used, fed, plan),
                    // What a template cannot go on with, or a ring has lost, is told anew.
                    Err(error) if error.is_usage() || matches!(error, Error::Template(_)) => {
                        if !self.goes_on(events, until) {
                            self.noted(used.slot())?.memory = None;
                            return Ok(None);
                        }
                        let told = self.told(asked).await?;
                        let fed =
                            self.open(&mut used, asked, &told, false, &answer, events, until).await;
                        (used, self.noted(fed)?, Plan::Open)
                    }
                    Err(error) => return Err(self.failed(error)),
                }
            }
            None => {
                let told = self.told(asked).await?;
                let ids: &[u32] = if cache { &told.ids } else { &[] };
                let Some(mut used) = self.slots.any(ids) else { return Err(no_stream()) };
                let fed = self.open(&mut used, asked, &told, !cache, &answer, events, until).await;
                (used, self.noted(fed)?, Plan::Open)
            }
        };
        let Some(fed) = fed else { return Ok(None) };
        let prompt_time = start.elapsed();
        let script = asked.script.clone();
        let slot = used.slot().map_err(|error| self.failed(error))?;
        let last = slot.memory.take();
        let chat = slot.chat(&script).map_err(|error| self.failed(error))?;
        let (prompt, mut evicted) = (chat.session().position(), chat.session().evicted());
        let forgotten_before = chat.window().gone;
        let metrics = &self.shared.metrics;
        add(&metrics.prompt_tokens, fed);
        add(&metrics.cached_tokens, prompt.saturating_sub(fed));
        spend(&metrics.prompt_micros, prompt_time);
        let mut text = String::new();
        let mut shown = Shown::new(script.tags().filter(|_| asked.thoughts_in_text));
        let (decoding, mut there) = (Instant::now(), self.tell(events, Event::Fed).await);
        loop {
            if there && !self.goes_on(events, until) {
                used.slot().and_then(|slot| slot.chat(&script)).map_err(|e| self.failed(e))?.stop();
                there = !events.is_closed();
            }
            let chat =
                used.slot().and_then(|slot| slot.chat(&script)).map_err(|e| self.failed(e))?;
            if !there {
                chat.stop();
            }
            let said = chat.next().await.map_err(|error| self.failed(error))?;
            let (position, gone) = (chat.session().position(), chat.session().evicted());
            metrics.decoded(position);
            add(&metrics.evicted_tokens, gone - evicted);
            evicted = gone;
            used.look(|view| (view.position, view.evicted) = (position, gone));
            let Some(said) = said else { break };
            let said = shown.piece(said);
            if !said.thought {
                text.push_str(&said.text);
            }
            there = there && self.tell(events, Event::Piece(said)).await;
            next_turn().await;
        }
        let rest = shown.rest();
        if !rest.text.is_empty() && there {
            text.push_str(&rest.text);
            there = self.tell(events, Event::Piece(rest)).await;
        }
        let slot = used.slot().map_err(|error| self.failed(error))?;
        slot.memory = Some(remembered(asked, held, last, &text));
        let chat = slot.chat(&script).map_err(|error| self.failed(error))?;
        let window = chat.window();
        let (position, ended) = (chat.session().position(), chat.ended().unwrap_or(Ended::Stopped));
        add(&metrics.forgotten_messages, window.gone.saturating_sub(forgotten_before));
        let generated = position.saturating_sub(prompt);
        add(&metrics.predicted_tokens, generated);
        spend(&metrics.predicted_micros, decoding.elapsed());
        used.look(|view| {
            (view.messages, view.forgotten_messages) = (asked.marks.len() as u64, window.gone);
        });
        Ok(there.then(|| Outcome {
            ended,
            prompt,
            fed,
            prompt_ms: ms(prompt_time),
            generated,
            generated_ms: ms(decoding.elapsed()),
            position,
            evicted,
            forgotten: window.gone,
        }))
    }

    /// What a stream that holds the beginning of a conversation lacks of it. Gives how many tokens were fed.
    async fn go_on_with(
        &self,
        used: &mut Used<'_>,
        plan: Plan,
        asked: &Arc<Asked>,
        answer: &AnswerSettings,
        events: &Sender<Event>,
        until: Instant,
    ) -> Result<Option<u64>, Error> {
        let slot = used.slot()?;
        let chat = slot.chat(&asked.script)?;
        let from = match plan {
            Plan::Again => return chat.regenerate(answer).await.map(|()| Some(0)),
            Plan::Instead(from) => {
                chat.undo().await?;
                slot.memory = Some(Memory::of((asked.marks[from], from)));
                from
            }
            Plan::Follow(from) => from,
            Plan::Open => 0,
        };
        let of = asked.clone();
        let told = self.apart(move || of.script.following(&of.messages[from..])).await?;
        let slot = used.slot()?;
        let chat = slot.chat(&asked.script)?;
        chat.follow(asked.script.clone(), &told, answer, || self.goes_on(events, until)).await
    }

    /// Tells a stream all of a conversation.
    #[allow(clippy::too_many_arguments, reason = "each is a thing of its own")]
    async fn open(
        &self,
        used: &mut Used<'_>,
        asked: &Asked,
        told: &Told,
        anew: bool,
        answer: &AnswerSettings,
        events: &Sender<Event>,
        until: Instant,
    ) -> Result<Option<u64>, Error> {
        let slot = used.slot()?;
        slot.memory = None;
        let chat = slot.chat(&asked.script)?;
        let go_on = || self.goes_on(events, until);
        chat.open(asked.script.clone(), told, anew, answer, go_on).await
    }

    async fn told(&self, asked: &Arc<Asked>) -> Result<Told, Problem> {
        let (of, capacity) = (asked.clone(), self.room);
        let room = move |script: &Script| capacity.saturating_sub(script.head().len());
        self.noted(self.apart(move || of.script.told(&of.messages, room(&of.script))).await)
    }

    /// Computes what needs no device in another thread, while other answers go on here.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let lost = |_| Error::Usage("the server is ending".into());
        self.runtime.spawn_blocking(work).await.map_err(lost)?
    }

    /// Goes on with a text.
    pub(super) async fn go_on(
        &self,
        ids: &[u32],
        answer: AnswerSettings,
        cache: bool,
        events: &Sender<Event>,
        until: Instant,
    ) -> Answered {
        let start = Instant::now();
        let Some(mut used) = self.slots.any(if cache { ids } else { &[] }) else {
            return Err(no_stream());
        };
        let tokenizer = self.tokenizer.clone();
        let metrics = &self.shared.metrics;
        let slot = self.noted(used.slot())?;
        slot.memory = None;
        let session = self.noted(slot.bare())?;
        if !cache {
            session.reset();
        }
        let there = self.noted(keep_beginning(session, ids).await)?;
        let fed = feed_in_turns(session, &ids[there..], || self.goes_on(events, until)).await;
        let fed = self.noted(fed)?;
        if there + fed < ids.len() {
            return Ok(None);
        }
        let prompt_time = start.elapsed();
        add(&metrics.prompt_tokens, fed as u64);
        add(&metrics.cached_tokens, there as u64);
        spend(&metrics.prompt_micros, prompt_time);
        let mut generation = self.noted(session.generate(answer.sampling, &[]))?;
        generation.set_pace(answer.pace);
        session.recent().for_each(|id| generation.accept(id));
        let mut reading =
            Reading::new(generation, tokenizer.eog(), StopTexts::new(answer.stop), answer.tokens);
        let (decoding, mut evicted) = (Instant::now(), session.evicted());
        let mut reads = self.tell(events, Event::Fed).await;
        let ended = loop {
            reads = reads && !events.is_closed();
            if !reads || !self.goes_on(events, until) {
                break Ended::Stopped;
            }
            let session = self.noted(used.slot().and_then(|slot| slot.bare()))?;
            let read = self.noted(reading.next(session, &tokenizer).await)?;
            let (position, gone) = (session.position(), session.evicted());
            metrics.decoded(position);
            add(&metrics.evicted_tokens, gone - evicted);
            evicted = gone;
            used.look(|view| (view.position, view.evicted) = (position, gone));
            match read {
                Read::End(why) => break why,
                Read::Token { text, .. } if text.is_empty() => {}
                Read::Token { text, .. } => reads = self.tell(events, piece(text)).await,
            }
            next_turn().await;
        };
        let rest = reading.finish();
        if !rest.is_empty() && reads {
            reads = self.tell(events, piece(rest)).await;
        }
        let session = self.noted(used.slot().and_then(|slot| slot.bare()))?;
        let (prompt, position) = (ids.len() as u64, session.position());
        let generated = position.saturating_sub(prompt);
        add(&metrics.predicted_tokens, generated);
        spend(&metrics.predicted_micros, decoding.elapsed());
        used.look(|view| (view.messages, view.forgotten_messages) = (0, 0));
        Ok(reads.then(|| Outcome {
            ended,
            prompt,
            fed: fed as u64,
            prompt_ms: ms(prompt_time),
            generated,
            generated_ms: ms(decoding.elapsed()),
            position,
            evicted,
            forgotten: 0,
        }))
    }

    fn noted<T>(&self, result: Result<T, Error>) -> Result<T, Problem> {
        result.map_err(|error| self.failed(error))
    }

    /// An error as it is told; of the device, nothing works any more.
    fn failed(&self, error: Error) -> Problem {
        if matches!(error, Error::DeviceLost(_)) {
            self.shared.failed.store(true, Relaxed);
        }
        error.into()
    }
}

fn piece(text: String) -> Event {
    Event::Piece(Said { text, thought: false })
}

fn no_stream() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no stream is free, though one should be")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
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
    let asked = (marks[all], all);
    Memory { before, asked, answered: (behind_answer(&marks[all], answer), all + 1) }
}

/// Thoughts between their tags, where they are to stay in the text.
struct Shown {
    tags: Option<Tags>,
    thinking: bool,
}

impl Shown {
    fn new(tags: Option<&Tags>) -> Self {
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
        Said {
            text: close.map_or(String::new(), |tags| format!("\n{}", tags.close)),
            thought: false,
        }
    }
}
