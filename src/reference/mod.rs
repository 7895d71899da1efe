//! What each kernel should compute, said in the plainest Rust.
