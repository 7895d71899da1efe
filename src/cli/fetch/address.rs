//! Addresses: where a redirect leads, and whose host it is.
use iri_string::format::ToDedicatedString;
use iri_string::types::{UriReferenceStr, UriStr, UriString};
use std::fmt;

/// An `http` or `https` address. Shown without what stands behind `?`, which may be a signature.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Address(UriString);

impl Address {
    /// None of another scheme, and none with a name and a password in it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.split_once('#').map_or(text, |(address, _)| address);
        let uri = UriStr::new(text).ok()?;
        let scheme = uri.scheme_str().to_ascii_lowercase();
        let authority = uri.authority_components()?;
        let whose = !authority.host().is_empty() && authority.userinfo().is_none();
        (["http", "https"].contains(&scheme.as_str()) && whose).then(|| Self(uri.to_owned()))
    }

    /// Where a `Location` leads from here.
    pub(crate) fn join(&self, location: &str) -> Option<Self> {
        // Not every server escapes what an address must not have.
        let location = escaped(location, |byte| b"!#$%&'()*+,/:;=?@[]~-._".contains(&byte));
        let reference = UriReferenceStr::new(&location).ok()?;
        let joined = reference.resolve_against(self.0.to_absolute()).to_dedicated_string();
        Self::parse(joined.as_str())
    }

    /// A path below this address: what has another meaning in an address is escaped.
    pub(crate) fn below(&self, path: &str) -> Option<Self> {
        let start = self.0.as_str().trim_end_matches('/');
        let path = escaped(path, |byte| b"-_.~/".contains(&byte));
        Self::parse(&format!("{start}/{path}"))
    }

    /// The same file name replaced by another, for the other files of a split model.
    pub(crate) fn beside(&self, file_name: &str) -> Option<Self> {
        let query = self.0.query_str().map(|query| format!("?{query}")).unwrap_or_default();
        self.join(&format!("{file_name}{query}"))
    }

    /// The same with a query.
    pub(crate) fn with_query(&self, query: &str) -> Option<Self> {
        Self::parse(&format!("{}?{query}", self.as_str()))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn host(&self) -> &str {
        self.0.authority_components().map_or("", |authority| authority.host())
    }

    pub(crate) fn is_https(&self) -> bool {
        self.0.scheme_str().eq_ignore_ascii_case("https")
    }

    pub(crate) fn port(&self) -> &str {
        let given = self.0.authority_components().and_then(|authority| authority.port());
        let usual = if self.is_https() { "443" } else { "80" };
        given.filter(|port| !port.is_empty()).unwrap_or(usual)
    }

    /// Whether a secret for the one may be told to the other.
    pub(crate) fn has_origin_of(&self, other: &Self) -> bool {
        let same_host = self.host().eq_ignore_ascii_case(other.host());
        self.is_https() == other.is_https() && same_host && self.port() == other.port()
    }

    /// The parts of the path, as they are escaped.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.path_str().split('/').filter(|part| !part.is_empty())
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.0.query_str()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.as_str();
        f.write_str(text.split_once('?').map_or(text, |(address, _)| address))
    }
}

/// A text in which all bytes are escaped but letters, digits and those that are `plain`.
fn escaped(text: &str, plain: impl Fn(u8) -> bool) -> String {
    let each = text.bytes().map(|byte| match byte.is_ascii_alphanumeric() || plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::Address;

    fn address(text: &str) -> Address {
        Address::parse(text).expect(text)
    }

    #[test]
    fn a_redirect_leads_where_the_standard_says() {
        let from = address("https://hub.example/a/b/c.gguf?x=1#f");
        let joined = |location| from.join(location).map(|to| to.as_str().to_owned());
        assert_eq!(joined("/d"), Some("https://hub.example/d".into()));
        assert_eq!(joined("d?y"), Some("https://hub.example/a/b/d?y".into()));
        assert_eq!(joined("../d"), Some("https://hub.example/a/d".into()));
        assert_eq!(joined("//cdn.example/d"), Some("https://cdn.example/d".into()));
        assert_eq!(joined("http://127.0.0.1:81/d"), Some("http://127.0.0.1:81/d".into()));
        assert_eq!(joined("file:///etc/passwd"), None);
        let odd = joined("/ä b?c=\"d|e\"&f=%20");
        assert_eq!(odd, Some("https://hub.example/%C3%A4%20b?c=%22d%7Ce%22&f=%20".into()));
        assert_eq!(joined("http://[::1"), None);
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let hub = address("https://Hub.example/x");
        for same in ["https://hub.example", "https://hub.example:443/y", "https://hub.example:/"] {
            assert!(hub.has_origin_of(&address(same)), "{same}");
        }
        for other in [
            "http://hub.example/",
            "https://hub.example:8443/",
            "https://hub.example.evil.example/",
            "https://cdn.hub.example/",
        ] {
            assert!(!hub.has_origin_of(&address(other)), "{other}");
        }
        assert_eq!(Address::parse("https://hub.example@evil.example/"), None);
    }

    #[test]
    fn what_is_shown_has_no_signature() {
        assert_eq!(address("https://a.example/b?sig=secret#c").to_string(), "https://a.example/b");
    }

    #[test]
    fn names_of_files_are_escaped() {
        let below = address("https://a.example/").below("x/ä b?#%.gguf");
        let below = below.map(|below| below.as_str().to_owned());
        assert_eq!(below, Some("https://a.example/x/%C3%A4%20b%3F%23%25.gguf".into()));
    }
}
