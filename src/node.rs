//! A device's node in /dev: its number, as sysfs says it, and its name, made where no devtmpfs makes it.

use std::fs;
use std::io;
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

/// Makes a node, unless somebody did.
///
/// # Errors
/// If the host refuses.
pub fn make(path: &Path, kind: FileType, number: Number) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o600);
    match mknodat(CWD, path, kind, mode, makedev(number.major, number.minor)) {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::Number;

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
