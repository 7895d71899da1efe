// lib/advance.wgsl — a token that was chosen: so the next step finds its token and its position without the host.
//
// Needs from the kernel:  params (vocab, end, slots, most), token, frame, chosen: array<u32>, to be written
// Gives:                  advance(id, row, noted), for one lane: where the row's token and frame begin, and its chosen ones

fn advance(id: u32, row: u32, noted: u32) {
    // Of no token, the steps that are under way read the last row: nothing checks where they read.
    token[row] = min(id, params.vocab - 1u);
    let step = frame[row + 3u];
    if step < params.most {
        chosen[noted + step] = id;
    }
    frame[row + 3u] = step + 1u;
    let next = frame[row] + 1u;
    frame[row] = select(next, next - params.slots, next == params.end);
}
