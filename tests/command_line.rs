//! What a user of the binary sees: output, messages, exit codes. On a tiny random model.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
use assert_cmd::Command;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_brooklet");
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf");
const PROMPT: &str = "Sinks stay, the ring goes round.";

fn brooklet(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(args).timeout(Duration::from_secs(120));
    // Another test measures: two runs that are compared must have the same kernels.
    if matches!(args.first(), Some(&("run" | "logits" | "bench"))) {
        command.args(["--tune", "off"]);
    }
    command
}

/// Runs to the end and gives exit code, stdout, stderr.
fn outcome(args: &[&str]) -> (i32, String, String) {
    let output = brooklet(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn fails(code: i32, args: &[&str], messages: &[&str]) {
    let (found, stdout, stderr) = outcome(args);
    assert_eq!(found, code, "{args:?}: {stderr}");
    assert_eq!(stdout, "", "{args:?}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    for message in messages {
        assert!(stderr.contains(message), "{args:?}: {message:?} is not in {stderr}");
    }
}

/// The token ids and the summary of a `run --json`.
fn tokens(args: &[&str]) -> (Vec<u64>, Value) {
    let all = [&["run", "-m", TINY, "--json", "--quiet"], args].concat();
    let (code, stdout, stderr) = outcome(&all);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    let mut lines: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap()["summary"].take();
    let ids = lines.iter().map(|line| {
        assert!(line["text"].is_string(), "{line}");
        line["token"].as_u64().unwrap()
    });
    (ids.collect(), summary)
}

#[test]
fn json_names_everything_it_promises() {
    let (ids, summary) = tokens(&["-p", PROMPT, "-n", "40", "--window", "12", "--seed", "3"]);
    assert_eq!(ids.len(), 40);
    assert_eq!(summary["generated_tokens"], 40);
    assert_eq!(summary["stop_reason"], "length");
    assert_eq!((&summary["sinks"], &summary["window"]), (&4.into(), &12.into()));
    assert_eq!(summary["ring"], 12 + 64);
    assert_eq!(summary["activations"], "f32");
    let given = summary["prompt_tokens"].as_u64().unwrap() + 40;
    assert_eq!(summary["evicted"], given - 4 - 12);
    for key in ["prefill_tps", "decode_tps", "ttft_ms", "kv_bytes", "weight_bytes"] {
        assert!(summary[key].as_f64().unwrap() > 0.0, "{key}: {summary}");
    }
    for key in ["policy", "adapter", "backend", "driver"] {
        assert!(!summary[key].as_str().unwrap().is_empty(), "{key}: {summary}");
    }
}

#[test]
fn greedy_on_the_gpu_is_greedy_on_the_cpu() {
    // window 9: both go round the ring several times
    let shared = ["-p", PROMPT, "-n", "100", "--window", "9", "--chunk", "3", "--kv", "f32"];
    let (gpu, _) = tokens(&[&shared[..], &["--temp", "0"]].concat());
    let (cpu, _) = tokens(&[&shared[..], &["--temp", "1", "--top-k", "1"]].concat());
    assert_eq!(gpu, cpu);
    let (dense, _) = tokens(&["-p", PROMPT, "-n", "100", "--policy", "dense", "--temp", "0"]);
    assert_ne!(gpu, dense, "what left the window should have made a difference");
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let run = |seed| tokens(&["-p", PROMPT, "-n", "30", "--temp", "1.5", "--seed", seed]).0;
    assert_eq!(run("7"), run("7"));
    assert_ne!(run("7"), run("8"));
}

#[test]
fn a_dense_cache_ends_when_it_is_full() {
    let (ids, summary) = tokens(&["-p", PROMPT, "--policy", "dense", "--window", "64"]);
    assert_eq!(summary["stop_reason"], "cache full");
    assert_eq!(ids.len() as u64, 64 - summary["prompt_tokens"].as_u64().unwrap() + 1);
}

#[test]
fn recompute_is_dense_while_everything_fits() {
    let run = |policy| {
        tokens(&["-p", PROMPT, "-n", "10", "--temp", "0", "--kv", "f32", "--policy", policy]).0
    };
    assert_eq!(run("recompute"), run("dense"));
}

#[test]
fn text_comes_from_a_file_or_standard_input_alike() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // As some editors save it: a mark that it is UTF-8, which is no part of the text.
    std::io::Write::write_all(&mut file, format!("\u{feff}{PROMPT}").as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    let (from_file, _) = tokens(&["-f", path, "-n", "5", "--temp", "0"]);
    let (from_flag, _) = tokens(&["-p", PROMPT, "-n", "5", "--temp", "0"]);
    let args = ["run", "-m", TINY, "--json", "-n", "5", "--temp", "0", "-"];
    let output = brooklet(&args).write_stdin(PROMPT).output().unwrap();
    let first = String::from_utf8(output.stdout).unwrap();
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!(from_file, from_flag);
    assert_eq!(first["token"], from_flag[0]);
}

#[test]
fn the_first_greedy_token_has_the_largest_logit() {
    let (code, stdout, _) = outcome(&["logits", "-m", TINY, "-p", PROMPT, "--top", "5", "--json"]);
    assert_eq!(code, 0);
    let top: Vec<(u64, f64)> = serde_json::from_str(&stdout).unwrap();
    assert_eq!(top.len(), 5);
    assert!(top.windows(2).all(|pair| pair[0].1 >= pair[1].1), "{top:?}");
    let (ids, _) = tokens(&["-p", PROMPT, "-n", "1", "--temp", "0"]);
    assert_eq!(ids[0], top[0].0);
}

#[test]
fn tokenize_prints_ids_and_pieces() {
    let (code, plain, _) = outcome(&["tokenize", "-m", TINY, PROMPT]);
    assert_eq!(code, 0);
    let (_, json, _) = outcome(&["tokenize", "-m", TINY, "--json", PROMPT]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let ids: Vec<u64> = plain.split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert_eq!(json["ids"], Value::from(ids.clone()));
    assert_eq!(json["pieces"].as_array().unwrap().len(), ids.len());
}

#[test]
fn inspect_says_what_is_there_and_that_it_runs() {
    let (code, stdout, _) = outcome(&["inspect", TINY]);
    assert_eq!(code, 0);
    for part in ["general.architecture", "blk.0.attn_q.weight", "brooklet runs this model"] {
        assert!(stdout.contains(part), "{part:?} is not in {stdout}");
    }
}

#[test]
fn devices_names_the_adapter_that_runs() {
    let (_, stdout, _) = outcome(&["devices", "--json"]);
    let first: Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
    let (_, summary) = tokens(&["-p", PROMPT, "-n", "1", "--adapter", "0"]);
    assert_eq!(summary["adapter"], first["name"]);
    // As a device of another class it is not taken for itself.
    let greedy = ["-p", PROMPT, "-n", "8", "--temp", "0", "--adapter", "0", "--as", "gpu-plain"];
    let (as_gpu, summary) = tokens(&greedy);
    assert_eq!(summary["adapter"], format!("{} as gpu-plain", first["name"].as_str().unwrap()));
    assert_eq!(as_gpu, tokens(&greedy[..8]).0);
    fails(2, &["run", "-m", TINY, "--as", "phone"], &["\"phone\"", "gpu-plain"]);
}

/// The object of a `bench --json`.
fn bench(args: &[&str]) -> Value {
    let (code, stdout, stderr) = outcome(&[&["bench", "-m", TINY, "--json"], args].concat());
    assert_eq!(code, 0, "{args:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn bench_gives_every_figure_with_its_spread() {
    let short = ["--runs", "2", "-n", "6", "--prefill", "40", "--context", "20"];
    for how in [&[][..], &["--sampled"], &["--policy", "dense", "--window", "64"]] {
        let report = bench(&[&short[..], how].concat());
        assert_eq!((&report["runs"], &report["interrupted"]), (&2.into(), &false.into()));
        assert_eq!(report["sampled"], how.contains(&"--sampled"));
        for figure in [
            "load_ms",
            "first_token_ms",
            "prefill_tps",
            "decode_tps",
            "decode_late_tps",
            "latency_ratio",
            "steps_per_submission",
        ] {
            let value = |which: &str| report[figure][which].as_f64().unwrap();
            let (least, median, most) = (value("least"), value("median"), value("most"));
            assert!(0.0 < least && least <= median && median <= most, "{figure}: {report}");
        }
        let bytes = |name: &str| report[name].as_u64().unwrap();
        assert!(bytes("device_bytes") > bytes("weight_bytes"), "{report}");
    }
    let (_, table, _) = outcome(&[&["bench", "-m", TINY], &short[..]].concat());
    for part in ["prefill of 40", "decode after 16", "decode after 20", "memory: host"] {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }
}

#[test]
fn bench_counts_whole_submissions() {
    let report = bench(&["--counters", "-n", "10"]);
    for (how, dispatches) in [("greedy", 6 * 2 + 3), ("sampled", 6 * 2 + 4)] {
        let cost = &report[how];
        let count = |name: &str| cost[name].as_u64().unwrap();
        let (tokens, steps) = (count("tokens"), count("steps"));
        assert!(tokens >= 10 && tokens % steps == 0, "{cost}");
        assert_eq!(count("dispatches"), dispatches * tokens, "{cost}");
        for name in ["passes", "submits", "waits"] {
            assert_eq!(count(name) * steps, tokens, "{name}: {cost}");
        }
        assert_eq!(count("objects"), 0, "{cost}");
        assert!(count("host_allocations") > 0, "wgpu allocates when it encodes: {cost}");
    }
    let (_, table, _) = outcome(&["bench", "-m", TINY, "--counters", "-n", "10"]);
    assert!(table.contains("dispatches") && table.contains("bytes of weights"), "{table}");
}

#[test]
fn bench_tells_what_streams_read_of_the_weights() {
    let report = bench(&["--streams", "1,2,9", "--runs", "1", "-n", "64"]); // more than are submitted together
    assert!(report["session_tokens_per_second"].as_f64().unwrap() > 0.0, "{report}");
    let streams = report["streams"].as_array().unwrap();
    let each = |key: &str| streams.iter().map(|of| of[key].as_f64().unwrap()).collect::<Vec<_>>();
    assert_eq!(each("streams"), [1.0, 2.0, 9.0]);
    for figure in ["tokens_per_second", "weights_read_per_step"] {
        assert!(each(figure).iter().all(|&found| found > 0.0), "{figure}: {report}");
    }
    let (_, table, _) = outcome(&["bench", "-m", TINY, "--streams", "2", "--runs", "1", "-n", "6"]);
    assert!(table.contains("weights read a step"), "{table}");
}

#[test]
fn bench_profiles_every_dispatch_once() {
    let report = bench(&["--profile", "--runs", "2"]);
    let ops = report["ops"].as_array().unwrap();
    let sum = |key: &str| ops.iter().map(|op| op[key].as_f64().unwrap()).sum::<f64>();
    assert_eq!(sum("dispatches"), 6.0 * 2.0 + 3.0, "{report}");
    assert!((sum("share") - 1.0).abs() < 1e-9, "{report}");
    assert!(ops.iter().any(|op| op["op"] == "attention" && op["dispatches"] == 2), "{report}");
    let (_, chart, _) = outcome(&["bench", "-m", TINY, "--profile", "--runs", "1"]);
    assert!(chart.contains("attention") && chart.contains('█'), "{chart}");
}

#[test]
fn bench_measures_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.json");
    let short = ["--runs", "1", "-n", "6", "--prefill", "40", "--context", "20"];
    let device = ["bench", "-m", TINY, "--device", path.to_str().unwrap()];
    let (code, table, stderr) = outcome(&[&device[..], &short].concat());
    assert_eq!(code, 0, "{stderr}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let median = |path: &str| report.pointer(&format!("{path}/median")).unwrap().as_f64().unwrap();
    for figure in ["/limits/copy_gb_s", "/limits/gflops", "/speed/prefill_tps", "/speed/decode_tps"]
    {
        assert!(median(figure) > 0.0, "{figure}: {report}");
    }
    // The share is what it says: bytes a token, times tokens a second, of what a copy moves.
    let counts = &report["counters"]["greedy"];
    let count = |name: &str| counts[name].as_f64().unwrap();
    let bytes = (count("weight_bytes") + count("cache_bytes")) / count("tokens");
    let share = bytes * median("/speed/decode_tps") / (1e9 * median("/limits/copy_gb_s"));
    let told = report["decode_share_of_copy"].as_f64().unwrap();
    assert!((told / share - 1.0).abs() < 1e-6 && told < 1.0, "{told} and {share}");
    let peak = report["prefill_share_of_peak"].as_f64().unwrap();
    assert!(0.0 < peak && peak < 1.0, "{peak}");
    let steps: Vec<_> = report["steps_together"].as_array().unwrap().iter().collect();
    assert_eq!(
        steps.iter().map(|s| s["steps"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 4, 8, 16]
    );
    let variants = report["variants"].as_array().unwrap();
    for tokens in [1, 64] {
        let of = |v: &&Value| v["tokens"] == tokens;
        assert!(variants.iter().any(|v| of(&v)), "{tokens}: {report}");
        assert!(variants.iter().filter(|v| of(v) && v["won"] == true).count() <= 1, "{report}");
    }
    assert!(table.starts_with("| ") && table.lines().all(|line| line.starts_with('|')), "{table}");
    for part in ["a copy, read and written", "op `attention`", "product with 64"] {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }
}

#[test]
fn bench_times_each_token_while_caches_fill_and_go_round() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("tokens.csv");
    let policies = ["--policy", "streaming,recompute,dense", "--csv", csv.to_str().unwrap()];
    let report =
        bench(&[&["--cache", "24,40", "--chunk", "8", "--laps", "2"], &policies[..]].concat());
    let cells = report["cells"].as_array().unwrap();
    let lines = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(lines.lines().next(), Some("policy,cache,index,ms"));
    let mut written = 1;
    for (cell, (policy, cache, tokens)) in cells.iter().zip([
        ("streaming", 24, 24 - 16 + 2 * (20 + 8)),
        ("streaming", 40, 40 - 16 + 2 * (36 + 8)),
        ("recompute", 24, 4),
        ("recompute", 40, 4),
        ("dense", 24, 24 - 12),
        ("dense", 40, 40 - 16),
    ]) {
        assert_eq!((&cell["policy"], &cell["cache"]), (&policy.into(), &cache.into()));
        assert_eq!(cell["all"]["tokens"], tokens, "{cell}");
        let of = |key: &str| cell["all"][key].as_f64().unwrap();
        assert!(0.0 < of("p50") && of("p50") <= of("p99") && of("p99") <= of("max"), "{cell}");
        written += tokens;
    }
    assert_eq!((cells.len(), lines.lines().count()), (6, written));
    assert!(cells.iter().all(|cell| cell["shifts"].is_null()), "{report}");
}

#[test]
fn bench_tells_which_tokens_waited_for_a_shift() {
    let report = bench(&["--cache", "40", "--chunk", "8", "--policy", "half-discard", "-n", "100"]);
    // Of 4 + 36 the older 18 go whenever it is full; a prompt of 16, and a step is submitted ahead of each token.
    assert_eq!(
        report["cells"][0]["shifts"]["tokens"],
        (16 + 100 - 40_usize).div_ceil(18),
        "{report}"
    );
}

#[test]
fn wrong_usage_ends_with_2_and_says_which() {
    fails(2, &["run", "--policy", "best"], &["--policy", "streaming"]);
    fails(2, &["run", "--sinks", "many"], &["--sinks"]);
    fails(2, &["run", "--top-k", "-1"], &["--top-k"]);
    fails(2, &["run", "-m", TINY, "-n", "-2"], &["-n", "-1, or a whole number"]);
    fails(2, &["run", "-m", TINY, "--temp", "nan"], &["--temp NaN"]);
    fails(2, &["run", "-m", TINY, "--top-p", "2"], &["--top-p 2: 0 to 1 works"]);
    fails(2, &["run", "-m", TINY, "--window", "0"], &["--window 0"]);
    fails(2, &["run", "-m", TINY, "--chunk", "0"], &["--chunk 0"]);
    fails(2, &["run", "-m", TINY, "--policy", "window", "--sinks", "4"], &["--sinks 4"]);
    fails(2, &["run", "-p", "a", "-f", "b"], &["cannot be used with"]);
    fails(2, &["logits", "-m", TINY], &["needs a text"]);
    fails(2, &["nonsense"], &["nonsense"]);
    fails(2, &["bench", "--counters", "--profile"], &["cannot be used with"]);
    fails(2, &["bench", "--csv", "tokens.csv"], &["--cache"]);
    fails(2, &["bench", "--runs", "0"], &["--runs"]);
    fails(2, &["bench", "-m", TINY, "--cache", "4"], &["--cache 4", "sinks"]);
    fails(2, &["bench", "-m", TINY, "--policy", "window,dense"], &["--policy"]);
    let full = ["bench", "-m", TINY, "--policy", "dense", "--window", "20", "--runs", "1"];
    fails(2, &full, &["dense cache is full", "--window"]);
    let long = "word ".repeat(300);
    let dense = ["run", "-m", TINY, "--policy", "dense", "--window", "64", "-p", &long];
    let asked = outcome(&["tokenize", "-m", TINY, &long]).1.split_whitespace().count();
    let asked = format!("dense cache holds 64 tokens and {asked} were asked");
    fails(2, &dense, &[&asked]);
}

/// The tiny model with numbers in its last norm that are none.
fn damaged() -> tempfile::NamedTempFile {
    use brooklet::format::{BytesSource, Gguf};
    let mut bytes = std::fs::read(TINY).unwrap();
    let source = BytesSource::new("tiny.gguf", bytes.clone());
    let gguf = pollster::block_on(Gguf::read(&source)).unwrap();
    let norm = gguf.tensors.iter().find(|tensor| tensor.name == "output_norm.weight").unwrap();
    bytes[norm.offset as usize..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    file
}

#[test]
fn a_model_of_no_numbers_is_damaged_whatever_is_asked_of_it() {
    let file = damaged();
    let model = file.path().to_str().unwrap();
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command_line.rs");
    for command in [
        &["run", "-m", model, "-q", "-n", "3", "-p", PROMPT][..],
        &["run", "-m", model, "-q", "-n", "3", "-p", PROMPT, "--temp", "0"],
        &["logits", "-m", model, "-p", PROMPT, "--json"],
        &["ppl", "-m", model, text, "--tokens", "20", "--tune", "off"],
    ] {
        let (code, stdout, stderr) = outcome(command);
        assert_eq!((code, stdout.trim()), (1, ""), "{command:?}: {stderr}");
        assert!(stderr.contains("the model's file is damaged"), "{command:?}: {stderr}");
    }
}

#[test]
fn minus_one_is_what_it_is_elsewhere() {
    let shared = ["-p", PROMPT, "--policy", "dense", "--window", "50", "--repeat-penalty", "1.3"];
    let usual = ["-n", "-1", "--seed", "-1", "--repeat-last-n", "-1"];
    let (ids, summary) = tokens(&[&shared[..], &usual].concat());
    assert_eq!(summary["stop_reason"], "cache full");
    // The seed was drawn, and is told; what a cache of 50 holds is recent.
    let seed = summary["seed"].to_string();
    let (same, other) =
        tokens(&[&shared[..], &["--seed", &seed, "--repeat-last-n", "50"]].concat());
    assert_eq!((same, &other["seed"]), (ids, &summary["seed"]));
}

#[test]
fn what_fails_ends_with_1_and_says_why() {
    fails(1, &["run", "-m", "/nowhere/model.gguf"], &["/nowhere/model.gguf", "no such file"]);
    fails(1, &["inspect", "/"], &["/"]);
    fails(1, &["run", "-m", TINY, "-f", "/nowhere.txt"], &["/nowhere.txt"]);
    fails(1, &["run", "-m", TINY, "--adapter", "99"], &["no GPU adapter", "index"]);
    fails(1, &["run", "-m", TINY, "--adapter", "Voodoo 3"], &["Voodoo 3"]);
    let bytes = std::fs::read(TINY).unwrap();
    for length in [0, 3, 20, 5000, bytes.len() - 1] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &bytes[..length]).unwrap();
        let path = file.path().to_str().unwrap();
        fails(1, &["run", "-m", path], &[path]);
    }
    let huge = ["run", "-m", TINY, "--window", "200000000"];
    fails(1, &huge, &["out of GPU memory", "needs", "--window"]);
}

#[test]
fn no_driver_is_said_in_words() {
    let mut command = brooklet(&["run", "-m", TINY, "-n", "1"]);
    command.env("VK_DRIVER_FILES", "/nowhere.json").env("VK_ICD_FILENAMES", "/nowhere.json");
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("no GPU adapter") && stderr.contains("install"), "{stderr}");
}

#[cfg(unix)]
mod unix {
    use super::*;

    fn endless() -> std::process::Child {
        std::process::Command::new(BINARY)
            .args(["run", "-m", TINY, "-p", PROMPT, "--json", "--tune", "off"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    #[test]
    fn ctrl_c_ends_with_statistics() {
        let mut child = endless();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains("token"), "{line}");
        let pid = child.id().to_string();
        assert!(
            std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success()
        );
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
        let summary: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
        assert_eq!(summary["summary"]["stop_reason"], "interrupted");
        assert!(stderr.contains("generated") && stderr.contains("interrupted"), "{stderr}");
    }

    #[test]
    fn ctrl_c_in_a_prompt_counts_what_was_fed() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = PROMPT.repeat(10_000);
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let args = ["run", "-m", TINY, "-f", path, "--json", "--tune", "off"];
        // While it loads, Ctrl-C ends it at once, with 1.
        let summary = (0..6)
            .map(|i| interrupted_after(&args, Duration::from_secs(1 << i)))
            .find(|output| output.status.code() == Some(0))
            .map(|output| {
                serde_json::from_slice::<Value>(&output.stdout).unwrap()["summary"].take()
            })
            .unwrap();
        assert_eq!(summary["stop_reason"], "interrupted");
        assert_eq!(summary["generated_tokens"], 0);
        // Whole chunks, and not all of a prompt of hundreds of thousands of tokens.
        let fed = summary["prompt_tokens"].as_u64().unwrap();
        assert!(fed % 64 == 0 && fed < 200_000, "{summary}");
        assert_eq!(summary["evicted"].as_u64().unwrap(), fed.saturating_sub(4 + 1020), "{summary}");
    }

    fn interrupted_after(args: &[&str], wait: Duration) -> std::process::Output {
        let mut command = std::process::Command::new(BINARY);
        let command = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        std::thread::sleep(wait);
        let pid = child.id().to_string();
        let kill = std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
        assert!(kill.success());
        child.wait_with_output().unwrap()
    }

    #[test]
    fn ctrl_c_ends_a_bench_with_what_it_has() {
        for (what, figure) in [
            (["--cache", "24", "-n", "100000000"], "/cells/0/all/tokens"),
            (["--streams", "2", "--runs", "100000000"], "/session_tokens_per_second"),
        ] {
            let args = [&["bench", "-m", TINY, "--json", "--tune", "off"][..], &what].concat();
            // While it loads, Ctrl-C ends it at once, with 1; before there is a figure, it was too early.
            let report = (0..6)
                .map(|i| interrupted_after(&args, Duration::from_secs(1 << i)))
                .filter(|output| output.status.code() == Some(0))
                .map(|output| serde_json::from_slice::<Value>(&output.stdout).unwrap())
                .inspect(|report| assert_eq!(report["interrupted"], true))
                .find(|report| report.pointer(figure).is_some_and(|found| !found.is_null()))
                .unwrap();
            assert!(report.pointer(figure).unwrap().as_f64().unwrap() > 0.0, "{report}");
        }
    }

    #[test]
    fn a_closed_pipe_is_a_clean_end() {
        let mut child = endless();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        drop(stdout);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
        assert!(stderr.contains("pipe closed"), "{stderr}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_said_and_the_figures_are_not_lost() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = std::process::Command::new(BINARY)
            .args(["run", "-m", TINY, "-p", PROMPT, "-n", "5", "--tune", "off"])
            .stdout(full)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("No space left") && stderr.contains("generated"), "{stderr}");
    }
}

#[test]
fn an_output_is_held_to_what_it_has_to_be() {
    const SCHEMA: &str = r#"{"type": "object", "properties": {"a": {"enum": [1, 22]}, "b": {"type": "boolean"}},
        "required": ["a", "b"], "additionalProperties": false}"#;
    let run = |args: &[&str]| {
        let (code, stdout, stderr) =
            outcome(&[&["run", "-m", TINY, "-q", "-p", PROMPT, "--seed", "1"], args].concat());
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        stdout.trim_end().to_owned()
    };
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("schema.json");
    std::fs::write(&file, SCHEMA).unwrap();
    for schema in [SCHEMA, file.to_str().unwrap()] {
        let value: Value = serde_json::from_str(&run(&["--json-schema", schema])).unwrap();
        assert!(value["a"] == 1 || value["a"] == 22, "{value}");
        assert!(value["b"].is_boolean(), "{value}");
    }
    assert!(["yes!", "no!"].contains(&&*run(&["--regex", "(yes|no)!"])));
    assert!(["aab", "cb"].contains(&&*run(&["--grammar", r#"start: ("aa" | "c") "b""#])));
    assert_eq!(run(&["-n", "3", "--logit-bias", "90+1000"]), "ZZZ");
    let lines = run(&["--json", "--regex", "abc", "--logprobs", "2"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0]["logprob"].as_f64().unwrap() < 0.0, "{lines:?}");
    assert_eq!(lines[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(lines[3]["summary"]["stop_reason"], "end of text");
    for (args, message) in [
        (
            ["--json-schema", r#"{"not": {}}"#],
            "--json-schema: the JSON schema cannot be used, at its root",
        ),
        (["--regex", "a(b"], "unclosed group"),
        (["--grammar", "root ::= x"], "GBNF"),
        (["--logit-bias", "x"], "9+2.5"),
        (["--logprobs", "2"], "--json"),
    ] {
        fails(2, &[&["run", "-m", TINY, "-q", "-p", PROMPT], &args[..]].concat(), &[message]);
    }
    fails(2, &["run", "-m", TINY, "--regex", "a", "--save", "x.bin"], &["is not kept"]);
    let (code, _, stderr) = outcome(&["run", "-m", TINY, "-q", "--logit-bias", "320+1"]);
    assert_eq!((code, stderr.contains("--logit-bias of token 320: ids below 320")), (2, true));
}
