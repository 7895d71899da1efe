// lib/epilogue.wgsl — what becomes of the sums of four neighbouring rows.
//
// Needs from the kernel:  params (rows, row0, y_stride, has_bias), bias: array<f32>, y: array<f32>
// Gives:                  finish(token, row, sums): row is the first of four, counted within this part
//                         gates(), gated(even, odd), biased(row, sum): whether and what it does with a gate, and with a bias

const STORE: u32 = 0u;       // y = sum
const ADD: u32 = 1u;         // y += sum
const SWIGLU: u32 = 2u;      // y = silu(even row) * odd row
const GELU: u32 = 3u;        // y = gelu(sum)
const GELU_TANH: u32 = 4u;   // y = gelu_tanh(sum)
const GEGLU_TANH: u32 = 5u;  // y = gelu_tanh(even row) * odd row
/// y = silu_1.702(even row) * (odd row + 1), the even row at most 7 and the odd one from -7 to 7
const SWIGLU_CLAMPED: u32 = 6u;
override EPILOGUE: u32 = 0u;

fn silu(v: f32) -> f32 {
    return v / (1.0 + exp(-v));
}

/// v/2 (1 + erf(v/sqrt 2)). The part of a normal distribution beyond |v| is computed, which loses nothing to cancellation:
/// Abramowitz and Stegun's 7.1.26, to 7.5e-8. Its exponential neither overflows nor is asked for what has no number.
fn gelu(v: f32) -> f32 {
    let z = min(0.70710678 * abs(v), 9.3);
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return max(v, 0.0) - abs(v) * (0.5 * p * exp(-z * z));
}

/// v/2 (1 + tanh(u)) = v / (1 + exp(-2 u)) with u = sqrt(2/pi) (v + 0.044715 v^3), which is bounded: so is the exponential.
fn gelu_tanh(v: f32) -> f32 {
    let u = clamp(0.79788456 * v * (1.0 + 0.044715 * v * v), -44.0, 44.0);
    return v / (1.0 + exp(-2.0 * u));
}

/// Whether even rows are gates of odd ones.
fn gates() -> bool {
    return (EPILOGUE == SWIGLU) | (EPILOGUE == GEGLU_TANH) | (EPILOGUE == SWIGLU_CLAMPED);
}

/// An even row's sum as the gate of the odd one after it.
fn gated(even: f32, odd: f32) -> f32 {
    if EPILOGUE == GEGLU_TANH {
        return gelu_tanh(even) * odd;
    } else if EPILOGUE == SWIGLU_CLAMPED {
        let v = min(even, 7.0);
        return v / (1.0 + exp(min(-1.702 * v, 80.0))) * (clamp(odd, -7.0, 7.0) + 1.0);
    }
    return silu(even) * odd;
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
    } else if EPILOGUE == GELU {
        value = gelu(value);
    } else if EPILOGUE == GELU_TANH {
        value = gelu_tanh(value);
    }
    y[at + row] = value;
}

fn finish(token: u32, row: u32, sums: vec4<f32>) {
    if gates() {
        let at = token * params.y_stride + (params.row0 + row) / 2u;
        if row < params.rows {
            y[at] = gated(biased(row, sums.x), biased(row + 1u, sums.y));
        }
        if row + 2u < params.rows {
            y[at + 1u] = gated(biased(row + 2u, sums.z), biased(row + 3u, sums.w));
        }
        return;
    }
    let at = token * params.y_stride + params.row0;
    store(at, row, sums.x);
    store(at, row + 1u, sums.y);
    store(at, row + 2u, sums.z);
    store(at, row + 3u, sums.w);
}
