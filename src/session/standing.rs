//! Where a stream stands: numbers that change together, and nothing of the device.
use std::collections::VecDeque;

/// How far a stream is fed, given out and known. Whatever is awaited may never come: before every wait this is right.
#[derive(Clone)]
pub(super) struct Standing {
    /// Tokens that the device was fed. Never wraps.
    pub(super) fed: u64,
    /// The furthest that the ring was ever written: what was taken back has overwritten what it had to.
    pub(super) reach: u64,
    /// A token of the stream that was given out, but not fed yet.
    pub(super) pending: Option<u32>,
    /// Tokens that were fed, but not given out yet: a generation is that far ahead.
    pub(super) ahead: u64,
    /// Changes when the stream is led on by anything but a generation.
    pub(super) epoch: u64,
    /// The device's logits are not those of the token fed last: it has to be fed anew before they count.
    pub(super) stale: bool,
    /// The tokens fed or given out last, oldest first.
    known: VecDeque<u32>,
    /// How many are kept.
    room: usize,
}

impl Standing {
    /// At the start of a stream, of which the last `room` tokens are kept.
    pub(super) fn new(room: usize) -> Self {
        let known = VecDeque::with_capacity(room);
        let (fed, reach, ahead, epoch) = (0, 0, 0, 0);
        Self { fed, reach, pending: None, ahead, epoch, stale: false, known, room }
    }

    /// Tokens of the stream: fed, or given out.
    pub(super) fn position(&self) -> u64 {
        self.fed - self.ahead + u64::from(self.pending.is_some())
    }

    /// What a generation that goes on undisturbed finds as it left it.
    pub(super) fn mark(&self) -> (u64, u64) {
        (self.epoch, self.fed)
    }

    /// The tokens fed or given out last, oldest first.
    pub(super) fn known(&self) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator + '_ {
        self.known.iter().copied()
    }

    /// The last of them.
    pub(super) fn last(&self) -> Option<u32> {
        self.known.back().copied()
    }

    /// The token before the last `tokens`, if it is known.
    pub(super) fn before(&self, tokens: u64) -> Option<u32> {
        self.known
            .len()
            .checked_sub(usize::try_from(tokens).ok()?.checked_add(1)?)
            .map(|i| self.known[i])
    }

    /// Takes down tokens that were fed or given out.
    pub(super) fn note(&mut self, tokens: &[u32]) {
        // What would be pushed out at once is not pushed in.
        let tokens = &tokens[tokens.len().saturating_sub(self.room)..];
        let gone = (self.known.len() + tokens.len()).saturating_sub(self.room);
        self.known.drain(..gone);
        self.known.extend(tokens);
    }

    /// The device is so many tokens further.
    pub(super) fn lead(&mut self, tokens: u64) {
        self.fed += tokens;
        self.reach = self.reach.max(self.fed);
    }

    /// The token that was given out last is fed, and the next one is given out.
    pub(super) fn go_on(&mut self, token: u32) {
        if self.pending.replace(token).is_some() {
            self.lead(1);
        }
        self.note(&[token]);
    }

    /// With others the device was fed so many tokens beyond those that were given out before the last.
    pub(super) fn led(&mut self, tokens: u64) {
        self.epoch += 1;
        if tokens > 0 {
            self.pending = None;
            self.lead(tokens);
            self.ahead += tokens - 1;
            // The logits of these are elsewhere.
            self.stale = true;
        }
    }

    /// Leaves out what was fed and not given out: it is written over.
    pub(super) fn drop_ahead(&mut self) {
        let ahead = std::mem::take(&mut self.ahead);
        self.fed -= ahead;
        self.stale |= ahead > 0;
    }

    /// Forgets the last `tokens`, of which `fed` had been fed; `last` comes before them.
    pub(super) fn take_back(&mut self, tokens: u64, fed: u64, last: u32) {
        if tokens > 0 {
            self.pending = None;
        }
        self.fed -= fed;
        self.ahead = 0;
        self.stale |= fed > 0;
        let left = self.known.len().saturating_sub(usize::try_from(tokens).unwrap_or(usize::MAX));
        self.known.truncate(left);
        if self.known.is_empty() {
            self.known.push_back(last);
        }
    }

    /// At the start again.
    pub(super) fn reset(&mut self) {
        self.known.clear();
        (self.fed, self.reach, self.pending, self.ahead) = (0, 0, None, 0);
        self.stale = false;
        self.epoch += 1;
    }
}
