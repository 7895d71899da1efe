//! The time of each kernel of a token, as bars in the terminal.
use super::{Report, SHORT, Subject, load, progress, prompt, shape};
use crate::cli::args::BenchArgs;
use crate::cli::interrupt;
use crate::cli::model::File;
use crate::cli::output::Output;
use brooklet::Result;
use brooklet::eval::latency::Spread;
use brooklet::gpu::KernelTime;
use brooklet::session::Session;
use pollster::block_on;
use serde::Serialize;
use std::fmt::Write;

/// Columns of a reader that is not a terminal.
const COLUMNS: usize = 100;
/// Columns before the bars.
const BEFORE: usize = 56;

/// An op in all layers together.
#[derive(Serialize)]
pub(super) struct Op {
    op: String,
    kernel: &'static str,
    dispatches: usize,
    /// Of a step.
    microseconds: Spread,
    share: f64,
    /// Weights and activations read in a step; 0 where it is not known.
    bytes: u64,
    gigabytes_per_second: Option<f64>,
}

/// The time of each op of a token.
#[derive(Serialize)]
pub(super) struct Profile {
    cache: String,
    context_tokens: usize,
    /// By the device's own clock; else the host's, around a submission for each dispatch.
    timestamps: bool,
    runs: usize,
    microseconds: f64,
    ops: Vec<Op>,
}

impl Profile {
    /// In the order of a step.
    pub(super) fn ops(&self) -> &[Op] {
        &self.ops
    }
}

impl Op {
    /// What it is in a layer.
    pub(super) fn name(&self) -> &str {
        &self.op
    }

    /// Its figures in a line.
    pub(super) fn told(&self) -> String {
        let rate = self.gigabytes_per_second.map(|rate| format!(", {rate:.1} GB/s"));
        format!(
            "{} × `{}`, {:.0} microseconds, {:.1} %{}",
            self.dispatches,
            self.kernel,
            self.microseconds.median,
            100.0 * self.share,
            rate.unwrap_or_default()
        )
    }
}

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let (file, mut session) = load(args, args.policy()?)?;
    interrupt::only_asks();
    let profile = measured(args, &file, &mut session)?;
    let report = Report { subject: Subject::of(args, &file, &session), figures: profile };
    match args.json {
        true => Output::new().json(&report),
        false => Output::new().text(&chart(&report)),
    }
}

/// Times each op of a step, several times.
pub(super) fn measured(args: &BenchArgs, file: &File, session: &mut Session) -> Result<Profile> {
    let context_tokens = args.context.map_or(SHORT, |context| context as usize);
    let bar = progress(u64::from(args.runs), "step {pos} of {len}");
    let runs = block_on(async {
        interrupt::feed(session, &prompt(&file.tokenizer, context_tokens)?).await?;
        session.profile().await?; // which warms what comes after
        let mut runs = Vec::new();
        while runs.len() < args.runs as usize && !interrupt::pressed() {
            bar.inc(1);
            runs.push(session.profile().await?);
        }
        Ok(runs)
    })?;
    bar.finish_and_clear();
    let ops = by_op(&runs);
    Ok(Profile {
        cache: shape(args, &session.model().config, session.policy()),
        context_tokens,
        timestamps: session.model().gpu.tier.timestamps,
        runs: runs.len(),
        microseconds: ops.iter().map(|op| op.microseconds.median).sum(),
        ops,
    })
}

/// `ffn_down` of `blk.3/ffn_down`.
fn op(label: &str) -> &str {
    label.rsplit('/').next().unwrap_or(label)
}

/// In the order of a step.
fn by_op(runs: &[Vec<KernelTime>]) -> Vec<Op> {
    let mut names: Vec<&str> = Vec::new();
    for time in runs.first().into_iter().flatten() {
        if !names.contains(&op(&time.label)) {
            names.push(op(&time.label));
        }
    }
    let of = |run: &'_ [KernelTime], name: &str| -> f64 {
        run.iter().filter(|time| op(&time.label) == name).map(|time| time.ns / 1e3).sum()
    };
    let mut ops: Vec<Op> = names
        .into_iter()
        .filter_map(|name| {
            let all: Vec<f64> = runs.iter().map(|run| of(run, name)).collect();
            let one: Vec<_> = runs[0].iter().filter(|time| op(&time.label) == name).collect();
            let bytes = one.iter().map(|t| t.reads.weights + t.reads.activations).sum();
            let microseconds = Spread::of(&all)?;
            let rate = bytes as f64 / (microseconds.median * 1e3);
            Some(Op {
                op: name.to_owned(),
                kernel: one.first()?.kernel,
                dispatches: one.len(),
                microseconds,
                share: 0.0,
                bytes,
                gigabytes_per_second: (bytes > 0 && rate.is_finite()).then_some(rate),
            })
        })
        .collect();
    let total: f64 = ops.iter().map(|op| op.microseconds.median).sum();
    ops.iter_mut().for_each(|op| op.share = op.microseconds.median / total.max(1e-9));
    ops
}

fn chart(report: &Report<Profile>) -> String {
    let mut text = report.subject.head();
    let report = &report.figures;
    let columns = terminal_size::terminal_size().map_or(COLUMNS, |(width, _)| width.0.into());
    let room = columns.saturating_sub(BEFORE).clamp(8, 80);
    let largest = report.ops.iter().map(|op| op.share).fold(f64::MIN_POSITIVE, f64::max);
    // Writing into a String does not fail.
    let _ = writeln!(
        text,
        "{:<16} {:>10} {:>12} {:>6} {:>7}",
        "op", "dispatches", "microseconds", "share", "GB/s"
    );
    for op in &report.ops {
        let rate = op.gigabytes_per_second.map_or_else(|| "-".into(), |rate| format!("{rate:.1}"));
        let _ = writeln!(
            text,
            "{:<16} {:>10} {:>12.0} {:>5.1}% {rate:>7} {}",
            op.op,
            op.dispatches,
            op.microseconds.median,
            100.0 * op.share,
            bar(op.share / largest, room)
        );
    }
    let how = match report.timestamps {
        true => "by the device's own clock, a pass for each dispatch",
        false => "by the host's clock around a submission for each dispatch, so much too long",
    };
    let _ = writeln!(
        text,
        "{:<16} {:>10} {:>12.0}\n\nOne token, {}, after {} tokens; medians of {}, {how}.",
        "together",
        report.ops.iter().map(|op| op.dispatches).sum::<usize>(),
        report.microseconds,
        report.cache,
        report.context_tokens,
        report.runs,
    );
    text
}

/// Blocks in eighths of a column.
fn bar(part: f64, room: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (part * 8.0 * room as f64).round() as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}
