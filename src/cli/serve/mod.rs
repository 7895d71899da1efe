//! `brooklet serve`: a model behind HTTP, in the protocol of OpenAI's clients.
//!
//! | file | what it holds |
//! |---|---|
//! | `http` | connections, and their end |
//! | `guard` | who may ask |
//! | `routes` | the routes, and those that need no stream |
//! | `body`, `fields`, `messages`, `request` | what a request says, and what of it is refused |
//! | `problem` | errors |
//! | `app` | what all routes share |
//! | `job` | what the routes ask of the engine's thread |
//! | `engine`, `answers`, `turn`, `slots` | that thread: who is answered, how, and over which stream |
//! | `replies`, `shapes` | answers as responses |
//! | `metrics` | what was done so far |
mod answers;
mod app;
mod body;
mod engine;
mod fields;
#[cfg(test)]
mod garbage;
mod guard;
mod http;
mod job;
mod messages;
mod metrics;
mod problem;
mod replies;
mod request;
mod routes;
mod shapes;
mod slots;
mod turn;

use super::args::{AdapterArgs, ModelArgs, ShapeArgs};
use super::chat::TemplateArgs;
use super::model::{File, read_text};
use super::output::human;
use super::pace::PaceArgs;
use super::sampling::SamplingArgs;
use super::sinks::Sinks;
use app::{About, App, Ready};
use brooklet::chat::{AnswerSettings, Chat};
use brooklet::model::{CacheSettings, Config, KernelSettings, Model, Policy};
use brooklet::session::Session;
use brooklet::{Error, Result};
use clap::Args;
use engine::{Engine, Shared};
use futures_util::future::select;
use guard::Guard;
use job::Queue;
use pollster::block_on;
use slots::{Slots, View};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

const SINKS: &str = "Tokens at the start of a conversation that are kept for ever: its system prompt, which may have so \
                     many, and what fits behind it [default: a quarter of what is seen]";
const WINDOW: &str = "Recent tokens that are seen beside them [default: what fills 4096 with them, or the model's trained \
                      context]";

/// Streams, where nobody has a wish of his own and there is room.
const USUAL_STREAMS: usize = 4;

type Views = Arc<Vec<Mutex<View>>>;

pub(crate) const EXAMPLES: &str = "Examples:
  brooklet serve                                      http://127.0.0.1:8080/v1 for any client of OpenAI's
  brooklet serve --streams 8 --window 2000 --sinks 500
  brooklet serve --host 0.0.0.0 --api-key SECRET      for others, too
  curl localhost:8080/v1/chat/completions -H 'content-type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"What is a brook?\"}]}'";

#[derive(Args)]
#[command(
    mut_arg("sinks", |sinks| sinks.help(SINKS).value_name("S")),
    mut_arg("window", |window| window.help(WINDOW)),
)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Where to listen; another address than this machine's own needs --api-key or --allow-anyone
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// The port; 0 takes one that is free, and says which
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Conversations that are held, and answered, at a time; each has a cache of its own, reserved at the start
    /// [default: 4, or as many as fit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    streams: Option<u64>,
    /// Requests that wait for a stream; more are refused, to be sent again later
    #[arg(long, value_name = "N", default_value_t = 64)]
    queue: u64,
    /// A key that clients have to send; several times for several [env: BROOKLET_API_KEY]
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// The same from a file, a key a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Answer whoever can reach --host, without a key
    #[arg(long)]
    allow_anyone: bool,
    /// A page that may ask, beside those of this machine: https://chat.example.org, or * for any
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// What clients call the model [default: the name of its file]
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// An answer ends after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// At the end, wait so many seconds for answers under way
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
    /// A comment goes to clients that have waited so many seconds for a piece
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    sse_ping_interval: u64,
    /// No progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    pace: PaceArgs,
}

impl ServeArgs {
    fn keys(&self) -> Result<Vec<[u8; 32]>> {
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
            false => Ok(keys.iter().map(|key| guard::hash(key)).collect()),
        }
    }

    fn guard(&self) -> Result<Guard> {
        let keys = self.keys()?;
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

    /// The cache of each stream. Its sinks are for the system prompts of all requests.
    fn cache(&self, config: &Config, model: Option<&Model>) -> Result<CacheSettings> {
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
    fn sessions(&self, model: &Arc<Model>, settings: CacheSettings) -> Result<Vec<Session>> {
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
    fn ready(
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
            template => template.map_err(|error| error.worded(super::sampling::flag)),
        };
        Ok(Ready {
            name: self.name(file),
            path: file.gguf.file().to_owned(),
            since: shapes::now(),
            about,
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

/// Runs the server until it is told to end. This thread is the engine's.
pub(crate) fn run(args: &ServeArgs, given: &[String]) -> Result<()> {
    let guard = args.guard()?;
    let file = File::open(&args.model)?;
    let io = |path: &str, source| Error::Io { path: path.to_owned(), source };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|source| io("the server's threads", source))?;
    let shared = Shared::default();
    let app = Arc::new(App {
        ready: OnceLock::new(),
        metrics: shared.metrics.clone(),
        ending: AtomicBool::new(false),
        failed: shared.failed.clone(),
        keep_alive: Duration::from_secs(args.sse_ping_interval),
    });
    let place = format!("{}:{}", args.host, args.port);
    let listener =
        runtime.block_on(TcpListener::bind((args.host.trim_matches(['[', ']']), args.port)));
    let listener = listener.map_err(|source| io(&place, source))?;
    let at = listener.local_addr().map_err(|source| io(&place, source))?;
    eprintln!("brooklet: http://{at}");
    let grace = Duration::from_secs(args.grace);
    let serving = http::serve(listener, app.clone(), guard, shared.ends.clone(), grace);
    let loads = app.clone();
    // Who asks while the model is read is told so, and who ends it then need not wait for it.
    let served = runtime.spawn(async move {
        serving.await;
        if loads.ready.get().is_none() {
            std::process::exit(0);
        }
    });
    let config = file.config()?;
    let settings = args.cache(&config, None)?;
    let kernels = KernelSettings { rows: true, ..(&settings).into() };
    let wish = args.adapter.choice().with(kernels);
    let model = Arc::new(file.load_as(config, wish, args.quiet)?);
    let settings = args.cache(&model.config, Some(&model))?;
    let sessions = args.sessions(&model, settings)?;
    let (streams, bytes) =
        (sessions.len(), sessions.iter().map(|session| session.cache().bytes()).sum());
    let (jobs, asked) = mpsc::unbounded_channel();
    let queue = Queue {
        jobs,
        metrics: shared.metrics.clone(),
        most: args.queue,
        streams: streams as u64,
        usual_ms: shared.usual_ms.clone(),
    };
    let engine = Engine {
        room: settings.sinks + settings.window - settings.window / 4,
        permits: Semaphore::new(streams),
        slots: Slots::new(sessions),
        shared,
        runtime: runtime.handle().clone(),
        longest: Duration::from_secs(args.timeout),
        tokenizer: file.tokenizer.clone(),
    };
    let ready = args.ready(given, &file, &model, queue, engine.slots.views.clone())?;
    let told = format!(
        "brooklet: {} on {}: streams {streams}, each {} sinks + window of {}, {} in all",
        ready.name,
        model.gpu.name,
        settings.sinks,
        settings.window,
        human(bytes)
    );
    let set = app.ready.set(ready);
    debug_assert!(set.is_ok(), "it is set once");
    eprintln!("{told}");
    block_on(select(pin!(engine.run(asked)), served));
    runtime.shutdown_background();
    Ok(())
}
