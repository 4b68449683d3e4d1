//! Where a disk server sits: its folder in the run directory, and what lies there.
//!
//! ```text
//! <run>/pending/                 map entries not yet in their images: of all servers, because whoever
//!                                opens a delta next must find what the last one answered for
//! <run>/ploopd-<g>-<n>.log       what a server that we started says
//! <run>/servers/<g>-<n>/         the seat of server n of generation g
//!     ploopd.lock                held by the server that sits here; its process number
//!     ploopd.sock                its door
//!     registry.json              what it serves; gone when it ended with nothing to serve
//! ```
//!
//! A generation is what one upgrade started: the newest takes new disks, older ones drain. A server
//! that dies is replaced in its own seat, by whatever program is installed then, because only the seat
//! knows which devices were its. The run directory itself is a seat too, `0-0`: a ploopd that is told
//! no name sits there.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::lock::{self, Answer, Failed};

const SERVERS: &str = "servers";
/// What may lie in a seat that nobody sits in; never the seat's mounts.
const FILES: [&str; 4] = [
    "ploopd.sock",
    "registry.json",
    "registry.json.new",
    "ploopd.lock",
];
const FOLDERS: [&str; 2] = ["fuse", "dev"];

/// The name of a server: its generation, and its number in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Which upgrade started it; 0 for the server that sits in the run directory itself.
    pub generation: u32,
    /// From 1 on.
    pub number: u32,
}

impl Name {
    /// Of the server that sits in the run directory itself.
    pub const PLAIN: Self = Self {
        generation: 0,
        number: 0,
    };
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.generation, self.number)
    }
}

/// A word that is no server's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no server's name: write generation and number from 1 on, such as 1-2")]
pub struct BadName(String);

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName(text.to_owned());
        let (generation, number) = text.split_once('-').ok_or_else(bad)?;
        let name = Self {
            generation: generation.parse().map_err(|_| bad())?,
            number: number.parse().map_err(|_| bad())?,
        };
        // Also what would be written otherwise: a folder has one name.
        let sound = name.generation > 0 && name.number > 0 && name.to_string() == text;
        sound.then_some(name).ok_or_else(bad)
    }
}

/// A server's place in one run directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    run: PathBuf,
    name: Name,
}

impl Seat {
    /// The seat of this name.
    #[must_use]
    pub fn new(run: &Path, name: Name) -> Self {
        let run = run.to_owned();
        Self { run, name }
    }

    /// Every seat that somebody took, living or dead, the oldest first.
    ///
    /// # Errors
    /// If the run directory cannot be read; one that is not there holds none.
    pub fn all(run: &Path) -> io::Result<Vec<Self>> {
        let mut names = Vec::new();
        match fs::read_dir(run.join(SERVERS)) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry?.file_name();
                    names.extend(name.to_str().and_then(|name| name.parse::<Name>().ok()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let plain = Self::new(run, Name::PLAIN);
        if plain.socket().exists() || plain.registry().exists() {
            names.push(Name::PLAIN);
        }
        names.sort_unstable();
        Ok(names.into_iter().map(|name| Self::new(run, name)).collect())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> Name {
        self.name
    }

    /// The run directory that it is in.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.run.clone()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        match self.name {
            Name::PLAIN => self.run.clone(),
            name => self.run.join(SERVERS).join(name.to_string()),
        }
    }

    /// Holds a path for each disk that leads to its device.
    #[must_use]
    pub fn aliases(&self) -> PathBuf {
        self.folder().join("dev")
    }

    /// Where the server listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder().join("ploopd.sock")
    }

