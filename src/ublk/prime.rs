//! A take-over that somebody began and did not survive, made ready to be begun again.
//!
//! Linux 6.12 begins the take-over of a device only if all its tags were fetched since the last one
//! began. So a server that dies between the two leaves a device that nobody can begin to
//! take over; and if it had mapped the table of requests, nobody can go on where it stopped either: the
//! kernel lets no other process map it until a take-over begins. A fetch needs no map. So a thread
//! fetches every tag and ends: to the kernel a server came and died, as any other.

use std::fs::File;
use std::io;
use std::rc::Rc;

use super::queue::{Slot, fetch_every};
use crate::io::{Inbox, Ring, Setup};

/// Fetches every tag of a device, and dies. Its requests stay where they are: held for who comes next.
///
/// The node is closed when the kernel has ended the fetches, a moment after this returns.
///
/// # Errors
/// If no thread or no ring can be had.
pub fn prime(node: File, depth: u16) -> io::Result<()> {
    // A thread of its own: the kernel knows a server by its task, and by its end.
    let thread = std::thread::Builder::new().name("prime".to_owned());
    let ended = thread.spawn(move || {
        let ring = Ring::install(Setup::default())?;
        let (_, fetched) = fetch_every(
            &ring,
            &node,
            Slot::None,
            (&Rc::<Inbox>::default(), 0),
            depth,
        );
        Ring::uninstall();
        fetched
    })?;
    let lost = |_| Err(io::Error::other("the thread that fetches ended early"));
    ended.join().unwrap_or_else(lost)
}
