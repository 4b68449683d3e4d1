//! containerd's snapshots service over a real socket, asked by the generated client.
//!
//! `door` puts a double behind it, which hangs and fails as it is told to; `real` runs the real
//! daemons, with real disks; `listed` holds what the tool says of them against other programs; `steps` kills them between two steps.

mod client;
mod daemon;
mod door;
mod double;
mod hostile;
mod listed;
mod real;
// A release build has no failpoints.
#[cfg(debug_assertions)]
mod steps;
