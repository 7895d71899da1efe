//! Requests: redirects, whose host may see the token, what a status means, and what is worth another try.
use super::address::Address;
use super::retry::Failure;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::time::Duration;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

/// The hub, unless `HF_ENDPOINT` names another.
const HUB: &str = "https://huggingface.co";
/// As browsers do, within reason.
const MOST_REDIRECTS: usize = 8;
/// Seconds without a byte after which a connection counts as broken, unless `HF_HUB_DOWNLOAD_TIMEOUT` says otherwise.
const PATIENCE: u64 = 30;
/// Nobody's list of files is longer.
const MOST_JSON: u64 = 64 << 20;
/// A server may ask for so long a wait, in seconds; for a longer one nobody sits there.
const LONGEST_WAIT: u64 = 60;

/// What makes requests.
pub(super) struct Http {
    agent: Agent,
    pub(super) hub: Address,
    token: Option<String>,
    /// How long a server may say nothing.
    pub(super) patience: Duration,
}

/// What came of a request: 200, 206 or 416.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// The sha256 of the file, as the hub names it on its way to another host.
    pub(super) linked: Option<String>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(self.response.headers(), name)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

impl Http {
    /// As the environment has it: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_DOWNLOAD_TIMEOUT`, and `HTTPS_PROXY` and its kin.
    pub(super) fn new() -> Result<Self, String> {
        let var = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned());
        let hub = Address::parse(endpoint.trim()).ok_or_else(|| {
            format!("HF_ENDPOINT is {endpoint}, which is no address; write https://HOST")
        })?;
        let token = var("HF_TOKEN").map(|token| token.trim().to_owned());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err("HF_TOKEN has spaces or odd letters inside; copy the token anew".into());
        }
        let patience = match var("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => PATIENCE,
            Some(text) => {
                text.trim().parse().ok().filter(|&seconds| seconds > 0).ok_or_else(|| {
                    format!(
                        "HF_HUB_DOWNLOAD_TIMEOUT is {text}; it is a number of seconds, 1 or more"
                    )
                })?
            }
        };
        let patience = Duration::from_secs(patience);
        let limit = Some(patience);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(limit)
            .timeout_connect(limit)
            .timeout_recv_response(limit)
            .timeout_per_read(limit)
            .timeout_per_write(limit)
            .user_agent(concat!("brooklet/", env!("CARGO_PKG_VERSION")))
            // What is compressed on the way has other bytes than those that are counted and hashed.
            .accept_encoding("identity");
        Ok(Self { agent: config.build().new_agent(), hub, token, patience })
    }

    /// Asks for `address`, and goes where the answers lead. The token goes to the hub and nowhere else.
    pub(super) fn get(
        &self,
        address: &Address,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        let (mut address, mut linked) = (address.clone(), None);
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent.get(address.as_str());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let ours = address.has_origin_of(&self.hub);
            if let Some(token) = self.token.as_ref().filter(|_| ours) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| worded(&error, &address))?;
            let status = response.status().as_u16();
            if ours && linked.is_none() {
                linked = header(response.headers(), "x-linked-etag").and_then(sha256_of);
            }
            match status {
                200 | 206 | 416 => return Ok(Answer { response, linked }),
                301 | 302 | 303 | 307 | 308 => {
                    let location = header(response.headers(), "location").unwrap_or_default();
                    let next = address.join(location).ok_or_else(|| {
                        let host = address.host();
                        Failure::Final(format!(
                            "{host} leads on to {location:?}, which is no address"
                        ))
                    })?;
                    if address.is_https() && !next.is_https() {
                        return Err(Failure::Final(format!(
                            "{address} leads on to {next}, which is not protected on the way (http instead of \
                             https); that is not followed"
                        )));
                    }
                    address = next;
                }
                _ => return Err(self.refused(status, response.headers(), &address)),
            }
        }
        let host = address.host();
        Err(Failure::Final(format!("{host} leads on and on, more than {MOST_REDIRECTS} times")))
    }

    /// The same for what is written in JSON, with the address of the next page, if there is one.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        address: &Address,
    ) -> Result<(T, Option<Address>), Failure> {
        let Answer { response, .. } = self.get(address, &[])?;
        let (parts, mut body) = response.into_parts();
        let next = header(&parts.headers, "link").and_then(next_page);
        let text = body.with_config().limit(MOST_JSON).read_to_vec();
        let text = text.map_err(|error| worded(&error, address))?;
        let value = serde_json::from_slice(&text).map_err(|error| {
            Failure::Final(format!(
                "{address} does not answer as a hub does ({error}); check HF_ENDPOINT, or try again later"
            ))
        })?;
        Ok((value, next.and_then(|next| address.join(next))))
    }

    /// What a status means that is not a file.
    fn refused(&self, status: u16, headers: &HeaderMap, address: &Address) -> Failure {
        let host = address.host();
        let ours = address.has_origin_of(&self.hub);
        let wait = header(headers, "retry-after").and_then(|text| text.parse::<u64>().ok());
        Failure::Final(match (status, ours, &self.token) {
            (401, true, Some(_)) => format!(
                "{host} does not take the token in HF_TOKEN (401): it may have expired, or not be for this \
                 repository; make a new one in your settings there"
            ),
            (401, true, None) => format!(
                "{host} wants to know who asks (401): there is no such repository, or it is private or gated; \
                 check the name, or set HF_TOKEN to a token that may read it"
            ),
            (401 | 407, ..) => format!(
                "{host} asks for a login ({status}), which brooklet has none for; download the file otherwise \
                 and name it with -m FILE"
            ),
            (403, true, Some(_)) => format!(
                "{host} refuses this to the owner of the token in HF_TOKEN (403): the repository is gated, and its \
                 terms are accepted on its page there; or the token may not read it"
            ),
            (403, true, None) => format!(
                "{host} refuses this (403): the repository is gated; accept its terms on its page there, and set \
                 HF_TOKEN to a token of yours"
            ),
            (403, ..) => format!("{host} refuses to give the file (403)"),
            (404 | 410, ..) => {
                format!("{host} has nothing of this name ({status}); check how it is spelled")
            }
            (429, ..) if wait.is_some_and(|wait| wait > LONGEST_WAIT) => format!(
                "{host} has been asked too often (429) and wants {} s of rest; ask again after that",
                wait.unwrap_or_default()
            ),
            (408 | 429 | 500.., ..) => {
                let why = match status {
                    408 => format!("{host} has waited for the request in vain (408)"),
                    429 => format!("{host} has been asked too often (429)"),
                    _ => format!("{host} fails ({status})"),
                };
                let after = wait.filter(|&wait| wait <= LONGEST_WAIT).map(Duration::from_secs);
                return Failure::Again { why, after };
            }
            _ => format!("{host} answers {status} instead of giving the file"),
        })
    }
}

