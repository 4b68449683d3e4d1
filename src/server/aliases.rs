//! A path for each disk that never means another one.
//!
//! A device's number is given to somebody else as soon as it is free, and between the answer to an
//! attach and the mount of what was answered a server may die. So callers are told a symbolic link with
//! the disk's own name, `dev/<id>` in the server's seat. It is there exactly as long as the device is
//! this disk's: made after the device, gone before it. Who mounts by it too late is told that it is
//! not there, instead of getting a stranger's disk.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use super::error::{Error, host};
use crate::causes::in_full;

/// The folder of these links.
#[derive(Debug)]
pub(super) struct Aliases {
    folder: PathBuf,
}

impl Aliases {
    /// Opens the folder, and takes away what an earlier server left there: its devices are not these
    /// disks' any more, or will be given back soon. Only a ublk device is still its disk's after the
    /// death of its server; those links stay until [`Aliases::sweep`].
    pub(super) fn open(seat: &Path) -> Result<Self, Error> {
        let folder = seat.join("dev");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(host("make", &folder))?;
        let aliases = Self { folder };
        aliases.remove_if(|_, device| {
            !device
                .as_os_str()
                .as_encoded_bytes()
                .starts_with(b"/dev/ublkb")
        })?;
        Ok(aliases)
    }

    /// Takes away the links of disks that are not served.
    pub(super) fn sweep(&self, served: impl Fn(&str) -> bool) -> Result<(), Error> {
        self.remove_if(|id, _| !served(id))
    }

    /// The path that means this disk's device, while there is one.
    pub(super) fn path(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// From now on the path means this device.
    pub(super) fn point(&self, id: &str, device: &Path) -> Result<(), Error> {
        let path = self.path(id);
        // As after a take-over. Where no link can be made any more, this one still leads there.
        if fs::read_link(&path).is_ok_and(|there| there == device) {
            return Ok(());
        }
        // No id has a point in it: nobody's link is called like this.
        let fresh = self.folder.join(format!("{id}.new"));
        let made = fs::remove_file(&fresh)
            .or_else(absent)
            .and_then(|()| symlink(device, &fresh))
            .and_then(|()| fs::rename(&fresh, &path));
        made.map_err(host("make", &path))
    }

    /// The same for a device that goes on as it was: without its link it is still right, only by its number.
    pub(super) fn keep(&self, id: &str, device: &Path) {
        if let Err(error) = self.point(id, device) {
            tracing::warn!(disk = %id, error = %in_full(&error), "a disk stays without its own path");
        }
    }

    /// From now on the path means nothing.
    pub(super) fn take(&self, id: &str) -> Result<(), Error> {
        let path = self.path(id);
        let gone = fs::remove_file(&path).or_else(absent);
        gone.map_err(host("remove", &path))
    }

    fn remove_if(&self, which: impl Fn(&str, &Path) -> bool) -> Result<(), Error> {
        let failed = || host("clear", &self.folder);
        for entry in fs::read_dir(&self.folder).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let device = fs::read_link(entry.path()).unwrap_or_default();
            if which(&entry.file_name().to_string_lossy(), &device) {
                fs::remove_file(entry.path())
                    .or_else(absent)
                    .map_err(failed())?;
            }
        }
        Ok(())
    }
}

fn absent(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::Aliases;

    #[test]
    fn a_link_is_there_as_long_as_the_device_is_the_disks() {
        let seat = tempfile::tempdir().unwrap();
        let aliases = Aliases::open(seat.path()).unwrap();
        let device = |id: &str| fs::read_link(aliases.path(id)).ok();
        for name in ["/dev/loop1", "/dev/loop2"] {
            aliases.point("s1", Path::new(name)).unwrap();
            assert_eq!(device("s1").as_deref(), Some(Path::new(name)));
        }
        aliases.take("s1").unwrap();
        aliases.take("s1").unwrap();
        assert_eq!(device("s1"), None);
    }

    /// Where no link can be made: a run directory without inodes, and a server that has taken every device over.
    #[test]
    fn a_link_that_is_right_is_not_made_again() {
        let seat = tempfile::tempdir().unwrap();
        let aliases = Aliases::open(seat.path()).unwrap();
        let (right, other) = (Path::new("/dev/ublkb1"), Path::new("/dev/ublkb2"));
        aliases.point("s1", right).unwrap();
        // Nothing can replace a folder that is not empty.
        fs::create_dir_all(aliases.path("s1.new").join("full")).unwrap();
        aliases.point("s1", right).unwrap();
        aliases.point("s1", other).unwrap_err();
        aliases.keep("s1", other);
        assert_eq!(fs::read_link(aliases.path("s1")).unwrap(), right);
    }

    #[test]
    fn the_next_server_keeps_only_what_outlives_a_server_and_is_served() {
        let seat = tempfile::tempdir().unwrap();
        let aliases = Aliases::open(seat.path()).unwrap();
        for (id, device) in [
            ("a", "/dev/loop1"),
            ("b", "/dev/ublkb1"),
            ("c", "/dev/ublkb2"),
        ] {
            aliases.point(id, Path::new(device)).unwrap();
        }
        fs::write(aliases.path("x.new"), "").unwrap();
        let names = |aliases: &Aliases| {
            let entries = fs::read_dir(&aliases.folder).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let aliases = Aliases::open(seat.path()).unwrap();
        assert_eq!(names(&aliases), ["b", "c"]);
        aliases.sweep(|id| id == "c").unwrap();
        assert_eq!(names(&aliases), ["c"]);
    }
}
