//! `brooklet run`: a stream in the terminal.
use super::args::RunArgs;
use super::interrupt;
use super::model::{File, prompt_ids, text};
use super::output::{Output, human};
use brooklet::ops::ActivationType;
use brooklet::session::{Generation, Session};
use brooklet::text::{Detokenizer, SamplerSettings, Tokenizer};
use brooklet::{Error, Result};
use pollster::block_on;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a stream starts from when the user says nothing.
const DEFAULT_PROMPT: &str = "Once upon a time";

#[derive(Serialize)]
struct TokenLine<'a> {
    token: u32,
    text: &'a str,
}

#[derive(Serialize)]
struct Summary {
    prompt_tokens: usize,
    generated_tokens: u64,
    prefill_tps: f64,
    decode_tps: f64,
    ttft_ms: f64,
    /// Until the first token could be fed, from the choice of a device on.
    load_ms: f64,
    /// Of that: until every weight was handed to the device, and until every kernel was compiled, side by side.
    upload_ms: f64,
    pipelines_ms: f64,
    policy: brooklet::model::Policy,
    sinks: u32,
    window: u32,
    ring: u32,
    activations: ActivationType,
    evicted: u64,
    kv_bytes: u64,
    weight_bytes: u64,
    activation_bytes: u64,
    seed: u64,
    adapter: String,
    backend: String,
    variant: brooklet::ops::Choice,
    stop_reason: &'static str,
}

/// When things happened.
struct Times {
    load: Duration,
    start: Instant,
    prefilled: Instant,
    first: Option<Instant>,
    last: Instant,
}

impl Times {
    /// Tokens per second after the first token, whose time is the prompt's.
    fn decode_tps(&self, tokens: u64) -> f64 {
        let spent = self.first.map_or(Duration::ZERO, |first| self.last - first);
        rate(tokens.saturating_sub(1), spent)
    }
}

fn rate(count: u64, spent: Duration) -> f64 {
    if spent.is_zero() { 0.0 } else { count as f64 / spent.as_secs_f64() }
}

pub(crate) fn run(args: Box<RunArgs>) -> Result<()> {
    let sampling = args.sampling.settings();
    sampling.check()?;
    interrupt::watch()?;
    let given = text(&args.text)?;
    let file = File::open(&args.model)?;
    let ids = prompt_ids(&file.tokenizer, given.as_deref().unwrap_or(DEFAULT_PROMPT))?;
    let start = Instant::now();
    let model = file.load(args.adapter.choice().with(args.cache.kernels()), args.quiet)?;
    let model = Arc::new(model);
    let settings = args.cache.settings(&model.config);
    let reach = settings.sinks + settings.window;
    if reach > model.config.n_ctx && !args.quiet {
        eprintln!(
            "brooklet: sinks and window span {reach} tokens, and the model was trained on {}; the \
             text may suffer",
            model.config.n_ctx
        );
    }
    let mut session = block_on(Session::new(model, settings))?;
    let load = start.elapsed();
    let mut output = Output::new();
    let (mut generated, mut times) = (0, None);
    if !interrupt::only_asks() {
        return Ok(());
    }
    let ended = block_on(async {
        let start = Instant::now();
        interrupt::feed(&mut session, &ids).await?;
        let now = Instant::now();
        let times = times.insert(Times { load, start, prefilled: now, first: None, last: now });
        if interrupt::pressed() {
            return Ok("interrupted");
        }
        if !args.json && given.is_none() {
            // Nobody has seen this prompt: show what the text goes on from.
            output.text(DEFAULT_PROMPT)?;
        }
        let stop_ids = file.tokenizer.eog();
        let banned = if args.stop_at_eos { &[] } else { stop_ids };
        let mut generation = session.generate(sampling.clone(), banned)?;
        ids.iter().for_each(|&id| generation.accept(id));
        let source = (&mut session, &mut generation);
        stream(&args, &file.tokenizer, source, &mut output, &mut generated, times).await
    });
    let (reason, error) = match ended {
        Ok(reason) => (reason, None),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ("pipe closed", None)
        }
        Err(error) => ("error", Some(error)),
    };
    let finished = times.map_or(Ok(()), |times| {
        let summary = summarise(&session, &sampling, ids.len(), generated, &times, reason);
        let written = match (reason, args.json) {
            ("pipe closed", _) => Ok(()),
            (_, true) => output.json(&serde_json::json!({ "summary": summary })),
            (_, false) => output.text("\n"),
        };
        // On a full disk the figures are still worth having.
        if !args.quiet {
            print_statistics(&summary);
        }
        written
    });
    error.map_or(finished, Err)
}

