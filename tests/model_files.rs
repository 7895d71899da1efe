//! Model files as users have them: split, sparse, odd, damaged, and no files at all.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
use assert_cmd::Command;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_brooklet");
const TINY: &[u8] = include_bytes!("fixtures/tiny.gguf");
/// The head of the same file with every tensor 5 GiB further back.
const FAR_HEAD: &[u8] = include_bytes!("fixtures/gguf/tiny_far.head");

/// Runs to the end and gives exit code, stdout, stderr.
fn outcome(args: &[&str], model: &Path) -> (i32, String, String) {
    let mut command = Command::new(BINARY);
    let output = command.args(args).arg(model).timeout(Duration::from_secs(120)).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// What the likeliest tokens after a prompt are, and what was said on the way.
fn run(model: &Path) -> (i32, String, String) {
    let args = ["run", "-p", "Sinks stay.", "-n", "12", "--temp", "0", "--tune", "off", "--quiet"];
    outcome(&[&args[..], &["-m"]].concat(), model)
}

#[track_caller]
fn runs_as_tiny(model: &Path) -> String {
    let tiny = run(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf")));
    let (code, stdout, stderr) = run(model);
    assert_eq!((code, &stdout), (0, &tiny.1), "{stderr}");
    stderr
}

#[track_caller]
fn fails(model: &Path, message: &str) {
    for args in [&["inspect"][..], &["tokenize", "a", "-m"]] {
        let (code, stdout, stderr) = outcome(args, model);
        assert_eq!((code, stdout.as_str()), (1, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {message:?} is not in {stderr}");
    }
    let (code, _, stderr) = run(model);
    assert!(code == 1 && stderr.contains(message), "{code}: {message:?} is not in {stderr}");
}

fn find(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

fn put(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A GGUF file with `split.no`, `split.count` and a filler that keeps its tensors aligned.
fn numbered(file: &[u8], no: u32, count: u32) -> Vec<u8> {
    let mut keys = Vec::new();
    let mut key = |name: &str, type_id: u32| {
        keys.extend((name.len() as u64).to_le_bytes());
        keys.extend(name.as_bytes());
        keys.extend(type_id.to_le_bytes());
    };
    key("filler", 8);
    keys.extend(1u64.to_le_bytes());
    keys.push(b'.');
    for (name, value) in [("split.no", no), ("split.count", count)] {
        keys.extend((name.len() as u64).to_le_bytes());
        keys.extend(name.as_bytes());
        keys.extend(4u32.to_le_bytes());
        keys.extend(value.to_le_bytes());
    }
    let missing = keys.len().next_multiple_of(32) - keys.len();
    keys[18] += missing as u8;
    let filler = vec![b'.'; missing];
    keys.splice(26..26, filler);
    let count = u64::from_le_bytes(file[16..24].try_into().unwrap()) + 3;
    [&file[..16], &count.to_le_bytes()[..], &keys, &file[24..]].concat()
}

#[test]
fn any_file_of_a_split_model_runs_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = [&b"GGUF\x03\0\0\0"[..], &[0; 16]].concat();
    let second = numbered(&empty, 1, 2);
    for [one, two] in [
        ["tiny-00001-of-00002.gguf", "tiny-00002-of-00002.gguf"],
        ["split_1_of_2.gguf", "split_2_of_2.gguf"],
    ] {
        let one = put(&folder, one, &numbered(TINY, 0, 2));
        let two = put(&folder, two, &second);
        runs_as_tiny(&one);
        runs_as_tiny(&two);
        let (code, stdout, _) = outcome(&["inspect"], &two);
        assert!(code == 0 && stdout.contains("tensors in 2 files"), "{stdout}");
        std::fs::remove_file(&one).unwrap();
        let missing = format!("{}: file 1 of 2 of the model that {}", one.display(), two.display());
        fails(&two, &missing);
    }
}

/// Larger than 32 bits can say; sparse, so that it takes no room.
#[test]
fn tensors_behind_5_gib_are_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(&folder, "far.gguf", FAR_HEAD);
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start((5 << 30) + FAR_HEAD.len() as u64)).unwrap();
    file.write_all(&TINY[FAR_HEAD.len()..]).unwrap();
    drop(file);
    runs_as_tiny(&path);
}

#[test]
fn what_is_odd_is_a_warning_and_the_model_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = TINY.to_vec();
    let name = find(&bytes, "general.name") + "general.name".len() + 4 + 8;
    bytes[name] = 0xff;
    let path = put(&folder, "odd.gguf", &bytes);
    let stderr = runs_as_tiny(&path);
    let warning = "warning: the value of general.name is not valid UTF-8";
    assert_eq!(stderr.matches(warning).count(), 1, "{stderr}");
    let (code, stdout, stderr) = outcome(&["inspect"], &path);
    assert!(code == 0 && stderr.starts_with(warning), "{stderr}");
    assert!(
        stdout.contains("\u{fffd}iny")
            && stdout.ends_with("brooklet runs this model, of the family llama\n")
    );
}

#[test]
fn an_odd_vocabulary_is_a_warning_and_one_without_merges_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let without = |key: &str| {
        let mut bytes = TINY.to_vec();
        let end = find(&bytes, key) + key.len();
        bytes[end - 1] = b'_';
        put(&folder, "odd.gguf", &bytes)
    };
    let path = without("tokenizer.ggml.pre");
    let warning = "warning: the file does not say how its model splits text (tokenizer.ggml.pre)";
    assert_eq!(runs_as_tiny(&path).matches(warning).count(), 1);
    let (code, stdout, stderr) = outcome(&["inspect"], &path);
    assert!(code == 0 && stderr.starts_with(warning), "{stderr}");
    assert!(stdout.ends_with("brooklet runs this model, of the family llama\n"), "{stdout}");

    let (code, stdout, _) = outcome(&["inspect"], &without("tokenizer.ggml.merges"));
    assert!(code == 0 && stdout.contains("lacks the key tokenizer.ggml.merges"), "{stdout}");
    let (code, _, stderr) = run(&without("tokenizer.ggml.merges"));
    assert!(code == 1 && stderr.contains("lacks the key tokenizer.ggml.merges"), "{stderr}");
}

/// llama.cpp refuses it too; whoever asked first was told that it runs.
#[test]
fn inspect_says_what_run_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = TINY.to_vec();
    // after the name: the number of dimensions, columns, rows
    let rows = find(&bytes, "token_embd.weight") + "token_embd.weight".len() + 4 + 8;
    assert_eq!(bytes[rows..rows + 8], 320u64.to_le_bytes());
    bytes[rows..rows + 8].copy_from_slice(&319u64.to_le_bytes());
    let path = put(&folder, "padded.gguf", &bytes);
    let why = "the embedding has 319 rows and the tokenizer 320 tokens";
    let (code, stdout, _) = outcome(&["inspect"], &path);
    assert!(code == 0 && stdout.contains("brooklet cannot run this model") && stdout.contains(why));
    let (code, stdout, stderr) = run(&path);
    assert!((code, stdout.as_str()) == (1, "") && stderr.contains(why), "{code}: {stderr}");
}

