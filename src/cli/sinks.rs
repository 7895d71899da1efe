//! How many sinks a model needs, as `sinkscan` found and `--sinks auto` looks up.
use super::args::{Command, ModelArgs, ShapeArgs};
use super::model::File;
use brooklet::kept;
use brooklet::model::{CacheSettings, Policy};
use brooklet::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What `--sinks` may say.
#[derive(Clone, Copy)]
pub(crate) enum Sinks {
    Count(usize),
    /// As many as were found; known once they have been looked up.
    Auto(Option<usize>),
}

impl Sinks {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto(None)),
            _ => text.parse().map(Self::Count).map_err(|_| "a number, or auto".to_owned()),
        }
    }

    /// What was found holds for `streaming`: nothing else has sinks.
    pub(crate) fn count(self, defaults: &CacheSettings) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Auto(found) => {
                found.filter(|_| defaults.policy == Policy::Streaming).unwrap_or(defaults.sinks)
            }
        }
    }
}

/// Replaces `--sinks auto` by what was found for the model, and says so.
pub(crate) fn look_up(command: &mut Command) -> Result<()> {
    let Some((model, shape, quiet)) = cache(command) else { return Ok(()) };
    if !matches!(shape.sinks, Some(Sinks::Auto(_))) {
        return Ok(());
    }
    let file = File::open(model)?;
    let found = Answer::read(&file)?.sinks;
    shape.sinks = Some(Sinks::Auto(Some(found)));
    if !quiet {
        eprintln!("brooklet: --sinks auto: {found}, as sinkscan has found for this model");
    }
    Ok(())
}

/// The model and the cache of a command that has one, and whether nothing should be said.
fn cache(command: &mut Command) -> Option<(&ModelArgs, &mut ShapeArgs, bool)> {
    match command {
        Command::Run(args) => Some((&args.model, &mut args.cache.shape, args.quiet)),
        Command::Logits(args) => Some((&args.model, &mut args.cache.shape, args.json)),
        Command::Bench(args) => Some((&args.model, &mut args.shape, args.json)),
        Command::Ppl(args) => Some((&args.model, &mut args.shape, args.json)),
        Command::Soak(args) => Some((&args.model, &mut args.cache.shape, args.json)),
        Command::Streameval(args) => Some((&args.model, &mut args.cache.shape, args.json)),
        // The sinks of a conversation are its system prompt.
        Command::Chat(_) => None,
        #[cfg(feature = "serve")]
        Command::Serve(_) => None,
        #[cfg(feature = "serve")]
        Command::App(_) => None,
        Command::Devices(_)
        | Command::Inspect(_)
        | Command::Tokenize(_)
        | Command::Sinkscan(_)
        | Command::Pull(_)
        | Command::Models(_)
        | Command::Convert(_) => None,
    }
}

/// What a scan found of a model, as it is kept.
#[derive(Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The file's name, for who looks into the folder.
    pub(crate) model: String,
    pub(crate) sinks: usize,
    /// Mean share of attention on each of the first tokens, over all layers and heads.
    pub(crate) shares: Vec<f64>,
    pub(crate) queries: u64,
    /// The version that found it.
    pub(crate) engine: String,
}

impl Answer {
    /// Keeps it. A process that ends meanwhile leaves what was there before.
    pub(crate) fn write(&self, file: &File) -> Result<PathBuf> {
        let path = place(file)?;
        let io = |source| Error::Io { path: path.display().to_string(), source };
        let text = serde_json::to_string_pretty(self).map_err(|e| io(e.into()))?;
        kept::keep(&path, (text + "\n").as_bytes()).map_err(io)?;
        Ok(path)
    }

    fn read(file: &File) -> Result<Self> {
        let path = place(file)?;
        let advice = format!(
            "run `brooklet sinkscan -m {}` first, or give --sinks a number",
            Path::new(file.gguf.file()).display()
        );
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::Usage(format!(
                "--sinks auto: it is not known how many sinks this model needs; {advice}"
            )),
            _ => Error::Io { path: path.display().to_string(), source },
        })?;
        serde_json::from_str(&text).map_err(|e| {
            let path = path.display();
            Error::Usage(format!("--sinks auto: {path} cannot be understood ({e}); {advice}"))
        })
    }
}

/// Where the answer for a model is kept.
fn place(file: &File) -> Result<PathBuf> {
    let folder = kept::folder().ok_or_else(|| {
        let why = "there is no home folder to keep a scan in; set BROOKLET_CACHE to a folder";
        Error::Usage(why.into())
    })?;
    Ok(folder.join("sinks").join(format!("{}.json", file.identity()?)))
}
