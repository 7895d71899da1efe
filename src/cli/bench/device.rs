//! All that a device is judged by: what it does at most, what a model reaches of it, and which kernels it is fastest with.
use super::counters::{self, Costs};
use super::profile::{self, Profile};
use super::speed::{self, Speed};
use super::{Report, SHORT, Subject, decode, generate, prompt};
use crate::cli::args::BenchArgs;
use crate::cli::interrupt;
use crate::cli::model::File;
use crate::cli::output::{Output, write_file};
use brooklet::eval::device::Limits;
use brooklet::eval::latency::Spread;
use brooklet::gpu::Tier;
use brooklet::session::Session;
use brooklet::tune::{Contender, contest};
use brooklet::{Error, Result};
use pollster::block_on;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

/// Steps that are submitted together.
const STEPS: [usize; 5] = [1, 2, 4, 8, 16];

#[derive(Serialize)]
struct Device {
    tier: Tier,
    limits: Limits,
    /// Of bytes a second that a copy moves: weights, keys and values that decoding reads.
    decode_share_of_copy: Option<f64>,
    /// Of operations a second that the device does at most: multiplications and additions of the layers' products.
    prefill_share_of_peak: Option<f64>,
    steps_together: Vec<Together>,
    variants: Vec<Contender>,
    speed: Speed,
    profile: Profile,
    counters: Costs,
}

/// How fast tokens come with so many steps a submission.
#[derive(Serialize)]
struct Together {
    steps: usize,
    tokens_per_second: f64,
}

pub(super) fn run(args: &BenchArgs, path: &Path) -> Result<()> {
    let Some((speed, file, mut session)) = speed::measured(args)? else { return Ok(()) };
    let Report { subject, figures: speed } = speed;
    let said = |what: &str| eprintln!("brooklet bench: {what}");
    said("what the device does at most");
    let gpu = session.model().gpu.clone();
    let limits = block_on(Limits::of(&gpu))?;
    said("what a token costs");
    let counters = counters::measured(args, &file, &mut session)?;
    said("each kernel's time");
    let profile = profile::measured(args, &file, &mut session)?;
    said("steps a submission");
    let steps_together = block_on(together(args, &file, &mut session))?;
    said("the kernels that compute the same");
    let variants = block_on(contest(&gpu, &file.gguf, &session.model().config))?;
    if interrupt::pressed() {
        return Err(Error::Usage("stopped before all was measured: nothing was written".into()));
    }
    let copied = limits.copy_gb_s.median * 1e9;
    let bytes: f64 = counters.bytes_read().iter().sum();
    let operations = 2.0 * layer_weights(&file) as f64;
    let figures = Device {
        tier: gpu.tier.clone(),
        decode_share_of_copy: speed.decode_tps().map(|tps| tps * bytes / copied),
        prefill_share_of_peak: speed
            .prefill_tps()
            .map(|tps| tps * operations / (limits.gflops.median * 1e9)),
        limits,
        steps_together,
        variants,
        speed,
        profile,
        counters,
    };
    let report = Report { subject, figures };
    let json = serde_json::to_string_pretty(&report)
        .map_err(|source| Error::Io { path: path.display().to_string(), source: source.into() })?;
    write_file(path, &(json + "\n"))?;
    Output::new().text(&table(&report))
}

/// Elements of the layers' matrices, each of which a token of a prompt is multiplied with once.
fn layer_weights(file: &File) -> u64 {
    file.gguf.layer_matrices().map(|tensor| tensor.rows() * tensor.cols()).sum()
}

async fn together(args: &BenchArgs, file: &File, session: &mut Session) -> Result<Vec<Together>> {
    let mut all = Vec::new();
    for steps in STEPS {
        session.reset();
        interrupt::feed(session, &prompt(&file.tokenizer, SHORT)?).await?;
        let mut generation = generate(args, file, session)?;
        generation.submit_together(steps);
        decode(session, &mut generation, 2 * steps, |_| ()).await?;
        let tokens = args.n.map_or(64, |n| n as usize).next_multiple_of(STEPS[STEPS.len() - 1]);
        let start = Instant::now();
        decode(session, &mut generation, tokens, |_| ()).await?;
        if interrupt::pressed() {
            break;
        }
        let tokens_per_second = tokens as f64 / start.elapsed().as_secs_f64();
        all.push(Together { steps, tokens_per_second });
    }
    Ok(all)
}

/// Rows for a table of a document.
fn table(report: &Report<Device>) -> String {
    let Report { subject, figures } = report;
    let Subject { adapter, backend, driver, engine, .. } = subject;
    let Device { limits, steps_together, variants, speed, profile, counters, .. } = figures;
    let mut text = format!(
        "| {adapter}, {backend}, {driver} | brooklet {engine}, {} |\n|---|---|\n",
        subject.name()
    );
    let mut row = |what: &str, figure: String| {
        // Writing into a String does not fail.
        let _ = writeln!(text, "| {what} | {figure} |");
    };
    let spread = |of: Option<Spread>, digits: usize, unit: &str| match of {
        Some(Spread { median, least, most }) => {
            let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
            format!("{median:.digits$}{unit} ({least:.digits$} to {most:.digits$})")
        }
        None => "not measured".to_owned(),
    };
    let share =
        |of: Option<f64>| of.map_or("not measured".into(), |of| format!("{:.1} %", 100.0 * of));
    row("a copy, read and written", spread(Some(limits.copy_gb_s), 1, "GB/s"));
    row("multiplications and additions", spread(Some(limits.gflops), 0, "GFLOP/s"));
    for (what, of, digits, unit) in speed.rows() {
        row(what.trim_start(), spread(of, digits, unit));
    }
    let [weights, cache] = counters.bytes_read();
    row("bytes a token reads: weights, keys and values", format!("{weights:.0}, {cache:.0}"));
    row("decoding's share of a copy's bytes a second", share(figures.decode_share_of_copy));
    row("prefill's share of the most operations", share(figures.prefill_share_of_peak));
    let steps = |t: &Together| format!("{}: {:.1}", t.steps, t.tokens_per_second);
    let steps: Vec<_> = steps_together.iter().map(steps).collect();
    row("tokens/s with so many steps a submission", steps.join(", "));
    for op in profile.ops() {
        row(&format!("op `{}`", op.name()), op.told());
    }
    for Contender { variant, tokens, microseconds, won } in variants {
        let verdict = if *won { ", **the fastest**" } else { "" };
        let time = spread(Spread::of(microseconds), 0, "microseconds");
        row(&format!("product with {tokens}: {variant}"), time + verdict);
    }
    text
}
