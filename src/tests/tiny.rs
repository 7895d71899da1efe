//! Small random models, whole files of them, made in the test.
use super::gguf_file::{GgufFile, random_blocks};
use super::support::{assert_close, noise};
use crate::format::{Array, BytesSource, DType, Gguf, Value};
use crate::gpu::Gpu;
use crate::model::{CacheSettings, Config, KvType, LoadSettings, Model, Policy, RopeLayout};
use crate::ops::ActivationType;
use crate::reference::Oracle;
use crate::session::Session;
use crate::text::byte_of_char;
use pollster::block_on;
use std::collections::HashMap;
use std::sync::Arc;

/// A model to be made. Letters as in [`crate::model`].
#[derive(Clone, Debug)]
pub(super) struct Tiny {
    pub n_layer: usize,
    pub n_embd: usize,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub head_dim: usize,
    pub rope_dim: usize,
    pub n_ff: usize,
    pub n_vocab: usize,
    pub dtype: DType,
    pub layout: RopeLayout,
    pub tied: bool,
    /// Of queries, keys and values.
    pub bias: bool,
    /// Of the matrices named, of which the first layer lacks the last.
    pub biases: &'static [&'static str],
    pub seed: u64,
}

impl Default for Tiny {
    fn default() -> Self {
        Self {
            n_layer: 2,
            n_embd: 64,
            n_head: 4,
            n_head_kv: 2,
            head_dim: 16,
            rope_dim: 16,
            n_ff: 84, // fills no whole unit
            n_vocab: VOCAB,
            dtype: DType::F32,
            layout: RopeLayout::Norm,
            tied: true,
            bias: false,
            biases: &[],
            seed: 1,
        }
    }
}

const LETTERS: &str = "etaoinshr";
/// 256 bytes, one control token, pairs of letters: so many unless another number is asked for.
const VOCAB: usize = 320;

impl Tiny {
    /// The whole model in one type of weights, its sizes such that every type fits.
    pub(super) fn of_type(dtype: DType) -> Self {
        let (n_embd, n_ff, head_dim, rope_dim) = (256, 512, 64, 64);
        Self { dtype, n_embd, n_ff, head_dim, rope_dim, tied: false, bias: true, ..Self::default() }
    }

    /// The file's bytes.
    pub(super) fn file(&self) -> Vec<u8> {
        self.parts().bytes()
    }

    /// The file's metadata and tensors, to be changed.
    pub(super) fn parts(&self) -> GgufFile {
        let mut file = GgufFile::new();
        let mut put = |key: &str, value: Value| file.metadata.push((key.to_owned(), value));
        put("general.architecture", Value::String("llama".into()));
        put("general.name", Value::String("tiny".into()));
        for (key, value) in [
            ("block_count", self.n_layer),
            ("context_length", 4096),
            ("embedding_length", self.n_embd),
            ("feed_forward_length", self.n_ff),
            ("attention.head_count", self.n_head),
            ("attention.head_count_kv", self.n_head_kv),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("rope.dimension_count", self.rope_dim),
        ] {
            put(&format!("llama.{key}"), Value::U32(value as u32));
        }
        // large enough to matter
        put("llama.attention.layer_norm_rms_epsilon", Value::F32(0.01));
        put("llama.rope.freq_base", Value::F32(100.0));
        self.put_vocabulary(&mut put);

        let [d, f] = [self.n_embd, self.n_ff];
        let [q, kv] = [self.n_head, self.n_head_kv].map(|heads| heads * self.head_dim);
        let mut seed = self.seed * 1000;
        let mut tensor = |name: String, dims: [usize; 2], scale: f32| {
            seed += 1;
            let count = dims[0] * dims[1];
            let bytes = match self.dtype {
                DType::F32 => floats(&noise(seed, count), scale),
                other => random_blocks(other, seed, count),
            };
            let dims = dims.map(|n| n as u64).to_vec();
            file.tensors.push((name, dims, self.dtype.ggml_id(), bytes));
        };
        let of = |cols: usize, gain: f32| gain * (3.0 / cols as f32).sqrt();
        tensor("token_embd.weight".into(), [d, self.n_vocab], 1.0);
        if !self.tied {
            tensor("output.weight".into(), [d, self.n_vocab], of(d, 3.0));
        }
        for i in 0..self.n_layer {
            let mut add = |part: &str, dims: [usize; 2], gain| {
                tensor(format!("blk.{i}.{part}.weight"), dims, of(dims[0], gain));
            };
            add("attn_q", [d, q], 1.7);
            add("attn_k", [d, kv], 1.7);
            add("attn_v", [d, kv], 1.0);
            add("attn_output", [q, d], 1.0);
            add("ffn_gate", [d, f], 1.0);
            add("ffn_up", [d, f], 1.0);
            add("ffn_down", [f, d], 1.0);
        }
        let mut vector = |name: String, len: usize, middle: f32| {
            seed += 1;
            let values: Vec<f32> = noise(seed, len).iter().map(|v| middle + 0.3 * v).collect();
            let dims = vec![len as u64];
            file.tensors.push((name, dims, DType::F32.ggml_id(), floats(&values, 1.0)));
        };
        vector("output_norm.weight".into(), d, 1.0);
        for i in 0..self.n_layer {
            vector(format!("blk.{i}.attn_norm.weight"), d, 1.0);
            vector(format!("blk.{i}.ffn_norm.weight"), d, 1.0);
            if self.bias {
                vector(format!("blk.{i}.attn_q.bias"), q, 0.0);
                vector(format!("blk.{i}.attn_k.bias"), kv, 0.0);
                vector(format!("blk.{i}.attn_v.bias"), kv, 0.0);
            }
        }
        for i in 0..self.n_layer {
            let lacks = usize::from(i == 0 && self.biases.len() > 1);
            for matrix in &self.biases[..self.biases.len() - lacks] {
                let rows = match *matrix {
                    "attn_q" => q,
                    "attn_k" | "attn_v" => kv,
                    "ffn_gate" | "ffn_up" => f,
                    _ => d,
                };
                vector(format!("blk.{i}.{matrix}.bias"), rows, 0.0);
            }
        }
        file
    }

