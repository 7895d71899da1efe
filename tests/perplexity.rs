//! What a user of `brooklet ppl` sees: figures, files, messages, exit codes. On a tiny random model.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf");

/// 300 tokens or so of the tiny model's.
fn text(folder: &Path) -> PathBuf {
    let path = folder.join("text.txt");
    std::fs::write(&path, "The brook runs past the mill, and past the mill it runs on. ".repeat(7))
        .unwrap();
    path
}

fn outcome(text: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brooklet"));
    command.args(["ppl", "-m", TINY]).arg(text).args(args).timeout(Duration::from_secs(600));
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn report(text: &Path, args: &[&str]) -> Value {
    let (code, stdout, stderr) = outcome(text, &[args, &["--json"]].concat());
    assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
    serde_json::from_str(&stdout).unwrap()
}

fn ppl(nll: &[f64]) -> f64 {
    (nll.iter().sum::<f64>() / nll.len() as f64).exp()
}

#[track_caller]
fn near(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!((found / expected - 1.0).abs() < 1e-6, "{found} is not {expected}");
}

#[test]
fn a_line_for_each_token_and_what_they_come_to() {
    let folder = TempDir::new().unwrap();
    let (text, csv) = (text(folder.path()), folder.path().join("nll.csv"));
    let csv_arg = csv.to_str().unwrap();
    let shape = ["--window", "12", "--tokens", "100", "--ranges", "0-40,40-100,90-110"];
    let report = report(&text, &[&shape[..], &["--csv", csv_arg]].concat());
    let lines = std::fs::read_to_string(&csv).unwrap();
    let mut lines = lines.lines();
    assert_eq!(lines.next(), Some("index,token,nll"));
    let rows: Vec<Vec<f64>> =
        lines.map(|line| line.split(',').map(|field| field.parse().unwrap()).collect()).collect();
    let indices: Vec<usize> = rows.iter().map(|row| row[0] as usize).collect();
    assert_eq!(indices, (1..=100).collect::<Vec<_>>());
    let nll: Vec<f64> = rows.iter().map(|row| row[2]).collect();
    assert!(nll.iter().all(|&nll| nll > 0.0), "{nll:?}");

    let [run] = &report["runs"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!((&run["policy"], &run["kv"]), (&"streaming".into(), &"f16".into()));
    assert_eq!(
        (&run["sinks"], &run["window"], &run["tokens"]),
        (&4.into(), &12.into(), &100.into())
    );
    near(&run["ppl"], ppl(&nll));
    let ranges = run["ranges"].as_array().unwrap();
    assert_eq!(ranges.len(), 2, "the third is not there to its end: {run}");
    near(&ranges[0]["ppl"], ppl(&nll[..40]));
    near(&ranges[1]["ppl"], ppl(&nll[40..]));
    assert_eq!(report["interrupted"], false);
}

#[test]
fn a_table_a_file_and_a_chart_of_several_caches() {
    let folder = TempDir::new().unwrap();
    let (text, csv, svg) =
        (text(folder.path()), folder.path().join("nll.csv"), folder.path().join("ppl.svg"));
    let files = ["--csv", csv.to_str().unwrap(), "--chart", svg.to_str().unwrap()];
    let args =
        ["--policy", "streaming,window,dense,recompute", "--window", "12", "--positions", "5"];
    let (code, stdout, stderr) = outcome(&text, &[&args[..], &files].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("recompute 0 + 16: 5 tokens"), "how long it takes: {stderr}");
    for line in
        ["streaming        4      12", "window           0      16", "recompute        0      16"]
    {
        assert!(stdout.contains(line), "{line:?} is not in {stdout}");
    }
    let rows = std::fs::read_to_string(csv).unwrap();
    assert!(rows.starts_with("policy,sinks,window,index,token,nll\nstreaming,4,12,1,"), "{rows}");
    assert_eq!(rows.lines().filter(|row| row.starts_with("recompute,0,16,")).count(), 5);
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("streaming 4 + 12"), "{svg}");
}

#[test]
fn a_sample_is_the_same_for_all() {
    let folder = TempDir::new().unwrap();
    let text = text(folder.path());
    let shape = ["--window", "12", "--kv", "f32", "--tokens", "130"];
    let both = ["--policy", "recompute,dense", "--every", "20", "--after", "70"];
    let found = report(&text, &[&shape[..], &both].concat());
    assert_eq!(found["sample"], serde_json::json!([90, 110, 130]));
    let [recompute, dense] = &found["runs"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!((&recompute["tokens"], &dense["tokens"]), (&3.into(), &130.into()));
    assert_eq!(recompute["ppl"], recompute["sample_ppl"]);
    assert_ne!(dense["ppl"], dense["sample_ppl"]);
    assert_ne!(
        dense["sample_ppl"], recompute["sample_ppl"],
        "what is forgotten makes a difference"
    );
    // what sees all is dense
    let whole =
        ["--policy", "recompute,dense", "--window", "200", "--every", "20", "--after", "70"];
    let found = report(&text, &[&["--kv", "f32", "--tokens", "130"], &whole[..]].concat());
    let ppl = |run: usize| found["runs"][run]["sample_ppl"].as_f64().unwrap();
    assert!((ppl(0) / ppl(1) - 1.0).abs() < 1e-4, "{found}");
}

#[test]
fn a_sweep_keeps_the_size_of_the_cache() {
    let folder = TempDir::new().unwrap();
    let text = text(folder.path());
    let shapes = |args: &[&str]| -> Vec<(u64, u64)> {
        let report = report(&text, &[&["--tokens", "40"], args].concat());
        let runs = report["runs"].as_array().unwrap().clone();
        let number = |value: &Value| value.as_u64().unwrap();
        runs.iter().map(|run| (number(&run["sinks"]), number(&run["window"]))).collect()
    };
    let sinks = shapes(&["--window", "12", "--sweep", "sinks=0,1,4"]);
    assert_eq!(sinks, [(0, 16), (1, 15), (4, 12)]);
    let windows = shapes(&["--sinks", "2", "--sweep", "window=5,9"]);
    assert_eq!(windows, [(2, 5), (2, 9)]);
    let both = shapes(&["--policy", "window,streaming", "--window", "12", "--sweep", "sinks=1,2"]);
    assert_eq!(both, [(0, 16), (1, 15), (2, 14)]);
    let dense = shapes(&["--policy", "dense", "--window", "25"]);
    assert_eq!(dense, [(0, 25)]);
    let dense = shapes(&["--policy", "dense,window", "--window", "12", "--context", "30"]);
    assert_eq!(dense, [(0, 30), (0, 16)]);
}

#[test]
fn what_comes_before_the_text_is_seen_and_not_counted() {
    let folder = TempDir::new().unwrap();
    let text = text(folder.path());
    let shape = ["--window", "12", "--tokens", "60", "--kv", "f32"];
    let [with, without] = [&["--prefix", "10,10,10,10"][..], &[]].map(|prefix| {
        let report = report(&text, &[&shape[..], prefix].concat());
        (report["runs"][0]["tokens"].clone(), report["runs"][0]["ppl"].clone())
    });
    assert_eq!((&with.0, &without.0), (&60.into(), &60.into()));
    assert_ne!(with.1, without.1);
    // a dense stream of exactly that
    let path = folder.path().join("more.txt");
    let more = ["\n\n\n\n", &std::fs::read_to_string(&text).unwrap()].concat();
    std::fs::write(&path, more).unwrap();
    let dense = ["--policy", "dense", "--kv", "f32"];
    let part = report(&path, &[&dense[..], &["--tokens", "64", "--ranges", "4-64"]].concat());
    let prefixed = ["--tokens", "60", "--prefix", "10,10,10,10"];
    let found = report(&text, &[&dense[..], &prefixed].concat());
    near(&found["runs"][0]["ppl"], part["runs"][0]["ranges"][0]["ppl"].as_f64().unwrap());
}

#[test]
fn what_cannot_be_measured_is_said() {
    let folder = TempDir::new().unwrap();
    let good = text(folder.path());
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let [empty, short] = [write("empty", b""), write("short", b"q")];
    let binary = write("binary", b"abc\xff");
    let missing = folder.path().join("missing");
    #[rustfmt::skip]
    let cases: [(i32, &Path, &[&str], &str); 14] = [
        (2, &empty, &[], "a text of 0 tokens has nothing to predict"),
        (2, &short, &[], "a text of 1 tokens has nothing to predict"),
        (2, &binary, &[], "byte 3 is not UTF-8"),
        (1, &missing, &[], "missing"),
        (2, &good, &["--tokens", "100000"], "tokens to predict"),
        (2, &good, &["--sweep", "rings=1"], "sinks=0,1,2,4,8"),
        (2, &good, &["--sweep", "sinks=1,x"], "sinks=0,1,2,4,8"),
        (2, &good, &["--sweep", "sinks=16", "--window", "12"], "no room for a window"),
        (2, &good, &["--sweep", "sinks=1", "--policy", "window"], "have no sinks to change"),
        (2, &good, &["--ranges", "5-5"], "0-2048 is what it takes"),
        (2, &good, &["--prefix", "320"], "token 320 is not one of the model's 320"),
        (2, &good, &["--policy", "recompute", "--after", "9999"], "--after 9999"),
        (2, &good, &["--policy", "window", "--sinks", "3"], "--sinks 3: only policy streaming and half-discard have sinks"),
        (1, &good, &["--csv", "/nowhere/nll.csv"], "/nowhere/nll.csv"),
    ];
    for (code, text, args, message) in cases {
        let (found, stdout, stderr) = outcome(text, args);
        assert_eq!((found, stdout.as_str()), (code, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {message:?} is not in {stderr}");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}
