//! What a GGUF file says of its vocabulary: its `tokenizer.ggml.*` keys.
use crate::Result;
use crate::format::Gguf;

/// A vocabulary as it was read; [`crate::text::Tokenizer::new`] checks it.
#[derive(Clone, Debug, Default)]
pub struct Vocab {
    /// `gpt2` (byte-level BPE) or `llama` (SentencePiece).
    pub model: String,
    /// How text is split first, by llama.cpp's name for it.
    pub pre: Option<String>,
    /// The token of each id.
    pub tokens: Vec<String>,
    /// SentencePiece's scores; BPE has none.
    pub scores: Vec<f32>,
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; none: all normal.
    pub types: Vec<i32>,
    /// BPE's merges in order, `left right`.
    pub merges: Vec<String>,
    /// The id a text starts with.
    pub bos: Option<u32>,
    /// The id a text ends with.
    pub eos: Option<u32>,
    /// The id a turn ends with.
    pub eot: Option<u32>,
    /// The id of what cannot be said.
    pub unk: Option<u32>,
    /// Whether a text starts with `bos`; none: as the kind of vocabulary has it.
    pub add_bos: Option<bool>,
    /// Whether a text ends with `eos`.
    pub add_eos: Option<bool>,
    /// Whether a SentencePiece text starts with a space.
    pub add_space_prefix: Option<bool>,
}

impl Vocab {
    /// Reads the keys. An error when there is no vocabulary at all.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let owned = |texts: Option<&[String]>| texts.map(<[String]>::to_vec).unwrap_or_default();
        Ok(Self {
            model: gguf.need_str(&key("model"))?.to_owned(),
            pre: gguf.str(&key("pre"))?.map(str::to_owned),
            tokens: gguf.need_strings(&key("tokens"))?.to_vec(),
            scores: gguf.f32s(&key("scores"))?.unwrap_or_default(),
            types: gguf.i32s(&key("token_type"))?.unwrap_or_default(),
            merges: owned(gguf.strings(&key("merges"))?),
            bos: gguf.u32(&key("bos_token_id"))?,
            eos: gguf.u32(&key("eos_token_id"))?,
            eot: gguf.u32(&key("eot_token_id"))?,
            unk: gguf.u32(&key("unknown_token_id"))?,
            add_bos: gguf.bool(&key("add_bos_token"))?,
            add_eos: gguf.bool(&key("add_eos_token"))?,
            add_space_prefix: gguf.bool(&key("add_space_prefix"))?,
        })
    }
}
