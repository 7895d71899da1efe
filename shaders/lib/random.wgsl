// lib/random.wgsl — numbers from a counter: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3")
//
// Gives:  mul32(a, b) -> a b as (low, high)
//         random(key, counter) -> the first of the four numbers of a 64-bit counter under a 64-bit key

fn mul32(a: u32, b: u32) -> vec2<u32> {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let middle = a1 * b0 + ((a0 * b0) >> 16u);
    let other = a0 * b1 + (middle & 0xffffu);
    return vec2(a * b, a1 * b1 + (middle >> 16u) + (other >> 16u));
}

fn random(key: vec2<u32>, counter: vec2<u32>) -> u32 {
    var k = key;
    var c = vec4(counter, 0u, 0u);
    for (var round = 0u; round < 10u; round++) {
        let p = mul32(0xd2511f53u, c.x);
        let q = mul32(0xcd9e8d57u, c.z);
        c = vec4(q.y ^ c.y ^ k.x, q.x, p.y ^ c.w ^ k.y, p.x);
        k += vec2(0x9e3779b9u, 0xbb67ae85u);
    }
    return c.x;
}
