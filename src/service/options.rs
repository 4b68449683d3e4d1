//! What can be chosen about the door, and whom it tells of its calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Method;

/// Time limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a caller waits for an act.
    pub call_limit: Duration,
    /// For Commit and Update: containerd calls them inside its only write transaction.
    pub commit_limit: Duration,
    /// How long acts may go on after the order to stop.
    pub stop_limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            call_limit: Duration::from_secs(60),
            commit_limit: Duration::from_secs(20),
            stop_limit: Duration::from_secs(10),
        }
    }
}

/// A call that ended.
#[derive(Clone, Debug)]
pub struct Ended<'a> {
    /// The snapshotter that was called.
    pub snapshotter: &'a str,
    /// The call.
    pub method: Method,
    /// The gRPC code, as people write it.
    pub code: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// Whoever counts calls.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&Ended<'_>) + Send + Sync>);

impl Observer {
    /// Calls `tell` for every call that ended.
    pub fn new(tell: impl Fn(&Ended<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(super) fn tell(&self, ended: &Ended<'_>) {
        (self.0)(ended);
    }
}

impl Default for Observer {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
