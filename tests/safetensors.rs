//! Folders as transformers saves them: read as models, written as GGUF files, refused by name.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
use assert_cmd::Command;
use brooklet::format::{Folder, Gguf, Quant, Source};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

const FAMILIES: [&str; 3] = ["llama", "qwen2", "qwen3"];

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/safetensors").join(family)
}

fn golden(family: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder(family).join("golden.json")).unwrap()).unwrap()
}

/// Exit code, stdout, stderr.
fn outcome(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brooklet"));
    let output = command.args(args).timeout(Duration::from_secs(120)).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The logits after the tokens at places 5 and the last, by token.
fn logits(model: &Path, golden: &Value) -> Vec<Vec<f64>> {
    let ids: Vec<String> = golden["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
    let places = format!("5,{}", ids.len() - 1);
    let args =
        ["logits", "-m", model.to_str().unwrap(), "--ids", &ids.join(","), "--positions", &places];
    let exact = ["--top", "400", "--json", "--kv", "f32", "--activations", "f32", "--tune", "off"];
    let (code, stdout, stderr) = outcome(&[&args[..], &exact].concat());
    assert_eq!(code, 0, "{stderr}");
    let after: Vec<Value> = serde_json::from_str(&stdout).unwrap();
    let in_order = |after: &Value| {
        let mut all: Vec<(u64, f64)> = serde_json::from_value(after["logits"].clone()).unwrap();
        all.sort_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, logit)| logit).collect()
    };
    after.iter().map(in_order).collect()
}

#[test]
fn logits_are_those_of_transformers_and_the_file_that_is_written_is_what_ran() {
    let out = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let golden = golden(family);
        let found = logits(&folder(family), &golden);
        for (found, wanted) in found.iter().zip([&golden["middle"], &golden["last"]]) {
            let wanted: Vec<f64> = serde_json::from_value(wanted.clone()).unwrap();
            assert_eq!(found.len(), wanted.len());
            let worst = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-4, "{family}: {worst}");
        }
        let file = out.path().join(format!("{family}.gguf"));
        let args = ["convert", folder(family).to_str().unwrap(), file.to_str().unwrap()]
            .map(str::to_owned);
        let (code, _, stderr) = outcome(&args.each_ref().map(String::as_str));
        assert_eq!(code, 0, "{stderr}");
        let source = Folder::open(&folder(family), None).unwrap();
        let bytes = pollster::block_on(source.bytes(0..source.len())).unwrap();
        assert!(std::fs::read(&file).unwrap() == *bytes, "{family}");
    }
}

#[test]
fn tokens_are_those_of_transformers() {
    for family in FAMILIES {
        let (golden, folder) = (golden(family), folder(family));
        let text = golden["text"].as_str().unwrap();
        let (code, stdout, stderr) =
            outcome(&["tokenize", "--json", "-m", folder.to_str().unwrap(), text]);
        assert_eq!(code, 0, "{stderr}");
        let told: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(told["ids"], golden["ids"], "{family}");
    }
}

#[test]
fn matrices_are_rounded_as_ggml_rounds_them() {
    for family in FAMILIES {
        let golden = golden(family);
        for (quant, name) in [(Quant::F16, "f16"), (Quant::Q8_0, "q8_0"), (Quant::Q4_0, "q4_0")] {
            let folder = Folder::open(&folder(family), Some(quant)).unwrap();
            let gguf = pollster::block_on(Gguf::read(&folder)).unwrap();
            let down = gguf.tensor("blk.1.ffn_down.weight").unwrap();
            let bytes =
                pollster::block_on(folder.bytes(down.offset..down.offset + down.size)).unwrap();
            let hash: String =
                Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(golden["ffn_down"][name], hash, "{family} {name}");
        }
    }
}

