// lib/score.wgsl — what the product of a query and a key is worth: the one place where attention kernels have it from.
//
// Gives:  LOWEST: the score of a key that is not seen
//         scores_of(p, products) -> the scores of up to four products of a query and a key
//         weights_of(scores, highest) -> e^(score - highest); 0 for what is not seen
// Uses:   lib/attention_params.wgsl

const LOWEST: f32 = -3.0e38;

fn scores_of(p: Params, products: vec4<f32>) -> vec4<f32> {
    return products * p.scale;
}

fn weights_of(scores: vec4<f32>, highest: vec4<f32>) -> vec4<f32> {
    return select(vec4(0.0), exp(scores - highest), scores > vec4(LOWEST));
}
