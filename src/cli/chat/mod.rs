//! `brooklet chat`: a conversation in the terminal, and what a template makes of one.
mod commands;
mod lines;
mod render;
mod talk;
mod window;

use super::args::{AdapterArgs, ModelArgs, ShapeArgs};
use super::grammar::GrammarArgs;
use super::model::{File, read_text};
use super::pace::PaceArgs;
use super::sampling::{OrElse, SamplingArgs};
use brooklet::chat::AnswerSettings;
use brooklet::text::{Json, Template, Templates};
use brooklet::{Error, Result};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

pub(crate) const EXAMPLES: &str = "Examples:
  brooklet chat                                       in the terminal; /help lists the commands
  brooklet chat --system 'You are terse.' --window 500
  brooklet chat -p 'What is a brook?' < /dev/null     one question
  brooklet chat --save talk.bin                       kept at the end; --resume talk.bin goes on
  brooklet chat --render messages.json                what the model is given, as text
  brooklet chat --render messages.json --json         with its token ids
  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | brooklet chat --render -";

#[derive(Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    tools: ToolsArgs,
    #[command(flatten)]
    render: render::RenderArgs,
    /// What the model is told first. It is never forgotten
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "FILE", conflicts_with = "system")]
    system_file: Option<PathBuf>,
    /// The first message; others follow from the terminal or standard input, a line each
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// End an answer after N tokens; -1: where the model ends it
    #[arg(short, value_name = "N", default_value = "-1", allow_negative_numbers = true,
        value_parser = OrElse::<u64>::parse)]
    n: OrElse<u64>,
    /// End an answer at this text; several times for several
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Whether the model thinks first, where its template lets it be told [default: as the template has it]
    #[arg(long, value_enum)]
    think: Option<ThinkArg>,
    /// Keep the conversation in FILE at the end
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Go on with a conversation that was kept
    #[arg(long, value_name = "FILE", conflicts_with_all = ["system", "system_file"])]
    resume: Option<PathBuf>,
    /// One JSON object a line: pieces of answers, and what each turn has cost; with --render one for all
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress, and no figures after an answer
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    grammar: GrammarArgs,
    #[command(flatten)]
    pace: PaceArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum ThinkArg {
    On,
    Off,
}

impl ThinkArg {
    fn chosen(self) -> bool {
        matches!(self, Self::On)
    }
}

impl ChatArgs {
    fn system(&self) -> Result<Option<String>> {
        match &self.system_file {
            Some(path) => read_text(path).map(Some),
            None => Ok(self.system.clone()),
        }
    }

    /// How answers are made: as the user says, else as the model's file does, else as usual.
    fn answer(&self, file: &File, given: &[String], all: usize) -> Result<AnswerSettings> {
        let sampling = self.sampling.suggested_by(&file.gguf, given, all)?;
        let (tokens, stop) = (self.n.or_else(|| u64::MAX), self.stop.clone());
        Ok(AnswerSettings { sampling, tokens, stop, pace: self.pace.chosen() })
    }
}

/// Which template is used.
#[derive(Args)]
#[command(next_help_heading = "Template")]
pub(crate) struct TemplateArgs {
    /// The template: a file, one of those that the model's file has by this name, or chatml [default: the model's
    /// own, else chatml where its vocabulary is made for it]
    #[arg(long, value_name = "NAME|FILE")]
    chat_template: Option<String>,
}

impl TemplateArgs {
    /// Whether one was named.
    #[cfg(feature = "serve")]
    pub(crate) fn is_named(&self) -> bool {
        self.chat_template.is_some()
    }

    pub(crate) fn template(&self, file: &File) -> Result<Template> {
        let templates = Templates::of_model(&file.gguf, &file.tokenizer)?;
        let source = match &self.chat_template {
            Some(name) if std::path::Path::new(name).is_file() => {
                templates.given(&read_text(name.as_ref())?)
            }
            name => templates.find(name.as_deref())?,
        };
        Template::of(&source)
    }
}

#[derive(Args)]
#[command(next_help_heading = "Template")]
struct ToolsArgs {
    /// Tools that the model may call: a file of JSON, in OpenAI's form
    #[arg(long = "tools", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ToolsArgs {
    fn read(&self) -> Result<Option<Json>> {
        let Some(path) = &self.file else { return Ok(None) };
        let tools = Json::parse(&path.display().to_string(), &read_text(path)?)?;
        match tools.is_list() {
            true => Ok(Some(tools)),
            false => Err(Error::Usage(format!(
                "--tools {}: a list of tools works, as OpenAI has it: [{{\"type\": \"function\", …}}]",
                path.display()
            ))),
        }
    }
}

pub(crate) fn run(args: &ChatArgs, given: &[String]) -> Result<()> {
    let file = File::open(&args.model)?;
    match args.render.run(&file, args)? {
        true => Ok(()),
        false => talk::run(args, file, given),
    }
}