#[test]
fn any_range_is_a_part_of_the_whole() {
    for (family, quant) in
        [("llama", Some(Quant::Q4_0)), ("qwen2", None), ("qwen3", Some(Quant::Q8_0))]
    {
        let folder = Folder::open(&folder(family), quant).unwrap();
        let bytes = |range| pollster::block_on(folder.bytes(range)).unwrap().into_owned();
        let whole = bytes(0..folder.len());
        let mut state = 1u64;
        let mut below = |most: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % most
        };
        for _ in 0..200 {
            let start = below(folder.len());
            let end = (start + below(5000)).min(folder.len());
            assert!(bytes(start..end) == whole[start as usize..end as usize], "{start}..{end}");
        }
        assert!(pollster::block_on(folder.bytes(0..folder.len() + 1)).is_err());
    }
}

/// A copy of a folder in which a text stands for another, or of which a file is cut.
fn changed(family: &str, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in folder(family).read_dir().unwrap().flatten() {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join(file);
    let bytes = std::fs::read(&path).unwrap_or_default();
    std::fs::write(path, change(bytes)).unwrap();
    copy
}

#[track_caller]
fn refused(copy: &tempfile::TempDir, message: &str) {
    let error =
        Folder::open(copy.path(), None).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(message), "{message:?} is not in {error:?}");
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let text = |file: &str, from: &str, to: &str, message: &str| {
        let copy = changed("qwen3", file, |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from), "{from}");
            text.replace(from, to).into_bytes()
        });
        refused(&copy, message);
    };
    let model = "\"model_type\": \"qwen3\"";
    text(
        "config.json",
        model,
        "\"model_type\": \"t5\"",
        "the type \"t5\" cannot be read from a folder; these can: llama",
    );
    text("config.json", model, "\"model_type\": \"llama\"", "self_attn.k_norm.weight");
    text("config.json", "\"silu\"", "\"gelu\"", "hidden_act is \"gelu\"");
    text(
        "config.json",
        model,
        &format!("{model}, \"quantization_config\": {{}}"),
        "quantised already",
    );
    text(
        "config.json",
        "\"rope_type\": \"default\"",
        "\"rope_type\": \"su\"",
        "rope of the type \"su\"",
    );
    text(
        "config.json",
        "\"head_dim\": 32",
        "\"head_dim\": 4000000000",
        "heads of 4000000000 dimensions",
    );
    text(
        "config.json",
        "\"vocab_size\": 320",
        "\"vocab_size\": 4000000000",
        "a vocabulary of 4000000000",
    );
    text("config.json", "\"vocab_size\": 320", "\"vocab_size\": 20", "of a vocabulary of 20");
    text("config.json", "\"hidden_size\": 64", "\"hidden_size\": \"x\"", "hidden_size is \"x\"");
    text(
        "tokenizer.json",
        "\"BPE\"",
        "\"Unigram\"",
        "of the type Some(\"Unigram\") cannot be read; BPE can",
    );
    text("tokenizer.json", "[^\\\\r\\\\n\\\\p{L}", "[^\\\\p{L}", "which has no name in GGUF files");
    let index = "model.safetensors.index.json";
    text(index, "model-00001-of-00003", "../model-00001-of-00003", "is not in the folder");
    let cut = |len: usize| changed("llama", "model.safetensors", |bytes| bytes[..len].to_vec());
    refused(&cut(300_000), "this is no safetensors file, or not all of it is here");
    refused(&cut(4), "4 bytes are no safetensors file");
    refused(&cut(0), "the file is empty");
    refused(
        &changed("llama", "model.safetensors", |_| vec![0xFF; 64]),
        "this is no safetensors file",
    );
    refused(&changed("llama", "config.json", |_| b"{".to_vec()), "this is no JSON");
    refused(
        &tempfile::tempdir().unwrap(),
        "this is a directory; name the .gguf file inside it, or a folder",
    );
    let without = changed("llama", "x", |_| Vec::new());
    std::fs::remove_file(without.path().join("tokenizer.json")).unwrap();
    refused(&without, "tokenizer.json: there is no such file; transformers makes it");
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf");
    let (code, _, told) = outcome(&["tokenize", "-m", tiny, "--quant", "q8_0", "a"]);
    assert!(code == 2 && told.contains("--quant is for folders of safetensors"), "{told}");
}
