// nll — nll[r] = log(sum_i exp(logits[r, i])) - logits[r, targets[r]]
//
//   binding  name     access   type   shape   unit
//   0        params   read     Params
//   1        frame    read     u32    [4]     tokens: how many of T are there
//   2        logits   read     f32    [T, V]  logits
//   3        targets  read     u32    [T]     the token that came next
//   4        nll      write    f32    [T]     nats
//
//   grid:      [T, 1, 1] workgroups, one workgroup a row; rows >= tokens are left alone
//   requires:  WG a power of two; any V; targets < V
//   uses:      lib/reduce.wgsl
//   twin:      src/reference/nll.rs

struct Params {
    vocab: u32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read> targets: array<u32>;
@group(0) @binding(4) var<storage, read_write> nll: array<f32>;

override WG: u32 = 64u;

const LOWEST: f32 = -3.0e38;

var<workgroup> most_scratch: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if group.x >= frame[1] {
        return;
    }
    let row = group.x * params.vocab;
    var most = LOWEST;
    for (var i = lane; i < params.vocab; i += WG) {
        most = max(most, logits[row + i]);
    }
    most_scratch[lane] = most;
    workgroupBarrier();
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        if lane < stride {
            most_scratch[lane] = max(most_scratch[lane], most_scratch[lane + stride]);
        }
        workgroupBarrier();
    }
    // Less the largest logit, no exponential overflows and the sum is at least 1.
    let highest = most_scratch[0];
    var sum = 0.0;
    for (var i = lane; i < params.vocab; i += WG) {
        sum += exp(logits[row + i] - highest);
    }
    let total = reduce_sum(lane, sum);
    if lane == 0u {
        nll[group.x] = log(total) + (highest - logits[row + targets[group.x]]);
    }
}
