// sample — token = a draw from softmax(logits / temperature) over what penalties, top-k, top-p and min-p leave
//
//   binding  name      access   type         shape          unit
//   0        params    read     Params
//   1        logits    read     f32          [V]            logits
//   2        banned    read     u32          [ceil(V/32)]   one bit a token
//   3        settings  read     u32          [12]           see SETTINGS below
//   4        state     write    u32          [4 + recent]   draws so far (low, high), oldest, count, recent ids
//   5        counts    write    atomic<u32>  [V]            how often an id is recent; all 0 before and after
//   6        token     write    u32          [T]            the first element takes the id
//   7        frame     write    u32          [4]            is moved on by a token and a step
//   8        chosen    write    u32          [MOST]         the element of this step takes the id, too
//
//   grid:      [1, 1, 1], one workgroup
//   requires:  WG a power of two, at most 256
//   uses:      lib/random.wgsl, lib/advance.wgsl
//   twin:      src/text/sampler.rs
//
// No sorting: what top-k and top-p leave is a threshold, found byte by byte from histograms of the logits' bits, and
// how many of those that equal it, lowest ids first. Masses are 64-bit integers of 2^-31, so that their sums do not
// depend on the order in which lanes come. A draw walks the ids in order.

struct Params {
    vocab: u32,
    end: u32,    // S + 2N: a position that is reduced stays below
    slots: u32,  // N
    most: u32,   // steps that there is room for
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> banned: array<u32>;
@group(0) @binding(3) var<storage, read> settings: array<u32>;
@group(0) @binding(4) var<storage, read_write> state: array<u32>;
@group(0) @binding(5) var<storage, read_write> counts: array<atomic<u32>>;
@group(0) @binding(6) var<storage, read_write> token: array<u32>;
@group(0) @binding(7) var<storage, read_write> frame: array<u32>;
@group(0) @binding(8) var<storage, read_write> chosen: array<u32>;

override WG: u32 = 256u;

// SETTINGS: f32 bits but for those in capitals.
const TEMPERATURE: u32 = 0u;  // 0 takes the likeliest
const TOP_K: u32 = 1u;        // 0 keeps all
const TOP_P: u32 = 2u;
const MIN_P: u32 = 3u;
const REPEAT: u32 = 4u;
const PRESENCE: u32 = 5u;
const FREQUENCY: u32 = 6u;
const RECENT: u32 = 7u;       // ids that count as recent
const SEED: u32 = 8u;         // low, high

const LEAST: u32 = 0xff800000u; // -infinity
const NO_TOKEN: u32 = 0xffffffffu;
const ONE: f32 = 2147483648.0; // of a mass

var<workgroup> best: atomic<u32>;
var<workgroup> broken: atomic<u32>;
var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> low_bins: array<atomic<u32>, 256>;
var<workgroup> high_bins: array<atomic<u32>, 256>;
var<workgroup> found: array<u32, 4>;        // of a search: threshold, ties; of the draw: lane, id
var<workgroup> lane_ties: array<u32, WG>;
var<workgroup> lane_mass: array<vec2<u32>, WG>;
var<workgroup> left: vec2<u32>;
var<workgroup> deeper: u32;

fn setting(i: u32) -> f32 {
    return bitcast<f32>(settings[i]);
}

fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn sub64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn less64(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

/// The logit after penalties.
fn adjusted(i: u32) -> f32 {
    var logit = logits[i];
    if settings[RECENT] > 0u {
        let count = atomicLoad(&counts[i]);
        if count > 0u {
            let repeat = setting(REPEAT);
            logit = select(logit * repeat, logit / repeat, logit > 0.0);
            logit -= f32(count) * setting(FREQUENCY) + setting(PRESENCE);
        }
    }
    return logit;
}

/// A number that orders as the logit does: 0 for one that may not be drawn.
fn key_of(i: u32) -> u32 {
    if ((banned[i / 32u] >> (i % 32u)) & 1u) != 0u || bitcast<u32>(logits[i]) == LEAST {
        return 0u;
    }
    // -0 and 0 are one.
    let bits = bitcast<u32>(adjusted(i) + 0.0);
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

fn mass_of(key: u32, highest: f32, temperature: f32) -> u32 {
    return u32(exp((logit_of(key) - highest) / temperature) * ONE);
}

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

/// How many of `equal` ids of one key reach a mass together.
fn needed(key: u32, wanted: vec2<u32>, equal: u32, highest: f32) -> u32 {
    let mass = mass_of(key, highest, 1.0);
    var ties = 1u;
    while ties < equal && less64(mul32(mass, ties), wanted) {
        ties++;
    }
    return ties;
}

/// The largest key so that those from it on, but none below `floor`, have `wanted` together, in mass or in number; in
/// `found`: the key, and how many of those that equal it are needed.
fn search(lane: u32, masses: bool, wanted: vec2<u32>, floor: u32, highest: f32) {
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
        for (var i = lane; i < params.vocab; i += WG) {
            let k = key_of(i);
            // Shifting by 32 is not defined.
            let same = byte == 0u || (k >> (shift + 7u)) >> 1u == key;
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
            found[0] = (key << 8u) | at.x;
            left = at.yz;
        }
        workgroupBarrier();
        key = found[0];
        rest = left;
        workgroupBarrier();
    }
    if lane == 0u {
        let equal = max(atomicLoad(&bins[key & 255u]), 1u);
        found[1] = clamp(rest.x, 1u, equal);
        if masses {
            found[1] = needed(key, rest, equal, highest);
        }
    }
    workgroupBarrier();
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
    for (var i = lane; i < params.vocab; i += WG) {
        let key = key_of(i);
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

/// A 64-bit number times a fraction in [0, 1].
fn share64(a: vec2<u32>, share: f32) -> vec2<u32> {
    // Of 2^-24, which holds every f32 in [0.5, 1] exactly.
    let part = u32(share * 16777216.0);
    let low = mul32(a.x, part);
    let high = mul32(a.y, part);
    let middle = add64(vec2(low.y, 0u), high);
    return vec2((low.x >> 24u) | (middle.x << 8u), (middle.x >> 24u) | (middle.y << 8u));
}

/// What is drawn from: keys above `floor`, `ties` of those that equal it, and none below min_p.
struct Kept {
    floor: u32,
    ties: u32,
    highest: f32,
    min_p: f32,
    temperature: f32,
}

/// Whether a key is one of those of which only the first stay.
fn is_tied(kept: Kept, key: u32) -> bool {
    return kept.ties > 0u && key == kept.floor;
}

/// The mass of a key in the draw, after `seen` that are tied; 0 when it is not kept.
fn drawn_mass(kept: Kept, key: u32, seen: u32) -> u32 {
    let stays = key > kept.floor || (is_tied(kept, key) && seen < kept.ties);
    if !stays || exp(logit_of(key) - kept.highest) < kept.min_p {
        return 0u;
    }
    return mass_of(key, kept.highest, kept.temperature);
}

fn put(id: u32) {
    advance(id);
    let draws = add64(vec2(state[0], state[1]), vec2(1u, 0u));
    state[0] = draws.x;
    state[1] = draws.y;
    let room = settings[RECENT];
    if room > 0u && id != NO_TOKEN {
        let oldest = state[2];
        if state[3] < room {
            state[4u + (oldest + state[3]) % room] = id;
            state[3] += 1u;
        } else {
            state[4u + oldest] = id;
            state[2] = (oldest + 1u) % room;
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        atomicStore(&best, 0u);
        atomicStore(&broken, 0u);
    }
    let room = settings[RECENT];
    for (var i = lane; i < room && i < state[3]; i += WG) {
        atomicAdd(&counts[state[4u + (state[2] + i) % room]], 1u);
    }
    workgroupBarrier();
    storageBarrier();

    for (var i = lane; i < params.vocab; i += WG) {
        // Infinity and what is not a number cannot be drawn from; the least of all is never drawn.
        let bits = bitcast<u32>(logits[i]);
        if (bits & 0x7f800000u) == 0x7f800000u && bits != LEAST {
            atomicStore(&broken, 1u);
        }
        atomicMax(&best, key_of(i));
    }
    workgroupBarrier();
    let top = atomicLoad(&best);
    let highest = logit_of(top);
    let temperature = setting(TEMPERATURE);
    var none = top == 0u || atomicLoad(&broken) != 0u;

    // Keys above `floor` stay, and `ties` of those that equal it.
    var floor = 0u;
    var ties = 0u;
    let top_k = select(settings[TOP_K], 1u, temperature == 0.0);
    if top_k > 0u && top_k < params.vocab {
        search(lane, false, vec2(top_k, 0u), 0u, highest);
        floor = found[0];
        ties = found[1];
        workgroupBarrier();
    }
    let top_p = setting(TOP_P);
    if temperature > 0.0 && top_p < 1.0 {
        let above = mass_above(lane, floor, highest);
        var equal = vec2(0u);
        if ties > 0u {
            equal = mul32(mass_of(floor, highest, 1.0), ties);
        }
        var wanted = share64(add64(above, equal), top_p);
        wanted = select(wanted, vec2(1u, 0u), wanted.x == 0u && wanted.y == 0u);
        if lane == 0u {
            deeper = select(1u, 0u, less64(above, wanted));
        }
        if workgroupUniformLoad(&deeper) != 0u {
            search(lane, true, wanted, floor, highest);
            floor = found[0];
            ties = found[1];
            workgroupBarrier();
        } else {
            ties = needed(floor, sub64(wanted, above), ties, highest);
        }
    }
    // What may not be drawn has no ties.
    ties = select(ties, 0u, floor == 0u);

    let kept = Kept(
        floor, ties, highest,
        select(setting(MIN_P), 0.0, temperature == 0.0), select(temperature, 1.0, temperature == 0.0),
    );

    // A draw, lane by lane of neighbouring ids, then id by id.
    let each = (params.vocab + WG - 1u) / WG;
    let first = min(lane * each, params.vocab);
    let end = min(first + each, params.vocab);
    var equal = 0u;
    for (var i = first; i < end; i++) {
        equal += select(0u, 1u, is_tied(kept, key_of(i)));
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
        let key = key_of(i);
        sum = add64(sum, vec2(drawn_mass(kept, key, seen), 0u));
        seen += select(0u, 1u, is_tied(kept, key));
    }
    lane_mass[lane] = sum;
    workgroupBarrier();
    if lane == 0u {
        let total = sum_of_lanes();
        none = none || (total.x == 0u && total.y == 0u);
        let u = random(vec2(settings[SEED], settings[SEED + 1u]), vec2(state[0], state[1]));
        // floor(u total / 2^32), below total
        let low = mul32(total.x, u);
        var rest = add64(vec2(low.y, 0u), mul32(total.y, u));
        var owner = 0u;
        while owner + 1u < WG && !less64(rest, lane_mass[owner]) {
            rest = sub64(rest, lane_mass[owner]);
            owner++;
        }
        found[2] = select(owner, NO_TOKEN, none);
        found[3] = NO_TOKEN;
        left = rest;
    }
    workgroupBarrier();
    if lane == found[2] {
        var rest = left;
        seen = before;
        for (var i = first; i < end; i++) {
            let key = key_of(i);
            let mass = vec2(drawn_mass(kept, key, seen), 0u);
            if less64(rest, mass) {
                found[3] = i;
                break;
            }
            rest = sub64(rest, mass);
            seen += select(0u, 1u, is_tied(kept, key));
        }
    }
    workgroupBarrier();
    for (var i = lane; i < room && i < state[3]; i += WG) {
        atomicStore(&counts[state[4u + (state[2] + i) % room]], 0u);
    }
    workgroupBarrier();
    storageBarrier();
    if lane == 0u {
        put(found[3]);
    }
}
