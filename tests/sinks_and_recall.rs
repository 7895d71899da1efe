//! `sinkscan`, `--sinks auto` and `streameval` as a user sees them. On a tiny random model.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
use assert_cmd::Command;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf");

/// Runs with a cache folder of its own and gives exit code, stdout, stderr.
fn outcome(cache: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brooklet"));
    let output = command
        .args(args)
        .env("BROOKLET_CACHE", cache)
        .timeout(Duration::from_secs(600))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(cache: &Path, args: &[&str]) -> Value {
    let (code, stdout, stderr) = outcome(cache, args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

#[track_caller]
fn fails(cache: &Path, code: i32, args: &[&str], messages: &[&str]) {
    let (found, stdout, stderr) = outcome(cache, args);
    assert_eq!((found, stdout.as_str()), (code, ""), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    for message in messages {
        assert!(stderr.contains(message), "{args:?}: {message:?} is not in {stderr}");
    }
}

#[test]
fn what_a_scan_finds_is_what_auto_uses() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path();
    let auto = ["run", "-m", TINY, "-p", "a", "-n", "2", "--sinks", "auto", "--json"];
    fails(cache, 2, &auto, &["--sinks auto", "brooklet sinkscan -m", TINY]);

    let svg = cache.join("sinks.svg");
    let scan = ["sinkscan", "-m", TINY, "-n", "200", "--stretch", "90", "--json"];
    let unkept = json(cache, &[&scan[..], &["--no-store"]].concat());
    assert_eq!(unkept["stored"], Value::Null);
    fails(cache, 2, &auto, &["--sinks auto"]);
    let report = json(cache, &[&scan[..], &["--chart", svg.to_str().unwrap()]].concat());
    assert_eq!(report["interrupted"], false);
    assert_eq!((&report["stretches"], &report["queries"]), (&2.into(), &90.into()));
    let layers = report["shares"].as_array().unwrap();
    let heads: Vec<&Value> = layers.iter().flat_map(|heads| heads.as_array().unwrap()).collect();
    assert_eq!((layers.len(), heads.len()), (2, 8));
    for shares in heads {
        let sum: f64 = shares.as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).sum();
        assert!(shares.as_array().unwrap().len() == 8 && sum > 0.0 && sum < 1.0, "{shares}");
    }
    assert_eq!(unkept["shares"], report["shares"], "the same again");
    let cells = std::fs::read_to_string(&svg).unwrap().matches("<rect").count();
    assert!(cells > 8, "{cells} rectangles");

    // Something a default would not be.
    let stored = report["stored"].as_str().unwrap();
    let mut kept: Value = serde_json::from_slice(&std::fs::read(stored).unwrap()).unwrap();
    assert_eq!(kept["sinks"], report["sinks"]);
    kept["sinks"] = 3.into();
    std::fs::write(stored, kept.to_string()).unwrap();
    let (code, stdout, stderr) = outcome(cache, &auto);
    assert_eq!(code, 0, "{stderr}");
    let summary: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(summary["summary"]["sinks"], 3);
    assert!(stderr.contains("--sinks auto: 3"), "{stderr}");
    // Nothing but streaming has sinks.
    let window = json(cache, &[&auto[..], &["--policy", "window"]].concat());
    assert_eq!(window["summary"]["sinks"], 0);

    std::fs::write(stored, "{").unwrap();
    fails(cache, 2, &auto, &[stored, "cannot be understood", "sinkscan"]);
}

#[test]
fn streameval_reports_each_distance() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, svg) = (folder.path().join("q.csv"), folder.path().join("q.svg"));
    let shared = ["streameval", "-m", TINY, "--lines", "8", "--every", "2", "--window", "100"];
    let rest = ["--distance", "1,5", "--json", "--csv", csv.to_str().unwrap(), "--chart"];
    let args = [&shared[..], &rest, &[svg.to_str().unwrap()]].concat();
    let report = json(folder.path(), &args);
    assert!(report["tokens_per_line"].as_f64().unwrap() > 20.0, "{report}");
    assert_eq!((&report["sinks"], &report["window"]), (&4.into(), &100.into()));
    let [near, far] = &report["distances"].as_array().unwrap()[..] else { panic!("{report}") };
    // after lines 1, 3, 5, 7; after 5 and 7
    assert_eq!((&near["queries"], &far["queries"]), (&4.into(), &2.into()));
    assert_eq!(far["held"], 0);
    assert!(far["tokens"].as_f64().unwrap() > 100.0);
    let lines = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(lines.lines().count(), 1 + 4 + 2, "{lines}");
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg"));
    assert_eq!(json(folder.path(), &args)["distances"], report["distances"], "the same again");

    let (code, table, _) = outcome(folder.path(), &[&shared[..], &["--distance", "5"]].concat());
    assert_eq!(code, 0);
    assert!(table.contains("forgotten") && table.contains("tokens a line"), "{table}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let eval = |rest: &[&'static str]| [&["streameval", "-m", TINY], rest].concat();
    let scan = |rest: &[&'static str]| [&["sinkscan", "-m", TINY], rest].concat();
    for (args, messages) in [
        (eval(&["--distance", "300"]), ["--distance 300", "--lines 301"]),
        (eval(&["--lines", "0"]), ["--lines", "0"]),
        (eval(&["--policy", "recompute"]), ["recompute", "dense"]),
        (eval(&["--window", "0"]), ["--window 0", "1 or more"]),
        (scan(&["-p", "short"]), ["tokens show nothing", "16"]),
        (scan(&["--stretch", "5000", "-n", "6000"]), ["a stretch of", "4096"]),
    ] {
        fails(folder.path(), 2, &args, &messages);
    }
    fails(folder.path(), 1, &scan(&["-f", "/nowhere.txt"]), &["/nowhere.txt"]);
}
