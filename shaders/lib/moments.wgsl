// lib/moments.wgsl — what a row is normalised by.
//
// Needs from the kernel:  params (cols, eps), x: array<f32>, WG
// Gives:                  moments(lane, start) -> the mean of the row that begins there, 0 unless CENTRED, and one over the
//                         root of the mean square of what is off it and eps; the same in all lanes
// Uses:                   lib/reduce.wgsl or lib/reduce_subgroup.wgsl

override CENTRED: bool = false;

struct Moments {
    mean: f32,
    scale: f32,
}

fn moments(lane: u32, start: u32) -> Moments {
    var mean = 0.0;
    if CENTRED {
        var total = 0.0;
        for (var i = lane; i < params.cols; i += WG) {
            total += x[start + i];
        }
        mean = reduce_sum(lane, total) / f32(params.cols);
    }
    var sum = 0.0;
    for (var i = lane; i < params.cols; i += WG) {
        let v = x[start + i] - mean;
        sum += v * v;
    }
    let mean_square = reduce_sum(lane, sum) / f32(params.cols);
    return Moments(mean, 1.0 / sqrt(mean_square + params.eps));
}
