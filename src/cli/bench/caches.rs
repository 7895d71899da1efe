//! The time of each token while a cache fills and goes round, for sizes and policies.
use super::memory::HostMemory;
use super::{Report, SHORT, Subject, decode, ms, progress, prompt};
use crate::cli::args::BenchArgs;
use crate::cli::interrupt;
use crate::cli::model::File;
use crate::cli::output::{Csv, Output, human};
use brooklet::eval::chart::{Axis, Format, Line, Lines, lines, save};
use brooklet::eval::latency::Latency;
use brooklet::model::{CacheSettings, Config, Model, Policy};
use brooklet::session::Session;
use brooklet::{Error, Result};
use pollster::block_on;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

/// Recompute takes as long for each of its tokens as for a whole prompt.
const RECOMPUTED: usize = 4;
/// Times that lie apart by more than this factor are drawn on a logarithmic axis.
const FROM_ZERO: f64 = 20.0;
/// Tokens before anything is timed.
const WARM: usize = 4;

/// One cache of one policy.
#[derive(Serialize)]
struct Cell {
    policy: Policy,
    cache: usize,
    sinks: usize,
    window: usize,
    prompt_tokens: usize,
    /// Milliseconds of every token.
    all: Option<Latency>,
    /// Of those after the cache was full.
    full: Option<Latency>,
    /// Of those that waited for half of the cache to be thrown away.
    shifts: Option<Latency>,
    device_bytes: u64,
    kv_bytes: u64,
    host_bytes: HostMemory,
}

#[derive(Serialize)]
struct Caches {
    sampled: bool,
    interrupted: bool,
    cells: Vec<Cell>,
}

/// What one cell is to do.
struct Plan {
    cache: usize,
    settings: CacheSettings,
    prompt: usize,
    tokens: usize,
}

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let file = File::open(&args.model)?;
    let config = Config::from_gguf(&file.gguf)?;
    // What cannot be is said before anything is measured.
    let mut plans = Vec::new();
    for policy in args.policies() {
        for &cache in &args.what.cache {
            plans.push(plan(args, &config, policy, cache)?);
        }
    }
    for chart in [&args.tokens_chart, &args.sizes_chart].into_iter().flatten() {
        Format::of(chart)?;
    }
    let csv = args.csv.as_ref().map(|path| Csv::create(path, "policy,cache,index,ms"));
    let mut csv = csv.transpose()?;
    let model = file.load(args.adapter.choice().with(args.shape.kernels()), args.json)?;
    let model = Arc::new(model);
    interrupt::only_asks();
    let (mut cells, mut runs) = (Vec::new(), Vec::new());
    for plan in &plans {
        if interrupt::pressed() {
            break;
        }
        let (cell, times) = block_on(one(args, &file, &model, plan))?;
        if let Some(csv) = &mut csv {
            append(csv, &cell, &times)?;
        }
        runs.push(curve(&cell, &times));
        cells.push(cell);
    }
    let interrupted = interrupt::pressed();
    let subject = Subject::new(args.shape.kernels().activations, &file, &model);
    let figures = Caches { sampled: args.sampled, interrupted, cells };
    let report = Report { subject, figures };
    if let Some(path) = &args.tokens_chart {
        save(path, &over_the_run(&report, runs)?)?;
    }
    if let Some(path) = &args.sizes_chart {
        save(path, &by_size(&report)?)?;
    }
    match args.json {
        true => Output::new().json(&report),
        false => Output::new().text(&table(&report)),
    }
}

fn plan(args: &BenchArgs, config: &Config, policy: Policy, cache: usize) -> Result<Plan> {
    let mut settings = args.shape.settings(config, policy);
    if cache <= settings.sinks {
        return Err(Error::Usage(format!(
            "--cache {cache}: {} sinks leave no room for a window in it",
            settings.sinks
        )));
    }
    settings.window = cache - settings.sinks;
    let slots = settings.geometry()?.slots as usize;
    let (prompt, fallback) = match policy {
        Policy::Recompute => (cache, RECOMPUTED),
        Policy::Dense if args.prefilled => {
            let why =
                "--prefilled: a dense cache that is full ends; leave it out or --policy dense";
            return Err(Error::Usage(why.into()));
        }
        Policy::Dense => {
            let prompt = SHORT.min(cache.div_ceil(2));
            (prompt, cache - prompt)
        }
        _ => {
            let prompt = if args.prefilled { cache } else { SHORT.min(cache) };
            (prompt, cache - prompt + args.laps as usize * slots)
        }
    };
    let tokens = args.n.map_or(fallback, |n| n as usize);
    Ok(Plan { cache, settings, prompt, tokens })
}

