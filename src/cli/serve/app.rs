//! What all routes share: the model as far as it concerns them, and the way to the engine.
use super::fields::{Fields, shown};
use super::job::{Asked, Queue, Terms, Work};
use super::messages::Messages;
use super::metrics::Metrics;
use super::problem::Problem;
use super::request::Ask;
use super::slots::View;
use super::socket::Sockets;
use axum::http::StatusCode;
use brooklet::chat::{AnswerSettings, Script};
use brooklet::grammar::{Grammar, GrammarMatcher, GrammarVocabulary};
use brooklet::model::CacheSettings;
use brooklet::text::{Template, Tokenizer};
use brooklet::wire::ModelInfo;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Scripts that are kept: making one costs some renderings.
const SCRIPTS: usize = 32;

/// The server, from before its model is read.
pub(super) struct App {
    pub(super) ready: OnceLock<Ready>,
    pub(super) metrics: Arc<Metrics>,
    /// No new requests are taken.
    pub(super) ending: AtomicBool,
    pub(super) failed: Arc<AtomicBool>,
    pub(super) keep_alive: Duration,
    /// How much of the model is read.
    pub(super) loaded: Loaded,
    pub(super) sockets: Sockets,
    /// Told when the server ends.
    pub(super) over: watch::Sender<bool>,
    /// Where the server ends with the last page.
    pub(super) until: Option<Until>,
}

/// How much of a model is read, of how much.
#[derive(Default)]
pub(super) struct Loaded(AtomicU64, AtomicU64);

impl Loaded {
    pub(super) fn get(&self) -> (u64, u64) {
        (self.0.load(Relaxed), self.1.load(Relaxed))
    }

    pub(super) fn set(&self, (loaded, total): (u64, u64)) {
        self.0.store(loaded, Relaxed);
        self.1.store(total, Relaxed);
    }
}

/// How long pages are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    /// For the first.
    pub(super) first: Duration,
    /// For another, when the last has left.
    pub(super) back: Duration,
}

/// A model that can be asked.
pub(super) struct Ready {
    /// What clients may call it.
    pub(super) name: String,
    pub(super) path: String,
    pub(super) since: u64,
    pub(super) about: About,
    /// The same, as the package has it.
    pub(super) info: ModelInfo,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) template: Result<Template, String>,
    pub(super) answer: AnswerSettings,
    pub(super) cache: CacheSettings,
    pub(super) queue: Queue,
    pub(super) views: Arc<Vec<Mutex<View>>>,
    /// Made when the first answer is held to a grammar.
    pub(super) vocabulary: OnceLock<Result<GrammarVocabulary, Problem>>,
    pub(super) scripts: Mutex<VecDeque<(ScriptKey, Arc<Script>)>>,
}

type ScriptKey = (Option<String>, Option<bool>);

/// What is told of a model.
pub(super) struct About {
    pub(super) n_vocab: usize,
    pub(super) n_ctx_train: usize,
    pub(super) n_embd: usize,
    pub(super) n_params: u64,
    pub(super) size: u64,
}

impl App {
    /// The model, once it can be asked.
    pub(super) fn ready(&self) -> Result<&Ready, Problem> {
        if self.failed.load(Relaxed) {
            let why = "the GPU device was lost: start the server again";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why));
        }
        self.ready.get().ok_or_else(Problem::loading)
    }

    /// The same, for what takes a stream.
    pub(super) fn takes(&self) -> Result<&Ready, Problem> {
        match self.ending.load(Relaxed) {
            true => Err(Problem::ending()),
            false => self.ready(),
        }
    }
}

impl Ready {
    pub(super) fn template(&self) -> Result<&Template, Problem> {
        self.template.as_ref().map_err(|why| {
            let advice = "/v1/completions works, and so does --chat-template";
            Problem::new(StatusCode::NOT_IMPLEMENTED, format!("{why}; {advice}"))
        })
    }

    /// How tokens are called in each of several answers: the same seed gives the same answers.
    pub(super) fn seeded(
        &self,
        answer: &AnswerSettings,
        seed: Option<u64>,
        n: u64,
    ) -> Vec<AnswerSettings> {
        let first = seed.unwrap_or_else(crate::cli::sampling::fresh_seed);
        let with = |choice| {
            let mut answer = answer.clone();
            answer.sampling.seed = first.wrapping_add(choice);
            answer
        };
        (0..n).map(with).collect()
    }

    /// What an answer is held to, from its beginning.
    pub(super) fn terms(&self, ask: &Ask, work: &Work) -> Result<Terms, Problem> {
        let Some((name, grammar)) = &ask.grammar else {
            return Ok(Terms { constraint: None, watch: ask.watch });
        };
        if matches!(work, Work::Messages(asked) if asked.script.thinks()) {
            let why = "the model thinks before it answers, and thoughts are in no grammar; send \
                       chat_template_kwargs: {\"enable_thinking\": false} as well";
            return Err(Problem::field(*name, why));
        }
        let constraint = Some(Box::new(self.matcher(name, grammar)?) as _);
        Ok(Terms { constraint, watch: ask.watch })
    }

