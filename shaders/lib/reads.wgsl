// lib/reads.wgsl — how a unit's words are read: every lane its own.
//
// Needs from the kernel:  quants: array<vec4<u32>>, scales: array<u32>
// Gives:                  read_quants(i), read_scales(i)

fn read_quants(i: u32) -> vec4<u32> {
    return quants[i];
}

fn read_scales(i: u32) -> u32 {
    return scales[i];
}
