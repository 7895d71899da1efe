//! `brooklet soak`: a very long stream, held to the paper, to its memory and to its speed.
use super::args::{AdapterArgs, CacheArgs, ModelArgs};
use super::bench::progress;
use super::interrupt;
use super::model::File;
use super::output::{Output, human, write_file};
use super::saved::{self, Keeper};
use brooklet::eval::latency::Spread;
use brooklet::eval::soak::{self, Record, Report, Tail};
use brooklet::gpu::Gpu;
use brooklet::model::{CacheSettings, Policy};
use brooklet::reference::Oracle;
use brooklet::session::{Generation, Session};
use brooklet::text::SamplerSettings;
use brooklet::{Error, Result};
use clap::Args;
use pollster::block_on;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Steps of a submission; what is timed.
const TOGETHER: usize = 16;
/// The window where none is given: an oracle of a tiny model gets through it in no time.
const WINDOW: usize = 60;

#[derive(Args)]
pub(crate) struct SoakArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Tokens of the whole run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tokens: u64,
    /// Tokens between two looks at the oracle and the memory [default: a hundredth of N]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
    /// The same seed gives the same stream
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write a line for each look to FILE
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Keep the run in FILE after each look
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Go on with a run that --save has kept; its cache and its seed are the file's
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
}

/// A run so far, kept beside its stream.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    generated: u64,
    tail: Tail,
    records: Vec<Record>,
}

pub(crate) fn run(args: &SoakArgs, given: &[String]) -> Result<()> {
    interrupt::watch()?;
    let resumed = args.resume.as_deref().map(saved::open).transpose()?;
    let mine = ["policy", "sinks", "window", "chunk", "kv", "seed"];
    if let (Some(_), Some(id)) = (&resumed, given.iter().find(|id| mine.contains(&&id[..]))) {
        return Err(Error::Usage(format!("--{id}: a resumed run has the file's; leave it out")));
    }
    let mut keeper = args.save.as_deref().map(|path| Keeper::new(path, 1)).transpose()?;
    let file = File::open(&args.model)?;
    let model = Arc::new(file.load(args.adapter.choice(), true)?);
    let mut settings = args.cache.settings(&model.config);
    if !given.iter().any(|id| id == "window") {
        settings.window = WINDOW;
    }
    if let Some(resumed) = &resumed {
        settings = resumed.settings();
    }
    if !matches!(settings.policy, Policy::Streaming | Policy::Window) {
        return Err(Error::Usage(
            "--policy: streaming or window; the others have no end to reach".into(),
        ));
    }
    let Some(tolerance) = soak::tolerance(settings.kv) else {
        return Err(Error::Usage(format!(
            "--kv {}: a soak is held to an oracle that rounds no key or value; f16 or f32 works",
            settings.kv.name()
        )));
    };
    let mut session = block_on(Session::new(model.clone(), settings))?;
    let (config, CacheSettings { sinks, window, .. }) = (model.config.clone(), settings);
    let oracle = Oracle::read(&file.source, &file.gguf, config, sinks, window);
    let mut oracle = block_on(oracle)?;
    let mut run = Run {
        generated: 0,
        tail: Tail::new(&settings, model.config.n_layer),
        records: Vec::with_capacity(1024),
    };
    let resumed_generation = match &resumed {
        Some(resumed) => {
            session.restore(resumed)?;
            run = serde_json::from_str(resumed.note()).map_err(|_| {
                Error::Usage("--resume: the stream was not saved by `brooklet soak`".into())
            })?;
            session.resume(resumed)?
        }
        None => None,
    };
    if !interrupt::only_asks() {
        return Ok(());
    }
    let ended = block_on(async {
        let mut generation = match resumed_generation {
            Some(generation) => generation,
            None => {
                let ids = super::model::prompt_ids(&file.tokenizer, "Once upon a time")?;
                session.feed(&ids).await?;
                ids.iter().for_each(|&id| run.tail.push(id));
                let by = SamplerSettings { seed: args.seed, ..SamplerSettings::default() };
                session.generate(by, file.tokenizer.eog())?
            }
        };
        generation.submit_together(TOGETHER);
        go_on(args, (&mut session, &mut generation), &mut run, &mut oracle, keeper.as_mut()).await
    });
    let report = Report::new(&run.records, args.tokens, tolerance);
    if let Some(path) = &args.csv {
        write_csv(path, &run.records)?;
    }
    let mut output = Output::new();
    if args.json {
        output.json(&json(args, &file, &session.model().gpu, &settings, &run, &report))?;
    } else {
        output.text(&table(args, &file, &session.model().gpu, &settings, &run, &report))?;
    }
    ended?;
    keeper.map_or(Ok(()), |keeper| keeper.verdict())?;
    // The speed is the machine's affair too; these are not.
    match report.gpu_flat() && report.oracle_equal() {
        true => Ok(()),
        false => Err(Error::Unsupported("the stream has drifted: see the table above".into())),
    }
}

