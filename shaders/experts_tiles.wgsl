// experts_tiles — y[t, s, r] = epilogue(w[e M + r] x[t] (+ bias[e M + r])) with e the expert s of token t, or of x[t, s]; the
//                 tokens of one pass by their experts, for GPUs
//
//   binding  name    access   type       shape              unit
//   0        params  read     Params
//   1        x       read     vec4<f32>  [T, C/4]           activations of C columns, or [T, K, C/4]
//   2        groups  read     u32        [tiles, 2 + TILE]  choices by their experts, of group_experts
//   3        quants  read     vec4<u32>  [rows, by type]    weights of this part of all experts' rows
//   4        scales  read     u32        [rows, by type]    their scales
//   5        bias    read     f32        [E M] or [1]       added where has_bias
//   6        y       write    f32        [T, K, y_stride]   activations
//
//   grid:      [ceil(M/64), tiles, 1] workgroups, 64 rows of an expert x 32 of its choices
//   requires:  C a multiple of 32; M even, or no gate; TILE = 32
//   uses:      lib/block.wgsl, lib/reads.wgsl, lib/epilogue.wgsl, lib/grouped.wgsl, lib/onto.wgsl, one lib/<type>.wgsl and what
//              that uses
//   twin:      src/reference/experts.rs
//
// As matmul_tiles, with half as many tokens: an expert has few. A unit of 64 rows and of 32 tokens at a time lies in
// workgroup memory, 12 KiB; a lane owns four rows by four tokens. The first half of the lanes brings weights, the other
// one activations.

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> groups: array<u32>;
@group(0) @binding(3) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

const LANES: u32 = 128u;
const ROWS: u32 = 64u;
const TOKENS: u32 = 32u;

// [8, 64]: four columns of a row; number 4 i + j of them is at 16 j + i
var<workgroup> w_scratch: array<vec4<f32>, 512>;
// [8, 32]: the same of a token, at 8 j + (i exclusive-or'd with which four columns they are)
var<workgroup> x_scratch: array<vec4<f32>, 256>;
/// Where the rows of x begin.
var<workgroup> begins_scratch: array<u32, TOKENS>;

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

/// Brings four of the 256 words of a unit of 32 tokens.
fn stage_inputs(lane: u32, unit: u32) {
    let four = lane % 8u;
    for (var i = 0u; i < 4u; i++) {
        let token = lane / 8u + 8u * i;
        let at = (begins_scratch[token] + unit) * 8u + four;
        x_scratch[four * TOKENS + token % 4u * 8u + ((token / 4u) ^ four)] = x[at];
    }
}

/// The sums of four rows for the choice number i.
fn finish_choice(group: u32, tile: Tile, i: u32, row: u32, sums: vec4<f32>) {
    if i < tile.count {
        let choice = choice_at(group, i);
        deliver(choice, tile.expert, row, sums.x, sums.y);
        deliver(choice, tile.expert, row + 2u, sums.z, sums.w);
    }
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_at(group.y);
    let first_row = params.from_row + ROWS * group.x;
    let start = tile.expert * params.each + first_row;
    let end = min(start + ROWS, (tile.expert + 1u) * params.each);
    if tile.count == 0u || start >= params.row0 + params.rows || end <= params.row0 {
        return;
    }
    // Choices that are not there are the last again.
    if lane < TOKENS {
        begins_scratch[lane] = input_at(choice_at(group.y, min(lane, tile.count - 1u))) * params.units;
    }
    let row_four = lane % 16u;
    let token_four = lane / 16u;
    // Rows of another part are the first or the last of this one.
    let staged_row = clamp(start + lane % 16u * 4u + lane / 16u % 4u, params.row0, params.row0 + params.rows - 1u);
    let staged_at = (staged_row - params.row0) * params.units;
    workgroupBarrier();

    // Of four tokens, each for four rows.
    var a = vec4(0.0);
    var b = vec4(0.0);
    var c = vec4(0.0);
    var d = vec4(0.0);
    for (var unit = 0u; unit < params.units; unit++) {
        if lane < 64u {
            stage_weights(lane, staged_at + unit);
        } else {
            stage_inputs(lane - 64u, unit);
        }
        workgroupBarrier();
        for (var four = 0u; four < 8u; four++) {
            let w_at = four * ROWS + row_four;
            let w0 = w_scratch[w_at];
            let w1 = w_scratch[w_at + 16u];
            let w2 = w_scratch[w_at + 32u];
            let w3 = w_scratch[w_at + 48u];
            let x_at = four * TOKENS + (token_four ^ four);
            let x0 = x_scratch[x_at];
            a = vec4(onto(a.x, w0, x0), onto(a.y, w1, x0), onto(a.z, w2, x0), onto(a.w, w3, x0));
            let x1 = x_scratch[x_at + 8u];
            b = vec4(onto(b.x, w0, x1), onto(b.y, w1, x1), onto(b.z, w2, x1), onto(b.w, w3, x1));
            let x2 = x_scratch[x_at + 16u];
            c = vec4(onto(c.x, w0, x2), onto(c.y, w1, x2), onto(c.z, w2, x2), onto(c.w, w3, x2));
            let x3 = x_scratch[x_at + 24u];
            d = vec4(onto(d.x, w0, x3), onto(d.y, w1, x3), onto(d.z, w2, x3), onto(d.w, w3, x3));
        }
        workgroupBarrier();
    }
    let row = first_row + 4u * row_four;
    let i = 4u * token_four;
    finish_choice(group.y, tile, i, row, a);
    finish_choice(group.y, tile, i + 1u, row, b);
    finish_choice(group.y, tile, i + 2u, row, c);
    finish_choice(group.y, tile, i + 3u, row, d);
}
