//! A model's thoughts told apart from its answer, wherever tokens cut the tags between them.

/// A piece of what a model says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The text. Never empty.
    pub text: String,
    /// Whether it is a thought on the way to the answer.
    pub thought: bool,
}

/// What stands before thoughts and behind them, without space around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags {
    /// Before them.
    pub open: String,
    /// Behind them.
    pub close: String,
    /// Before an answer without thoughts; often nothing.
    pub plain: String,
}

impl Tags {
    /// Two that stand around thoughts.
    pub fn of(open: &str, close: &str) -> Self {
        Self { open: open.to_owned(), close: close.to_owned(), plain: String::new() }
    }

    /// Whether a token is a part of one.
    pub(super) fn mentions(&self, piece: &str) -> bool {
        !piece.is_empty()
            && [&self.open, &self.close, &self.plain].iter().any(|tag| tag.contains(piece))
    }
}

/// Where in an answer a stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Nothing was said yet: thoughts may come.
    #[default]
    Start,
    /// At the first thought.
    Opened,
    Thoughts,
    /// Behind a tag, before the text that follows it.
    Behind,
    Answer,
}

/// Splits one answer. What it holds back is no longer than a tag and the space before it.
#[derive(Debug, Default)]
pub struct Splitter {
    tags: Option<Tags>,
    place: Place,
    held: String,
}

impl Splitter {
    /// For an answer that begins inside of thoughts, or does not know yet.
    pub fn new(tags: Option<Tags>, thinks: bool) -> Self {
        let place = if thinks { Place::Opened } else { Place::Start };
        Self { tags, place, held: String::new() }
    }

    /// Takes text and gives what is known to be said.
    pub fn push(&mut self, text: &str, mut say: impl FnMut(Said)) {
        let Some(Tags { open, close, plain }) = self.tags.clone() else {
            return tell(text, false, say);
        };
        self.held.push_str(text);
        loop {
            let after_space = self.held.trim_start();
            let space = self.held.len() - after_space.len();
            match self.place {
                // Space around tags is theirs. Some models say the tag again that their prompt ends with.
                Place::Start | Place::Opened if after_space.starts_with(&open) => {
                    self.held.drain(..space + open.len());
                    self.place = Place::Opened;
                }
                Place::Start | Place::Opened if open.starts_with(after_space) => return,
                Place::Start if !plain.is_empty() && after_space.starts_with(&plain) => {
                    self.held.drain(..space + plain.len());
                    self.place = Place::Behind;
                }
                Place::Start if plain.starts_with(after_space) => return,
                Place::Start => self.place = Place::Answer,
                Place::Opened => {
                    self.held.drain(..space);
                    self.place = Place::Thoughts;
                }
                Place::Thoughts => match self.held.find(&close) {
                    Some(at) => {
                        tell(self.held[..at].trim_end(), true, &mut say);
                        self.held.drain(..at + close.len());
                        self.place = Place::Behind;
                    }
                    None => {
                        let rest = self.held.split_off(beginning(&self.held, &close));
                        return tell(&std::mem::replace(&mut self.held, rest), true, say);
                    }
                },
                Place::Behind if after_space.is_empty() => return,
                Place::Behind => {
                    self.held.drain(..space);
                    self.place = Place::Answer;
                }
                Place::Answer => return tell(&std::mem::take(&mut self.held), false, say),
            }
        }
    }

    /// The end of the answer: what was held back after all.
    pub fn finish(&mut self, say: impl FnMut(Said)) {
        let thought = matches!(self.place, Place::Opened | Place::Thoughts);
        let rest = std::mem::take(&mut self.held);
        tell(if thought { rest.trim() } else { &rest }, thought, say);
    }
}

fn tell(text: &str, thought: bool, mut say: impl FnMut(Said)) {
    if !text.is_empty() {
        say(Said { text: text.to_owned(), thought });
    }
}

/// Where in a text what could be the beginning of a tag begins, with the space before it; its end where there is none.
fn beginning(text: &str, tag: &str) -> usize {
    let starts = text.char_indices().map(|(at, _)| at);
    let mut tails = starts.filter(|&at| tag.starts_with(&text[at..]));
    let at = tails.next().unwrap_or(text.len());
    text[..at].trim_end().len()
}
