// attention — out[t, h] = sum_i p_i v_i,  p = softmax_i(q_i . k_i / sqrt(HD)) over the keys that token t sees;
//             q_i is the query at the phase that serves key i (lib/ring.wgsl)
//
//   binding  name    access   type       shape                  unit
//   0        params  read     Params
//   1        frame   read     u32        [4]                    n: position of the first token, tokens, sinks kept
//   2        q       read     vec4<f32>  [T, 3, H HD/4]         queries at: this lap, lap before, sinks
//   3        k       read     vec4<u32>  [S + N, KV HD words/4] keys, as lib/kv.wgsl or lib/kv_blocks.wgsl has them
//   4        v       read     vec4<u32>  [S + N, KV HD words/4] values, the same
//   5        terms   read     vec4<f32>  [H]                    ALiBi's slope; what softmax starts from: a score, a sum; 0
//   6        out     write    vec4<f32>  [T, H HD/4]            activations; before the last span its sums
//   7        carry   write    vec2<f32>  [T, H]                 the highest score and the sum of exponentials so far
//
//   grid:      [H/GROUP, T, 1] workgroups, one a token and GROUP heads that share keys and values
//   requires:  HD a multiple of 8, HEAD_DIM = HD; GROUP at most 4, a divisor of H/KV
//   uses:      lib/attention_params.wgsl, lib/score.wgsl, lib/ring.wgsl, lib/kv.wgsl or lib/kv_blocks.wgsl
//   twin:      src/reference/attention.rs
//
// Keys go by in tiles: scores, one a lane; the running maximum (online softmax); then each lane adds
// up p v for its own dimensions. Tiles and the order inside them do not depend on the ring's size, so
// two caches that hold the same keys at the same places give the same bits.
// A key or value is read once for GROUP heads; those beyond GROUP cost nothing, as it is a constant by
// the time this is compiled. One dispatch looks at a span of slots; sums, highest and total go on to the next.

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> v: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> terms: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> carry: array<vec2<f32>>;

override WG: u32 = 64u;
override GROUP: u32 = 1u;
override HEAD_DIM: u32 = 64u;

const TILE: u32 = 64u;

var<workgroup> q_scratch: array<vec4<f32>, 3u * GROUP * HEAD_DIM / 4u>;  // [GROUP, 3, HD/4]
var<workgroup> p_scratch: array<vec4<f32>, TILE>;                        // a component a head
var<workgroup> lane_scratch: array<vec4<f32>, WG>;
var<workgroup> out_scratch: array<Eight, GROUP * HEAD_DIM / 8u>;         // [GROUP, HD/8]

fn products(q_at: u32, key: Eight) -> vec4<f32> {
    return q_scratch[q_at] * key.a + q_scratch[q_at + 1u] * key.b;
}

fn sum(v: vec4<f32>) -> f32 {
    return v.x + v.y + v.z + v.w;
}

/// q . k of every head of the group; `serves`: which of the three queries.
fn scores(key_at: u32, serves: u32) -> vec4<f32> {
    let quarter = HEAD_DIM / 4u;
    let head = 3u * quarter; // from one head's queries to the next's
    let q_at = serves * quarter;
    var d0 = vec4(0.0);
    var d1 = vec4(0.0);
    var d2 = vec4(0.0);
    var d3 = vec4(0.0);
    for (var e = 0u; e < HEAD_DIM / 8u; e++) {
        let key = k8(key_at, e);
        let at = q_at + 2u * e;
        d0 += products(at, key);
        if GROUP > 1u {
            d1 += products(at + head, key);
        }
        if GROUP > 2u {
            d2 += products(at + 2u * head, key);
        }
        if GROUP > 3u {
            d3 += products(at + 3u * head, key);
        }
    }
    return scores_of(params, vec4(sum(d0), sum(d1), sum(d2), sum(d3)));
}

fn shrunk(at: u32, shrink: f32) -> Eight {
    return Eight(out_scratch[at].a * shrink, out_scratch[at].b * shrink);
}

fn plus(sum: Eight, p: f32, value: Eight) -> Eight {
    return Eight(sum.a + p * value.a, sum.b + p * value.b);
}

