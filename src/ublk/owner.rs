//! Whose device is it? The kernel keeps one word of its server's with each device.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The upper half of every word of ours: "ploo".
const OURS: u32 = 0x706c_6f6f;

/// Who made a device, as a word that the kernel keeps with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u64);

impl Owner {
    /// The server with this run folder. One server at a time holds a folder.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let folder = crc32fast::hash(folder.as_os_str().as_bytes());
        Self(u64::from(OURS) << 32 | u64::from(folder))
    }

    /// The word itself.
    #[must_use]
    pub fn tag(self) -> u64 {
        self.0
    }

    /// Was a device with this word made by a disk server of this project?
    #[must_use]
    pub fn is_ploopd(tag: u64) -> bool {
        tag >> 32 == u64::from(OURS)
    }
}

/// The numbers of all ublk devices of this machine, whoever made them.
#[must_use]
pub fn list() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/sys/class/ublk-char") else {
        return Vec::new();
    };
    let mut numbers: Vec<u32> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix("ublkc")?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Owner;

    #[test]
    fn a_word_says_whose_and_which() {
        let one = Owner::of(Path::new("/run/a"));
        assert_eq!(one, Owner::of(Path::new("/run/a")));
        assert_ne!(one, Owner::of(Path::new("/run/b")));
        assert!(Owner::is_ploopd(one.tag()));
        assert!(!Owner::is_ploopd(0));
    }
}
