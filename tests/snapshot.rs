//! Streams that outlive their process: what `run --save` keeps, `run --resume` goes on with, token for token.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_brooklet");
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf");
const PROMPT: &str = "Sinks stay, the ring goes round.";
const CACHE: [&str; 4] = ["--window", "12", "--chunk", "9"];
const SAMPLED: [&str; 4] = ["--temp", "1.5", "--seed", "5"];

fn run(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(BINARY);
    command.args(["run", "-m", TINY, "--quiet"]).args(args).timeout(Duration::from_secs(300));
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Token ids and the summary.
fn tokens(args: &[&str]) -> (Vec<u64>, Value) {
    let (code, stdout, stderr) = run(&[args, &["--json"]].concat());
    assert_eq!(code, 0, "{args:?}: {stderr}");
    let mut lines: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap()["summary"].take();
    (lines.iter().map(|line| line["token"].as_u64().unwrap()).collect(), summary)
}

fn text(args: &[&str]) -> String {
    let (code, stdout, stderr) = run(args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    stdout.strip_suffix('\n').unwrap().to_owned()
}

#[track_caller]
fn refused(code: i32, args: &[&str], words: &[&str]) {
    let (found, stdout, stderr) = run(args);
    assert_eq!((found, &stdout[..]), (code, ""), "{args:?}: {stderr}");
    assert!(words.iter().all(|word| stderr.contains(word)), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("stream.bin");
    (folder, file)
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn parts_make_the_whole_text() {
    let (folder, file) = folder();
    let file = name(&file);
    for sampling in [&["--temp", "0"][..], &SAMPLED] {
        let start = [&["-p", PROMPT], &CACHE[..], sampling].concat();
        let whole = text(&[&start[..], &["-n", "90"]].concat());
        let mut parts = text(&[&start[..], &["-n", "7", "--save", file]].concat());
        for n in ["1", "40", "30"] {
            parts += &text(&["--resume", file, "--save", file, "-n", n]);
        }
        let (rest, summary) = tokens(&["--resume", file, "-n", "12"]);
        assert_eq!(summary["resumed_at"].as_u64().unwrap(), 78 + summary_of(&start));
        assert_eq!(rest, tokens(&[&start[..], &["-n", "90"]].concat()).0[78..], "{sampling:?}");
        parts += &text(&["--resume", file, "-n", "12"]);
        assert_eq!(parts, whole, "{sampling:?}");
    }
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

/// Tokens of the prompt.
fn summary_of(start: &[&str]) -> u64 {
    tokens(&[start, &["-n", "1"]].concat()).1["prompt_tokens"].as_u64().unwrap()
}

#[test]
fn a_text_may_follow() {
    let (_folder, file) = folder();
    let file = name(&file);
    let start = ["-p", PROMPT, "--temp", "0", "-n", "0", "--kv", "f32", "--save", file];
    let (_, summary) = tokens(&start);
    assert_eq!(summary["saved"]["position"], summary["prompt_tokens"]);
    assert_eq!(summary["saved"]["file"], file);
    let (ids, _) = tokens(&["--resume", file, "-p", "!?", "-n", "20"]);
    let whole = format!("{PROMPT}!?");
    let (expected, _) = tokens(&["-p", &whole, "--temp", "0", "-n", "20", "--kv", "f32"]);
    assert_eq!(ids, expected);
}

#[test]
fn what_contradicts_the_file_is_refused() {
    let (folder, file) = folder();
    let file = name(&file);
    let start = [&["-p", PROMPT, "-n", "5", "--save", file], &CACHE[..], &SAMPLED].concat();
    tokens(&start);
    for (flag, value, was) in [
        ("--window", "13", "12"),
        ("--sinks", "2", "4"),
        ("--policy", "window", "streaming"),
        ("--kv", "f32", "f16"),
        ("--temp", "0", "1.5"),
        ("--seed", "6", "5"),
    ] {
        refused(2, &["--resume", file, flag, value, "-n", "1"], &[flag, value, was]);
    }
    refused(2, &["--resume", file, "--stop-at-eos", "-n", "1"], &["--stop-at-eos"]);
    // what agrees is no contradiction
    tokens(&["--resume", file, "--window", "12", "--seed", "5", "--temp", "1.5", "-n", "1"]);

    let other = folder.path().join("other.gguf");
    let mut bytes = std::fs::read(TINY).unwrap();
    let at = bytes.windows(4).position(|four| four == b"tiny").unwrap();
    bytes[at..at + 4].copy_from_slice(b"TINY");
    std::fs::write(&other, bytes).unwrap();
    let mut command = Command::new(BINARY);
    let failed = command.args(["run", "-m", name(&other), "--resume", file, "-n", "1"]);
    let stderr = String::from_utf8(failed.assert().code(2).get_output().stderr.clone()).unwrap();
    assert!(stderr.contains("tiny") && stderr.contains("TINY"), "{stderr}");
}

#[test]
fn what_is_no_saved_stream_is_neither_read_nor_overwritten() {
    let (folder, file) = folder();
    let file = name(&file);
    refused(1, &["--resume", file], &["stream.bin"]);
    refused(1, &["--resume", TINY], &["not a saved stream", "GGUF"]);
    refused(2, &["--resume", name(folder.path())], &["not a file"]);
    refused(2, &["--save", TINY], &["not a saved stream", "not be overwritten"]);
    refused(2, &["--save", name(folder.path())], &["not a file"]);
    refused(2, &["--save", name(&folder.path().join("no/where"))], &["no such folder"]);
    tokens(&["-p", PROMPT, "-n", "5", "--save", file]);
    let whole = std::fs::read(file).unwrap();
    std::fs::write(file, &whole[..whole.len() - 1]).unwrap();
    refused(1, &["--resume", file], &["stream.bin: byte ", "damaged"]);
}

/// A folder that is moved away under the process stands for a disk that fills up: no save succeeds any more.
#[cfg(unix)]
#[test]
fn a_failed_save_is_a_warning_and_the_old_file_stays() {
    let (folder, _) = folder();
    let [here, there] = ["here", "there"].map(|name| folder.path().join(name));
    std::fs::create_dir(&here).unwrap();
    let file = here.join("stream.bin");
    let start = [&["-p", PROMPT], &CACHE[..], &SAMPLED].concat();
    let mut command = std::process::Command::new(BINARY);
    command.args(["run", "-m", TINY, "--quiet", "--json", "--save-every", "5"]).args(&start);
    command.args(["--save", name(&file), "-n", "600"]);
    let piped = std::process::Stdio::piped;
    let child = command.stdout(piped()).stderr(piped()).spawn().unwrap();
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::fs::rename(&here, &there).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 601, "it went on");
    assert!(stderr.contains("still holds the stream at token"), "{stderr}");
    assert!(stderr.contains("saves failed"), "{stderr}");
    let (ids, summary) = tokens(&["--resume", name(&there.join("stream.bin")), "-n", "8"]);
    let at = (summary["resumed_at"].as_u64().unwrap() - summary_of(&start)) as usize;
    let whole = tokens(&[&start[..], &["-n", "600"]].concat()).0;
    assert_eq!(ids, whole[at..at + 8]);
}

/// Numbers that differ from run to run, as `kill -9` does.
#[cfg(unix)]
#[test]
fn a_process_killed_at_any_moment_leaves_a_stream_that_goes_on() {
    use std::hash::{BuildHasher, RandomState};
    use std::process::Stdio;
    let (_folder, file) = folder();
    let file = name(&file);
    let start = [&["-p", PROMPT], &CACHE[..], &SAMPLED].concat();
    let prompt = summary_of(&start);
    let every = ["--save", file, "--save-every", "3", "--json"];
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(BINARY);
        let command = command.args(["run", "-m", TINY, "--quiet"]).args(args).args(every);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut positions = Vec::new();
    let mut checked: Vec<(u64, Vec<u64>)> = Vec::new();
    for kill in 0..20 {
        let mut child = if kill == 0 { run(&start) } else { run(&["--resume", file]) };
        let saved_once = || std::fs::metadata(file).is_ok();
        while kill == 0 && !saved_once() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let moment = RandomState::new().hash_one(kill) % 1500;
        std::thread::sleep(Duration::from_millis(moment));
        child.kill().unwrap();
        child.wait().unwrap();
        let (ids, summary) = tokens(&["--resume", file, "-n", "8"]);
        let at = summary["resumed_at"].as_u64().unwrap() - prompt;
        positions.push(at);
        checked.push((at, ids));
    }
    assert!(positions.is_sorted(), "{positions:?}");
    let most = positions[19] + 8;
    let (whole, _) = tokens(&[&start[..], &["-n", &most.to_string()]].concat());
    for (at, ids) in checked {
        assert_eq!(ids, whole[at as usize..][..8], "from {at}");
    }
}
