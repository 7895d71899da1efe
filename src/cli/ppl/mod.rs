//! `brooklet ppl`: how well a text is predicted through each kind of cache.
mod measure;
mod plan;
mod report;

use super::args::{AdapterArgs, ModelArgs, PoliciesArgs, ShapeArgs};
use super::bench::{Subject, cache_name, progress};
use super::interrupt;
use super::model::{File, read_text, warn};
use super::output::Output;
use brooklet::eval::chart::{Format, save};
use brooklet::model::Config;
use brooklet::{Error, Result};
use clap::Args;
use measure::{Text, measure};
use plan::{Sweep, plans, span};
use pollster::block_on;
use report::{Report, Tokens, chart, table};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) const EXAMPLES: &str = "Examples:
  brooklet ppl book.txt                               4 sinks and a window of 1020
  brooklet ppl book.txt --policy streaming,window,dense --tokens 8192 --chart ppl.svg
  brooklet ppl book.txt --window 253 --sweep sinks=0,1,2,4,8 --ranges 0-2048,2048-8192
  brooklet ppl book.txt --policy streaming,recompute --window 253 --positions 100
  brooklet ppl book.txt --prefix 198,198,198,198      four newlines as sinks, for SmolLM2
  brooklet ppl book.txt --csv nll.csv --json | jq .runs[].ppl

Token i of the text is predicted from those before it that the cache still has; token 0 is not predicted. A range
A-B is of the tokens A + 1 to B. Caches of several policies are of one size: those without sinks see as many tokens
more.";

#[derive(Args)]
pub(crate) struct PplArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The text
    file: PathBuf,
    /// Predict N tokens of it [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tokens: Option<u32>,
    /// Several caches in turn. The sum of sinks and window stays the same while the sinks change
    #[arg(long, value_name = "sinks=S,…|window=W,…", value_parser = Sweep::parse)]
    sweep: Option<Sweep>,
    /// Perplexity of these stretches, too
    #[arg(long, value_name = "A-B,…", value_delimiter = ',', value_parser = span)]
    ranges: Vec<Range<usize>>,
    /// Ids of tokens that come before the text, in place of the model's own first token. They are not counted
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    prefix: Vec<u32>,
    /// Write a line for each token to FILE: index,token,nll; of several caches, policy,sinks,window before them
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw the running perplexity of each cache into FILE, .svg or .png
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    sample: SampleArgs,
    #[command(flatten)]
    policies: PoliciesArgs,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Tokens that a dense cache holds, whether the model was trained on so many or not [default: --window, if dense
    /// is the only policy, else the model's trained context]
    #[arg(long, value_name = "C", help_heading = "Cache", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
}

/// Which tokens `recompute` predicts: a pass over the whole window for each.
#[derive(Args)]
#[command(next_help_heading = "Sample, for recompute and to compare others with it")]
struct SampleArgs {
    /// So many tokens, evenly spread [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "every")]
    positions: Option<u32>,
    /// Every K-th token
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    every: Option<u32>,
    /// Only tokens after this one [default: the one that fills the largest cache, if the text is longer]
    #[arg(long, value_name = "A")]
    after: Option<u32>,
}

pub(crate) fn run(args: &PplArgs) -> Result<()> {
    interrupt::watch()?;
    args.chart.as_deref().map(Format::of).transpose()?;
    let named = args.file.display().to_string();
    let text = read_text(&args.file)?;
    let file = File::open(&args.model)?;
    let config = Config::from_gguf(&file.gguf)?;
    let mut ids = file.tokenizer.encode(&text, args.prefix.is_empty())?;
    warn(file.tokenizer.doubled(&ids).as_slice());
    if ids.len() < 2 {
        return Err(Error::Usage(format!(
            "{named}: a text of {} tokens has nothing to predict; give one of two or more",
            ids.len()
        )));
    }
    let found = ids.len();
    if let Some(tokens) = args.tokens.map(|tokens| tokens as usize) {
        if tokens >= found {
            return Err(Error::Usage(format!(
                "--tokens {tokens}: {named} has {} tokens to predict",
                found - 1
            )));
        }
        ids.truncate(tokens + 1);
    }
    let text = Text::new(&args.prefix, &ids);
    let plans = plans(args, &config, &text)?;
    let sample = args.sample.indices(&plans, text.predicted())?;
    let mut csv =
        args.csv.as_ref().map(|path| Tokens::create(path, plans.len() > 1)).transpose()?;
    let model = Arc::new(file.load(args.adapter.choice().with(args.shape.kernels()), args.json)?);
    interrupt::only_asks();
    let (mut runs, mut interrupted) = (Vec::new(), false);
    for &settings in &plans {
        interrupted |= interrupt::pressed();
        if interrupted {
            break;
        }
        let run = block_on(measure(args, &model, settings, &text, &sample))?;
        if let Some(csv) = &mut csv {
            csv.append(&run, &ids)?;
        }
        interrupted |= interrupt::pressed();
        runs.push(run);
    }
    let subject = Subject::new(args.shape.kernels().activations, &file, &model);
    let report = Report::new(args, subject, named, found, (sample, interrupted), runs);
    match args.json {
        true => Output::new().json(&report)?,
        false => Output::new().text(&table(&report, &args.ranges))?,
    }
    match &args.chart {
        Some(path) => save(path, &chart(&report)?),
        None => Ok(()),
    }
}
