//! How much of a pass goes into one submission, found out from what submissions take. Numbers alone: whoever asks has
//! the clock.
use std::time::Duration;

/// How much of a new time goes into the mean.
const SMOOTH: f64 = 0.5;

/// How many pieces of a pass (its layers, then its head) go into one submission, so that none takes long: a system
/// takes a device that does not answer for two seconds for hung.
pub(crate) struct Portions {
    /// Milliseconds of a submission.
    within: f64,
    /// Of a piece of a full pass, if that is known.
    piece: Option<f64>,
    longest: f64,
}

/// The fewest tokens that a pass which is made for many is worth.
const FEWEST: usize = 16;

impl Portions {
    pub(crate) fn new(within: Duration) -> Self {
        Self { within: within.as_secs_f64() * 1e3, piece: None, longest: 0.0 }
    }

    pub(crate) fn is_known(&self) -> bool {
        self.piece.is_some()
    }

    /// The milliseconds that so many pieces are thought to take.
    pub(crate) fn ms(&self, pieces: f64) -> f64 {
        self.piece.map_or(f64::INFINITY, |piece| pieces * piece)
    }

    /// Whether that is as much as a submission should take.
    pub(crate) fn fills(&self, pieces: f64) -> bool {
        self.ms(pieces) > self.within
    }

    /// Tokens of a pass that is made for a `chunk` of them: whole tiles, but fewer, where nothing is known, and where a
    /// single piece for all of them would take much longer than a submission should.
    pub(crate) fn tokens(&self, chunk: usize, tile: usize) -> usize {
        let tokens = match self.piece {
            None => 1,
            Some(piece) if piece > 2.0 * self.within => {
                (chunk as f64 * self.within / piece).ceil() as usize
            }
            Some(_) => chunk,
        };
        tokens.max(1).next_multiple_of(tile.max(FEWEST)).min(chunk)
    }

    /// The longest submission so far, in milliseconds.
    pub(crate) fn longest(&self) -> f64 {
        self.longest
    }

    /// Where the submission ends that begins `at` a piece, of `all`. Every `pass` pieces are a pass, of which the first
    /// `body` are alike: if not all of a pass fits, these are shared out evenly and the others go by themselves.
    pub(crate) fn end(&self, at: usize, [body, pass]: [usize; 2], all: usize) -> usize {
        let fit = self.piece.map_or(1, |piece| (self.within / piece) as usize).max(1);
        let within = at % pass;
        if fit >= pass {
            return at.saturating_add(fit / pass * pass).min(all);
        }
        if within >= body {
            return at + pass - within;
        }
        let each = body.div_ceil(body.div_ceil(fit));
        at + each.min(body - within)
    }

    /// What so many pieces of a full pass took, in so many submissions.
    pub(crate) fn took(&mut self, pieces: f64, submissions: usize, time: Duration) {
        let ms = time.as_secs_f64() * 1e3;
        let piece = ms / pieces;
        let mean = |mean: f64| mean + SMOOTH * (piece - mean);
        self.piece = Some(self.piece.map_or(piece, mean));
        self.longest = self.longest.max(ms / submissions.max(1) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::Portions;
    use std::time::Duration;

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    /// The submissions that all of it is cut into.
    fn cut(portions: &Portions, alike: [usize; 2], all: usize) -> Vec<usize> {
        let (mut at, mut ends) = (0, vec![]);
        while at < all {
            at = portions.end(at, alike, all);
            ends.push(at);
        }
        ends
    }

    #[test]
    fn a_pass_goes_in_portions_that_take_no_longer_than_they_may() {
        let mut portions = Portions::new(ms(100.0));
        assert_eq!(
            cut(&portions, [3, 5], 10),
            [1, 2, 3, 5, 6, 7, 8, 10],
            "unknown: layer by layer"
        );
        portions.took(31.0, 31, ms(31.0 * 12.0));
        assert_eq!(cut(&portions, [30, 31], 31), [8, 16, 24, 30, 31], "eight fit, and go evenly");
        assert!(portions.fills(9.0) && !portions.fills(8.0));
        (0..40).for_each(|_| portions.took(8.0, 1, ms(16.0)));
        assert_eq!(cut(&portions, [30, 31], 31), [31]);
        assert_eq!(
            cut(&portions, [30, 31], 4 * 31),
            [31, 62, 93, 124],
            "no step is parted without need"
        );
        (0..40).for_each(|_| portions.took(31.0, 1, ms(31.0)));
        assert_eq!(cut(&portions, [30, 31], 4 * 31), [93, 124]);
        // Slower again, at once.
        portions.took(93.0, 1, ms(930.0));
        assert_eq!(cut(&portions, [30, 31], 31), [15, 30, 31]);
        assert_eq!(portions.longest(), 930.0);
        assert_eq!(portions.tokens(65, 16), 65);
        (0..40).for_each(|_| portions.took(1.0, 1, ms(410.0)));
        assert_eq!([64, 256, 7].map(|chunk| portions.tokens(chunk, 8)), [16, 64, 7]);
        assert_eq!([64, 256, 7].map(|chunk| portions.tokens(chunk, 64)), [64, 64, 7]);
        let mut none = Portions::new(Duration::ZERO);
        assert_eq!([256, 7].map(|chunk| none.tokens(chunk, 64)), [64, 7]);
        none.took(31.0, 1, ms(1.0));
        assert_eq!(cut(&none, [3, 5], 5), [1, 2, 3, 5]);
        assert_eq!(none.tokens(256, 64), 64);
        none.took(31.0, 1, Duration::ZERO);
        assert_eq!(cut(&none, [3, 5], 5).len(), 4);
    }
}
