//! Which messages of a conversation the model can still look back on.
use std::collections::VecDeque;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

/// How much of a message is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// All of it.
    Whole,
    /// Its end.
    Partly,
    /// Nothing.
    Gone,
}

/// A message, and how much of it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Sighted {
    /// Counted from the first message of the conversation, without the system prompt.
    pub message: u64,
    /// Whose it is.
    pub role: Role,
    /// Where in the stream it begins.
    pub first: u64,
    /// Its tokens.
    pub tokens: u64,
    /// Those of them that are seen.
    pub visible: u64,
    /// How much that is.
    pub seen: Seen,
}

/// What a conversation's cache holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Window {
    /// Tokens at the start that are never forgotten: the system prompt.
    pub pinned: u64,
    /// Tokens that are seen beside them, at most.
    pub window: u64,
    /// Tokens of the conversation so far.
    pub tokens: u64,
    /// Those of them that are not seen any more.
    pub forgotten: u64,
    /// Messages of which nothing is seen: from the first on, or from behind those that are pinned with the system prompt.
    pub gone: u64,
    /// The others, the oldest first.
    pub messages: Vec<Sighted>,
}

/// Where a message lies in the stream: 16 bytes.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Span {
    first: u64,
    tokens: u32,
    role: Role,
}

impl Span {
    fn end(&self) -> u64 {
        self.first + u64::from(self.tokens)
    }
}

/// Where the messages lie. Those that can never be seen again are counted, and not kept.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Sight {
    /// Before the first.
    gone: u64,
    /// Behind those that are pinned, where there are any.
    between: u64,
    spans: VecDeque<Span>,
}

impl Sight {
    /// Where so many messages are gone before the first.
    pub(super) fn after(gone: u64) -> Self {
        Self { gone, between: 0, spans: VecDeque::new() }
    }

    /// A message that begins here.
    pub(super) fn begin(&mut self, role: Role, first: u64) {
        self.spans.push_back(Span { first, tokens: 0, role });
    }

    /// The last message goes to here.
    pub(super) fn reach(&mut self, end: u64) {
        if let Some(last) = self.spans.back_mut() {
            last.tokens = u32::try_from(end.saturating_sub(last.first)).unwrap_or(u32::MAX);
        }
    }

    /// Where the last message ends.
    pub(super) fn end(&self) -> u64 {
        self.spans.back().map_or(0, Span::end)
    }

    /// Nothing is left from here on.
    pub(super) fn cut(&mut self, end: u64) {
        while self.spans.back().is_some_and(|span| span.first >= end) {
            self.spans.pop_back();
        }
        if self.spans.back().is_some_and(|span| span.end() > end) {
            self.reach(end);
        }
    }

    /// Messages that are pinned: sinks that the system prompt leaves are their first.
    fn kept(&self, pinned: u64) -> usize {
        self.spans.iter().take_while(|span| span.end() <= pinned).count()
    }

    /// Lets go of what ends before `first`, the oldest token that the ring may still hold, and is not `pinned`.
    pub(super) fn forget(&mut self, first: u64, pinned: u64) {
        let kept = self.kept(pinned);
        while self.spans.get(kept).is_some_and(|span| span.end() <= first) {
            self.spans.remove(kept);
            match kept {
                0 => self.gone += 1,
                _ => self.between += 1,
            }
        }
    }

    /// What is seen where `forgotten` tokens after the first `pinned` are not.
    pub(super) fn window(&self, pinned: u64, window: u64, tokens: u64, forgotten: u64) -> Window {
        let oldest = if forgotten == 0 { 0 } else { pinned + forgotten };
        let (kept, mut gone) = (self.kept(pinned) as u64, self.gone + self.between);
        let mut messages = Vec::with_capacity(self.spans.len());
        for (at, span) in (0..).zip(&self.spans) {
            let message = self.gone + at + if at < kept { 0 } else { self.between };
            let length = u64::from(span.tokens);
            let flows = span.first.max(pinned);
            let lost = oldest.min(span.end()).saturating_sub(flows);
            let visible = length - lost;
            let seen = match visible {
                0 if length > 0 => Seen::Gone,
                all if all == length => Seen::Whole,
                _ => Seen::Partly,
            };
            if seen == Seen::Gone {
                gone += 1;
                continue;
            }
            let Span { first, role, .. } = *span;
            messages.push(Sighted { message, role, first, tokens: length, visible, seen });
        }
        Window { pinned, window, tokens, forgotten, gone, messages }
    }
}
