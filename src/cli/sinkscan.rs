//! `brooklet sinkscan`: how much attention the first tokens draw, and how many sinks the model needs.
use super::args::{AdapterArgs, KvArg, ModelArgs, TextArgs};
use super::bench::{Subject, progress};
use super::interrupt;
use super::model::{File, prompt_ids, text};
use super::output::Output;
use super::sinks::Answer;
use brooklet::eval::chart::{Axis, Format, HeatMap, heat_map, save};
use brooklet::eval::sinks::{FIRST, Seen, SinkScan};
use brooklet::model::Model;
use brooklet::ops::ActivationType;
use brooklet::text::Tokenizer;
use brooklet::{Error, Result};
use clap::Args;
use pollster::block_on;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) const EXAMPLES: &str = "Examples:
  brooklet sinkscan                                   over a text of its own
  brooklet sinkscan -f book.txt --chart sinks.svg     over yours, with a heat map
  brooklet run --sinks auto                           uses what was found";

/// The opening of Jane Austen's Persuasion (1818), which belongs to everyone.
const OWN_TEXT: &str = include_str!("../eval/persuasion.txt");
/// First tokens that the heat map shows together, as the paper keeps four.
const SHOWN: usize = 4;

#[derive(Args)]
pub(crate) struct SinkscanArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Tokens of the text that are read at most
    #[arg(short, value_name = "N", default_value_t = 2048)]
    n: usize,
    /// Tokens of a stretch. The text is cut into such, and each is read as if a stream began with it
    #[arg(long, value_name = "T", default_value_t = 512)]
    stretch: usize,
    /// Draw the share of attention on the first tokens, by layer and head, into FILE, .svg or .png
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Do not keep the answer for --sinks auto
    #[arg(long)]
    no_store: bool,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// How keys and values are stored
    #[arg(long, value_enum, default_value = "f16")]
    kv: KvArg,
    #[command(flatten)]
    adapter: AdapterArgs,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    subject: Subject,
    interrupted: bool,
    stretches: usize,
    stretch_tokens: usize,
    /// Recommended.
    sinks: usize,
    /// The mean share of each of the first tokens, over all layers and heads.
    by_token: [f64; FIRST],
    /// What the first tokens draw beyond their fair share once so many are sinks.
    beyond: Vec<f64>,
    stored: Option<PathBuf>,
    #[serde(flatten)]
    seen: Seen,
}

pub(crate) fn run(args: &SinkscanArgs) -> Result<()> {
    interrupt::watch()?;
    args.chart.as_deref().map(Format::of).transpose()?;
    let given = text(&args.text)?;
    let file = File::open(&args.model)?;
    let ids = prompt_ids(&file.tokenizer, given.as_deref().unwrap_or(OWN_TEXT))?;
    let stretches = stretches(&file.tokenizer, &ids[..ids.len().min(args.n)], args.stretch)?;
    let model = Arc::new(file.load(args.adapter.choice(), args.json)?);
    let tokens = stretches.iter().map(Vec::len).max().unwrap_or(0);
    let mut scan = block_on(SinkScan::new(model.clone(), tokens, args.kv.into()))?;
    interrupt::only_asks();
    let total = stretches.iter().map(Vec::len).sum::<usize>();
    let bar = progress(total as u64, "scanning {bar:30} {pos}/{len} tokens {eta}");
    for stretch in &stretches {
        scan.begin();
        for part in stretch.chunks(scan.pass()) {
            if interrupt::pressed() {
                break;
            }
            // Queries that see little else give even a first token like others much.
            block_on(scan.feed(part, stretch.len() / 2))?;
            bar.inc(part.len() as u64);
        }
    }
    bar.finish_and_clear();
    let interrupted = interrupt::pressed();
    let Some(seen) = scan.seen() else {
        return Err(Error::Usage("stopped before there was anything to tell".into()));
    };
    if !seen.is_finite() {
        return Err(Error::NotNumbers("the model's attention is not numbers".into()));
    }
    let stored = match interrupted || args.no_store {
        true => None,
        false => Some(answer(&file, &seen).write(&file)?),
    };
    let report = report(&file, &model, &stretches, interrupted, stored, seen);
    if let Some(path) = &args.chart {
        save(path, &picture(&report)?)?;
    }
    match args.json {
        true => Output::new().json(&report),
        false => Output::new().text(&table(&report)),
    }
}