    fn put_vocabulary(&self, put: &mut impl FnMut(&str, Value)) {
        let char_of: HashMap<u8, char> = byte_of_char().into_iter().map(|(c, b)| (b, c)).collect();
        let mut tokens: Vec<String> = (0..=255).map(|b| char_of[&b].to_string()).collect();
        tokens.push("<|endoftext|>".into());
        let pairs = LETTERS.chars().flat_map(|a| LETTERS.chars().map(move |b| (a, b)));
        let pairs: Vec<_> = pairs.take(self.n_vocab - tokens.len()).collect();
        tokens.extend(pairs.iter().map(|(a, b)| format!("{a}{b}")));
        // Letters make no more pairs: what is left of a larger vocabulary no text has.
        tokens.extend((tokens.len()..self.n_vocab).map(|id| format!("<{id}>")));
        let merges = pairs.iter().map(|(a, b)| format!("{a} {b}")).collect();
        let types = (0..self.n_vocab).map(|id| if id == 256 { 3 } else { 1 }).collect();
        put("tokenizer.ggml.model", Value::String("gpt2".into()));
        put("tokenizer.ggml.pre", Value::String("default".into()));
        put("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
        put("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
        put("tokenizer.ggml.merges", Value::Array(Array::String(merges)));
        put("tokenizer.ggml.eos_token_id", Value::U32(256));
    }

    fn read(&self) -> (BytesSource, Gguf, Config) {
        let source = BytesSource::new("tiny.gguf", self.file());
        let gguf = block_on(Gguf::read(&source)).unwrap();
        let mut config = Config::from_gguf(&gguf).unwrap();
        config.rope.layout = self.layout;
        (source, gguf, config)
    }

    /// The model on the GPU.
    pub(super) fn model(&self, gpu: &Arc<Gpu>) -> Arc<Model> {
        let (source, gguf, config) = self.read();
        let mut unheard = |_, _| ();
        let settings = LoadSettings::new(config);
        let model = Model::with_settings(gpu.clone(), &source, &gguf, settings, &mut unheard);
        Arc::new(block_on(model).unwrap())
    }

    /// The same model on the CPU.
    pub(super) fn oracle(&self, sinks: usize, window: usize) -> Oracle {
        let (source, gguf, config) = self.read();
        block_on(Oracle::read(&source, &gguf, config, sinks, window)).unwrap()
    }
}

fn floats(values: &[f32], scale: f32) -> Vec<u8> {
    values.iter().flat_map(|v| (v * scale).to_le_bytes()).collect()
}

/// `streaming` of so many sinks and such a window; the least ring.
pub(super) fn streaming(sinks: usize, window: usize, chunk: usize, kv: KvType) -> CacheSettings {
    let (policy, activations) = (Policy::Streaming, ActivationType::F32);
    CacheSettings { policy, sinks, window, chunk, kv, ring: None, activations }
}

/// A session over a model.
pub(super) fn session(model: &Arc<Model>, settings: CacheSettings) -> Session {
    block_on(Session::new(model.clone(), settings)).unwrap()
}

/// Feeds tokens in chunks, and holds the logits after each chunk to the oracle's, which has seen as many.
pub(super) fn hold_to_oracle(
    what: &str,
    session: &mut Session,
    oracle: &mut Oracle,
    tokens: &[u32],
    tolerance: f32,
) {
    let chunk = session.cache().settings().chunk;
    for (i, tokens) in tokens.chunks(chunk).enumerate() {
        let expected = tokens.iter().map(|&token| oracle.step(token)).last().unwrap();
        let expected: Vec<f32> = expected.iter().map(|&logit| logit as f32).collect();
        block_on(session.feed(tokens)).unwrap();
        let found = block_on(session.logits()).unwrap();
        assert_close(&format!("{what}, chunk {i} of {chunk}"), &found, &expected, tolerance, 0.0);
    }
}

/// The same text for the same seed.
pub(super) fn text(seed: u64, len: usize) -> Vec<u32> {
    noise(seed, len).iter().map(|v| ((v + 1.0) * 0.5 * VOCAB as f32) as u32 % 320).collect()
}

#[test]
fn the_command_line_is_tested_with_this_model() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf");
    let made = Tiny { dtype: DType::F16, ..Tiny::default() }.file();
    if std::env::var_os("BROOKLET_BLESS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    assert!(std::fs::read(path).unwrap() == made, "run with BROOKLET_BLESS=1 to make it anew");
}
