//! How fast a model loads, reads and writes, as medians of several runs.
use super::memory::HostMemory;
use super::{Report, SHORT, Subject, decode, generate, load, ms, progress, prompt, shape};
use crate::cli::args::BenchArgs;
use crate::cli::interrupt;
use crate::cli::model::File;
use crate::cli::output::{Output, human};
use brooklet::Result;
use brooklet::eval::latency::Spread;
use brooklet::session::{Generation, Session};
use indicatif::ProgressBar;
use pollster::block_on;
use serde::Serialize;
use std::fmt::Write;
use std::time::{Duration, Instant};

const TOKENS: u32 = 64;
const CONTEXT: u32 = 1000;

/// What the runs came to; Ctrl-C leaves some of them short.
#[derive(Default)]
struct Samples {
    load_ms: Vec<f64>,
    upload_ms: Vec<f64>,
    pipelines_ms: Vec<f64>,
    after_load_ms: Vec<f64>,
    first_token_ms: Vec<f64>,
    prefill_tps: Vec<f64>,
    decode_tps: Vec<f64>,
    decode_late_tps: Vec<f64>,
    latency_ratio: Vec<f64>,
    steps_per_submission: Vec<f64>,
    longest_submission_ms: Vec<f64>,
}

/// How fast it is.
#[derive(Serialize)]
pub(super) struct Speed {
    cache: String,
    sampled: bool,
    runs: usize,
    interrupted: bool,
    prefill_tokens: usize,
    context_tokens: usize,
    decode_tokens: usize,
    load_ms: Option<Spread>,
    upload_ms: Option<Spread>,
    pipelines_ms: Option<Spread>,
    after_load_ms: Option<Spread>,
    first_token_ms: Option<Spread>,
    prefill_tps: Option<Spread>,
    decode_tps: Option<Spread>,
    decode_late_tps: Option<Spread>,
    latency_ratio: Option<Spread>,
    steps_per_submission: Option<Spread>,
    longest_submission_ms: Option<Spread>,
    host_bytes: HostMemory,
    device_bytes: u64,
}

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    match measured(args)? {
        Some((report, ..)) if args.json => Output::new().json(&report),
        Some((report, ..)) => Output::new().text(&table(&report)),
        None => Ok(()),
    }
}

