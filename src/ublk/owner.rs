//! Whose device is it? The kernel keeps one word of its server's with each device.
//!
//! It shows every device to all who ask, in whatever container or mount namespace, and the same path can
//! mean one folder here and another there: two nodes on one kernel have the same run directory. So the word is
//! made of the folder itself, its device and inode; on tmpfs that is as old as the node's last start.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The upper half of every word of ours: "ploo".
const OURS: u32 = 0x706c_6f6f;

/// Who made a device, as a word that the kernel keeps with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    tag: u64,
    /// The word as earlier versions made it: of the folder's path.
    former: u64,
}

impl Owner {
    /// The server with this run folder. One server at a time holds a folder.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let there = fs::metadata(folder)?;
        let word = |bytes: &[u8]| u64::from(OURS) << 32 | u64::from(crc32fast::hash(bytes));
        let itself = [there.dev().to_le_bytes(), there.ino().to_le_bytes()];
        Ok(Self {
            tag: word(itself.as_flattened()),
            former: word(folder.as_os_str().as_bytes()),
        })
    }

    /// The word itself.
    #[must_use]
    pub fn tag(self) -> u64 {
        self.tag
    }

    /// Is a device with this word, of which we know that it was this server's, still that one? Its server may have been of
    /// a version that wrote the former word.
    #[must_use]
    pub fn made(self, tag: u64) -> bool {
        tag == self.tag || tag == self.former
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
    use std::fs;

    use super::Owner;

    #[test]
    fn a_word_says_whose_and_which() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = place.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (a, b) = (folder("a"), folder("b"));
        let one = Owner::of(&a).unwrap();
        assert_eq!(one, Owner::of(&a).unwrap());
        assert_ne!(one.tag(), Owner::of(&b).unwrap().tag());
        assert!(Owner::is_ploopd(one.tag()) && one.made(one.tag()) && one.made(one.former));
        assert!(!Owner::is_ploopd(0) && !one.made(0));
        // Another folder of the same path, as another node's: its server is another one.
        fs::rename(&a, folder("elsewhere").join("a")).unwrap();
        let other = Owner::of(&folder("a")).unwrap();
        assert_ne!(one.tag(), other.tag());
        assert!(!one.made(other.tag()));
        assert!(Owner::of(&place.path().join("none")).is_err());
    }
}
