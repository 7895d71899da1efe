// lib/advance.wgsl — a token that was chosen: so the next step finds its token and its position without the host.
//
// Needs from the kernel:  params (vocab, end, slots, most), token, frame, chosen: array<u32>, to be written
// Gives:                  advance(id), for one lane

fn advance(id: u32) {
    // Of no token, the steps that are under way read the last row: nothing checks where they read.
    token[0] = min(id, params.vocab - 1u);
    let step = frame[3];
    if step < params.most {
        chosen[step] = id;
    }
    frame[3] = step + 1u;
    let next = frame[0] + 1u;
    frame[0] = select(next, next - params.slots, next == params.end);
}
