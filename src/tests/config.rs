//! What a file says of its model: read, checked, refused by name.
use super::gguf_file::GgufFile;
use super::tiny::Tiny;
use crate::format::{Array, DType, Gguf, Value};
use crate::model::rope::phase_table;
use crate::model::{Config, LayerKind, Rope, RopeLayout, RopeScaling, Scales};
use pollster::block_on;
use serde::Deserialize;

fn config(file: &GgufFile) -> crate::Result<Config> {
    Config::from_gguf(&block_on(Gguf::read(&file.source())).unwrap())
}

/// The tiny model with one key changed or added.
fn with(key: &str, value: Value) -> GgufFile {
    let mut file = Tiny::default().parts();
    file.metadata.retain(|(old, _)| old != key);
    file.with(key, value)
}

#[test]
fn every_field_comes_from_its_key() {
    let tiny = Tiny { bias: true, tied: false, ..Tiny::default() };
    let config = config(&tiny.parts()).unwrap();
    let LayerKind { n_head_kv, head_dim, .. } = config.layers[1];
    let sizes = [config.n_layer, config.n_embd, config.n_head, n_head_kv, head_dim];
    assert_eq!(sizes, [2, 64, 4, 2, 16]);
    assert_eq!((config.n_ff, config.n_vocab, config.n_ctx), (84, 320, 4096));
    assert_eq!((config.norms.eps, config.rope.base, config.rope.dim), (0.01, 100.0, 16));
    assert!(!config.tied);
    assert_eq!((config.rope.layout, config.rope.scaling), (RopeLayout::Norm, RopeScaling::None));
}

fn sizes(of_layers: &[i32]) -> Value {
    Value::Array(Array::I32(of_layers.to_vec()))
}

/// As llama.cpp has it: a size may be given layer by layer.
#[test]
fn sizes_that_are_alike_in_all_layers_are_one() {
    let heads = with("llama.attention.head_count", sizes(&[4, 4]));
    let kv_heads = with("llama.attention.head_count_kv", sizes(&[2, 2]));
    let ff = Value::Array(Array::U64(vec![84, 84]));
    for file in [heads, kv_heads, with("llama.feed_forward_length", ff)] {
        assert_eq!(config(&file).unwrap(), config(&Tiny::default().parts()).unwrap());
    }
}

/// The same verdict for whoever asks: `inspect`, `run`, a page.
#[test]
fn an_embedding_of_another_size_than_the_vocabulary_is_refused() {
    let gguf = block_on(Gguf::read(&Tiny::default().parts().source())).unwrap();
    assert!(Config::for_tokens(&gguf, 320).is_ok());
    for tokens in [307, 333] {
        let error = Config::for_tokens(&gguf, tokens).unwrap_err().to_string();
        assert!(error.contains(&format!("has 320 rows and the tokenizer {tokens} tokens")));
    }
}

#[test]
fn scalings_are_read() {
    let linear = with("llama.rope.scaling.factor", Value::F32(4.0));
    let scaling = |file| config(&file).unwrap().rope.scaling;
    assert_eq!(scaling(linear), RopeScaling::Linear { factor: 4.0 });
    let yarn = with("llama.rope.scaling.factor", Value::F32(4.0))
        .with("llama.rope.scaling.type", Value::String("yarn".into()))
        .with("llama.rope.scaling.original_context_length", Value::U32(512));
    let expected = RopeScaling::Yarn {
        factor: 4.0,
        n_ctx_orig: 512,
        beta_fast: 32.0,
        beta_slow: 1.0,
        ext_factor: 1.0,
        attn_factor: 1.0,
        log_multiplier: 0.0,
        rounded: true,
    };
    assert_eq!(scaling(yarn), expected);
}

/// The tiny model as one of another family.
fn of_family(name: &str) -> GgufFile {
    let mut file = Tiny { n_layer: 8, ..Tiny::default() }.parts();
    for (key, value) in &mut file.metadata {
        match key.strip_prefix("llama.") {
            Some(rest) => *key = format!("{name}.{rest}"),
            None if key == "general.architecture" => *value = Value::String(name.into()),
            None => {}
        }
    }
    file
}