async fn go_on(
    args: &SoakArgs,
    (session, generation): (&mut Session, &mut Generation),
    run: &mut Run,
    oracle: &mut Oracle,
    mut keeper: Option<&mut Keeper>,
) -> Result<()> {
    let every = args.every.unwrap_or(args.tokens / 100).clamp(1, (args.tokens / 10).max(1));
    let bar = progress(args.tokens, "{bar:30} {pos}/{len} tokens, {eta} to go");
    let mut times = Vec::with_capacity(every as usize / TOGETHER + 1);
    while run.generated < args.tokens && !interrupt::pressed() {
        let left = (every - run.generated % every).min(args.tokens - run.generated);
        let block = left.min(TOGETHER as u64);
        let start = Instant::now();
        for _ in 0..block {
            let Some(token) = generation.next(session).await? else { return Ok(()) };
            run.tail.push(token);
        }
        times.push(start.elapsed().as_secs_f64() * 1e3 / block as f64);
        run.generated += block;
        bar.set_position(run.generated);
        if block < left {
            continue;
        }
        let logits = session.logits().await?;
        run.records.push(Record {
            tokens: run.generated,
            ms: Spread::of(&times).map_or(0.0, |spread| spread.median),
            host: memory_stats::memory_stats().map(|stats| stats.physical_mem as u64),
            gpu: session.model().gpu.counters.held(),
            difference: run.tail.difference(oracle, &logits),
        });
        times.clear();
        if let Some(keeper) = &mut keeper {
            let note = serde_json::to_string(&run).unwrap_or_default();
            keeper.save(session, generation, note).await?;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn write_csv(path: &Path, records: &[Record]) -> Result<()> {
    let mut lines = String::from("tokens,ms_per_token,host_bytes,gpu_bytes,logit_difference\n");
    for Record { tokens, ms, host, gpu, difference } in records {
        let host = host.map_or(String::new(), |host| host.to_string());
        let _ = writeln!(lines, "{tokens},{ms:.4},{host},{gpu},{difference:e}");
    }
    write_file(path, &lines)
}

fn json(
    args: &SoakArgs,
    file: &File,
    gpu: &Gpu,
    cache: &CacheSettings,
    run: &Run,
    report: &Report,
) -> serde_json::Value {
    serde_json::json!({
        "model": file.gguf.file(),
        "adapter": gpu.name,
        "backend": gpu.backend,
        "driver": gpu.driver,
        "tokens": run.generated,
        "of": args.tokens,
        "policy": cache.policy,
        "sinks": cache.sinks,
        "window": cache.window,
        "kv": cache.kv,
        "looks": run.records.len(),
        "report": report,
        "gpu_flat": report.gpu_flat(),
        "host_flat": report.host_flat(),
        "latency_flat": report.latency_flat(),
        "oracle_equal": report.oracle_equal(),
    })
}

fn table(
    args: &SoakArgs,
    file: &File,
    gpu: &Gpu,
    cache: &CacheSettings,
    run: &Run,
    report: &Report,
) -> String {
    let mut text = format!(
        "{}: {} of {} tokens, {} sinks + window of {}, {:?}; {} looks\n\
         {} on {} ({})\n\n\
         tenth  ms a token  host memory   GPU memory  largest logit difference\n",
        file.gguf.file(),
        run.generated,
        args.tokens,
        cache.sinks,
        cache.window,
        cache.kv,
        run.records.len(),
        gpu.name,
        gpu.backend,
        gpu.driver
    );
    for tenth in &report.tenths {
        let host = tenth.host.map_or("unknown".to_owned(), human);
        let _ = writeln!(
            text,
            "{:>5}  {:>10.3}  {host:>11}  {:>11}  {:.1e}",
            tenth.tenth,
            tenth.ms,
            human(tenth.gpu),
            tenth.difference
        );
    }
    let word = |holds: Option<bool>| match holds {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "not known yet",
    };
    let ratio = report.latency_ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
    let spread = report.host_spread.map_or("-".to_owned(), |spread| spread.to_string());
    let _ = write!(
        text,
        "\nGPU memory flat to the byte                         {} ({} bytes)\n\
         host memory within 1 MiB from the second tenth on   {} ({spread} bytes)\n\
         last tenth within 5 % of the second                 {} ({ratio})\n\
         equal to the paper's oracle throughout              {} ({:.1e} of {:.0e})\n",
        word(Some(report.gpu_flat())),
        report.gpu_spread,
        word(report.host_flat()),
        word(report.latency_flat()),
        word(Some(report.oracle_equal())),
        report.difference,
        report.tolerance
    );
    text
}