    /// Held by the server that sits here.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.folder().join("ploopd.lock")
    }

    /// What the server serves, or served when it died.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.folder().join("registry.json")
    }

    /// Map entries that are not in their images yet; of all servers of the run directory.
    #[must_use]
    pub fn pending(&self) -> PathBuf {
        self.run.join("pending")
    }

    /// Of one delta, by its path as it was attached.
    #[must_use]
    pub fn pending_of(&self, top: &Path) -> PathBuf {
        self.pending().join(pending_name(top))
    }

    /// What a server that is started by `ploop-snapshotter` says. Not in the seat: it outlives it.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        match self.name {
            Name::PLAIN => self.run.join("ploopd.log"),
            name => self.run.join(format!("ploopd-{name}.log")),
        }
    }

    /// Clears a seat that nobody sits in. Answers whether nobody does.
    ///
    /// Whatever is not ours stays, and the folder with it.
    ///
    /// # Errors
    /// If the host refuses.
    pub fn clear(&self) -> io::Result<bool> {
        let _lock = match lock::keep_out(&self.lock()) {
            Ok(Answer::Ours(lock)) => Some(lock),
            Ok(Answer::Theirs(_)) => return Ok(false),
            Err(Failed { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(Failed { source, .. }) => return Err(source),
        };
        let folder = self.folder();
        for name in FILES {
            gone(fs::remove_file(folder.join(name)))?;
        }
        for name in FOLDERS {
            gone(fs::remove_dir(folder.join(name)))?;
        }
        if self.name != Name::PLAIN {
            gone(fs::remove_dir(folder))?;
        }
        Ok(true)
    }
}

/// A pending file is found again by the delta it belongs to, whatever the disk is called next time;
/// whether it really belongs is checked by what it says inside.
fn pending_name(top: &Path) -> String {
    let path = top.as_os_str().as_encoded_bytes();
    let name = top.file_name().unwrap_or_default().to_string_lossy();
    let short: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        .take(100)
        .collect();
    format!("{:08x}-{short}", crc32fast::hash(path))
}

fn gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::ResourceBusy
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use rustix::fs::{FlockOperation, flock};

    use super::{Name, Seat, pending_name};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_written_in_one_way() {
        for sound in ["1-1", "12-4"] {
            assert_eq!(name(sound).to_string(), sound);
        }
        for bad in [
            "", "1", "1-", "-1", "0-0", "0-1", "1-0", "01-1", "+1-1", "1-1-1", "a-b",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert!(name("2-1") > name("1-9"));
    }

    #[test]
    fn a_pending_file_has_a_name_of_its_own_in_one_folder() {
        let name = |path: &str| pending_name(Path::new(path));
        assert_eq!(name("/a/7.hds"), name("/a/7.hds"));
        assert_ne!(name("/a/7.hds"), name("/b/7.hds"));
        assert!(name("/a/7.hds").ends_with("-7.hds"));
        for odd in ["/", "/a/ö b", &format!("/{}", "x".repeat(255))] {
            let name = name(odd);
            assert!(name.len() < 120 && !name.contains('/'), "{name}");
        }
    }

    #[test]
    fn seats_are_found_with_the_oldest_first() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(Seat::all(run.path()).unwrap(), []);
        for folder in ["10-1", "2-1", "2-2", "stranger"] {
            fs::create_dir_all(run.path().join("servers").join(folder)).unwrap();
        }
        let found = || -> Vec<String> {
            let seats = Seat::all(run.path()).unwrap();
            seats.iter().map(|seat| seat.name().to_string()).collect()
        };
        assert_eq!(found(), ["2-1", "2-2", "10-1"]);
        fs::write(run.path().join("registry.json"), "").unwrap();
        assert_eq!(found(), ["0-0", "2-1", "2-2", "10-1"]);
    }

    #[test]
    fn a_seat_is_cleared_only_when_nobody_sits_there() {
        let run = tempfile::tempdir().unwrap();
        let seat = Seat::new(run.path(), name("1-1"));
        fs::create_dir_all(seat.folder().join("fuse")).unwrap();
        fs::write(seat.registry(), "{}").unwrap();
        let lock = File::create(seat.lock()).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert!(!seat.clear().unwrap());
        assert!(seat.registry().exists());
        drop(lock);
        assert!(seat.clear().unwrap());
        assert!(!seat.folder().exists());
        assert!(seat.clear().unwrap(), "and may be repeated");

        fs::create_dir_all(seat.folder()).unwrap();
        fs::write(seat.folder().join("letters"), "kept").unwrap();
        assert!(seat.clear().unwrap());
        assert!(seat.folder().join("letters").exists());
    }
}
