// lib/threshold.wgsl — the largest key so that those from it on have a number or a mass together, by a workgroup
//
// No sorting: a threshold is found byte by byte from histograms of the keys' bits, and then how many of those that equal
// it are needed. The lowest ids come first, which is for the caller to see to.
//
// Needs from the kernel:  WG, lib/mass.wgsl, key_at(i): the key of the i-th of what is looked through
// Gives:                  threshold(lane, length, masses, wanted, floor, highest), for all lanes of a workgroup in
//                         uniform control flow; `found` has the key and the ties then
//                         needed(key, wanted, equal, highest): how many of `equal` ids of one key reach a mass

var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> low_bins: array<atomic<u32>, 256>;
var<workgroup> high_bins: array<atomic<u32>, 256>;
var<workgroup> found: vec2<u32>; // the threshold, and how many of those that equal it are needed
var<workgroup> left: vec2<u32>;

/// Walks the histogram down; the byte where `wanted` is reached, and what is left of it there.
fn reached(masses: bool, wanted: vec2<u32>) -> vec3<u32> {
    var rest = wanted;
    for (var up = 0u; up < 255u; up++) {
        let bin = 255u - up;
        var here = vec2(atomicLoad(&bins[bin]), 0u);
        if masses {
            here = vec2(atomicLoad(&low_bins[bin]), atomicLoad(&high_bins[bin]));
        }
        if !less64(here, rest) {
            return vec3(bin, rest);
        }
        rest = sub64(rest, here);
    }
    return vec3(0u, rest);
}

fn needed(key: u32, wanted: vec2<u32>, equal: u32, highest: f32) -> u32 {
    let mass = mass_of(key, highest, 1.0);
    var least = 1u;
    var most = max(equal, 1u);
    while least < most {
        let middle = least + (most - least) / 2u;
        if less64(mul32(mass, middle), wanted) {
            least = middle + 1u;
        } else {
            most = middle;
        }
    }
    return least;
}

/// Of `length` keys those above `floor`. `wanted`: a number of them, or a mass.
fn threshold(lane: u32, length: u32, masses: bool, wanted: vec2<u32>, floor: u32, highest: f32) {
    var rest = wanted;
    var key = 0u;
    for (var byte = 0u; byte < 4u; byte++) {
        let shift = 24u - 8u * byte;
        for (var bin = lane; bin < 256u; bin += WG) {
            atomicStore(&bins[bin], 0u);
            atomicStore(&low_bins[bin], 0u);
            atomicStore(&high_bins[bin], 0u);
        }
        workgroupBarrier();
        for (var i = lane; i < length; i += WG) {
            let k = key_at(i);
            // Shifting by 32 is not defined. Nothing is left of the first byte's 31 and 1, nor is there a key yet.
            let same = (k >> (shift + 7u)) >> 1u == key;
            if k > floor && same {
                let bin = (k >> shift) & 255u;
                atomicAdd(&bins[bin], 1u);
                if masses {
                    let mass = mass_of(k, highest, 1.0);
                    let before = atomicAdd(&low_bins[bin], mass);
                    atomicAdd(&high_bins[bin], select(0u, 1u, before + mass < before));
                }
            }
        }
        workgroupBarrier();
        if lane == 0u {
            let at = reached(masses, rest);
            found.x = (key << 8u) | at.x;
            left = at.yz;
        }
        workgroupBarrier();
        key = found.x;
        rest = left;
        workgroupBarrier();
    }
    if lane == 0u {
        let equal = max(atomicLoad(&bins[key & 255u]), 1u);
        found.y = clamp(rest.x, 1u, equal);
        if masses {
            found.y = needed(key, rest, equal, highest);
        }
    }
    workgroupBarrier();
}