#[test]
fn families_differ_as_their_files_do_not_say() {
    let ropes = |name: &str| {
        let config = config(&of_family(name)).unwrap();
        (config.rope.layout, [0, 2, 3, 7].map(|layer| config.rope_dim(layer)))
    };
    assert_eq!(ropes("llama"), (RopeLayout::Norm, [16; 4]));
    assert_eq!(ropes("qwen2"), (RopeLayout::Neox, [16; 4]));
    assert_eq!(ropes("smollm3"), (RopeLayout::Norm, [16, 16, 0, 0]));
    assert_eq!(ropes("granite"), (RopeLayout::Norm, [16; 4]));
    let none = of_family("granite").with("granite.rope.scaling.finetuned", Value::Bool(false));
    assert_eq!(config(&none).unwrap().rope_dim(0), 0);
    let missing = config(&of_family("qwen3")).unwrap_err().to_string();
    assert!(missing.contains("blk.0.attn_q_norm.weight is missing"), "{missing}");
}

#[test]
fn scales_are_granites_alone() {
    let keys = ["embedding_scale", "residual_scale", "attention.scale", "logit_scale"];
    for key in keys {
        let refused = config(&with(&format!("llama.{key}"), Value::F32(0.5))).unwrap_err();
        assert!(refused.to_string().contains(&format!("(llama.{key})")), "{refused}");
        let key = format!("granite.{key}");
        for wrong in [-1.0, f32::INFINITY, f32::NAN] {
            let refused = config(&of_family("granite").with(&key, Value::F32(wrong))).unwrap_err();
            assert!(refused.to_string().contains(&format!("{key} is {wrong}")), "{refused}");
        }
    }
    let read = |file: GgufFile| config(&file).unwrap().scales;
    let [embedding, residual, attention, logits] = [3.0, 0.5, 0.125, 4.0];
    let all = keys.iter().zip([embedding, residual, attention, logits]);
    let file = all.fold(of_family("granite"), |file, (key, value)| {
        file.with(&format!("granite.{key}"), Value::F32(value))
    });
    assert_eq!(read(file), Scales { embedding, residual, attention, logits });
    let plain = Scales { embedding: 1.0, residual: 1.0, attention: 0.25, logits: 1.0 };
    assert_eq!(read(of_family("granite")), plain);
    assert_eq!(read(of_family("granite").with("granite.logit_scale", Value::F32(0.0))), plain);
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    let text = |value: &str| Value::String(value.into());
    let mut wide = with("llama.attention.head_count", Value::U32(1 << 24));
    wide.metadata.retain(|(key, _)| !key.ends_with("_length") || key.contains("embedding"));
    let wide = ["attention.key", "attention.value", "feed_forward", "context"]
        .iter()
        .fold(wide, |file, key| file.with(&format!("llama.{key}_length"), Value::U32(256)));
    let cases = [
        (with("general.architecture", text("mamba")), "architecture is mamba"),
        // what a terminal would obey
        (with("general.architecture", text("\x1b[2J")), "architecture is \\u{1b}[2J;"),
        (with("llama.rope.scaling.type", text("\x07")), "type \\u{7};"),
        (with("llama.expert_count", Value::U32(8)), "llama.expert_used_count"),
        (with("llama.attention.sliding_window", Value::U32(512)), "sliding window"),
        (with("llama.rope.scaling.type", text("longrope")), "type longrope"),
        (with("llama.rope.scaling.factor", Value::F32(f32::NAN)), "factor of NaN"),
        (with("llama.block_count", Value::U32(0)), "block_count is 0"),
        (with("llama.block_count", Value::U32(1)), "blk.1."),
        (with("llama.block_count", Value::U32(3)), "blk.2.attn_norm.weight is missing"),
        (with("llama.block_count", Value::U32(9_999_999)), "9999999 layers in a file of"),
        (with("llama.attention.head_count_kv", Value::U32(3)), "do not share 3"),
        (with("llama.attention.key_length", Value::U32(12)), "12"),
        (with("llama.attention.value_length", Value::U32(8)), "values 8"),
        (with("llama.rope.dimension_count", Value::U32(32)), "32 of 16"),
        (with("llama.rope.freq_base", Value::F32(0.0)), "rotary base of 0"),
        (with("llama.attention.layer_norm_rms_epsilon", Value::F32(-1.0)), "epsilon of -1"),
        (with("llama.feed_forward_length", Value::U32(96)), "has shape [64, 84]"),
        (with("llama.embedding_length", text("many")), "llama.embedding_length"),
        (
            with("llama.attention.head_count_kv", sizes(&[2, 1])),
            "blk.1.attn_k.weight has shape [64, 32], and the model's sizes want [64, 16]",
        ),
        (
            with("llama.feed_forward_length", sizes(&[84, 96])),
            "llama.feed_forward_length is 84 in layer 0 and 96 in layer 1",
        ),
        (with("llama.feed_forward_length", sizes(&[84])), "has 1 sizes for 2 layers"),
        (with("llama.feed_forward_length", sizes(&[0, 0])), "feed_forward_length is 0"),
        (with("llama.feed_forward_length", sizes(&[-1, -1])), "feed_forward_length is -1"),
        // 2^24 heads of 256 are 2^32, which a browser's 32 bits would take for 0
        (wide, "16777216 heads of 256 dimensions, wider than any model"),
    ];
    for (file, message) in cases {
        let found = config(&file).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(found.contains(message), "{message:?} is not in {found:?}");
    }
    let mut extra = Tiny::default().parts();
    let copy = extra.tensors[3].clone();
    extra.tensors.push(("blk.0.attn_sinks.weight".into(), copy.1, copy.2, copy.3));
    assert!(config(&extra).unwrap_err().to_string().contains("blk.0.attn_sinks.weight"));
    extra.tensors.last_mut().unwrap().0 = "\x1b]0;odd".into();
    assert!(config(&extra).unwrap_err().to_string().contains("the tensor \\u{1b}]0;odd belongs"));
    let mut mixed = Tiny::default().parts();
    let up = mixed.tensors.iter_mut().find(|tensor| tensor.0 == "blk.1.ffn_up.weight").unwrap();
    (up.2, up.3) = (DType::F16.ggml_id(), vec![0; 64 * 84 * 2]);
    let error = config(&mixed).unwrap_err().to_string();
    assert!(
        error.contains("blk.1.ffn_gate.weight is F32 and blk.1.ffn_up.weight is F16"),
        "{error}"
    );
    let mut key_missing = Tiny::default().parts();
    key_missing.metadata.retain(|(key, _)| key != "llama.context_length");
    assert!(config(&key_missing).unwrap_err().to_string().contains("llama.context_length"));
}

