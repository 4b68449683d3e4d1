//! How a verb went, as the exit code that a script sees.

use crate::image::Severity;

/// What a verb found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing to say.
    Clean,
    /// It could not be done: wrong usage, or the host's trouble.
    Failed,
    /// Corrupt, or not closed in order.
    Corrupt,
    /// Nothing is lost, and there is something to say.
    Notes,
}

impl Verdict {
    pub(super) fn of(worst: Option<Severity>) -> Self {
        match worst {
            None => Self::Clean,
            Some(Severity::Note | Severity::Leak) => Self::Notes,
            Some(Severity::Unclean | Severity::Corrupt) => Self::Corrupt,
        }
    }

    /// The same numbers as `qemu-img check` uses.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed => 1,
            Self::Corrupt => 2,
            Self::Notes => 3,
        }
    }
}
