//! A device's node in /dev: its number, as sysfs says it, and its name, made where no devtmpfs makes it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;

/// A device's major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

impl Number {
    /// What a file `dev` of sysfs says.
    ///
    /// # Errors
    /// If it cannot be read, or says something else.
    pub fn read(file: &Path) -> io::Result<Self> {
        Self::parse(&fs::read_to_string(file)?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no major:minor"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

/// Makes a node, unless it is there. One with another number is an earlier device's, where nothing takes
/// nodes away: it would lead to somebody else's disk, and is replaced.
///
/// # Errors
/// If the host refuses, or something that is no node has the name.
pub fn make(path: &Path, kind: FileType, number: Number) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o600);
    let device = makedev(number.major, number.minor);
    let mknod = || mknodat(CWD, path, kind, mode, device);
    match mknod() {
        Err(Errno::EXIST) => {}
        made => return Ok(made?),
    }
    let there = fs::symlink_metadata(path)?;
    if FileType::from_raw_mode(there.mode()) != kind {
        return Err(Errno::EXIST.into());
    }
    if there.rdev() == device {
        return Ok(());
    }
    fs::remove_file(path)?;
    Ok(mknod()?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::{FileType, makedev};

    use super::{Number, make};

    #[test]
    fn a_node_that_an_earlier_device_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ublkb0");
        // Of a major number that no driver has: nobody opens them.
        let number = |minor| Number { major: 510, minor };
        let leads_to = || fs::symlink_metadata(&path).unwrap().rdev();
        for minor in [1, 1, 0] {
            make(&path, FileType::BlockDevice, number(minor)).unwrap();
            assert_eq!(leads_to(), makedev(510, minor));
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, "somebody's").unwrap();
        make(&path, FileType::BlockDevice, number(0)).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    }

    #[test]
    fn a_number_is_read_and_nothing_else() {
        let number = Number {
            major: 259,
            minor: 0,
        };
        assert_eq!(Number::parse("259:0\n"), Some(number));
        for bad in ["", "259", "259:", ":0", "a:b", "1:2:3", "-1:0"] {
            assert_eq!(Number::parse(bad), None, "{bad}");
        }
    }
}
