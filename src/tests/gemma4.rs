//! Models whose layers have heads of their own number and size, as Gemma 4's have: other sizes than its fixture's, against
//! the oracle, and what such a model may say that does not run.
use super::gguf_file::GgufFile;
use super::support::{gpu, noise};
use super::tiny::{hold_to_oracle, session, streaming, text};
use crate::format::{Array, DType, Gguf, Value};
use crate::gpu::Gpu;
use crate::model::{Config, KvType, Model, Policy};
use crate::reference::Oracle;
use crate::session::Session;
use pollster::block_on;
use std::sync::Arc;

/// A layer: whether it has a window of its own, KV, and whether it has a matrix of values.
type Layer = (bool, usize, bool);

/// A model to be made.
struct Made {
    layers: &'static [Layer],
    n_head: usize,
    /// HD and R of layers without a window of their own, and of those with one.
    head_dims: [usize; 2],
    rope_dims: [usize; 2],
    window: usize,
}

const D: usize = 64;
const F: usize = 96;
const VOCAB: usize = 320;

/// A global layer first, key heads differ from layer to layer.
const FIRST: Made = Made {
    layers: &[(false, 1, false), (true, 4, true), (true, 2, true), (false, 2, false)],
    n_head: 4,
    head_dims: [64, 32],
    rope_dims: [64, 32],
    window: 11,
};
/// A global layer last, with a matrix of values; heads are larger where there is a window, and turned in part.
const LAST: Made = Made {
    layers: &[(true, 1, false), (true, 2, true), (false, 2, true)],
    n_head: 2,
    head_dims: [32, 64],
    rope_dims: [16, 48],
    window: 30,
};

impl Made {
    fn file(&self) -> GgufFile {
        let mut file = GgufFile::new()
            .with("general.architecture", Value::String("gemma4".into()))
            .with("gemma4.rope.freq_base", Value::F32(1000.0))
            .with("gemma4.rope.freq_base_swa", Value::F32(100.0))
            .with("gemma4.attention.layer_norm_rms_epsilon", Value::F32(0.01))
            .with("gemma4.final_logit_softcapping", Value::F32(8.0));
        let [head, local] = self.head_dims;
        let [turned, turned_local] = self.rope_dims;
        for (key, value) in [
            ("block_count", self.layers.len()),
            ("context_length", 4096),
            ("embedding_length", D),
            ("feed_forward_length", F),
            ("embedding_length_per_layer_input", 0),
            ("attention.shared_kv_layers", 0),
            ("attention.head_count", self.n_head),
            ("attention.key_length", head),
            ("attention.value_length", head),
            ("attention.key_length_swa", local),
            ("attention.value_length_swa", local),
            ("attention.sliding_window", self.window),
            ("rope.dimension_count", turned),
            ("rope.dimension_count_swa", turned_local),
        ] {
            file = file.with(&format!("gemma4.{key}"), Value::U32(value as u32));
        }
        let kv_heads = self.layers.iter().map(|(_, kv_heads, _)| *kv_heads as i32).collect();
        let local = self.layers.iter().map(|(local, ..)| *local).collect();
        file = file
            .with("gemma4.attention.head_count_kv", Value::Array(Array::I32(kv_heads)))
            .with("gemma4.attention.sliding_window_pattern", Value::Array(Array::Bool(local)));
        self.put_tensors(&mut file);
        file
    }

