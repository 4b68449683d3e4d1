//! Children are started while nothing is open that they may not have.
//!
//! From the fork until it runs its program a child has all that this process has open, whatever is marked to be closed
//! then. A device that was opened alone (O_EXCL) stays somebody's for as long, although we closed it: whoever was told
//! that it is free and mounts it at once is answered `EBUSY`.

use std::sync::{PoisonError, RwLock};

/// Shared by who starts a program; alone by who opens what no program may have.
static GATE: RwLock<()> = RwLock::new(());

/// Starts a program.
pub fn starting<T>(start: impl FnOnce() -> T) -> T {
    let _shared = GATE.read().unwrap_or_else(PoisonError::into_inner);
    start()
}

/// Opens something and closes it again, without a child that could keep it open. What takes time or may hang has no
/// place here: no program starts meanwhile.
pub fn while_none_starts<T>(moment: impl FnOnce() -> T) -> T {
    let _alone = GATE.write().unwrap_or_else(PoisonError::into_inner);
    moment()
}
