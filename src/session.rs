//! A stream: feed, generate, stop rules.