    fn put_tensors(&self, file: &mut GgufFile) {
        let mut put = |name: String, dims: &[usize], middle: f32, spread: f32| {
            let seed = 77 + file.tensors.len() as u64;
            let values = noise(seed, dims.iter().product());
            let bytes = values.iter().flat_map(|v| (middle + spread * v).to_le_bytes()).collect();
            let dims = dims.iter().map(|&n| n as u64).collect();
            file.tensors.push((format!("{name}.weight"), dims, DType::F32.ggml_id(), bytes));
        };
        put("token_embd".into(), &[D, VOCAB], 0.0, 1.0);
        put("output_norm".into(), &[D], 1.0, 0.3);
        // Each pair is turned at a pace of its own.
        put("rope_freqs".into(), &[self.rope_dims[0] / 2], 3.0, 2.0);
        for (i, &(local, kv_heads, values)) in self.layers.iter().enumerate() {
            let head = self.head_dims[usize::from(local)];
            let [q, kv] = [self.n_head, kv_heads].map(|heads| heads * head);
            let mut matrix = |name: &str, dims: [usize; 2], gain: f32| {
                let spread = gain * (3.0 / dims[0] as f32).sqrt();
                put(format!("blk.{i}.{name}"), &dims, 0.0, spread);
            };
            matrix("attn_q", [D, q], 1.5);
            matrix("attn_k", [D, kv], 1.5);
            if values {
                matrix("attn_v", [D, kv], 1.0);
            }
            matrix("attn_output", [q, D], 1.0);
            matrix("ffn_gate", [D, F], 1.0);
            matrix("ffn_up", [D, F], 1.0);
            matrix("ffn_down", [F, D], 1.0);
            for norm in ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"] {
                put(format!("blk.{i}.{norm}"), &[D], 1.0, 0.3);
            }
            // Scores are not scaled: gains are what keeps them from being large.
            put(format!("blk.{i}.attn_q_norm"), &[head], 0.4, 0.1);
            put(format!("blk.{i}.attn_k_norm"), &[head], 0.4, 0.1);
            // A layer without one is left as it is.
            if i != 1 {
                put(format!("blk.{i}.layer_output_scale"), &[1], 0.3, 0.2);
            }
        }
    }

    fn model(&self, gpu: &Arc<Gpu>) -> Arc<Model> {
        let source = self.file().source();
        let gguf = block_on(Gguf::read(&source)).unwrap();
        let mut unheard = |_, _| ();
        let model = Model::load(gpu.clone(), &source, &gguf, &mut unheard);
        Arc::new(block_on(model).unwrap())
    }

    fn oracle(&self, model: &Model, [sinks, window]: [usize; 2]) -> Oracle {
        let source = self.file().source();
        let gguf = block_on(Gguf::read(&source)).unwrap();
        block_on(Oracle::read(&source, &gguf, model.config.clone(), sinks, window)).unwrap()
    }

    /// More than five times what the cache holds, against the oracle.
    fn streams(&self, what: &str, model: &Arc<Model>, chunk: usize, kv: KvType) {
        let tolerance = match kv {
            KvType::F32 => 2e-4,
            KvType::F16 => 2e-2,
            KvType::Q8_0 | KvType::Q4_0 => 0.2,
        };
        let mut session = session(model, streaming(3, 17, chunk, kv));
        let mut oracle = self.oracle(model, [3, 17]);
        hold_to_oracle(what, &mut session, &mut oracle, &text(5, 110), tolerance);
    }
}

#[test]
fn heads_of_two_sizes_stream_as_the_paper_does() {
    let gpu = Arc::new(gpu());
    for (what, made) in [("a global layer first", FIRST), ("a global layer last", LAST)] {
        let model = made.model(&gpu);
        made.streams(what, &model, 1, KvType::F32);
        made.streams(what, &model, 7, KvType::F32);
        let [global, local] = made.head_dims;
        let heads = format!("and heads of {local} dimensions, the others of {global}");
        assert!(model.config.kinds().ends_with(&heads), "{}", model.config.kinds());
    }
    FIRST.streams("in half precision", &FIRST.model(&gpu), 20, KvType::F16);
    FIRST.streams("in blocks", &FIRST.model(&gpu), 7, KvType::Q8_0);
}

/// As large as those of the 31B, whose kernels are others.
#[test]
#[ignore = "half a minute"]
fn heads_of_256_and_512_stream_as_the_paper_does() {
    const LAYERS: &[Layer] = &[(true, 4, true), (false, 1, false)];
    let (head_dims, rope_dims) = ([512, 256], [512, 256]);
    let made = Made { layers: LAYERS, head_dims, rope_dims, ..FIRST };
    let model = made.model(&Arc::new(gpu()));
    made.streams("large heads", &model, 1, KvType::F32);
    made.streams("large heads", &model, 16, KvType::F32);
}

/// Layers that all have a window, one that is longer than the policy's, or none.
#[test]
fn layers_of_one_kind_keep_what_their_kind_has() {
    let gpu = Arc::new(gpu());
    const LOCAL: &[Layer] = &[(true, 2, true), (true, 1, false)];
    const GLOBAL: &[Layer] = &[(false, 1, false), (false, 2, true)];
    for (what, layers, window) in [
        ("short windows alone", LOCAL, 9),
        // The policy has its way in all of them; they turn as layers with a window do.
        ("long windows alone", LOCAL, 60),
        ("no windows", GLOBAL, 9),
    ] {
        let made = Made { layers, n_head: 2, head_dims: [64, 32], window, ..FIRST };
        let model = made.model(&gpu);
        made.streams(what, &model, 1, KvType::F32);
        made.streams(what, &model, 7, KvType::F32);
    }
}

/// Key heads may be a layer's own where all have one size.
#[test]
fn key_heads_differ_alone() {
    let gpu = Arc::new(gpu());
    const LAYERS: &[Layer] = &[(false, 4, true), (false, 1, true), (false, 2, true)];
    let made = Made { layers: LAYERS, head_dims: [32, 32], rope_dims: [32, 32], ..FIRST };
    made.streams("key heads", &made.model(&gpu), 7, KvType::F32);
}

