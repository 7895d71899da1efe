// argmax — token = the lowest index of the largest logit that is not banned; NO_TOKEN when there is none, or any logit
// is infinite or not a number: the least of all alone may be there, and is never chosen
//
//   binding  name    access   type   shape         unit
//   0        params  read     Params
//   1        logits  read     f32    [V]           logits
//   2        banned  read     u32    [ceil(V/32)]  one bit a token
//   3        token   write    u32    [T]           the first element takes the id
//   4        frame   write    u32    [4]           is moved on by a token and a step
//   5        chosen  write    u32    [MOST]        the element of this step takes the id, too
//
//   grid:      [1, 1, 1], one workgroup
//   requires:  WG a power of two
//   uses:      lib/advance.wgsl
//   twin:      src/reference/argmax.rs

struct Params {
    vocab: u32,
    end: u32,    // S + 2N: a position that is reduced stays below
    slots: u32,  // N
    most: u32,   // steps that there is room for
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> banned: array<u32>;
@group(0) @binding(3) var<storage, read_write> token: array<u32>;
@group(0) @binding(4) var<storage, read_write> frame: array<u32>;
@group(0) @binding(5) var<storage, read_write> chosen: array<u32>;

override WG: u32 = 256u;

const NO_TOKEN: u32 = 0xffffffffu;
const LOWEST: f32 = -3.0e38;
const LEAST: u32 = 0xff800000u; // -infinity

var<workgroup> value_scratch: array<f32, WG>;
var<workgroup> index_scratch: array<u32, WG>;
var<workgroup> broken: atomic<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        atomicStore(&broken, 0u);
    }
    workgroupBarrier();
    var best = LOWEST;
    var index = NO_TOKEN;
    for (var i = lane; i < params.vocab; i += WG) {
        let allowed = ((banned[i / 32u] >> (i % 32u)) & 1u) == 0u;
        let logit = logits[i];
        // By its bits: a compiler may take it for granted that all numbers are numbers.
        let bits = bitcast<u32>(logit);
        if (bits & 0x7f800000u) == 0x7f800000u && bits != LEAST {
            atomicStore(&broken, 1u);
        }
        if allowed && logit > best {
            best = logit;
            index = i;
        }
    }
    value_scratch[lane] = best;
    index_scratch[lane] = index;
    workgroupBarrier();
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        if lane < stride {
            let other = value_scratch[lane + stride];
            let other_index = index_scratch[lane + stride];
            let mine = value_scratch[lane];
            if other > mine || (other == mine && other_index < index_scratch[lane]) {
                value_scratch[lane] = other;
                index_scratch[lane] = other_index;
            }
        }
        workgroupBarrier();
    }
    if lane == 0u {
        advance(select(index_scratch[0], NO_TOKEN, atomicLoad(&broken) != 0u), 0u, 0u);
    }
}
