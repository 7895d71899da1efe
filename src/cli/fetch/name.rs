//! What a user calls a model: a file, a repository of a hub, an address.
use super::address::Address;
use brooklet::{Error, Result};
use std::path::{Path, PathBuf};

/// A model as it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Name {
    /// A file of this machine.
    File(PathBuf),
    /// A model in a repository of the hub.
    Hub(HubName),
    /// A file anywhere.
    Address(Address),
}

/// `hf:USER/REPO[:TAG]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HubName {
    pub(crate) user: String,
    pub(crate) repo: String,
    /// The type of weights, or the name of a file.
    pub(crate) tag: Option<String>,
}

impl Name {
    /// Reads what stands behind `-m`. Whatever is no name is a file.
    pub(crate) fn parse(text: &Path) -> Result<Self> {
        let Some(name) = text.to_str() else { return Ok(Self::File(text.to_owned())) };
        if let Some(rest) = name.strip_prefix("hf:") {
            return HubName::parse(rest).map(Self::Hub).ok_or_else(|| {
                Error::Usage(format!(
                    "{name} is no name of a model: write hf:USER/REPO or hf:USER/REPO:QUANT, \
                     as in hf:HuggingFaceTB/SmolLM2-135M-Instruct-GGUF:Q8_0"
                ))
            });
        }
        let is_address = ["http://", "https://"].iter().any(|scheme| {
            name.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        match is_address {
            true => Address::parse(name).map(Self::Address).ok_or_else(|| {
                Error::Usage(format!("{name} is no address of a file: check how it is spelled"))
            }),
            false => Ok(Self::File(text.to_owned())),
        }
    }
}

impl HubName {
    fn parse(text: &str) -> Option<Self> {
        let (path, tag) = match text.trim_start_matches("//").split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (text.trim_start_matches("//"), None),
        };
        let (user, repo) = path.split_once('/')?;
        let part = |part: &str| is_plain(part).then(|| part.to_owned());
        let tag = match tag {
            Some(tag) => Some(tag.split('/').all(is_plain).then(|| tag.to_owned())?),
            None => None,
        };
        Some(Self { user: part(user)?, repo: part(repo)?, tag })
    }

    /// The repository as the hub writes it.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.user, self.repo)
    }
}

impl std::fmt::Display for HubName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "hf:{}/{}", self.user, self.repo)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
    }
}

/// Whether `part` can be a part of a path on any system, and leads nowhere else.
pub(crate) fn is_plain(part: &str) -> bool {
    let odd = |c: char| c.is_control() || "\\/:*?\"<>|".contains(c);
    !part.is_empty() && !part.starts_with('.') && !part.ends_with(['.', ' ']) && !part.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::{HubName, Name};
    use std::path::Path;

    #[test]
    fn names_are_told_from_files() {
        let hub = |text: &str| match Name::parse(Path::new(text)) {
            Ok(Name::Hub(HubName { user, repo, tag })) => (user, repo, tag),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(hub("hf:a/b-GGUF"), ("a".into(), "b-GGUF".into(), None));
        assert_eq!(hub("hf:a/b:Q8_0"), ("a".into(), "b".into(), Some("Q8_0".into())));
        assert_eq!(hub("hf://a/b:x/y.gguf").2, Some("x/y.gguf".into()));
        for file in ["model.gguf", "./hf:a/b", "a/b", "C:\\m.gguf", "httpd.gguf", "http:", ""] {
            assert!(matches!(Name::parse(Path::new(file)), Ok(Name::File(_))), "{file}");
        }
        for wrong in ["hf:", "hf:a", "hf:a/", "hf:/b", "hf:a/b/c", "hf:../b", "hf:a/..", "hf:a/b:"]
        {
            assert!(Name::parse(Path::new(wrong)).is_err(), "{wrong}");
        }
        for wrong in ["hf:a/b:../c", "hf:a/b:c\\d", "hf:a/b:c//d", "https://", "http://a b/c"] {
            assert!(Name::parse(Path::new(wrong)).is_err(), "{wrong}");
        }
        let address = Name::parse(Path::new("HTTPS://Example.org/m.gguf"));
        assert!(matches!(address, Ok(Name::Address(_))), "{address:?}");
    }
}
