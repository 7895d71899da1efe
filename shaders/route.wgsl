// route — chosen[t] = the K experts of the highest logits of token t, highest first, and their shares: scale times the
//         softmax over these K. Of equal logits the lower expert comes first
//
//   binding  name    access  type       shape      unit
//   0        params  read    Params
//   1        frame   read    u32        [4]        n: position of the first token, tokens: their number
//   2        logits  read    f32        [T, E]     of each token for each expert
//   3        chosen  write   vec2<u32>  [T, K]     an expert, and the bits of its share
//
//   grid:      [T, 1, 1] workgroups, one a token
//   requires:  K <= E <= 512, K <= 16
//   uses:      nothing
//   twin:      src/reference/route.rs
//
// The softmax over all experts, of which the K highest are divided by their sum, is the same. Whatever the logits are, K
// different experts are chosen: what is not a number counts as a number beyond all others, and its share is to be seen.

struct Params {
    experts: u32,  // E
    used: u32,     // K
    scale: f32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read_write> chosen: array<vec2<u32>>;

override WG: u32 = 64u;

/// Each expert's logit as a key, 0 once it is chosen: read and written by one lane alone.
var<workgroup> key_scratch: array<u32, 512>;
/// Each lane's highest key, and its expert.
var<workgroup> best_scratch: array<vec2<u32>, WG>;
var<workgroup> won_scratch: array<u32, 16>;

/// Integers in the order of numbers; none is 0.
fn ordered(number: f32) -> u32 {
    let bits = bitcast<u32>(number);
    let negative = (bits >> 31u) == 1u;
    let key = select(bits | 0x80000000u, ~bits, negative);
    // Zeros are equal.
    return max(select(key, 0x80000000u, (bits & 0x7fffffffu) == 0u), 1u);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if group.x >= frame[1] {
        return;
    }
    let row = group.x * params.experts;
    for (var expert = lane; expert < params.experts; expert += WG) {
        key_scratch[expert] = ordered(logits[row + expert]);
    }
    for (var slot = 0u; slot < params.used; slot++) {
        var best = vec2(0u, 0u);
        for (var expert = lane; expert < params.experts; expert += WG) {
            let key = key_scratch[expert];
            best = select(best, vec2(key, expert), key > best.x);
        }
        best_scratch[lane] = best;
        workgroupBarrier();
        var won = best_scratch[0];
        for (var other = 1u; other < WG; other++) {
            let its = best_scratch[other];
            let higher = (its.x > won.x) | ((its.x == won.x) & (its.y < won.y));
            won = select(won, its, higher);
        }
        if won.y % WG == lane {
            key_scratch[won.y] = 0u;
            won_scratch[slot] = won.y;
        }
        workgroupBarrier(); // the next round writes
    }
    let highest = logits[row + won_scratch[0]];
    for (var slot = lane; slot < params.used; slot += WG) {
        var total = 0.0;
        for (var other = 0u; other < params.used; other++) {
            total += exp(logits[row + won_scratch[other]] - highest);
        }
        let expert = won_scratch[slot];
        let share = params.scale * exp(logits[row + expert] - highest) / total;
        chosen[group.x * params.used + slot] = vec2(expert, bitcast<u32>(share));
    }
}
