//! Chat templates: the Jinja text in a model's file that makes one text of a conversation.
//!
//! They are rendered as transformers does, byte for byte, by minijinja and a short list of mends. A template comes with
//! a model that is not trusted: what it may cost is bounded, and it can read nothing.
use super::conversation::{Conversation, Renderer, TemplateSource};
use super::dumps::{Dumps, dumps};
use super::json::Json;
use super::marks::MARK;
use crate::{Error, Result};
use chrono::{Local, NaiveDateTime};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Serde, ValueKind};
use minijinja::{Environment, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::fmt::Write;
use std::sync::Arc;

/// What a template may cost beside what its conversation is long: a hundred times what the costliest real one does.
const FUEL: u64 = 100_000;
/// Bytes of a conversation that allow one unit more.
const BYTES_PER_FUEL: u64 = 4;
/// No template is longer: the longest real ones have 30 KB.
const LONGEST: usize = 1 << 20;
const NAME: &str = "chat";

/// A template that was read and is sound as far as can be seen without a conversation.
#[derive(Clone)]
pub struct Template {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
    bos: String,
    eos: String,
}

fn wrong(text: impl Into<String>) -> Error {
    Error::Template(text.into())
}

impl Template {
    /// Reads a template, for a model of which BOS and EOS are written so.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        Self::with_clock(source, bos, eos, || Local::now().naive_local())
    }

    /// Reads the template of a model's file.
    pub fn of(TemplateSource { text, bos, eos }: &TemplateSource) -> Result<Self> {
        Self::new(text, bos, eos)
    }

    pub(crate) fn with_clock(
        source: &str,
        bos: &str,
        eos: &str,
        now: impl Fn() -> NaiveDateTime + Send + Sync + 'static,
    ) -> Result<Self> {
        if source.len() > LONGEST {
            return Err(wrong(format!("it has {} bytes, and {LONGEST} is the most", source.len())));
        }
        let source = settled(source);
        let compiled = source.clone();
        let environment = within_time(0, move || {
            let mut environment = environment(now);
            environment.add_template_owned(NAME, compiled).map_err(told)?;
            Ok(environment)
        })?;
        let [bos, eos] = [bos, eos].map(str::to_owned);
        Ok(Self { environment: Arc::new(environment), source: source.into(), bos, eos })
    }

    /// The text that variables make, as [`Conversation::variables`] gives them.
    pub fn render_variables(&self, variables: &Json) -> Result<String> {
        let Json(serde_json::Value::Object(variables)) = variables else {
            return Err(wrong("its variables are no map"));
        };
        let given = variables.iter().map(|(name, value)| (name.clone(), Value::from(Serde(value))));
        let own = [("bos_token", &self.bos), ("eos_token", &self.eos)];
        let own = own.map(|(name, text)| (name.to_owned(), Value::from(text.as_str())));
        let variables: Vec<(String, Value)> = given.chain(own).collect();
        let bytes = variables.iter().map(|(_, value)| size(value)).sum::<u64>();
        let mut environment = (*self.environment).clone();
        environment.set_fuel(Some(FUEL + bytes / BYTES_PER_FUEL));
        within_time(bytes, move || {
            let template = environment.get_template(NAME).map_err(told)?;
            template.render(Value::from_pairs(variables)).map_err(told)
        })
    }
}

impl Renderer for Template {
    fn source(&self) -> &str {
        &self.source
    }

    fn render(&self, conversation: &Conversation) -> Result<String> {
        self.render_variables(&conversation.variables())
    }
}

/// Bytes of all texts in a value, and one for each part.
fn size(value: &Value) -> u64 {
    let own = value.as_str().map_or(1, |text| text.len() as u64 + 1);
    let map = value.kind() == ValueKind::Map;
    let parts = value.try_iter().ok().filter(|_| map || value.kind() == ValueKind::Seq);
    let part = |key: Value| match map {
        true => size(&key) + size(&value.get_item(&key).unwrap_or_default()),
        false => size(&key),
    };
    own + parts.into_iter().flatten().map(part).sum::<u64>()
}

