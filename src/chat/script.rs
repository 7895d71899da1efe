//! What a template makes of a conversation, turn by turn, without the history: head, first turn, later turns.
use super::thoughts::Tags;
use crate::text::{Conversation, Json, Renderer, Tokenizer};
use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Stands for a text that is looked for in what a template renders. Unicode promises that it is no character.
const SENTINEL: &str = "\u{fdd1}";

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What it says.
    pub content: String,
}

impl Message {
    /// A message of somebody.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into() }
    }
}

/// A model's template and what is said at the start of a conversation.
#[derive(Clone)]
pub struct Script {
    pub(super) tokenizer: Arc<Tokenizer>,
    template: Arc<dyn Renderer>,
    system: Option<String>,
    tools: Option<Json>,
    thinking: Option<bool>,
    head: Vec<u32>,
    tags: Option<Tags>,
    /// Whether the answer begins inside of thoughts.
    thinks: bool,
}

impl Script {
    /// Looks how the template treats a conversation. An error where it cannot have one.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        template: impl Renderer + 'static,
        system: Option<String>,
        tools: Option<Json>,
    ) -> Result<Self> {
        let (head, tags, thinks) = (Vec::new(), None, false);
        let system = system.filter(|system| !system.trim().is_empty());
        let template = Arc::new(template);
        let mut script =
            Self { tokenizer, template, system, tools, thinking: None, head, tags, thinks };
        script.expect_system()?;
        script.tags = script.find_tags();
        script.set_thinking(None)?;
        Ok(script)
    }

    /// The tokenizer of the model.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The template of the model.
    pub fn template(&self) -> &dyn Renderer {
        &*self.template
    }

    /// What the conversation begins with.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// The ids that every conversation begins with: the system prompt, or what the template writes before the first
    /// message.
    pub fn head(&self) -> &[u32] {
        &self.head
    }

    /// What stands around thoughts, where the model has any.
    pub fn tags(&self) -> Option<&Tags> {
        self.tags.as_ref()
    }

    /// Whether an answer begins inside of thoughts.
    pub fn thinks(&self) -> bool {
        self.thinks
    }

    /// Whether the template can be told to think or not.
    pub fn can_choose_to_think(&self) -> bool {
        !self.switches().is_empty()
    }

    /// Whether the model should think first; none as the template has it. Of some templates the head says so, too.
    pub fn set_thinking(&mut self, thinking: Option<bool>) -> Result<()> {
        self.thinking = thinking;
        self.head = self.find_head()?;
        let Some(Tags { open, close, .. }) = &self.tags else { return Ok(()) };
        let prompt = self.delta(SENTINEL)?;
        let prompt = &prompt[prompt.rfind(SENTINEL).unwrap_or(0)..];
        self.thinks = prompt.rfind(open).is_some_and(|at| !prompt[at..].contains(close));
        Ok(())
    }

    /// The names that templates have for whether to think, of those that this one mentions.
    fn switches(&self) -> Vec<&'static str> {
        let source = self.template.source();
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let mentions = |name: &str| source.split(|c| !word(c)).any(|found| found == name);
        ["enable_thinking", "thinking"].into_iter().filter(|name| mentions(name)).collect()
    }

    fn conversation(&self, messages: &[impl Serialize], generation_prompt: bool) -> Conversation {
        let settings = self.thinking.map(|on| {
            let settings = self.switches().into_iter().map(|name| (name, on));
            Json::of(settings.collect::<BTreeMap<_, _>>())
        });
        let (messages, tools) = (Json::of(messages), self.tools.clone());
        Conversation { messages, tools, generation_prompt, settings }
    }

    pub(super) fn rendered(
        &self,
        messages: &[impl Serialize],
        generation_prompt: bool,
    ) -> Result<String> {
        let conversation = self.conversation(messages, generation_prompt);
        self.template.render(&conversation.marked(&self.tokenizer))
    }

    /// A conversation's first messages: the system prompt, and others.
    pub(super) fn opened(&self, others: &[impl Serialize]) -> Vec<Json> {
        let system = self.system.iter().map(|text| Json::of(Message::new("system", text)));
        system.chain(others.iter().map(Json::of)).collect()
    }

    fn expect_system(&self) -> Result<()> {
        let Some(system) = &self.system else { return Ok(()) };
        let advice = "leave the system prompt out and say it in the first message";
        let rendered = self.rendered(&self.opened(&[Message::new("user", SENTINEL)]), true);
        let rendered = rendered.map_err(|error| match error {
            Error::Template(text) => {
                Error::Template(format!("with a system prompt, {text}; {advice}"))
            }
            other => other,
        })?;
        let shown = |text: &str| text.split_whitespace().collect::<String>();
        let told = self.tokenizer.marked(system);
        if shown(&rendered).contains(&shown(&told)) {
            return Ok(());
        }
        Err(Error::Template(format!("it has no place for a system prompt; {advice}")))
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        encoded(&self.tokenizer, text)
    }

    fn find_head(&self) -> Result<Vec<u32>> {
        let ids = |role| {
            self.encode(&self.rendered(&self.opened(&[Message::new(role, SENTINEL)]), true)?)
        };
        let before = |role| {
            let text = self.rendered(&self.opened(&[Message::new(role, SENTINEL)]), true)?;
            let at = text.find(SENTINEL).ok_or_else(|| leaves_out("what the user says"))?;
            self.encode(&text[..at])
        };
        let mut head = before("user")?;
        // What a message of another role begins with as well is not the user's.
        for others in [ids("user"), ids("assistant")].into_iter().flatten() {
            let same = head.iter().zip(&others).take_while(|(a, b)| a == b).count();
            head.truncate(same);
        }
        Ok(head)
    }

    fn find_tags(&self) -> Option<Tags> {
        #[derive(Serialize)]
        struct Thinking {
            role: &'static str,
            content: &'static str,
            #[serde(flatten)]
            thoughts: BTreeMap<&'static str, &'static str>,
        }
        const THOUGHT: &str = "\u{fdd2}";
        let tools = || self.tools.clone();
        let render = |messages, generation_prompt| {
            let conversation =
                Conversation { messages, tools: tools(), generation_prompt, settings: None };
            self.template.render(&conversation).ok()
        };
        let user = Thinking { role: "user", content: "x", thoughts: BTreeMap::new() };
        let prompt = render(Json::of([&user]), true)?;
        let found = |field: &'static str| {
            let answered = |thoughts| {
                let answer = Thinking { role: "assistant", content: SENTINEL, thoughts };
                render(Json::of([&user, &answer]), false)
            };
            let with = answered(BTreeMap::from([(field, THOUGHT)]))?;
            let (thought, content) = (with.find(THOUGHT)?, with.rfind(SENTINEL)?);
            let open = tag(behind(&with[..thought], &prompt), &with[..thought])?;
            let close = with.get(thought + THOUGHT.len()..content)?.trim();
            let without = answered(BTreeMap::new())?;
            let plain = &without[..without.find(SENTINEL)?];
            let plain = behind(plain, &prompt).trim();
            let plain = if plain.contains(open) || plain.len() > LONGEST_TAG { "" } else { plain };
            let [open, close, plain] = [open, close, plain].map(str::to_owned);
            (!close.is_empty()).then_some(Tags { open, close, plain })
        };
        let tags = ["reasoning_content", "thinking", "reasoning"].into_iter().find_map(found);
        tags.or_else(|| {
            let (open, close) = ("<think>", "</think>");
            let known =
                self.tokenizer.id(close).is_some() || self.template.source().contains(close);
            known.then(|| Tags::of(open, close))
        })
    }

    /// The text of a later turn: what follows an answer.
    fn delta(&self, text: &str) -> Result<String> {
        self.behind_answer(&[Json::of(Message::new("user", text))])
    }

    /// The text of messages that follow an answer.
    pub(super) fn behind_answer(&self, messages: &[Json]) -> Result<String> {
        let before = [Message::new("user", "x"), Message::new("assistant", SENTINEL)].map(Json::of);
        let messages: Vec<&Json> = before.iter().chain(messages).collect();
        let rendered = self.rendered(&messages, true)?;
        let at =
            rendered.find(SENTINEL).ok_or_else(|| leaves_out("what the model has answered"))?;
        Ok(rendered[at + SENTINEL.len()..].to_owned())
    }

    /// The ids of a conversation's first turn, to be answered: they begin with the head.
    pub fn first(&self, text: &str) -> Result<Vec<u32>> {
        self.encode(&self.rendered(&self.opened(&[Message::new("user", text)]), true)?)
    }

    /// The ids of a later turn, from the end of the answer before on.
    pub fn next(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode_marked(&self.delta(text)?)
    }

    /// The ids of an answer that is told, not generated: as they are behind the text that asks for it. SentencePiece
    /// has a space before a text of its own, and none in the middle of one.
    pub fn answer(&self, text: &str) -> Result<Vec<u32>> {
        self.answer_behind(&self.asking()?, text)
    }

    /// The text that asks for an answer, and its ids.
    pub(super) fn asking(&self) -> Result<(String, Vec<u32>)> {
        let asks = self.delta("x")?;
        let ids = self.tokenizer.encode_marked(&asks)?;
        Ok((asks, ids))
    }

    /// [`Script::answer`], where what asks for it is known: it is the same for every answer.
    pub(super) fn answer_behind(
        &self,
        (asks, before): &(String, Vec<u32>),
        text: &str,
    ) -> Result<Vec<u32>> {
        let answer = self.tokenizer.marked_ends(text);
        let mut ids = self.tokenizer.encode_marked(&(asks.clone() + &answer))?;
        match ids.starts_with(before) {
            true => Ok(ids.split_off(before.len())),
            // What asks for it ends in the middle of a token of both.
            false => self.tokenizer.encode_marked(&answer),
        }
    }

    /// Where in a later turn's ids is what the stream lacks, whose last token is this: an end token that the model has
    /// said is not fed twice. None where the model has ended with another than the turn does.
    pub fn lacks(&self, last: u32, turn: &[u32]) -> Option<usize> {
        if !self.tokenizer.eog().contains(&last) {
            return Some(0);
        }
        let space = |id: &u32| self.tokenizer.bytes(*id).iter().all(u8::is_ascii_whitespace);
        let silent = |id: &u32| space(id) && !self.tokenizer.is_control(*id);
        let at = turn.iter().take_while(|&id| silent(id)).count();
        (turn.get(at) == Some(&last)).then_some(at + 1)
    }
}

