//! Conversations over a stream that a socket has: which of them has the cache, and what is heard of its answer.
use super::cache;
use super::calls::{Call, Thrown};
use super::seat::{BATCH, Seat, millis};
use brooklet::chat::{Chat, Message, Script, next_turn};
use brooklet::model::Policy;
use brooklet::text::Json;
use brooklet::wire::{self, CacheOptions, StreamOptions};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

type Told = Result<Value, Thrown>;

/// Which conversation has the stream.
#[derive(Default)]
pub(super) struct Talk {
    current: Option<u64>,
    think: Option<bool>,
    /// Whose answer is under way, and where it begins.
    answer: Option<(u64, u64)>,
}

impl Talk {
    pub(super) fn current(&self) -> Option<u64> {
        self.current
    }

    /// None has it any more.
    pub(super) fn leave(&mut self) {
        *self = Self::default();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Send,
    Regenerate,
    Edit,
}

#[derive(Deserialize)]
pub(super) struct AnswerArgs {
    id: u64,
    how: How,
    /// What was said before the turn; none where the conversation may have the stream.
    before: Option<Vec<Message>>,
    text: String,
    settings: StreamOptions,
    #[serde(default)]
    options: ChatOptions,
    template: Option<String>,
    think: Option<bool>,
}

/// `ConversationOptions` of the package.
#[derive(Default, Deserialize)]
struct ChatOptions {
    system: Option<String>,
    #[serde(flatten)]
    cache: CacheOptions,
}

/// How an answer has begun.
struct Begun {
    /// Tokens that were fed; none where it was ended before.
    fed: Option<u64>,
    /// Messages that were left out, where all was told anew.
    left_out: Option<usize>,
}

impl Seat<'_> {
    /// Begins an answer.
    pub(super) async fn answer(&mut self, args: AnswerArgs, call: &Call) -> Told {
        let ready = self.app.takes()?;
        if args.template.is_some() {
            let why = "template: conversations have the server's own here; brooklet serve --chat-template gives another";
            return Err(Thrown::option(why));
        }
        cache::check(&args.options.cache, &ready.cache)?;
        let has = self.talk.current == Some(args.id);
        if !has && args.before.is_none() {
            return Ok(json!({ "untold": true }));
        }
        // Before anything is said: what cannot be used changes nothing.
        let rules = self.rules(call).await?;
        if rules.is_some() {
            let (app, system, think) = (self.app.clone(), args.options.system.clone(), args.think);
            let script = self.apart(move || Ok(app.ready()?.script(system, think)?)).await?;
            if script.thinks() {
                let why = "the model thinks before it answers, and thoughts are in no grammar; say think: false as well";
                return Err(Thrown::option(why));
            }
        }
        let start = Instant::now();
        let retells = args.before.as_ref().is_some_and(|before| !before.is_empty());
        let (id, how, think) = (args.id, args.how, args.think);
        self.talk.answer = None;
        let begun = match self.begun(args, has, call).await {
            Ok(begun) => begun,
            Err(error) => {
                self.talk.leave(); // told anew when it speaks again
                return Err(error);
            }
        };
        let Some(Begun { fed, left_out }) = begun else { return Ok(json!({ "untold": true })) };
        (self.talk.current, self.talk.think) = (Some(id), think);
        if let (Some(rules), Some(_)) = (rules, fed) {
            self.chat()?.constrain(rules);
        }
        let position = self.session()?.position();
        match fed {
            Some(fed) => {
                let metrics = &self.engine.shared.metrics;
                super::super::metrics::add(&metrics.prompt_tokens, fed);
                self.talk.answer = Some((id, position));
            }
            None if how == How::Send && left_out.is_none() => {}
            None => self.talk.leave(), // the turn before is gone, too
        }
        Ok(json!({
            "begun": fed.is_some(),
            "fed": fed.unwrap_or(0),
            "retold": left_out.is_some() && retells,
            "leftOut": left_out.unwrap_or(0),
            "ms": millis(start),
        }))
    }

