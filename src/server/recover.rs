//! After a server that ended without order: say what it served, and what became of it.
//!
//! On the FUSE transport a device dies with its server, so there is nothing to take over: its devices
//! are freed, and the control side attaches the disks again where nobody holds the dead ones. What
//! was answered is not lost: it is in the deltas and in their pending files, which the engine replays
//! when the same delta is opened again.

use std::path::Path;

use super::registry::{Account, read_account};
use crate::device::Leftovers;

/// Says in the log what an earlier server left.
pub(super) fn tell(account: Option<&Account>, found: &Leftovers) {
    if let Some(account) = account.filter(|account| !account.disks.is_empty()) {
        let disks: Vec<_> = account.disks.iter().map(|disk| disk.id.as_str()).collect();
        tracing::warn!(
            pid = account.pid, disks = ?disks,
            "the server before ended while it served disks: they are gone until they are attached again"
        );
    }
    if found.is_empty() {
        return;
    }
    tracing::warn!(
        freed = ?found.freed, mounts = found.mounts,
        "cleaned up what an earlier server left in the kernel"
    );
    if !found.held.is_empty() {
        tracing::error!(
            devices = ?found.held,
            "somebody still has these dead devices open or mounted: all they get is I/O errors; the kernel \
             frees a device when it is closed. Restart the containers on them"
        );
    }
}

/// What an earlier server wrote down about itself.
pub(super) fn before(registry: &Path) -> Option<Account> {
    read_account(registry)
}
