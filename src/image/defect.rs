//! Everything that can be wrong with an image or a chain, and what to do about each.
//!
//! One vocabulary for opening and for checking: what is [`Severity::Corrupt`] or
//! [`Severity::Unclean`] here is what opening refuses. The rows are those of QEMU's and OpenVZ's
//! checkers, and those that both miss.

use std::fmt;

use crate::format;
use crate::units::{Bytes, Cluster, ClusterSize, Place};

/// How bad a defect is. The order is from harmless to grave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Legal, and worth knowing.
    Note,
    /// Space of the file that nothing refers to. Nothing is lost.
    Leak,
    /// The image was not closed in order. Nothing else needs to be wrong.
    Unclean,
    /// Something that cannot be true. Contents may be lost.
    Corrupt,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Leak => "leak",
            Self::Unclean => "unclean",
            Self::Corrupt => "corrupt",
        })
    }
}

/// One thing that is wrong with an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// Shorter than a header.
    #[error("file of {len} bytes is too short for a header of 64")]
    NoHeader {
        /// The file's length.
        len: u64,
    },
    /// The header contradicts itself or is none.
    #[error(transparent)]
    Header(#[from] format::Error),
    /// The file ends inside its own index.
    #[error("file of {len} bytes ends inside its index, which needs {needs}")]
    Truncated {
        /// The file's length.
        len: u64,
        /// Bytes of header and index.
        needs: u64,
    },
    /// A version conversion was interrupted.
    #[error("a conversion between format versions was interrupted")]
    Converting,
    /// Flags that no version of the format defines.
    #[error("flags {0:#x} are not defined")]
    UnknownFlags(u32),
    /// Open elsewhere, or not closed in order.
    #[error("image is in use: it is open elsewhere, or was not closed in order")]
    InUse,
    /// An in-use mark with a value that no version of the format defines.
    #[error("in-use mark {0:#010x} is not defined")]
    UnknownInUse(u32),
    /// An entry names a place before the first that can hold data.
    #[error("cluster {} lies inside the header or index (entry {entry})", cluster.0)]
    InsideIndex {
        /// Cluster of the disk.
        cluster: Cluster,
        /// The entry as it is in the file.
        entry: u32,
    },
    /// A version 1 entry between two clusters of the file.
    #[error("cluster {} begins at sector {sector}, which is not a cluster's first", cluster.0)]
    Misaligned {
        /// Cluster of the disk.
        cluster: Cluster,
        /// The entry as it is in the file.
        sector: u32,
    },
    /// An entry names a place that the file does not have.
    #[error("cluster {} lies at place {}, beyond the end of the file", cluster.0, place.0)]
    BeyondEnd {
        /// Cluster of the disk.
        cluster: Cluster,
        /// Where its data should be.
        place: Place,
    },
    /// The file ends inside a cluster's data.
    #[error("cluster {} at place {} is cut off by the end of the file", cluster.0, place.0)]
    CutOff {
        /// Cluster of the disk.
        cluster: Cluster,
        /// Where its data begin.
        place: Place,
    },
    /// Two or more entries name one place.
    #[error("place {} holds more than one cluster: {}", place.0, list(clusters))]
    Duplicate {
        /// The place.
        place: Place,
        /// The clusters of the disk that name it, ascending.
        clusters: Vec<Cluster>,
    },
    /// A word of the index behind its last entry is not zero.
    #[error("word {slot} of the index is {value}, but lies behind the last entry")]
    PastLast {
        /// Its slot, counted from the file's first byte.
        slot: u32,
        /// What it holds.
        value: u32,
    },
    /// More defects of the index than anybody will read.
    #[error("{0} more entries of the index are wrong")]
    More(u64),
    /// Whole clusters at the end that no entry names.
    #[error("{count} clusters at the end of the file are not used ({})", Bytes(*bytes))]
    TailLeak {
        /// How many.
        count: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The file ends inside a cluster that no entry names.
    #[error("the file ends with part of a cluster ({bytes} bytes)")]
    HalfTail {
        /// Bytes after the last whole cluster.
        bytes: u64,
    },
    /// Clusters that no entry names, with used ones behind them, which take no space.
    #[error("{count} clusters inside the file are holes that nothing uses ({})", Bytes(*bytes))]
    Holes {
        /// How many.
        count: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Clusters that no entry names, with used ones behind them, which take space.
    #[error("{count} clusters inside the file take space and are not used ({})", Bytes(*bytes))]
    Unused {
        /// How many.
        count: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The empty flag on an image with data.
    #[error("the flags say that the image is empty, and it holds {0} clusters")]
    NotEmpty(usize),
    /// The disk ends before the last cluster that the index covers does.
    #[error("disk of {sectors} sectors is smaller than the {covered} that its index covers")]
    SmallDisk {
        /// What the header says.
        sectors: u64,
        /// What the entries cover.
        covered: u64,
    },
    /// The extension field is set though the image says that there is none.
    #[error("an extension at sector {0} is named, but not declared valid")]
    StaleExtension(u64),
    /// A valid format extension: some other program's dirty bitmap.
    #[error("carries a format extension (a backup program's dirty bitmap) at sector {0}")]
    Extension(u64),
    /// The extension cannot be where the header says.
    #[error("the format extension at sector {0} is not a whole, unused cluster of the file")]
    LostExtension(u64),
    /// Two deltas of a chain have different cluster sizes.
    #[error("clusters of {found}, but the lowest delta of the chain has {chain}")]
    OtherCluster {
        /// This delta's.
        found: ClusterSize,
        /// The chain's.
        chain: ClusterSize,
    },
    /// A delta below the top is in use.
    #[error("image is in use, and is not the top of the chain")]
    LowerInUse,
}

impl Defect {
    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::InUse | Self::UnknownInUse(_) => Severity::Unclean,
            Self::TailLeak { .. } | Self::HalfTail { .. } | Self::Unused { .. } => Severity::Leak,
            Self::Holes { .. }
            | Self::NotEmpty(_)
            | Self::SmallDisk { .. }
            | Self::StaleExtension(_)
            | Self::Extension(_)
            | Self::LostExtension(_) => Severity::Note,
            Self::NoHeader { .. }
            | Self::Header(_)
            | Self::Truncated { .. }
            | Self::Converting
            | Self::UnknownFlags(_)
            | Self::InsideIndex { .. }
            | Self::Misaligned { .. }
            | Self::BeyondEnd { .. }
            | Self::CutOff { .. }
            | Self::Duplicate { .. }
            | Self::PastLast { .. }
            | Self::More(_)
            | Self::OtherCluster { .. }
            | Self::LowerInUse => Severity::Corrupt,
        }
    }

    /// Must nobody rely on the image's contents?
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.severity() >= Severity::Unclean
    }

    /// Does [`super::check::repair`] mend it?
    #[must_use]
    pub fn mendable(&self) -> bool {
        matches!(
            self,
            Self::InUse | Self::TailLeak { .. } | Self::HalfTail { .. }
        )
    }

    /// The first cluster of the disk that it is about.
    #[must_use]
    pub fn cluster(&self) -> Option<Cluster> {
        match self {
            Self::InsideIndex { cluster, .. }
            | Self::Misaligned { cluster, .. }
            | Self::BeyondEnd { cluster, .. }
            | Self::CutOff { cluster, .. } => Some(*cluster),
            Self::Duplicate { clusters, .. } => clusters.first().copied(),
            _ => None,
        }
    }

    /// The byte of the file that says so: of the header or of the index.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        match self {
            Self::PastLast { slot, .. } => Some(4 * u64::from(*slot)),
            Self::InUse | Self::UnknownInUse(_) | Self::LowerInUse => Some(44),
            Self::Converting | Self::UnknownFlags(_) | Self::NotEmpty(_) => Some(52),
            Self::StaleExtension(_) | Self::Extension(_) | Self::LostExtension(_) => Some(56),
            Self::SmallDisk { .. } => Some(36),
            Self::OtherCluster { .. } => Some(28),
            _ => self
                .cluster()
                .map(|cluster| 4 * (u64::from(format::ploop::HEADER_SLOTS) + u64::from(cluster.0))),
        }
    }

    /// What a person should do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Header(format::Error::Signature) => {
                "name the right file; if it is a plain disk image, say that it is raw"
            }
            Self::NoHeader { .. } | Self::Truncated { .. } => {
                "copy the file again from its source, whole"
            }
            Self::Converting => "finish the conversion with the tool that began it",
            Self::UnknownFlags(_) | Self::UnknownInUse(_) => {
                "use the program that wrote it; nothing is known of what this means"
            }
            Self::InUse => {
                "detach the disk that has it open, or start its disk server again, which recovers it; \
                 if it belongs to none, run `ploop check --repair`"
            }
            Self::TailLeak { .. } | Self::HalfTail { .. } => {
                "nothing is lost; `ploop check --repair` gives the space back"
            }
            Self::Holes { .. } => "nothing; they are only numbers",
            Self::Unused { .. } => {
                "nothing is lost; a top that was not closed in order gives them back when its disk is \
                 attached again, and `ploop export` leaves them behind"
            }
            Self::NotEmpty(_) => {
                "harmless here; a strict reader would take the image for an empty one"
            }
            Self::SmallDisk { .. } => "nothing; the rest of its last clusters is not used",
            Self::StaleExtension(_) | Self::LostExtension(_) => "nothing; it is ignored",
            Self::Extension(_) => "nothing for reading; it cannot be opened for writing here",
            Self::OtherCluster { .. } => "name the deltas of one chain, the lowest first",
            Self::LowerInUse => {
                "only the top of a chain may be written: detach whatever writes to this file, \
                 then check it alone with `ploop check --repair`"
            }
            Self::Header(_)
            | Self::InsideIndex { .. }
            | Self::Misaligned { .. }
            | Self::BeyondEnd { .. }
            | Self::CutOff { .. }
            | Self::Duplicate { .. }
            | Self::PastLast { .. }
            | Self::More(_) => {
                "do not write to it: keep a copy, and restore the file from its source"
            }
        }
    }
}

/// The first few clusters of a list.
fn list(clusters: &[Cluster]) -> String {
    let mut text: Vec<_> = clusters
        .iter()
        .take(8)
        .map(|cluster| cluster.0.to_string())
        .collect();
    if clusters.len() > text.len() {
        text.push(format!("and {} more", clusters.len() - text.len()));
    }
    text.join(", ")
}
