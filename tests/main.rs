//! Every integration test, in one binary: it links once and lists everything.
#![expect(clippy::unwrap_used, reason = "a test that fails stops there")]

mod agree;
mod architecture;
mod bad_chain;
mod blocked;
mod churn;
mod cli;
mod conformance;
mod disk_server;
mod disk_servers;
// A release build has no failpoints.
#[cfg(debug_assertions)]
mod failpoints;
mod going_down;
mod golden;
mod host_blocks;
mod host_faults;
mod host_full;
mod model;
mod service;
mod snapshots;
mod strangers;
mod support;
mod takeover;
mod tools;
mod watched;
