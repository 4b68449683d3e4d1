//! Whose device is it? The kernel keeps one word of its server's with each device.
//!
//! It shows every device to all who ask, in whatever container or mount namespace, and the same path can
//! mean one folder here and another there: two nodes on one kernel have the same run directory. So the word is
//! made of the run directory itself, its device and inode (on tmpfs that is as old as the node's last start), and of
//! the server's seat in it, whose own folder comes and goes.

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
    /// The server of this run directory with this name for its seat, and that seat's folder. One server at a time has a
    /// seat.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn of(run_dir: &Path, seat: &str, folder: &Path) -> io::Result<Self> {
        let there = fs::metadata(run_dir)?;
        let word = |bytes: &[u8]| u64::from(OURS) << 32 | u64::from(crc32fast::hash(bytes));
        let itself = [there.dev().to_le_bytes(), there.ino().to_le_bytes()];
        Ok(Self {
            tag: word(&[itself.as_flattened(), seat.as_bytes()].concat()),
            former: word(folder.as_os_str().as_bytes()),
        })
    }

    /// The word itself.
    #[must_use]
    pub fn tag(self) -> u64 {
        self.tag
    }

    /// Is a device with this word, whose number is in this server's account, still that one? Its server may have been of
    /// a version that wrote the former word. Of any other device the former word says nothing.
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
    use std::path::Path;

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
        let of = |run: &Path, seat: &str| Owner::of(run, seat, &run.join(seat)).unwrap();
        let one = of(&a, "1-1");
        assert_eq!(one, of(&a, "1-1"));
        for other in [of(&a, "1-2"), of(&b, "1-1")] {
            assert_ne!(one.tag(), other.tag());
        }
        assert!(Owner::is_ploopd(one.tag()) && one.made(one.tag()) && one.made(one.former));
        assert!(!Owner::is_ploopd(0) && !one.made(0));
        // Its path is nothing: a pod and its host have others for it.
        let moved = folder("elsewhere").join("a");
        fs::rename(&a, &moved).unwrap();
        assert_eq!(one.tag(), of(&moved, "1-1").tag());
        // Another directory of the same path, as another node's: its server is another one.
        let other = of(&folder("a"), "1-1");
        assert_ne!(one.tag(), other.tag());
        assert!(!one.made(other.tag()));
        assert!(Owner::of(&place.path().join("none"), "1-1", &a).is_err());
    }
}
