//! `config.json`: what the model is.
use super::head::Head;
use super::names::Family;
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// No file of settings is longer; a vocabulary with its merges is the longest.
const LONGEST: u64 = 256 << 20;

/// No head is larger in any model.
const MOST_HEAD: u32 = 1 << 16;

/// Reads a file of the folder.
pub(super) fn json(path: &Path) -> Result<Value> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let len = std::fs::metadata(path).map_err(io)?.len();
    let fault = |detail| Error::Format { file: path.display().to_string(), offset: 0, detail };
    if len > LONGEST {
        return Err(fault(format!("{len} bytes are too many for a file of settings")));
    }
    let text = std::fs::read(path).map_err(io)?;
    serde_json::from_slice(&text).map_err(|error| fault(format!("this is no JSON ({error})")))
}

/// What `config.json` says.
pub(super) struct Settings {
    file: String,
    json: Value,
}

impl Settings {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        if !path.is_file() {
            let advice = "this is a directory; name the .gguf file inside it, or a folder that has config.json, \
                          tokenizer.json and *.safetensors";
            let source = std::io::Error::new(std::io::ErrorKind::IsADirectory, advice);
            return Err(Error::Io { path: folder.display().to_string(), source });
        }
        let settings = Self { file: path.display().to_string(), json: json(&path)? };
        if settings.get("quantization_config").is_some() {
            return Err(settings.fault(
                "quantization_config: the weights are quantised already, in a way that cannot be read; get the model \
                 without, or as a GGUF file",
            ));
        }
        if settings.json.get("use_sliding_window") == Some(&Value::Bool(true)) {
            return Err(settings
                .fault("use_sliding_window: layers with a window cannot be read from a folder"));
        }
        match settings.str("hidden_act") {
            None | Some("silu") => Ok(settings),
            Some(other) => Err(settings.fault(&format!("hidden_act is {other:?}; silu would do"))),
        }
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    fn fault(&self, what: &str) -> Error {
        Error::Unsupported(format!("{}: {what}", self.file))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.json.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn str(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    pub(super) fn u32(&self, name: &str) -> Option<u32> {
        self.get(name)?.as_u64()?.try_into().ok()
    }

    fn need_u32(&self, name: &str) -> Result<u32> {
        self.u32(name).filter(|&value| value > 0).ok_or_else(|| {
            self.fault(&format!(
                "{name} is {}, and should be a number",
                self.get(name).unwrap_or(&Value::Null)
            ))
        })
    }

    pub(super) fn heads(&self) -> u64 {
        self.u32("num_attention_heads").unwrap_or(0).into()
    }

    pub(super) fn kv_heads(&self) -> u64 {
        self.u32("num_key_value_heads").map_or(self.heads(), u64::from)
    }

    pub(super) fn is_tied(&self) -> bool {
        self.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false)
    }

    /// What rope needs: transformers 5 has it all in one place, those before it in two.
    fn rope(&self, name: &str) -> Option<&Value> {
        let own = ["rope_parameters", "rope_scaling"].into_iter().filter_map(|of| self.get(of));
        own.filter_map(|rope| rope.get(name)).find(|value| !value.is_null())
    }

    fn rope_type(&self) -> &str {
        let kind = self.rope("rope_type").or(self.rope("type")).and_then(Value::as_str);
        kind.unwrap_or("default")
    }

    fn rope_f64(&self, name: &str) -> Option<f64> {
        self.rope(name)?.as_f64()
    }

    fn head_dim(&self) -> Result<u32> {
        let size = match self.u32("head_dim") {
            Some(size) => size,
            None => self.need_u32("hidden_size")? / self.need_u32("num_attention_heads")?,
        };
        match size {
            1..=MOST_HEAD => Ok(size),
            _ => Err(self.fault(&format!("heads of {size} dimensions; 1 to {MOST_HEAD} would do"))),
        }
    }

    fn rope_base(&self) -> f64 {
        let base = self.rope_f64("rope_theta");
        base.or_else(|| self.get("rope_theta")?.as_f64()).unwrap_or(10_000.0)
    }

    /// Llama 3's way of scaling: what each frequency is divided by.
    pub(super) fn rope_factors(&self) -> Result<Option<Vec<f32>>> {
        if self.rope_type() != "llama3" {
            return Ok(None);
        }
        let value = |name: &str| {
            self.rope_f64(name).ok_or_else(|| self.fault(&format!("rope_scaling has no {name}")))
        };
        let (factor, low, high) =
            (value("factor")?, value("low_freq_factor")?, value("high_freq_factor")?);
        let (old, size) = (value("original_max_position_embeddings")?, self.head_dim()?);
        let factor_of = |i: u32| {
            let wavelength =
                std::f64::consts::TAU * self.rope_base().powf(f64::from(2 * i) / f64::from(size));
            if wavelength < old / high {
                1.0
            } else if wavelength > old / low {
                factor
            } else {
                let smooth = (old / wavelength - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        };
        Ok(Some((0..size / 2).map(|i| factor_of(i) as f32).collect()))
    }

    /// The keys of the architecture.
    pub(super) fn write(&self, family: &Family, folder: &Path, head: &mut Head) -> Result<()> {
        let key = |name: &str| format!("{}.{name}", family.name);
        head.key_str("general.architecture", family.name);
        head.key_str("general.type", "model");
        let named = std::path::absolute(folder).unwrap_or(folder.to_owned());
        head.key_str("general.name", &named.file_name().unwrap_or_default().to_string_lossy());
        for (name, from) in [
            ("block_count", "num_hidden_layers"),
            ("context_length", "max_position_embeddings"),
            ("embedding_length", "hidden_size"),
            ("feed_forward_length", "intermediate_size"),
            ("attention.head_count", "num_attention_heads"),
            ("vocab_size", "vocab_size"),
        ] {
            head.key_u32(&key(name), self.need_u32(from)?);
        }
        head.key_u32(&key("attention.head_count_kv"), self.kv_heads() as u32);
        let size = self.head_dim()?;
        for name in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
            head.key_u32(&key(name), size);
        }
        let eps = self.get("rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6);
        head.key_f32(&key("attention.layer_norm_rms_epsilon"), eps as f32);
        head.key_f32(&key("rope.freq_base"), self.rope_base() as f32);
        match self.rope_type() {
            "default" | "llama3" => {}
            kind @ ("linear" | "yarn") => {
                let need = |name: &str| {
                    self.rope_f64(name)
                        .ok_or_else(|| self.fault(&format!("rope_scaling has no {name}")))
                };
                head.key_str(&key("rope.scaling.type"), kind);
                head.key_f32(&key("rope.scaling.factor"), need("factor")? as f32);
                if kind == "yarn" {
                    let old = need("original_max_position_embeddings")?;
                    head.key_u32(&key("rope.scaling.original_context_length"), old as u32);
                }
            }
            other => {
                return Err(self.fault(&format!(
                    "rope of the type {other:?} cannot be read from a folder; default, llama3, linear and yarn can"
                )));
            }
        }
        Ok(())
    }
}
