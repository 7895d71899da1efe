//! The body of a request: JSON that says so, of a bounded length, in a bounded time.
use super::problem::Problem;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use std::time::Duration;

/// The longest body.
const MOST: usize = 4 << 20;
/// It has come after so long, or never will.
const PATIENCE: Duration = Duration::from_secs(75);

pub(super) async fn read(request: Request<Body>) -> Result<Bytes, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    // A page of somebody else could send anything else without asking first.
    if !kind.eq_ignore_ascii_case("application/json")
        && !kind.to_ascii_lowercase().ends_with("+json")
    {
        let why = format!("content-type: {kind:?}; application/json is wanted");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| length > MOST) {
        return Err(too_long());
    }
    match tokio::time::timeout(PATIENCE, to_bytes(request.into_body(), MOST)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if is_too_long(&error) => Err(too_long()),
        Ok(Err(error)) => Err(Problem::new(StatusCode::BAD_REQUEST, format!("the body: {error}"))),
        Err(_) => {
            let why = format!("the body has not come after {} seconds", PATIENCE.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, why))
        }
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains("length limit") {
            return true;
        }
        source = error.source();
    }
    false
}

fn too_long() -> Problem {
    let why = format!("the body has more than {MOST} bytes, which is the most");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why)
}
