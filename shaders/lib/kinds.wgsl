// lib/kinds.wgsl — what a range of neighbouring queries sees.
//
// Gives:  is_seen(g, r, index)       -> whether any of them sees the key at `index`
//         kinds(g, r, first, last)   -> which of the three queries (bits 0 to 2) keys `first` to `last` may need; 0: none
//         all_recent(g, r, first, last) -> whether every query sees every one of those keys, each in this lap
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
    let sinks = select(0u, 4u, first < g.sinks && first <= r.last);
    if last < g.sinks || r.last < g.sinks {
        return sinks;
    }
    let begin = max(r.first, g.sinks);
    let here = ring_place(g, begin);
    let there = ring_place(g, r.last);
    // The range goes round.
    if there < here || r.last - begin >= g.slots {
        return sinks | 3u;
    }
    let this_lap = first <= there && last + g.window > here;
    let distance = here + g.slots - last; // of the nearest key of the lap before
    let before = last > here && distance < g.window && distance <= r.last - g.sinks;
    return sinks | select(0u, 1u, this_lap) | select(0u, 2u, before);
}

fn all_recent(g: Ring, r: Range, first: u32, last: u32) -> bool {
    if first < g.sinks || r.first < g.sinks {
        return false;
    }
    let here = ring_place(g, r.first);
    let there = ring_place(g, r.last);
    return here <= there && r.last - r.first < g.slots && last <= here && there - first < g.window;
}
