// lib/frame.wgsl — where the frame of a row is, in a pass whose rows are of several streams: see `FRAME_ROW` of src/ops/ring.rs
//
// Gives:  FRAME_ROW

const FRAME_ROW: u32 = 64u; // words from one row's frame to the next one's
