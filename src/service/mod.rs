//! The gRPC door: containerd's snapshots service, one socket a snapshotter name.

mod filter;
mod quote;
