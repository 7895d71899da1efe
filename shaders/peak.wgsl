// peak — y[i] = sum over j of x_ij,  x_ij <- a x_ij + b, `steps` times from x_ij = i + j / 16; j = 0..15
//
//   binding  name    access   type   shape         unit
//   0        params  read     Params
//   1        y       write    f32    [groups, WG]
//
//   grid:      [groups, 1, 1] workgroups
//   requires:  |a| < 1
//   uses:      nothing
//   twin:      src/reference/peak.rs
//
// What a device computes at most: nothing is read, and of four chains of four no one waits for another. A multiplication and
// an addition count as two operations, so an invocation does 32 a step.

struct Params {
    steps: u32,
    a: f32,
    b: f32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let a = vec4(params.a);
    let b = vec4(params.b);
    let first = vec4(f32(id.x)) + vec4(0.0, 1.0, 2.0, 3.0) / 16.0;
    var x0 = first;
    var x1 = first + 4.0 / 16.0;
    var x2 = first + 8.0 / 16.0;
    var x3 = first + 12.0 / 16.0;
    for (var step = 0u; step < params.steps; step++) {
        x0 = fma(a, x0, b);
        x1 = fma(a, x1, b);
        x2 = fma(a, x2, b);
        x3 = fma(a, x3, b);
    }
    let sum = (x0 + x1) + (x2 + x3);
    y[id.x] = (sum.x + sum.y) + (sum.z + sum.w);
}
