//! `brooklet bench`: how fast it is here, and what that is made of.
mod caches;
mod counters;
mod device;
mod memory;
mod peers;
mod profile;
mod speed;
mod streams;

use super::args::{BenchArgs, BenchMode};
use super::interrupt;
use super::model::File;
use brooklet::model::{Config, Model, Policy};
use brooklet::ops::{ActivationType, Choice};
use brooklet::session::{Generation, Session};
use brooklet::text::Tokenizer;
use brooklet::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tokens of the prompt before what is timed at a short context.
const SHORT: usize = 16;
/// Said over and over: what a text says does not change what it costs.
const SENTENCE: &str = "The brook runs past the mill, and past the mill the brook runs on. ";

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    if let [json, svg] = &args.what.peers_chart[..] {
        return peers::chart(json, svg);
    }
    interrupt::watch()?;
    match &args.what {
        BenchMode { device: Some(path), .. } => device::run(args, path),
        what if what.counters => counters::run(args),
        what if what.profile => profile::run(args),
        what if !what.cache.is_empty() => caches::run(args),
        what if !what.streams.is_empty() => streams::run(args),
        _ => speed::run(args),
    }
}

/// What was measured, and on what.
#[derive(Serialize)]
struct Report<T> {
    #[serde(flatten)]
    subject: Subject,
    #[serde(flatten)]
    figures: T,
}

/// What is measured on.
#[derive(Serialize)]
pub(super) struct Subject {
    engine: &'static str,
    model: String,
    weight_bytes: u64,
    adapter: String,
    backend: String,
    driver: String,
    /// A software driver that runs on the CPU.
    cpu: bool,
    /// Which kernels multiply.
    variant: Choice,
    /// How products of one token take their inputs.
    activations: ActivationType,
}

impl Subject {
    pub(super) fn new(activations: ActivationType, file: &File, model: &Model) -> Self {
        let gpu = &model.gpu;
        Self {
            engine: env!("CARGO_PKG_VERSION"),
            model: file.gguf.file().to_owned(),
            weight_bytes: model.bytes(),
            adapter: gpu.name.clone(),
            backend: gpu.backend.clone(),
            driver: gpu.driver.clone(),
            cpu: gpu.tier.cpu,
            variant: model.variant,
            activations,
        }
    }

    fn of(args: &BenchArgs, file: &File, session: &Session) -> Self {
        Self::new(args.shape.kernels().activations, file, session.model())
    }

    /// The model's name, as a chart says it.
    pub(super) fn name(&self) -> std::borrow::Cow<'_, str> {
        std::path::Path::new(&self.model).file_stem().unwrap_or_default().to_string_lossy()
    }

    /// The model and the device, for a chart's title, without what a driver adds to its name in brackets.
    fn on(&self) -> String {
        let device = self.adapter.split(" (").next().unwrap_or(&self.adapter);
        format!("{} on {device}", self.name())
    }

    /// The lines above a table.
    pub(super) fn head(&self) -> String {
        let software = if self.cpu { ", a software driver" } else { "" };
        let Self { engine, model, adapter, backend, driver, variant, activations, .. } = self;
        format!(
            "{model}\n{adapter} on {backend}{software} ({driver}), brooklet {engine}\n{variant}, activations \
             in {activations}\n\n"
        )
    }
}

/// A prompt of exactly so many tokens.
fn prompt(tokenizer: &Tokenizer, len: usize) -> Result<Vec<u32>> {
    let ids = tokenizer.encode_first(SENTENCE)?;
    if ids.is_empty() {
        return Err(Error::Tokenizer("it makes no tokens of a sentence".into()));
    }
    Ok(ids.into_iter().cycle().take(len).collect())
}

/// The model and a session over it, with the device that the user chose.
fn load(args: &BenchArgs, policy: Policy) -> Result<(File, Session)> {
    let file = File::open(&args.model)?;
    let model = Arc::new(file.load(args.adapter.choice().with(args.shape.kernels()), true)?);
    let settings = args.shape.suited(args.shape.settings(&model.config, policy), &model.gpu);
    let session = pollster::block_on(Session::new(model, settings))?;
    Ok((file, session))
}

fn generate(args: &BenchArgs, file: &File, session: &Session) -> Result<Generation> {
    let mut generation = session.generate(args.sampling(), file.tokenizer.eog())?;
    generation.set_pace(args.pace.chosen());
    Ok(generation)
}

/// Decodes tokens until there are so many or Ctrl-C is pressed; `told` gets the time of each.
async fn decode(
    session: &mut Session,
    generation: &mut Generation,
    tokens: usize,
    mut told: impl FnMut(Duration),
) -> Result<()> {
    let mut before = Instant::now();
    for _ in 0..tokens {
        if interrupt::pressed() {
            break;
        }
        if generation.next(session).await?.is_none() {
            let why = "the dense cache is full; give a larger --window or a smaller -n";
            return Err(Error::Usage(why.into()));
        }
        let now = Instant::now();
        told(now - before);
        before = now;
    }
    Ok(())
}

fn ms(spent: Duration) -> f64 {
    spent.as_secs_f64() * 1e3
}

/// What goes on, in one line of a terminal.
pub(super) fn progress(steps: u64, template: &str) -> ProgressBar {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(steps),
        false => ProgressBar::hidden(),
    };
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

/// What [`cache_name`] says of the cache asked for.
fn shape(args: &BenchArgs, config: &Config, policy: Policy) -> String {
    let settings = args.shape.settings(config, policy);
    cache_name(policy, settings.sinks, settings.window)
}

/// "streaming 4 + 1020"
pub(super) fn cache_name(policy: Policy, sinks: usize, window: usize) -> String {
    format!("{} {sinks} + {window}", policy.name())
}
