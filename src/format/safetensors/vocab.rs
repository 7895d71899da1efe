//! `tokenizer.json` and `tokenizer_config.json`: the vocabulary.
use super::config::{Settings, json};
use super::head::Head;
use crate::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// No vocabulary is larger in any model.
const MOST_TOKENS: usize = 1 << 22;

// Types of tokens, as GGUF numbers them.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// How text is split first, and what llama.cpp calls that. All are followed by bytes as letters.
const SPLITS: [(&str, &str); 2] = [
    (
        "llama-bpe",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        "qwen2",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];

/// Writes the keys of the vocabulary.
pub(super) fn write(folder: &Path, settings: &Settings, head: &mut Head) -> Result<()> {
    let path = folder.join("tokenizer.json");
    let fault = |what: &str| Error::Tokenizer(format!("{}: {what}", path.display()));
    if !path.is_file() {
        return Err(fault(
            "there is no such file; transformers makes it of older kinds: \
             AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        ));
    }
    let file = json(&path)?;
    let model = &file["model"];
    match model["type"].as_str() {
        // Older files do not say.
        Some("BPE") | None if model["merges"].is_array() => {}
        other => {
            let what = format!("a vocabulary of the type {other:?} cannot be read; BPE can");
            return Err(fault(&what));
        }
    }
    let pieces = model["byte_fallback"].as_bool().unwrap_or(false);
    let (tokens, types) = tokens(&file, settings, pieces).map_err(|what| fault(&what))?;
    let find = |token: &str| tokens.iter().position(|one| one == token).map(|id| id as u32);
    let merges = merges(model);
    if pieces {
        head.key_str("tokenizer.ggml.model", "llama");
        head.key_str("tokenizer.ggml.pre", "default");
        head.key_f32s("tokenizer.ggml.scores", &scores(&tokens, &merges));
        head.key_bool("tokenizer.ggml.add_space_prefix", has_space_prefix(&file));
    } else {
        head.key_str("tokenizer.ggml.model", "gpt2");
        head.key_str("tokenizer.ggml.pre", pre(&file).map_err(|what| fault(&what))?);
        let joined: Vec<_> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        head.key_strings("tokenizer.ggml.merges", &joined);
    }
    head.key_strings("tokenizer.ggml.tokens", &tokens);
    head.key_i32s("tokenizer.ggml.token_type", &types);
    let path = folder.join("tokenizer_config.json");
    let config = if path.is_file() { json(&path)? } else { Value::Null };
    for (name, key) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")] {
        let named = &config[format!("{name}_token")];
        let named = named.as_str().or(named["content"].as_str()).and_then(find);
        let numbered = settings.get(&format!("{name}_token_id"));
        // Several may end a text: the first, and the others by their names.
        let numbered = numbered.and_then(|id| id.as_u64().or(id.get(0)?.as_u64()));
        if let Some(id) = named.or(numbered.and_then(|id| id.try_into().ok())) {
            head.key_u32(&format!("tokenizer.ggml.{key}_token_id"), id);
        }
    }
    let first = file["post_processor"].to_string();
    let begins = config["add_bos_token"].as_bool().unwrap_or_else(|| {
        let bos = config["bos_token"].as_str().or(config["bos_token"]["content"].as_str());
        bos.is_some_and(|bos| first.contains("SpecialToken") && first.contains(bos))
    });
    head.key_bool("tokenizer.ggml.add_bos_token", begins);
    if let Some(template) = template(folder, &config) {
        head.key_str("tokenizer.chat_template", &template);
    }
    Ok(())
}

/// The pairs that are merged, in order: older files have each as one text.
fn merges(model: &Value) -> Vec<(&str, &str)> {
    let each = model["merges"].as_array().into_iter().flatten();
    each.filter_map(|merge| match merge {
        Value::String(merge) => merge.split_once(' '),
        pair => Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)),
    })
    .collect()
}

/// SentencePiece merges the pair whose token has the best score: the one that comes first here.
fn scores(tokens: &[String], merges: &[(&str, &str)]) -> Vec<f32> {
    let mut ranks = HashMap::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let score = |(id, token)| -(*ranks.get(token).unwrap_or(&(merges.len() + id)) as f32);
    tokens.iter().enumerate().map(score).collect()
}