/// All runs, each with a load of its own, and the last one's session; nothing when Ctrl-C came before the first was loaded.
pub(super) fn measured(args: &BenchArgs) -> Result<Option<(Report<Speed>, File, Session)>> {
    let mut samples = Samples::default();
    let bar = progress(u64::from(args.runs), "run {pos} of {len}: {msg}");
    let mut report = None;
    for run in 1..=args.runs {
        bar.set_position(u64::from(run));
        bar.set_message("loading");
        let start = Instant::now();
        let (file, mut session) = load(args, args.policy()?)?;
        let loaded = start.elapsed();
        samples.load_ms.push(ms(loaded));
        samples.upload_ms.push(ms(session.model().times.weights));
        samples.pipelines_ms.push(ms(session.model().times.kernels));
        // The first time, Ctrl-C has ended everything until here.
        if run == 1 && !interrupt::only_asks() {
            break;
        }
        if !interrupt::pressed() {
            block_on(one(args, &file, &mut session, (start, loaded), &mut samples, &bar))?;
        }
        let interrupted = interrupt::pressed();
        if interrupted || run == args.runs {
            let figures = summarise(args, &session, &samples, interrupted);
            let subject = Subject::of(args, &file, &session);
            report = Some((Report { subject, figures }, file, session));
            break;
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

/// One run from a prompt on, up to Ctrl-C.
async fn one(
    args: &BenchArgs,
    file: &File,
    session: &mut Session,
    (start, loaded): (Instant, Duration),
    samples: &mut Samples,
    bar: &ProgressBar,
) -> Result<()> {
    let (prefill, context, tokens) = lengths(args);
    let ids = prompt(&file.tokenizer, prefill.max(context).max(SHORT))?;

    bar.set_message("decoding");
    session.feed(&ids[..SHORT]).await?;
    let mut generation = generate(args, file, session)?;
    decode(session, &mut generation, 1, |_| ()).await?;
    let first = start.elapsed();
    samples.first_token_ms.push(ms(first));
    samples.after_load_ms.push(ms(first - loaded));
    let before = session.model().gpu.counters.snapshot();
    let early = timed(session, &mut generation, tokens).await?;
    let Some(early) = early else { return Ok(()) };
    let waits = (session.model().gpu.counters.snapshot() - before).waits;
    samples.decode_tps.push(tokens as f64 / early.as_secs_f64());
    samples.steps_per_submission.push(tokens as f64 / waits.max(1) as f64);

    bar.set_message("reading a prompt");
    session.reset();
    let started = Instant::now();
    interrupt::feed(session, &ids[..prefill]).await?;
    if interrupt::pressed() {
        return Ok(());
    }
    samples.prefill_tps.push(prefill as f64 / started.elapsed().as_secs_f64());

    bar.set_message("decoding after a long context");
    if prefill > context {
        session.reset();
        interrupt::feed(session, &ids[..context]).await?;
    } else {
        interrupt::feed(session, &ids[prefill..context]).await?;
    }
    let mut generation = generate(args, file, session)?;
    decode(session, &mut generation, 1, |_| ()).await?;
    let Some(late) = timed(session, &mut generation, tokens).await? else { return Ok(()) };
    samples.longest_submission_ms.push(ms(session.longest_submission()));
    samples.decode_late_tps.push(tokens as f64 / late.as_secs_f64());
    samples.latency_ratio.push(late.as_secs_f64() / early.as_secs_f64());
    Ok(())
}

/// What so many tokens take; nothing when Ctrl-C came between.
async fn timed(
    session: &mut Session,
    generation: &mut Generation,
    tokens: usize,
) -> Result<Option<Duration>> {
    let mut spent = Duration::ZERO;
    decode(session, generation, tokens, |token| spent += token).await?;
    Ok((!interrupt::pressed()).then_some(spent))
}

/// Tokens of the prompt, of the long context, and decoded.
fn lengths(args: &BenchArgs) -> (usize, usize, usize) {
    let context = args.context.unwrap_or(CONTEXT);
    (args.prefill as usize, context as usize, args.n.unwrap_or(TOKENS) as usize)
}

fn summarise(args: &BenchArgs, session: &Session, samples: &Samples, interrupted: bool) -> Speed {
    let model = session.model();
    let (prefill_tokens, context_tokens, decode_tokens) = lengths(args);
    Speed {
        cache: shape(args, &model.config, session.policy()),
        sampled: args.sampled,
        runs: samples.load_ms.len(),
        interrupted,
        prefill_tokens,
        context_tokens,
        decode_tokens,
        load_ms: Spread::of(&samples.load_ms),
        upload_ms: Spread::of(&samples.upload_ms),
        pipelines_ms: Spread::of(&samples.pipelines_ms),
        after_load_ms: Spread::of(&samples.after_load_ms),
        first_token_ms: Spread::of(&samples.first_token_ms),
        prefill_tps: Spread::of(&samples.prefill_tps),
        decode_tps: Spread::of(&samples.decode_tps),
        decode_late_tps: Spread::of(&samples.decode_late_tps),
        latency_ratio: Spread::of(&samples.latency_ratio),
        steps_per_submission: Spread::of(&samples.steps_per_submission),
        longest_submission_ms: Spread::of(&samples.longest_submission_ms),
        host_bytes: HostMemory::now(),
        device_bytes: model.gpu.counters.held(),
    }
}

impl Speed {
    /// Tokens a second after a short prompt, in the median.
    pub(super) fn decode_tps(&self) -> Option<f64> {
        self.decode_tps.map(|spread| spread.median)
    }

    /// Tokens a second of a prompt, in the median.
    pub(super) fn prefill_tps(&self) -> Option<f64> {
        self.prefill_tps.map(|spread| spread.median)
    }

    /// What each figure is of, the figure, its digits behind the point and its unit.
    pub(super) fn rows(&self) -> [(String, Option<Spread>, usize, &'static str); 11] {
        let Self { prefill_tokens, context_tokens, .. } = self;
        [
            ("load".to_owned(), self.load_ms, 0, "ms"),
            ("    weights uploaded after".to_owned(), self.upload_ms, 0, "ms"),
            ("    kernels compiled after".to_owned(), self.pipelines_ms, 0, "ms"),
            (format!("prompt of {SHORT} and first token"), self.after_load_ms, 0, "ms"),
            ("first token, from the start".to_owned(), self.first_token_ms, 0, "ms"),
            (format!("prefill of {prefill_tokens}"), self.prefill_tps, 2, "tokens/s"),
            (format!("decode after {SHORT}"), self.decode_tps, 2, "tokens/s"),
            (format!("decode after {context_tokens}"), self.decode_late_tps, 2, "tokens/s"),
            ("its time a token, times the one before".to_owned(), self.latency_ratio, 2, ""),
            ("steps per submission".to_owned(), self.steps_per_submission, 1, ""),
            ("longest submission".to_owned(), self.longest_submission_ms, 0, "ms"),
        ]
    }
}

fn table(report: &Report<Speed>) -> String {
    let mut text = report.subject.head();
    let report = &report.figures;
    let how = if report.sampled { "sampled" } else { "greedy" };
    // Writing into a String does not fail.
    let _ = writeln!(
        text,
        "{:<46} {:>9} {:>9} {:>9}",
        format!("{how}, {}, runs: {}", report.cache, report.runs),
        "median",
        "least",
        "most"
    );
    for (what, spread, digits, unit) in report.rows() {
        let what = if unit.is_empty() { what } else { format!("{what}, {unit}") };
        let _ = match spread {
            Some(Spread { median, least, most }) => writeln!(
                text,
                "{what:<46} {median:>9.digits$} {least:>9.digits$} {most:>9.digits$}"
            ),
            None => writeln!(text, "{what:<46} {:>9}", "-"),
        };
    }
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), human);
    let _ = writeln!(
        text,
        "\nmemory: host {}, at most {}; device {}",
        bytes(report.host_bytes.resident),
        bytes(report.host_bytes.peak),
        human(report.device_bytes)
    );
    if report.interrupted {
        text.push_str("stopped before all runs were through\n");
    }
    text
}
