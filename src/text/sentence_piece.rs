//! SentencePiece's merging: the neighbours whose token has the highest score are joined first, and of equal scores
//! those furthest left. `tokenizers` ranks pairs, which cannot say that two are equal.
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Scores, and what stands for bytes.
pub(super) struct SentencePiece {
    /// By id.
    pub(super) scores: Vec<f32>,
    /// The token of each byte.
    pub(super) bytes: Vec<Option<u32>>,
    /// What stands for a character that has neither a token nor those of its bytes.
    pub(super) unknown: Option<u32>,
}

/// A stretch of the text, and its neighbours. Empty once it was joined to the one before.
struct Part {
    start: usize,
    end: usize,
    before: Option<usize>,
    after: Option<usize>,
}

impl Part {
    fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Two neighbours that may be joined.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both; other than that now, one of them has changed.
    len: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

impl SentencePiece {
    /// Adds the ids of a text without special tokens to `out`. `id` finds a token's.
    pub(super) fn encode(&self, text: &str, id: impl Fn(&str) -> Option<u32>, out: &mut Vec<u32>) {
        let chars = text.char_indices().enumerate();
        let mut parts: Vec<Part> = chars
            .map(|(i, (start, c))| Part {
                start,
                end: start + c.len_utf8(),
                before: i.checked_sub(1),
                after: Some(i + 1),
            })
            .collect();
        if let Some(last) = parts.last_mut() {
            last.after = None;
        }
        let pair = |parts: &[Part], left: usize, right: usize| {
            let (a, b) = (&parts[left], &parts[right]);
            // A zero is equal to one below it.
            let score = *self.scores.get(id(&text[a.start..b.end])? as usize)? + 0.0;
            Some(Pair { score, left, right, len: a.len() + b.len() })
        };
        let mut pairs: BinaryHeap<Pair> =
            (1..parts.len()).filter_map(|right| pair(&parts, right - 1, right)).collect();
        while let Some(Pair { left, right, len, .. }) = pairs.pop() {
            let (a, b) = (parts[left].len(), parts[right].len());
            if a == 0 || b == 0 || a + b != len {
                continue;
            }
            let after = parts[right].after;
            (parts[left].end, parts[left].after) = (parts[right].end, after);
            parts[right].start = parts[right].end;
            if let Some(after) = after {
                parts[after].before = Some(left);
                pairs.extend(pair(&parts, left, after));
            }
            if let Some(before) = parts[left].before {
                pairs.extend(pair(&parts, before, left));
            }
        }
        for part in parts.iter().filter(|part| part.len() > 0) {
            let text = &text[part.start..part.end];
            match id(text) {
                Some(id) => out.push(id),
                None => self.fall_back(text, out),
            }
        }
    }

    /// The bytes of a character without a token.
    fn fall_back(&self, text: &str, out: &mut Vec<u32>) {
        let bytes = text.bytes().map(|b| self.bytes.get(usize::from(b)).copied().flatten());
        match bytes.collect::<Option<Vec<u32>>>() {
            Some(bytes) => out.extend(bytes),
            None => out.extend(self.unknown),
        }
    }
}
