//! The messages of a request: the system prompt, the others as templates take them, and what they are known again by.
use super::fields::{Fields, shown};
use super::problem::Problem;
use brooklet::chat::Message;
use brooklet::text::Json;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// More messages are no conversation.
const MOST: usize = 4096;

/// What a conversation is known again by, up to one of its messages: a hash over all before it.
pub(super) type Mark = [u8; 32];

/// A conversation that is to be answered.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) system: Option<String>,
    pub(super) others: Vec<Json>,
    /// What each of the others adds to the mark.
    parts: Vec<Mark>,
}

impl Messages {
    pub(super) fn read(fields: &Fields) -> Result<Self, Problem> {
        let wanted = "a list of messages is wanted, one at least";
        let Some(list) = fields.list("messages")? else {
            return Err(Problem::field("messages", wanted));
        };
        if list.is_empty() {
            return Err(Problem::field("messages", wanted));
        }
        if list.len() > MOST {
            return Err(Problem::field(
                "messages",
                format!("{} of them; {MOST} is the most", list.len()),
            ));
        }
        let mut messages = Self { system: None, others: Vec::new(), parts: Vec::new() };
        for (at, value) in list.iter().enumerate() {
            messages.add(&format!("messages[{at}]"), value)?;
        }
        Ok(messages)
    }

    /// An error where there is nothing to answer.
    pub(super) fn expect_question(self) -> Result<Self, Problem> {
        let role = self.others.last().and_then(|last| last.field("role")).map(|role| role.text());
        match role.as_deref() {
            Some("\"user\"" | "\"tool\"") => Ok(self),
            _ => Err(Problem::field(
                "messages",
                "the last message is wanted from the user, or from a tool",
            )),
        }
    }

    /// All of them, the system prompt first.
    pub(super) fn all(&self) -> Json {
        let system = self.system.iter().map(|text| Json::of(Message::new("system", text)));
        Json::of(system.chain(self.others.iter().cloned()).collect::<Vec<_>>())
    }

    fn add(&mut self, place: &str, value: &Value) -> Result<(), Problem> {
        let wrong = |field: &str, why: String| Problem::field(format!("{place}{field}"), why);
        let Some(object) = value.as_object() else {
            return Err(wrong("", format!("{}; an object is wanted", shown(value))));
        };
        let role = match object.get("role").and_then(Value::as_str) {
            Some("system" | "developer") => "system",
            Some(role @ ("user" | "assistant" | "tool")) => role,
            _ => {
                let works = "system, developer, user, assistant and tool work";
                let found = object.get("role").map_or("missing".into(), shown);
                return Err(wrong(".role", format!("{found}; {works}")));
            }
        };
        let content = text_of(object.get("content")).ok_or_else(|| {
            wrong(".content", "a text is wanted, or a list of parts of type \"text\"".into())
        })?;
        if role == "system" && self.others.is_empty() {
            let system = self.system.get_or_insert_default();
            if !system.is_empty() {
                system.push_str("\n\n");
            }
            system.push_str(&content);
            return Ok(());
        }
        let mut message = Map::new();
        message.insert("role".into(), role.into());
        message.insert("content".into(), content.as_str().into());
        let mut part = part_of(role, &content);
        for name in ["name", "tool_calls", "tool_call_id"] {
            if let Some(value) = object.get(name).filter(|value| !value.is_null()) {
                message.insert(name.into(), value.clone());
                let more = Sha256::new().chain_update(part).chain_update(name);
                part = more.chain_update(value.to_string()).finalize().into();
            }
        }
        // Thoughts are no part of what was said: most clients leave them out.
        if let Some(thoughts) = object.get("reasoning_content").filter(|value| value.is_string()) {
            message.insert("reasoning_content".into(), thoughts.clone());
        }
        self.parts.push(part);
        self.others.push(Json::of(Value::Object(message)));
        Ok(())
    }

    /// The mark before the first message, and those behind each.
    pub(super) fn marks(&self, head: &[u32]) -> Vec<Mark> {
        let mut hash = Sha256::new().chain_update(self.system.as_deref().unwrap_or_default());
        head.iter().for_each(|id| hash.update(id.to_le_bytes()));
        let mut marks = vec![hash.finalize().into()];
        for part in &self.parts {
            marks.push(behind(marks.last().unwrap_or(&[0; 32]), part));
        }
        marks
    }
}

/// The mark behind an answer.
pub(super) fn behind_answer(mark: &Mark, answer: &str) -> Mark {
    behind(mark, &part_of("assistant", answer))
}

fn behind(mark: &Mark, part: &Mark) -> Mark {
    Sha256::new().chain_update(mark).chain_update(part).finalize().into()
}

/// Space around what is said is often lost on the way.
fn part_of(role: &str, content: &str) -> Mark {
    Sha256::new()
        .chain_update(role)
        .chain_update([0])
        .chain_update(content.trim())
        .finalize()
        .into()
}

/// What a message says: nothing where it is null.
fn text_of(content: Option<&Value>) -> Option<String> {
    match content {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| match part.get("type").and_then(Value::as_str) {
                Some("text") => part.get("text").and_then(Value::as_str).map(str::to_owned),
                _ => None,
            };
            parts.iter().map(text).collect()
        }
        Some(_) => None,
    }
}
