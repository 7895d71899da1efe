//! What begins with a slash.
use brooklet::chat::AnswerSettings;
use brooklet::{Error, Result};

pub(super) const HELP: &str = "\
/help               this
/clear              a new conversation, with the same system prompt
/regen              the last answer anew
/edit [TEXT]        the last message anew, and its answer
/system TEXT        a new conversation, with another system prompt
/set NAME VALUE     temp, top_k, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, seed, n
/think on|off|auto  whether the model thinks first, where its template lets it be told
/window             what the model sees, message by message
/save FILE          keep the conversation
/load FILE          go on with one
/read FILE          say what is in a file
/show               system prompt, settings, template
/bye                end; so do /exit, /quit and Ctrl-D
A line that ends with \\ goes on in the next; \"\"\" begins and ends a message of several lines.
Ctrl-C ends an answer, and at the prompt the program.";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Clear,
    Again,
    Edit(String),
    System(String),
    Set(String, String),
    Think(Option<bool>),
    Window,
    Save(String),
    Load(String),
    Read(String),
    Show,
    Bye,
}

impl Command {
    /// The command that a line is, or what is wrong with it; none where it is none.
    pub(super) fn parse(line: &str) -> Option<Result<Self, String>> {
        let line = line.trim();
        let name = line.strip_prefix('/')?;
        // A path, or a comment of a programme.
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '?') || name.contains('\n') {
            return None;
        }
        let (name, rest) = name.split_once(char::is_whitespace).unwrap_or((name, ""));
        if name.contains('/') {
            return None;
        }
        let rest = rest.trim();
        let needs = |what: &str, made: fn(String) -> Self| match rest.is_empty() {
            true => Err(format!("/{name} needs {what}: /{name} {}", what.to_uppercase())),
            false => Ok(made(rest.to_owned())),
        };
        Some(match name {
            "help" | "?" => Ok(Self::Help),
            "clear" | "new" => Ok(Self::Clear),
            "regen" | "regenerate" => Ok(Self::Again),
            "edit" => Ok(Self::Edit(rest.to_owned())),
            "system" => needs("text", Self::System),
            "set" => match rest.split_once(char::is_whitespace) {
                Some(("parameter", rest)) => match rest.trim().split_once(char::is_whitespace) {
                    Some((name, value)) => Ok(Self::Set(name.to_owned(), value.trim().to_owned())),
                    None => Err("/set parameter NAME VALUE".to_owned()),
                },
                Some(("system", text)) => Ok(Self::System(text.trim().to_owned())),
                Some((name, value)) => Ok(Self::Set(name.to_owned(), value.trim().to_owned())),
                None => Err("/set NAME VALUE, as in /set temp 0.7".to_owned()),
            },
            "think" => match rest {
                "" | "on" => Ok(Self::Think(Some(true))),
                "off" => Ok(Self::Think(Some(false))),
                "auto" => Ok(Self::Think(None)),
                _ => Err("/think on, /think off or /think auto".to_owned()),
            },
            "nothink" => Ok(Self::Think(Some(false))),
            "window" => Ok(Self::Window),
            "save" => needs("file", Self::Save),
            "load" => needs("file", Self::Load),
            "read" => needs("file", Self::Read),
            "show" => Ok(Self::Show),
            "bye" | "exit" | "quit" => Ok(Self::Bye),
            other => Err(format!("/{other} is no command; /help lists them")),
        })
    }
}

/// Settings with one of them changed.
pub(super) fn set(answer: &AnswerSettings, name: &str, value: &str) -> Result<AnswerSettings> {
    let mut answer = answer.clone();
    let sampling = &mut answer.sampling;
    let number = || {
        value
            .parse::<f32>()
            .map_err(|_| Error::Usage(format!("/set {name} {value}: a number works")))
    };
    let whole = || {
        value.parse::<u64>().map_err(|_| {
            Error::Usage(format!("/set {name} {value}: a whole number from 0 on works"))
        })
    };
    match name.replace('-', "_").as_str() {
        "temp" | "temperature" => sampling.temperature = number()?,
        "top_k" => sampling.top_k = u32::try_from(whole()?).unwrap_or(0),
        "top_p" => sampling.top_p = number()?,
        "min_p" => sampling.min_p = number()?,
        "repeat_penalty" => sampling.repeat_penalty = number()?,
        "presence_penalty" => sampling.presence_penalty = number()?,
        "frequency_penalty" => sampling.frequency_penalty = number()?,
        "seed" => sampling.seed = whole()?,
        "n" => answer.tokens = whole()?,
        _ => {
            return Err(Error::Usage(format!(
                "/set {name}: temp, top_k, top_p, min_p, repeat_penalty, presence_penalty, \
                 frequency_penalty, seed and n can be set"
            )));
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::Command;

    #[test]
    fn commands_are_told_from_messages() {
        let some = |line: &str| Command::parse(line).map(|command| command.ok());
        assert_eq!(some("Hello"), None);
        assert_eq!(some("/usr/bin/env is a path"), None);
        assert_eq!(some("/ 2"), None);
        assert_eq!(some("  /bye "), Some(Some(Command::Bye)));
        assert_eq!(some("/exit"), Some(Some(Command::Bye)));
        assert_eq!(some("/?"), Some(Some(Command::Help)));
        assert_eq!(some("/set temp 0.7"), Some(Some(Command::Set("temp".into(), "0.7".into()))));
        let parameter = Some(Some(Command::Set("seed".into(), "4".into())));
        assert_eq!(some("/set parameter seed 4"), parameter);
        assert_eq!(some("/set system Be terse."), Some(Some(Command::System("Be terse.".into()))));
        assert_eq!(some("/think off"), Some(Some(Command::Think(Some(false)))));
        for wrong in ["/system", "/save", "/set", "/set temp", "/think maybe", "/frobnicate"] {
            assert_eq!(some(wrong), Some(None), "{wrong}");
        }
    }
}