/// Adds `count` values, from that of slot `first` on, to eight dimensions of every head's sum.
fn add_values(e: u32, first: u32, kv_head: u32, count: u32, shrink: vec4<f32>) {
    let eights = HEAD_DIM / 8u;
    var s0 = shrunk(e, shrink.x);
    var s1 = s0;
    var s2 = s0;
    var s3 = s0;
    if GROUP > 1u {
        s1 = shrunk(e + eights, shrink.y);
    }
    if GROUP > 2u {
        s2 = shrunk(e + 2u * eights, shrink.z);
    }
    if GROUP > 3u {
        s3 = shrunk(e + 3u * eights, shrink.w);
    }
    for (var i = 0u; i < count; i++) {
        // A key that is not seen may hold anything: it is left out, not multiplied by zero.
        let p = p_scratch[i];
        if any(p > vec4(0.0)) {
            let value = v8(kv_at(first + i, kv_head, params.kv_heads), e);
            s0 = plus(s0, p.x, value);
            if GROUP > 1u {
                s1 = plus(s1, p.y, value);
            }
            if GROUP > 2u {
                s2 = plus(s2, p.z, value);
            }
            if GROUP > 3u {
                s3 = plus(s3, p.w, value);
            }
        }
    }
    out_scratch[e] = s0;
    if GROUP > 1u {
        out_scratch[e + eights] = s1;
    }
    if GROUP > 2u {
        out_scratch[e + 2u * eights] = s2;
    }
    if GROUP > 3u {
        out_scratch[e + 3u * eights] = s3;
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let head = GROUP * group.x;
    let token = group.y;
    if token >= frame[1] {
        return;
    }
    let ring = Ring(params.sinks, params.window, params.slots);
    let n = frame[0] + token;
    let stored = min(n + 1u, params.sinks + params.slots);
    let end = min(params.first + params.span, stored);
    if params.first >= stored {
        return;
    }
    let eights = HEAD_DIM / 8u;
    let kv_head = head / (params.heads / params.kv_heads);

    let quarter = HEAD_DIM / 4u;
    for (var i = lane; i < 3u * GROUP * quarter; i += WG) {
        let row = token * 3u + (i / quarter) % 3u;
        q_scratch[i] = q[(row * params.heads + head + i / (3u * quarter)) * quarter + i % quarter];
    }
    let row = token * params.heads + head;
    for (var i = lane; i < GROUP * eights; i += WG) {
        out_scratch[i] = Eight(vec4(0.0), vec4(0.0));
        if params.first > 0u {
            let at = row * quarter + 2u * i;
            out_scratch[i] = Eight(out[at], out[at + 1u]);
        }
    }
    workgroupBarrier();

    let own = terms_of(head + min(vec4(0u, 1u, 2u, 3u), vec4(GROUP - 1u)));
    let phases = ring_phases(ring, n);
    var highest = own.highest;
    var total = own.total;
    if params.first > 0u {
        for (var g = 0u; g < GROUP; g++) {
            highest[g] = carry[row + g].x;
            total[g] = carry[row + g].y;
        }
    }
    for (var first = params.first; first < end; first += TILE) {
        let count = min(TILE, end - first);
        var most = vec4(LOWEST);
        for (var i = lane; i < count; i += WG) {
            let serves = ring_serves(ring, n, first + i, frame[2] > params.forgets);
            var score = vec4(LOWEST);
            if serves != NOT_SEEN {
                score = scores(kv_at(first + i, kv_head, params.kv_heads), serves);
                score = biased(score, own.slope, vec4(phases[serves]), first + i);
            }
            p_scratch[i] = score;
            most = max(most, score);
        }
        lane_scratch[lane] = most;
        workgroupBarrier();

        // Each lane looks at its own keys, then at what the other lanes found.
        var now = highest;
        for (var other = 0u; other < WG; other++) {
            now = max(now, lane_scratch[other]);
        }
        let shrink = exp(highest - now);
        highest = now;
        var share = vec4(0.0);
        for (var i = lane; i < count; i += WG) {
            let p = weights_of(p_scratch[i], now);
            p_scratch[i] = p;
            share += p;
        }
        workgroupBarrier();
        lane_scratch[lane] = share;
        workgroupBarrier();

        total *= shrink;
        for (var other = 0u; other < WG; other++) {
            total += lane_scratch[other];
        }
        for (var e = lane; e < eights; e += WG) {
            add_values(e, first, kv_head, count, shrink);
        }
        workgroupBarrier();
    }

    if end < stored && lane == 0u {
        for (var g = 0u; g < GROUP; g++) {
            carry[row + g] = vec2(highest[g], total[g]);
        }
    }
    for (var i = lane; i < GROUP * eights; i += WG) {
        let at = row * quarter + 2u * i;
        let sum = out_scratch[i];
        let whole = select(total[i / eights], 1.0, end < stored);
        out[at] = sum.a / whole;
        out[at + 1u] = sum.b / whole;
    }
}
