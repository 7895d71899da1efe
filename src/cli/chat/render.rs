//! What a template makes of a conversation. Needs no GPU.
use super::ChatArgs;
use crate::cli::model::{File, read_input};
use crate::cli::output::Output;
use brooklet::chat::encoded;
use brooklet::text::{Conversation, Json, Renderer};
use brooklet::{Error, Result};
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct RenderArgs {
    /// Print what the template makes of a conversation in OpenAI's form, a list of messages, and end; - reads it
    /// from standard input
    #[arg(long, value_name = "MESSAGES.json")]
    render: Option<PathBuf>,
    /// With --render: end behind the last message, not where an answer would begin
    #[arg(long, requires = "render")]
    no_generation_prompt: bool,
}

impl RenderArgs {
    /// False where it was not asked for.
    pub(super) fn run(&self, file: &File, args: &ChatArgs) -> Result<bool> {
        let Some(path) = &self.render else { return Ok(false) };
        let name = match path.as_os_str() == "-" {
            true => "standard input".to_owned(),
            false => path.display().to_string(),
        };
        let given = Json::parse(&name, &read_input(path)?)?;
        // A whole request has them in a field.
        let messages = given.field("messages").unwrap_or_else(|| given.clone());
        let tools = args.tools.read()?.or_else(|| given.field("tools"));
        if !messages.is_list() {
            return Err(Error::Usage(format!(
                "{name}: a list of messages works: [{{\"role\": \"user\", \"content\": \"…\"}}]"
            )));
        }
        let template = args.template.template(file)?;
        let generation_prompt = !self.no_generation_prompt;
        let of = |messages| Conversation {
            messages,
            tools: tools.clone(),
            generation_prompt,
            settings: None,
        };
        let render = |messages| template.render(&of(messages).marked(&file.tokenizer));
        // Clients send the arguments of calls as a text of JSON; most templates want what it says.
        let text = match messages.with_arguments() {
            Some(objects) => render(objects).or_else(|_| render(messages))?,
            None => render(messages)?,
        };
        let mut output = Output::new();
        if !args.json {
            output.text(&Conversation::shown(&text))?;
            return Ok(true);
        }
        let ids = encoded(&file.tokenizer, &text)?;
        let pieces: Vec<_> = ids.iter().map(|&id| file.tokenizer.piece(id)).collect();
        let text = Conversation::shown(&text);
        output.json(&serde_json::json!({ "text": text, "ids": ids, "pieces": pieces }))?;
        Ok(true)
    }
}
