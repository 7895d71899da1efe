//! Tokens of a stream that goes on with others.
use super::alone::held;
use super::rows::{Given, Join, Rows, Seated, Watch};
use super::{Generation, Session};
use crate::gpu::Readback;
use crate::{Error, Result};
use std::sync::Arc;

/// Where a generation waits for its tokens among others.
pub(super) struct Place {
    rows: Arc<Rows>,
    stream: usize,
    serial: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.rows.abandon(self.stream, self.serial);
    }
}

impl Generation {
    /// The device's choice, which it makes for several streams at once.
    pub(super) async fn next_of_rows(&mut self, session: &mut Session) -> Result<u32> {
        // Whoever drops this future in the middle leaves a generation that starts anew from what was given out.
        if self.at.take() != Some(session.standing.mark()) {
            self.seat = None;
            self.alone.forced.clear();
            self.queue.clear();
        }
        let forced = std::mem::take(&mut self.alone.forced);
        if !forced.is_empty() {
            self.seat = None;
            session.leave_rows();
            self.feed_forced(session, forced).await?;
        }
        if let Some(token) = self.give_queued(session)? {
            return Ok(token);
        }
        match &self.seat {
            Some(Place { rows, stream, serial }) => {
                let Some(Given { token, seen, forced }) = rows.next(*stream, *serial).await? else {
                    return Err(self.why_none(session).await);
                };
                self.alone.came(seen, forced);
                self.give_of_rows(session, token);
                Ok(token)
            }
            None => self.first_of_rows(session).await,
        }
    }

    /// The choice from the logits that are there; what follows comes with the others' tokens.
    async fn first_of_rows(&mut self, session: &mut Session) -> Result<u32> {
        self.begin_alone(session).await?;
        self.force(session).await?;
        if let Some(token) = self.give_queued(session)? {
            return Ok(token);
        }
        let back = || Readback::new(&session.model.gpu, session.model.config.n_vocab);
        let watch = self.alone.watch.map(|top| Ok((top, Arc::new(back()?)))).transpose()?;
        let token = self.choose_alone(session, false).await?;
        self.join(session, token, watch)?;
        self.give_of_rows(session, token);
        Ok(token)
    }

    fn give_of_rows(&mut self, session: &mut Session, token: u32) {
        session.standing.go_on(token);
        self.sampler.drawn(token);
        self.at = Some(session.standing.mark());
    }

    /// Takes its seat among those that go on together, from a token that is about to be given out.
    fn join(&mut self, session: &Session, token: u32, watch: Option<Watch>) -> Result<()> {
        let Some(Seated { rows, stream }) = &session.seated else {
            return Err(Error::Usage("this stream shares no passes with others".into()));
        };
        let fed = session.standing.fed;
        let room = session.cache.capacity().map_or(u64::MAX, |room| room.saturating_sub(fed));
        let rules = self.alone.rules();
        if let Some(rules) = &rules {
            self.alone.forced = held(rules).forced(room.saturating_sub(1));
        }
        if !self.alone.forced.is_empty() {
            return Ok(());
        }
        let (sinks_kept, pinned) = (session.sinks_kept, self.pinned);
        let join = Join { token, fed, sinks_kept, room, pinned, rules, watch };
        let serial = rows.join(*stream, join);
        self.seat = Some(Place { rows: rows.clone(), stream: *stream, serial });
        Ok(())
    }
}
