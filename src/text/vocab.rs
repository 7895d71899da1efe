//! What a GGUF file says of its vocabulary: its `tokenizer.ggml.*` keys.
use crate::format::{Gguf, Value};
use crate::{Error, Result};

/// Token types of GGUF that matter here.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const BYTE: i32 = 6;

/// A vocabulary as it was read; [`crate::text::Tokenizer::new`] checks it.
#[derive(Clone, Debug, Default)]
pub struct Vocab {
    /// `gpt2` (byte-level BPE), `llama` (SentencePiece) or `gemma4` (BPE of lines).
    pub model: String,
    /// How text is split first, by llama.cpp's name for it.
    pub pre: Option<String>,
    /// The token of each id.
    pub tokens: Vec<String>,
    /// The ids whose token is not UTF-8, with its bytes; in `tokens` it has replacement characters.
    pub raw: Vec<(usize, Vec<u8>)>,
    /// SentencePiece's scores; BPE has none. None: all alike.
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
    /// The id a message ends with.
    pub eom: Option<u32>,
    /// The ids that end what is filled into a gap: padding, another repository, another file.
    pub fim: [Option<u32>; 3],
    /// The id of what cannot be said.
    pub unk: Option<u32>,
    /// Whether a text starts with `bos`; none: as the kind of vocabulary has it.
    pub add_bos: Option<bool>,
    /// Whether a text ends with `eos`.
    pub add_eos: Option<bool>,
    /// Whether a SentencePiece text starts with a space.
    pub add_space_prefix: Option<bool>,
    /// Whether white space behind a special token belongs to it. No key says so: it is Phi 3's way, which llama.cpp
    /// knows by the model's name.
    pub strips: bool,
}

fn is_phi_3(gguf: &Gguf) -> bool {
    let Some(Value::String(name)) = gguf.get("general.name") else { return false };
    let name = name.to_lowercase();
    name.contains("phi-3") || name.contains("phi3")
}

impl Vocab {
    /// Reads the keys. An error when there is no vocabulary at all.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let id = |name: &str| gguf.index(&key(&format!("{name}_token_id")));
        let model = gguf.need_str(&key("model"))?.to_owned();
        let merges = match model.as_str() {
            // Without them every byte would be a token.
            "gpt2" | "gemma4" => gguf.need_strings(&key("merges"))?.to_vec(),
            _ => Vec::new(),
        };
        let tokens = key("tokens");
        let raw = gguf.raw_strings(&tokens).map(|(id, bytes)| (id, bytes.to_vec())).collect();
        Ok(Self {
            model,
            pre: gguf.str(&key("pre"))?.map(str::to_owned),
            tokens: gguf.need_strings(&tokens)?.to_vec(),
            raw,
            scores: gguf.f32s(&key("scores"))?.unwrap_or_default(),
            types: gguf.i32s(&key("token_type"))?.unwrap_or_default(),
            merges,
            bos: id("bos")?,
            eos: id("eos")?,
            eot: id("eot")?,
            eom: id("eom")?,
            fim: [id("fim_pad")?, id("fim_rep")?, id("fim_sep")?],
            unk: id("unknown")?,
            add_bos: gguf.bool(&key("add_bos_token"))?,
            add_eos: gguf.bool(&key("add_eos_token"))?,
            add_space_prefix: gguf.bool(&key("add_space_prefix"))?,
            strips: is_phi_3(gguf),
        })
    }

    /// Tokens without a text: each is called by its number, as `<7>`.
    pub fn numbered(count: usize) -> Self {
        Self {
            model: "gpt2".to_owned(),
            pre: Some("gpt-2".to_owned()),
            tokens: (0..count).map(|id| format!("<{id}>")).collect(),
            ..Self::default()
        }
    }

    /// Drops what is odd and does no harm, with a warning, fills in what is left out, and refuses what cannot be.
    /// Afterwards there is a type for each token, and a score where there are any.
    pub(super) fn settle(&mut self, warnings: &mut Vec<String>) -> Result<()> {
        let count = self.tokens.len();
        if count == 0 || u32::try_from(count).is_err() {
            return Err(Error::Tokenizer(format!("a vocabulary of {count} tokens")));
        }
        for (name, len) in [("token types", self.types.len()), ("scores", self.scores.len())] {
            if len != 0 && len < count {
                let text = format!("{count} tokens, but {len} {name}; convert the model anew");
                return Err(Error::Tokenizer(text));
            }
            if len > count {
                warnings.push(format!("{count} tokens, but {len} {name}; the last are ignored"));
            }
        }
        self.scores.truncate(count);
        self.types.resize(count, NORMAL);

        let [pad, repository, file] = &mut self.fim;
        for (name, id) in [
            ("BOS", &mut self.bos),
            ("EOS", &mut self.eos),
            ("EOT", &mut self.eot),
            ("EOM", &mut self.eom),
            ("FIM padding", pad),
            ("FIM repository", repository),
            ("FIM file", file),
            ("unknown", &mut self.unk),
        ] {
            if let Some(wrong) = id.filter(|&id| id as usize >= count) {
                *id = None;
                warnings.push(format!(
                    "the {name} token is {wrong}, of a vocabulary of {count}; it is ignored"
                ));
            }
        }
        if self.model == "llama" {
            let known = |id: u32| Some(id).filter(|&id| (id as usize) < count);
            self.unk = self.unk.or(known(0));
            self.bos = self.bos.or(known(1));
            self.eos = self.eos.or(known(2));
            if self.scores.is_empty() {
                warnings
                    .push("a SentencePiece vocabulary without scores; all are taken as 0".into());
                self.scores = vec![0.0; count];
            }
        } else if self.model == "gemma4" {
            // Files that say otherwise are wrong, as llama.cpp has it.
            self.add_bos = Some(true);
        } else if self.pre.as_ref().is_none_or(String::is_empty) {
            self.pre = None;
            warnings.push(
                "the file does not say how its model splits text (tokenizer.ggml.pre): the default \
                 split is used, and if it is the wrong one, the model talks nonsense; convert the \
                 model anew"
                    .into(),
            );
        }
        Ok(())
    }
}
