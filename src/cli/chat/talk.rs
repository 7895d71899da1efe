//! A conversation in the terminal.
use super::commands::{Command, HELP, set};
use super::lines::Lines;
use super::{ChatArgs, window};
use crate::cli::interrupt;
use crate::cli::model::{File, read_text};
use crate::cli::output::Output;
use crate::cli::saved;
use brooklet::chat::{AnswerSettings, Chat, Message, Script};
use brooklet::grammar::{Grammar, GrammarVocabulary};
use brooklet::model::{CacheSettings, Model, Policy};
use brooklet::session::Ended;
use brooklet::{Error, Result, kept};
use pollster::block_on;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// A model, what was said, and how it is answered.
pub(super) struct Talk<'a> {
    args: &'a ChatArgs,
    file: &'a File,
    tokenizer: Arc<brooklet::text::Tokenizer>,
    model: Arc<Model>,
    chat: Chat,
    messages: Vec<Message>,
    answer: AnswerSettings,
    /// What every answer is held to.
    grammar: Option<(GrammarVocabulary, Grammar)>,
    thinking: Option<bool>,
    lines: Lines,
    output: Output,
    coloured: bool,
}

/// What a turn has cost.
struct Turn {
    start: Instant,
    first: Option<Instant>,
    fed: u64,
    gone: u64,
}

pub(super) fn run(args: &ChatArgs, file: File, given: &[String]) -> Result<()> {
    let grammar = args.grammar.chosen()?;
    interrupt::watch()?;
    let tokenizer = file.tokenizer.clone();
    let config = file.config()?;
    let resumed = args.resume.as_deref().map(saved::open).transpose()?;
    let script = script(args, &file, &tokenizer, args.system()?)?;
    let wish = args.adapter.choice();
    let (settings, wish) = match &resumed {
        Some(resumed) => (resumed.settings(), wish.with((&resumed.settings()).into())),
        None => {
            let settings = cache(args, &script, &config, None)?;
            (settings, wish.with((&settings).into()))
        }
    };
    let model = Arc::new(file.load_as(config, wish, args.quiet)?);
    let (chat, messages) = match &resumed {
        None => {
            let settings = cache(args, &script, &model.config, Some(&model))?;
            (block_on(Chat::new(model.clone(), script, settings))?, Vec::new())
        }
        Some(resumed) => restored(args, &file, &tokenizer, &model, resumed)?,
    };
    let answer = args.answer(&file, given, settings.sinks + settings.window)?;
    let vocabulary = |grammar| Ok((GrammarVocabulary::new(tokenizer.clone())?, grammar));
    let grammar = grammar.map(vocabulary).transpose()?;
    let mut talk = Talk {
        args,
        file: &file,
        tokenizer,
        model,
        chat,
        messages,
        answer,
        grammar,
        thinking: args.think.map(|think| think.chosen()),
        lines: Lines::new()?,
        output: Output::new(),
        coloured: std::io::stdout().is_terminal(),
    };
    if !interrupt::only_asks() {
        return Ok(());
    }
    let ended = talk.all();
    match (ended, &args.save) {
        (Ok(()), Some(path)) => talk.save(path),
        (ended, _) => ended,
    }
}

fn script(
    args: &ChatArgs,
    file: &File,
    tokenizer: &Arc<brooklet::text::Tokenizer>,
    system: Option<String>,
) -> Result<Script> {
    let (template, tools) = (args.template.template(file)?, args.tools.read()?);
    let mut script = Script::new(tokenizer.clone(), template, system, tools)?;
    script.set_thinking(args.think.map(|think| think.chosen()))?;
    Ok(script)
}

/// The cache of a conversation, with the chunk that suits the device once there is one.
fn cache(
    args: &ChatArgs,
    script: &Script,
    config: &brooklet::model::Config,
    model: Option<&Model>,
) -> Result<CacheSettings> {
    if args.shape.sinks.is_some() {
        let why = "--sinks: those of a conversation are its system prompt; leave the option out";
        return Err(Error::Usage(why.into()));
    }
    let settings = args.shape.settings(config, Policy::Streaming);
    let settings = model.map_or(settings, |model| args.shape.suited(settings, &model.gpu));
    let capacity = args.shape.window.map(|window| window.saturating_add(Chat::sinks(script)));
    let settings = Chat::cache(script, settings, capacity, config.n_ctx)?;
    settings.geometry()?;
    Ok(settings)
}

fn restored(
    args: &ChatArgs,
    file: &File,
    tokenizer: &Arc<brooklet::text::Tokenizer>,
    model: &Arc<Model>,
    snapshot: &brooklet::session::Snapshot,
) -> Result<(Chat, Vec<Message>)> {
    let made = |system| script(args, file, tokenizer, system);
    let (chat, texts) = block_on(Chat::restored(model.clone(), snapshot, made))?;
    let messages = serde_json::from_str(&texts).unwrap_or_default();
    Ok((chat, messages))
}

