// shares — out[l, t, h, j] = p_j,  p = softmax_i(q_i . k_i / sqrt(HD)) over the keys that token t sees, of the first
//          FIRST stored keys alone; 0 where a key is not seen. What attention weighs with, to be looked at.
//
//   binding  name    access   type       shape                  unit
//   0        params  read     SharesParams
//   1        frame   read     u32        [4]                    n: position of the first token, tokens, sinks kept
//   2        q       read     vec4<f32>  [T, 3, H HD/4]         queries at: this lap, lap before, sinks
//   3        k       read     vec4<u32>  [S + N, KV HD words/4] keys, as lib/kv.wgsl or lib/kv_blocks.wgsl has them
//   4        v       read     vec4<u32>  [S + N, KV HD words/4] values: not looked at, but these name them
//   5        terms   read     vec4<f32>  [H]                    ALiBi's slope; what softmax starts from: a score, a sum; 0
//   6        out     write    f32        [L, T, H, FIRST]       shares of attention, each token's 1 in all, less what softmax starts from
//
//   grid:      [H, T, 1] workgroups, one a token and head
//   requires:  HD a multiple of 8, HEAD_DIM = HD; first <= S + N
//   uses:      lib/attention_params.wgsl, lib/score.wgsl, lib/ring.wgsl, lib/kv.wgsl or lib/kv_blocks.wgsl
//   twin:      src/reference/shares.rs
//
// Each lane keeps a running maximum and sum of its own keys (online softmax); then they are joined.

struct SharesParams {
    attend: Params,
    layer: u32,  // l
    rows: u32,   // T
    first: u32,  // FIRST
}

@group(0) @binding(0) var<storage, read> params: SharesParams;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> v: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> terms: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

override WG: u32 = 64u;
override HEAD_DIM: u32 = 64u;

var<workgroup> q_scratch: array<vec4<f32>, 3u * HEAD_DIM / 4u>;  // [3, HD/4]
var<workgroup> highest_scratch: array<f32, WG>;
var<workgroup> total_scratch: array<f32, WG>;

/// The score of the key at `index` for token n, or LOWEST.
fn score(n: u32, index: u32, head: u32) -> f32 {
    let ring = Ring(params.attend.sinks, params.attend.window, params.attend.slots);
    let serves = ring_serves(ring, n, index, frame[2] > params.attend.forgets);
    if serves == NOT_SEEN {
        return LOWEST;
    }
    let eights = HEAD_DIM / 8u;
    let kv_head = head / (params.attend.heads / params.attend.kv_heads);
    let key_at = kv_at(index, kv_head, params.attend.kv_heads);
    let q_at = serves * HEAD_DIM / 4u;
    var sum = vec4(0.0);
    for (var e = 0u; e < eights; e++) {
        let key = k8(key_at, e);
        sum += q_scratch[q_at + 2u * e] * key.a + q_scratch[q_at + 2u * e + 1u] * key.b;
    }
    let found = scores_of(params.attend, vec4(sum.x + sum.y + sum.z + sum.w));
    return biased(found, vec4(terms[head].x), vec4(ring_phases(ring, n)[serves]), index).x;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let head = group.x;
    let token = group.y;
    if token >= frame[1] {
        return;
    }
    let n = frame[0] + token;
    let stored = min(n + 1u, params.attend.sinks + params.attend.slots);
    let quarter = HEAD_DIM / 4u;
    for (var i = lane; i < 3u * quarter; i += WG) {
        let row = token * 3u + i / quarter;
        q_scratch[i] = q[(row * params.attend.heads + head) * quarter + i % quarter];
    }
    workgroupBarrier();

    var highest = LOWEST;
    var total = 0.0;
    for (var i = lane; i < stored; i += WG) {
        let found = score(n, i, head);
        if found > LOWEST {
            let now = max(highest, found);
            total = total * exp(highest - now) + exp(found - now);
            highest = now;
        }
    }
    highest_scratch[lane] = highest;
    total_scratch[lane] = total;
    workgroupBarrier();

    let start = terms[head].yz;
    var most = start.x;
    for (var other = 0u; other < WG; other++) {
        most = max(most, highest_scratch[other]);
    }
    var whole = start.y * exp(start.x - most);
    for (var other = 0u; other < WG; other++) {
        whole += total_scratch[other] * exp(highest_scratch[other] - most);
    }
    let row = (params.layer * params.rows + token) * params.attend.heads + head;
    for (var j = lane; j < params.first; j += WG) {
        let found = score(n, j, head);
        out[row * params.first + j] = weights_of(vec4(found), vec4(most)).x / whole;
    }
}
