//! Models by name: what `-m` means becomes the path of a file, fetched if it is not here yet.
mod address;
mod commands;
mod download;
mod hf_cache;
mod http;
mod hub;
mod name;
mod part;
mod pick;
mod progress;
mod retry;
mod store;

pub(crate) use commands::{ModelsArgs, PullArgs, models, pull};

use super::args::Command;
use super::interrupt;
use super::output::human;
use address::Address;
use brooklet::{Error, Result};
use clap::Args;
use download::{Wanted, download};
use http::Http;
use name::{HubName, Name};
use part::Facts;
use pick::Group;
use progress::Progress;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use store::Store;

/// What holds for everything that is fetched.
#[derive(Args, Clone, Copy)]
pub(crate) struct FetchArgs {
    /// Fetch nothing: a model by name must be here already [env: BROOKLET_OFFLINE]
    #[arg(long)]
    offline: bool,
}

impl FetchArgs {
    fn is_offline(self) -> bool {
        let on =
            |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        self.offline || on("BROOKLET_OFFLINE") || on("HF_HUB_OFFLINE")
    }
}

/// Sees that the model of a command is a file of this machine.
pub(crate) fn bring(command: &mut Command) -> Result<()> {
    let Some((model, args, quiet)) = model(command) else { return Ok(()) };
    match Name::parse(model)? {
        Name::File(path) => expect_path(&path),
        name => {
            *model = Fetch::new(args, quiet)?.get(&name, false)?;
            Ok(())
        }
    }
}

/// The model of a command that names one, and whether nothing should be said.
fn model(command: &mut Command) -> Option<(&mut PathBuf, FetchArgs, bool)> {
    let (model, quiet) = match command {
        Command::Run(args) => (&mut args.model, args.quiet || args.json),
        Command::Chat(args) => (&mut args.model, args.quiet || args.json),
        #[cfg(feature = "serve")]
        Command::Serve(args) => (&mut args.engine.model, args.engine.quiet),
        #[cfg(feature = "serve")]
        Command::App(args) => (&mut args.engine.model, args.engine.quiet),
        Command::Tokenize(args) => (&mut args.model, args.json),
        Command::Logits(args) => (&mut args.model, args.json),
        Command::Bench(args) => (&mut args.model, args.json),
        Command::Ppl(args) => (&mut args.model, args.json),
        Command::Soak(args) => (&mut args.model, args.json),
        Command::Streameval(args) => (&mut args.model, args.json),
        Command::Sinkscan(args) => (&mut args.model, args.json),
        Command::Inspect(args) => return Some((&mut args.file, args.fetch, false)),
        Command::Devices(_) | Command::Pull(_) | Command::Models(_) | Command::Convert(_) => {
            return None;
        }
    };
    model.model.as_mut().map(|path| (path, model.fetch, quiet))
}

/// Says what a path may have been meant to be that leads to nothing.
fn expect_path(path: &Path) -> Result<()> {
    let text = path.to_str().unwrap_or_default();
    let parts: Vec<_> = text.split('/').collect();
    let is_repository = matches!(&parts[..], [user, repo]
        if name::is_plain(user) && repo.split(':').all(name::is_plain) && !repo.ends_with(".gguf"));
    if is_repository && !path.exists() && path.parent().is_some_and(|folder| !folder.exists()) {
        return Err(Error::Usage(format!(
            "{text} is no file; to fetch it from the hub, write hf:{text}"
        )));
    }
    Ok(())
}

/// What fetches.
struct Fetch {
    store: Store,
    offline: bool,
    quiet: bool,
}

impl Fetch {
    fn new(args: FetchArgs, quiet: bool) -> Result<Self> {
        Ok(Self { store: Store::open()?, offline: args.is_offline(), quiet })
    }

    /// The path of a model, once it is here. With `newest` what is here is held to what there is.
    fn get(&self, name: &Name, newest: bool) -> Result<PathBuf> {
        match name {
            Name::File(path) => Ok(path.clone()),
            Name::Hub(name) => self.of_hub(name, newest),
            Name::Address(address) => self.of_address(address, newest),
        }
    }

