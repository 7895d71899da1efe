//! Where models lie: in the folder `models` of the cache folder, under the names they were asked for by.
use super::address::Address;
use super::name::{HubName, Name, is_plain};
use super::part::{Facts, with};
use super::pick::{Group, groups, pick};
use brooklet::format::default_model;
use brooklet::{Error, Result, kept};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// In a repository's folder: what each name was found to mean.
const NAMES: &str = "names.json";

/// The folder of models.
pub(super) struct Store(PathBuf);

/// A model that is here, or a part of one.
#[derive(Serialize)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Of a model that has not come whole: how large it is, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) part_of: Option<Option<u64>>,
    pub(super) path: PathBuf,
    /// All files of it.
    #[serde(skip)]
    pub(super) files: Vec<PathBuf>,
}

impl Store {
    pub(super) fn open() -> Result<Self> {
        let folder = kept::folder().ok_or_else(|| {
            let why = "there is no home folder to keep models in; set BROOKLET_CACHE to a folder";
            Error::Usage(why.into())
        })?;
        Ok(Self(std::path::absolute(&folder).unwrap_or(folder).join("models")))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// Where the files of a repository are or would be.
    pub(super) fn repo(&self, name: &HubName) -> PathBuf {
        self.0.join("hf").join(&name.user).join(&name.repo)
    }

    /// Where the file of an address is or would be. None of one that ends in no file's name.
    pub(super) fn place(&self, address: &Address) -> Option<PathBuf> {
        let host = match (address.port(), address.is_https()) {
            ("443", true) | ("80", false) => address.host().to_owned(),
            (port, _) => format!("{}_{port}", address.host()),
        };
        let mut place = self.0.join("web").join(host.to_ascii_lowercase().replace(':', "_"));
        let mut last = None;
        for part in address.parts() {
            place.push(last.replace(part).unwrap_or_default());
            if !is_plain(part) {
                return None;
            }
        }
        // What is asked for may be another file then. That word alone is what the hub's own button says.
        if let Some(query) = address.query().filter(|&query| query != "download=true") {
            let hash = Sha256::digest(query.as_bytes());
            place.push(hash[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
        Some(place.join(last?))
    }

    /// The models of a repository that are here whole, by their paths in it.
    pub(super) fn here(&self, name: &HubName) -> Vec<Group> {
        let repo = self.repo(name);
        let files: Vec<String> =
            walk(&repo).iter().filter_map(|file| inside(file, &repo)).collect();
        let all = groups(files.iter().map(String::as_str));
        all.into_iter().filter(|one| one.paths.iter().all(|path| files.contains(path))).collect()
    }

    /// What a name was found to mean the last time, if all of that is here.
    pub(super) fn known(&self, name: &HubName) -> Option<Group> {
        let names = self.names(name);
        let first = names.get(&key(name))?;
        self.here(name).into_iter().find(|group| group.first() == first)
    }

    /// Keeps that.
    pub(super) fn learn(&self, name: &HubName, group: &Group) {
        let mut names = self.names(name);
        names.insert(key(name), group.first().to_owned());
        // What is lost is asked for again.
        let _ = serde_json::to_vec_pretty(&names)
            .map(|text| kept::replace(&self.repo(name).join(NAMES), &text));
    }

    fn names(&self, name: &HubName) -> BTreeMap<String, String> {
        let text = std::fs::read(self.repo(name).join(NAMES)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// All that is here.
    pub(super) fn list(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        if let Some(path) = default_model().filter(|path| path.is_file()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            entries.push(entry(name, vec![path], None));
        }
        for (user, repo) in folders(&self.0.join("hf")).iter().flat_map(|user| {
            folders(user).into_iter().filter_map(|repo| Some((last(user)?, last(&repo)?)))
        }) {
            entries.extend(self.repository(&HubName { user, repo, tag: None }));
        }
        for file in walk(&self.0.join("web")) {
            if let Some(whole) = part_of(&file) {
                let facts = Facts::of_part(&whole).unwrap_or_default();
                entries.push(entry(url(&facts, &whole), vec![file], Some(facts.size)));
            } else if let Some(facts) =
                is_model(&file).then(|| Facts::of(&file).unwrap_or_default())
            {
                entries.push(entry(url(&facts, &file), vec![file], None));
            }
        }
        entries
    }

    fn repository(&self, name: &HubName) -> Vec<Entry> {
        let repo = self.repo(name);
        let files = walk(&repo);
        let whole: Vec<String> = files.iter().filter_map(|file| inside(file, &repo)).collect();
        let parts: Vec<PathBuf> = files.iter().filter_map(|file| part_of(file)).collect();
        let begun = parts.iter().filter_map(|file| inside(file, &repo));
        let all: Vec<String> = whole.iter().cloned().chain(begun).collect();
        // Of a split model any of its files may be here.
        let firsts = all.iter().map(|path| super::pick::siblings(path).swap_remove(0));
        let mut firsts: Vec<String> = firsts.collect();
        firsts.sort();
        firsts.dedup();
        let all = groups(firsts.iter().map(String::as_str));
        let of = |group: &Group| {
            let named = HubName { tag: Some(group.tag(&all)), ..name.clone() };
            let (mut files, mut missing) = (Vec::new(), false);
            for path in group.paths.iter().map(|path| repo.join(path)) {
                let part = with(&path, ".part");
                let there = path.is_file();
                missing |= !there;
                files.extend(if there { Some(path) } else { part.is_file().then_some(part) });
            }
            let size = match &group.paths[..] {
                [one] => Facts::of_part(&repo.join(one)).and_then(|facts| facts.size),
                _ => None,
            };
            entry(named.to_string(), files, missing.then_some(size))
        };
        all.iter().map(of).collect()
    }

    /// The entries that a name means: of a repository without a tag all, of a split model all files.
    pub(super) fn find(&self, asked: &Name) -> Vec<Entry> {
        let entries = self.list().into_iter();
        match asked {
            Name::Hub(name @ HubName { tag: None, .. }) => self.repository(name),
            Name::Hub(name) => {
                let entries = self.repository(name);
                let paths: Vec<String> = entries
                    .iter()
                    .flat_map(|entry| &entry.files)
                    .filter_map(|file| inside(&whole_of(file), &self.repo(name)))
                    .map(|path| super::pick::siblings(&path).swap_remove(0))
                    .collect();
                let all = groups(paths.iter().map(String::as_str));
                let meant = pick(&all, name.tag.as_deref()).map(|group| {
                    HubName { tag: Some(group.tag(&all)), ..name.clone() }.to_string()
                });
                entries.into_iter().filter(|entry| Some(&entry.name) == meant.as_ref()).collect()
            }
            Name::Address(address) => {
                entries.filter(|entry| entry.name == address.as_str()).collect()
            }
            Name::File(path) => entries
                .filter(|entry| Path::new(&entry.name) == path || entry.path == *path)
                .collect(),
        }
    }

    /// Removes the files of a model, what is known of them, and folders that are empty then.
    pub(super) fn remove(&self, entry: &Entry) -> std::io::Result<()> {
        for file in &entry.files {
            let whole = whole_of(file);
            std::fs::remove_file(file)?;
            for end in [".part", ".part.json", ".json", ".lock"] {
                let _ = std::fs::remove_file(with(&whole, end));
            }
            let above = whole.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.0));
            for folder in above {
                let only_names = walk(folder).iter().all(|file| file.ends_with(NAMES));
                if only_names {
                    let _ = std::fs::remove_file(folder.join(NAMES));
                }
                // Only one that is empty goes.
                if std::fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn key(name: &HubName) -> String {
    name.tag.as_deref().unwrap_or_default().to_ascii_uppercase()
}

fn entry(name: String, files: Vec<PathBuf>, part_of: Option<Option<u64>>) -> Entry {
    let size = |file: &PathBuf| file.metadata().map_or(0, |facts| facts.len());
    let bytes = files.iter().map(size).sum();
    Entry { name, bytes, part_of, path: files.first().cloned().unwrap_or_default(), files }
}

fn url(facts: &Facts, file: &Path) -> String {
    match facts.url.is_empty() {
        true => file.display().to_string(),
        false => facts.url.clone(),
    }
}

/// The path of the file that this is a part of.
fn part_of(file: &Path) -> Option<PathBuf> {
    (file.extension()? == "part").then(|| file.with_extension(""))
}

/// The file itself, or that which this is a part of.
pub(super) fn whole_of(file: &Path) -> PathBuf {
    part_of(file).unwrap_or_else(|| file.to_owned())
}

/// Whether this is no file of ours beside a model.
fn is_model(file: &Path) -> bool {
    let ours = |end: &std::ffi::OsStr| ["json", "part", "lock"].iter().any(|one| end == *one);
    let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && !file.extension().is_some_and(ours)
}

/// A model's path in its repository.
fn inside(file: &Path, repo: &Path) -> Option<String> {
    let parts = file.strip_prefix(repo).ok()?.iter().map(|part| part.to_str());
    let path = parts.collect::<Option<Vec<_>>>()?.join("/");
    path.ends_with(".gguf").then_some(path)
}

fn last(path: &Path) -> Option<String> {
    path.file_name().and_then(|name| name.to_str()).map(str::to_owned)
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    children(folder).into_iter().filter(|path| path.is_dir()).collect()
}

/// All files below a folder, in order.
pub(super) fn walk(folder: &Path) -> Vec<PathBuf> {
    let each = children(folder).into_iter();
    each.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
