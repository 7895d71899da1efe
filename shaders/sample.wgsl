// sample — token[r] = a draw from softmax(logits / temperature) over what top-k, top-p and min-p leave of a row's candidates
//
//   binding  name        access   type       shape                    unit
//   0        params      read     Params
//   1        sampling    read     Sampling   [S]                      of each stream
//   2        candidates  read     vec2<u32>  [rows, slices, EACH]     key and id, in the order of the ids (sample_select)
//   3        state       write    u32        [S, 4 + recent]          draws so far (low, high), oldest, count, recent ids
//   4        counts      write    u32        [S, V], or [1, 1]        how often an id is recent
//   5        token       write    u32        [R, FRAME_ROW], or [T]   the first element of a row takes the id
//   6        frame       write    u32        [R, FRAME_ROW], or [4]   rows that there are, and each row's stream; is moved on by a
//                                                                     token and a step
//   7        chosen      write    u32        [R, MOST]                the element of this step takes the id, too
//
//   grid:      [rows, 1, 1], a workgroup a row
//   requires:  WG a power of two, at most 256
//   uses:      lib/random.wgsl, lib/mass.wgsl, lib/threshold.wgsl, lib/frame.wgsl, lib/sampling.wgsl,
//              lib/advance.wgsl
//   twin:      src/text/sampler.rs
//
// The id is NO_TOKEN when every token is banned, or a logit cannot be drawn from.

