//! One cache, a text through it.
use super::report::Run;
use super::{PplArgs, cache_name, progress};
use crate::cli::interrupt;
use brooklet::Result;
use brooklet::eval::perplexity::Scores;
use brooklet::eval::score::{Scorer, recomputed};
use brooklet::model::{CacheSettings, Model, Policy};
use brooklet::session::Session;
use indicatif::{HumanDuration, ProgressBar};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A text, and what a stream is given before it.
pub(super) struct Text {
    stream: Vec<u32>,
    prefix: usize,
}

impl Text {
    pub(super) fn new(prefix: &[u32], ids: &[u32]) -> Self {
        Self { stream: [prefix, ids].concat(), prefix: prefix.len() }
    }

    /// Tokens of the text that can be predicted: all but the first.
    pub(super) fn predicted(&self) -> usize {
        self.fed() - self.prefix
    }

    /// Tokens that a stream is fed to predict them.
    pub(super) fn fed(&self) -> usize {
        self.stream.len() - 1
    }
}

pub(super) async fn measure(
    args: &PplArgs,
    model: &Arc<Model>,
    settings: CacheSettings,
    text: &Text,
    sample: &[usize],
) -> Result<Run> {
    let what = cache_name(settings.policy, settings.sinks, settings.window);
    let bar = |steps: usize| {
        progress(steps as u64, &format!("{what}: {{bar:30}} {{pos}}/{{len}} {{eta}} {{msg}}"))
    };
    let (scores, seconds) = match settings.policy {
        Policy::Recompute => {
            let bar = bar(sample.len());
            recompute(args, model, settings, text, (sample, &what), &bar).await?
        }
        Policy::Dense => {
            let fed = text.fed().min(settings.window);
            stream(model, settings, text, fed, &bar(fed)).await?
        }
        _ => stream(model, settings, text, text.fed(), &bar(text.fed())).await?,
    };
    Ok(Run::new(settings, scores, &args.ranges, seconds))
}

/// Every token in turn, until Ctrl-C.
async fn stream(
    model: &Arc<Model>,
    settings: CacheSettings,
    text: &Text,
    fed: usize,
    bar: &ProgressBar,
) -> Result<(Scores, f64)> {
    let mut scorer = Scorer::new(model.clone(), settings).await?;
    let mut scores = Scores { nll: Vec::with_capacity(fed), sample: None };
    let mut sum = 0.0;
    let start = Instant::now();
    let told = |part: &[f32]| {
        scores.nll.extend_from_slice(part);
        sum += part.iter().map(|&nll| f64::from(nll)).sum::<f64>();
        bar.set_position(scores.nll.len() as u64);
        bar.set_message(format!("ppl {:.3}", (sum / scores.nll.len() as f64).exp()));
        !interrupt::pressed()
    };
    scorer.score(&text.stream[..=fed], told).await?;
    bar.finish_and_clear();
    scores.nll.drain(..text.prefix.min(scores.nll.len()));
    Ok((scores, start.elapsed().as_secs_f64()))
}

/// The sample, each token from its window anew, until Ctrl-C.
async fn recompute(
    args: &PplArgs,
    model: &Arc<Model>,
    settings: CacheSettings,
    text: &Text,
    (sample, what): (&[usize], &str),
    bar: &ProgressBar,
) -> Result<(Scores, f64)> {
    let mut session = Session::new(model.clone(), settings).await?;
    let (mut nll, start) = (Vec::with_capacity(sample.len()), Instant::now());
    for (i, &index) in sample.iter().enumerate() {
        if interrupt::pressed() {
            break;
        }
        nll.push(recomputed(&mut session, &text.stream, text.prefix + index).await?);
        if i == 0 && sample.len() > 1 && !args.json {
            foretell(what, sample, start.elapsed());
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let sample = sample[..nll.len()].to_vec();
    Ok((Scores { nll, sample: Some(sample) }, start.elapsed().as_secs_f64()))
}

/// Says how long it will take, from how long the first took.
fn foretell(what: &str, sample: &[usize], first: Duration) {
    let rest = (sample.len() - 1) as u32;
    eprintln!(
        "brooklet: {what}: {} tokens, {:.2} s each; this will take {}",
        sample.len(),
        first.as_secs_f64(),
        HumanDuration(first.saturating_mul(rest))
    );
}