async fn one(
    args: &BenchArgs,
    file: &File,
    model: &Arc<Model>,
    plan: &Plan,
) -> Result<(Cell, Vec<f64>)> {
    let Plan { cache, settings, prompt: prompt_tokens, tokens } = *plan;
    let what = format!("{} {cache}", settings.policy.name());
    let bar = progress(tokens as u64, &format!("{what}: {{bar:30}} {{pos}}/{{len}} {{eta}}"));
    let mut session = Session::new(model.clone(), settings).await?;
    // The first tokens of a session are slower on some drivers.
    session.feed(&prompt(&file.tokenizer, 1)?).await?;
    let mut generation = super::generate(args, file, &session)?;
    decode(&mut session, &mut generation, WARM, |_| ()).await?;
    session.reset();
    interrupt::feed(&mut session, &prompt(&file.tokenizer, prompt_tokens)?).await?;
    let mut generation = super::generate(args, file, &session)?;
    // A token's time is its own where it has a submission of its own.
    generation.submit_together(1);
    let mut times = Vec::with_capacity(tokens.min(1 << 20));
    let (mut shifts, mut shifted) = (Vec::new(), false);
    while times.len() < tokens && !interrupt::pressed() {
        let evicted = session.evicted();
        decode(&mut session, &mut generation, 1, |spent| {
            times.push(ms(spent));
            bar.inc(1);
        })
        .await?;
        if shifted {
            shifts.extend(times.last());
        }
        // A step is submitted before the token before it is waited for: the next wait is the one that holds the shift.
        shifted = session.evicted() > evicted + 1;
    }
    bar.finish_and_clear();
    let full = times.get((cache - prompt_tokens)..).unwrap_or_default();
    let cell = Cell {
        policy: settings.policy,
        cache,
        sinks: settings.sinks,
        window: settings.window,
        prompt_tokens,
        all: Latency::of(&times),
        full: Latency::of(full),
        shifts: Latency::of(&shifts),
        device_bytes: model.gpu.counters.held(),
        kv_bytes: session.cache().bytes(),
        host_bytes: HostMemory::now(),
    };
    Ok((cell, times))
}

/// The time of each token of a cell but the first, which the prompt's own pass has already chosen.
fn curve(cell: &Cell, times: &[f64]) -> Line {
    let at = (cell.prompt_tokens..).map(|index| index as f64);
    let points = at.zip(times.iter().copied()).skip(1).collect();
    Line::new(format!("{} {}", cell.policy.name(), cell.cache), points)
}

fn over_the_run(report: &Report<Caches>, series: Vec<Line>) -> Result<String> {
    let times = || series.iter().flat_map(|line| &line.points).map(|&(_, ms)| ms);
    let (least, most) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
    // From zero where that leaves every policy visible; recompute beside another does not.
    let y = match most > FROM_ZERO * least {
        true => Axis::log("milliseconds"),
        false => Axis::linear("milliseconds").including([0.0]),
    };
    lines(&Lines {
        title: format!("Time of each token, {}", report.subject.on()),
        x: Axis::linear("token of the stream"),
        y,
        series,
    })
}

/// One curve a policy, through the medians once the cache is full.
fn by_size(report: &Report<Caches>) -> Result<String> {
    let mut series: Vec<Line> = Vec::new();
    for cell in &report.figures.cells {
        let Some(latency) = cell.full.or(cell.all) else { continue };
        let (name, point) = (cell.policy.name(), (cell.cache as f64, latency.p50));
        match series.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => series.push(Line::marked(name, vec![point])),
        }
    }
    let mut sizes: Vec<_> = report.figures.cells.iter().map(|cell| cell.cache).collect();
    sizes.sort_unstable();
    sizes.dedup();
    lines(&Lines {
        title: format!("Time of a token, {}", report.subject.on()),
        x: Axis::log("cache, tokens").ticks(sizes.into_iter().map(|size| size as f64)),
        y: Axis::log("milliseconds, median of a full cache"),
        series,
    })
}

/// A line for each token.
fn append(csv: &mut Csv, cell: &Cell, times: &[f64]) -> Result<()> {
    let policy = cell.policy.name();
    csv.append(|file| {
        for (i, ms) in times.iter().enumerate() {
            writeln!(file, "{policy},{},{},{ms:.4}", cell.cache, cell.prompt_tokens + i)?;
        }
        Ok(())
    })
}

fn table(report: &Report<Caches>) -> String {
    let mut text = report.subject.head();
    let report = &report.figures;
    // Writing into a String does not fail.
    let _ = writeln!(
        text,
        "{:38} {:^29} {:^29}\n{:<10} {:>6} {:>7} {:>12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "",
        "ms, all tokens",
        "ms, once it is full",
        "policy",
        "cache",
        "tokens",
        "device",
        "p50",
        "p99",
        "max",
        "p50",
        "p99",
        "max"
    );
    for cell in &report.cells {
        let _ = write!(
            text,
            "{:<10} {:>6} {:>7} {:>12}",
            cell.policy.name(),
            cell.cache,
            cell.all.map_or(0, |all| all.tokens),
            human(cell.device_bytes),
        );
        for latency in [cell.all, cell.full] {
            let _ = match latency {
                Some(Latency { p50, p99, max, .. }) => {
                    write!(text, " {p50:>9.2} {p99:>9.2} {max:>9.2}")
                }
                None => write!(text, " {:>9} {:>9} {:>9}", "-", "-", "-"),
            };
        }
        text.push('\n');
        if let Some(Latency { tokens, p50, max, .. }) = cell.shifts {
            let _ = writeln!(
                text,
                "{:>17} {tokens:>7} of them waited for a shift: p50 {p50:.2}, max {max:.2}",
                ""
            );
        }
    }
    if report.interrupted {
        text.push_str("\nstopped before all was measured\n");
    }
    text
}
