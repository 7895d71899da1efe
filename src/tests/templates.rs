//! Chat templates against what transformers makes of them (tests/fixtures/chat/ORIGIN.md), and templates that mean harm.
use crate::Error;
use crate::text::{Conversation, Json, Renderer, Template};
use chrono::NaiveDateTime;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Corpus {
    meta: BTreeMap<String, String>,
    conversations: BTreeMap<String, Value>,
    /// By template and conversation.
    expected: BTreeMap<String, BTreeMap<String, Outcome>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok(String),
    Error(String),
}

/// What a conversation of the corpus asks for.
fn conversation(of: &Value) -> Conversation {
    let field = |name: &str| of.get(name).cloned();
    Conversation {
        messages: Json(field("messages").unwrap()),
        tools: field("tools").map(Json),
        generation_prompt: field("add_generation_prompt").is_none_or(|value| value == true),
        settings: None,
    }
}

/// Renderings that are the same, and a line on each other.
#[derive(Default)]
struct Tally {
    same: usize,
    differ: Vec<String>,
    refused: Vec<String>,
    /// Errors of transformers that are texts here.
    more: Vec<String>,
}

fn compared(folder: &Path) -> Tally {
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let corpus: Corpus = serde_json::from_str(&text).unwrap();
    let now = NaiveDateTime::parse_from_str(&corpus.meta["now"], "%Y-%m-%dT%H:%M:%S").unwrap();
    let (bos, eos) = (&corpus.meta["bos_token"], &corpus.meta["eos_token"]);
    let mut tally = Tally::default();
    for (name, expected) in &corpus.expected {
        let Ok(source) = std::fs::read_to_string(folder.join(name)) else { continue };
        let template = Template::with_clock(&source, bos, eos, move || now);
        let template = template.unwrap_or_else(|error| panic!("{name}: {error}"));
        for (which, outcome) in expected {
            let found = template.render(&conversation(&corpus.conversations[which]));
            let line = |text: &str| format!("{name} {which}: {text}");
            match (outcome, found) {
                (Outcome::Ok(wanted), Ok(found)) if *wanted == found => tally.same += 1,
                (Outcome::Ok(wanted), Ok(found)) => {
                    tally.differ.push(line(&format!("\n{found:?}\n{wanted:?}")));
                }
                (Outcome::Ok(_), Err(error)) => tally.refused.push(line(&error.to_string())),
                (Outcome::Error(_), Err(_)) => {}
                (Outcome::Error(error), Ok(_)) => tally.more.push(line(error)),
            }
        }
    }
    tally
}

/// Where templates are with what is expected of them: another folder may be named.
pub(super) fn folder() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat");
    std::env::var_os("BROOKLET_TEMPLATES").map_or_else(own, PathBuf::from)
}

#[test]
fn templates_render_as_transformers_has_them() {
    let Tally { same, differ, refused, more } = compared(&folder());
    for (what, lines) in [("differ", &differ), ("refused", &refused), ("error there", &more)] {
        eprintln!("{what}: {}\n{}", lines.len(), lines.join("\n"));
    }
    eprintln!("{same} are the same");
    // What Python escapes as for HTML after `|safe`.
    let known = |line: &String| line.starts_with("meetkai-functionary-medium-v3.1");
    assert!(refused.is_empty() && differ.iter().all(known));
    assert!(same >= 60, "{same} renderings");
}

fn refusal(source: &str) -> String {
    let messages = Json::parse("messages", r#"[{"role": "user", "content": "Hello"}]"#).unwrap();
    let rendered =
        Template::new(source, "", "").and_then(|t| t.render(&Conversation::of(messages)));
    match rendered {
        Err(Error::Template(text)) => text,
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn a_template_that_means_harm_ends_with_an_error() {
    let deep = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let nested = format!("{{{{ {}{} }}}}", "[".repeat(300), "]".repeat(300));
    let ifs = "{% if true %}".repeat(5_000) + &"{% endif %}".repeat(5_000);
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='\"') %}{% for i in range(60) %}{% set ns.s = ns.s|tojson %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('x', 'xx') %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s|tojson }}",
        "{{ 'a' * 2000000000 }}",
        "{{ '%2000000000s'|format('a') }}",
        "{{ 'a\n'|indent(2000000000, first=true) * 1000 }}",
        "{{ range(1000000000)|list }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(x) %}{{ g(x) }}{% endmacro %}{% macro g(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% include 'other' %}",
        "{% import 'other' as other %}",
        "{% extends 'other' %}",
        "{{ messages[0].__class__.__mro__ }}",
        "{{ strftime_now('%Q%9999999999d') }}",
        "{{ raise_exception('only pairs of messages') }}",
        "{{ undefined_function() }}",
        "{{ 'x'|no_such_filter }}",
        "{% if %}",
        "{{ messages|tojson(5, 6, 7, 8, 9) }}{{ nothing|tojson }}",
        &format!("{{{{ {deep} }}}}"),
        &nested.replace("300", "3"),
        &ifs,
    ] {
        let text = refusal(source);
        assert!(text.len() < 500 && !text.is_empty(), "{source}: {text}");
        eprintln!("{:.60}: {text}", source);
    }
}

/// The engine does not count what a list is made of.
#[test]
fn a_list_that_doubles_ends_in_time() {
    let text = refusal(
        "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    );
    assert!(text.contains("seconds") || text.contains("memory"), "{text}");
}
