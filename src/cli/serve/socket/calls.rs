//! Calls as they come over a socket, and what is answered.
use super::super::app::Ready;
use super::super::problem::Problem;
use axum::http::StatusCode;
use brooklet::grammar::Grammar;
use brooklet::session::Constraint;
use brooklet::{Error, wire};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::OwnedSemaphorePermit;

/// A message.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Heard {
    pub(super) brooklet: String,
    pub(super) id: u64,
    #[serde(default)]
    pub(super) of: u64,
    #[serde(default)]
    pub(super) method: String,
    #[serde(default)]
    pub(super) args: Value,
}

impl Heard {
    pub(super) fn is_call(&self) -> bool {
        self.brooklet == "call"
    }
}

/// A call that waits or is answered.
pub(super) struct Call {
    pub(super) id: u64,
    /// The stream that it is about; 0 is the first.
    pub(super) of: u64,
    pub(super) method: String,
    pub(super) args: Value,
    pub(super) aborted: Arc<AtomicBool>,
    /// Its bytes, of those that may wait.
    pub(super) _room: OwnedSemaphorePermit,
}

impl Call {
    /// Its arguments, as they have to be.
    pub(super) fn args<T: DeserializeOwned>(&self) -> Result<T, Thrown> {
        let mut args = self.args.clone();
        if let Some(settings) = args.get_mut("settings").and_then(Value::as_object_mut) {
            settings.remove("held"); // see `rules`
        }
        read(&self.method, args)
    }

    /// What its output is held to, if to anything.
    pub(super) fn rules(&self) -> Result<Option<Rules>, Thrown> {
        let held = self.args.get("settings").and_then(|settings| settings.get("held"));
        held.map(|held| read(&self.method, held.clone())).transpose()
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load(Relaxed)
    }
}

/// `held` of the package's settings: what an output is held to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    kind: Kind,
    source: String,
}

/// What it is written as.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Schema,
    Regex,
    Grammar,
}

impl Rules {
    /// The same for a model's tokens.
    pub(super) fn matcher(&self, ready: &Ready) -> Result<Box<dyn Constraint>, Thrown> {
        let (name, grammar) = match self.kind {
            Kind::Schema => ("schema", Grammar::json_schema(&self.source)),
            Kind::Regex => ("regex", Grammar::regex(&self.source)),
            Kind::Grammar => ("grammar", Grammar::lark(&self.source)),
        };
        let grammar = grammar.map_err(|error| Thrown::option(format!("{name}: {error}")))?;
        Ok(Box::new(ready.matcher(name, &grammar)?))
    }
}

pub(in super::super) fn read<T: DeserializeOwned>(what: &str, args: Value) -> Result<T, Thrown> {
    let args = if args.is_null() { json!({}) } else { args };
    serde_json::from_value(args).map_err(|error| Thrown::option(format!("{what}: {error}")))
}

/// What went wrong, as the package knows it.
#[derive(Clone, Debug)]
pub(in super::super) struct Thrown {
    pub(super) code: &'static str,
    pub(super) message: String,
    /// Nothing will work any more.
    pub(super) is_fatal: bool,
}

impl Thrown {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), is_fatal: false }
    }

    /// Something that can be asked otherwise.
    pub(super) fn option(message: impl Into<String>) -> Self {
        Self::new("bad-option", message)
    }

    pub(super) fn aborted() -> Self {
        Self::new("aborted", "the work was aborted")
    }
}

impl From<Error> for Thrown {
    fn from(error: Error) -> Self {
        let is_fatal = matches!(error, Error::DeviceLost(_));
        Self { is_fatal, ..Self::new(wire::code(&error), error.worded(wire::option)) }
    }
}

impl From<Problem> for Thrown {
    fn from(problem: Problem) -> Self {
        let code = match problem.status {
            StatusCode::SERVICE_UNAVAILABLE => "network",
            StatusCode::NOT_IMPLEMENTED => "unsupported",
            status if status.is_client_error() => "bad-option",
            _ => "internal",
        };
        Self { is_fatal: problem.is_fatal, ..Self::new(code, problem.message()) }
    }
}

/// What is answered to a call.
pub(super) struct Reply {
    /// None where it is not known which call it is.
    pub(super) id: Option<u64>,
    pub(super) told: Result<Value, Thrown>,
    /// Nothing follows.
    pub(super) last: bool,
}

impl Reply {
    pub(super) fn to(call: &Call, told: Result<Value, Thrown>) -> Self {
        Self { id: Some(call.id), told, last: false }
    }

    pub(super) fn failed(id: u64, why: Thrown) -> Self {
        Self { id: Some(id), told: Err(why), last: false }
    }

    pub(super) fn aborted(id: u64) -> Self {
        Self::failed(id, Thrown::aborted())
    }

    pub(super) fn text(&self) -> String {
        let message = match &self.told {
            Ok(result) => json!({ "brooklet": "result", "id": self.id, "result": result }),
            Err(Thrown { code, message, .. }) => {
                let error = json!({ "code": code, "message": message });
                json!({ "brooklet": "error", "id": self.id, "error": error })
            }
        };
        message.to_string()
    }
}
