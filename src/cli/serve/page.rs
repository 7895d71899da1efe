//! The page, in the binary: over a connection it needs none of the package's wasm, so it is what is in the source tree.
use super::app::App;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
};
use axum::http::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};
use std::sync::Arc;

/// `www/`, without what a build puts there for pages that run the engine themselves.
#[derive(RustEmbed)]
#[folder = "www/"]
#[include = "*.html"]
#[include = "*.css"]
#[include = "*.js"]
#[include = "*.svg"]
#[include = "*.webmanifest"]
#[include = "lib/*"]
#[exclude = "brooklet/*"]
#[exclude = "models/*"]
#[exclude = "sw.js"]
struct Page;

/// `web/js/`, which the page knows as `brooklet/`.
#[derive(RustEmbed)]
#[folder = "web/js/"]
#[include = "*.js"]
struct Package;

/// What the page's own policy says, and that no other page may have it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self' ws: wss: http: https:; worker-src 'self'; manifest-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The types of what there is.
const TYPES: [(&str, &str); 6] = [
    (".html", "text/html; charset=utf-8"),
    (".css", "text/css; charset=utf-8"),
    (".js", "text/javascript; charset=utf-8"),
    (".svg", "image/svg+xml"),
    (".webmanifest", "application/manifest+json"),
    ("", "text/plain; charset=utf-8"),
];

/// The file that a path names.
fn file(path: &str) -> Option<(String, EmbeddedFile)> {
    let name = match path.strip_prefix('/')? {
        "" => "index.html",
        name => name,
    };
    let found = match name.strip_prefix("brooklet/") {
        Some(name) => Package::get(name),
        None => Page::get(name),
    };
    found.map(|file| (name.to_owned(), file))
}

/// Whether a path is the page's: such files anybody may have.
pub(super) fn has(path: &str) -> bool {
    file(path).is_some()
}

/// The file of this path; none where there is none.
pub(super) fn respond(path: &str, headers: &HeaderMap) -> Option<Response> {
    let (name, file) = file(path)?;
    let hash = file.metadata.sha256_hash();
    let tag: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let kind = TYPES.iter().find(|(end, _)| name.ends_with(end)).map_or("", |(_, kind)| kind);
    let head = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        (ETAG, &tag),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    let same = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    if same {
        return Some((StatusCode::NOT_MODIFIED, head).into_response());
    }
    // The page is told where it is by what it is.
    let body = match name.as_str() {
        "index.html" => {
            let text = String::from_utf8_lossy(&file.data);
            text.replacen("<html ", "<html data-server ", 1).into_bytes()
        }
        _ => file.data.into_owned(),
    };
    Some((head, body).into_response())
}

/// The page itself.
pub(super) async fn index(State(_): State<Arc<App>>, headers: HeaderMap) -> Response {
    respond("/", &headers).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test that unwraps what is not there should fail there"
    )]
    use super::{Page, file, has, respond};
    use axum::http::HeaderMap;
    use std::collections::BTreeSet;

    #[test]
    fn the_page_is_here_with_all_that_its_files_import() {
        let mut left = vec!["/main.js".to_owned(), "/brooklet/index.js".to_owned()];
        let index = String::from_utf8(Page::get("index.html").unwrap().data.into_owned()).unwrap();
        let named =
            ["href=\"", "src=\""].into_iter().flat_map(|attribute| index.split(attribute).skip(1));
        let named = named.filter_map(|rest| rest.split('"').next());
        left.extend(named.filter(|name| !name.starts_with('#')).map(|name| format!("/{name}")));
        let mut seen = BTreeSet::new();
        while let Some(path) = left.pop() {
            let (_, found) = file(&path).unwrap_or_else(|| panic!("{path} is not in the binary"));
            if !seen.insert(path.clone()) || !path.ends_with(".js") {
                continue;
            }
            let text = String::from_utf8(found.data.into_owned()).unwrap();
            let folder = &path[..=path.rfind('/').unwrap()];
            let imports = text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next());
            // What wasm-bindgen makes is for engines in the page, which import it when they begin.
            let imports = imports.filter(|name| !name.ends_with("brooklet.js"));
            left.extend(imports.map(|name| format!("{folder}{name}")));
        }
        assert!(seen.len() > 40, "{seen:?}");
        for path in ["/lib/smd.js", "/lib/LICENSE-smd", "/brooklet/connect.js", "/"] {
            assert!(has(path), "{path}");
        }
    }

    #[test]
    fn nothing_else_is_given_out() {
        for path in [
            "",
            "/..",
            "/../Cargo.toml",
            "//etc/passwd",
            "/brooklet/../../../Cargo.toml",
            "/models/x.gguf",
            "/sw.js",
            "/brooklet/brooklet_bg.wasm",
            "/lib/../../Cargo.toml",
            "/main.js/",
            "/%2e%2e/Cargo.toml",
            "/.gitignore",
        ] {
            assert!(!has(path), "{path}");
            assert!(respond(path, &HeaderMap::new()).is_none(), "{path}");
        }
    }
}
