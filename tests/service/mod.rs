//! containerd's snapshots service over a real socket, asked by the generated client.
//!
//! Behind it stands a double, which hangs and fails as it is told to.

mod client;
mod door;
mod double;
