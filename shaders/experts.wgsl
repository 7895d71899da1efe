// experts — y[t, s, r] = epilogue(w[e M + r] x[t] (+ bias[e M + r])) with e the expert s of token t; or, where the epilogue
//           adds, y[t, r] += sum_s share(t, s) (w[e M + r] x[t, s] (+ bias[e M + r])). M: rows of an expert
//
//   binding  name     access  type       shape             unit
//   0        params   read    Params
//   1        frame    read    u32        [4]               n: position of the first token, tokens: their number; with NORMED
//                                                          [>= partials], the bits of partial sums of the squares of one
//                                                          token's activations, by the root of whose mean x is divided
//   2        x        read    vec4<f32>  [T, C/4]          activations of C columns ([T, K, C/4] where results are added)
//   3        choices  read    vec2<u32>  [T, K]            experts of each token, and the bits of their shares
//   4        quants   read    vec4<u32>  [rows, by type]   weights of this part of all experts' rows
//   5        scales   read    u32        [rows, by type]   their scales
//   6        bias     read    f32        [E M] or [1]      added where has_bias
//   7        y        write   f32        [T, K, y_stride]  activations ([T, y_stride] where results are added)
//
//   grid:      [ceil(M/(4 sets)), K, T] workgroups, four rows for each set of lanes; [.., 1, T] where results are added; or
//              fewer in a line, of rows from from_row on
//   requires:  C a multiple of 32; an epilogue with a gate, and M even, or the one that adds
//   uses:      lib/plain.wgsl, lib/block.wgsl, lib/inputs.wgsl, lib/reads.wgsl, lib/epilogue.wgsl, one lib/<type>.wgsl and
//              what that uses; lib/reduce4.wgsl, or lib/reduce_subgroup.wgsl where a workgroup is one subgroup
//              (experts_<type>_subgroup)
//   twin:      src/reference/experts.rs
//
// Only the weights of experts that are chosen are read. A token's products come together in one workgroup before they
// are added, so that none waits for another.

struct Params {
    rows: u32,      // of this part
    row0: u32,      // where the part starts in the whole matrix
    units: u32,     // C/32
    y_stride: u32,
    has_bias: u32,
    lanes: u32,     // of a set
    each: u32,      // M
    used: u32,      // K
    partials: u32,  // how many of squares there are
    cols: f32,      // elements that their mean is of
    eps: f32,
    from_row: u32,  // of each expert, where this dispatch begins
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> choices: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> scales: array<u32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;

override WG: u32 = 64u;
/// x is one token's, times the gain of a norm that is folded in.
override NORMED: bool = false;

const FOUR: vec4<u32> = vec4(0u, 1u, 2u, 3u);

/// Which of four rows of an expert are its own and in this part, `first` being the first of them among all experts'.
fn here(row: u32, first: u32) -> vec4<bool> {
    let own = vec4(row) + FOUR < vec4(params.each);
    // What is before the part wraps round to a large number.
    return own & (vec4(first - params.row0) + FOUR < vec4(params.rows));
}

/// One over the norm.
var<private> scale: f32;

fn inverse_norm(lane: u32) -> f32 {
    var square = 0.0;
    for (var i = lane; i < params.partials; i += WG) {
        square += bitcast<f32>(frame[i]);
    }
    note(lane, square);
    return 1.0 / sqrt(noted() / params.cols + params.eps);
}

/// This lane's share of the products of four rows with row `input` of x, and of their biases.
fn partial(own: u32, first: u32, input: u32) -> vec4<f32> {
    let last = params.rows - 1u;
    let rows = min(vec4(first - params.row0) + FOUR, vec4(last));
    let at = rows * params.units;
    var sums = vec4(0.0);
    for (var unit = own; unit < params.units; unit += params.lanes) {
        let part = prepared(inputs(input * params.units + unit));
        sums.x += unit_dot(at.x + unit, part);
        sums.y += unit_dot(at.y + unit, part);
        sums.z += unit_dot(at.z + unit, part);
        sums.w += unit_dot(at.w + unit, part);
    }
    if NORMED {
        sums *= scale;
    }
    if own == 0u {
        sums = vec4(
            biased(rows.x, sums.x), biased(rows.y, sums.y), biased(rows.z, sums.z), biased(rows.w, sums.w),
        );
    }
    return sums;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let token = group.z;
    if NORMED {
        scale = inverse_norm(lane);
    } else if token >= frame[1] {
        return;
    }
    let own = lane % params.lanes;
    let row = params.from_row + 4u * (WG / params.lanes * group.x + lane / params.lanes);
    let begin = token * params.used;
    var sums = vec4(0.0);
    if EPILOGUE == ADD {
        for (var slot = 0u; slot < params.used; slot++) {
            let choice = choices[begin + slot];
            let first = choice.x * params.each + row;
            let ours = here(row, first);
            if any(ours) {
                let products = bitcast<f32>(choice.y) * partial(own, first, begin + slot);
                sums += select(vec4(0.0), products, ours);
            }
        }
    } else {
        let first = choices[begin + group.y].x * params.each + row;
        if any(here(row, first)) {
            sums = partial(own, first, token);
        }
    }
    sums = reduce_set4(lane, params.lanes, sums);
    if own != 0u {
        return;
    }
    if EPILOGUE == ADD {
        let at = token * params.y_stride + row;
        for (var i = 0u; i < min(4u, max(params.each, row) - row); i++) {
            y[at + i] += sums[i];
        }
        return;
    }
    let ours = here(row, choices[begin + group.y].x * params.each + row);
    let at = (begin + group.y) * params.y_stride + row / 2u;
    if ours.x {
        y[at] = gated(sums.x, sums.y);
    }
    if ours.z {
        y[at + 1u] = gated(sums.z, sums.w);
    }
}
