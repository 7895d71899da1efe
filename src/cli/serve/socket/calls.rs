//! Calls as they come over a socket, and what is answered.
use super::super::problem::Problem;
use axum::http::StatusCode;
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
        if !self.args["settings"]["held"].is_null() {
            let why = "schema, regex and grammar: over a server's socket no output is held to rules; response_format of its \
                       /v1/chat/completions is, and so is an engine of Engine.load";
            return Err(Thrown::new("unsupported", why));
        }
        read(&self.method, self.args.clone())
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load(Relaxed)
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
