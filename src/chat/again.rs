//! A turn taken back and said anew; or, where the ring has lost what came before it, the conversation told anew.
use super::{AnswerSettings, Chat, Message, Role, Sight};
use crate::{Error, Result};
use std::collections::VecDeque;

/// What [`Chat::again`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// Whether there is an answer to read: not where it was to end before.
    pub begun: bool,
    /// How many messages were left out, where the conversation had to be told anew.
    pub left_out: Option<usize>,
}

impl Chat {
    /// The last turn anew: the same answer's place for another one, or, with `edited`, another message in the place of
    /// the last. Where the ring has lost what came before, the conversation is told anew from `before`, its messages
    /// without the last turn. `said` is the turn's message, in either case.
    pub async fn again(
        &mut self,
        before: &[Message],
        said: &str,
        edited: bool,
        answer: &AnswerSettings,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Again> {
        let taken_back = match edited {
            false => self.regenerate(answer).await,
            true => self.undo().await,
        };
        let left_out = match taken_back {
            Ok(()) if !edited => return Ok(Again { begun: true, left_out: None }),
            Ok(()) => None,
            Err(error) if error.is_usage() => Some(self.retell(before, &mut go_on).await?),
            Err(error) => return Err(error),
        };
        let begun = self.send(said, answer, go_on).await?;
        Ok(Again { begun, left_out })
    }

    /// Starts anew and tells the model what was said before: the head, and as many of the last messages as fit into
    /// the window with room for an answer, whole turns of a user's message and its answer. Gives how many messages were
    /// left out. `messages` are the conversation's without its system prompt, the user's and the model's in turn; where
    /// the last is a user's, it is left for [`Chat::send`].
    pub async fn retell(
        &mut self,
        messages: &[Message],
        mut go_on: impl FnMut() -> bool,
    ) -> Result<usize> {
        let turns: Vec<[&Message; 2]> = told(messages)?;
        let window = self.session.cache().geometry().window as usize;
        let room = window.saturating_sub(window / 4);
        let (mut from, mut tokens, mut asking) = (turns.len(), 0, None);
        let mut ids: VecDeque<[Vec<u32>; 2]> = VecDeque::new();
        while let Some(at) = from.checked_sub(1) {
            let [user, answer] = turns[at];
            let user = self.script.next(&user.content)?;
            let asking = match &mut asking {
                Some(asking) => asking,
                none => none.insert(self.script.asking()?),
            };
            let turn = [user, self.script.answer_behind(asking, &answer.content)?];
            tokens += turn.iter().map(Vec::len).sum::<usize>();
            if tokens > room {
                break;
            }
            ids.push_front(turn);
            from = at;
        }
        self.clear();
        self.sight = Sight::after(2 * from as u64);
        if let (Some(first), Some([user, _])) = (ids.front_mut(), turns.get(from)) {
            first[0] = self.script.first(&user.content)?;
        }
        for turn in ids {
            for (role, ids) in [Role::User, Role::Assistant].into_iter().zip(turn) {
                self.sight.begin(role, self.behind_head(self.session.position()));
                let fed = self.session.feed_while(&ids, &mut go_on).await?;
                self.fed += fed as u64;
                self.sight.reach(self.session.position());
                if fed < ids.len() {
                    self.clear();
                    return Ok(messages.len());
                }
            }
        }
        Ok(2 * from)
    }
}

/// Pairs of a user's message and its answer.
fn told(messages: &[Message]) -> Result<Vec<[&Message; 2]>> {
    let pairs = messages.chunks(2).map(|pair| match pair {
        [user, answer] if user.role == "user" && answer.role == "assistant" => Ok(Some([user, answer])),
        [user] if user.role == "user" => Ok(None),
        _ => Err(Error::Usage(
            "a conversation is told as messages of the user and the assistant in turn, the user's first".into(),
        )),
    });
    pairs.filter_map(Result::transpose).collect()
}