/// The source as the engine takes it: newlines as Jinja2 has them, and without the marks of what is trained on.
fn settled(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut settled = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        settled.push_str(before);
        let inside = tag.trim_start_matches(['-', '+']).trim_start();
        let word = inside.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        let other = match word {
            "generation" => "if true",
            "endgeneration" => "endif",
            other => other,
        };
        settled.push_str(&tag[..tag.len() - inside.len()]);
        settled.push_str(other);
        rest = &inside[word.len()..];
    }
    settled + rest
}

/// minijinja as transformers has Jinja2.
fn environment(now: impl Fn() -> NaiveDateTime + Send + Sync + 'static) -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_filter("tojson", tojson);
    environment.add_filter("from_json", from_json);
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |text: String| -> Result<Value, _> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
    });
    environment.add_function("strftime_now", move |format: String| {
        let mut text = String::new();
        match write!(text, "{}", now().format(&format)) {
            Ok(()) => Ok(text),
            Err(_) => Err(minijinja::Error::new(
                ErrorKind::InvalidOperation,
                format!("{format:?} is no form of a date"),
            )),
        }
    });
    environment
}

/// As `json.dumps` of Python.
fn tojson(
    state: &State,
    value: &Value,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<Value, minijinja::Error> {
    let given = |at: usize, name: &str| match args.get(at) {
        Some(value) => Some(value.clone()),
        None => kwargs.get::<Option<Value>>(name).ok().flatten(),
    };
    let given = |at, name| given(at, name).filter(|value: &Value| !value.is_none());
    let indent = given(1, "indent").map(|indent| {
        let spaces = || " ".repeat(indent.as_usize().unwrap_or(0).min(64));
        indent.as_str().map_or_else(spaces, str::to_owned)
    });
    let usual = [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned);
    let separators = match given(2, "separators") {
        None => usual,
        Some(pair) => [0, 1].map(|at| pair.get_item_by_index(at).unwrap_or_default().to_string()),
    };
    let form = Dumps {
        ascii: given(0, "ensure_ascii").is_some_and(|value| value.is_true()),
        indent,
        separators,
        sorted: given(3, "sort_keys").is_some_and(|value| value.is_true()),
    };
    kwargs.assert_all_used()?;
    dumps(state, value, &form).map(Value::from)
}

fn from_json(text: String) -> Result<Value, minijinja::Error> {
    serde_json::from_str(&text).map_err(|error| {
        minijinja::Error::new(ErrorKind::InvalidOperation, format!("{text:?} is not JSON: {error}"))
    })
}

/// The engine's error as a sentence for the user.
fn told(error: minijinja::Error) -> Error {
    let at = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let detail = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => {
            "it takes more steps or more memory than any chat template needs".to_owned()
        }
        (_, Some(detail)) => detail.replace(MARK, ""),
        (kind, None) => kind.to_string(),
    };
    // An error in a loop or a macro carries the one that has the reason.
    let mut because = String::new();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        if let Some(inner) = inner.downcast_ref::<minijinja::Error>()
            && let Some(detail) = inner.detail()
        {
            because = format!(": {}", detail.replace(MARK, ""));
        }
        source = inner.source();
    }
    wrong(format!("{at}{detail}{because}"))
}

/// Runs what fuel bounds but for one thing: lists that double. A thread that does not come back in time is left to
/// itself; in a browser, whoever started the worker ends it.
#[cfg(not(target_arch = "wasm32"))]
fn within_time<T: Send + 'static>(
    bytes: u64,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;
    /// What 500 nested macros take in a build that is not optimised.
    const STACK: usize = 64 << 20;
    let time = Duration::from_secs(2) + Duration::from_micros(bytes);
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK);
    // Nobody listens any more to a thread that is late.
    let started = thread.spawn(move || drop(sender.send(work())));
    started
        .map_err(|source| Error::Io { path: "a thread for the chat template".into(), source })?;
    receiver.recv_timeout(time).unwrap_or_else(|error| {
        Err(wrong(match error {
            RecvTimeoutError::Timeout => {
                format!("it was not done after {} seconds", time.as_secs())
            }
            RecvTimeoutError::Disconnected => "it made the template engine fail".to_owned(),
        }))
    })
}

#[cfg(target_arch = "wasm32")]
fn within_time<T>(_: u64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    work()
}
