//! The commands about models: pull, models.
use super::name::Name;
use super::store::{Store, whole_of};
use super::{Fetch, FetchArgs, download::Lock, expect_path};
use crate::cli::output::{Output, human};
use brooklet::{Error, Result};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct PullArgs {
    /// hf:USER/REPO[:QUANT] or the https:// address of a GGUF file
    #[arg(value_name = "NAME", required = true)]
    names: Vec<PathBuf>,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    fetch: FetchArgs,
}

#[derive(Args)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    command: Option<ModelsCommand>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum ModelsCommand {
    /// Remove models, by the names that the list has; hf:USER/REPO removes all that is here of a repository
    Rm {
        /// As the list has them
        #[arg(value_name = "NAME", required = true)]
        names: Vec<PathBuf>,
    },
}

/// Fetches models, or what has changed of them, and prints their paths.
pub(crate) fn pull(args: &PullArgs) -> Result<()> {
    let fetch = Fetch::new(args.fetch, args.quiet)?;
    for text in &args.names {
        let name = Name::parse(text)?;
        if let Name::File(path) = &name {
            expect_path(path)?;
            let path = path.display();
            let why = "is no name of a model; write hf:USER/REPO[:QUANT] or an https:// address";
            return Err(Error::Usage(format!("{path} {why}")));
        }
        let path = fetch.get(&name, true)?;
        Output::new().text(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

/// Lists models or removes some.
pub(crate) fn models(args: ModelsArgs) -> Result<()> {
    let store = Store::open()?;
    match args.command {
        None => list(&store, args.json),
        Some(ModelsCommand::Rm { names }) => {
            names.iter().try_for_each(|name| remove(&store, &Name::parse(name)?))
        }
    }
}

fn list(store: &Store, json: bool) -> Result<()> {
    let (entries, mut output) = (store.list(), Output::new());
    if json {
        return entries.iter().try_for_each(|entry| output.json(entry));
    }
    if entries.is_empty() {
        let folder = store.folder().display();
        return output
            .text(&format!("no models in {folder}; `brooklet pull hf:USER/REPO` fetches one\n"));
    }
    let width = entries.iter().map(|entry| entry.name.chars().count()).max().unwrap_or(0);
    for entry in &entries {
        let size = match entry.part_of {
            None => human(entry.bytes),
            Some(Some(all)) => format!("{} of {}, in part", human(entry.bytes), human(all)),
            Some(None) => format!("{}, in part", human(entry.bytes)),
        };
        output.text(&format!("{:width$}  {size}\n", entry.name))?;
    }
    let bytes = entries.iter().map(|entry| entry.bytes).sum();
    output.text(&format!("{} in {}\n", human(bytes), store.folder().display()))
}

fn remove(store: &Store, name: &Name) -> Result<()> {
    let shown = match name {
        Name::File(path) => path.display().to_string(),
        Name::Hub(name) => name.to_string(),
        Name::Address(address) => address.to_string(),
    };
    let fault = |detail| Error::Fetch { name: shown.clone(), detail };
    let entries = store.find(name);
    if entries.is_empty() {
        let detail = "there is no such model here; `brooklet models` lists what there is (what is in the Hugging Face \
                      cache is not brooklet's to remove)";
        return Err(fault(detail.to_owned()));
    }
    for entry in entries {
        let mut locks = Vec::new();
        for file in &entry.files {
            let whole = whole_of(file);
            let lock = Lock::take(&whole).map_err(fault)?.ok_or_else(|| {
                fault("another brooklet is fetching this; end it first".to_owned())
            })?;
            locks.push((lock, whole));
        }
        let removed = store.remove(&entry);
        locks.into_iter().for_each(|(lock, whole)| lock.remove(&whole));
        removed.map_err(|error| fault(format!("it cannot be removed ({error})")))?;
        Output::new().text(&format!("removed {}, {}\n", entry.name, human(entry.bytes)))?;
    }
    Ok(())
}
