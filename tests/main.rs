//! Every integration test, in one binary: it links once and lists everything.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod architecture;
