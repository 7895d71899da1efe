//! `/window`: what the model sees of a conversation.
use brooklet::chat::{Message, Role, Seen, Window};
use std::fmt::Write;

const BAR: u64 = 40;

/// The cache as a bar, then a line for each message that is seen.
pub(super) fn drawn(window: &Window, messages: &[Message]) -> String {
    let Window { pinned, window: recent, tokens, forgotten, gone, messages: seen } = window;
    let capacity = pinned + recent;
    let filled = (tokens - forgotten).min(capacity);
    let cells = |tokens: u64| (tokens * BAR).div_ceil(capacity.max(1)).min(BAR);
    let (stones, all) = (cells((*pinned).min(filled)), cells(filled));
    let mut text = String::new();
    // Writing into a String does not fail.
    let _ = writeln!(
        text,
        "[{}{}{}] {filled} of {capacity} tokens: system prompt {pinned}, {forgotten} forgotten",
        "#".repeat(stones as usize),
        "=".repeat((all - stones) as usize),
        " ".repeat((BAR - all) as usize),
    );
    match gone {
        0 => {}
        1 => text.push_str("  message 1 is forgotten\n"),
        _ => drop(writeln!(text, "  messages 1 to {gone} are forgotten")),
    }
    for sighted in seen {
        let who = match sighted.role {
            Role::User => "you",
            Role::Assistant => "model",
        };
        let how = match sighted.seen {
            Seen::Partly => format!("{} of {} tokens", sighted.visible, sighted.tokens),
            _ => format!("{} tokens", sighted.tokens),
        };
        let said = messages.get(sighted.message as usize).map_or("", |message| &message.content);
        let _ = writeln!(text, "{:>4} {who:<6} {how:<18} {}", sighted.message + 1, beginning(said));
    }
    text
}

/// One line of a text.
fn beginning(text: &str) -> String {
    const MOST: usize = 48;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = line.chars().filter(|c| !c.is_control()).take(MOST).collect();
    if line.chars().count() > MOST { shown + "\u{2026}" } else { shown }
}
