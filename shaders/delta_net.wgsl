// delta_net — o[t] = S^T q[t] / sqrt(DK) with S <- g S + b k (v - g S^T k)^T token by token, for each head; q and k are divided
//             by their lengths, g = exp(a softplus(alpha + d)), b = sigmoid(beta)
//
//   binding  name    access  type  shape                 unit
//   0        params  read    Params
//   1        frame   read    u32   [4]                   n: position of the first token, reduced, tokens: their number
//   2        rows    read    f32   [N, width]            of token n in slot n mod N: q, k [G DK], v [H DV], alpha, beta [H]
//   3        terms   read    f32   [H, 2]                a, d
//   4        states  write   u32   [1 + N/C, H, DK+1, DV]  bits of S; the row behind it says of which token
//   5        o       write   f32   [T, H, DV]            activations
//
//   grid:      [H, ceil(DV/WG), 1] workgroups, a column of S a lane; head h has the queries and keys of head h mod G
//   requires:  DK a multiple of 4; C divides N; N >= C - 1 + T; rows of the pass and of the C tokens before it
//   uses:      nothing
//   twin:      src/reference/delta_net.rs
//
// The first state is S after the last token of the pass that ran last, and says so: a pass that goes on from there begins
// with it. The others are S before every token whose number C divides. Any other pass, after tokens were taken back,
// begins with one of those, and goes through what lies between once more: the numbers are the same to the bit.

struct Params {
    key_heads: u32,  // G
    heads: u32,      // H
    key_dim: u32,    // DK
    value_dim: u32,  // DV
    width: u32,      // of a row
    slots: u32,      // N
    step: u32,       // C
    first: u32,      // the first token of the pass that a dispatch goes through
    span: u32,       // how many it goes through
    eps: f32,        // added to squares of lengths
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> rows: array<f32>;
@group(0) @binding(3) var<storage, read> terms: array<f32>;
@group(0) @binding(4) var<storage, read_write> states: array<u32>;
@group(0) @binding(5) var<storage, read_write> o: array<f32>;

override WG: u32 = 32u;
/// DK / 4 WG: each lane reads and writes its own column.
override QUADS: u32 = 1024u;
var<workgroup> state_scratch: array<vec4<f32>, QUADS>;

fn four(at: u32) -> vec4<f32> {
    return vec4(rows[at], rows[at + 1u], rows[at + 2u], rows[at + 3u]);
}

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

/// log(1 + e^x), where e^x may be beyond all numbers.
fn softplus(x: f32) -> f32 {
    return max(x, 0.0) + log(1.0 + exp(-abs(x)));
}

/// Writes the column of a lane where it begins.
fn keep(at: u32, lane: u32) {
    for (var r = 0u; r < params.key_dim; r += 4u) {
        let s = bitcast<vec4<u32>>(state_scratch[r / 4u * WG + lane]);
        let to = at + r * params.value_dim;
        states[to] = s.x;
        states[to + params.value_dim] = s.y;
        states[to + 2u * params.value_dim] = s.z;
        states[to + 3u * params.value_dim] = s.w;
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let head = group.x;
    let column = group.y * WG + lane;
    if params.first >= frame[1] || column >= params.value_dim {
        return;
    }
    let n = frame[0] + params.first;
    let end = frame[0] + min(frame[1], params.first + params.span);
    let size = params.heads * (params.key_dim + 1u) * params.value_dim;
    let mine = head * (params.key_dim + 1u) * params.value_dim + column;
    let says = mine + params.key_dim * params.value_dim;

    var token = n;
    var from_state = 0u;
    if states[says] != n % params.slots + 1u {
        token = n - n % params.step;
        from_state = 1u + token % params.slots / params.step;
    }
    for (var r = 0u; r < params.key_dim; r += 4u) {
        var s = vec4(0u);
        // Before the first token of a stream there was nothing.
        if token > 0u {
            let at = from_state * size + mine + r * params.value_dim;
            s.x = states[at];
            s.y = states[at + params.value_dim];
            s.z = states[at + 2u * params.value_dim];
            s.w = states[at + 3u * params.value_dim];
        }
        state_scratch[r / 4u * WG + lane] = bitcast<vec4<f32>>(s);
    }

    let of_queries = head % params.key_heads * params.key_dim;
    let of_keys = of_queries + params.key_heads * params.key_dim;
    let of_values = 2u * params.key_heads * params.key_dim;
    let of_gates = of_values + params.heads * params.value_dim;
    for (; token < end; token++) {
        let row = token % params.slots * params.width;
        let alpha = rows[row + of_gates + head];
        let beta = rows[row + of_gates + params.heads + head];
        let decay = exp(terms[2u * head] * softplus(alpha + terms[2u * head + 1u]));
        var along = vec4(0.0);
        var squares = vec4(0.0);
        for (var r = 0u; r < params.key_dim; r += 4u) {
            let k = four(row + of_keys + r);
            along += decay * state_scratch[r / 4u * WG + lane] * k;
            squares += k * k;
        }
        let by_length = 1.0 / sqrt(total(squares) + params.eps);
        let value = rows[row + of_values + head * params.value_dim + column];
        let change = by_length * (value - by_length * total(along)) / (1.0 + exp(-beta));
        var out = vec4(0.0);
        var lengths = vec4(0.0);
        for (var r = 0u; r < params.key_dim; r += 4u) {
            let q = four(row + of_queries + r);
            let s = decay * state_scratch[r / 4u * WG + lane] + change * four(row + of_keys + r);
            state_scratch[r / 4u * WG + lane] = s;
            out += s * q;
            lengths += q * q;
        }
        if token >= n {
            let scale = 1.0 / sqrt((total(lengths) + params.eps) * f32(params.key_dim));
            let at = (token - frame[0]) * params.heads + head;
            o[at * params.value_dim + column] = scale * total(out);
        }
        if (token + 1u) % params.step == 0u {
            keep((1u + (token + 1u) % params.slots / params.step) * size + mine, lane);
        }
    }
    keep(mine, lane);
    states[says] = end % params.slots + 1u;
}
