//! Every kind of file that can be a sealed delta, as one.

use std::fmt;

use super::Error;
use super::Seal;
use super::ploop;
use super::raw;
use crate::format::{Probe, probe};
use crate::io::{File, Piece};
use crate::units::{Cluster, ClusterSize, Place};

/// The format of a delta's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A ploop image.
    Ploop,
    /// A plain file; only the lowest of a chain.
    Raw,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ploop => "ploop",
            Self::Raw => "raw",
        })
    }
}

/// A sealed delta, open for reading.
#[derive(Debug)]
pub enum Image {
    /// A ploop image.
    Ploop(ploop::Opened),
    /// A plain file.
    Raw(raw::Opened),
}

impl Image {
    /// Opens a sealed delta of a chain and reads where everything is.
    ///
    /// Without a format, the file's first bytes decide; a plain file is never guessed, because its
    /// bytes are the guest's to choose. With `expected`, only the very file that was sealed is opened.
    ///
    /// # Errors
    /// What is wrong with the file, with its place in the chain, or what the host says.
    pub async fn open_sealed<F: File>(
        file: &F,
        format: Option<Format>,
        expected: Option<&Seal>,
        chain: ClusterSize,
    ) -> Result<Self, Error> {
        let format = match format {
            Some(format) => format,
            None => guess(file).await?,
        };
        if format == Format::Raw {
            return raw::open(file, expected, chain).map(Self::Raw);
        }
        let opened = ploop::open_sealed(file, expected).await?;
        let found = opened.header.cluster();
        if found != chain {
            return Err(Error::ClusterSize { found, chain });
        }
        Ok(Self::Ploop(opened))
    }

    /// The disk's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Ploop(ploop) => ploop.header.size(),
            Self::Raw(raw) => raw.size,
        }
    }

    /// Where each cluster is that the file holds, ascending by cluster.
    #[must_use]
    pub fn entries(&self) -> &[(Cluster, Place)] {
        match self {
            Self::Ploop(ploop) => &ploop.entries,
            Self::Raw(raw) => &raw.entries,
        }
    }

    /// The cluster size.
    #[must_use]
    pub fn cluster(&self) -> ClusterSize {
        match self {
            Self::Ploop(ploop) => ploop.header.cluster(),
            Self::Raw(raw) => raw.cluster,
        }
    }

    /// What kind of file it is.
    #[must_use]
    pub fn format(&self) -> Format {
        match self {
            Self::Ploop(_) => Format::Ploop,
            Self::Raw(_) => Format::Raw,
        }
    }
}

async fn guess<F: File>(file: &F) -> Result<Format, Error> {
    let page = Piece::zeroed(super::scan::PAGE);
    file.read_at(0, page.clone())
        .await
        .map_err(Error::io("read the file's first bytes"))?;
    match page.with_bytes(probe) {
        Probe::Ploop => Ok(Format::Ploop),
        Probe::Qcow2 => Err(Error::Foreign("a QCOW2 image")),
        Probe::Descriptor => Err(Error::Foreign("a list of deltas, not a delta")),
        Probe::Unknown => Err(Error::UnknownFormat),
    }
}