/// Rows of keys and values are as wide as their layer's, in a file, too.
#[test]
fn rows_of_two_widths_are_saved_and_moved_on() {
    let gpu = Arc::new(gpu());
    let (model, tokens) = (FIRST.model(&gpu), text(6, 80));
    let full = || {
        let mut session = session(&model, streaming(3, 17, 7, KvType::F16));
        block_on(session.feed(&tokens)).unwrap();
        session
    };
    let next = |mut session: Session| {
        block_on(session.feed(&[1, 2, 3])).unwrap();
        let logits = block_on(session.logits()).unwrap();
        logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let (expected, held) = (next(full()), full());
    let widths = [0, 1, 2, 3].map(|layer| held.cache().k(layer).shape[1]);
    assert_eq!(widths, [32, 64, 32, 64], "two numbers of f16 a word");
    let mut later = full();
    later.fast_forward(1_000_000_007);
    assert_eq!(next(later), expected, "laps later");
    let saved = block_on(full().snapshot(None, "")).unwrap();
    let mut restored = session(&model, saved.settings());
    restored.restore(&saved).unwrap();
    assert_eq!(next(restored), expected, "restored");
    let mut settings = streaming(3, 17, 7, KvType::F16);
    settings.policy = Policy::HalfDiscard;
    let refused = block_on(Session::new(model, settings)).err().unwrap().to_string();
    assert!(refused.contains("window of their own"), "{refused}");
}

/// A scan for sinks looks at heads of each size.
#[cfg(feature = "cli")]
#[test]
fn a_scan_sees_heads_of_two_sizes() {
    use crate::eval::sinks::SinkScan;
    let model = FIRST.model(&Arc::new(gpu()));
    let mut scan = block_on(SinkScan::new(model.clone(), 40, KvType::F32)).unwrap();
    let tokens = text(7, 40);
    block_on(scan.feed(&tokens, 39)).unwrap();
    let seen = scan.seen().unwrap();
    let mut oracle = FIRST.oracle(&model, [0, 40]);
    tokens.iter().for_each(|&token| drop(oracle.step(token)));
    for (layer, of_layer) in oracle.shares().iter().enumerate() {
        // What a window no longer shows gets nothing.
        let gone = if FIRST.layers[layer].0 { 40 - FIRST.window } else { 0 };
        for (head, shares) in of_layer.iter().enumerate() {
            for (token, &found) in seen.shares[layer][head].iter().enumerate() {
                let expected = token.checked_sub(gone).map_or(0.0, |at| shares[at]);
                let off = (found - expected).abs();
                assert!(off < 1e-5, "layer {layer}, head {head}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn what_gemma_4_has_and_does_not_run_is_refused_by_name() {
    let with = |key: &str, value: Value| {
        let (mut file, key) = (FIRST.file(), format!("gemma4.{key}"));
        file.metadata.retain(|(old, _)| *old != key);
        file.with(&key, value)
    };
    let refused = |file: GgufFile, expected: &str| {
        let error = Config::from_gguf(&block_on(Gguf::read(&file.source())).unwrap());
        let found = error.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(found.contains(expected), "{expected:?} is not in {found:?}");
    };
    for (key, expected) in [
        (
            "embedding_length_per_layer_input",
            "embeddings of every layer (gemma4.embedding_length_per_layer_input)",
        ),
        (
            "attention.shared_kv_layers",
            "layers that share keys and values (gemma4.attention.shared_kv_layers)",
        ),
        ("expert_count", "a mixture of experts (gemma4.expert_count)"),
        ("attention.scale", "a scale of attention of its own (gemma4.attention.scale)"),
        ("attention.value_length_swa", "keys have 32 dimensions and values 2"),
    ] {
        refused(with(key, Value::U32(2)), expected);
    }
    refused(with("rope.dimension_count_swa", Value::U32(64)), "64 of 32 dimensions");
    // Where no layer turns by it, a table would be made all the same.
    let mut unused = with("rope.dimension_count", Value::U32(1 << 20));
    unused.metadata.retain(|(key, _)| !key.ends_with("sliding_window_pattern"));
    let all = Value::Array(Array::Bool(vec![true; 4]));
    let unused = unused.with("gemma4.attention.sliding_window_pattern", all);
    refused(unused, "1048576 dimensions of a head are to be turned");
    refused(with("attention.sliding_window", Value::U32(0)), "gemma4.attention.sliding_window");
    let wide = Value::Array(Array::I32(vec![96, 96, 192, 192]));
    refused(with("feed_forward_length", wide), "is 96 in layer 0 and 192 in layer 2");
    let three = Value::Array(Array::I32(vec![1, 3, 2, 2]));
    refused(with("attention.head_count_kv", three), "4 query heads do not share 3");
    let none = Value::Array(Array::I32(vec![1, 4, 0, 2]));
    refused(with("attention.head_count_kv", none), "gemma4.attention.head_count_kv is 0");

    let mut other = FIRST.file();
    for (key, value) in &mut other.metadata {
        match key.strip_prefix("gemma4.") {
            Some(rest) => *key = format!("gemma3.{rest}"),
            None => *value = Value::String("gemma3".into()),
        }
    }
    refused(other, "(gemma3.attention.key_length_swa), which does not run for gemma3");
    for tensor in ["attn_k", "attn_v"] {
        let mut file = FIRST.file();
        file.tensors.retain(|(name, ..)| *name != format!("blk.1.{tensor}.weight"));
        // Without values of its own a layer takes those of its keys.
        refused(file, if tensor == "attn_k" { "blk.1.attn_k.weight is missing" } else { "" });
    }
}
