//! Who may ask: a key where there is one, a host that is meant, and pages of this machine or of those that are named.
use super::page;
use super::problem::Problem;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// What may be asked without a key.
const PUBLIC: [&str; 2] = ["/health", "/v1/health"];

/// The rules.
pub(super) struct Guard {
    /// Hashes: comparing them tells nothing of a key by the time that it takes.
    pub(super) keys: Vec<[u8; 32]>,
    /// What the server may be called beside this machine's own names; anything where that cannot be known.
    pub(super) hosts: Option<Vec<String>>,
    /// Pages that may ask beside those of this machine; * is any.
    pub(super) origins: Vec<String>,
}

pub(super) fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Host and port, of which the port may be missing.
fn host_of(authority: &str) -> &str {
    let end = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    authority.get(..end).unwrap_or(authority)
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where a socket says its key itself: a page can send no header with it.
const SOCKET: &str = "/v1/engine";

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl Guard {
    /// Whether a page may ask.
    fn allows(&self, origin: &str) -> bool {
        let host =
            origin.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
        let own = host.is_some_and(|(_, authority)| is_loopback(host_of(authority)));
        own || self
            .origins
            .iter()
            .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        let headers = request.headers();
        let refused = |why: String| Err(Problem::new(StatusCode::FORBIDDEN, why));
        let host = text(headers, header::HOST)
            .or_else(|| request.uri().authority().map(|host| host.as_str()));
        // Names that somebody else has made to point here are how pages of others reach servers like this.
        if self.keys.is_empty()
            && let Some(hosts) = &self.hosts
        {
            let name = host.map_or("", host_of);
            if !is_loopback(name) && !hosts.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                let advice = "start it with --host, or with --api-key";
                return refused(format!("this server is not called {name:?}; {advice}"));
            }
        }
        if let Some(origin) = text(headers, header::ORIGIN) {
            let own = origin.split_once("://").map(|(_, authority)| authority);
            if own != host && !self.allows(origin) {
                return refused(format!(
                    "pages of {origin} may not ask this server; --cors-origin allows them"
                ));
            }
        }
        let path = request.uri().path();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let public = PUBLIC.contains(&path) || path == SOCKET || reads && page::has(path);
        let public = public || request.method() == Method::OPTIONS;
        match self.keys.is_empty() || public || self.knows(headers) {
            true => Ok(()),
            false => {
                let why = "a key is wanted: Authorization: Bearer KEY, or X-Api-Key: KEY";
                Err(Problem::new(StatusCode::UNAUTHORIZED, why).coded("invalid_api_key"))
            }
        }
    }

    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        let bearer = text(headers, header::AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
        });
        let own = headers.get("x-api-key").and_then(|value| value.to_str().ok());
        let given = bearer.into_iter().chain(own);
        given.fold(false, |known, given| known | self.has(given))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains(&hash(key))
    }
}

/// Lets through what may pass.
pub(super) async fn guard(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// What pages are told that may ask.
pub(super) fn cors(guard: &Arc<Guard>) -> CorsLayer {
    let guard = guard.clone();
    let allowed =
        move |origin: &HeaderValue, _: &_| origin.to_str().is_ok_and(|origin| guard.allows(origin));
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST])
        // What clients send of their own beside it says nothing here.
        .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
        .expose_headers([header::RETRY_AFTER])
        .max_age(Duration::from_secs(3600))
}

#[cfg(test)]
mod tests {
    use super::{Guard, host_of, is_loopback};

    #[test]
    fn hosts_are_told_from_ports() {
        for (authority, host) in [
            ("localhost:8080", "localhost"),
            ("[::1]:8080", "[::1]"),
            ("127.0.0.1", "127.0.0.1"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(host_of(authority), host);
        }
        for own in ["localhost", "LOCALHOST", "127.0.0.1", "127.3.2.1", "[::1]", "a.localhost"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["example.org", "localhost.example.org", "127.0.0.1.nip.io", "10.0.0.1", ""] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn pages_of_others_may_not_ask() {
        let guard =
            Guard { keys: vec![], hosts: None, origins: vec!["https://chat.example.org".into()] };
        for own in ["http://localhost:3000", "http://127.0.0.1", "https://chat.example.org"] {
            assert!(guard.allows(own), "{own}");
        }
        for other in [
            "https://example.org",
            "null",
            "file://",
            "http://localhost.example.org",
            "x://localhost",
        ] {
            assert!(!guard.allows(other), "{other}");
        }
    }
}
