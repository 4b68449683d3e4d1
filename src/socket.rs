//! A unix socket that belongs to one process: made, guarded, and taken away again.
//!
//! The rule: a socket file is removed only if nobody answers behind it, and at the end only if it is
//! still ours. Two processes that start at the same moment are kept apart by whoever owns the folder
//! (a lock on the root, a lock on the run directory), not by this file.

use std::fs::{DirBuilder, Permissions, symlink_metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// The longest path that a socket's address can hold (`sun_path` without its final zero).
pub const LONGEST_PATH: usize = 107;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody lives there.
    #[error(
        "another process answers at {}: stop it, or give this one another socket",
        path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else stands in the way.
    #[error("{} is not a socket: move it away, or choose another path", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// The kernel's limit.
    #[error("socket path {} is longer than {LONGEST_PATH} bytes: choose a shorter one", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The host refused.
    #[error("cannot {act} {}", path.display())]
    Host {
        /// What was tried.
        act: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// A bound socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// Device and inode of the file we made.
    file: (u64, u64),
}

impl Socket {
    /// Makes the folder (0700) and the socket (0600), in place of one that nobody answers at.
    ///
    /// The listener does not block, as async runtimes want it.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::InUse`] if a living process answers.
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), Error> {
        let host = |act: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Host { act, path, source }
        };
        if path.as_os_str().len() > LONGEST_PATH {
            let path = path.to_owned();
            return Err(Error::TooLong { path });
        }
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(host("create folder", folder))?;
        }
        remove_if_dead(path)?;
        let listener = UnixListener::bind(path).map_err(host("listen at", path))?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(host("set the mode of", path))?;
        listener
            .set_nonblocking(true)
            .map_err(host("listen at", path))?;
        let meta = symlink_metadata(path).map_err(host("look at", path))?;
        let socket = Self {
            path: path.to_owned(),
            file: (meta.dev(), meta.ino()),
        };
        Ok((socket, listener))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let still_ours =
            symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if still_ours {
            // Nothing is lost if it stays: the next one finds that nobody answers.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that an earlier process left behind.
fn remove_if_dead(path: &Path) -> Result<(), Error> {
    let host = |act: &'static str| {
        let path = path.to_owned();
        move |source| Error::Host { act, path, source }
    };
    let meta = match symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(host("look at")(error)),
    };
    if !meta.file_type().is_socket() {
        let path = path.to_owned();
        return Err(Error::NotASocket { path });
    }
    match knock(path) {
        // A full backlog (EAGAIN) is a living process too: only a refusal says that nobody is there.
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(host("remove")),
        Err(Errno::NOENT) => Ok(()),
        Err(error @ (Errno::ACCESS | Errno::PERM)) => Err(host("connect to")(error.into())),
        _ => {
            let path = path.to_owned();
            Err(Error::InUse { path })
        }
    }
}

/// Connects without waiting: a process that hangs must not make us hang.
fn knock(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::{Error, Socket};

    #[test]
    fn a_socket_is_private_and_goes_with_its_owner() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run/x.sock");
        let (socket, _listener) = Socket::bind(&path).unwrap();
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file behind");
        let (socket, _listener) = Socket::bind(&path).unwrap();
        let error = Socket::bind(&path).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        assert!(error.to_string().contains("another process answers at"));
        drop(socket);
    }

    /// A process whose backlog is full answers nobody, but it lives.
    #[test]
    fn a_busy_socket_is_not_a_dead_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.sock");
        let (_socket, _listener) = Socket::bind(&path).unwrap();
        let mut waiting = Vec::new();
        let refused = loop {
            match super::knock(&path) {
                Ok(one) => waiting.push(one),
                Err(error) => break error,
            }
        };
        assert_eq!(refused, rustix::io::Errno::AGAIN);
        assert!(matches!(Socket::bind(&path), Err(Error::InUse { .. })));
        assert!(path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.sock");
        std::fs::write(&path, "letters").unwrap();
        let error = Socket::bind(&path).unwrap_err();
        assert!(matches!(error, Error::NotASocket { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "letters");
        let long = root.path().join("x".repeat(200));
        assert!(matches!(Socket::bind(&long), Err(Error::TooLong { .. })));
    }

    /// A new process took the path over while the old one was still going down.
    #[test]
    fn a_successors_socket_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.sock");
        let (socket, _listener) = Socket::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }
}
