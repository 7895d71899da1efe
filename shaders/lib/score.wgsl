// lib/score.wgsl — what the product of a query and a key is worth: the one place where attention kernels have it from.
//
//   score = q . k scale, or cap tanh(q . k scale / cap) where CAPPED; less slope distance where ALIBI
//   p = e^(score - m) / (e^(start - m) l + sum e^(score - m)): softmax, whose denominator starts from two numbers a head
//
// Needs from the kernel:  terms: array<vec4<f32>>, [H]: ALiBi's slope, then what softmax starts from: start and l
// Gives:  LOWEST: the score of a key that is not seen
//         scores_of(p, products) -> the scores of up to four products of a query and a key
//         biased(scores, slopes, phases, index) -> the same with ALiBi, of the key at `index` and of queries at the phase
//         that serves it: the one less the other is their distance
//         weights_of(scores, highest) -> e^(score - highest); 0 for what is not seen
//         terms_of(heads) -> the terms of up to four heads
// Uses:   lib/attention_params.wgsl

override ALIBI: bool = false;
override CAPPED: bool = false;

const LOWEST: f32 = -3.0e38;

/// Terms of up to four heads.
struct Terms {
    slope: vec4<f32>,
    highest: vec4<f32>,  // what softmax starts from: the highest score
    total: vec4<f32>,    // and the sum of exponentials
}

fn terms_of(heads: vec4<u32>) -> Terms {
    let a = terms[heads.x];
    let b = terms[heads.y];
    let c = terms[heads.z];
    let d = terms[heads.w];
    return Terms(vec4(a.x, b.x, c.x, d.x), vec4(a.y, b.y, c.y, d.y), vec4(a.z, b.z, c.z, d.z));
}

fn scores_of(p: Params, products: vec4<f32>) -> vec4<f32> {
    var scores = products * p.scale;
    if CAPPED {
        // Beyond ten it is 1 in an f32, and some devices make no number of it.
        scores = p.cap * tanh(clamp(scores / p.cap, vec4(-10.0), vec4(10.0)));
    }
    return scores;
}

fn biased(scores: vec4<f32>, slopes: vec4<f32>, phases: vec4<u32>, index: u32) -> vec4<f32> {
    var sums = scores;
    if ALIBI {
        // Both are whole numbers that an f32 holds. A query that does not see the key may be at a lower phase.
        sums -= slopes * (vec4<f32>(phases) - f32(index));
    }
    return sums;
}

fn weights_of(scores: vec4<f32>, highest: vec4<f32>) -> vec4<f32> {
    return select(vec4(0.0), exp(scores - highest), scores > vec4(LOWEST));
}