#[derive(Deserialize)]
struct Yarn {
    dim: usize,
    base: f32,
    factor: f32,
    n_ctx_orig: u32,
    beta_fast: f32,
    beta_slow: f32,
    scale: f64,
    frequencies: Vec<f64>,
}

#[test]
fn frequencies_are_stretched_as_the_papers_have_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rope/yarn.json");
    let cases: Vec<Yarn> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for case in cases {
        let Yarn { dim, base, factor, n_ctx_orig, beta_fast, beta_slow, .. } = case;
        let scaling = RopeScaling::Yarn {
            factor,
            n_ctx_orig,
            beta_fast,
            beta_slow,
            ext_factor: 1.0,
            attn_factor: 1.0,
            log_multiplier: 0.0,
            rounded: true,
        };
        let rope = Rope { base, dim, layout: RopeLayout::Norm, scaling };
        let (found, scale) = rope.frequencies(None);
        assert!((scale - case.scale).abs() < 1e-9);
        assert_eq!(found.len(), case.frequencies.len());
        for (found, expected) in found.iter().zip(&case.frequencies) {
            assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
        }
        // linear divides all alike; a file's own divisors one by one
        let plain = Rope { scaling: RopeScaling::None, ..rope }.frequencies(None).0;
        let linear = Rope { scaling: RopeScaling::Linear { factor }, ..rope }.frequencies(None).0;
        let own: Vec<f32> = (0..dim / 2).map(|i| 1.0 + i as f32).collect();
        let divided = Rope { scaling: RopeScaling::None, ..rope }.frequencies(Some(&own)).0;
        for (i, plain) in plain.iter().enumerate() {
            assert_eq!(linear[i], plain / f64::from(factor));
            assert_eq!(divided[i], plain / f64::from(own[i]));
        }
    }
}

#[test]
fn the_phase_table_is_exact_where_f32_angles_are_not() {
    let (frequencies, phases) = ([1.0, 0.001], 100_000);
    let table = phase_table(&frequencies, 1.0, phases);
    assert_eq!(table.len(), phases * 4);
    // cos and sin of 99,999 radians and of 99.999, by Python's math module
    let expected =
        [-0.5098753724179009, 0.860248280789742, 0.8618120755715658, -0.5072277066555313];
    for (found, expected) in table[99_999 * 4..].iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 6e-8, "{found} {expected}");
    }
}
