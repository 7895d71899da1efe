// lib/ring.wgsl — where a token lives in the cache, and which stored keys a query sees.
//
// Gives:  ring_place(g, n)         -> the storage index of token n, which is also its key's phase
//         ring_phases(g, n)        -> the three phases of query n: this lap, the lap before, sinks
//         ring_sees(g, n, index)   -> which of the three serves the key at `index`, or NOT_SEEN
//         ring_serves(g, n, index, kept) -> the same where sinks are kept or not
//
// n is the token's position, reduced by the host to below S + 2N once the ring has gone round
// (model/cache.rs): every test here gives the same answer for n and for n + k N then.

struct Ring {
    sinks: u32,   // S
    window: u32,  // W, the current token included
    slots: u32,   // N >= W + chunk - 1
}

const NOT_SEEN: u32 = 3u;

fn ring_place(g: Ring, n: u32) -> u32 {
    let sinks = min(n, g.sinks);
    return sinks + (n - sinks) % g.slots;
}

fn ring_phases(g: Ring, n: u32) -> vec3<u32> {
    let here = ring_place(g, n);
    return vec3(here, here + g.slots, min(n, g.sinks + g.window - 1u));
}

fn ring_sees(g: Ring, n: u32, index: u32) -> u32 {
    if index < g.sinks {
        return select(NOT_SEEN, 2u, index <= n);
    }
    if n < g.sinks {
        return NOT_SEEN;
    }
    let here = ring_place(g, n);
    let this_lap = index <= here;
    let distance = select(here + g.slots - index, here - index, this_lap);
    let seen = distance < g.window && distance <= n - g.sinks;
    return select(NOT_SEEN, select(1u, 0u, this_lap), seen);
}

fn ring_serves(g: Ring, n: u32, index: u32, kept: bool) -> u32 {
    let serves = ring_sees(g, n, index);
    // A sink that is not kept is a token like others. Its index is its position.
    let gone = serves == 2u && !kept && n - index >= g.window;
    return select(serves, NOT_SEEN, gone);
}
