//! What a request asks for, whichever route it took: how the answer is made, and what is refused.
use super::fields::{Fields, shown};
use super::problem::Problem;
use brooklet::chat::AnswerSettings;
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

fn is_text(value: &Value) -> bool {
    value.get("type").and_then(Value::as_str) == Some("text")
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

/// What a mask or other logits are needed for.
const CONSTRAINTS: [Refused; 7] = [
    ("response_format", is_text),
    ("grammar", nothing),
    ("json_schema", nothing),
    ("logprobs", nothing),
    ("top_logprobs", nothing),
    ("logit_bias", nothing),
    ("min_tokens", nothing),
];

const REFUSED: [Refused; 18] = [
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
        for (name, harmless) in CONSTRAINTS.iter().chain(&REFUSED) {
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
