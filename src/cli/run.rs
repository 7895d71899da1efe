//! `brooklet run`: a stream in the terminal.
use super::args::RunArgs;
use super::interrupt;
use super::model::{File, prompt_ids, text};
use super::output::{Output, human};
use super::saved::{self, Keeper, Kept};
use brooklet::grammar::GrammarVocabulary;
use brooklet::model::KvType;
use brooklet::ops::ActivationType;
use brooklet::session::{Ended, Read, Reading, Session};
use brooklet::text::{Detokenizer, SamplerSettings, StopTexts, Tokenizer};
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
    #[serde(skip_serializing_if = "Option::is_none")]
    logprob: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<&'a [(u32, f64)]>,
}

#[derive(Serialize)]
struct Summary {
    prompt_tokens: usize,
    generated_tokens: u64,
    prefill_tps: f64,
    decode_tps: f64,
    ttft_ms: f64,
    longest_submission_ms: f64,
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
    kv: KvType,
    kv_bytes: u64,
    token_bytes: u64,
    weight_bytes: u64,
    activation_bytes: u64,
    seed: u64,
    adapter: String,
    backend: String,
    driver: String,
    variant: brooklet::ops::Choice,
    stop_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<Kept>,
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

pub(crate) fn run(args: Box<RunArgs>, given: &[String]) -> Result<()> {
    // What cannot work is said before anything is read.
    args.sampling.settings(0).check()?;
    let grammar = args.grammar.chosen()?;
    if grammar.is_some() && (args.saving.save.is_some() || args.saving.resume.is_some()) {
        return Err(Error::Usage(
            "--save and --resume: an output that is held to a grammar is not kept; leave one of them out".into(),
        ));
    }
    interrupt::watch()?;
    let prompt = text(&args.text)?;
    let (save, every) = (&args.saving.save, args.saving.save_every);
    let mut keeper = save.as_deref().map(|path| Keeper::new(path, every)).transpose()?;
    let resumed = args.saving.resume.as_deref().map(saved::open).transpose()?;
    let given_ids = args.ids.given();
    let by_ids = given_ids.is_some();
    let file = File::opened(&args.model, by_ids)?;
    let mut config = file.config()?;
    args.experiment.change(&mut config);
    let mut settings = args.cache.settings(&config);
    settings.geometry()?;
    let mut sampling = args.sampling.settings(settings.sinks + settings.window);
    // Where a grammar ends, nothing but the end may come.
    let mut stop_at_eos = args.stop_at_eos || grammar.is_some();
    let mut detokenizer = Detokenizer::new();
    let ids = match &resumed {
        None => match given_ids {
            Some(ids) => ids,
            None => prompt_ids(&file.tokenizer, prompt.as_deref().unwrap_or(DEFAULT_PROMPT))?,
        },
        Some(resumed) => {
            saved::expect_agreement(&args, given, &file.gguf, resumed)?;
            settings = resumed.settings();
            detokenizer = saved::detokenizer(resumed)?;
            if let Some((by, banned)) = resumed.sampling() {
                sampling = by.clone();
                stop_at_eos = banned.is_empty();
            }
            match given_ids {
                Some(ids) => ids,
                None => file.tokenizer.encode(prompt.as_deref().unwrap_or(""), false)?,
            }
        }
    };
    let start = Instant::now();
    let kernels = (&settings).into();
    let model = Arc::new(file.load_as(config, args.adapter.choice().with(kernels), args.quiet)?);
    let reach = settings.sinks + settings.window;
    if reach > model.config.n_ctx && !args.quiet {
        eprintln!(
            "brooklet: sinks and window span {reach} tokens, and the model was trained on {}; the \
             text may suffer",
            model.config.n_ctx
        );
    }
    if resumed.is_none() {
        settings = args.cache.shape.suited(settings, &model.gpu);
    }
    let mut session = block_on(Session::new(model, settings))?;
    if let Some(resumed) = &resumed {
        session.restore(resumed)?;
    }
    let load = start.elapsed();
    let mut output = Output::new();
    let (mut fed, mut generated, mut times) = (0, 0, None);
    if !interrupt::only_asks() {
        return Ok(());
    }
    let ended = block_on(async {
        let start = Instant::now();
        let before = resumed.as_ref().map(|resumed| session.resume(resumed)).transpose()?.flatten();
        fed = interrupt::feed(&mut session, &ids).await?;
        let now = Instant::now();
        let times = times.insert(Times { load, start, prefilled: now, first: None, last: now });
        if interrupt::pressed() {
            if keeper.take().is_some() {
                eprintln!("brooklet: the prompt was cut short, so the stream is not saved");
            }
            return Ok("interrupted");
        }
        if !args.json && prompt.is_none() && !by_ids && resumed.is_none() {
            // Nobody has seen this prompt: show what the text goes on from.
            output.text(DEFAULT_PROMPT)?;
        }
        // Where the tokenizer is not asked, it does not say what ends a text.
        let banned = if stop_at_eos || by_ids { &[] } else { file.tokenizer.eog() };
        let mut generation = match before {
            Some(generation) => generation,
            None => session.generate(sampling.clone(), banned)?,
        };
        generation.set_pace(args.pace.chosen());
        if let Some(grammar) = &grammar {
            let vocabulary = GrammarVocabulary::new(file.tokenizer.clone())?;
            generation.constrain(Box::new(vocabulary.matcher(grammar)?));
        }
        if let Some(top) = args.logprobs {
            generation.watch(top);
        }
        ids.iter().for_each(|&id| generation.accept(id));
        if !ids.is_empty() && !args.json {
            output.text(detokenizer.finish())?;
        }
        let ends = if stop_at_eos { file.tokenizer.eog() } else { &[] };
        let limit = args.n.or_else(|| u64::MAX);
        let reading = Reading::new(generation, ends, StopTexts::default(), limit);
        let mut stream = Stream {
            args: &args,
            tokenizer: &file.tokenizer,
            session: &mut session,
            reading: reading.going_on(detokenizer),
            output: &mut output,
            keeper: keeper.as_mut(),
        };
        stream.run(&mut generated, times).await
    });
    let (reason, error) = match ended {
        Ok(reason) => (reason, None),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ("pipe closed", None)
        }
        Err(error) => ("error", Some(error)),
    };
    let finished = times.map_or(Ok(()), |times| {
        let mut summary = summarise(&session, &sampling, fed, generated, &times, reason);
        summary.resumed_at = resumed.as_ref().map(|resumed| resumed.position());
        summary.saved = keeper.as_ref().map(Keeper::kept);
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
    let finished = finished.and_then(|()| keeper.map_or(Ok(()), |keeper| keeper.verdict()));
    error.map_or(finished, Err)
}

/// A stream on its way to the terminal.
struct Stream<'a> {
    args: &'a RunArgs,
    tokenizer: &'a Tokenizer,
    session: &'a mut Session,
    reading: Reading,
    output: &'a mut Output,
    keeper: Option<&'a mut Keeper>,
}

impl Stream<'_> {
    /// Until something ends it; then it is saved where it stands, if that was asked for.
    async fn run(&mut self, generated: &mut u64, times: &mut Times) -> Result<&'static str> {
        let ended = match self.save().await {
            Ok(()) => self.tokens(generated, times).await,
            Err(error) => Err(error),
        };
        match ended {
            // What cannot be printed can still be saved; a device that failed cannot be asked.
            Ok(_) | Err(Error::Io { .. }) => self.save().await?,
            Err(_) => {}
        }
        // What is held back is in the file, for the text to go on with.
        if ended.is_ok() && !self.args.json && self.keeper.is_none() {
            self.output.text(&self.reading.finish())?;
        }
        ended
    }

    async fn tokens(&mut self, generated: &mut u64, times: &mut Times) -> Result<&'static str> {
        loop {
            // What has come to its end is not interrupted.
            if interrupt::pressed() && self.args.n.or_else(|| u64::MAX) > *generated {
                return Ok("interrupted");
            }
            let (token, text) = match self.reading.next(self.session, self.tokenizer).await? {
                Read::Token { token, text } => (token, text),
                Read::End(Ended::CacheFull) => return Ok("cache full"),
                Read::End(Ended::EndOfText) => return Ok("end of text"),
                Read::End(_) => return Ok("length"),
            };
            times.last = Instant::now();
            times.first.get_or_insert(times.last);
            *generated += 1;
            match self.args.json {
                true => {
                    let likely = self.reading.generation().logprobs();
                    let logprob = likely.map(|likely| likely.token);
                    let top_logprobs = likely.map(|likely| &likely.top[..]);
                    self.output.json(&TokenLine { token, text: &text, logprob, top_logprobs })?
                }
                false if text.is_empty() => {}
                false => self.output.text(&text)?,
            }
            if self.keeper.as_ref().is_some_and(|keeper| keeper.due(*generated)) {
                self.save().await?;
            }
        }
    }

    async fn save(&mut self) -> Result<()> {
        match &mut self.keeper {
            Some(keeper) => {
                let note = saved::note(self.reading.detokenizer());
                keeper.save(self.session, self.reading.generation(), note).await
            }
            None => Ok(()),
        }
    }
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
        longest_submission_ms: ms(session.longest_submission()),
        load_ms: ms(times.load),
        upload_ms: ms(model.times.weights),
        pipelines_ms: ms(model.times.kernels),
        policy: cache.settings().policy,
        sinks: ring.sinks,
        window: ring.window,
        ring: ring.slots,
        activations: cache.settings().activations,
        evicted: session.evicted(),
        kv: cache.settings().kv,
        kv_bytes: cache.bytes(),
        token_bytes: model.config.kv_bytes(cache.settings().kv).unwrap_or(0),
        weight_bytes: model.bytes(),
        activation_bytes: session.activation_bytes(),
        seed: sampling.seed,
        adapter: model.gpu.name.clone(),
        backend: model.gpu.backend.clone(),
        driver: model.gpu.driver.clone(),
        variant: model.variant,
        stop_reason,
        resumed_at: None,
        saved: None,
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
        "cache      {} sinks + window of {} in a ring of {}, {} of {} a token; {} tokens forgotten",
        s.sinks,
        s.window,
        s.ring,
        s.kv.name(),
        human(s.token_bytes),
        s.evicted
    );
    eprintln!("products   of one token with activations in {}", s.activations);
    eprintln!(
        "memory     weights {}, keys and values {}, activations {}, on {} ({}, {})",
        human(s.weight_bytes),
        human(s.kv_bytes),
        human(s.activation_bytes),
        s.adapter,
        s.backend,
        s.driver
    );
    if let Some(saved) = &s.saved {
        match saved.position {
            Some(position) => {
                eprintln!("saved      {} holds the stream at token {position}", saved.file)
            }
            None => eprintln!("saved      nothing"),
        }
    }
}
