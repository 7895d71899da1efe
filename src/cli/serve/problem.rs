//! Errors as OpenAI's clients read them: a status, and an object that says what was wrong, where, and what to do.
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use brooklet::Error;
use serde_json::{Value, json};

/// What is told instead of an answer.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    message: String,
    /// The field that was wrong.
    param: Option<String>,
    code: Option<&'static str>,
    /// After how many seconds it may be otherwise.
    retry_after: Option<u64>,
    /// Nothing will work any more.
    pub(super) is_fatal: bool,
}

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, param: None, code: None, retry_after: None, is_fatal: false }
    }

    /// A field that cannot be as it is.
    pub(super) fn field(param: impl Into<String>, message: impl AsRef<str>) -> Self {
        let param = param.into();
        let message = format!("{param}: {}", message.as_ref());
        Self { param: Some(param), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    pub(super) fn coded(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// While the model is being read.
    pub(super) fn loading() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Loading model").retry_after(1)
    }

    /// While the server comes to its end.
    pub(super) fn ending() -> Self {
        let why =
            "the server is ending and takes no new requests; try another, or this one again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why).retry_after(5)
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            501 => "not_supported_error",
            503 => "unavailable_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// The object that stands for it in a stream, too.
    pub(super) fn object(&self) -> Value {
        // As the widest-known servers have it: a name where there is one, else the status.
        let code = self.code.map_or(json!(self.status.as_u16()), |code| json!(code));
        json!({ "error": { "message": self.message, "type": self.kind(), "param": self.param, "code": code } })
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::Template(_) => Self::field("messages", error.to_string()),
            Error::Setting { which, .. } => {
                Self::field(*which, error.worded(|_| String::new()).trim())
            }
            other if other.is_usage() => Self::new(StatusCode::BAD_REQUEST, error.to_string()),
            other => Self {
                is_fatal: matches!(other, Error::DeviceLost(_)),
                ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            },
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.object())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
