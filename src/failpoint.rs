//! Places where a test may kill the process: there and nowhere else, once, as `kill -9` does.
//!
//! `PLOOP_FAILPOINTS` names a folder. Whoever passes a place takes away the file of that name in it,
//! and dies if there was one. So a test arms a place in a process that runs already; the process that
//! comes next passes the same place and lives; and by the missing file the test knows that the place
//! was reached at all. (The crate `fail` knows no such death: its points return, panic or wait, and
//! what its environment says is said to the next process as well.)
//!
//! The rule: a release build has nothing of this, and a debug build that is told no folder does nothing
//! but look at one variable of its own. No place allocates, and none panics.

/// The process has come to this place.
#[inline]
pub fn pass(place: &'static str) {
    #[cfg(debug_assertions)]
    armed::die_at(place);
    #[cfg(not(debug_assertions))]
    let _ = place;
}

#[cfg(debug_assertions)]
mod armed {
    use std::fs::File;
    use std::sync::OnceLock;

    use rustix::fs::{AtFlags, unlinkat};
    use rustix::process::{Signal, getpid, kill_process};

    /// Opened once, when the first place is passed.
    static FOLDER: OnceLock<Option<File>> = OnceLock::new();

    pub(super) fn die_at(place: &str) {
        let named = || File::open(std::env::var_os("PLOOP_FAILPOINTS")?).ok();
        let Some(folder) = FOLDER.get_or_init(named) else {
            return;
        };
        if unlinkat(folder, place, AtFlags::empty()).is_ok() {
            // The whole process ends before this call returns.
            let _ = kill_process(getpid(), Signal::KILL);
            std::process::abort();
        }
    }
}
