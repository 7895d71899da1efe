//! Answers in OpenAI's shapes: whole, and as the chunks of a stream.
use super::job::{Outcome, Watched};
use brooklet::chat::Said;
use brooklet::session::Ended;
use brooklet::text::Tokenizer;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Of which route an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Text,
}

/// What all objects of one answer begin with.
pub(super) struct Head {
    pub(super) kind: Kind,
    id: String,
    model: String,
    created: u64,
    /// What tokens are written as.
    tokenizer: Arc<Tokenizer>,
    /// What a text begins with before what is generated, where it was asked for.
    echo: Option<String>,
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn reason(ended: Ended) -> &'static str {
    match ended {
        Ended::Length | Ended::CacheFull => "length",
        Ended::EndOfText | Ended::StopText | Ended::Stopped => "stop",
    }
}

impl Head {
    pub(super) fn new(
        kind: Kind,
        model: String,
        echo: Option<String>,
        tokenizer: Arc<Tokenizer>,
    ) -> Self {
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let id = format!("{prefix}-{}", uuid::Uuid::new_v4().simple());
        Self { kind, id, model, created: now(), tokenizer, echo }
    }

    fn object(&self, chunk: bool, choices: Value) -> Value {
        let object = match (self.kind, chunk) {
            (Kind::Chat, true) => "chat.completion.chunk",
            (Kind::Chat, false) => "chat.completion",
            (Kind::Text, _) => "text_completion",
        };
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": concat!("brooklet-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    fn chunk(&self, index: usize, said: Value, finish: Option<&str>) -> Value {
        let mut choice = json!({ "index": index });
        match (self.kind, said) {
            (Kind::Chat, said) => choice["delta"] = said,
            (Kind::Text, said) => choice["text"] = said,
        }
        choice["logprobs"] = Value::Null;
        choice["finish_reason"] = finish.into();
        self.object(true, json!([choice]))
    }

    /// The chunk that a chat begins with, or an echo.
    pub(super) fn first(&self, index: usize) -> Option<Value> {
        let said = match self.kind {
            Kind::Chat => json!({ "role": "assistant", "content": "" }),
            Kind::Text => json!(self.echo.as_ref()?),
        };
        Some(self.chunk(index, said, None))
    }

    pub(super) fn piece(
        &self,
        index: usize,
        Said { text, thought }: &Said,
        watched: &[Watched],
    ) -> Value {
        let said = match (self.kind, thought) {
            (Kind::Chat, false) => json!({ "content": text }),
            (Kind::Chat, true) => json!({ "reasoning_content": text }),
            (Kind::Text, _) => json!(text),
        };
        let mut chunk = self.chunk(index, said, None);
        if !watched.is_empty() {
            chunk["choices"][0]["logprobs"] = self.logprobs(watched);
        }
        chunk
    }

    /// How likely tokens were.
    fn logprobs(&self, watched: &[Watched]) -> Value {
        // What cannot come has a logarithm that JSON does not have.
        let number = |logprob: f64| json!(logprob.max(-9999.0));
        let written = |id: u32| match self.tokenizer.bytes(id) {
            [] => self.tokenizer.piece(id).to_owned(),
            bytes => String::from_utf8_lossy(bytes).into_owned(),
        };
        if self.kind == Kind::Text {
            let top = |(_, logprobs): &Watched| -> Value {
                let all = logprobs.top.iter().map(|&(id, logprob)| (written(id), number(logprob)));
                Value::Object(all.collect())
            };
            return json!({
                "tokens": watched.iter().map(|(id, _)| written(*id)).collect::<Vec<_>>(),
                "token_logprobs": watched.iter().map(|(_, of)| number(of.token)).collect::<Vec<_>>(),
                "top_logprobs": watched.iter().map(top).collect::<Vec<_>>(),
            });
        }
        let told = |id: u32, logprob: f64| json!({ "token": written(id), "logprob": number(logprob), "bytes": self.tokenizer.bytes(id) });
        let content = watched.iter().map(|(id, logprobs)| {
            let mut token = told(*id, logprobs.token);
            token["top_logprobs"] = logprobs.top.iter().map(|&(id, of)| told(id, of)).collect();
            token
        });
        json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
    }

    /// The last chunk of a choice.
    pub(super) fn last(&self, index: usize, outcome: &Outcome) -> Value {
        let nothing = if self.kind == Kind::Chat { json!({}) } else { json!("") };
        let mut chunk = self.chunk(index, nothing, Some(reason(outcome.ended)));
        cost(&mut chunk, outcome);
        chunk
    }

    /// The chunk behind the last, where it is asked for.
    pub(super) fn usage(&self, outcomes: &[Outcome]) -> Value {
        let mut chunk = self.object(true, json!([]));
        chunk["usage"] = usage(outcomes);
        chunk
    }

    /// The whole answer, of choices in order: thoughts and text of each.
    pub(super) fn whole(&self, choices: Vec<Choice>) -> Value {
        let outcomes: Vec<Outcome> = choices.iter().map(|choice| choice.outcome.clone()).collect();
        let shaped = choices.into_iter().enumerate().map(|(index, choice)| {
            let finish = reason(choice.outcome.ended);
            let mut shaped = json!({ "index": index });
            match self.kind {
                Kind::Chat => {
                    shaped["message"] = json!({ "role": "assistant", "content": choice.text });
                    if !choice.thoughts.is_empty() {
                        shaped["message"]["reasoning_content"] = choice.thoughts.into();
                    }
                }
                Kind::Text => {
                    let echo = self.echo.clone().unwrap_or_default();
                    shaped["text"] = (echo + &choice.text).into();
                }
            }
            shaped["logprobs"] = match choice.watched.as_slice() {
                [] => Value::Null,
                watched => self.logprobs(watched),
            };
            shaped["finish_reason"] = finish.into();
            shaped
        });
        let mut object = self.object(false, shaped.collect());
        object["usage"] = usage(&outcomes);
        if let Some(outcome) = outcomes.first() {
            cost(&mut object, outcome);
        }
        object
    }
}

/// An answer that was read to its end.
pub(super) struct Choice {
    pub(super) text: String,
    pub(super) thoughts: String,
    pub(super) watched: Vec<Watched>,
    pub(super) outcome: Outcome,
}

/// Tokens of a prompt are all that come before the answer, also those that are forgotten; cached are those that were not
/// fed again.
fn usage(outcomes: &[Outcome]) -> Value {
    let said: u64 = outcomes.iter().map(|outcome| outcome.generated).sum();
    let (prompt, fed) = outcomes.first().map_or((0, 0), |first| (first.prompt, first.fed));
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        "prompt_tokens_details": { "cached_tokens": prompt.saturating_sub(fed) },
    })
}

/// What an answer took, as llama.cpp's server tells it, and where its stream is.
fn cost(object: &mut Value, outcome: &Outcome) {
    let Outcome {
        prompt,
        fed,
        prompt_ms,
        generated,
        generated_ms,
        position,
        evicted,
        forgotten,
        ..
    } = *outcome;
    let each = |ms: f64, count: u64| if count == 0 { 0.0 } else { ms / count as f64 };
    let rate = |ms: f64, count: u64| if ms > 0.0 { count as f64 * 1e3 / ms } else { 0.0 };
    object["timings"] = json!({
        "cache_n": prompt.saturating_sub(fed),
        "prompt_n": fed,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": each(prompt_ms, fed),
        "prompt_per_second": rate(prompt_ms, fed),
        "predicted_n": generated,
        "predicted_ms": generated_ms,
        "predicted_per_token_ms": each(generated_ms, generated),
        "predicted_per_second": rate(generated_ms, generated),
    });
    object["brooklet"] =
        json!({ "position": position, "evicted": evicted, "forgotten_messages": forgotten });
}
