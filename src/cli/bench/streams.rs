//! Tokens a second of many streams at once, and what they read of the weights.
use super::{Report, SHORT, Subject, decode, load, progress, prompt, shape};
use crate::cli::args::BenchArgs;
use crate::cli::interrupt;
use crate::cli::output::Output;
use brooklet::Result;
use brooklet::session::{Generation, Session};
use pollster::block_on;
use serde::Serialize;
use std::fmt::Write;
use std::time::Instant;

const TOKENS: u32 = 64;
/// Tokens until the steps of a submission have been found.
const WARM: usize = 16;

/// What so many streams came to.
#[derive(Serialize)]
struct Streams {
    streams: u32,
    #[serde(flatten)]
    rate: Rate,
}

/// The median of the runs that ended; Ctrl-C leaves some out.
#[derive(Clone, Copy, Serialize)]
struct Rate {
    /// Of all streams together.
    tokens_per_second: f64,
    /// The bytes of weights that a step reads, in those that a step of one stream has to.
    weights_read_per_step: f64,
}

#[derive(Serialize)]
struct All {
    cache: String,
    decode_tokens: usize,
    runs: u32,
    interrupted: bool,
    /// A session by itself, whose norms fold into its products.
    session_tokens_per_second: Option<f64>,
    streams: Vec<Streams>,
}

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let (file, mut session) = load(args, args.policy()?)?;
    interrupt::only_asks();
    let tokens = args.n.unwrap_or(TOKENS) as usize;
    let counts = &args.what.streams;
    let bar = progress((counts.len() as u64 + 1) * u64::from(args.runs), "run {pos} of {len}");
    let ids = prompt(&file.tokenizer, SHORT)?;
    let settings = session.cache().settings();
    let rate = |sessions: &mut [Session]| -> Result<Option<Rate>> {
        let mut rates = Vec::new();
        let model = sessions[0].shared_model();
        let read = || model.gpu.counters.snapshot().weight_bytes;
        let mut weights = 0.0;
        for _ in 0..args.runs {
            bar.inc(1);
            let mut by = Vec::new();
            for session in &mut *sessions {
                session.reset();
                block_on(session.feed(&ids))?;
                by.push(session.generate(args.sampling(), file.tokenizer.eog())?);
            }
            all(sessions, &mut by, WARM)?;
            let (start, before) = (Instant::now(), read());
            all(sessions, &mut by, tokens)?;
            let spent = start.elapsed().as_secs_f64();
            if interrupt::pressed() {
                break;
            }
            rates.push((tokens * sessions.len()) as f64 / spent);
            weights = (read() - before) as f64 / tokens as f64;
        }
        rates.sort_by(f64::total_cmp);
        let weights_read_per_step = weights / model.step_bytes() as f64;
        let median = rates.get(rates.len() / 2);
        Ok(median.map(|&tokens_per_second| Rate { tokens_per_second, weights_read_per_step }))
    };
    let session_rate = rate(std::slice::from_mut(&mut session))?;
    let model = session.shared_model();
    drop(session);
    let mut streams = Vec::new();
    for &count in counts {
        if interrupt::pressed() {
            break;
        }
        let mut sessions = block_on(Session::several(model.clone(), settings, count as usize))?;
        streams.extend(rate(&mut sessions)?.map(|rate| Streams { streams: count, rate }));
    }
    bar.finish_and_clear();
    let figures = All {
        cache: shape(args, &model.config, settings.policy),
        decode_tokens: tokens,
        runs: args.runs,
        interrupted: interrupt::pressed(),
        session_tokens_per_second: session_rate.map(|rate| rate.tokens_per_second),
        streams,
    };
    let kernels = args.shape.kernels().activations;
    let report = Report { subject: Subject::new(kernels, &file, &model), figures };
    match args.json {
        true => Output::new().json(&report),
        false => Output::new().text(&table(&report)),
    }
}

/// So many tokens of each, by turns, until Ctrl-C.
fn all(sessions: &mut [Session], by: &mut [Generation], tokens: usize) -> Result<()> {
    for _ in 0..tokens {
        if interrupt::pressed() {
            break;
        }
        for (session, by) in sessions.iter_mut().zip(&mut *by) {
            block_on(decode(session, by, 1, |_| ()))?;
        }
    }
    Ok(())
}

fn table(Report { subject, figures }: &Report<All>) -> String {
    let All { cache, decode_tokens, runs, interrupted, session_tokens_per_second, streams } =
        figures;
    let mut text = subject.head();
    let _ = writeln!(text, "{cache}, {decode_tokens} tokens a stream, medians of {runs}\n");
    let _ = writeln!(text, "streams  tokens/s in all  each  weights read a step");
    if let Some(rate) = session_tokens_per_second {
        let _ = writeln!(text, "session  {rate:>15.1}");
    }
    for Streams { streams, rate: Rate { tokens_per_second, weights_read_per_step } } in streams {
        let each = tokens_per_second / f64::from(*streams);
        let _ = writeln!(
            text,
            "{streams:>7}  {tokens_per_second:>15.1}  {each:>4.1}  {weights_read_per_step:>19.2}"
        );
    }
    if *interrupted {
        text.push_str("\nstopped before all was measured\n");
    }
    text
}