impl Talk<'_> {
    /// Message after message, until there are no more.
    fn all(&mut self) -> Result<()> {
        if self.lines.is_terminal() && !self.args.quiet {
            self.note(&format!(
                "{}: {} tokens of system prompt, {} more are seen. /help for commands, Ctrl-D to end.",
                self.file.gguf.str("general.name")?.unwrap_or(self.file.gguf.file()),
                self.chat.script().head().len(),
                self.chat.window().window
            ));
        }
        if let Some(text) = &self.args.prompt {
            self.turn(&text.clone())?;
        }
        loop {
            // While nothing is computed, Ctrl-C ends the program.
            interrupt::ends();
            let Some(text) = self.lines.next()? else { return Ok(()) };
            interrupt::only_asks();
            if text.trim().is_empty() {
                continue;
            }
            let done = match Command::parse(&text) {
                Some(Ok(Command::Bye)) => return Ok(()),
                Some(Ok(command)) => self.obey(command),
                Some(Err(why)) => Err(Error::Usage(why)),
                None => self.turn(&text),
            };
            match done {
                // What was asked for cannot be done; the conversation goes on.
                Err(error) if self.lines.is_terminal() && goes_on(&error) => {
                    self.note(&error.to_string())
                }
                other => other?,
            }
        }
    }

    fn note(&self, text: &str) {
        match self.coloured {
            true => eprintln!("{DIM}{text}{PLAIN}"),
            false => eprintln!("{text}"),
        }
    }

    fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Help => self.note(HELP),
            Command::Clear => {
                self.chat.clear();
                self.messages.clear();
                self.note("a new conversation, with the same system prompt");
            }
            Command::Again => return self.again(None),
            Command::Edit(text) => {
                let last = self.messages.iter().rev().find(|message| message.role == "user");
                let Some(last) = last.map(|last| last.content.clone()) else {
                    return Err(Error::Usage("nothing was said yet".into()));
                };
                let text = match text.is_empty() {
                    true => self.lines.edited(&last)?,
                    false => Some(text),
                };
                return text.map_or(Ok(()), |text| self.again(Some(text)));
            }
            Command::System(text) => {
                let script = script(self.args, self.file, &self.tokenizer, Some(text))?;
                let settings = cache(self.args, &script, &self.model.config, Some(&self.model))?;
                self.chat = block_on(Chat::new(self.model.clone(), script, settings))?;
                self.messages.clear();
                self.chat.set_thinking(self.thinking)?;
                self.note("a new conversation, with another system prompt");
            }
            Command::Set(name, value) => {
                let answer = set(&self.answer, &name, &value)?;
                answer.sampling.check()?;
                self.answer = answer;
            }
            Command::Think(thinking) => {
                if !self.chat.script().can_choose_to_think() {
                    let why = "the model's template cannot be told whether to think";
                    return Err(Error::Usage(why.into()));
                }
                self.chat.set_thinking(thinking)?;
                self.thinking = thinking;
            }
            Command::Window => {
                let drawn = window::drawn(&self.chat.window(), &self.messages);
                return self.output.text(&drawn);
            }
            Command::Save(path) => return self.save(Path::new(&path)),
            Command::Load(path) => {
                let snapshot = saved::open(Path::new(&path))?;
                let (chat, messages) =
                    restored(self.args, self.file, &self.tokenizer, &self.model, &snapshot)?;
                (self.chat, self.messages) = (chat, messages);
                self.note(&format!("{} messages", self.messages.len()));
            }
            Command::Read(path) => return self.turn(&read_text(Path::new(&path))?),
            Command::Show => self.show()?,
            Command::Bye => {}
        }
        Ok(())
    }

    fn show(&mut self) -> Result<()> {
        let script = self.chat.script();
        let text = format!(
            "system prompt: {}\nanswers: {:?}\ntemplate:\n{}\n",
            script.system().unwrap_or("none"),
            self.answer.sampling,
            script.template().source()
        );
        self.output.text(&text)
    }

    fn save(&mut self, path: &Path) -> Result<()> {
        let texts = serde_json::to_string(&self.messages)
            .map_err(|e| Error::Io { path: path.display().to_string(), source: e.into() })?;
        let snapshot = block_on(self.chat.save(texts))?;
        let io = |source| Error::Io { path: path.display().to_string(), source };
        kept::replace(path, snapshot.as_bytes()).map_err(io)?;
        if !self.args.quiet {
            self.note(&format!("{} holds the conversation", path.display()));
        }
        Ok(())
    }

    /// The last turn anew, with another message if there is one.
    fn again(&mut self, text: Option<String>) -> Result<()> {
        let at = self.messages.iter().rposition(|message| message.role == "user");
        let Some(at) = at else { return Err(Error::Usage("nothing was said yet".into())) };
        self.answer.sampling.seed = self.answer.sampling.seed.wrapping_add(1);
        let said = text.clone().unwrap_or_else(|| self.messages[at].content.clone());
        self.messages.truncate(at);
        let turn = self.cost();
        let again = self
            .chat
            .again(&self.messages, &said, text.is_some(), &self.answer, || !interrupt::pressed());
        let again = block_on(again)?;
        if let Some(left_out) = again.left_out {
            self.note(&format!(
                "the cache has lost what came before that turn; the model was told the last {} messages again",
                self.messages.len() - left_out
            ));
        }
        self.answered(again.begun, said, turn)
    }

    /// One message and its answer.
    fn turn(&mut self, text: &str) -> Result<()> {
        let turn = self.cost();
        let begun = block_on(self.chat.send(text, &self.answer, || !interrupt::pressed()))?;
        self.answered(begun, text.to_owned(), turn)
    }

    /// What a turn that begins now will have cost.
    fn cost(&self) -> Turn {
        let (fed, gone) = (self.chat.fed(), self.chat.window().gone);
        Turn { start: Instant::now(), first: None, fed, gone }
    }

    fn answered(&mut self, begun: bool, said: String, turn: Turn) -> Result<()> {
        if !begun {
            self.note("taken back before the model had read it");
            return Ok(());
        }
        self.messages.push(Message::new("user", said));
        if let Some((vocabulary, grammar)) = &self.grammar {
            self.chat.constrain(Box::new(vocabulary.matcher(grammar)?));
        }
        self.listen(turn)
    }

    /// Shows the answer as it comes.
    fn listen(&mut self, mut turn: Turn) -> Result<()> {
        let start = self.chat.session().position();
        let (mut text, mut thought) = (String::new(), false);
        while let Some(said) = block_on(self.chat.next())? {
            turn.first.get_or_insert_with(Instant::now);
            if interrupt::pressed() {
                self.chat.stop();
            }
            if said.thought != thought && self.coloured {
                self.output.text(if said.thought { DIM } else { PLAIN })?;
                self.output.text(if said.thought { "" } else { "\n\n" })?;
            }
            thought = said.thought;
            match (said.thought, self.args.json) {
                (_, true) => self.output.json(&serde_json::json!({
                    "text": said.text, "thought": said.thought
                }))?,
                // Through a pipe goes the answer alone.
                (true, false) if !self.coloured => {}
                (_, false) => self.output.text(&self.shown(&said.text))?,
            }
            if !said.thought {
                text.push_str(&said.text);
            }
        }
        if !self.args.json {
            self.output.text(if thought && self.coloured { PLAIN } else { "" })?;
            self.output.text("\n")?;
        }
        self.messages.push(Message::new("assistant", text));
        self.figures(&turn, start)
    }

    /// A text as it is shown: nothing that a model says steers the terminal.
    fn shown<'t>(&self, text: &'t str) -> std::borrow::Cow<'t, str> {
        let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        match self.coloured && text.contains(steers) {
            true => text.replace(steers, "\u{fffd}").into(),
            false => text.into(),
        }
    }

    fn figures(&mut self, turn: &Turn, answer: u64) -> Result<()> {
        let window = self.chat.window();
        let (told, said) = (self.chat.fed() - turn.fed, window.tokens.saturating_sub(answer));
        let first = turn.first.map_or(0.0, |first| (first - turn.start).as_secs_f64());
        let spent = turn.start.elapsed().as_secs_f64() - first;
        let rate = if spent > 0.0 { said.saturating_sub(1) as f64 / spent } else { 0.0 };
        let gone = window.gone - turn.gone.min(window.gone);
        if self.args.json {
            return self.output.json(&serde_json::json!({ "turn": {
                "fed": told, "generated": said, "first_ms": first * 1e3, "tokens_per_s": rate,
                "ended": self.chat.ended(), "position": window.tokens, "forgotten": window.forgotten,
                "gone": window.gone,
            }}));
        }
        if self.args.quiet {
            return Ok(());
        }
        let why = match self.chat.ended() {
            Some(Ended::Stopped) => ", stopped",
            Some(Ended::Length) => ", cut off by -n",
            _ => "",
        };
        let lost = match gone {
            0 => String::new(),
            1 => format!("; message {} is forgotten", window.gone),
            _ => format!("; messages {} to {} are forgotten", turn.gone + 1, window.gone),
        };
        self.note(&format!(
            "{told} tokens read, first after {first:.2} s, {said} said{why} at {rate:.1} tokens/s{lost}"
        ));
        Ok(())
    }
}

/// Whether a conversation can go on after this.
fn goes_on(error: &Error) -> bool {
    error.is_usage()
        || matches!(error, Error::Template(_) | Error::Format { .. } | Error::Io { .. })
}