struct Params {
    vocab: u32,   // V
    end: u32,     // S + 2N: a position that is reduced stays below
    slots: u32,   // N
    most: u32,    // steps that there is room for
    slices: u32,
    room: u32,    // candidates that a row has room for
    state: u32,   // words from one stream's state to the next
    wide: u32,    // the same of counts
    first: u32,   // row of this dispatch
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> sampling: array<Sampling>;
@group(0) @binding(2) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> state: array<u32>;
@group(0) @binding(4) var<storage, read_write> counts: array<u32>;
@group(0) @binding(5) var<storage, read_write> token: array<u32>;
@group(0) @binding(6) var<storage, read_write> frame: array<u32>;
@group(0) @binding(7) var<storage, read_write> chosen: array<u32>;

override WG: u32 = 256u;

const NO_TOKEN: u32 = 0xffffffffu;
const BROKEN: u32 = 0xffffffffu;

var<workgroup> best: atomic<u32>;
var<workgroup> lane_ties: array<u32, WG>;
var<workgroup> lane_mass: array<vec2<u32>, WG>;
var<workgroup> deeper: u32;
var<workgroup> owner_scratch: vec3<u32>; // the lane that has the drawn id, and what is left of the draw there
var<workgroup> drawn_scratch: u32;
var<workgroup> place_scratch: vec2<u32>; // rows that there are, and the stream

var<private> base: u32; // of the row's candidates

fn key_at(i: u32) -> u32 {
    return candidates[base + i].x;
}

/// What is drawn from: keys above `floor`, `ties` of those that equal it, and none below min_p.
struct Kept {
    floor: u32,
    ties: u32,
    highest: f32,
    min_p: f32,
    temperature: f32,
}

/// Keeps the `top_k` likeliest.
fn top_k(lane: u32, count: u32, kept: Kept, k: u32) -> Kept {
    if k == 0u || k >= count {
        return kept;
    }
    threshold(lane, count, false, vec2(k, 0u), 0u, kept.highest);
    let now = Kept(found.x, found.y, kept.highest, kept.min_p, kept.temperature);
    workgroupBarrier();
    return now;
}

fn sum_of_lanes() -> vec2<u32> {
    var total = vec2(0u);
    for (var other = 0u; other < WG; other++) {
        total = add64(total, lane_mass[other]);
    }
    return total;
}

/// The mass of everything above a key.
fn mass_above(lane: u32, count: u32, kept: Kept) -> vec2<u32> {
    var sum = vec2(0u);
    for (var i = lane; i < count; i += WG) {
        let key = key_at(i);
        if key > kept.floor {
            sum = add64(sum, vec2(mass_of(key, kept.highest, 1.0), 0u));
        }
    }
    lane_mass[lane] = sum;
    workgroupBarrier();
    let total = sum_of_lanes();
    workgroupBarrier();
    return total;
}

/// Keeps the likeliest that together have the share `p` of what was kept.
fn top_p(lane: u32, count: u32, kept: Kept, p: f32) -> Kept {
    if p >= 1.0 {
        return kept;
    }
    var now = kept;
    let above = mass_above(lane, count, kept);
    var equal = vec2(0u);
    if kept.ties > 0u {
        equal = mul32(mass_of(kept.floor, kept.highest, 1.0), kept.ties);
    }
    var wanted = share64(add64(above, equal), p);
    wanted = select(wanted, vec2(1u, 0u), wanted.x == 0u && wanted.y == 0u);
    if lane == 0u {
        deeper = select(1u, 0u, less64(above, wanted));
    }
    if workgroupUniformLoad(&deeper) != 0u {
        threshold(lane, count, true, wanted, kept.floor, kept.highest);
        now.floor = found.x;
        now.ties = found.y;
        workgroupBarrier();
    } else {
        now.ties = needed(kept.floor, sub64(wanted, above), kept.ties, kept.highest);
    }
    return now;
}

/// Whether a key is at least the share `min_p` as likely as the likeliest.
fn min_p(kept: Kept, key: u32) -> bool {
    return exp(logit_of(key) - kept.highest) >= kept.min_p;
}

/// Whether a key is one of those of which only the first stay.
fn is_tied(kept: Kept, key: u32) -> bool {
    return kept.ties > 0u && key == kept.floor;
}

/// The mass of a key in the draw, after `seen` that are tied; 0 when it is not kept.
fn drawn_mass(kept: Kept, key: u32, seen: u32) -> u32 {
    let stays = key > kept.floor || (is_tied(kept, key) && seen < kept.ties);
    if !stays || !min_p(kept, key) {
        return 0u;
    }
    return mass_of(key, kept.highest, kept.temperature);
}

/// Draws an id of those that are kept: lane by lane of neighbouring ids, then id by id. NO_TOKEN where there is none.
fn draw(lane: u32, count: u32, kept: Kept, seed: vec2<u32>, draws: vec2<u32>) -> u32 {
    let run = (count + WG - 1u) / WG;
    let first = min(lane * run, count);
    let end = min(first + run, count);
    var equal = 0u;
    for (var i = first; i < end; i++) {
        equal += select(0u, 1u, is_tied(kept, key_at(i)));
    }
    lane_ties[lane] = equal;
    workgroupBarrier();
    var before = 0u;
    for (var other = 0u; other < lane; other++) {
        before += lane_ties[other];
    }
    var seen = before;
    var sum = vec2(0u);
    for (var i = first; i < end; i++) {
        let key = key_at(i);
        sum = add64(sum, vec2(drawn_mass(kept, key, seen), 0u));
        seen += select(0u, 1u, is_tied(kept, key));
    }
    lane_mass[lane] = sum;
    workgroupBarrier();
    if lane == 0u {
        let total = sum_of_lanes();
        let u = random(seed, draws);
        // floor(u total / 2^32), below total
        let low = mul32(total.x, u);
        var rest = add64(vec2(low.y, 0u), mul32(total.y, u));
        var owner = 0u;
        while owner + 1u < WG && !less64(rest, lane_mass[owner]) {
            rest = sub64(rest, lane_mass[owner]);
            owner++;
        }
        let none = total.x == 0u && total.y == 0u;
        owner_scratch = vec3(select(owner, NO_TOKEN, none), rest);
        drawn_scratch = NO_TOKEN;
    }
    workgroupBarrier();
    if lane == owner_scratch.x {
        var rest = owner_scratch.yz;
        seen = before;
        for (var i = first; i < end; i++) {
            let key = key_at(i);
            let mass = vec2(drawn_mass(kept, key, seen), 0u);
            if less64(rest, mass) {
                drawn_scratch = candidates[base + i].y;
                break;
            }
            rest = sub64(rest, mass);
            seen += select(0u, 1u, is_tied(kept, key));
        }
    }
    workgroupBarrier();
    return drawn_scratch;
}

/// Counts a draw of a stream, and notes the id as recent in place of the oldest.
fn note(id: u32, stream: u32, room: u32) {
    let at = stream * params.state;
    let draws = add64(vec2(state[at], state[at + 1u]), vec2(1u, 0u));
    state[at] = draws.x;
    state[at + 1u] = draws.y;
    if room == 0u || id == NO_TOKEN {
        return;
    }
    let count_at = stream * params.wide;
    let ids = at + 4u;
    let oldest = state[at + 2u];
    if state[at + 3u] < room {
        state[ids + (oldest + state[at + 3u]) % room] = id;
        state[at + 3u] += 1u;
    } else {
        counts[count_at + state[ids + oldest]] -= 1u;
        state[ids + oldest] = id;
        state[at + 2u] = (oldest + 1u) % room;
    }
    counts[count_at + id] += 1u;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = params.first + group.x;
    if lane == 0u {
        place_scratch = vec2(frame[1], frame[row * FRAME_ROW + 2u] >> 1u);
        atomicStore(&best, 0u);
    }
    let place = workgroupUniformLoad(&place_scratch);
    if row >= place.x {
        return;
    }
    let stream = place.y;
    let by = sampling[stream];
    let count = params.slices * by.each;
    base = group.x * params.room;
    for (var i = lane; i < count; i += WG) {
        atomicMax(&best, key_at(i));
    }
    workgroupBarrier();
    let likeliest = atomicLoad(&best);

    let greedy = by.temperature == 0.0;
    let all = Kept(
        0u, 0u, logit_of(likeliest),
        select(by.min_p, 0.0, greedy), select(by.temperature, 1.0, greedy),
    );
    var kept = top_k(lane, count, all, select(by.top_k, 1u, greedy));
    kept = top_p(lane, count, kept, select(by.top_p, 1.0, greedy));
    // What may not be drawn has no ties.
    kept.ties = select(kept.ties, 0u, kept.floor == 0u);
    let at = stream * params.state;
    let draws = vec2(state[at], state[at + 1u]);
    var id = draw(lane, count, kept, vec2(by.seed_low, by.seed_high), draws);
    id = select(id, NO_TOKEN, likeliest == 0u || likeliest == BROKEN);
    if lane == 0u {
        advance(id, row * FRAME_ROW, row * params.most);
        note(id, stream, by.recent);
    }
}
