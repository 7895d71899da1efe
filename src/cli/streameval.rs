//! `brooklet streameval`: what a stream can be asked for, by how far back it was said.
use super::args::{AdapterArgs, CacheArgs, ModelArgs};
use super::bench::{Subject, cache_name, progress};
use super::interrupt;
use super::model::File;
use super::output::{Output, write_file};
use brooklet::eval::chart::{Axis, Format, Line, Lines, lines, save};
use brooklet::eval::records::{ANSWER_ROOM, Plan, Question, Records, stream};
use brooklet::model::{CacheSettings, Config, Policy};
use brooklet::session::Session;
use brooklet::{Error, Result};
use clap::{Args, value_parser};
use pollster::block_on;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) const EXAMPLES: &str = "Examples:
  brooklet streameval                                 20 lines back, as in the paper
  brooklet streameval --distance 20,40,60 --window 1020 --chart recall.svg
  brooklet streameval --policy dense --window 8192 --distance 20,200";

#[derive(Args)]
pub(crate) struct StreamevalArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Lines of the record
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(1..))]
    lines: u32,
    /// How many lines back it is asked; several are so many streams, one after another
    #[arg(long, value_name = "D,…", value_delimiter = ',', default_value = "20")]
    distance: Vec<usize>,
    /// Lines from one question to the next
    #[arg(long, value_name = "E", default_value_t = 10, value_parser = value_parser!(u32).range(1..))]
    every: u32,
    /// Questions at most, for each distance [default: as many as the lines give]
    #[arg(long, value_name = "Q", value_parser = value_parser!(u32).range(1..))]
    queries: Option<u32>,
    /// The same seed gives the same numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write a line for each question to FILE
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw accuracy by distance into FILE, .svg or .png
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
}

/// What came of one distance.
#[derive(Serialize)]
struct Row {
    distance: usize,
    /// Mean tokens from the start of the line to the answer.
    tokens: f64,
    queries: usize,
    /// Of these, the ones whose line was still in the window.
    held: usize,
    right: usize,
    accuracy: f64,
    digits: usize,
    digits_right: usize,
    questions: Vec<Question>,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    subject: Subject,
    policy: Policy,
    sinks: usize,
    window: usize,
    seed: u64,
    lines: u32,
    every: u32,
    tokens_per_line: f64,
    interrupted: bool,
    distances: Vec<Row>,
}

pub(crate) fn run(args: &StreamevalArgs) -> Result<()> {
    interrupt::watch()?;
    args.chart.as_deref().map(Format::of).transpose()?;
    let longest = args.distance.iter().max().copied().unwrap_or(0);
    if longest >= args.lines as usize {
        return Err(Error::Usage(format!(
            "--distance {longest}: of {} lines none is so far back; --lines {} or more works",
            args.lines,
            longest + 1
        )));
    }
    let file = File::open(&args.model)?;
    let settings = settings(args, &Config::from_gguf(&file.gguf)?)?;
    let records = Records::new(args.seed, args.lines as usize);
    let tokens_per_line = tokens_per_line(&file, &records)?;
    let model = Arc::new(file.load(args.adapter.choice(), args.json)?);
    let mut session = block_on(Session::new(model.clone(), settings))?;
    interrupt::only_asks();
    let mut distances = Vec::new();
    for &distance in &args.distance {
        if interrupt::pressed() {
            break;
        }
        let questions = block_on(one(args, &file, &mut session, &records, distance))?;
        distances.extend(row(distance, questions));
    }
    let report = Report {
        subject: Subject::new(args.cache.kernels().activations, &file, &model),
        policy: settings.policy,
        sinks: settings.sinks,
        window: settings.window,
        seed: args.seed,
        lines: args.lines,
        every: args.every,
        tokens_per_line,
        interrupted: interrupt::pressed(),
        distances,
    };
    if let Some(path) = &args.csv {
        write_file(path, &csv(&report))?;
    }
    if let Some(path) = args.chart.as_ref().filter(|_| !report.distances.is_empty()) {
        save(path, &picture(&report)?)?;
    }
    match args.json {
        true => Output::new().json(&report),
        false => Output::new().text(&table(&report)),
    }
}

/// The cache asked for, in a ring that can take an answer back. A ring's size changes no result.
fn settings(args: &StreamevalArgs, config: &Config) -> Result<CacheSettings> {
    let mut settings = args.cache.settings(config);
    let slots = settings.geometry()?.slots as usize;
    match settings.policy {
        policy @ (Policy::Recompute | Policy::HalfDiscard) => Err(Error::Usage(format!(
            "--policy {} cannot take an answer back; streaming, window and dense can",
            policy.name()
        ))),
        Policy::Dense => Ok(settings),
        Policy::Streaming | Policy::Window => {
            settings.ring = Some(slots + ANSWER_ROOM);
            Ok(settings)
        }
    }
}

