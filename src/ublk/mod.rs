//! The kernel's ublk protocol, and nothing of ours: a block device whose requests a process serves.
//!
//! ```text
//! Control   /dev/ublk-control    add, set parameters, start, stop, delete, recover
//! Queue     /dev/ublkcN          fetch a request, commit its result
//!           /dev/ublkbN          what the rest of the system sees
//! ```
//!
//! What comes from where. The bindings (structs, command numbers) are those of libublk
//! (`libublk-rs-sys`), generated from the kernel's header. The rest of libublk 0.4 does not fit a
//! server of many devices, so it is ours:
//!
//! - its queue registers the device as file 0 of a thread's only ring, so a thread serves one device.
//!   The kernel asks for no such thing: a fetched tag belongs to the *task* that fetched it, and a task
//!   may own the tags of any number of devices. Descriptors are plain ones: a registered one keeps a
//!   deleted device alive until other devices' requests have ended;
//! - its control commands wait without a time limit, and the kernel's control plane is known to get
//!   stuck; it refuses flags that are younger than itself (no partition scan); it starts a device only
//!   with its own queues; and dropping its handle deletes the device, which must outlive us.

mod control;
mod error;
mod features;
mod limit;
mod lost;
mod owner;
mod params;
mod prime;
mod queue;
mod uapi;

pub use control::{Added, Control, Info, Reserved, State, Wish};
pub use error::Error;
pub use features::{Features, probe};
pub use limit::{ENOUGH, LIMIT, Limit, limit, raise_limit};
pub use owner::{Owner, list};
pub use params::Params;
pub use prime::prime;
pub use queue::{Op, Queue, Request, Slot, Tag, open};