/// The token of each id, and its type.
fn tokens(
    file: &Value,
    settings: &Settings,
    pieces: bool,
) -> Result<(Vec<String>, Vec<i32>), String> {
    let vocab = file["model"]["vocab"].as_object().ok_or("there is no model.vocab")?;
    let entry =
        |(token, id): (&String, &Value)| Some((id.as_u64()? as usize, token.clone(), NORMAL));
    let mut all: Vec<_> = vocab.iter().filter_map(entry).collect();
    for added in file["added_tokens"].as_array().into_iter().flatten() {
        let (Some(id), Some(token)) = (added["id"].as_u64(), added["content"].as_str()) else {
            continue;
        };
        let kind = if added["special"].as_bool() == Some(true) { CONTROL } else { USER_DEFINED };
        all.push((id as usize, token.to_owned(), kind));
    }
    let count = settings.u32("vocab_size").unwrap_or(0) as usize;
    if count > MOST_TOKENS {
        return Err(format!("a vocabulary of {count} tokens (config.json)"));
    }
    if let Some((id, token, _)) = all.iter().find(|(id, ..)| *id >= count) {
        return Err(format!(
            "the token {token:?} has the id {id}, of a vocabulary of {count} (config.json)"
        ));
    }
    let mut tokens: Vec<_> = (0..count).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![UNUSED; count];
    let unknown = file["model"]["unk_token"].as_str();
    for (id, token, kind) in all {
        types[id] = match kind {
            _ if unknown == Some(&token) && pieces => UNKNOWN,
            NORMAL if pieces && is_byte(&token) => BYTE,
            kind => kind,
        };
        tokens[id] = token;
    }
    Ok((tokens, types))
}

/// Whether this stands for a byte: `<0x0A>`.
fn is_byte(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
}

/// The steps of a part of the file that may be one or a sequence.
fn steps<'a>(part: &'a Value, of: &str) -> Vec<&'a Value> {
    match part[of].as_array() {
        Some(steps) => steps.iter().collect(),
        None if part.is_null() => Vec::new(),
        None => vec![part],
    }
}

fn has_space_prefix(file: &Value) -> bool {
    let normalizers = steps(&file["normalizer"], "normalizers");
    let prepends = normalizers.iter().any(|step| step["type"] == "Prepend");
    let meta = steps(&file["pre_tokenizer"], "pretokenizers");
    prepends
        || meta.iter().any(|step| step["type"] == "Metaspace" && step["prepend_scheme"] != "never")
}

/// llama.cpp's name for how text is split first.
fn pre(file: &Value) -> Result<&'static str, String> {
    let steps = steps(&file["pre_tokenizer"], "pretokenizers");
    let kinds: Vec<_> =
        steps.iter().map(|step| step["type"].as_str().unwrap_or_default()).collect();
    let by_itself = steps.last().is_some_and(|step| step["use_regex"].as_bool() != Some(false));
    let split = || {
        let pattern = &steps[0]["pattern"];
        pattern["Regex"].as_str().or(pattern["String"].as_str()).unwrap_or_default()
    };
    if steps.iter().any(|step| step["type"] == "ByteLevel" && step["add_prefix_space"] == true) {
        return Err("a space is put before every text, which GGUF files do not know of".to_owned());
    }
    let whole = file["model"]["ignore_merges"].as_bool() == Some(true);
    match kinds[..] {
        ["ByteLevel"] if by_itself => Ok("gpt-2"),
        ["Digits", "ByteLevel"] if by_itself && steps[0]["individual_digits"] == true => {
            Ok("smollm")
        }
        ["Split", "ByteLevel"] if !by_itself => {
            let found = SPLITS.iter().find(|(_, pattern)| *pattern == split());
            match found.map(|(name, _)| *name) {
                // The same split, but words are not looked up whole.
                Some("llama-bpe") if !whole => Ok("smaug-bpe"),
                Some(name) => Ok(name),
                None => {
                    Err(format!("text is split by {:?}, which has no name in GGUF files", split()))
                }
            }
        }
        _ => Err(format!(
            "text is split by {}, which has no name in GGUF files; convert the model with llama.cpp's \
             convert_hf_to_gguf.py",
            kinds.join(", then ")
        )),
    }
}

/// The chat template: a file of its own, or in the settings, there one or several by name.
fn template(folder: &Path, config: &Value) -> Option<String> {
    if let Ok(text) = std::fs::read_to_string(folder.join("chat_template.jinja")) {
        return Some(text);
    }
    let template = &config["chat_template"];
    let named = |one: &&Value| one["name"] == "default";
    let text =
        template.as_str().or_else(|| template.as_array()?.iter().find(named)?["template"].as_str());
    text.map(str::to_owned)
}
