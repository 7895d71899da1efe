//! Command line -> session -> text.
fn main() {}
