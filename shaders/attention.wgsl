// attention — out[t, h] = sum_i p_i v_i,  p = softmax_i(q_i . k_i / sqrt(HD)) over the keys that token t sees;
//             q_i is the query at the phase that serves key i (lib/ring.wgsl)
//
//   binding  name    access   type       shape                  unit
//   0        params  uniform  Params
//   1        frame   read     u32        [4]                    n: position of the first token, tokens, sinks kept
//   2        q       read     vec4<f32>  [T, 3, H HD/4]         queries at: this lap, lap before, sinks
//   3        k       read     vec4<u32>  [S + N, KV HD words/4] keys, f16 pairs or f32 bits
//   4        v       read     vec4<u32>  [S + N, KV HD words/4] values, the same
//   5        out     write    vec4<f32>  [T, H HD/4]            activations
//
//   grid:      [H, T, 1] workgroups, one a head and token
//   requires:  HD a multiple of 8, at most 256
//   uses:      lib/ring.wgsl
//   twin:      src/reference/attention.rs
//
// Keys go by in tiles: scores, one a lane; the running maximum (online softmax); then each lane adds
// up p v for its own dimensions. Tiles and the order inside them do not depend on the ring's size, so
// two caches that hold the same keys at the same places give the same bits.

struct Params {
    heads: u32,     // H
    kv_heads: u32,  // KV
    head_dim: u32,  // HD
    sinks: u32,
    window: u32,
    slots: u32,
    scale: f32,     // 1 / sqrt(HD)
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> v: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

override WG: u32 = 64u;
override KV_F16: bool = true;

const TILE: u32 = 64u;
const LOWEST: f32 = -3.0e38;

/// Eight neighbouring dimensions.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

var<workgroup> q_scratch: array<vec4<f32>, 192>;    // three phases of at most 256 dimensions
var<workgroup> p_scratch: array<f32, TILE>;
var<workgroup> lane_scratch: array<f32, WG>;
var<workgroup> out_scratch: array<Eight, 32>;

fn halves(w: vec4<u32>) -> Eight {
    return Eight(
        vec4(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
}

/// The eight keys (values) that start at dimension 8 `at`.
fn k8(at: u32) -> Eight {
    if KV_F16 {
        return halves(k[at]);
    }
    return Eight(bitcast<vec4<f32>>(k[2u * at]), bitcast<vec4<f32>>(k[2u * at + 1u]));
}

fn v8(at: u32) -> Eight {
    if KV_F16 {
        return halves(v[at]);
    }
    return Eight(bitcast<vec4<f32>>(v[2u * at]), bitcast<vec4<f32>>(v[2u * at + 1u]));
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
    let ring = Ring(params.sinks, params.window, params.slots);
    let n = frame[0] + token;
    let stored = min(n + 1u, params.sinks + params.slots);
    let eights = params.head_dim / 8u;
    let kv_head = head / (params.heads / params.kv_heads);
    let kv_stride = params.kv_heads * eights;
    let kv_at = kv_head * eights;

    let quarter = params.head_dim / 4u;
    for (var i = lane; i < 3u * quarter; i += WG) {
        let row = token * 3u + i / quarter;
        q_scratch[i] = q[(row * params.heads + head) * quarter + i % quarter];
    }
    for (var i = lane; i < eights; i += WG) {
        out_scratch[i] = Eight(vec4(0.0), vec4(0.0));
    }
    workgroupBarrier();

    var highest = LOWEST;
    var total = 0.0;
    for (var first = 0u; first < stored; first += TILE) {
        let count = min(TILE, stored - first);
        var most = LOWEST;
        for (var i = lane; i < count; i += WG) {
            let serves = ring_sees(ring, n, first + i);
            // A sink that is not kept is a token like others. Its index is its position.
            let gone = serves == 2u && frame[2] == 0u && n - (first + i) >= params.window;
            var score = LOWEST;
            if serves != NOT_SEEN && !gone {
                let key_at = (first + i) * kv_stride + kv_at;
                let q_at = serves * quarter;
                var dots = vec4(0.0);
                for (var e = 0u; e < eights; e++) {
                    let key = k8(key_at + e);
                    dots += q_scratch[q_at + 2u * e] * key.a;
                    dots += q_scratch[q_at + 2u * e + 1u] * key.b;
                }
                score = (dots.x + dots.y + dots.z + dots.w) * params.scale;
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
        var share = 0.0;
        for (var i = lane; i < count; i += WG) {
            let score = p_scratch[i];
            let p = select(0.0, exp(score - now), score > LOWEST);
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
            var sum = out_scratch[e];
            sum.a *= shrink;
            sum.b *= shrink;
            for (var i = 0u; i < count; i++) {
                // A key that is not seen may hold anything: it is left out, not multiplied by zero.
                let p = p_scratch[i];
                if p > 0.0 {
                    let value = v8((first + i) * kv_stride + kv_at + e);
                    sum.a += p * value.a;
                    sum.b += p * value.b;
                }
            }
            out_scratch[e] = sum;
        }
        workgroupBarrier();
    }

    for (var e = lane; e < eights; e += WG) {
        let at = (token * params.heads + head) * quarter + 2u * e;
        out[at] = out_scratch[e].a / total;
        out[at + 1u] = out_scratch[e].b / total;
    }
}
