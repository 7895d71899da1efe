//! The choice of kernels as a user meets it: measured at the first load, kept in the cache folder, shown.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
use assert_cmd::Command;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf");

/// stdout and stderr of a command that succeeds, with a cache folder of its own.
fn brooklet(cache: &Path, args: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brooklet"));
    command.args(args).env("BROOKLET_CACHE", cache).timeout(Duration::from_secs(120));
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    (stdout, stderr)
}

/// The kernels that a run says it has, and where they come from.
fn kernels(cache: &Path, more: &[&str]) -> Value {
    let args = ["run", "-m", TINY, "-p", "a", "-n", "2", "--json", "--quiet"];
    let (stdout, stderr) = brooklet(cache, &[&args, more].concat());
    assert_eq!(stderr, "", "a choice is nothing to complain of");
    let summary: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    for key in ["load_ms", "upload_ms", "pipelines_ms", "ttft_ms"] {
        assert!(summary["summary"][key].as_f64().unwrap() > 0.0, "{key}: {summary}");
    }
    summary["summary"]["variant"].clone()
}

#[test]
fn a_choice_is_measured_once_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    // One that is made on the way.
    let cache = folder.path().join("not").join("there");
    assert_eq!(kernels(&cache, &["--tune", "off"])["origin"], "class");
    assert!(!cache.join("tuning.json").exists(), "nothing was measured");
    assert_eq!(kernels(&cache, &[])["origin"], "measured");
    let kept = kernels(&cache, &[]);
    assert_eq!(kept["origin"], "kept");
    assert_eq!(kernels(&cache, &["--tune", "again"])["origin"], "measured");

    let (devices, _) = brooklet(&cache, &["devices", "--json"]);
    let lines = devices.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let tuned: Vec<_> = lines.map(|device| device["tuned"]["F16"].clone()).collect();
    assert_eq!(tuned.iter().filter(|variant| variant["rows"].is_u64()).count(), 1, "{devices}");
    let (devices, _) = brooklet(&cache, &["devices"]);
    assert!(devices.contains("fastest with F16"), "{devices}");
    let (_, statistics) = brooklet(&cache, &["run", "-m", TINY, "-p", "a", "-n", "2"]);
    assert!(statistics.contains("earlier load"), "{statistics}");
    assert!(statistics.contains("weights uploaded after"), "{statistics}");
    let (table, _) = brooklet(&cache, &["bench", "-m", TINY, "--counters", "-n", "4"]);
    assert!(table.contains("rows a workgroup"), "{table}");
}

#[test]
fn a_damaged_or_forbidden_folder_is_no_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tuning.json");
    for damaged in ["", "not JSON", "{\"a\": 1}", "[[[["] {
        std::fs::write(&file, damaged).unwrap();
        assert_eq!(kernels(folder.path(), &[])["origin"], "measured", "{damaged:?}");
        assert_eq!(kernels(folder.path(), &[])["origin"], "kept", "{damaged:?}");
    }
    // Where a folder should be there is a file: nothing can be kept.
    let nowhere = file.join("below");
    assert_eq!(kernels(&nowhere, &[])["origin"], "measured");
    assert_eq!(kernels(&nowhere, &[])["origin"], "measured");
}
