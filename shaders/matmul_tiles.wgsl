// matmul_tiles — y[t, r] = sum_k w[r, k] x[t, k] (+ bias[r]), then the epilogue; the tokens of one pass, for GPUs
//
//   binding  name    access   type       shape            unit
//   0        params  read     Params
//   1        frame   read     u32        [4]              n: position of the first token, tokens
//   2        x       read     vec4<f32>  [T, K/4]         activations
//   3        quants  read     vec4<u32>  [rows, by type]  weights of this part
//   4        scales  read     u32        [rows, by type]  their scales
//   5        bias    read     f32        [M] or [1]       added where has_bias
//   6        y       write    f32        [T, M]           activations ([T, M/2] with a gate)
//
//   grid:      [ceil(rows/64), ceil(T/64), beyond 65535 in z] workgroups, 64 rows x 64 tokens
//   requires:  K a multiple of 32; with a gate an even number of rows
//   uses:      lib/block.wgsl, lib/reads.wgsl, lib/epilogue.wgsl, lib/onto.wgsl, one lib/<type>.wgsl and what that uses
//   twin:      src/reference/matmul.rs
//
// A unit of 64 rows and of 64 tokens at a time lies in workgroup memory, 16 KiB; a weight is unpacked once for 64 tokens.
// A lane owns four rows by four tokens: it reads eight words of four numbers for 64 products. The first subgroups of
// the workgroup bring weights, the next ones activations, so that no subgroup does both. Where numbers lie is such that
// lanes which read or write together meet different banks.

struct Params {
    rows: u32,      // of this part
    row0: u32,      // where the part starts in the whole matrix
    units: u32,     // K/32
    y_stride: u32,
    has_bias: u32,
    grid_x: u32,
    lanes: u32,     // of one token's
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

const LANES: u32 = 256u;
const TILE: u32 = 64u;

// [8, 64]: four columns of a row or token; number 4 i + j of them is at 16 j + i
var<workgroup> w_scratch: array<vec4<f32>, 512>;
// the same, i exclusive-or'd with which four columns they are
var<workgroup> x_scratch: array<vec4<f32>, 512>;

/// Brings a unit of the row that `lane`, of 64, has.
fn stage_weights(lane: u32, at: u32) {
    let w = weights(at);
    w_scratch[lane] = w.a;
    w_scratch[lane + 64u] = w.b;
    w_scratch[lane + 128u] = w.c;
    w_scratch[lane + 192u] = w.d;
    w_scratch[lane + 256u] = w.e;
    w_scratch[lane + 320u] = w.f;
    w_scratch[lane + 384u] = w.g;
    w_scratch[lane + 448u] = w.h;
}

/// Brings four of the 512 words of a unit of 64 tokens; tokens that are not there are the last again.
fn stage_inputs(lane: u32, first: u32, last: u32, unit: u32) {
    let four = lane % 8u;
    let to = four * TILE;
    for (var i = 0u; i < 4u; i++) {
        let token = lane / 8u + 16u * i;
        let at = (min(first + token, last) * params.units + unit) * 8u + four;
        x_scratch[to + token % 4u * 16u + ((token / 4u) ^ four)] = x[at];
    }
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = TILE * (group.x + group.z * params.grid_x);
    let first = TILE * group.y;
    let tokens = frame[1];
    if first_row >= params.rows || first >= tokens {
        return;
    }
    let last = tokens - 1u;
    let row_four = lane % 16u;
    let token_four = lane / 16u;
    let staged_row = first_row + lane % 16u * 4u + lane / 16u % 4u;
    let staged_at = min(staged_row, params.rows - 1u) * params.units;

    // Of four tokens, each for four rows.
    var a = vec4(0.0);
    var b = vec4(0.0);
    var c = vec4(0.0);
    var d = vec4(0.0);
    for (var unit = 0u; unit < params.units; unit++) {
        if lane < 64u {
            stage_weights(lane, staged_at + unit);
        } else if lane < 192u {
            stage_inputs(lane - 64u, first, last, unit);
        }
        workgroupBarrier();
        for (var four = 0u; four < 8u; four++) {
            let w_at = four * TILE + row_four;
            let w0 = w_scratch[w_at];
            let w1 = w_scratch[w_at + 16u];
            let w2 = w_scratch[w_at + 32u];
            let w3 = w_scratch[w_at + 48u];
            let x_at = four * TILE + (token_four ^ four);
            let x0 = x_scratch[x_at];
            a = vec4(onto(a.x, w0, x0), onto(a.y, w1, x0), onto(a.z, w2, x0), onto(a.w, w3, x0));
            let x1 = x_scratch[x_at + 16u];
            b = vec4(onto(b.x, w0, x1), onto(b.y, w1, x1), onto(b.z, w2, x1), onto(b.w, w3, x1));
            let x2 = x_scratch[x_at + 32u];
            c = vec4(onto(c.x, w0, x2), onto(c.y, w1, x2), onto(c.z, w2, x2), onto(c.w, w3, x2));
            let x3 = x_scratch[x_at + 48u];
            d = vec4(onto(d.x, w0, x3), onto(d.y, w1, x3), onto(d.z, w2, x3), onto(d.w, w3, x3));
        }
        workgroupBarrier();
    }

    let row = first_row + 4u * row_four;
    let token = first + 4u * token_four;
    if token < tokens {
        finish(token, row, a);
    }
    if token + 1u < tokens {
        finish(token + 1u, row, b);
    }
    if token + 2u < tokens {
        finish(token + 2u, row, c);
    }
    if token + 3u < tokens {
        finish(token + 3u, row, d);
    }
}