    fn of_hub(&self, name: &HubName, newest: bool) -> Result<PathBuf> {
        let repo = self.store.repo(name);
        if !newest || self.offline {
            if let Some(path) = self.here(name) {
                return Ok(path);
            }
            if self.offline {
                return Err(offline(name));
            }
        }
        let named = |detail| Error::Fetch { name: name.to_string(), detail };
        let http = Http::new().map_err(Error::Usage)?;
        let tree = hub::tree(&http, name, |what| self.say(name, what)).map_err(named)?;
        let all = pick::groups(tree.files.iter().map(|file| file.path.as_str()));
        let file = |path: &str| tree.files.iter().find(|file| file.path == path);
        let size = |group: &Group| {
            human(group.paths.iter().filter_map(|path| file(path)).map(|file| file.size).sum())
        };
        let group = pick::expect(&all, name.tag.as_deref(), name, size)?;
        let mut files = Vec::with_capacity(group.paths.len());
        for path in &group.paths {
            files.push(file(path).ok_or_else(|| {
                named(format!(
                    "the model is split, and of its files {path} is not in the repository"
                ))
            })?);
        }
        let facts =
            files.iter().map(|file| (file.path.as_str(), file.size, file.sha256.as_deref()));
        if let Some(path) = hf_cache::with_files(name, facts) {
            return Ok(path);
        }
        for file in &files {
            let wanted = Wanted {
                address: hub::resolve(&http, name, &tree.commit, &file.path).map_err(named)?,
                size: Some(file.size),
                sha256: file.sha256.clone(),
            };
            self.one(&http, &wanted, &repo.join(&file.path), newest, name)?;
        }
        self.store.learn(name, group);
        Ok(repo.join(group.first()))
    }

    /// What a name means of what is here, without asking the hub.
    fn here(&self, name: &HubName) -> Option<PathBuf> {
        let repo = self.store.repo(name);
        let own = self.store.known(name).or_else(|| {
            let all = self.store.here(name);
            let found = pick::pick(&all, name.tag.as_deref())?;
            let sure = name.tag.is_some() || self.offline || pick::is_first_choice(found);
            sure.then(|| found.clone())
        });
        own.map(|group| repo.join(group.first()))
            .or_else(|| hf_cache::meant(name, !self.offline).map(|(_, path)| path))
    }

    fn of_address(&self, address: &Address, newest: bool) -> Result<PathBuf> {
        let odd =
            || Error::Usage(format!("{address} ends in no name of a file; name one that does"));
        let first = address.parts().last().ok_or_else(odd)?;
        let mut places = Vec::new();
        for name in pick::siblings(first) {
            let address = address.beside(&name).ok_or_else(odd)?;
            let place = self.store.place(&address).ok_or_else(odd)?;
            places.push((address, place));
        }
        let here = places.iter().all(|(_, place)| place.is_file());
        if !here && self.offline {
            return Err(offline(address));
        }
        if !here || (newest && !self.offline) {
            let http = Http::new().map_err(Error::Usage)?;
            for (address, place) in &places {
                let wanted = Wanted { address: address.clone(), size: None, sha256: None };
                self.one(&http, &wanted, place, newest, address)?;
            }
        }
        let mine = places.into_iter().find(|(one, _)| one == address);
        mine.map(|(_, place)| place).ok_or_else(odd)
    }

    /// Fetches one file of a model, unless it is here.
    fn one(
        &self,
        http: &Http,
        wanted: &Wanted,
        target: &Path,
        newest: bool,
        name: &dyn Display,
    ) -> Result<()> {
        let named = |detail| Error::Fetch { name: name.to_string(), detail };
        let is_there = || match newest {
            false => target.is_file(),
            true => is_still(http, wanted, target),
        };
        if is_there() {
            return Ok(());
        }
        let file = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let progress = Progress::new(file.clone(), self.quiet);
        let of = wanted.size.map(|size| format!("{}, ", human(size))).unwrap_or_default();
        progress.say(&format!("{of}from {} to {}", wanted.address.host(), target.display()));
        interrupt::watch()?;
        interrupt::ends_saying(Some(format!(
            "what came of {file} is kept, and the same command goes on there"
        )));
        let done = download(http, wanted, target, progress, is_there);
        interrupt::ends_saying(None);
        done.map_err(named)
    }

    fn say(&self, name: &dyn Display, what: &str) {
        if !self.quiet {
            eprintln!("brooklet: {name}: {what}");
        }
    }
}

/// Whether the file that is here is the one that is there.
fn is_still(http: &Http, wanted: &Wanted, target: &Path) -> bool {
    if !target.is_file() {
        return false;
    }
    let facts = Facts::of(target).unwrap_or_default();
    match &wanted.sha256 {
        Some(sha256) => match &facts.sha256 {
            Some(found) => found == sha256,
            None => part::sha256_of(target).is_ok_and(|found| found == *sha256),
        },
        // The first byte alone, if it is still the same file.
        None => {
            let Some(etag) = &facts.etag else { return false };
            let answer = http.get(&wanted.address, &[("Range", "bytes=0-0"), ("If-Range", etag)]);
            answer.is_ok_and(|answer| answer.header("etag") == Some(etag.as_str()))
        }
    }
}

fn offline(name: &dyn Display) -> Error {
    let detail = "this is not on this machine, and nothing is fetched offline (--offline, or BROOKLET_OFFLINE or \
                  HF_HUB_OFFLINE is set); `brooklet models` lists what is here";
    Error::Fetch { name: name.to_string(), detail: detail.to_owned() }
}
