//! What a token costs, in numbers that are the same on every machine.
use super::{Report, SHORT, Subject, decode, load, prompt, shape};
use crate::cli::args::BenchArgs;
use crate::cli::interrupt;
use crate::cli::model::File;
use crate::cli::output::Output;
use brooklet::Result;
use brooklet::gpu::Counts;
use brooklet::session::Session;
use brooklet::text::SamplerSettings;
use pollster::block_on;
use serde::Serialize;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region};
use std::fmt::Write;

const TOKENS: usize = 64;
/// Tokens until nothing is made for the first time any more.
const WARM: usize = 48;

/// What so many tokens cost together.
#[derive(Clone, Copy, Serialize)]
struct Cost {
    tokens: usize,
    /// Steps that were submitted together.
    steps: usize,
    #[serde(flatten)]
    counts: Counts,
    /// Of the whole process; wgpu's own, as a test of the engine says.
    host_allocations: usize,
    host_bytes_allocated: usize,
}

/// What a token costs.
#[derive(Serialize)]
pub(super) struct Costs {
    cache: String,
    context_tokens: usize,
    greedy: Cost,
    sampled: Cost,
}

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let (file, mut session) = load(args, args.policy()?)?;
    let costs = measured(args, &file, &mut session)?;
    let report = Report { subject: Subject::of(args, &file, &session), figures: costs };
    match args.json {
        true => Output::new().json(&report),
        false => Output::new().text(&table(&report)),
    }
}

/// Counts a greedy token and a sampled one.
pub(super) fn measured(args: &BenchArgs, file: &File, session: &mut Session) -> Result<Costs> {
    let context_tokens = args.context.map_or(SHORT, |context| context as usize);
    let ids = prompt(&file.tokenizer, context_tokens)?;
    let tokens = args.n.map_or(TOKENS, |n| n as usize);
    let banned = file.tokenizer.eog();
    let mut of = |temperature| {
        let sampling = SamplerSettings { temperature, ..args.sampling() };
        block_on(cost(session, &ids, sampling, banned, tokens))
    };
    let (greedy, sampled) = (of(0.0)?, of(0.8)?);
    let cache = shape(args, &session.model().config, session.policy());
    Ok(Costs { cache, context_tokens, greedy, sampled })
}

impl Costs {
    /// Bytes of weights, and of keys and values, that a greedy token reads.
    pub(super) fn bytes_read(&self) -> [f64; 2] {
        let Cost { tokens, counts, .. } = self.greedy;
        [counts.weight_bytes, counts.cache_bytes].map(|bytes| bytes as f64 / tokens as f64)
    }
}

async fn cost(
    session: &mut Session,
    ids: &[u32],
    sampling: SamplerSettings,
    banned: &[u32],
    tokens: usize,
) -> Result<Cost> {
    session.reset();
    interrupt::feed(session, ids).await?;
    let gpu = session.model().gpu.clone();
    let mut generation = session.generate(sampling, banned)?;
    decode(session, &mut generation, WARM, |_| ()).await?;
    let before = gpu.counters.snapshot();
    decode(session, &mut generation, WARM, |_| ()).await?;
    let waits = (gpu.counters.snapshot() - before).waits.max(1);
    // As many as this device's speed suggests, and from now on always as many: whole submissions are counted.
    let steps = (WARM as f64 / waits as f64).round().max(1.0) as usize;
    generation.submit_together(steps);
    // Two that were under way may have been longer.
    decode(session, &mut generation, 6 * steps, |_| ()).await?;
    let tokens = tokens.next_multiple_of(steps);
    let before = gpu.counters.snapshot();
    let region = Region::new(&INSTRUMENTED_SYSTEM);
    decode(session, &mut generation, tokens, |_| ()).await?;
    let allocated = region.change();
    Ok(Cost {
        tokens,
        steps,
        counts: gpu.counters.snapshot() - before,
        host_allocations: allocated.allocations + allocated.reallocations,
        host_bytes_allocated: allocated.bytes_allocated,
    })
}

fn table(report: &Report<Costs>) -> String {
    let mut text = report.subject.head();
    let Costs { cache, context_tokens, greedy, sampled } = &report.figures;
    let what = format!("a token, {cache}, after {context_tokens}");
    // Writing into a String does not fail.
    let _ = writeln!(text, "{what:<42} {:>14} {:>14}", "greedy", "sampled");
    type Get = fn(&Cost) -> u64;
    let rows: [(&str, Get); 11] = [
        ("dispatches", |cost| cost.counts.dispatches),
        ("compute passes", |cost| cost.counts.passes),
        ("submissions", |cost| cost.counts.submits),
        ("waits", |cost| cost.counts.waits),
        ("writes from the host", |cost| cost.counts.writes),
        ("buffers, bind groups, pipelines made", |cost| cost.counts.objects),
        ("bytes of weights read", |cost| cost.counts.weight_bytes),
        ("bytes of keys and values read", |cost| cost.counts.cache_bytes),
        ("bytes of activations read", |cost| cost.counts.activation_bytes),
        ("allocations on the host", |cost| cost.host_allocations as u64),
        ("bytes allocated on the host", |cost| cost.host_bytes_allocated as u64),
    ];
    for (what, get) in rows {
        let each = [greedy, sampled].map(|cost| each(get(cost), cost.tokens));
        let _ = writeln!(text, "{what:<42} {:>14} {:>14}", each[0], each[1]);
    }
    let _ = writeln!(
        text,
        "\nCounted over {} and {} tokens, {} and {} to a submission. What is allocated on the host is wgpu's own.",
        greedy.tokens, sampled.tokens, greedy.steps, sampled.steps
    );
    text
}

/// A whole number where it is one.
fn each(count: u64, tokens: usize) -> String {
    match count.is_multiple_of(tokens as u64) {
        true => (count / tokens as u64).to_string(),
        false => format!("{:.3}", count as f64 / tokens as f64),
    }
}
