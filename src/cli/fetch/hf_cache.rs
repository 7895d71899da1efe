//! The Hugging Face cache: what other programs have fetched is not fetched again.
use super::name::HubName;
use super::pick::{Group, groups, is_first_choice, pick};
use super::store::walk;
use std::path::{Path, PathBuf};

/// `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else `~/.cache/huggingface/hub`.
fn folder() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = || var("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
    var("HF_HUB_CACHE")
        .or_else(|| var("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| Some(caches()?.join("huggingface").join("hub")))
}

fn snapshots(name: &HubName) -> Option<(PathBuf, PathBuf)> {
    let repo = folder()?.join(format!("models--{}--{}", name.user, name.repo));
    Some((repo.join("snapshots"), repo))
}

/// The model that a name means in the newest snapshot; with `surely` only if the hub could name no other.
pub(super) fn meant(name: &HubName, surely: bool) -> Option<(Group, PathBuf)> {
    let (snapshots, repo) = snapshots(name)?;
    let commit = std::fs::read_to_string(repo.join("refs").join("main")).ok()?;
    let snapshot = snapshots.join(commit.trim());
    let files = walk(&snapshot);
    let inside = |file: &PathBuf| {
        let parts = file.strip_prefix(&snapshot).ok()?.iter().map(|part| part.to_str());
        Some(parts.collect::<Option<Vec<_>>>()?.join("/"))
    };
    // What is a link to nowhere has been removed.
    let there: Vec<String> =
        files.iter().filter(|file| file.is_file()).filter_map(inside).collect();
    let all = groups(there.iter().map(String::as_str));
    let whole = |group: &&Group| group.paths.iter().all(|path| there.contains(path));
    let all: Vec<Group> = all.iter().filter(whole).cloned().collect();
    let found = pick(&all, name.tag.as_deref())?;
    let sure = !surely || name.tag.is_some() || is_first_choice(found);
    sure.then(|| (found.clone(), snapshot.join(found.first())))
}

/// The first file of a model whose files are known, if one snapshot has them all, as large as they should be.
pub(super) fn with_files<'a>(
    name: &HubName,
    files: impl Iterator<Item = (&'a str, u64, Option<&'a str>)> + Clone,
) -> Option<PathBuf> {
    let (snapshots, _) = snapshots(name)?;
    let each = std::fs::read_dir(snapshots).ok()?.flatten().map(|entry| entry.path());
    each.filter(|snapshot| {
        files.clone().all(|(path, size, sha256)| is_that(&snapshot.join(path), size, sha256))
    })
    .find_map(|snapshot| files.clone().next().map(|(path, ..)| snapshot.join(path)))
}

/// A file there is a link to one whose name is its sha256.
fn is_that(file: &Path, size: u64, sha256: Option<&str>) -> bool {
    let same_size = file.metadata().is_ok_and(|facts| facts.is_file() && facts.len() == size);
    let blob = std::fs::canonicalize(file).ok();
    let blob = blob.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    let named = blob.filter(|name| super::http::is_sha256(name));
    same_size && (named.is_none() || sha256.is_none() || named == sha256)
}
