// lib/folded.wgsl — how norms fold into the products around them.
//
// Gives:  CENTRED, BIASED, BESIDE
//
// Before lib/many_rows.wgsl, whose array has a size computed of overrides: naga 30 has no place for others behind it.

/// The norm subtracts the mean: a LayerNorm.
override CENTRED: bool = false;
/// What is added to the stream has a bias.
override BIASED: bool = false;
/// Another block is still to read what the stream was.
override BESIDE: bool = false;
