//! `brooklet chat` as a user sees it. On a tiny random model, whose vocabulary was made for no conversation.
#![allow(clippy::unwrap_used, reason = "a test that unwraps what is not there should fail there")]
use assert_cmd::Command;
use serde_json::Value;
use std::time::Duration;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.gguf");
const MESSAGES: &str =
    r#"[{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi"}]"#;

/// Runs to the end and gives exit code, stdout, stderr.
fn chat(args: &[&str], stdin: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brooklet"));
    command.args(["chat", "-m", TINY, "--tune", "off"]).args(args).write_stdin(stdin);
    let output = command.timeout(Duration::from_secs(120)).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn fails(args: &[&str], stdin: &str, code: i32, message: &str) {
    let (found, _, stderr) = chat(args, stdin);
    assert_eq!(found, code, "{args:?}: {stderr}");
    assert!(stderr.contains(message) && !stderr.contains("panicked"), "{args:?}: {stderr}");
}

#[test]
fn render_prints_what_the_template_makes_of_messages() {
    let expected = "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n";
    let args = ["--chat-template", "chatml", "--render", "-"];
    let (code, stdout, stderr) = chat(&args, MESSAGES);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("{expected}<|im_start|>assistant\n"));
    let (_, stdout, _) = chat(&[&args[..], &["--no-generation-prompt"]].concat(), MESSAGES);
    assert_eq!(stdout, expected);
    // a whole request
    let request = format!("{{\"model\": \"any\", \"messages\": {MESSAGES}}}");
    let (_, stdout, _) = chat(&[&args[..], &["--json"]].concat(), &request);
    let rendered: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(rendered["text"], format!("{expected}<|im_start|>assistant\n"));
    let count = |name: &str| rendered[name].as_array().unwrap().len();
    assert_eq!(count("ids"), count("pieces"));
    assert!(count("ids") > 40);
}

#[test]
fn render_says_what_is_wrong() {
    let render = ["--render", "-"];
    fails(&render, MESSAGES, 2, "--chat-template FILE: a template is needed");
    fails(&["--chat-template", "no", "--render", "-"], MESSAGES, 2, "chatml works with any");
    let chatml = ["--chat-template", "chatml", "--render", "-"];
    fails(&chatml, "[", 2, "standard input: this is not JSON");
    fails(&chatml, "3", 2, "a list of messages");
    fails(&chatml, "[3]", 1, "chat template: line 1");
    fails(&["--no-generation-prompt"], "", 2, "--render");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let own = |source: &str| file("own.jinja", source);
    let refuses = own("a\n{{ raise_exception('only pairs of messages') }}");
    let args = ["--chat-template", &refuses, "--render", "-"];
    fails(&args, MESSAGES, 1, "chat template: line 2: only pairs of messages");
    let endless =
        own("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}");
    fails(&["--chat-template", &endless, "--render", "-"], MESSAGES, 1, "more steps");
    let tools = file("tools.json", "{}");
    fails(&[&chatml[..], &["--tools", &tools]].concat(), MESSAGES, 2, "a list of tools");
    // Arguments of calls are taken as what they say, where they are a text of JSON.
    let called = own("{{ messages[0].tool_calls[0].function.arguments.city }} {{ tools|length }}");
    let tools = file("tools.json", "[{}, {}]");
    let call = r#"[{"role": "assistant", "tool_calls": [{"function": {"arguments": "{\"city\": \"Bern\"}"}}]}]"#;
    let (code, stdout, _) =
        chat(&["--chat-template", &called, "--tools", &tools, "--render", "-"], call);
    assert_eq!((code, stdout.as_str()), (0, "Bern 2"));
}

#[test]
fn a_conversation_goes_through_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("talk.bin").display().to_string();
    let shared = ["--chat-template", "chatml", "-n", "8", "--seed", "1", "--json"];
    let said = |args: &[&str], stdin: &str| -> Vec<Value> {
        let (code, stdout, stderr) = chat(&[&shared[..], args].concat(), stdin);
        assert_eq!(code, 0, "{stderr}");
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let new = ["--window", "200", "--system", "Be terse.", "--save", &saved];
    let lines = said(&new, "the rain\nin\\\nspain\n/bye\nnever said\n");
    let turns: Vec<&Value> = lines.iter().filter_map(|line| line.get("turn")).collect();
    assert_eq!(turns.len(), 2, "{lines:?}");
    for turn in turns {
        assert!(turn["fed"].as_u64().unwrap() > 10 && turn["generated"].as_u64().unwrap() <= 9);
        assert_eq!(turn["forgotten"], 0);
    }
    let lines = said(&["--resume", &saved], "/regen\n/edit once more\n");
    let turns: Vec<&Value> = lines.iter().filter_map(|line| line.get("turn")).collect();
    assert_eq!(turns.len(), 2, "{lines:?}");
    assert_eq!(turns[0]["fed"], 0, "an answer is made anew from what is there");
    let (code, stdout, _) = chat(&["--chat-template", "chatml", "--resume", &saved], "/window\n");
    assert_eq!(code, 0);
    assert!(stdout.contains("system prompt") && stdout.contains("in spain"), "{stdout}");
    fails(
        &["--chat-template", "chatml", "--window", "12", "--system", "Be terse."],
        "Hi\n",
        2,
        "half",
    );
    fails(&["--chat-template", "chatml", "--sinks", "3"], "Hi\n", 2, "--sinks");
    fails(&["--chat-template", "chatml"], "/frobnicate\n", 2, "/help");
}
