//! A conversation over a session that never has to end.
//!
//! | file | what it holds |
//! |---|---|
//! | `script` | what the model's template makes of it, turn by turn, without the history |
//! | `thoughts` | thoughts told apart from the answer |
//! | `sight` | which messages the model can still look back on |
//! | `again` | a turn taken back and said anew, or all of it told anew |
//! | `told` | messages of any role: a conversation opened with all of its messages, or gone on with |
//! | `saved` | a conversation as bytes |
//!
//! The system prompt is the sinks and never leaves; everything after it flows through the ring. A turn feeds its own
//! tokens and nothing else, however long the conversation is. The texts of messages are not kept here: they are the
//! front end's. `docs/chat.md` has the rules.
mod again;
mod saved;
mod script;
mod sight;
mod thoughts;
mod told;

use crate::model::{CacheSettings, Model, Policy};
use crate::session::{Constraint, Ended, Logprobs, Pace, Read, Reading, Session};
use crate::text::{SamplerSettings, StopTexts};
use crate::{Error, Result};
pub use again::Again;
pub use script::{Message, Script, encoded};
use sight::Sight;
pub use sight::{Role, Seen, Sighted, Window};
use std::collections::VecDeque;
use std::sync::Arc;
pub use thoughts::{Said, Splitter, Tags};
pub use told::{Told, beginning, feed_in_turns, keep_beginning, next_turn};

/// The tokens of a conversation that are seen at once, where nobody has a wish of his own.
const USUAL_CAPACITY: usize = 4096;
/// The least number of sinks: with fewer of them streams are known to break.
const LEAST_SINKS: usize = 4;

/// How an answer is made.
#[derive(Clone, Debug)]
pub struct AnswerSettings {
    /// How its tokens are chosen.
    pub sampling: SamplerSettings,
    /// It has so many tokens at most.
    pub tokens: u64,
    /// Texts that end it.
    pub stop: Vec<String>,
    /// How far the device may work ahead.
    pub pace: Pace,
}

impl Default for AnswerSettings {
    fn default() -> Self {
        let (sampling, pace) = (SamplerSettings::default(), Pace::default());
        Self { sampling, tokens: u64::MAX, stop: Vec::new(), pace }
    }
}

/// The last turn: where it and its answer begin, and which tokens come before them.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Turn {
    start: u64,
    before: Option<u32>,
    answer: u64,
    prompt: u32,
}

/// A conversation with a model.
pub struct Chat {
    script: Arc<Script>,
    session: Session,
    sight: Sight,
    turn: Option<Turn>,
    reading: Option<Reading>,
    splitter: Splitter,
    /// What is known to be said, and was not given out yet.
    said: VecDeque<Said>,
    ended: Option<Ended>,
    /// Tokens that were fed, not generated.
    fed: u64,
    /// Tokens that were generated, where they are watched.
    watched: Vec<(u32, Logprobs)>,
}

impl Chat {
    /// The sinks of a conversation: all of its head, and as many as streams need.
    pub fn sinks(script: &Script) -> usize {
        script.head().len().max(LEAST_SINKS)
    }

    /// The cache of a conversation: the script's head as sinks, and a window that fills `capacity` with them; without
    /// one, what the model was trained on, up to 4096. `chunk`, `kv` and `activations` are those of `settings`.
    pub fn cache(
        script: &Script,
        settings: CacheSettings,
        capacity: Option<usize>,
        trained: usize,
    ) -> Result<CacheSettings> {
        let capacity = capacity.unwrap_or(trained.min(USUAL_CAPACITY));
        let (head, sinks) = (script.head().len(), Self::sinks(script));
        if sinks > capacity / 2 {
            return Err(Error::Usage(format!(
                "the system prompt has {head} tokens, and the cache holds {capacity}, of which half is the most that \
                 is kept for it: make the cache larger or the system prompt shorter"
            )));
        }
        Ok(Self::with_ring(settings, sinks, capacity - sinks))
    }

    /// The cache of a stream that conversations with any system prompt go through, one after another. The sinks are as many
    /// for all of them: without a wish a quarter of what is seen at once. A longer system prompt has no place in it, and
    /// behind a shorter one the first messages stay as well.
    pub fn cache_for_any(
        settings: CacheSettings,
        sinks: Option<usize>,
        window: Option<usize>,
        trained: usize,
    ) -> Result<CacheSettings> {
        let capacity = match (sinks, window) {
            (Some(sinks), Some(window)) => sinks.saturating_add(window),
            (None, Some(window)) => window.saturating_add(window / 3),
            (_, None) => trained.min(USUAL_CAPACITY),
        };
        let sinks = sinks.unwrap_or(capacity / 4).max(LEAST_SINKS);
        if sinks > capacity / 2 {
            let works =
                format!("half of what the cache holds is the most, which is {}", capacity / 2);
            return Err(Error::Setting { which: "sinks", found: sinks.to_string(), works });
        }
        Ok(Self::with_ring(settings, sinks, window.unwrap_or(capacity - sinks)))
    }

