//! What the user may say of a server, and what comes of it.
use super::app::{About, Ready};
use super::guard::{self, Guard};
use super::job::Queue;
use super::shapes;
use super::slots::{self, View};
use crate::cli::args::{AdapterArgs, ModelArgs, ShapeArgs};
use crate::cli::chat::TemplateArgs;
use crate::cli::model::{File, read_text};
use crate::cli::pace::PaceArgs;
use crate::cli::sampling::{self, SamplingArgs};
use crate::cli::sinks::Sinks;
use brooklet::chat::{AnswerSettings, Chat};
use brooklet::format::Source;
use brooklet::model::{CacheSettings, Config, Model, Policy};
use brooklet::session::Session;
use brooklet::wire::ModelInfo;
use brooklet::{Error, Result};
use clap::{Args, Parser};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

pub(super) type Views = Arc<Vec<Mutex<View>>>;

const SINKS: &str = "Tokens at the start of a conversation that are kept for ever: its system prompt, which may have so \
                     many, and what fits behind it [default: a quarter of what is seen]";
const WINDOW: &str = "Recent tokens that are seen beside them [default: what fills 4096 with them, or the model's trained \
                      context]";

/// Streams, where nobody has a wish of his own and there is room.
const USUAL_STREAMS: usize = 4;

pub(crate) const EXAMPLES: &str = "Examples:
  brooklet serve                                      http://127.0.0.1:8080/v1 for any client of OpenAI's
  brooklet serve --open                               the page in the browser, with this engine behind it
  brooklet serve --streams 8 --window 2000 --sinks 500
  brooklet serve --host 0.0.0.0 --api-key SECRET      for others, too
  curl localhost:8080/v1/chat/completions -H 'content-type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"What is a brook?\"}]}'";

#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(super) network: NetworkArgs,
    /// Open the page in the browser
    #[arg(long)]
    pub(super) open: bool,
}

/// Who may ask, and how.
#[derive(Args)]
pub(crate) struct NetworkArgs {
    /// Where to listen; another address than this machine's own needs --api-key or --allow-anyone
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(super) host: String,
    /// The port; 0 takes one that is free, and says which
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(super) port: u16,
    /// Requests that wait for a stream; more are refused, to be sent again later
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(super) queue: u64,
    /// A key that clients have to send; several times for several [env: BROOKLET_API_KEY]
    #[arg(long, value_name = "KEY")]
    pub(super) api_key: Vec<String>,
    /// The same from a file, a key a line
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    /// Answer whoever can reach --host, without a key
    #[arg(long)]
    pub(super) allow_anyone: bool,
    /// A page that may ask, beside those of this machine: https://chat.example.org, or * for any
    #[arg(long, value_name = "ORIGIN")]
    pub(super) cors_origin: Vec<String>,
    /// An answer ends after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(super) timeout: u64,
    /// At the end, wait so many seconds for answers under way
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(super) grace: u64,
    /// A comment goes to clients that have waited so many seconds for a piece
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) sse_ping_interval: u64,
}

/// What is had without a word about the network.
#[derive(Parser)]
struct Usual {
    #[command(flatten)]
    network: NetworkArgs,
}

/// The model, and how it is run.
#[derive(Args)]
#[command(
    mut_arg("sinks", |sinks| sinks.help(SINKS).value_name("S")),
    mut_arg("window", |window| window.help(WINDOW)),
)]
pub(crate) struct EngineArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Conversations that are held, and answered, at a time; each has a cache of its own, reserved at the start
    /// [default: 4, or as many as fit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(super) streams: Option<u64>,
    /// What clients call the model [default: the name of its file]
    #[arg(long, value_name = "NAME")]
    pub(super) alias: Option<String>,
    /// No progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(super) adapter: AdapterArgs,
    #[command(flatten)]
    pub(super) template: TemplateArgs,
    #[command(flatten)]
    pub(super) shape: ShapeArgs,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
    #[command(flatten)]
    pub(super) pace: PaceArgs,
}

impl NetworkArgs {
    /// For one user on this machine: what is usual, where nothing else is named.
    pub(crate) fn of_program(port: u16, key: String) -> Self {
        Self { port, api_key: vec![key], grace: 2, ..Usual::parse_from(["brooklet"]).network }
    }