async fn stream(
    args: &RunArgs,
    tokenizer: &Tokenizer,
    (session, generation): (&mut Session, &mut Generation),
    output: &mut Output,
    generated: &mut u64,
    times: &mut Times,
) -> Result<&'static str> {
    let mut detokenizer = Detokenizer::new();
    let limit = args.n.unwrap_or(u64::MAX);
    let reason = loop {
        if *generated == limit {
            break "length";
        }
        if interrupt::pressed() {
            break "interrupted";
        }
        let Some(token) = generation.next(session).await? else { break "cache full" };
        if args.stop_at_eos && tokenizer.eog().contains(&token) {
            break "end of text";
        }
        times.last = Instant::now();
        times.first.get_or_insert(times.last);
        *generated += 1;
        let text = detokenizer.push(tokenizer, token);
        match args.json {
            true => output.json(&TokenLine { token, text })?,
            false if text.is_empty() => {}
            false => output.text(text)?,
        }
    };
    if !args.json {
        output.text(detokenizer.finish())?;
    }
    Ok(reason)
}

fn summarise(
    session: &Session,
    sampling: &SamplerSettings,
    prompt_tokens: usize,
    generated_tokens: u64,
    times: &Times,
    stop_reason: &'static str,
) -> Summary {
    let (model, cache) = (session.model(), session.cache());
    let ring = cache.geometry();
    let first = times.first.map_or(Duration::ZERO, |first| first - times.start);
    Summary {
        prompt_tokens,
        generated_tokens,
        prefill_tps: rate(prompt_tokens as u64, times.prefilled - times.start),
        decode_tps: times.decode_tps(generated_tokens),
        ttft_ms: ms(first),
        load_ms: ms(times.load),
        upload_ms: ms(model.times.weights),
        pipelines_ms: ms(model.times.kernels),
        policy: cache.settings().policy,
        sinks: ring.sinks,
        window: ring.window,
        ring: ring.slots,
        activations: cache.settings().activations,
        evicted: session.evicted(),
        kv_bytes: cache.bytes(),
        weight_bytes: model.bytes(),
        activation_bytes: session.activation_bytes(),
        seed: sampling.seed,
        adapter: model.gpu.name.clone(),
        backend: model.gpu.backend.clone(),
        variant: model.variant,
        stop_reason,
    }
}

fn ms(spent: Duration) -> f64 {
    spent.as_secs_f64() * 1e3
}

fn print_statistics(s: &Summary) {
    eprintln!(
        "load       {:.0} ms: weights uploaded after {:.0} ms, kernels compiled after {:.0} ms",
        s.load_ms, s.upload_ms, s.pipelines_ms
    );
    eprintln!("kernels    {}", s.variant);
    eprintln!(
        "prompt     {} tokens, {:.2} tokens/s, first token after {:.0} ms",
        s.prompt_tokens, s.prefill_tps, s.ttft_ms
    );
    eprintln!(
        "generated  {} tokens, {:.2} tokens/s, seed {}, ended: {}",
        s.generated_tokens, s.decode_tps, s.seed, s.stop_reason
    );
    eprintln!(
        "cache      {} sinks + window of {} in a ring of {}; {} tokens forgotten",
        s.sinks, s.window, s.ring, s.evicted
    );
    eprintln!("products   of one token with activations in {}", s.activations);
    eprintln!(
        "memory     weights {}, keys and values {}, activations {}, on {} ({})",
        human(s.weight_bytes),
        human(s.kv_bytes),
        human(s.activation_bytes),
        s.adapter,
        s.backend
    );
}
