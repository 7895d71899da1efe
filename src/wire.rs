//! What a program says to a stream and is told of it, in JSON: the same words in the package for JavaScript and over the
//! server's socket. `web/js/index.d.ts` has them as types.
use crate::chat::AnswerSettings;
use crate::format::{Gguf, TensorInfo};
use crate::model::{Config, KvType, Policy};
use crate::ops::ActivationType;
use crate::session::{Ended, Pace, Session};
use crate::text::SamplerSettings;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `CacheOptions` of the package. What is left out is usual.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CacheOptions {
    /// Which tokens a query may look back on.
    pub policy: Option<Policy>,
    /// First tokens kept for ever.
    pub sinks: Option<usize>,
    /// Recent tokens seen, the current one included.
    pub window: Option<usize>,
    /// Tokens of a prompt that one pass takes.
    pub chunk: Option<usize>,
    /// How keys and values are stored.
    pub kv: Option<KvType>,
    /// How products of one token take their activations.
    pub activations: Option<ActivationType>,
}

/// `StreamOptions` of the package, less what JavaScript sees to itself. What is left out is usual.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamOptions {
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: u64,
    /// How far the device works ahead.
    #[serde(default)]
    pub pace: Pace,
    /// Texts that end the stream.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Whether the model may end it.
    #[serde(default)]
    pub stop_at_eos: bool,
    /// The most tokens.
    pub max_tokens: Option<u64>,
}

impl StreamOptions {
    /// How tokens are chosen, with `default` for what is left out.
    pub fn sampler(&self, default: SamplerSettings) -> SamplerSettings {
        SamplerSettings {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(default.repeat_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            seed: self.seed,
            ..default
        }
    }

    /// How an answer is made, for which a model's file suggests how to choose its tokens.
    pub fn answer(self, suggested: &SamplerSettings) -> AnswerSettings {
        let sampling = self.sampler(suggested.clone());
        let tokens = self.max_tokens.unwrap_or(u64::MAX);
        AnswerSettings { sampling, tokens, stop: self.stop, pace: self.pace }
    }
}

/// What a file says of its model.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelInfo {
    name: String,
    architecture: String,
    kinds: String,
    bytes: u64,
    parameters: u64,
    quantization: String,
    n_ctx: usize,
    n_vocab: usize,
    n_layer: usize,
    n_embd: usize,
}

impl ModelInfo {
    /// Of a file of so many bytes.
    pub fn new(gguf: &Gguf, config: &Config, bytes: u64) -> Result<Self> {
        let count = |tensor: &TensorInfo| tensor.rows() * tensor.cols();
        let largest = gguf.tensors.iter().max_by_key(|tensor| {
            let same = gguf.tensors.iter().filter(|other| other.type_id == tensor.type_id);
            same.map(count).sum::<u64>()
        });
        Ok(Self {
            name: gguf.str("general.name")?.unwrap_or(gguf.file()).to_owned(),
            architecture: gguf.need_str("general.architecture")?.to_owned(),
            kinds: config.kinds(),
            bytes,
            parameters: gguf.tensors.iter().map(count).sum(),
            quantization: largest.map_or_else(String::new, TensorInfo::type_text),
            n_ctx: config.n_ctx,
            n_vocab: config.n_vocab,
            n_layer: config.n_layer,
            n_embd: config.n_embd,
        })
    }
}

/// What is loaded, where, and how large: `Info` of the package. `sampling` is what answers are made with where nobody says
/// otherwise, `template` whether there is one for conversations.
pub fn info(
    session: &Session,
    model: &ModelInfo,
    sampling: &SamplerSettings,
    template: bool,
) -> Value {
    let (loaded, gpu) = (session.model(), &session.model().gpu);
    let (settings, ring) = (session.cache().settings(), session.cache().geometry());
    let tier = &gpu.tier;
    json!({
        "model": model,
        "chat": { "template": template },
        "sampling": {
            "temperature": sampling.temperature,
            "topK": sampling.top_k,
            "topP": sampling.top_p,
            "minP": sampling.min_p,
            "repeatPenalty": sampling.repeat_penalty,
        },
        "adapter": { "name": gpu.name, "backend": gpu.backend, "driver": gpu.driver },
        "kernels": loaded.variant,
        "tier": {
            "f16": tier.f16,
            "subgroups": tier.subgroups,
            "subgroupSize": tier.subgroup_size,
            "timestamps": tier.timestamps,
            "cpu": tier.cpu,
        },
        "limits": {
            "maxBinding": tier.max_binding,
            "maxBuffer": tier.max_buffer,
            "workgroupMemory": tier.workgroup_memory,
        },
        "cache": {
            "policy": session.policy(),
            "sinks": ring.sinks,
            "window": ring.window,
            "ring": ring.slots,
            "chunk": settings.chunk,
            "kv": settings.kv,
            "activations": settings.activations,
        },
        "bytes": {
            "weights": loaded.bytes(),
            "kv": session.cache().bytes(),
            "activations": session.activation_bytes(),
            "gpu": gpu.counters.held(),
        },
    })
}

/// Why a text has ended, as `StopReason` of the package.
pub fn reason(ended: Ended) -> &'static str {
    match ended {
        Ended::EndOfText => "end of text",
        Ended::StopText => "stop",
        Ended::Length => "length",
        Ended::CacheFull => "cache full",
        Ended::Stopped => "stopped",
    }
}

/// `ErrorCode` of the package.
pub fn code(error: &Error) -> &'static str {
    match error {
        Error::NoAdapter(_) | Error::NoDevice(_) => "no-adapter",
        Error::DeviceLost(_) => "device-lost",
        Error::OutOfMemory { .. } | Error::NoRoom { .. } => "out-of-memory",
        Error::Format { .. } | Error::Tokenizer(_) | Error::Template(_) | Error::NotNumbers(_) => {
            "bad-model"
        }
        Error::Unsupported(_) => "unsupported",
        Error::Usage(_) | Error::Setting { .. } | Error::Grammar(_) => "bad-option",
        Error::Io { .. } | Error::Fetch { .. } => "network",
        _ => "internal",
    }
}

/// A setting of the library as an option of the package is called: `top_k` is `topK`.
pub fn option(setting: &str) -> String {
    if setting == "chat_template" {
        return "template".to_owned();
    }
    let mut words = setting.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, others) = word.split_at(word.len().min(1));
        name + &initial.to_uppercase() + others
    })
}

#[cfg(test)]
mod tests {
    use super::{code, option};
    use crate::Error;

    #[test]
    fn settings_are_spelt_as_in_javascript() {
        for (setting, expected) in [
            ("window", "window"),
            ("top_k", "topK"),
            ("penalty_last_n", "penaltyLastN"),
            ("chat_template", "template"),
        ] {
            assert_eq!(option(setting), expected);
        }
        let works = "0 to 1 works".to_owned();
        let wrong = Error::Setting { which: "min_p", found: "2".into(), works };
        assert_eq!(
            (code(&wrong), &wrong.worded(option)[..]),
            ("bad-option", "minP 2: 0 to 1 works")
        );
        let tries = vec![("window", "9".to_owned()), ("kv", "f16".to_owned())];
        let large = Error::NoRoom { what: "a cache".into(), needed: 7, tries };
        let message = "out of GPU memory: a cache needs 7 bytes; try window 9 or kv f16";
        assert_eq!((code(&large), &large.worded(option)[..]), ("out-of-memory", message));
    }
}
