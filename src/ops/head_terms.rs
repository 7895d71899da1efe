//! What attention knows of each head beside its queries: ALiBi's slope, and what softmax starts from.

/// What softmax has seen of every head before it sees a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Start {
    /// Nothing: weights are one in all.
    #[default]
    Plain,
    /// A key of score zero whose value is nothing: a head may attend to nothing at all.
    OffByOne,
    /// A key whose value is nothing, of a score that was learned, one a head.
    Learned(Vec<f32>),
}

/// The score that stands for none: `LOWEST` of `shaders/lib/score.wgsl`.
const LOWEST: f32 = -3.0e38;

/// ALiBi's slopes for a model's largest bias, which is 8 nearly everywhere: powers of two from head to head, and, where
/// the number of heads is none, every other one of those that twice as many would have.
fn slopes(heads: usize, bias: f32) -> impl Iterator<Item = f32> {
    // The largest power of two that is not above.
    let whole = heads.checked_ilog2().map_or(1, |log| 1usize << log);
    let slope = move |steps: usize, each: f64| (-f64::from(bias) / each * steps as f64).exp2();
    (0..heads).map(move |head| match head < whole {
        true => slope(head + 1, whole as f64) as f32,
        false => slope(2 * (head - whole) + 1, 2.0 * whole as f64) as f32,
    })
}

/// The terms of `heads` heads, as kernels of attention take them, [H, 4]: ALiBi's slope, the score and the sum of
/// exponentials that softmax starts from, and 0. `alibi`: ALiBi's largest bias, where a model has one. Of scores that were
/// learned there must be one a head: a head without one has no row, and no kernel takes that.
pub fn head_terms(heads: usize, alibi: Option<f32>, start: &Start) -> Vec<f32> {
    let slopes = match alibi {
        Some(bias) => slopes(heads, bias).collect(),
        None => vec![0.0; heads],
    };
    // Minus infinity is a score as well; what is not a number stays so, to be seen.
    let learned = |&score: &f32| [if score < LOWEST { LOWEST } else { score }, 1.0];
    let starts = match start {
        Start::Plain => vec![[LOWEST, 0.0]; heads],
        Start::OffByOne => vec![[0.0, 1.0]; heads],
        Start::Learned(scores) => scores.iter().map(learned).collect(),
    };
    let of_head = |(slope, [highest, total]): (f32, [f32; 2])| [slope, highest, total, 0.0];
    slopes.into_iter().zip(starts).flat_map(of_head).collect()
}

/// How many numbers a head has in [`head_terms`].
pub(super) const HEAD_TERMS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn slopes_of(heads: usize, bias: f32) -> Vec<f32> {
        let terms = head_terms(heads, Some(bias), &Start::Plain);
        assert!(terms.chunks_exact(4).all(|head| head[1..] == [LOWEST, 0.0, 0.0]));
        terms.chunks_exact(4).map(|head| head[0]).collect()
    }

    /// As transformers builds them for MPT and BLOOM, and llama.cpp for both, written out by hand.
    #[test]
    fn alibi_slopes_are_those_of_other_engines() {
        let eight = [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625];
        assert_eq!(slopes_of(8, 8.0), eight);
        assert_eq!(slopes_of(4, 8.0), [0.25, 0.0625, 0.015625, 0.00390625]);
        // Of eight heads every other one fills up.
        assert_eq!(slopes_of(6, 8.0), [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
        assert_eq!(slopes_of(1, 8.0), [0.00390625]);
        assert_eq!(slopes_of(3, 8.0), [0.0625, 0.00390625, 0.25]);
        assert_eq!(slopes_of(2, 4.0), [0.25, 0.0625]);
    }

    #[test]
    fn none_is_the_same_score_on_the_device() {
        let shader = include_str!("../../shaders/lib/score.wgsl");
        let line = format!("const LOWEST: f32 = {LOWEST:.1e};");
        assert!(shader.contains(&line), "no {line:?}");
    }

    #[test]
    fn softmax_starts_from_a_score_and_a_sum() {
        let starts = |start: &Start| head_terms(2, None, start);
        assert_eq!(starts(&Start::Plain), [0.0, LOWEST, 0.0, 0.0, 0.0, LOWEST, 0.0, 0.0]);
        assert_eq!(starts(&Start::OffByOne), [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let learned = Start::Learned(vec![1.5, f32::NEG_INFINITY]);
        assert_eq!(starts(&learned), [0.0, 1.5, 1.0, 0.0, 0.0, LOWEST, 1.0, 0.0]);
    }
}
