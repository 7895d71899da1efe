//! What of schemas is supported, and what is said of the rest.
use super::{tiny, tokenizer};
use crate::grammar::Grammar;
use crate::session::Constraint;

#[test]
fn what_cannot_be_is_said_in_a_sentence_with_its_place() {
    let cases: [(&str, &[&str]); 12] = [
        ("{", &["not JSON", "line 1"]),
        ("[1]", &["an object", "an array"]),
        ("false", &["allows nothing"]),
        (r#"{"not": {"type": "string"}}"#, &["\"not\"", "at its root"]),
        (
            r#"{"type": "object", "properties": {"a/b": {"type": "array", "items": {"uniqueItems": true, "type": "array"}}}}"#,
            &["uniqueItems", "at /properties/a~1b/items"],
        ),
        (
            r##"{"$defs": {"a": {"type": "string", "format": "colour"}}, "anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}"##,
            &["colour", "at /$defs/a"],
        ),
        (r##"{"$ref": "#/$defs/a"}"##, &["/$defs/a"]),
        (r#"{"$ref": "https://example.org/schema.json"}"#, &["example.org"]),
        (r#"{"type": "string", "pattern": "(?=a)b"}"#, &["at its root"]),
        (r#"{"type": "integer", "minimum": 5, "maximum": 4}"#, &["at its root"]),
        (r#"{"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string"}]}"#, &["anyOf"]),
        (r#"{"type": "text"}"#, &["text"]),
    ];
    for (schema, words) in cases {
        let message = Grammar::json_schema(schema).map(drop).unwrap_err().to_string();
        eprintln!("{message}");
        for word in words {
            assert!(message.contains(word), "{schema}: {message}");
        }
        assert!(!message.contains('\n') && message.len() < 400, "{schema}: {message}");
    }
    let message = |grammar: crate::Result<Grammar>| {
        let message = grammar.map(drop).unwrap_err().to_string();
        eprintln!("{message}");
        assert!(!message.contains('\n'), "{message}");
        message
    };
    assert!(message(Grammar::regex("a(b")).contains("unclosed group"));
    assert!(message(Grammar::regex("(a|b)(?!c)")).contains("regular expression"));
    assert!(message(Grammar::lark("start: other")).contains("other"));
    assert!(message(Grammar::lark("")).contains("grammar"));
    let deep = "[".repeat(300);
    message(Grammar::json_schema(&deep));
    let deep = format!("{}{{}}{}", r#"{"items":"#.repeat(110), "}".repeat(110));
    assert!(message(Grammar::json_schema(&deep)).contains("deep"));
}

#[test]
fn formats_know_leap_years_and_leap_seconds() {
    let (tokenizer, vocabulary) = (tokenizer(), tiny());
    let takes = |format: &str, text: &str| {
        let schema = serde_json::json!({ "type": ["string", "null"], "format": format });
        let grammar = Grammar::json_schema_value(schema).unwrap();
        let mut matcher = vocabulary.matcher(&grammar).unwrap();
        let ids = tokenizer.encode(&format!("{text:?}"), false).unwrap();
        ids.iter().all(|&id| matcher.accept(id).is_ok()) && matcher.may_end()
    };
    for (format, text, valid) in [
        ("date", "2024-02-29", true),
        ("date", "2023-02-29", false),
        ("date", "2000-02-29", true),
        ("date", "1900-02-29", false),
        ("date", "2023-02-28", true),
        ("date", "1999-12-31", true),
        ("date", "1999-04-31", false),
        ("time", "23:59:59Z", true),
        ("time", "12:00:60Z", false),
        ("date-time", "2024-02-29T12:30:59.5+01:00", true),
        ("date-time", "2023-02-29T12:30:59Z", false),
        ("date-time", "2023-03-29T12:30:60Z", false),
    ] {
        assert_eq!(takes(format, text), valid, "{format} {text}");
    }
}
