//! Tokens into a session: in passes, or all that it sees anew.
use super::Session;
use super::submit::{Flight, Part};
use crate::Result;

impl Session {
    /// Takes in tokens: a prompt of any length, or one token. Their logits can be read afterwards.
    pub async fn feed(&mut self, tokens: &[u32]) -> Result<()> {
        self.feed_while(tokens, || true).await.map(drop)
    }

    /// The same, asking before each submission, of a pass over some of the tokens or of a part of one, whether to `go_on`.
    /// Gives how many were taken in: the first so many, of `recompute` all or none. Whoever drops the future in the middle has a stream that was fed so
    /// many, too.
    pub async fn feed_while(
        &mut self,
        tokens: &[u32],
        go_on: impl FnMut() -> bool,
    ) -> Result<usize> {
        self.model.config.expect_ids(tokens)?;
        self.room_for(tokens.len() as u64)?;
        self.leave_rows();
        self.standing.epoch += 1;
        // What is ahead is overwritten, as if it had never been.
        self.standing.drop_ahead();
        if self.recomputes() {
            return self.recompute(tokens, go_on).await;
        }
        self.feed_pending();
        self.run_all(tokens, Told::Now, go_on).await
    }

    /// Takes in tokens that will be given out one by one: until then they are ahead. One that was given out and not
    /// fed yet goes with them.
    pub(super) async fn feed_ahead(&mut self, tokens: &[u32]) -> Result<()> {
        let pending = self.standing.pending;
        let tokens: Vec<u32> = pending.into_iter().chain(tokens.iter().copied()).collect();
        self.run_all(&tokens, Told::Later, || true).await.map(drop)
    }

    /// Passes over all the tokens, the last with logits. No pass goes beyond a cache that has to make room.
    async fn run_all(
        &mut self,
        tokens: &[u32],
        told: Told,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<usize> {
        let mut flight = Flight::default();
        let mut done = 0;
        'all: while done < tokens.len() {
            let room = match &mut self.shifter {
                Some(shifter) => shifter.room(&self.model, self.standing.fed) as usize,
                None => tokens.len(),
            };
            let part = &tokens[done..tokens.len().min(done.saturating_add(room))];
            let end = done + part.len();
            let mut passes = self.passes(part);
            while let Some(pass) = self.next_pass(&mut passes) {
                let last = done + pass.len() == tokens.len();
                // Once half of a cache has gone, the token before cannot be fed anew.
                let with_logits = done + pass.len() == end;
                let part = Part { place: self.place(), tokens: pass, with_logits, last };
                if !self.submit_pass(&mut flight, part, &mut go_on).await? {
                    break 'all;
                }
                done += pass.len();
                self.standing.lead(pass.len() as u64);
                self.standing.stale = !with_logits;
                match told {
                    Told::Now => self.standing.note(pass),
                    Told::Later => {
                        let pending = u64::from(self.standing.pending.take().is_some());
                        self.standing.ahead += pass.len() as u64 - pending;
                    }
                }
            }
        }
        self.land(flight).await?;
        Ok(done)
    }

    /// Tokens cut into what one pass takes.
    fn passes<'a>(&self, tokens: &'a [u32]) -> Passes<'a> {
        let chunk = self.cache.settings().chunk;
        let (whole, rest) = tokens.split_at(tokens.len() / chunk * chunk);
        // A pass over a chunk is made for a full one.
        Passes { whole, rest, few: rest.len() <= self.kernels.few_tokens() }
    }

    /// Tokens of the next pass; they go together, as far as that is known not to take too long.
    fn next_pass<'a>(&self, passes: &mut Passes<'a>) -> Option<&'a [u32]> {
        let chunk = self.cache.settings().chunk;
        let Passes { whole, rest, few } = passes;
        let (from, tokens) = match (whole.len(), rest.len()) {
            (0, 0) => return None,
            (0, _) if *few => (rest, 1),
            (0, left) => (rest, self.at_once(left)),
            (left, _) => (whole, self.at_once((left - 1) % chunk + 1)),
        };
        from.split_off(..tokens)
    }

    /// Feeds a token that was given out.
    pub(super) fn feed_pending(&mut self) {
        let Some(token) = self.standing.pending.take() else { return };
        if let Some(shifter) = &mut self.shifter {
            shifter.room(&self.model, self.standing.fed);
        }
        self.submit_one(self.place(), token);
        self.standing.lead(1);
        self.standing.stale = false;
    }

    /// Feeds the last token once more, to where it was.
    pub(super) fn feed_last_anew(&mut self) {
        let Some(token) = self.standing.last() else { return };
        self.submit_one(self.place() - 1, token);
        self.standing.reach = self.standing.reach.max(self.standing.fed);
        self.standing.stale = false;
        self.standing.epoch += 1;
    }

    /// Takes in tokens by running the last W of the stream from the start, and gives how many. Until all of them are
    /// through, the stream is what it was.
    pub(super) async fn recompute(
        &mut self,
        tokens: &[u32],
        mut go_on: impl FnMut() -> bool,
    ) -> Result<usize> {
        let (window, fed) = (self.cache.settings().window, self.position() + tokens.len() as u64);
        let mut anew = std::mem::take(&mut self.anew);
        anew.clear();
        let before = window.saturating_sub(tokens.len()).min(self.standing.known().len());
        anew.extend(self.standing.known().skip(self.standing.known().len() - before));
        anew.extend(&tokens[tokens.len().saturating_sub(window)..]);
        self.standing.stale = fed > 0;
        let (mut flight, mut done) = (Flight::default(), 0);
        let mut passes = self.passes(&anew);
        while let Some(pass) = self.next_pass(&mut passes) {
            let last = done + pass.len() == anew.len();
            let part = Part { place: done as u64, tokens: pass, with_logits: last, last };
            if !self.submit_pass(&mut flight, part, &mut go_on).await? {
                break;
            }
            done += pass.len();
        }
        self.land(flight).await?;
        let whole = done == anew.len();
        self.anew = anew;
        if !whole {
            return Ok(0);
        }
        self.standing.pending = None;
        self.standing.lead(fed - self.standing.fed);
        self.standing.note(tokens);
        self.standing.stale = false;
        Ok(tokens.len())
    }
}

/// When tokens that are fed are given out.
#[derive(Clone, Copy)]
enum Told {
    Now,
    Later,
}

/// What is left of tokens that are fed: whole chunks, and less than one.
struct Passes<'a> {
    whole: &'a [u32],
    rest: &'a [u32],
    /// So few that they go one by one.
    few: bool,
}
