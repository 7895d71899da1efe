//! What a template is asked to render, which template it is, and whoever renders it: the template engine is a feature of
//! its own, in browsers a module of its own.
use super::Tokenizer;
use super::json::{Json, mapped};
use super::marks::without_marks;
use crate::format::Gguf;
use crate::{Error, Result};
use serde::Serialize;

/// What many models were trained with, for files that have no template of their own.
const CHATML: &str = "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + message.content + \
                      '<|im_end|>\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- \
                      '<|im_start|>assistant\\n' -}}{%- endif -%}";

/// What a template is asked to render.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// The messages, in OpenAI's form.
    pub messages: Json,
    /// The tools, in OpenAI's form; not defined in the template where there are none.
    pub tools: Option<Json>,
    /// Whether the text ends where the model's answer begins.
    pub generation_prompt: bool,
    /// More variables for the template, such as `enable_thinking`: a map.
    pub settings: Option<Json>,
}

impl Conversation {
    /// Of messages, to be answered.
    pub fn of(messages: Json) -> Self {
        Self { messages, tools: None, generation_prompt: true, settings: None }
    }

    /// The same, with the control tokens marked that messages, tools and settings have in their texts:
    /// [`Tokenizer::encode_marked`] takes them as text. What a model has written itself may hold the tags that its
    /// template looks for; what marks turns is text there as well.
    pub fn marked(&self, by: &Tokenizer) -> Self {
        let marked = |Json(value): &Json| Json(mapped(value, &|text| by.marked(text)));
        let Json(messages) = &self.messages;
        let messages = messages.as_array().into_iter().flatten().map(|message| {
            let own = message.get("role").and_then(|role| role.as_str()) == Some("assistant");
            mapped(message, &|text| if own { by.marked_ends(text) } else { by.marked(text) })
        });
        Self {
            messages: Json(messages.collect()),
            tools: self.tools.as_ref().map(marked),
            generation_prompt: self.generation_prompt,
            settings: self.settings.as_ref().map(marked),
        }
    }

    /// The text of a marked conversation, as it is shown.
    pub fn shown(marked: &str) -> String {
        without_marks(marked)
    }

    /// The variables of the template but for BOS and EOS, in the order in which they are set: the settings cannot change
    /// what comes after them.
    pub fn variables(&self) -> Json {
        let mut variables = match &self.settings {
            Some(Json(serde_json::Value::Object(settings))) => settings.clone(),
            _ => serde_json::Map::new(),
        };
        if let Some(Json(tools)) = &self.tools {
            variables.insert("tools".into(), tools.clone());
        }
        variables.insert("messages".into(), self.messages.0.clone());
        variables.insert("add_generation_prompt".into(), self.generation_prompt.into());
        Json(variables.into())
    }
}

/// What can go from thread to thread, where there are threads.
#[cfg(not(target_arch = "wasm32"))]
pub trait Portable: Send + Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync> Portable for T {}
/// What can go from thread to thread, where there are threads.
#[cfg(target_arch = "wasm32")]
pub trait Portable {}
#[cfg(target_arch = "wasm32")]
impl<T> Portable for T {}

/// Makes one text of a conversation: a template with its engine, here or in another module.
pub trait Renderer: Portable {
    /// The template's text.
    fn source(&self) -> &str;
    /// The text of a conversation as the model was trained to see it. Marks stay where they are.
    fn render(&self, conversation: &Conversation) -> Result<String>;
}

/// A chat template as text, and how BOS and EOS of its model are written.
#[derive(Clone, Debug, Serialize)]
pub struct TemplateSource {
    /// Jinja.
    pub text: String,
    /// Nothing where the model has none.
    pub bos: String,
    /// Nothing where the model has none.
    pub eos: String,
}

/// The chat templates that a model's file has.
#[derive(Clone, Debug)]
pub struct Templates {
    file: String,
    /// By what their keys have behind `tokenizer.chat_template`: nothing, or `.NAME`.
    named: Vec<(String, String)>,
    /// Whether the vocabulary is made for ChatML.
    chatml: bool,
    bos: String,
    eos: String,
}

impl Templates {
    /// Those of a file, for the model of a tokenizer.
    pub fn of_model(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Self> {
        const KEY: &str = "tokenizer.chat_template";
        let mut named = Vec::new();
        for (key, _) in &gguf.metadata {
            let name =
                key.strip_prefix(KEY).filter(|name| name.is_empty() || name.starts_with('.'));
            if let Some(name) = name
                && let Some(text) = gguf.str(key)?
            {
                named.push((name.to_owned(), text.to_owned()));
            }
        }
        let piece = |id: Option<u32>| id.map_or("", |id| tokenizer.piece(id)).to_owned();
        let (bos, eos) = (piece(tokenizer.bos()), piece(tokenizer.eos()));
        let chatml = tokenizer.id("<|im_start|>").is_some();
        Ok(Self { file: gguf.file().to_owned(), named, chatml, bos, eos })
    }

    /// A template that is given as text.
    pub fn given(&self, text: &str) -> TemplateSource {
        TemplateSource { text: text.to_owned(), bos: self.bos.clone(), eos: self.eos.clone() }
    }

    /// The one of this name, or the usual one. Where there is none and the vocabulary is made for it, ChatML.
    pub fn find(&self, name: Option<&str>) -> Result<TemplateSource> {
        let wanted = name.map_or(String::new(), |name| format!(".{name}"));
        let found = self.named.iter().find(|(name, _)| *name == wanted);
        let setting = |found: &str, works| {
            let found = found.to_owned();
            Error::Setting { which: "chat_template", found, works }
        };
        match (found, name) {
            (Some((_, text)), _) => Ok(self.given(text)),
            (None, Some("chatml")) => Ok(self.given(CHATML)),
            (None, None) if self.chatml => Ok(self.given(CHATML)),
            (None, None) => Err(setting(
                "FILE",
                format!(
                    "a template is needed: {} has none, and its vocabulary is not that of ChatML",
                    self.file
                ),
            )),
            (None, Some(name)) => {
                let names = self.named.iter().filter_map(|(name, _)| name.strip_prefix('.'));
                let names: Vec<_> = names.collect();
                let there = match names.is_empty() {
                    true => "it has none with a name".to_owned(),
                    false => format!("it has {}", names.join(", ")),
                };
                Err(setting(
                    name,
                    format!(
                        "neither a file, nor a template of {}: {there}; chatml works with any",
                        self.file
                    ),
                ))
            }
        }
    }
}
