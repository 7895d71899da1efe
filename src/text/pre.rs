//! How text is split before byte pairs are merged. Names are llama.cpp's, and so are the splits; the
//! expressions are those that the models' own tokenizer files give.
use crate::{Error, Result};

/// Contractions, words, numbers, signs, trailing space: GPT-2's.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
const ONE_DIGIT: &str = r"\p{N}";
/// Numbers of at most three digits, words with one sign before, line ends: Llama 3's.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with digits one by one: Qwen 2's.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a name stands for.
pub(super) struct Pre {
    /// Splits, one after another; what matches and what lies between are pieces alike.
    pub(super) splits: &'static [&'static str],
    /// A piece that is a token needs no merging.
    pub(super) ignore_merges: bool,
    /// A text starts with BOS unless the file says otherwise.
    pub(super) add_bos: bool,
}

const KNOWN: &str = "default, gpt-2, smollm, starcoder, refact, command-r, codeshell, mpt, olmo, \
                     llama-bpe, llama3, llama-v3, smaug-bpe, qwen2";

/// The splits of a name. No name is `default`, as in llama.cpp.
pub(super) fn pre(name: Option<&str>) -> Result<Pre> {
    let plain = |splits| Pre { splits, ignore_merges: false, add_bos: false };
    match name.unwrap_or("default") {
        "default" => Ok(plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", r"[0-9][0-9][0-9]"])),
        "gpt-2" | "mpt" | "olmo" => Ok(plain(&[GPT_2])),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => {
            Ok(plain(&[ONE_DIGIT, GPT_2]))
        }
        "llama-bpe" | "llama3" | "llama-v3" => {
            Ok(Pre { splits: &[LLAMA_3], ignore_merges: true, add_bos: true })
        }
        "smaug-bpe" => Ok(plain(&[LLAMA_3])),
        "qwen2" => Ok(plain(&[QWEN_2])),
        other => Err(Error::Tokenizer(format!(
            "the pre-tokenizer {other:?} is not known; these are: {KNOWN}"
        ))),
    }
}
