//! `brooklet serve`: a model behind HTTP, in the protocol of OpenAI's clients.
//!
//! | file | what it holds |
//! |---|---|
//! | `args` | what the user may say |
//! | `http` | connections, and their end |
//! | `guard` | who may ask |
//! | `routes` | the routes, and those that need no stream |
//! | `body`, `fields`, `messages`, `request` | what a request says, and what of it is refused |
//! | `problem` | errors |
//! | `app` | what all routes share |
//! | `job` | what the routes ask of the engine's thread |
//! | `engine`, `answers`, `turn`, `slots` | that thread: who is answered, how, and over which stream |
//! | `replies`, `shapes` | answers as responses |
//! | `socket` | streams as the package drives them, from afar |
//! | `page` | the page, in the binary |
//! | `metrics` | what was done so far |
mod answers;
mod app;
mod args;
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
mod page;
mod problem;
mod replies;
mod request;
mod routes;
mod shapes;
mod slots;
mod socket;
mod turn;

use super::model::File;
use super::output::human;
use app::{App, Until};
pub(crate) use args::{EXAMPLES, EngineArgs, NetworkArgs, ServeArgs};
use brooklet::model::{KernelSettings, Model};
use brooklet::{Error, Result};
use engine::{Engine, Shared};
use futures_util::future::select;
use job::Queue;
use pollster::block_on;
use slots::Slots;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};

/// How a program of its own differs from a server: `brooklet app`.
pub(crate) struct Program<'a> {
    /// Another port will do where the one that is wanted is taken.
    pub(crate) any_port: bool,
    /// It ends when the last page has left.
    pub(crate) ends: bool,
    /// Told where the page is, when it is there.
    pub(crate) open: &'a dyn Fn(&str),
}

/// How long the first page is waited for, and how long one that is loaded anew.
const UNTIL: Until = Until { first: Duration::from_secs(120), back: Duration::from_secs(4) };

/// Runs the server until it is told to end.
pub(crate) fn run(args: &ServeArgs, given: &[String]) -> Result<()> {
    let fragment = args.network.fragment()?;
    let open = |url: &str| {
        if args.open {
            super::app::show(&format!("{url}{fragment}"));
        }
    };
    serve(
        &args.engine,
        &args.network,
        given,
        &Program { any_port: false, ends: false, open: &open },
    )
}

fn io(path: &str, source: std::io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

fn bound(runtime: &Runtime, args: &NetworkArgs, any_port: bool) -> Result<TcpListener> {
    let (host, port) = (args.host.trim_matches(['[', ']']), args.port);
    let bind = |port| runtime.block_on(TcpListener::bind((host, port)));
    let listener = match bind(port) {
        Err(error) if any_port && error.kind() == std::io::ErrorKind::AddrInUse => bind(0),
        listener => listener,
    };
    listener.map_err(|source| io(&format!("{host}:{port}"), source))
}

/// Runs the server until it is told to end. This thread is the engine's.
pub(crate) fn serve(
    args: &EngineArgs,
    network: &NetworkArgs,
    given: &[String],
    program: &Program<'_>,
) -> Result<()> {
    let guard = network.guard()?;
    let file = File::open(&args.model)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|source| io("the server's threads", source))?;
    let shared = Shared::default();
    let app = Arc::new(App {
        ready: OnceLock::new(),
        metrics: shared.metrics.clone(),
        ending: AtomicBool::new(false),
        failed: shared.failed.clone(),
        keep_alive: Duration::from_secs(network.sse_ping_interval),
        loaded: Default::default(),
        sockets: Default::default(),
        over: watch::Sender::new(false),
        until: program.ends.then_some(UNTIL),
    });
    let listener = bound(&runtime, network, program.any_port)?;
    let at = listener.local_addr().map_err(|source| io(&network.host, source))?;
    eprintln!("brooklet: http://{at}");
    let grace = Duration::from_secs(network.grace);
    let serving = http::serve(listener, app.clone(), guard, shared.ends.clone(), grace);
    let loads = app.clone();
    // Who asks while the model is read is told so, and who ends it then need not wait for it.
    let served = runtime.spawn(async move {
        serving.await;
        if loads.ready.get().is_none() {
            std::process::exit(0);
        }
    });
    // Where it listens on all addresses, this machine's own is one of them.
    let here = match at.ip() {
        ip if ip.is_unspecified() => std::net::SocketAddr::from(([127, 0, 0, 1], at.port())),
        _ => at,
    };
    (program.open)(&format!("http://{here}/"));
    let config = file.config()?;
    let settings = args.cache(&config, None)?;
    let kernels = KernelSettings { rows: true, ..(&settings).into() };
    let wish = args.adapter.choice().with(kernels);
    let told = |loaded, total| app.loaded.set((loaded, total));
    let model: Arc<Model> = Arc::new(file.load_told(config, wish, args.quiet, told)?);
    let settings = args.cache(&model.config, Some(&model))?;
    let sessions = args.sessions(&model, settings)?;
    let (streams, bytes) =
        (sessions.len(), sessions.iter().map(|session| session.cache().bytes()).sum());
    let (jobs, asked) = mpsc::unbounded_channel();
    let queue = Queue {
        jobs,
        metrics: shared.metrics.clone(),
        most: network.queue,
        streams: streams as u64,
        usual_ms: shared.usual_ms.clone(),
    };
    let engine = Engine {
        room: settings.sinks + settings.window - settings.window / 4,
        permits: Semaphore::new(streams),
        slots: Slots::new(sessions),
        shared,
        runtime: runtime.handle().clone(),
        longest: Duration::from_secs(network.timeout),
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
