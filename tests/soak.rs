//! `soak` on a tiny model: what it reports, and that a run can be taken up again.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
use assert_cmd::Command;
use serde_json::Value;
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_brooklet");
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf");

fn soak(args: &[&str]) -> Value {
    let mut command = Command::new(BINARY);
    command.args(["soak", "-m", TINY, "--json"]).args(args).timeout(Duration::from_secs(300));
    let output = command.assert().success().get_output().clone();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn thousands_of_tokens_are_the_papers() {
    let folder = tempfile::TempDir::new().unwrap();
    let csv = folder.path().join("soak.csv");
    let csv = csv.to_str().unwrap();
    let shape = ["--tokens", "3000", "--every", "100", "--window", "20", "--kv", "f32"];
    let report = soak(&[&shape[..], &["--csv", csv]].concat());
    assert_eq!((&report["tokens"], &report["looks"]), (&3000.into(), &30.into()));
    assert_eq!(report["report"]["tenths"].as_array().unwrap().len(), 10);
    assert_eq!((&report["gpu_flat"], &report["oracle_equal"]), (&true.into(), &true.into()));
    assert!(report["report"]["difference"].as_f64().unwrap() > 0.0, "nothing was compared");
    for key in ["adapter", "backend", "driver"] {
        assert!(!report[key].as_str().unwrap().is_empty(), "{key}: {report}");
    }
    assert_eq!(std::fs::read_to_string(csv).unwrap().lines().count(), 31);
}

#[test]
fn a_run_is_taken_up_again() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("soak.bin");
    let file = file.to_str().unwrap();
    let first = soak(&["--tokens", "600", "--every", "60", "--window", "12", "--save", file]);
    assert_eq!(first["looks"], 10);
    let both = soak(&["--tokens", "1200", "--every", "60", "--resume", file]);
    assert_eq!((&both["looks"], &both["window"]), (&20.into(), &12.into()));
    assert_eq!(both["oracle_equal"], true);
    let mut command = Command::new(BINARY);
    command.args(["soak", "-m", TINY, "--tokens", "700", "--resume", file, "--window", "13"]);
    let refused = command.assert().code(2).get_output().clone();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--window"));
}
