//! What a server that died left in the kernel: loop devices without a server, a FUSE mount without one.
//!
//! A container that still has such a device mounted has lost its disk: every access is an I/O error,
//! and the kernel frees the device when the container is gone. Nothing can bring it back here; what
//! was written is in the delta and its pending file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::error::{Error, kernel};
use super::loopback::{abandon, bound_below};

/// What was found, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Devices that are free again.
    pub freed: Vec<PathBuf>,
    /// Devices that somebody still holds; they answer errors and go when they are closed.
    pub held: Vec<PathBuf>,
    /// FUSE mounts that were taken away.
    pub mounts: usize,
}

impl Leftovers {
    /// Was there nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Takes away whatever hangs on `folder`.
pub(super) fn clean(folder: &Path) -> Result<Leftovers, Error> {
    let mut found = Leftovers::default();
    // Looked up first: once the mount is gone, sysfs no longer says where a backing file was.
    let devices = bound_below(folder);
    // MNT_FORCE ends the connection: whoever waits for the dead server gets an error instead, and a
    // thread of that server that hangs on its own mount can end. It then refuses to unmount what is
    // open, which is why the lazy unmount follows.
    let mounts = mounts_at(folder)?;
    if mounts > 0 {
        let _ = unmount(folder, UnmountFlags::FORCE);
    }
    for device in devices {
        let held = abandon(&device)?;
        let list = if held {
            &mut found.held
        } else {
            &mut found.freed
        };
        list.push(device.path);
    }
    while mounts_at(folder)? > 0 {
        match unmount(folder, UnmountFlags::DETACH) {
            // Or gone meanwhile.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(kernel("unmount", folder)(error)),
        }
    }
    found.mounts = mounts;
    Ok(found)
}

/// How many mounts lie on exactly this folder.
fn mounts_at(folder: &Path) -> Result<usize, Error> {
    let path = Path::new("/proc/self/mountinfo");
    let table = fs::read(path).map_err(kernel::<io::Error>("read", path))?;
    let wanted = folder.as_os_str().as_encoded_bytes();
    Ok(table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .filter(|point| unescape(point) == wanted)
        .count())
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        match code {
            Some(byte) => {
                plain.push(byte);
                rest = &rest[4..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn mountinfo_escapes_are_read_back() {
        for (written, meant) in [
            ("/run/a", "/run/a"),
            ("/run/a\\040b", "/run/a b"),
            ("/a\\134040", "/a\\040"),
            ("/a\\", "/a\\"),
            ("/a\\04", "/a\\04"),
        ] {
            assert_eq!(unescape(written.as_bytes()), meant.as_bytes(), "{written}");
        }
    }
}
