//! Conversations for JavaScript. Which of them has the cache, and what was said in it, is `js/talk.js`'s.
use crate::errors::{Thrown, parsed};
use crate::held::{Held, JsMatcher};
use crate::options::{ChatOptions, StreamOptions};
use crate::{Core, Going, Stage};
use brooklet::chat::{Chat, Message, Script};
use brooklet::text::{Conversation, Json, Renderer};
use brooklet::{Error, Result};
use js_sys::{Array, Function};
use wasm_bindgen::prelude::*;

/// A template whose engine is another module.
struct Elsewhere {
    source: String,
    render: Function,
}

impl Renderer for Elsewhere {
    fn source(&self) -> &str {
        &self.source
    }

    fn render(&self, conversation: &Conversation) -> Result<String> {
        let variables = conversation.variables().text();
        let text = self.render.call1(&JsValue::NULL, &variables.into());
        let text = text.map_err(|thrown| {
            let message = js_sys::Reflect::get(&thrown, &"message".into()).ok();
            let message = message.and_then(|message| message.as_string());
            let told = thrown.as_string().or(message);
            Error::Template(told.unwrap_or_else(|| "its engine failed".to_owned()))
        })?;
        text.as_string().ok_or_else(|| Error::Template("its engine gave no text".into()))
    }
}

/// What an answer is to be held to: nothing can hold thoughts.
fn held(chat: &Chat, rules: Option<JsMatcher>) -> Result<Option<Box<Held>>> {
    let held = rules.map(Held::new);
    match held.is_some() && chat.script().thinks() {
        false => Ok(held),
        true => Err(Error::Usage(
            "the model thinks before it answers, and thoughts are in no grammar; say think: false as well".into(),
        )),
    }
}

/// Holds the answer that was begun to rules.
fn constrain(chat: &mut Chat, begun: bool, held: Option<Box<Held>>) {
    if let (true, Some(held)) = (begun, held) {
        chat.constrain(held);
    }
}

fn no_chat() -> Error {
    Error::Usage("there is no conversation: begin one first".to_owned())
}

#[wasm_bindgen]
impl Core {
    /// A template and how BOS and EOS are written, as JSON: the one that the model's file has by this name, or its usual
    /// one; or the one that is given as text.
    pub fn template(&self, name: Option<String>, text: Option<String>) -> Result<String, Thrown> {
        let source = match text {
            Some(text) => self.loaded.templates.given(&text),
            None => self.loaded.templates.find(name.as_deref())?,
        };
        Ok(Json::of(source).text())
    }

    /// Begins a conversation with an empty cache of its own. `source`: the template's text; `render(variables)`: its
    /// engine; `options`: JSON.
    pub async fn converse(
        &mut self,
        source: String,
        render: Function,
        options: &str,
    ) -> Result<(), Thrown> {
        let options: ChatOptions = parsed("conversation options", options)?;
        let renderer = Elsewhere { source, render };
        let system = options.system.clone();
        let mut script = Script::new(self.loaded.tokenizer.clone(), renderer, system, None)?;
        script.set_thinking(options.think)?;
        let settings =
            options.settings(&script, &self.loaded.model.config, &self.loaded.model.gpu)?;
        let session = self.renewed(settings).await?;
        self.stage = Stage::Chat(Box::new(Chat::over(session, script)));
        Ok(())
    }

    /// Whether a conversation has the cache.
    pub fn chatting(&self) -> bool {
        matches!(self.stage, Stage::Chat(_))
    }

    fn chat(&mut self) -> Result<&mut Chat> {
        match &mut self.stage {
            Stage::Chat(chat) => Ok(chat),
            _ => Err(no_chat()),
        }
    }

    /// Says something. False where `go_on` ended it and the turn was taken back. `options`: JSON; `rules`: what the answer
    /// is held to.
    pub async fn say(
        &mut self,
        text: &str,
        options: &str,
        go_on: Option<Function>,
        rules: Option<JsMatcher>,
    ) -> Result<bool, Thrown> {
        let options: StreamOptions = parsed("answer options", options)?;
        let answer = options.answer(&self.loaded.sampling);
        let mut going = Going::new(go_on);
        let chat = self.chat()?;
        let held = held(chat, rules)?;
        let said = chat.send(text, &answer, || going.on()).await?;
        constrain(chat, said, held);
        going.thrown(said)
    }

    /// The last turn anew, as `[begun, left out]`: see `brooklet::chat::Chat::again`. `before`, `options`: JSON.
    pub async fn again(
        &mut self,
        before: &str,
        said: &str,
        edited: bool,
        options: &str,
        go_on: Option<Function>,
        rules: Option<JsMatcher>,
    ) -> Result<Array, Thrown> {
        let options: StreamOptions = parsed("answer options", options)?;
        let before: Vec<Message> = parsed("messages", before)?;
        let answer = options.answer(&self.loaded.sampling);
        let mut going = Going::new(go_on);
        let chat = self.chat()?;
        let held = held(chat, rules)?;
        let again = chat.again(&before, said, edited, &answer, || going.on()).await?;
        constrain(chat, again.begun, held);
        let left_out = again.left_out.map_or(JsValue::UNDEFINED, |n| (n as f64).into());
        going.thrown(Array::of2(&again.begun.into(), &left_out))
    }

    /// Tells the model what was said before, and gives how many messages did not fit. `messages`: JSON.
    pub async fn retell(&mut self, messages: &str, go_on: Option<Function>) -> Result<u32, Thrown> {
        let messages: Vec<Message> = parsed("messages", messages)?;
        let mut going = Going::new(go_on);
        let left_out = self.chat()?.retell(&messages, || going.on()).await?;
        going.thrown(left_out as u32)
    }

    /// The next piece of the answer, `[text, thought]`; none when it has ended.
    pub async fn hear(&mut self) -> Result<Option<Array>, Thrown> {
        let said = self.chat()?.next().await?;
        Ok(said.map(|said| Array::of2(&said.text.into(), &said.thought.into())))
    }

    /// Ends the answer where it is. What was held back can still be heard.
    pub fn hush(&mut self) -> Result<(), Thrown> {
        self.chat()?.stop();
        Ok(())
    }

    /// Why the answer has ended; none while it goes on.
    pub fn ended(&mut self) -> Result<Option<String>, Thrown> {
        Ok(self.chat()?.ended().map(|ended| brooklet::wire::reason(ended).to_owned()))
    }

    /// Whether the model should think first, from the next turn on; none as its template has it.
    pub fn think(&mut self, thinking: Option<bool>) -> Result<(), Thrown> {
        Ok(self.chat()?.set_thinking(thinking)?)
    }

    /// Tokens of the conversation that were fed, not generated.
    pub fn fed(&mut self) -> Result<f64, Thrown> {
        Ok(self.chat()?.fed() as f64)
    }

    /// What the model can look back on, as JSON.
    pub fn window(&mut self) -> Result<String, Thrown> {
        Ok(Json::of(self.chat()?.window()).text())
    }
}
