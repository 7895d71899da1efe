// add_bias — x[0, i] += bias[i]; one token
//
//   binding  name    access   type   shape   unit
//   0        params  read     Params
//   1        bias    read     f32    [D]
//   2        x       write    f32    [1, D]  activations
//
//   grid:      [ceil(D/WG), 1, 1] workgroups, one element a lane
//   requires:  any D
//   uses:      nothing
//   twin:      src/reference/add_bias.rs
//
// The kernels that add a product to the residual stream have as many buffers as every device binds, and no room for the
// product's bias: where a model has one, it is added before.

struct Params {
    cols: u32,  // D
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < params.cols {
        x[id.x] += bias[id.x];
    }
}