#[test]
fn a_damaged_file_is_a_failure_and_no_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let patched = |name: &str, at: &str, offset: usize, bytes: &[u8]| {
        let mut file = TINY.to_vec();
        let at = find(&file, at) + at.len() + offset;
        file[at..at + bytes.len()].copy_from_slice(bytes);
        put(&folder, name, &file)
    };
    fails(&put(&folder, "short.gguf", &TINY[..TINY.len() - 100]), "the file is truncated");
    fails(&put(&folder, "empty.gguf", b""), "the file is empty");
    fails(&put(&folder, "page.gguf", b"<!doctype html>"), "this is not a GGUF file");
    fails(&patched("offset.gguf", "token_embd.weight", 24, &[1]), "is not a multiple of 32");
    // What only a model that is to run is asked for.
    for (key, value, message) in [
        ("llama.block_count", 0, "llama.block_count is 0"),
        ("llama.block_count", 3, "blk.2.attn_norm.weight is missing"),
        ("llama.attention.head_count_kv", 3, "do not share 3"),
        ("llama.rope.dimension_count", 99, "99 of 16 dimensions"),
        ("llama.context_length", 0, "llama.context_length is 0"),
        ("llama.feed_forward_length", 96, "has shape [64, 84]"),
        ("tokenizer.ggml.eos_token_id", 0, ""),
    ] {
        let path = patched("key.gguf", key, 4, &[value, 0, 0, 0]);
        let (code, _, stderr) = run(&path);
        let expected = i32::from(!message.is_empty());
        assert!(code == expected && stderr.contains(message), "{key} {value}: {code}: {stderr}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_is_said_to_be_no_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fails(&pipe, "a model must be a file");
}

#[test]
fn an_architecture_that_does_not_run_is_named_before_a_vocabulary_that_does_not() {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let (string, counts) = (8u32.to_le_bytes(), [0u64, 2].map(u64::to_le_bytes).concat());
    let mut file = [&b"GGUF"[..], &3u32.to_le_bytes(), &counts].concat();
    for (key, value) in [("general.architecture", "rwkv7"), ("tokenizer.ggml.model", "rwkv")] {
        file.extend([text(key), string.to_vec(), text(value)].concat());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwkv.gguf");
    std::fs::write(&path, file).unwrap();
    let (code, stdout, stderr) = run(&path);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("the model's architecture is rwkv7; this version runs"), "{stderr}");
}
