//! What a process that serves block devices asks of the kernel for itself.
//!
//! All of it is best effort: a container or a development machine may not have the rights. What is
//! lost is said once, in one line each.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    Resource, Rlimit, configure_io_flusher_behavior, getrlimit, setrlimit, setsid,
};

/// As hard to kill for memory as the service managers of containers are.
const OOM_SCORE: &str = "-999";

/// Gives the process a session of its own, so that no terminal and no parent takes it along.
pub fn detach() {
    // It fails only for the leader of a process group: whoever made us one knew what they did.
    let _ = setsid();
}

/// Prepares the process. Call it before any thread is started: threads inherit what is set here.
pub fn prepare() {
    raise_descriptors();
    if let Err(error) = configure_io_flusher_behavior(true) {
        tracing::warn!(
            %error,
            "PR_SET_IO_FLUSHER refused (needs CAP_SYS_RESOURCE): under extreme memory pressure this \
             process may wait for the write-back of its own disks"
        );
    }
    // Only what is touched is locked; the big buffers of the FUSE threads stay mostly untouched.
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = mlockall(all) {
        tracing::warn!(
            %error,
            "mlockall refused (needs CAP_IPC_LOCK): pages of this process may be swapped out, perhaps \
             to a disk that it serves"
        );
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        tracing::warn!(
            %error,
            "cannot set oom_score_adj (needs CAP_SYS_RESOURCE): short of memory, the kernel may kill \
             this process, and every disk with it"
        );
    }
}

/// Each delta of each chain is a descriptor.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, current = ?limit.current, "cannot raise the limit of descriptors");
    }
}