/// What kept a request from being answered.
fn worded(error: &ureq::Error, address: &Address) -> Failure {
    let host = address.host();
    let again = |why: String| Failure::Again { why, after: None };
    match error {
        ureq::Error::HostNotFound => not_found(host),
        // So the system's resolver says the same.
        ureq::Error::Io(source) if source.to_string().starts_with("failed to lookup address") => {
            not_found(host)
        }
        ureq::Error::Io(source) => match source.kind() {
            ErrorKind::ConnectionRefused => {
                Failure::Final(format!("{host} takes no connection on port {}", address.port()))
            }
            // So a certificate comes that does not hold.
            ErrorKind::InvalidData => Failure::Final(format!("{host} cannot be trusted: {source}")),
            _ => again(format!("the connection to {host} broke ({source})")),
        },
        ureq::Error::Timeout(_) => again(format!("{host} says nothing any more")),
        ureq::Error::ConnectionFailed => again(format!("{host} cannot be reached")),
        ureq::Error::Protocol(what) => again(format!("{host} does not speak HTTP ({what})")),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
            Failure::Final(format!("{host} cannot be trusted: {error}"))
        }
        _ => Failure::Final(format!("{address} cannot be asked for: {error}")),
    }
}

fn not_found(host: &str) -> Failure {
    Failure::Final(format!(
        "{host} is not found: is this machine on the network? --offline takes only what is here already"
    ))
}

/// The sha256 in an ETag, if it is one.
fn sha256_of(etag: &str) -> Option<String> {
    let hex = etag.trim_start_matches("W/").trim_matches('"');
    is_sha256(hex).then(|| hex.to_ascii_lowercase())
}

pub(super) fn is_sha256(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The address of the next page in a `Link` header.
fn next_page(link: &str) -> Option<&str> {
    link.split(',').find(|one| one.contains("rel=\"next\"")).and_then(|one| {
        let one = one.trim().strip_prefix('<')?;
        one.split_once('>').map(|(address, _)| address)
    })
}
