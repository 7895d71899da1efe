//! What the user types: line by line with an editor on a terminal, as it comes through a pipe.
use brooklet::{Error, Result, kept};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use std::io::{BufRead, Error as IoError, IsTerminal};
use std::path::PathBuf;

/// A line of a message that goes on in the next ends so.
const GOES_ON: char = '\\';
/// Begins and ends a message of several lines.
const BLOCK: &str = "\"\"\"";
/// Longer messages are refused: this is more than any window holds.
const LONGEST: usize = 16 << 20;

pub(super) enum Lines {
    Terminal(Box<Editor<(), FileHistory>>, Option<PathBuf>),
    Pipe,
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Io { path: "standard input".into(), source: IoError::other(error) }
}

impl Lines {
    pub(super) fn new() -> Result<Self> {
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return Ok(Self::Pipe);
        }
        let config = Config::builder().max_history_size(1000).map_err(failed)?.build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        let history = kept::folder().map(|folder| folder.join("chat-history"));
        if let Some(path) = &history {
            // There is none the first time.
            _ = editor.load_history(path);
        }
        Ok(Self::Terminal(Box::new(editor), history))
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(..))
    }

    /// The next message, or none when there are no more.
    pub(super) fn next(&mut self) -> Result<Option<String>> {
        let Some(mut text) = self.line(">>> ", "")? else { return Ok(None) };
        if let Some(first) = text.trim_start().strip_prefix(BLOCK) {
            let mut block = first.to_owned();
            while !block.trim_end().ends_with(BLOCK) {
                let Some(line) = self.line("... ", "")? else { break };
                block.push('\n');
                block.push_str(&line);
                expect_short(&block)?;
            }
            text = block.trim_end().trim_end_matches(BLOCK).trim_matches('\n').to_owned();
        }
        while text.ends_with(GOES_ON) {
            text.pop();
            let Some(line) = self.line("... ", "")? else { break };
            text.push('\n');
            text.push_str(&line);
            expect_short(&text)?;
        }
        self.remember(&text);
        Ok(Some(text))
    }

    /// A text for the user to change.
    pub(super) fn edited(&mut self, text: &str) -> Result<Option<String>> {
        self.line("edit> ", text)
    }

    fn line(&mut self, prompt: &str, initial: &str) -> Result<Option<String>> {
        match self {
            Self::Terminal(editor, _) => {
                match editor.readline_with_initial(prompt, (initial, "")) {
                    Ok(line) => Ok(Some(line)),
                    Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
                    Err(error) => Err(failed(error)),
                }
            }
            Self::Pipe => {
                let mut line = String::new();
                let read = std::io::stdin()
                    .lock()
                    .read_line(&mut line)
                    .map_err(|error| Error::Io { path: "standard input".into(), source: error })?;
                let line = line.trim_end_matches(['\n', '\r']).to_owned();
                Ok((read > 0).then_some(line))
            }
        }
    }

    fn remember(&mut self, text: &str) {
        let Self::Terminal(editor, Some(path)) = self else { return };
        if text.trim().is_empty() {
            return;
        }
        // A history that cannot be kept is no reason to end a conversation.
        _ = editor.add_history_entry(text);
        _ = path.parent().map(std::fs::create_dir_all);
        _ = editor.save_history(path);
    }
}

fn expect_short(text: &str) -> Result<()> {
    match text.len() > LONGEST {
        true => Err(Error::Usage("a message of more than 16 MiB; give less".into())),
        false => Ok(()),
    }
}
