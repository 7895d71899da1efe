// lib/epilogue.wgsl — what becomes of the sums of four neighbouring rows.
//
// Needs from the kernel:  params (rows, row0, y_stride, has_bias), bias: array<f32>, y: array<f32>
// Gives:                  finish(token, row, sums): row is the first of four, counted within this part

const STORE: u32 = 0u;   // y = sum
const ADD: u32 = 1u;     // y += sum
const SWIGLU: u32 = 2u;  // y = silu(even row) * odd row
override EPILOGUE: u32 = 0u;

fn silu(v: f32) -> f32 {
    return v / (1.0 + exp(-v));
}

fn biased(row: u32, sum: f32) -> f32 {
    if params.has_bias != 0u {
        return sum + bias[params.row0 + row];
    }
    return sum;
}

fn store(at: u32, row: u32, sum: f32) {
    if row >= params.rows {
        return;
    }
    var value = biased(row, sum);
    if EPILOGUE == ADD {
        value += y[at + row];
    }
    y[at + row] = value;
}

fn finish(token: u32, row: u32, sums: vec4<f32>) {
    if EPILOGUE == SWIGLU {
        let at = token * params.y_stride + (params.row0 + row) / 2u;
        if row < params.rows {
            y[at] = silu(biased(row, sums.x)) * biased(row + 1u, sums.y);
        }
        if row + 2u < params.rows {
            y[at + 1u] = silu(biased(row + 2u, sums.z)) * biased(row + 3u, sums.w);
        }
        return;
    }
    let at = token * params.y_stride + params.row0;
    store(at, row, sums.x);
    store(at, row + 1u, sums.y);
    store(at, row + 2u, sums.z);
    store(at, row + 3u, sums.w);
}
