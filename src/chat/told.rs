//! Messages of any role, as a template takes them: a conversation that is opened with all of its messages, or that goes on
//! with some. What whoever keeps the messages himself needs, such as a server.
use super::script::encoded;
use super::{AnswerSettings, Chat, Role, Script, Sight, Turn, says_nothing};
use crate::Result;
use crate::session::Session;
use crate::text::Json;
use std::sync::Arc;
use std::task::Poll;

/// Messages as ids, to be answered.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The ids.
    pub ids: Vec<u32>,
    /// How many messages were left out before the first.
    pub left_out: usize,
    /// Whose each message is, and with which token it ends.
    ends: Vec<(Role, usize)>,
}

impl Script {
    /// A conversation from its beginning, without its system prompt, which the script has. Where it has more than
    /// `room` tokens beside the head, the first turns are left out; the last is told in any case.
    pub fn told(&self, messages: &[Json], room: usize) -> Result<Told> {
        let starts = turns(messages);
        let Some(&last) = starts.last() else { return self.whole(messages) };
        let own = |message: &Json| Ok(self.tokenizer.encode(content(message), false)?.len());
        // What the messages say is less than what they take: the longest tail that may fit.
        let (mut from, mut said) = (last, 0);
        for (at, message) in messages.iter().enumerate().rev() {
            said += own(message)?;
            if said > room {
                break;
            }
            from = if starts.contains(&at) { at } else { from };
        }
        loop {
            let told = self.whole(&messages[from..])?;
            let beyond = told.ids.len().saturating_sub(self.head().len() + room);
            if beyond == 0 || from >= last {
                return Ok(Told { left_out: from, ..told });
            }
            // As many turns as have what is too much, as far as is known.
            let fits = |at: &&usize| told.end_before(**at - from) >= beyond + self.head().len();
            let next = starts.iter().filter(|&&at| at > from);
            from = next.clone().find(fits).or(next.clone().next_back()).copied().unwrap_or(last);
        }
    }

    /// The whole of it.
    fn whole(&self, messages: &[Json]) -> Result<Told> {
        let rendered = |messages: &[Json]| self.rendered(&self.opened(messages), true);
        let text = either(messages, rendered)?;
        let ids = encoded(&self.tokenizer, &text)?;
        self.split(messages, &text, ids)
    }

    /// What messages add to a stream that ends with an answer, from its end token on.
    pub fn following(&self, messages: &[Json]) -> Result<Told> {
        let text = either(messages, |messages| self.behind_answer(messages))?;
        let ids = self.tokenizer.encode_marked(&text)?;
        self.split(messages, &text, ids)
    }

    /// Where each message ends: behind what it says. One that a template has changed ends where the next does.
    fn split(&self, messages: &[Json], text: &str, ids: Vec<u32>) -> Result<Told> {
        let (mut ends, mut at, mut tokens) = (Vec::with_capacity(messages.len()), 0, 0);
        for (left, message) in (0..messages.len()).rev().zip(messages) {
            let said = match role(message) {
                Role::Assistant => self.tokenizer.marked_ends(content(message).trim()),
                Role::User => self.tokenizer.marked(content(message).trim()),
            };
            let end = text[at..].find(&said).map_or(at, |from| at + from + said.len());
            tokens += self.tokenizer.encode_marked(&text[at..end])?.len();
            at = end;
            ends.push((role(message), if left == 0 { ids.len() } else { tokens.min(ids.len()) }));
        }
        Ok(Told { ids, left_out: 0, ends })
    }
}

impl Told {
    /// Where the message before this one ends.
    fn end_before(&self, message: usize) -> usize {
        message.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |&(_, end)| end)
    }
}

impl Chat {
    /// Begins another conversation in the place of this one, with all of its messages, and gets ready to read an answer.
    /// Unless `anew`, what the stream begins with as well is not fed again. Gives how many tokens were fed; none where
    /// `go_on` has ended it.
    pub async fn open(
        &mut self,
        script: Arc<Script>,
        told: &Told,
        anew: bool,
        answer: &AnswerSettings,
        go_on: impl FnMut() -> bool,
    ) -> Result<Option<u64>> {
        answer.sampling.check()?;
        self.stop();
        self.said.clear();
        let Some(&prompt) = told.ids.last() else { return Err(says_nothing()) };
        (self.script, self.turn, self.ended, self.fed) = (script, None, None, 0);
        self.sight = Sight::after(told.left_out as u64);
        if anew {
            self.session.reset();
        }
        let there = keep_beginning(&mut self.session, &told.ids).await?;
        let fed = feed_in_turns(&mut self.session, &told.ids[there..], go_on).await?;
        self.fed = fed as u64;
        if there + fed < told.ids.len() {
            return Ok(None);
        }
        let mut first = self.script.head().len();
        for &(role, end) in &told.ends {
            self.sight.begin(role, first as u64);
            self.sight.reach(end.max(first) as u64);
            first = end.max(first);
        }
        let answer_at = self.session.position();
        self.turn = Some(Turn { start: 0, before: None, answer: answer_at, prompt });
        self.begin(answer)?;
        Ok(Some(fed as u64))
    }

