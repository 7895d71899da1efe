// sample — token = a draw from softmax(logits / temperature) over what top-k, top-p and min-p leave of the candidates
//
//   binding  name        access   type       shape         unit
//   0        params      read     Params
//   1        candidates  read     vec2<u32>  [COUNT]       key and id, in the order of the ids (sample_select)
//   2        state       write    u32        [4 + recent]  draws so far (low, high), oldest, count, recent ids
//   3        counts      write    u32        [V], or [1]   how often an id is recent
//   4        token       write    u32        [T]           the first element takes the id
//   5        frame       write    u32        [4]           is moved on by a token and a step
//   6        chosen      write    u32        [MOST]        the element of this step takes the id, too
//
//   grid:      [1, 1, 1], one workgroup
//   requires:  WG a power of two, at most 256
//   uses:      lib/random.wgsl, lib/mass.wgsl, lib/threshold.wgsl, lib/advance.wgsl
//   twin:      src/text/sampler.rs
//
// The id is NO_TOKEN when every token is banned, or a logit cannot be drawn from.

struct Params {
    vocab: u32,       // V
    end: u32,         // S + 2N: a position that is reduced stays below
    slots: u32,       // N
    most: u32,        // steps that there is room for
    count: u32,       // COUNT
    temperature: f32, // 0 takes the likeliest
    top_k: u32,       // 0 keeps all
    top_p: f32,
    min_p: f32,
    recent: u32,      // ids that count as recent
    seed_low: u32,
    seed_high: u32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> state: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> token: array<u32>;
@group(0) @binding(5) var<storage, read_write> frame: array<u32>;
@group(0) @binding(6) var<storage, read_write> chosen: array<u32>;

override WG: u32 = 256u;

const NO_TOKEN: u32 = 0xffffffffu;
const BROKEN: u32 = 0xffffffffu;

var<workgroup> best: atomic<u32>;
var<workgroup> lane_ties: array<u32, WG>;
var<workgroup> lane_mass: array<vec2<u32>, WG>;
var<workgroup> deeper: u32;
var<workgroup> owner_scratch: vec3<u32>; // the lane that has the drawn id, and what is left of the draw there
var<workgroup> drawn_scratch: u32;

fn key_at(i: u32) -> u32 {
    return candidates[i].x;
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
fn top_k(lane: u32, kept: Kept, k: u32) -> Kept {
    if k == 0u || k >= params.count {
        return kept;
    }
    threshold(lane, params.count, false, vec2(k, 0u), 0u, kept.highest);
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
fn mass_above(lane: u32, floor: u32, highest: f32) -> vec2<u32> {
    var sum = vec2(0u);
    for (var i = lane; i < params.count; i += WG) {
        let key = key_at(i);
        if key > floor {
            sum = add64(sum, vec2(mass_of(key, highest, 1.0), 0u));
        }
    }
    lane_mass[lane] = sum;
    workgroupBarrier();
    let total = sum_of_lanes();
    workgroupBarrier();
    return total;
}

/// Keeps the likeliest that together have the share `top_p` of what was kept.
fn top_p(lane: u32, kept: Kept) -> Kept {
    if params.temperature == 0.0 || params.top_p >= 1.0 {
        return kept;
    }
    var now = kept;
    let above = mass_above(lane, kept.floor, kept.highest);
    var equal = vec2(0u);
    if kept.ties > 0u {
        equal = mul32(mass_of(kept.floor, kept.highest, 1.0), kept.ties);
    }
    var wanted = share64(add64(above, equal), params.top_p);
    wanted = select(wanted, vec2(1u, 0u), wanted.x == 0u && wanted.y == 0u);
    if lane == 0u {
        deeper = select(1u, 0u, less64(above, wanted));
    }
    if workgroupUniformLoad(&deeper) != 0u {
        threshold(lane, params.count, true, wanted, kept.floor, kept.highest);
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
fn draw(lane: u32, kept: Kept) -> u32 {
    let run = (params.count + WG - 1u) / WG;
    let first = min(lane * run, params.count);
    let end = min(first + run, params.count);
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
        let u = random(vec2(params.seed_low, params.seed_high), vec2(state[0], state[1]));
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
                drawn_scratch = candidates[i].y;
                break;
            }
            rest = sub64(rest, mass);
            seen += select(0u, 1u, is_tied(kept, key));
        }
    }
    workgroupBarrier();
    return drawn_scratch;
}

/// Counts a draw, and notes the id as recent in place of the oldest.
fn note(id: u32) {
    let draws = add64(vec2(state[0], state[1]), vec2(1u, 0u));
    state[0] = draws.x;
    state[1] = draws.y;
    let room = params.recent;
    if room == 0u || id == NO_TOKEN {
        return;
    }
    let oldest = state[2];
    if state[3] < room {
        state[4u + (oldest + state[3]) % room] = id;
        state[3] += 1u;
    } else {
        counts[state[4u + oldest]] -= 1u;
        state[4u + oldest] = id;
        state[2] = (oldest + 1u) % room;
    }
    counts[id] += 1u;
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        atomicStore(&best, 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < params.count; i += WG) {
        atomicMax(&best, key_at(i));
    }
    workgroupBarrier();
    let likeliest = atomicLoad(&best);

    let greedy = params.temperature == 0.0;
    let all = Kept(
        0u, 0u, logit_of(likeliest),
        select(params.min_p, 0.0, greedy), select(params.temperature, 1.0, greedy),
    );
    var kept = top_k(lane, all, select(params.top_k, 1u, greedy));
    kept = top_p(lane, kept);
    // What may not be drawn has no ties.
    kept.ties = select(kept.ties, 0u, kept.floor == 0u);
    var id = draw(lane, kept);
    id = select(id, NO_TOKEN, likeliest == 0u || likeliest == BROKEN);
    if lane == 0u {
        advance(id);
        note(id);
    }
}