    fn with_ring(settings: CacheSettings, sinks: usize, window: usize) -> CacheSettings {
        // An answer can be taken back as far as the ring is longer than the window.
        let spare = settings.chunk.max((window / 4).min(256));
        let ring = settings.ring.unwrap_or(window + spare);
        CacheSettings { policy: Policy::Streaming, sinks, window, ring: Some(ring), ..settings }
    }

    /// Makes room for a conversation. `settings` are what [`Chat::cache`] gave.
    pub async fn new(model: Arc<Model>, script: Script, settings: CacheSettings) -> Result<Self> {
        let session = Session::new(model, settings).await?;
        Ok(Self::over(session, script))
    }

    /// A conversation over a session in which nothing was said yet.
    pub fn over(session: Session, script: impl Into<Arc<Script>>) -> Self {
        Self {
            script: script.into(),
            session,
            sight: Sight::default(),
            turn: None,
            reading: None,
            splitter: Splitter::default(),
            said: VecDeque::new(),
            ended: None,
            fed: 0,
            watched: Vec::new(),
        }
    }

    /// What the template makes of it.
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// Whether the model should think first, from the next turn on; none as its template has it.
    pub fn set_thinking(&mut self, thinking: Option<bool>) -> Result<()> {
        Arc::make_mut(&mut self.script).set_thinking(thinking)
    }

    /// The session it goes through.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The same, to set it: whoever feeds it breaks the conversation.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The session without the conversation.
    pub fn into_session(self) -> Session {
        self.session
    }

    /// Tokens that were fed since the conversation began, not generated.
    pub fn fed(&self) -> u64 {
        self.fed
    }

    /// Starts anew, with the same system prompt.
    pub fn clear(&mut self) {
        self.stop();
        self.session.reset();
        (self.sight, self.turn, self.ended, self.fed) = (Sight::default(), None, None, 0);
    }

    /// Says something to the model and gets ready to read its answer with [`Chat::next`]. An answer that is not
    /// finished ends where it is. `go_on` is asked before each submission: where it says no, the turn is taken back and
    /// false comes of it.
    pub async fn send(
        &mut self,
        text: &str,
        answer: &AnswerSettings,
        go_on: impl FnMut() -> bool,
    ) -> Result<bool> {
        answer.sampling.check()?;
        self.stop();
        let last = self.session.recent().next_back();
        let ids = match last {
            None => self.script.first(text)?,
            Some(last) => self.lacking(last, self.script.next(text)?).await?,
        };
        let Some(&prompt) = ids.last() else { return Err(says_nothing()) };
        let (start, before) = (self.session.position(), self.session.recent().next_back());
        let fed = self.session.feed_while(&ids, go_on).await?;
        if fed < ids.len() {
            self.take_back_part(fed, ids.len(), before).await?;
            return Ok(false);
        }
        self.fed += fed as u64;
        let position = self.session.position();
        self.sight.begin(Role::User, self.behind_head(start));
        self.sight.reach(position);
        self.turn = Some(Turn { start, before, answer: position, prompt });
        self.begin(answer)?;
        Ok(true)
    }

    /// Takes back what was fed of a turn that was to end before all of it was.
    async fn take_back_part(&mut self, fed: usize, of: usize, before: Option<u32>) -> Result<()> {
        self.turn = None;
        self.take_back(fed as u64, before).await.map_err(|error| match error.is_usage() {
            true => Error::Usage(format!(
                "the model has read {fed} of the message's {of} tokens, which cannot be taken back: the conversation \
                 goes on from there",
            )),
            false => error,
        })
    }

    /// What of a turn's ids the stream lacks. An end token that is not the turn's own is taken out of the stream.
    async fn lacking(&mut self, last: u32, mut turn: Vec<u32>) -> Result<Vec<u32>> {
        match self.script.lacks(last, &turn) {
            Some(at) => Ok(turn.split_off(at)),
            None => {
                let before = self.session.recent().rev().nth(1);
                match self.take_back(1, before).await {
                    // Where nothing can be taken back, two ends are better than none.
                    Err(error) if !error.is_usage() => Err(error),
                    _ => Ok(turn),
                }
            }
        }
    }

    /// Where a message begins whose turn does here: the head is nobody's.
    fn behind_head(&self, start: u64) -> u64 {
        if start == 0 { self.script.head().len() as u64 } else { start }
    }

    async fn take_back(&mut self, tokens: u64, before: Option<u32>) -> Result<()> {
        match before {
            _ if tokens == 0 => {}
            Some(before) => self.session.rewind(tokens, before).await?,
            None => self.session.reset(),
        }
        self.sight.cut(self.session.position());
        Ok(())
    }

    fn begin(&mut self, answer: &AnswerSettings) -> Result<()> {
        let generation = self.session.generate_on(answer.sampling.clone(), &[], answer.pace)?;
        let stop = StopTexts::new(answer.stop.iter().cloned());
        let ends = self.script.tokenizer().eog();
        self.reading = Some(Reading::new(generation, ends, stop, answer.tokens));
        self.splitter = Splitter::new(self.script.tags().cloned(), self.script.thinks());
        self.said.clear();
        self.watched.clear();
        self.ended = None;
        self.sight.begin(Role::Assistant, self.session.position());
        Ok(())
    }