    /// One of the keys, as it stands behind the `#` of an address.
    pub(super) fn fragment(&self) -> Result<String> {
        let encoded = |byte: u8| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        };
        let key = self.said_keys()?.into_iter().next();
        Ok(key.map_or(String::new(), |key| {
            format!("#key={}", key.bytes().map(encoded).collect::<String>())
        }))
    }

    fn said_keys(&self) -> Result<Vec<String>> {
        let mut keys: Vec<String> = self.api_key.clone();
        keys.extend(std::env::var("BROOKLET_API_KEY"));
        if let Some(path) = &self.api_key_file {
            keys.extend(read_text(path)?.lines().map(|line| line.trim().to_owned()));
        }
        keys.retain(|key| !key.is_empty());
        let named = !self.api_key.is_empty() || self.api_key_file.is_some();
        match keys.is_empty() && named {
            true => {
                Err(Error::Usage("--api-key: it is empty; a key has a character at least".into()))
            }
            false => Ok(keys),
        }
    }

    pub(super) fn guard(&self) -> Result<Guard> {
        let keys: Vec<_> = self.said_keys()?.iter().map(|key| guard::hash(key)).collect();
        let address = self.host.trim_matches(['[', ']']).parse::<IpAddr>();
        let own = self.host == "localhost" || address.as_ref().is_ok_and(IpAddr::is_loopback);
        if !own && keys.is_empty() && !self.allow_anyone {
            let host = &self.host;
            let why = format!(
                "--host {host}: others could ask this server; give it an --api-key, or say --allow-anyone"
            );
            return Err(Error::Usage(why));
        }
        // Where it listens on all addresses, nobody knows what it is called.
        let hosts = match address {
            Ok(address) if address.is_unspecified() => None,
            Ok(IpAddr::V6(address)) => Some(vec![format!("[{address}]")]),
            _ => Some(vec![self.host.clone()]),
        };
        Ok(Guard { keys, hosts, origins: self.cors_origin.clone() })
    }
}

impl EngineArgs {
    /// The cache of each stream. Its sinks are for the system prompts of all requests.
    pub(super) fn cache(&self, config: &Config, model: Option<&Model>) -> Result<CacheSettings> {
        let settings = self.shape.settings(config, Policy::Streaming);
        let settings = model.map_or(settings, |model| self.shape.suited(settings, &model.gpu));
        let sinks = match self.shape.sinks {
            Some(Sinks::Count(sinks)) => Some(sinks),
            Some(Sinks::Auto(_)) => {
                let why = "--sinks auto: they are for system prompts here; a number works";
                return Err(Error::Usage(why.into()));
            }
            None => None,
        };
        let settings = Chat::cache_for_any(settings, sinks, self.shape.window, config.n_ctx)?;
        settings.geometry()?;
        Ok(settings)
    }

    /// The streams, as many as are wished for, or as fit.
    pub(super) fn sessions(
        &self,
        model: &Arc<Model>,
        settings: CacheSettings,
    ) -> Result<Vec<Session>> {
        if let Some(streams) = self.streams {
            return slots::sessions(model, settings, streams as usize);
        }
        let mut streams = USUAL_STREAMS;
        loop {
            match slots::sessions(model, settings, streams) {
                Err(Error::NoRoom { .. } | Error::OutOfMemory { .. }) if streams > 1 => {
                    streams /= 2
                }
                sessions => return sessions,
            }
        }
    }

    /// What clients call the model.
    fn name(&self, file: &File) -> String {
        let path = Path::new(file.gguf.file());
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        self.alias.clone().or(stem).unwrap_or_else(|| "brooklet".into())
    }

    /// What the routes need to know of the model.
    pub(super) fn ready(
        &self,
        given: &[String],
        file: &File,
        model: &Model,
        queue: Queue,
        views: Views,
    ) -> Result<Ready> {
        let cache = self.cache(&model.config, Some(model))?;
        let sampling = self.sampling.suggested_by(&file.gguf, given, cache.sinks + cache.window)?;
        // An answer that nobody bounds ends where its beginning would be forgotten.
        let (tokens, pace) = (cache.window as u64, self.pace.chosen());
        let tensors = &file.gguf.tensors;
        let about = About {
            n_vocab: model.config.n_vocab,
            n_ctx_train: model.config.n_ctx,
            n_embd: model.config.n_embd,
            n_params: tensors.iter().map(|tensor| tensor.dims.iter().product::<u64>()).sum(),
            size: tensors.iter().map(|tensor| tensor.size).sum(),
        };
        let template = match self.template.template(file) {
            // A template that was asked for has to be there; without one, texts can still be gone on with.
            Err(error) if self.template.is_named() => return Err(error),
            template => template.map_err(|error| error.worded(sampling::flag)),
        };
        Ok(Ready {
            name: self.name(file),
            path: file.gguf.file().to_owned(),
            since: shapes::now(),
            about,
            info: ModelInfo::new(&file.gguf, &model.config, file.source.len())?,
            tokenizer: file.tokenizer.clone(),
            template,
            answer: AnswerSettings { sampling, tokens, stop: Vec::new(), pace },
            cache,
            queue,
            views,
            vocabulary: OnceLock::new(),
            scripts: Mutex::default(),
        })
    }
}