    /// What holds one output to a grammar that a field gave.
    pub(super) fn matcher(
        &self,
        field: &str,
        grammar: &Grammar,
    ) -> Result<GrammarMatcher, Problem> {
        let made = || GrammarVocabulary::new(self.tokenizer.clone());
        let of = |error: brooklet::Error| Problem::field(field, error.to_string());
        let vocabulary = self.vocabulary.get_or_init(|| made().map_err(of)).as_ref();
        vocabulary.map_err(Problem::clone)?.matcher(grammar).map_err(of)
    }

    /// The conversation that a request asks to be answered.
    pub(super) fn asked(&self, fields: &Fields) -> Result<Work, Problem> {
        let messages = Messages::read(fields)?.expect_question()?;
        let thoughts_in_text = match fields.text("reasoning_format")? {
            None | Some("auto" | "deepseek") => false,
            Some("none") => true,
            Some(other) => {
                let why = format!("{other:?}; auto, deepseek and none work");
                return Err(Problem::field("reasoning_format", why));
            }
        };
        let thinking = thinking(fields)?;
        let script = self.script(messages.system.clone(), thinking)?;
        let marks = messages.marks(script.head());
        let messages = messages.others;
        Ok(Work::Messages(Arc::new(Asked { script, messages, marks, thinking, thoughts_in_text })))
    }

    /// What the template makes of conversations with this system prompt.
    pub(super) fn script(
        &self,
        system: Option<String>,
        thinking: Option<bool>,
    ) -> Result<Arc<Script>, Problem> {
        let key = (system, thinking);
        let scripts = || self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = {
            let mut scripts = scripts();
            let at = scripts.iter().position(|(known, _)| *known == key);
            at.and_then(|at| scripts.remove(at))
        };
        let kept =
            kept.map_or_else(|| Ok((key.clone(), self.new_script(&key)?)), Ok::<_, Problem>)?;
        let script = kept.1.clone();
        let mut scripts = scripts();
        scripts.truncate(SCRIPTS - 1);
        scripts.push_front(kept);
        Ok(script)
    }

    fn new_script(&self, (system, thinking): &ScriptKey) -> Result<Arc<Script>, Problem> {
        // One that is far too long need not be rendered to know it.
        if let Some(system) = system {
            self.expect_room(self.tokenizer.encode(system, false)?.len())?;
        }
        let (tokenizer, template) = (self.tokenizer.clone(), self.template()?.clone());
        let mut script = Script::new(tokenizer, template, system.clone(), None)?;
        if thinking.is_some() && !script.can_choose_to_think() {
            let why = "enable_thinking: the model's template cannot be told whether to think";
            return Err(Problem::field("chat_template_kwargs", why));
        }
        script.set_thinking(*thinking)?;
        self.expect_room(script.head().len())?;
        Ok(Arc::new(script))
    }

    /// An error where a system prompt of so many tokens has no place.
    fn expect_room(&self, tokens: usize) -> Result<(), Problem> {
        let sinks = self.cache.sinks;
        if tokens <= sinks {
            return Ok(());
        }
        let why = format!(
            "the system prompt has {tokens} tokens, and the server keeps {sinks} for it: make it shorter, or start \
             the server with --sinks {tokens}"
        );
        Err(Problem::field("messages", why).coded("context_length_exceeded"))
    }
}

/// Whether the model should think first, as llama.cpp's clients say it.
fn thinking(fields: &Fields) -> Result<Option<bool>, Problem> {
    if let Some(effort) = fields.text("reasoning_effort")? {
        let why = format!(
            "{effort:?}: this is not supported; none works, and chat_template_kwargs.enable_thinking"
        );
        return if effort == "none" {
            Ok(Some(false))
        } else {
            Err(Problem::field("reasoning_effort", why))
        };
    }
    let Some(settings) = fields.object("chat_template_kwargs")? else { return Ok(None) };
    if let Some(other) =
        settings.names().find(|name| !matches!(*name, "enable_thinking" | "thinking"))
    {
        let found = settings.get(other).map_or(String::new(), shown);
        let why = format!("{other}: {found}; enable_thinking alone works");
        return Err(Problem::field("chat_template_kwargs", why));
    }
    let named = ["enable_thinking", "thinking"].into_iter().find_map(|name| settings.get(name));
    named.map_or(Ok(None), |on| match on {
        Value::Bool(on) => Ok(Some(*on)),
        other => Err(Problem::field(
            "chat_template_kwargs",
            format!("enable_thinking: {}; true or false is wanted", shown(other)),
        )),
    })
}
