//! What a hub has: the commit of a repository, its files, and where each can be had.
use super::address::Address;
use super::http::{Http, is_sha256};
use super::name::{HubName, is_plain};
use super::retry::{Failure, retry};
use serde::Deserialize;

/// Pages of a list of files; each has a thousand.
const MOST_PAGES: usize = 100;

/// A repository as it is now.
pub(super) struct Tree {
    pub(super) commit: String,
    pub(super) files: Vec<Remote>,
}

/// A file of it.
pub(super) struct Remote {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) sha256: Option<String>,
}

#[derive(Deserialize)]
struct Refs {
    #[serde(default)]
    branches: Vec<Branch>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Branch {
    name: String,
    target_commit: String,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: Option<u64>,
}

/// Asks for the files of a repository's main branch.
pub(super) fn tree(http: &Http, name: &HubName, tell: impl Fn(&str)) -> Result<Tree, String> {
    let odd = || format!("{name} cannot be made an address");
    let api = http.hub.below(&format!("api/models/{}", name.path())).ok_or_else(odd)?;
    let refs = api.below("refs").ok_or_else(odd)?;
    let (refs, _) = retry(http.patience, &tell, || http.json::<Refs>(&refs))?;
    let main = refs.branches.iter().find(|branch| branch.name == "main");
    let commit = main.or(refs.branches.first()).map(|branch| branch.target_commit.clone());
    let commit = commit.filter(|commit| is_plain(commit)).ok_or_else(|| {
        format!("{} names no commit of this repository; it may be empty", http.hub.host())
    })?;
    let mut page =
        api.below(&format!("tree/{commit}")).and_then(|tree| tree.with_query("recursive=true"));
    let mut files = Vec::new();
    for _ in 0..MOST_PAGES {
        let Some(address) = page else { break };
        let (items, next) = retry(http.patience, &tell, || {
            let (items, next) = http.json::<Vec<Item>>(&address)?;
            // The token goes there too.
            match next {
                Some(next) if !next.has_origin_of(&http.hub) => {
                    let host = next.host();
                    Err(Failure::Final(format!(
                        "the list of files goes on at another host, {host}"
                    )))
                }
                next => Ok((items, next)),
            }
        })?;
        let sound = |item: &Item| item.kind == "file" && item.path.split('/').all(is_plain);
        files.extend(items.into_iter().filter(sound).map(|Item { path, size, lfs, .. }| {
            Remote {
                path,
                size: lfs.as_ref().and_then(|lfs| lfs.size).unwrap_or(size),
                sha256: lfs
                    .map(|lfs| lfs.oid.trim_start_matches("sha256:").to_owned())
                    .filter(|oid| is_sha256(oid)),
            }
        }));
        page = next;
    }
    Ok(Tree { commit, files })
}

/// Where a file can be had.
pub(super) fn resolve(
    http: &Http,
    name: &HubName,
    commit: &str,
    path: &str,
) -> Result<Address, String> {
    http.hub
        .below(&format!("{}/resolve/{commit}/{path}", name.path()))
        .ok_or_else(|| format!("{path} cannot be made an address"))
}
