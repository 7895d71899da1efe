//! How a token is chosen, as the user says it.
use brooklet::format::Gguf;
use brooklet::text::SamplerSettings;
use clap::Args;
use std::str::FromStr;

#[derive(Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Spread of the choice; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    temp: f32,
    /// Choose among the K likeliest tokens; 0 among all
    #[arg(long, value_name = "K", default_value_t = 40, allow_negative_numbers = true)]
    top_k: u32,
    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true)]
    top_p: f32,
    /// Drop tokens less likely than this share of the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.05, allow_negative_numbers = true)]
    min_p: f32,
    /// Divide the logits of recent tokens by this; 1 is off
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    repeat_penalty: f32,
    /// Subtract this from the logits of recent tokens
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Subtract this once for each time a token was among the recent ones
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Tokens that count as recent for the penalties; -1: as many as sinks and window hold
    #[arg(long, value_name = "N", default_value = "64", allow_negative_numbers = true,
        value_parser = OrElse::<u32>::parse)]
    repeat_last_n: OrElse<u32>,
    /// Add B to the logit of token ID, as 9+2.5 or 9-1; -100 or less bans it. Several times for several
    #[arg(long, value_name = "ID+B", value_parser = bias, allow_hyphen_values = true)]
    logit_bias: Vec<(u32, f32)>,
    /// The same seed gives the same text; -1: another each time, and the statistics name it
    #[arg(long, default_value = "-1", allow_negative_numbers = true, value_parser = OrElse::<u64>::parse)]
    seed: OrElse<u64>,
}

/// A number, or -1 for what is usual where that has a meaning of its own, as other engines have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrElse<N>(Option<N>);

impl<N: FromStr> OrElse<N> {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "-1" => Ok(Self(None)),
            text => text
                .parse()
                .map(|n| Self(Some(n)))
                .map_err(|_| "-1, or a whole number from 0 on, works".into()),
        }
    }

    pub(crate) fn or_else(self, usual: impl FnOnce() -> N) -> N {
        self.0.unwrap_or_else(usual)
    }
}

impl SamplingArgs {
    /// For a stream of which sinks and window hold `all` tokens.
    pub(crate) fn settings(&self, all: usize) -> SamplerSettings {
        let all = all.min(SamplerSettings::MOST_RECENT as usize) as u32;
        SamplerSettings {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            penalty_last_n: self.repeat_last_n.or_else(|| all),
            seed: self.seed.or_else(fresh_seed),
            bias: self.logit_bias.clone(),
        }
    }
}

impl SamplingArgs {
    /// As the user says, else as the model's file does, else as usual. `given` are the options that were given.
    pub(crate) fn suggested_by(
        &self,
        gguf: &Gguf,
        given: &[String],
        all: usize,
    ) -> brooklet::Result<SamplerSettings> {
        let own = self.settings(all);
        let mut sampling = own.clone().suggested_by(gguf)?;
        let said = |id: &str| given.iter().any(|given| given == id);
        let own_or = |id, own, suggested| if said(id) { own } else { suggested };
        sampling.temperature = own_or("temp", own.temperature, sampling.temperature);
        sampling.top_k = if said("top_k") { own.top_k } else { sampling.top_k };
        sampling.top_p = own_or("top_p", own.top_p, sampling.top_p);
        sampling.min_p = own_or("min_p", own.min_p, sampling.min_p);
        let penalty = own_or("repeat_penalty", own.repeat_penalty, sampling.repeat_penalty);
        sampling.repeat_penalty = penalty;
        sampling.check()?;
        Ok(sampling)
    }
}

/// A token and its bias, as llama.cpp has them: `9+2.5`, `9-1`, `9-inf`.
fn bias(text: &str) -> Result<(u32, f32), String> {
    let sign = text.find(['+', '-']).unwrap_or(text.len());
    let (id, value) = text.split_at(sign);
    match (id.parse(), value.parse()) {
        (Ok(id), Ok(value)) => Ok((id, value)),
        _ => Err("a token's id and what is added to its logit work, as 9+2.5 or 9-100".into()),
    }
}

/// A seed from the hasher keys that the standard library draws from the system.
pub(crate) fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) >> 32
}

/// A setting of the library as the command line has it: `--top-k`.
pub(crate) fn flag(setting: &str) -> String {
    let name = match setting {
        "temperature" => "temp",
        "penalty_last_n" => "repeat-last-n",
        other => other,
    };
    format!("--{}", name.replace('_', "-"))
}
