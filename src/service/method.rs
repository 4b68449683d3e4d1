//! containerd's calls by name.

use std::fmt;
use std::time::Duration;

use super::Options;

/// A call of containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "containerd's names")]
pub enum Method {
    Stat,
    Update,
    Usage,
    Mounts,
    Prepare,
    View,
    Commit,
    Remove,
    Cleanup,
    List,
}

impl Method {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stat => "Stat",
            Self::Update => "Update",
            Self::Usage => "Usage",
            Self::Mounts => "Mounts",
            Self::Prepare => "Prepare",
            Self::View => "View",
            Self::Commit => "Commit",
            Self::Remove => "Remove",
            Self::Cleanup => "Cleanup",
            Self::List => "List",
        }
    }

    /// Does it change anything? Then it is worth a line in the log.
    pub(super) const fn changes(self) -> bool {
        !matches!(
            self,
            Self::Stat | Self::Usage | Self::Mounts | Self::List | Self::Cleanup
        )
    }

    /// How long a caller waits for it.
    pub(super) const fn limit(self, options: &Options) -> Duration {
        match self {
            Self::Commit | Self::Update => options.commit_limit,
            _ => options.call_limit,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