/// The text in stretches, each with the token that this model's texts begin with, if there is one.
fn stretches(tokenizer: &Tokenizer, ids: &[u32], tokens: usize) -> Result<Vec<Vec<u32>>> {
    let begins = ids.first().copied().filter(|&id| tokenizer.bos() == Some(id));
    let rest = &ids[usize::from(begins.is_some())..];
    let begin: Vec<u32> = begins.into_iter().collect();
    let each = tokens.saturating_sub(begin.len()).max(1);
    let whole = rest.chunks(each).filter(|part| part.len() == each);
    let mut stretches: Vec<_> = whole.map(|part| [&begin, part].concat()).collect();
    if stretches.is_empty() {
        stretches.push(ids.to_vec());
    }
    match stretches[0].len() {
        few if few < 2 * FIRST => Err(Error::Usage(format!(
            "{few} tokens show nothing of the first {FIRST}: give a text, -n and --stretch of {} or more",
            2 * FIRST
        ))),
        _ => Ok(stretches),
    }
}

fn answer(file: &File, seen: &Seen) -> Answer {
    Answer {
        model: file.gguf.file().to_owned(),
        sinks: seen.sinks(),
        shares: seen.by_token().to_vec(),
        queries: seen.queries,
        engine: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn report(
    file: &File,
    model: &Model,
    stretches: &[Vec<u32>],
    interrupted: bool,
    stored: Option<PathBuf>,
    seen: Seen,
) -> Report {
    Report {
        subject: Subject::new(ActivationType::F32, file, model),
        interrupted,
        stretches: stretches.len(),
        stretch_tokens: stretches[0].len(),
        sinks: seen.sinks(),
        by_token: seen.by_token(),
        beyond: (0..=FIRST).map(|sinks| seen.beyond(sinks)).collect(),
        stored,
        seen,
    }
}

fn picture(Report { subject, seen, .. }: &Report) -> Result<String> {
    let of_head = |head: &Vec<f64>| head[..SHOWN].iter().sum();
    let row = |heads: &Vec<Vec<f64>>| heads.iter().map(of_head).collect();
    let heads = seen.shares.iter().map(Vec::len).max().unwrap_or(0);
    heat_map(&HeatMap {
        title: format!("Share of attention on the first {SHOWN} tokens, {}", subject.name()),
        x: "head".into(),
        y: "layer".into(),
        value: Axis::linear("share of attention").including([0.0, 1.0]),
        columns: (0..heads).map(|head| head.to_string()).collect(),
        rows: seen
            .shares
            .iter()
            .enumerate()
            .filter(|(_, heads)| !heads.is_empty())
            .map(|(l, heads)| (l.to_string(), row(heads)))
            .collect(),
    })
}

fn table(report: &Report) -> String {
    let Report { seen, sinks, by_token, .. } = report;
    let mut text = report.subject.head();
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    // Writing into a String does not fail.
    let _ = writeln!(
        text,
        "share of attention of {} queries, in {} stretches of {} tokens; a fair share of one token is {}\n\n\
         {:>5} {:>10} {:>10} {:>10} {:>10} {:>22}",
        seen.queries,
        report.stretches,
        report.stretch_tokens,
        percent(seen.fair),
        "layer",
        "first",
        "first 2",
        "first 4",
        "first 8",
        "first 4, by head"
    );
    let mut line = |name: &str, of: &dyn Fn(usize) -> f64, heads: String| {
        let [a, b, c, d] = [1, 2, 4, FIRST].map(|tokens| percent(of(tokens)));
        let _ = writeln!(text, "{name:>5} {a:>10} {b:>10} {c:>10} {d:>10} {heads:>22}");
    };
    // Others do not attend.
    for (layer, heads) in seen.shares.iter().enumerate().filter(|(_, heads)| !heads.is_empty()) {
        let of = heads.iter().map(|head| head[..SHOWN].iter().sum::<f64>());
        let (least, most) = of.fold((1.0, 0.0), |(l, m): (f64, f64), s| (l.min(s), m.max(s)));
        let heads = format!("{} to {}", percent(least), percent(most));
        line(&layer.to_string(), &|tokens| seen.of_layer(layer, tokens), heads);
    }
    line("all", &|tokens| by_token[..tokens].iter().sum(), String::new());
    let each: Vec<_> = by_token.iter().map(|&share| percent(share)).collect();
    let _ = writeln!(text, "\neach of the first {FIRST}, over all heads: {}", each.join(", "));
    let _ = match sinks {
        0 => writeln!(
            text,
            "sinks: 0. The first tokens draw {} beyond their fair share: not every model has sinks",
            percent(seen.beyond(0))
        ),
        &FIRST => writeln!(text, "sinks: {FIRST}, all that are looked at; it may be more"),
        _ => writeln!(
            text,
            "sinks: {sinks}. The others of the first {FIRST} draw {} beyond their fair share, less than 1 %",
            percent(seen.beyond(*sinks))
        ),
    };
    if let Some(path) = &report.stored {
        let _ = writeln!(text, "kept for --sinks auto in {}", path.display());
    }
    if report.interrupted {
        text.push_str("stopped before all was measured; nothing is kept for --sinks auto\n");
    }
    text
}
