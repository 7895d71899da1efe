// short_conv — y[t, i] = c[t, i] * sum_j conv[i, L-1-j] * z[t - j, i] with z = b * u, of a gated layer whose input is b, c, u
//              side by side; else y = silu of that sum with z = input, into a ring as well, where the K columns of the input
//              behind the C channels come as they are. What was before the stream is 0
//
//   binding  name     access   type   shape        unit
//   0        params   read     Params
//   1        frame    read     u32    [4]          n: position of the first token, reduced, tokens: their number
//   2        mix      read     f32    [T, stride]  activations: b, c, u, or z, and the rest
//   3        conv     read     f32    [C, L]       the last tap is the current token's
//   4        history  write    f32    [N, C]       z of recent tokens: of token n in slot n mod N
//   5        y        write    f32    [T, C]       activations; not gated: [N, C + K], of token n in slot n mod N
//
//   grid:      [ceil((C + K)/WG), T, 1] workgroups, one channel of a token a lane
//   requires:  N >= L - 1 + T once the ring goes round; stride >= C + K, or 3 C where gated, and then K = 0
//   uses:      nothing
//   twin:      src/reference/short_conv.rs
//
// Tokens of the pass are read from its input, those before it from the ring: no slot is written that anyone reads.

struct Params {
    channels: u32,  // C
    kept: u32,      // K
    stride: u32,    // of a row of the input
    taps: u32,      // L
    slots: u32,     // N
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> mix: array<f32>;
@group(0) @binding(3) var<storage, read> conv: array<f32>;
@group(0) @binding(4) var<storage, read_write> history: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

override WG: u32 = 64u;
/// Whether the input is b, c and u.
override GATED: bool = true;

fn input(token: u32, i: u32) -> f32 {
    let at = token * params.stride + i;
    if GATED {
        return mix[at] * mix[at + 2u * params.channels];
    }
    return mix[at];
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group.x * WG + lane;
    let token = group.y;
    let width = params.channels + params.kept;
    if token >= frame[1] || i >= width {
        return;
    }
    let n = frame[0] + token;
    let slot = n % params.slots;
    if !GATED && i >= params.channels {
        y[slot * width + i] = mix[token * params.stride + i];
        return;
    }
    let now = input(token, i);
    let last_tap = (i + 1u) * params.taps - 1u;
    var sum = conv[last_tap] * now;
    for (var back = 1u; back < params.taps; back++) {
        var z = 0.0;
        if back <= token {
            z = input(token - back, i);
        } else if back <= n {
            z = history[((n - back) % params.slots) * params.channels + i];
        }
        sum += conv[last_tap - back] * z;
    }
    history[slot * params.channels + i] = now;
    if GATED {
        y[token * width + i] = sum * mix[token * params.stride + params.channels + i];
    } else {
        y[slot * width + i] = sum / (1.0 + exp(-sum));
    }
}