    /// [`Chat::send`] with messages of any role, as [`Script::following`] gave them. Gives how many tokens were fed.
    pub async fn follow(
        &mut self,
        script: Arc<Script>,
        told: &Told,
        answer: &AnswerSettings,
        go_on: impl FnMut() -> bool,
    ) -> Result<Option<u64>> {
        answer.sampling.check()?;
        self.stop();
        self.said.clear();
        self.script = script;
        let last = self.session.recent().next_back();
        let ids = match last {
            Some(last) => self.lacking(last, told.ids.clone()).await?,
            None => told.ids.clone(),
        };
        let Some(&prompt) = ids.last() else { return Err(says_nothing()) };
        let (start, before) = (self.session.position(), self.session.recent().next_back());
        let fed = feed_in_turns(&mut self.session, &ids, go_on).await?;
        if fed < ids.len() {
            self.take_back_part(fed, ids.len(), before).await?;
            return Ok(None);
        }
        self.fed += fed as u64;
        let missing = told.ids.len() - ids.len();
        for &(role, end) in &told.ends {
            self.sight.begin(role, self.sight.end().max(start));
            self.sight.reach(start + end.saturating_sub(missing) as u64);
        }
        let position = self.session.position();
        self.turn = Some(Turn { start, before, answer: position, prompt });
        self.begin(answer)?;
        Ok(Some(fed as u64))
    }
}

/// How many of these ids a stream begins with, as far as it still knows all that it was fed.
pub fn beginning(session: &Session, ids: &[u32]) -> usize {
    match session.recent().count() as u64 == session.position() {
        true => session.recent().zip(ids).take_while(|(a, b)| a == *b).count(),
        false => 0,
    }
}

/// Gets a stream ready to be fed these ids: as many of them as it begins with stay, and are counted; everything else is
/// taken back. One at least is left to be fed.
pub async fn keep_beginning(session: &mut Session, ids: &[u32]) -> Result<usize> {
    let position = session.position();
    let same = beginning(session, ids).min(ids.len().saturating_sub(1));
    let taken_back = match same.checked_sub(1) {
        None => None,
        Some(_) if same as u64 == position => Some(Ok(())),
        Some(last) => Some(session.rewind(position - same as u64, ids[last]).await),
    };
    match taken_back {
        Some(Ok(())) => Ok(same),
        Some(Err(error)) if !error.is_usage() => Err(error),
        _ => {
            session.reset();
            Ok(0)
        }
    }
}

/// Feeds a stream, and lets others of the same thread have their turn after each chunk. Gives how many were fed.
pub async fn feed_in_turns(
    session: &mut Session,
    ids: &[u32],
    mut go_on: impl FnMut() -> bool,
) -> Result<usize> {
    let mut fed = 0;
    for chunk in ids.chunks(session.cache().settings().chunk.max(1)) {
        let done = session.feed_while(chunk, &mut go_on).await?;
        fed += done;
        if done < chunk.len() {
            break;
        }
        next_turn().await;
    }
    Ok(fed)
}

/// Lets what else waits in this thread have its turn.
pub async fn next_turn() {
    let mut waited = false;
    std::future::poll_fn(|context| match std::mem::replace(&mut waited, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Where turns begin: messages of a user behind ones that are none.
fn turns(messages: &[Json]) -> Vec<usize> {
    let user = |at: usize| said(&messages[at], "role") == "user";
    (0..messages.len()).filter(|&at| user(at) && (at == 0 || !user(at - 1))).collect()
}

/// With the arguments of calls as what they say, or else as texts: templates differ in what they take.
fn either(messages: &[Json], render: impl Fn(&[Json]) -> Result<String>) -> Result<String> {
    let read: Vec<Option<Json>> = messages.iter().map(Json::with_arguments).collect();
    if read.iter().all(Option::is_none) {
        return render(messages);
    }
    let objects = read.into_iter().zip(messages);
    let objects: Vec<Json> =
        objects.map(|(read, own)| read.unwrap_or_else(|| own.clone())).collect();
    render(&objects).or_else(|_| render(messages))
}

fn said<'a>(message: &'a Json, field: &str) -> &'a str {
    message.0.get(field).and_then(|value| value.as_str()).unwrap_or_default()
}

fn content(message: &Json) -> &str {
    said(message, "content")
}

fn role(message: &Json) -> Role {
    match said(message, "role") {
        "assistant" => Role::Assistant,
        _ => Role::User,
    }
}
