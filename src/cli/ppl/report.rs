//! What was measured, for people, programs and eyes.
use super::{PplArgs, Subject, cache_name};
use crate::cli::output::Csv;
use brooklet::Result;
use brooklet::eval::chart::{Axis, Line, Lines, lines};
use brooklet::eval::perplexity::{Scores, Stretch};
use brooklet::model::{CacheSettings, KvType, Policy};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

/// Predictions that a point of the chart is the mean of, at most.
const SMOOTH: usize = 512;

/// One cache.
#[derive(Serialize)]
pub(super) struct Run {
    policy: Policy,
    sinks: usize,
    window: usize,
    kv: KvType,
    chunk: usize,
    /// How many were predicted; of `recompute`, the sample's.
    tokens: usize,
    ppl: Option<f64>,
    /// Of the sample's tokens alone, where there is one.
    sample_ppl: Option<f64>,
    ranges: Vec<Stretch>,
    seconds: f64,
    tokens_per_second: f64,
    #[serde(skip)]
    scores: Scores,
}

impl Run {
    pub(super) fn new(
        settings: CacheSettings,
        scores: Scores,
        ranges: &[Range<usize>],
        seconds: f64,
    ) -> Self {
        let CacheSettings { policy, sinks, window, kv, chunk, .. } = settings;
        let tokens = scores.nll.len();
        Self {
            policy,
            sinks,
            window,
            kv,
            chunk,
            tokens,
            ppl: scores.perplexity(),
            sample_ppl: None,
            ranges: scores.by_range(ranges),
            seconds,
            tokens_per_second: tokens as f64 / seconds.max(f64::MIN_POSITIVE),
            scores,
        }
    }

    fn label(&self) -> String {
        cache_name(self.policy, self.sinks, self.window)
    }
}

#[derive(Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    subject: Subject,
    text: String,
    text_tokens: usize,
    prefix: Vec<u32>,
    /// Indices of tokens.
    sample: Vec<usize>,
    interrupted: bool,
    runs: Vec<Run>,
}

impl Report {
    pub(super) fn new(
        args: &PplArgs,
        subject: Subject,
        text: String,
        text_tokens: usize,
        (mut sample, interrupted): (Vec<usize>, bool),
        mut runs: Vec<Run>,
    ) -> Self {
        // Where the sample was not finished, the others are compared with what there is of it.
        let sampled = runs.iter().filter(|run| run.scores.sample.is_some());
        if let Some(least) = sampled.map(|run| run.tokens).min() {
            sample.truncate(least);
        }
        for run in &mut runs {
            run.sample_ppl = run.scores.perplexity_at(&sample);
        }
        let prefix = args.prefix.clone();
        Self { subject, text, text_tokens, prefix, sample, interrupted, runs }
    }
}

/// A file with a line for each token; of several caches each line says which.
pub(super) struct Tokens {
    csv: Csv,
    several: bool,
}

impl Tokens {
    pub(super) fn create(path: &Path, several: bool) -> Result<Self> {
        let head = if several { "policy,sinks,window," } else { "" };
        Ok(Self { csv: Csv::create(path, &format!("{head}index,token,nll"))?, several })
    }

    pub(super) fn append(&mut self, run: &Run, ids: &[u32]) -> Result<()> {
        let head = match self.several {
            true => format!("{},{},{},", run.policy.name(), run.sinks, run.window),
            false => String::new(),
        };
        self.csv.append(|file| {
            for (index, nll) in run.scores.iter() {
                writeln!(file, "{head}{index},{},{nll}", ids[index])?;
            }
            Ok(())
        })
    }
}

pub(super) fn table(report: &Report, ranges: &[Range<usize>]) -> String {
    let mut text = report.subject.head();
    // Writing into a String does not fail.
    let _ = write!(text, "{}, {} tokens", report.text, report.text_tokens);
    if !report.prefix.is_empty() {
        let _ = write!(text, " after {:?}", report.prefix);
    }
    if let [first, .., last] = report.sample[..] {
        let _ = write!(text, "; sample: {} tokens from {first} to {last}", report.sample.len());
    }
    let _ = write!(
        text,
        "\n\n{:<12} {:>5} {:>7} {:>4} {:>8} {:>9} {:>10}",
        "policy", "sinks", "window", "kv", "tokens", "tokens/s", "perplexity"
    );
    if !report.sample.is_empty() {
        let _ = write!(text, " {:>10}", "sample");
    }
    for range in ranges {
        let _ = write!(text, " {:>14}", format!("{}-{}", range.start, range.end));
    }
    text.push('\n');
    let number = |ppl: Option<f64>| ppl.map_or("-".into(), |ppl| format!("{ppl:.4}"));
    for run in &report.runs {
        let _ = write!(
            text,
            "{:<12} {:>5} {:>7} {:>4} {:>8} {:>9.1} {:>10}",
            run.policy.name(),
            run.sinks,
            run.window,
            format!("{:?}", run.kv).to_lowercase(),
            run.tokens,
            run.tokens_per_second,
            number(run.ppl),
        );
        if !report.sample.is_empty() {
            let _ = write!(text, " {:>10}", number(run.sample_ppl));
        }
        for range in ranges {
            let found = run.ranges.iter().find(|s| (s.from..s.to) == *range);
            let _ = write!(text, " {:>14}", number(found.map(|s| s.ppl)));
        }
        text.push('\n');
    }
    if report.interrupted {
        text.push_str("\nstopped before all was measured\n");
    }
    text
}

/// Running perplexity against tokens, a curve for each cache.
pub(super) fn chart(report: &Report) -> Result<String> {
    let runs = &report.runs;
    let longest = runs.iter().map(|run| run.tokens).max().unwrap_or(0);
    let over = (longest / 8).clamp(1, SMOOTH);
    // A sample of fewer tokens than a point is made of has no curve.
    let curves = runs.iter().map(|run| Line::new(run.label(), run.scores.running(over)));
    lines(&Lines {
        title: format!("Perplexity of the last {over} tokens"),
        x: Axis::linear("tokens of the text"),
        y: Axis::log("perplexity"),
        series: curves.filter(|line| !line.points.is_empty()).collect(),
    })
}
