//! Kubernetes' word in the matter: a plugin of containerd's NRI that gives a container the size its pod
//! asks for.
//!
//! CRI passes no label of a pod on to a snapshotter. But between Prepare and the first mount it asks the
//! plugins that are connected to NRI's socket, shows them the pod's annotations, and waits for them:
//!
//! ```text
//! kubelet -> CRI: Prepare (default size) -> NRI: CreateContainer -> Sizes::resize -> mounted, started
//! ```
//!
//! From the outside in: `connect` keeps a connection, `mux` has two conversations on it, `ttrpc` has calls
//! in each, `session` leads them, `plugin` answers. What comes from the socket is never trusted to be what it
//! should: a connection that says something else is closed, and made anew. Containers that were made while there was no
//! connection are told of when there is one again: `missed` makes up for them.

mod annotations;
mod connect;
mod containers;
mod error;
mod missed;
mod mux;
mod plugin;
mod session;
mod sizes;
mod ttrpc;

pub use connect::{Connected, Options, connect};
pub use containers::{Container, Containers, NAMESPACE, container_of};
pub use error::Error;
pub use sizes::{Place, Sizes};
