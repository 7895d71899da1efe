// lib/kinds.wgsl — what a range of neighbouring queries sees.
//
// Gives:  is_seen(g, r, index)       -> whether any of them sees the key at `index`
//         kinds(g, r, first, last)   -> which of the three queries (bits 0 to 2) keys `first` to `last` may need; 0: none
//         all_recent(g, r, first, last) -> whether every query sees every one of those keys, each in this lap
//         phases_of(g, n, kind) -> the phases of four queries, at positions n, that serve keys of one kind
// Uses:   lib/ring.wgsl

struct Range {
    first: u32,   // position of the first query, as ring_sees takes it
    last: u32,    // of the last
    kept: bool,   // sinks are seen for ever
}

fn is_seen(g: Ring, r: Range, index: u32) -> bool {
    if index < g.sinks {
        return index <= r.last && (r.kept || max(r.first, index) - index < g.window);
    }
    if r.last < g.sinks {
        return false;
    }
    // As queries go on, a key is seen no more; or it is written, by one of them.
    let first = max(r.first, g.sinks);
    let here = ring_place(g, first);
    let ahead = select(index - here, index + g.slots - here, index < here);
    return ahead <= r.last - first || ring_sees(g, first, index) != NOT_SEEN;
}

fn kinds(g: Ring, r: Range, first: u32, last: u32) -> u32 {
    var needed = select(0u, 4u, first < g.sinks && first <= r.last);
    // One way out: Windows' older compiler takes a loop with barriers for one that lanes leave by themselves, otherwise.
    if last >= g.sinks && r.last >= g.sinks {
        needed |= recent_kinds(g, r, first, last);
    }
    return needed;
}

fn recent_kinds(g: Ring, r: Range, first: u32, last: u32) -> u32 {
    let begin = max(r.first, g.sinks);
    let here = ring_place(g, begin);
    let there = ring_place(g, r.last);
    let goes_round = there < here || r.last - begin >= g.slots;
    let this_lap = first <= there && last + g.window > here;
    let distance = here + g.slots - last; // of the nearest key of the lap before
    let before = last > here && distance < g.window && distance <= r.last - g.sinks;
    return select(0u, 1u, this_lap || goes_round) | select(0u, 2u, before || goes_round);
}

fn all_recent(g: Ring, r: Range, first: u32, last: u32) -> bool {
    let here = ring_place(g, r.first);
    let there = ring_place(g, r.last);
    let in_order = first >= g.sinks && r.first >= g.sinks && here <= there && r.last - r.first < g.slots;
    return in_order && last <= here && there - first < g.window;
}

fn phases_of(g: Ring, n: vec4<u32>, kind: u32) -> vec4<u32> {
    return vec4(
        ring_phases(g, n.x)[kind], ring_phases(g, n.y)[kind],
        ring_phases(g, n.z)[kind], ring_phases(g, n.w)[kind],
    );
}
