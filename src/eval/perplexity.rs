//! What the likelihoods of a text's tokens come to.
use std::ops::Range;

/// The negative log likelihood of tokens of a text, in nats, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Of each token, all or a sample.
    pub nll: Vec<f32>,
    /// Which tokens of the text, where not 1, 2, 3, …
    pub sample: Option<Vec<usize>>,
}

/// The perplexity of a stretch of a text.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Stretch {
    /// The stretch is of the tokens after this one, …
    pub from: usize,
    /// … up to this one.
    pub to: usize,
    /// How many of them were measured.
    pub tokens: usize,
    /// exp(mean nll)
    pub ppl: f64,
}

impl Scores {
    /// Each token's index in the text and its nll.
    pub fn iter(&self) -> impl Iterator<Item = (usize, f32)> {
        let index = |i: usize| self.sample.as_ref().map_or(i + 1, |sample| sample[i]);
        self.nll.iter().enumerate().map(move |(i, &nll)| (index(i), nll))
    }

    /// exp(mean nll) of all; none of no tokens.
    pub fn perplexity(&self) -> Option<f64> {
        mean(self.nll.iter().copied()).map(|(_, mean)| mean.exp())
    }

    /// The same of these tokens alone; none where not all of them were measured.
    pub fn perplexity_at(&self, sample: &[usize]) -> Option<f64> {
        let of = |&index: &usize| match &self.sample {
            Some(own) => own.binary_search(&index).ok().map(|i| self.nll[i]),
            None => self.nll.get(index.checked_sub(1)?).copied(),
        };
        let nll: Option<Vec<f32>> = sample.iter().map(of).collect();
        mean(nll?.into_iter()).map(|(_, mean)| mean.exp())
    }

    /// The perplexity of each range that was measured to its end; of a sample, of what lies in it.
    pub fn by_range(&self, ranges: &[Range<usize>]) -> Vec<Stretch> {
        let of = |range: &Range<usize>| {
            let within = self.iter().filter(|(i, _)| range.start < *i && *i <= range.end);
            let (tokens, mean) = mean(within.map(|(_, nll)| nll))?;
            let whole = self.sample.is_some() || tokens == range.len();
            let stretch = Stretch { from: range.start, to: range.end, tokens, ppl: mean.exp() };
            whole.then_some(stretch)
        };
        ranges.iter().filter_map(of).collect()
    }

    /// The perplexity of the last `over` tokens, at each from there on.
    pub fn running(&self, over: usize) -> Vec<(f64, f64)> {
        let over = over.max(1);
        let mut sum = 0.0;
        let mut points = Vec::new();
        for (i, (index, last)) in self.iter().enumerate() {
            sum += f64::from(last);
            if i >= over {
                sum -= f64::from(self.nll[i - over]);
            }
            if i + 1 >= over {
                points.push((index as f64, (sum / over as f64).exp()));
            }
        }
        points
    }
}

fn mean(nll: impl Iterator<Item = f32>) -> Option<(usize, f64)> {
    let (mut count, mut sum) = (0, 0.0);
    for nll in nll {
        count += 1;
        sum += f64::from(nll);
    }
    (count > 0).then(|| (count, sum / count as f64))
}

#[cfg(test)]
mod tests {
    use super::Scores;

    fn all(nll: &[f32]) -> Scores {
        Scores { nll: nll.to_vec(), sample: None }
    }

    #[test]
    fn a_fair_die_has_the_perplexity_of_its_sides() {
        assert_eq!(all(&[]).perplexity(), None);
        let die = all(&[6f32.ln(); 10]).perplexity().expect("ten throws");
        assert!((die - 6.0).abs() < 1e-5, "{die}");
    }

    #[test]
    fn ranges_are_told_where_they_are_whole() {
        let scores = all(&[2f32.ln(), 8f32.ln(), 5f32.ln()]);
        let found = |scores: &Scores| -> Vec<_> {
            let stretches = scores.by_range(&[0..2, 1..3, 2..4, 4..9]);
            stretches.iter().map(|s| (s.from, s.tokens, (s.ppl * 1e4).round() / 1e4)).collect()
        };
        assert_eq!(found(&scores), [(0, 2, 4.0), (1, 2, 6.3246)]);
        let sampled = Scores { sample: Some(vec![2, 5, 9]), ..scores };
        assert_eq!(found(&sampled), [(0, 1, 2.0), (1, 1, 2.0), (4, 2, 6.3246)]);
    }

    #[test]
    fn a_sample_is_found_again_among_all() {
        let scores = all(&[2f32.ln(), 8f32.ln(), 5f32.ln()]);
        let at = |sample: &[usize]| scores.perplexity_at(sample).map(|ppl| ppl.round());
        assert_eq!(
            (at(&[2]), at(&[1, 2]), at(&[3, 4]), at(&[0])),
            (Some(8.0), Some(4.0), None, None)
        );
        let part = Scores { sample: Some(vec![2, 7, 9]), ..scores };
        assert_eq!(part.perplexity_at(&[7]).map(f64::round), Some(8.0));
        assert_eq!(part.perplexity_at(&[7, 8]), None);
    }

    #[test]
    fn what_runs_forgets_what_is_long_gone() {
        let points = all(&[9.0, 9.0, 0.0, 0.0, 1.0]).running(2);
        let at: Vec<f64> = points.iter().map(|p| p.0).collect();
        assert_eq!(at, [2.0, 3.0, 4.0, 5.0]);
        for (point, mean) in points.iter().zip([9.0f64, 4.5, 0.0, 0.5]) {
            assert!((point.1.ln() - mean).abs() < 1e-9, "{points:?}");
        }
    }
}
