//! What a request asks for, whichever route it took: how the answer is made, and what is refused.
use super::fields::{Fields, shown};
use super::problem::Problem;
use brooklet::chat::AnswerSettings;
use brooklet::grammar::Grammar;
use serde_json::Value;

/// What of a request is the same for messages and for a text.
#[derive(Debug)]
pub(super) struct Ask {
    /// As the client calls it; any name works.
    pub(super) model: Option<String>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// How many answers.
    pub(super) n: u64,
    /// How each is made, but for its seed.
    pub(super) answer: AnswerSettings,
    pub(super) seed: Option<u64>,
    /// Whether what a stream holds already may be used.
    pub(super) cache: bool,
    /// What each is held to, and the field that says so.
    pub(super) grammar: Option<(&'static str, Grammar)>,
    /// Of how many of the likeliest tokens is told how likely they were, beside the chosen ones.
    pub(super) watch: Option<usize>,
}

/// A field that would change the answer and is not done, and when it says nothing.
type Refused = (&'static str, fn(&Value) -> bool);

fn nothing(value: &Value) -> bool {
    match value {
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Null => true,
    }
}

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

fn calls_none(value: &Value) -> bool {
    matches!(value.as_str(), Some("none" | "auto"))
}

fn text_alone(value: &Value) -> bool {
    value.as_array().is_some_and(|all| all.iter().all(|one| one == "text"))
}

const REFUSED: [Refused; 19] = [
    ("min_tokens", nothing),
    ("tools", nothing),
    ("tool_choice", calls_none),
    ("functions", nothing),
    ("function_call", calls_none),
    ("audio", nothing),
    ("modalities", text_alone),
    ("web_search_options", |_| false),
    ("suffix", nothing),
    ("best_of", is_one),
    ("ignore_eos", nothing),
    ("continue_final_message", nothing),
    ("add_generation_prompt", |value| value == true),
    ("mirostat", nothing),
    ("xtc_probability", nothing),
    ("dry_multiplier", nothing),
    ("dynatemp_range", nothing),
    ("typical_p", is_one),
    ("top_n_sigma", |value| value.as_f64().is_some_and(|number| number <= 0.0)),
];

impl Ask {
    /// `usual` is how an answer is made where the request says nothing, `streams` how many there can be at a time.
    pub(super) fn read(
        fields: &Fields,
        usual: &AnswerSettings,
        streams: u64,
    ) -> Result<Self, Problem> {
        for (name, harmless) in &REFUSED {
            if let Some(value) = fields.get(name).filter(|value| !harmless(value)) {
                let why = format!(
                    "{}: this is not supported, and would change the answer; leave it out",
                    shown(value)
                );
                return Err(Problem::field(*name, why).coded("unsupported_parameter"));
            }
        }
        let n = fields.whole("n")?.unwrap_or(1);
        if !(1..=streams).contains(&n) {
            return Err(Problem::field(
                "n",
                format!("{n}; 1 to {streams} works, as many as there are streams"),
            ));
        }
        let options = fields.object("stream_options")?;
        let usage = options.map(|options| options.flag("include_usage")).transpose()?.flatten();
        Ok(Self {
            model: fields.text("model")?.map(str::to_owned),
            stream: fields.flag("stream")?.unwrap_or(false),
            include_usage: usage.unwrap_or(false),
            n,
            answer: answer(fields, usual)?,
            // Some clients send numbers below 0.
            seed: fields.get("seed").map(seed_of).transpose()?.flatten(),
            cache: fields.flag("cache_prompt")?.unwrap_or(true),
            grammar: grammar(fields)?,
            watch: watch(fields)?,
        })
    }
}

fn seed_of(value: &Value) -> Result<Option<u64>, Problem> {
    match (value.as_u64(), value.as_i64()) {
        (Some(seed), _) => Ok(Some(seed)),
        (_, Some(-1)) => Ok(None),
        (_, Some(seed)) => Ok(Some(seed.unsigned_abs())),
        _ => Err(Problem::field("seed", format!("{}; a whole number is wanted", shown(value)))),
    }
}

fn answer(fields: &Fields, usual: &AnswerSettings) -> Result<AnswerSettings, Problem> {
    let mut sampling = usual.sampling.clone();
    let number = |name, usual: &mut f32| -> Result<(), Problem> {
        *usual = fields.number(name)?.unwrap_or(*usual);
        Ok(())
    };
    number("temperature", &mut sampling.temperature)?;
    number("top_p", &mut sampling.top_p)?;
    number("min_p", &mut sampling.min_p)?;
    number("presence_penalty", &mut sampling.presence_penalty)?;
    number("frequency_penalty", &mut sampling.frequency_penalty)?;
    number("repetition_penalty", &mut sampling.repeat_penalty)?;
    number("repeat_penalty", &mut sampling.repeat_penalty)?;
    let small = |name| -> Result<Option<u32>, Problem> {
        Ok(fields.whole_or_all(name)?.map(|n| u32::try_from(n).unwrap_or(u32::MAX)))
    };
    // -1 is all of them, as 0 is.
    sampling.top_k =
        small("top_k")?.unwrap_or(if fields.get("top_k").is_some() { 0 } else { sampling.top_k });
    sampling.penalty_last_n = small("repeat_last_n")?.unwrap_or(sampling.penalty_last_n);
    sampling.bias = bias(fields)?.unwrap_or(sampling.bias);
    sampling.check()?;
    let mut tokens = None;
    for name in ["max_completion_tokens", "max_tokens", "n_predict"] {
        tokens = if tokens.is_some() { tokens } else { fields.whole_or_all(name)? };
    }
    if tokens == Some(0) {
        return Err(Problem::field("max_tokens", "0; an answer has one token at least"));
    }
    let tokens = tokens.unwrap_or(usual.tokens);
    Ok(AnswerSettings { sampling, tokens, stop: stops(fields)?, pace: usual.pace })
}

fn stops(fields: &Fields) -> Result<Vec<String>, Problem> {
    const MOST: usize = 16;
    let wrong = |found: &Value| {
        Problem::field("stop", format!("{}; a text is wanted, or a list of texts", shown(found)))
    };
    let stops: Vec<String> = match fields.get("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) => {
            let text = |stop: &Value| stop.as_str().map(str::to_owned).ok_or_else(|| wrong(stop));
            stops.iter().map(text).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong(other)),
    };
    if stops.len() > MOST || stops.iter().any(|stop| stop.len() > 1024) {
        return Err(Problem::field("stop", format!("{MOST} texts of 1024 bytes are the most")));
    }
    Ok(stops.into_iter().filter(|stop| !stop.is_empty()).collect())
}

/// What the answer is held to, as OpenAI's clients say it, or llama.cpp's.
fn grammar(fields: &Fields) -> Result<Option<(&'static str, Grammar)>, Problem> {
    let format = fields.object("response_format")?;
    let kind = format.as_ref().map(|format| format.text("type")).transpose()?.flatten();
    let (name, grammar) = match (kind, &format) {
        (Some("json_object"), _) => ("response_format", Grammar::json_object()),
        (Some("json_schema"), Some(format)) => {
            let named = format.object("json_schema")?;
            let schema = named.as_ref().and_then(|named| named.get("schema")).cloned();
            let wanted = "json_schema.schema is wanted: a JSON schema";
            let schema = schema.ok_or_else(|| Problem::field("response_format", wanted))?;
            ("response_format", Grammar::json_schema_value(schema))
        }
        (Some("text"), _) | (None, None) => {
            match (fields.get("json_schema"), fields.text("grammar")?) {
                (Some(schema), _) => ("json_schema", Grammar::json_schema_value(schema.clone())),
                (None, Some(rules)) if rules.contains("::=") => {
                    let why = "this is GBNF; grammars are written as Lark's are here: start: \"yes\" | \"no\"";
                    return Err(Problem::field("grammar", why));
                }
                (None, Some(rules)) if !rules.is_empty() => ("grammar", Grammar::lark(rules)),
                _ => return Ok(None),
            }
        }
        (other, _) => {
            let why = format!("type {other:?}; text, json_object and json_schema work");
            return Err(Problem::field("response_format", why));
        }
    };
    let grammar = grammar.map_err(|error| Problem::field(name, error.to_string()))?;
    Ok(Some((name, grammar)))
}

/// How many of the likeliest tokens are told: a number for texts, a flag and a number for messages.
fn watch(fields: &Fields) -> Result<Option<usize>, Problem> {
    const MOST: u64 = 20;
    let top = |name| match fields.whole(name)? {
        Some(top) if top > MOST => Err(Problem::field(name, format!("{top}; {MOST} is the most"))),
        top => Ok(top),
    };
    let watch = match fields.get("logprobs") {
        Some(Value::Number(_)) => top("logprobs")?,
        _ => match fields.flag("logprobs")?.unwrap_or(false) {
            true => Some(top("top_logprobs")?.unwrap_or(0)),
            false => match top("top_logprobs")? {
                Some(1..) => {
                    return Err(Problem::field(
                        "top_logprobs",
                        "logprobs: true is wanted beside it",
                    ));
                }
                _ => None,
            },
        },
    };
    Ok(watch.map(|top| top as usize))
}

/// What is added to the logits of tokens, by their ids.
fn bias(fields: &Fields) -> Result<Option<Vec<(u32, f32)>>, Problem> {
    let Some(biases) = fields.object("logit_bias")? else { return Ok(None) };
    let wrong = |name: &str| {
        Problem::field("logit_bias", format!("{name}: an id, and a number from -100 to 100"))
    };
    let bias = |name: &str| {
        let value =
            biases.number(name).ok().flatten().filter(|value| (-100.0..=100.0).contains(value));
        name.parse().ok().zip(value).ok_or_else(|| wrong(name))
    };
    biases.names().map(bias).collect::<Result<_, _>>().map(Some)
}