    /// None where what was said before has to be told, and is not here.
    async fn begun(
        &mut self,
        args: AnswerArgs,
        has: bool,
        call: &Call,
    ) -> Result<Option<Begun>, Thrown> {
        let AnswerArgs { how, before, text, settings, options, think, .. } = args;
        let answer = settings.answer(&self.ready()?.answer.sampling);
        answer.sampling.check()?;
        let goes_on = self.goes_on(call);
        let app = self.app.clone();
        let script = move || Ok(app.ready()?.script(options.system, think)?);
        let script: Arc<Script> = self.apart(script).await?;
        let user = Json::of(Message { role: "user".into(), content: text });
        let same = self.talk.think == think;
        if has {
            let chat = self.chat()?;
            let kept = match how {
                How::Send => Ok(()),
                How::Regenerate if same => chat.regenerate(&answer).await,
                How::Regenerate | How::Edit => chat.undo().await,
            };
            match kept {
                Ok(()) if how == How::Regenerate && same => {
                    return Ok(Some(Begun { fed: Some(0), left_out: None }));
                }
                Ok(()) if chat.session().position() > 0 => {
                    let (of, said) = (script.clone(), [user]);
                    let told = self.apart(move || Ok(of.following(&said)?)).await?;
                    let fed = self.chat()?.follow(script, &told, &answer, goes_on).await?;
                    return Ok(Some(Begun { fed, left_out: None }));
                }
                Ok(()) => {}
                // What the ring has lost is told anew.
                Err(error) if error.is_usage() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some(before) = before else { return Ok(None) };
        let messages: Vec<Json> = before.into_iter().map(Json::of).chain([user]).collect();
        let room = self.engine.room.saturating_sub(script.head().len());
        let of = script.clone();
        let told = self.apart(move || Ok(of.told(&messages, room)?)).await?;
        self.talk.leave();
        let session = self.used.slot.bare()?;
        session.reset();
        session.set_policy(Policy::Streaming)?;
        let chat = self.used.slot.chat(&script)?;
        let fed = chat.open(script, &told, false, &answer, goes_on).await?;
        Ok(Some(Begun { fed, left_out: Some(told.left_out) }))
    }

    fn chat(&mut self) -> Result<&mut Chat, Thrown> {
        let none = || Thrown::option("there is no conversation: begin one first");
        self.used.slot.held_chat().ok_or_else(none)
    }

    /// What is said until a moment is over, or the answer is.
    pub(super) async fn hear(&mut self, id: u64, call: &Call) -> Told {
        let (goes_on, start) = (self.goes_on(call), Instant::now());
        if self.talk.answer.is_none_or(|(of, _)| of != id) {
            let why = "this answer was ended by another, by a stream or by reset";
            return Err(Thrown::option(why));
        }
        let (mut pieces, mut first, mut ended) = (Vec::new(), None, None);
        while ended.is_none() && (pieces.is_empty() || start.elapsed() < BATCH) {
            if !goes_on() {
                self.rest(&mut pieces).await?;
                ended = Some("aborted");
                break;
            }
            let chat = self.chat()?;
            let said = chat.next().await?;
            first.get_or_insert_with(|| millis(start));
            match said {
                Some(said) => pieces.push(json!({ "text": said.text, "thought": said.thought })),
                None => ended = Some(chat.ended().map_or("stopped", wire::reason)),
            }
            next_turn().await;
        }
        let mut told = self.heard(pieces, ended)?;
        told["ms"] = json!(millis(start));
        told["firstMs"] = json!(first);
        Ok(told)
    }

    /// Ends the answer where it is, and adds what was held back.
    async fn rest(&mut self, pieces: &mut Vec<Value>) -> Result<(), Thrown> {
        let chat = self.chat()?;
        chat.stop();
        while let Some(said) = chat.next().await? {
            pieces.push(json!({ "text": said.text, "thought": said.thought }));
        }
        Ok(())
    }

    fn heard(&mut self, pieces: Vec<Value>, ended: Option<&str>) -> Told {
        let (_, from) = self.talk.answer.unwrap_or_default();
        if ended.is_some() {
            self.talk.answer = None;
        }
        let session = self.session()?;
        let (position, forgotten) = (session.position(), session.evicted());
        let window = self.chat()?.window();
        let count = window.messages.len() as u64 + window.gone;
        let gone = window.gone;
        self.used.look(|view| (view.messages, view.forgotten_messages) = (count, gone));
        self.engine.shared.metrics.decoded(position);
        Ok(json!({
            "pieces": pieces, "ended": ended, "position": position, "forgotten": forgotten,
            "generatedTokens": position.saturating_sub(from), "window": window, "wasmBytes": 0,
        }))
    }

    pub(super) async fn hush(&mut self, id: u64) -> Told {
        if self.talk.answer.is_none_or(|(of, _)| of != id) {
            let session = self.session()?;
            let (position, forgotten) = (session.position(), session.evicted());
            return Ok(json!({ "pieces": [], "position": position, "forgotten": forgotten }));
        }
        let mut pieces = Vec::new();
        self.rest(&mut pieces).await?;
        self.heard(pieces, Some("stopped"))
    }

    /// What the model can look back on; nothing where another has the stream.
    pub(super) fn window(&mut self, id: u64) -> Value {
        match (self.talk.current == Some(id), self.chat()) {
            (true, Ok(chat)) => json!(chat.window()),
            _ => Value::Null,
        }
    }
}

/// Whether the arguments are those of an answer.
#[cfg(test)]
pub(super) fn is_read(args: &Value) -> bool {
    super::calls::read::<AnswerArgs>("", args.clone()).is_ok()
}
