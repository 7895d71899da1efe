//! How text is split before byte pairs are merged. Names are llama.cpp's, and so are the splits; the
//! expressions are those that the models' own tokenizer files give.
use crate::{Error, Result};

/// Contractions, words, numbers, signs, trailing space: GPT-2's.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
const ONE_DIGIT: &str = r"\p{N}";
const THREE_DIGITS: &str = r"[0-9][0-9][0-9]";
/// Numbers of at most three digits, words with one sign before, line ends: Llama 3's.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with digits one by one: Qwen 2's.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with marks as part of their words: Qwen 3.5's.
const QWEN_35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's with line ends apart from signs: Seed-Coder's.
const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words are cut where a capital follows a small letter, and contractions stay with their word: GPT-4o's.
const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same without contractions, digits one by one: Mistral's Tekken.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Everything between a few signs of many scripts: BLOOM's.
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const LINE_END: &str = r"[\r\n]";
/// Words of the scripts that have capitals, as DeepSeek LLM lists them.
const CASED: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
/// Signs, as DeepSeek LLM lists them.
const SIGNS: &str =
    r"\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+";
/// Chinese, Japanese and Korean, as both of DeepSeek's list them.
const CJK: &str = r"[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";

/// What a name stands for.
#[derive(Clone, Copy)]
pub(super) struct Pre {
    /// Splits, one after another; what matches and what lies between are pieces alike.
    pub(super) splits: &'static [&'static str],
    /// A piece that is a token needs no merging.
    pub(super) ignore_merges: bool,
    /// A text starts with BOS unless the file says otherwise.
    pub(super) add_bos: bool,
}

/// Splits, and no more.
const fn plain(splits: &'static [&'static str]) -> Pre {
    Pre { splits, ignore_merges: false, add_bos: false }
}

/// Splits for whole tokens, after BOS.
const fn whole(splits: &'static [&'static str]) -> Pre {
    Pre { splits, ignore_merges: true, add_bos: true }
}

/// Names, and what they stand for.
const KNOWN: [(&[&str], Pre); 17] = [
    (&["default"], plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", THREE_DIGITS])),
    (&["falcon"], plain(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT_2, THREE_DIGITS])),
    (&["gpt-2", "phi-2", "mpt", "olmo", "jais", "mellum", "gigachat", "a.x-4.0"], plain(&[GPT_2])),
    (&["exaone4", "trillion", "granite-docling"], plain(&[GPT_2])),
    (&["smollm", "starcoder", "refact", "command-r", "codeshell"], plain(&[ONE_DIGIT, GPT_2])),
    (&["exaone", "minerva-7b", "mellum2"], plain(&[ONE_DIGIT, GPT_2])),
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        whole(&[LLAMA_3]),
    ),
    (&["smaug-bpe", "dbrx", "glm4", "chatglm-bpe"], plain(&[LLAMA_3])),
    (
        &["qwen2", "deepseek-r1-qwen", "stablelm2", "kormo", "megrez", "f2llmv2", "hunyuan"],
        plain(&[QWEN_2]),
    ),
    (&["solar-open", "grok-2"], plain(&[QWEN_2])),
    (&["qwen35"], plain(&[QWEN_35])),
    (&["seed-coder"], plain(&[SEED_CODER])),
    (&["gpt-4o", "llama4", "kanana2", "minimax-m2"], plain(&[GPT_4O])),
    (&["tekken"], whole(&[TEKKEN])),
    (&["bloom", "gpt3-finnish", "poro-chat"], plain(&[BLOOM])),
    (&["deepseek-llm"], plain(&[LINE_END, CASED, SIGNS, r"\s+$", CJK, r"\p{N}+"])),
    (&["deepseek-coder"], plain(&[LINE_END, r"\s?\p{L}+", r"\s?\p{P}+", CJK, ONE_DIGIT])),
];

/// The splits of a name. No name is `default`, as in llama.cpp.
pub(super) fn pre(name: Option<&str>) -> Result<Pre> {
    let name = name.unwrap_or("default");
    let known = KNOWN.iter().find(|(names, _)| names.contains(&name));
    known.map(|&(_, pre)| pre).ok_or_else(|| {
        let all: Vec<_> = KNOWN.iter().flat_map(|(names, _)| *names).copied().collect();
        Error::Tokenizer(format!(
            "the pre-tokenizer {name:?} is not known; these are: {}",
            all.join(", ")
        ))
    })
}
