//! Which build of a program a file holds.
//!
//! A version number does not tell two builds apart, and a time of change does not tell that a file was
//! only copied. So a build is known by the file's length and a checksum over all of it: whoever runs
//! and whoever would start can say whether they mean the same.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The file of the program that runs; the kernel keeps it for us even after another took its name.
pub const OWN: &str = "/proc/self/exe";

/// The build that this file holds. Reads all of it.
///
/// # Errors
/// If it cannot be read.
pub fn build_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sum = crc32fast::Hasher::new();
    let mut length = 0;
    let mut piece = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(format!("{length:x}-{:08x}", sum.finalize()));
        }
        length += read;
        sum.update(&piece[..read]);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{OWN, build_of};

    #[test]
    fn a_copy_is_the_same_build_and_one_byte_more_is_not() {
        let root = tempfile::tempdir().unwrap();
        let copy = root.path().join("copy");
        std::fs::copy(OWN, &copy).unwrap();
        let own = build_of(Path::new(OWN)).unwrap();
        assert_eq!(build_of(&copy).unwrap(), own);
        let mut bytes = std::fs::read(&copy).unwrap();
        bytes.push(0);
        std::fs::write(&copy, &bytes).unwrap();
        assert_ne!(build_of(&copy).unwrap(), own);
        bytes.pop();
        bytes[100] ^= 1;
        std::fs::write(&copy, &bytes).unwrap();
        assert_ne!(build_of(&copy).unwrap(), own);
        assert!(build_of(&root.path().join("none")).is_err());
    }
}