fn tokens_per_line(file: &File, records: &Records) -> Result<f64> {
    let mut tokens = 0;
    for line in 0..records.len() {
        tokens += file.tokenizer.encode(&records.line(line), false)?.len();
    }
    Ok(tokens as f64 / records.len() as f64)
}

async fn one(
    args: &StreamevalArgs,
    file: &File,
    session: &mut Session,
    records: &Records,
    distance: usize,
) -> Result<Vec<Question>> {
    let questions = args.queries.map_or(usize::MAX, |queries| queries as usize);
    let plan = Plan { distance, every: args.every as usize, questions };
    // The lines after the last question are not read.
    let asked = (records.len() - 1 - distance) / plan.every + 1;
    let last = distance + plan.every * (asked.min(questions) - 1);
    let template =
        format!("{distance} lines back {{bar:30}} {{pos}}/{{len}} lines {{eta}} {{msg}}");
    let bar = progress(last as u64 + 1, &template);
    let (mut found, mut right) = (Vec::new(), 0);
    session.reset();
    stream(session, &file.tokenizer, records, plan, |line, question| {
        bar.set_position(line as u64 + 1);
        if let Some(question) = question {
            right += usize::from(question.right);
            found.push(question);
            bar.set_message(format!("{right} of {} right", found.len()));
        }
        !interrupt::pressed() && line < last
    })
    .await?;
    bar.finish_and_clear();
    Ok(found)
}

/// None of no questions.
fn row(distance: usize, questions: Vec<Question>) -> Option<Row> {
    let queries = questions.len();
    let count = |is: fn(&Question) -> bool| questions.iter().filter(|q| is(q)).count();
    let (right, held) = (count(|q| q.right), count(|q| q.held));
    let tokens: u64 = questions.iter().map(|q| q.tokens).sum();
    (queries > 0).then(|| Row {
        distance,
        tokens: tokens as f64 / queries as f64,
        queries,
        held,
        right,
        accuracy: right as f64 / queries as f64,
        digits: questions.iter().map(|q| q.digits).sum(),
        digits_right: questions.iter().map(|q| q.digits_right).sum(),
        questions,
    })
}

fn share(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn csv(report: &Report) -> String {
    let head = "distance,line,tokens,held,expected,answer,right,digits,digits_right\n";
    let mut text = head.to_owned();
    for row in &report.distances {
        for q in &row.questions {
            let answer = q.answer.replace('"', "\"\"");
            // Writing into a String does not fail.
            let _ = writeln!(
                text,
                "{},{},{},{},{},\"{answer}\",{},{},{}",
                row.distance,
                q.line,
                q.tokens,
                q.held,
                q.expected,
                q.right,
                q.digits,
                q.digits_right
            );
        }
    }
    text
}

fn picture(report: &Report) -> Result<String> {
    let model = report.subject.name();
    let mut rows: Vec<&Row> = report.distances.iter().collect();
    rows.sort_by_key(|row| row.distance);
    let curve = |name: &str, of: &dyn Fn(&Row) -> f64| {
        Line::marked(name, rows.iter().map(|row| (row.tokens, of(row))).collect())
    };
    lines(&Lines {
        title: format!("StreamEval, {model}, {}", cache(report)),
        x: Axis::linear("tokens from the line to the answer").including([0.0]),
        y: Axis::linear("right (%)").including([0.0, 100.0]),
        series: vec![
            curve("whole answers", &|row| share(row.right, row.queries)),
            curve("digits, each after the true ones", &|row| share(row.digits_right, row.digits)),
        ],
    })
}

fn cache(report: &Report) -> String {
    cache_name(report.policy, report.sinks, report.window)
}

fn table(report: &Report) -> String {
    let mut text = report.subject.head();
    // Writing into a String does not fail.
    let _ = writeln!(
        text,
        "{}; {:.1} tokens a line\n\n{:>10} {:>8} {:>8} {:>14} {:>8} {:>9} {:>13}",
        cache(report),
        report.tokens_per_line,
        "lines back",
        "tokens",
        "queries",
        "in the window",
        "right",
        "accuracy",
        "digits right"
    );
    for row in &report.distances {
        let _ = writeln!(
            text,
            "{:>10} {:>8.0} {:>8} {:>14} {:>8} {:>7.1} % {:>11.1} %",
            row.distance,
            row.tokens,
            row.queries,
            row.held,
            row.right,
            share(row.right, row.queries),
            share(row.digits_right, row.digits)
        );
    }
    if report.distances.iter().any(|row| row.held < row.queries) {
        text.push_str(
            "\nWhat has left the window is forgotten. Of a line that is not in it nothing is left to answer from:\n\
             0 is what is to be expected there, and a right digit is a guess. A larger --window reaches further.\n",
        );
    }
    if report.interrupted {
        text.push_str("\nstopped before all was measured\n");
    }
    text
}
