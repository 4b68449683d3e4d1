//! Every integration test, in one binary: it links once and lists everything.
#![expect(clippy::unwrap_used, reason = "a test that fails stops there")]

mod architecture;
mod model;
mod support;
mod tools;
