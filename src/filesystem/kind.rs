//! Which file systems there are, and which of them a disk has.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

use super::Error;
use crate::ext4;
use crate::xfs;

/// Enough to tell the kinds apart.
const FIRST: usize = 2048;

/// A kind of file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// ext4: shrinks and grows, counts its users.
    #[default]
    Ext4,
    /// XFS: grows.
    Xfs,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Ext4, Self::Xfs];

    /// What `mount -t` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// The kind of what begins at the start of a file or device.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Unknown`] if it is none of these.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let cannot = |source| Error::File {
            act: "read the beginning of",
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(cannot)?;
        Self::read_at(&file, 0, path)
    }

    /// The same of what begins at byte `start`; `path` is for the message.
    ///
    /// # Errors
    /// As of [`Kind::read`].
    pub fn read_at(file: &File, start: u64, path: &Path) -> Result<Self, Error> {
        let mut first = [0; FIRST];
        let unknown = || Error::Unknown {
            path: path.to_owned(),
        };
        match file.read_exact_at(&mut first, start) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(unknown()),
            Err(source) => {
                return Err(Error::File {
                    act: "read the beginning of",
                    path: path.to_owned(),
                    source,
                });
            }
        }
        // Where one has its magic number the other has nothing.
        if ext4::is_ext4(&first) {
            Ok(Self::Ext4)
        } else if xfs::is_xfs(&first) {
            Ok(Self::Xfs)
        } else {
            Err(unknown())
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            format!("\"{text}\" is no file system here: there are \"ext4\" and \"xfs\"")
        })
    }
}
