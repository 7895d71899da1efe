//! Tests that need crate-private items.