    /// Holds the answer to rules from its beginning on: between what asks for it and the first [`Chat::next`].
    pub fn constrain(&mut self, constraint: Box<dyn Constraint>) {
        if let Some(reading) = &mut self.reading {
            reading.generation_mut().constrain(constraint);
        }
    }

    /// Notes how likely each token of the answer is, and so many of the likeliest: from the same moment on.
    pub fn watch(&mut self, top: usize) {
        if let Some(reading) = &mut self.reading {
            reading.generation_mut().watch(top);
        }
    }

    /// What was noted since this was asked last.
    pub fn take_watched(&mut self) -> Vec<(u32, Logprobs)> {
        std::mem::take(&mut self.watched)
    }

    /// The next piece of the answer; none when it has ended. Its future can be dropped at any time.
    pub async fn next(&mut self) -> Result<Option<Said>> {
        loop {
            if let Some(said) = self.said.pop_front() {
                return Ok(Some(said));
            }
            let Some(reading) = &mut self.reading else { return Ok(None) };
            let tokenizer = self.script.tokenizer();
            let read = reading.next(&mut self.session, tokenizer).await?;
            self.sight.reach(self.session.position());
            match read {
                Read::Token { token, text } => {
                    let logprobs = reading.generation().logprobs().cloned();
                    self.watched.extend(logprobs.map(|logprobs| (token, logprobs)));
                    let said = &mut self.said;
                    let mut say = |piece| said.push_back(piece);
                    // Control tokens print nothing; those that are a tag's own matter.
                    let piece = tokenizer.piece(token);
                    let tag = self.script.tags().is_some_and(|tags| tags.mentions(piece));
                    if tag && tokenizer.bytes(token).is_empty() {
                        self.splitter.push(piece, &mut say);
                    }
                    self.splitter.push(&text, say);
                }
                Read::End(why) => self.end(why),
            }
        }
    }

    fn end(&mut self, why: Ended) {
        let Some(mut reading) = self.reading.take() else { return };
        let said = &mut self.said;
        self.splitter.push(&reading.finish(), |piece| said.push_back(piece));
        self.splitter.finish(|piece| said.push_back(piece));
        self.ended = Some(why);
        let ring = self.session.cache().longest();
        let kept = u64::from(ring.sinks + ring.slots);
        self.sight.reach(self.session.position());
        self.sight.forget(self.session.position().saturating_sub(kept), u64::from(ring.sinks));
    }

    /// Ends the answer where it is. What was held back can still be read with [`Chat::next`].
    pub fn stop(&mut self) {
        self.end(Ended::Stopped);
    }

    /// Why the last answer has ended; none while it goes on.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Takes the last answer back and gets ready to read another. An error where the ring has lost what it would have
    /// to see, or where nothing was said yet: [`Chat::retell`] goes on from the texts.
    pub async fn regenerate(&mut self, answer: &AnswerSettings) -> Result<()> {
        answer.sampling.check()?;
        let turn = self.last_turn()?;
        let tokens = self.session.position().saturating_sub(turn.answer);
        self.take_back(tokens, Some(turn.prompt)).await?;
        self.sight.cut(turn.answer);
        self.begin(answer)
    }

    /// Becomes what `other` is, of which an answer was asked: this gets ready to read another to the same. Its keys and
    /// values are copied on the device; an error as of [`Session::fork_from`].
    pub fn fork_from(&mut self, other: &Self, answer: &AnswerSettings) -> Result<()> {
        answer.sampling.check()?;
        self.stop();
        self.said.clear();
        self.session.fork_from(&other.session)?;
        (self.script, self.sight) = (other.script.clone(), other.sight.clone());
        (self.turn, self.fed) = (other.turn, 0);
        self.sight.cut(self.session.position());
        self.begin(answer)
    }

    /// Takes the last turn and its answer back, as if it had never been said. An error as of [`Chat::regenerate`].
    pub async fn undo(&mut self) -> Result<()> {
        let turn = self.last_turn()?;
        let tokens = self.session.position().saturating_sub(turn.start);
        self.take_back(tokens, turn.before).await?;
        self.turn = None;
        Ok(())
    }

    fn last_turn(&mut self) -> Result<Turn> {
        self.stop();
        self.said.clear();
        let none = || Error::Usage("there is no turn to take back: say something first".into());
        self.turn.ok_or_else(none)
    }

    /// What the model can look back on now.
    pub fn window(&self) -> Window {
        let ring = self.session.cache().geometry();
        let [pinned, window] = [ring.sinks, ring.window].map(u64::from);
        self.sight.window(pinned, window, self.session.position(), self.session.evicted())
    }
}

fn says_nothing() -> Error {
    Error::Template("it makes nothing of a message".into())
}