/// The ids of a whole text as a template has rendered it: with BOS once, where the model's file asks for it.
pub fn encoded(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let mut ids = tokenizer.encode_marked(text)?;
    if let Some(bos) = tokenizer.begins_with().filter(|bos| ids.first() != Some(bos)) {
        ids.insert(0, bos);
    }
    Ok(ids)
}

/// Longer texts before a thought are no tag.
const LONGEST_TAG: usize = 64;

/// What a text has behind the part that a prompt has as well, no tag cut in two.
fn behind<'a>(text: &'a str, prompt: &str) -> &'a str {
    let mut pairs = text.char_indices().zip(prompt.chars());
    let other = pairs.find(|((_, a), b)| a != b).map(|((at, _), _)| at);
    let same = other.unwrap_or(text.len().min(prompt.len()));
    let start = text[..same].rfind('<').filter(|&at| !text[at..same].contains('>'));
    &text[start.unwrap_or(same)..]
}

/// The tag that a thought stands behind: what is there and not in the prompt, or what the prompt itself ends with.
fn tag<'a>(own: &'a str, before: &'a str) -> Option<&'a str> {
    let (own, before) = (own.trim(), before.trim_end());
    let last = match before.chars().next_back()? {
        '>' => &before[before.rfind('<')?..],
        ']' => &before[before.rfind('[')?..],
        _ => before.rsplit('\n').next()?,
    };
    match own.len() {
        0 => Some(last),
        1..=LONGEST_TAG => Some(own),
        // The prompt is another where there are thoughts.
        _ => Some(last).filter(|last| last.to_lowercase().contains("think")),
    }
}

fn leaves_out(what: &str) -> Error {
    Error::Template(format!("it leaves out {what}, so it cannot be used for a conversation"))
}
