//! How much of a pass goes into one submission, found out from what submissions take. Numbers alone: whoever asks has
//! the clock.
use crate::gpu::{Pieces, UNIT_LOOP};
use std::time::Duration;

/// How much of a new time goes into the mean.
const SMOOTH: f64 = 0.5;

/// How many pieces of a pass go into one submission, so that none takes long: a system takes a device that does not
/// answer for two seconds for hung.
pub(crate) struct Portions {
    /// Milliseconds of a submission.
    within: f64,
    /// Of a mean piece of a full pass, if that is known.
    piece: Option<f64>,
    longest: f64,
}

/// The fewest tokens that a pass which is made for many is worth.
const FEWEST: usize = 16;

/// The effort of a submission while nothing is known: about what the slowest devices do in the time that one should take.
const FIRST: f64 = 120_000.0 * UNIT_LOOP as f64;

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

    /// Tokens of a pass that is made for a `chunk` of them: whole tiles, but fewer, where nothing is known, and where the
    /// `largest` piece, in mean ones, would take longer for all of them than a submission should.
    pub(crate) fn tokens(&self, chunk: usize, tile: usize, largest: f64) -> usize {
        let tile = tile.max(FEWEST);
        let tokens = match self.piece.map(|piece| piece * largest) {
            None => tile,
            Some(piece) if piece > self.within => {
                let fit = (chunk as f64 * self.within / piece) as usize;
                fit / tile * tile
            }
            Some(_) => chunk,
        };
        tokens.max(tile).min(chunk)
    }

    /// The longest submission so far, in milliseconds.
    pub(crate) fn longest(&self) -> f64 {
        self.longest
    }

    /// Where the submission ends that begins `at` a piece, of `all`, for such a `share` of the tokens that a pass is made for.
    /// It has whole passes, or is within one: a piece at least, and all that fit.
    pub(crate) fn end(&self, at: usize, pieces: &Pieces<'_>, all: usize, share: f64) -> usize {
        let known = self.piece.map(|piece| self.within / piece);
        let fit = known.unwrap_or(FIRST / pieces.effort()) / share;
        let pass = pieces.count();
        if fit >= pass as f64 {
            return at.saturating_add(fit as usize / pass * pass).min(all);
        }
        let (begin, next) = (pieces.until(at), at + pass - at % pass);
        // Of sums of fractions.
        let fits = |end: &usize| pieces.until(*end) - begin <= fit + 1e-6;
        (at + 2..=next).take_while(fits).last().unwrap_or(at + 1)
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
    use super::{FIRST, Portions};
    use crate::gpu::{Pieces, Program};
    use std::time::Duration;

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    /// The submissions that all of it is cut into, of a full pass.
    fn cut(portions: &Portions, pieces: &Pieces<'_>, all: usize) -> Vec<usize> {
        let (mut at, mut ends) = (0, vec![]);
        while at < all {
            at = portions.end(at, pieces, all, 1.0);
            ends.push(at);
        }
        ends
    }

    /// So many alike, each too much for a start.
    fn alike(count: usize) -> Program {
        Program::of_efforts(&vec![(2 * FIRST as u64, 0..0); count])
    }

    #[test]
    fn a_pass_goes_in_portions_that_take_no_longer_than_they_may() {
        let (five, many, head) = (alike(5), alike(30), alike(1));
        let (five, pass) = ([&five], [&many, &head]);
        let (five, pass) = (Pieces::of(&five), Pieces::of(&pass));
        let mut portions = Portions::new(ms(100.0));
        assert_eq!(cut(&portions, &five, 7), [1, 2, 3, 4, 5, 6, 7], "unknown: one by one");
        portions.took(31.0, 31, ms(31.0 * 12.0));
        assert_eq!(cut(&portions, &pass, 31), [8, 16, 24, 31], "eight fit");
        assert!(portions.fills(9.0) && !portions.fills(8.0));
        assert_eq!(portions.end(0, &pass, 31, 0.5), 16, "of half of the tokens twice as many");
        (0..40).for_each(|_| portions.took(8.0, 1, ms(16.0)));
        assert_eq!(cut(&portions, &pass, 31), [31]);
        assert_eq!(
            cut(&portions, &pass, 4 * 31),
            [31, 62, 93, 124],
            "no step is parted without need"
        );
        (0..40).for_each(|_| portions.took(31.0, 1, ms(31.0)));
        assert_eq!(cut(&portions, &pass, 4 * 31), [93, 124]);
        // Slower again, at once.
        portions.took(93.0, 1, ms(930.0));
        assert_eq!(cut(&portions, &pass, 31), [18, 31]);
        assert_eq!(portions.longest(), 930.0);
        let mut none = Portions::new(Duration::ZERO);
        none.took(31.0, 1, ms(1.0));
        assert_eq!(cut(&none, &five, 5), [1, 2, 3, 4, 5]);
        none.took(31.0, 1, Duration::ZERO);
        assert_eq!(cut(&none, &five, 5).len(), 5);
    }

    #[test]
    fn what_takes_longer_goes_with_less_beside_it() {
        let unit = FIRST as u64 / 4;
        // The last two go over a cache of 100 slots.
        let efforts =
            [(unit, 0..0), (unit, 0..0), (4 * unit, 0..0), (4 * unit, 0..40), (6 * unit, 40..100)];
        let program = Program::of_efforts(&efforts);
        let programs = [&program];
        let [empty, some, full] = [0, 10, 100].map(|filled| Pieces::over(&programs, filled));
        // A mean piece has 16 fifths of a unit.
        let units = |pieces: &Pieces<'_>, at| (pieces.until(at) * 16.0 / 5.0).round();
        assert_eq!(
            [4, 5, 10].map(|at| units(&empty, at)),
            [6.0, 6.0, 12.0],
            "nothing takes no time"
        );
        assert_eq!(
            [4, 5, 10].map(|at| units(&some, at)),
            [7.0, 7.0, 14.0],
            "what is filled is the first's"
        );
        assert_eq!([4, 5, 10].map(|at| units(&full, at)), [10.0, 16.0, 32.0]);
        assert_eq!(Pieces::of(&programs).largest(), 6.0 * 5.0 / 16.0);
        let mut portions = Portions::new(ms(100.0));
        assert_eq!(
            cut(&portions, &full, 5),
            [2, 3, 4, 5],
            "four units at a time while nothing is known"
        );
        assert_eq!(cut(&portions, &empty, 5), [2, 5]);
        // Ten milliseconds a unit.
        portions.took(5.0, 1, ms(160.0));
        assert_eq!(cut(&portions, &full, 10), [4, 5, 9, 10]);
        assert_eq!(cut(&portions, &empty, 10), [5, 10]);
    }

    #[test]
    fn fewer_tokens_go_at_once_where_a_piece_takes_long() {
        let mut portions = Portions::new(ms(100.0));
        let tokens = |portions: &Portions, chunk, tile| portions.tokens(chunk, tile, 2.0);
        assert_eq!([256, 7].map(|chunk| tokens(&portions, chunk, 64)), [64, 7], "unknown: a tile");
        portions.took(1.0, 1, ms(50.0));
        assert_eq!(tokens(&portions, 65, 16), 65);
        (0..40).for_each(|_| portions.took(1.0, 1, ms(75.0)));
        assert_eq!([64, 256, 7].map(|chunk| tokens(&portions, chunk, 32)), [32, 160, 7]);
        (0..40).for_each(|_| portions.took(1.0, 1, ms(410.0)));
        assert_eq!([64, 256, 7].map(|chunk| tokens(&portions, chunk, 8)), [16, 16, 7]);
        assert_eq!([64, 256, 7].map(|chunk| tokens(&portions, chunk, 64)), [64, 64, 7]);
        let mut none = Portions::new(Duration::ZERO);
        none.took(31.0, 1, ms(1.0));
        assert_eq!(tokens(&none, 256, 64), 64);
    }
}
