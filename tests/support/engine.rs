//! Disks without a device: the engine's own door, called from a plain test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use ploop_snapshotter::chain::Delta;
use ploop_snapshotter::disk::{DiskHandle, Errno, Error, Options, Request, Shards, Spec};
use ploop_snapshotter::image::{self, Format, Seal};
use ploop_snapshotter::io::{Direct, Piece, now};
use ploop_snapshotter::units::{ByteRange, ClusterSize};

/// Longer than any request of a healthy disk takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Shards, a folder for images and one on tmpfs for pending files.
pub(crate) struct Engine {
    pub(crate) folder: tempfile::TempDir,
    run: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    shards: Shards,
}

impl Engine {
    pub(crate) fn new() -> Self {
        Self::in_folder(
            Options {
                shards: 1,
                ..Options::default()
            },
            &std::env::temp_dir(),
        )
    }

    /// Images lie in a folder of their own under `place`.
    pub(crate) fn in_folder(options: Options, place: &Path) -> Self {
        Self {
            folder: tempfile::tempdir_in(place).unwrap(),
            run: tempfile::tempdir_in("/dev/shm").unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            shards: Shards::start(options).unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn pending(&self, name: &str) -> PathBuf {
        self.run.path().join(name)
    }

    /// Makes an empty delta.
    pub(crate) fn create(&self, name: &str, size: u64, cluster: ClusterSize) -> Delta {
        let path = self.path(name);
        fs::File::create_new(&path).unwrap();
        let file = Direct::open_write(&path).unwrap();
        now(image::ploop::create(&file, size, cluster)).unwrap();
        ploop(&path, None)
    }

    pub(crate) fn try_open(
        &self,
        deltas: &[Delta],
        read_only: bool,
    ) -> Result<TestDisk<'_>, Error> {
        let id = deltas
            .last()
            .unwrap()
            .path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let pending = self.pending(&id);
        let spec = Spec {
            id,
            deltas: deltas.to_vec(),
            read_only,
            pending,
        };
        let handle = self.runtime.block_on(self.shards.open(spec))?;
        Ok(TestDisk {
            handle,
            engine: self,
        })
    }

    pub(crate) fn open(&self, deltas: &[Delta]) -> TestDisk<'_> {
        self.try_open(deltas, false).unwrap()
    }

    pub(crate) fn open_view(&self, deltas: &[Delta]) -> TestDisk<'_> {
        self.try_open(deltas, true).unwrap()
    }
}

pub(crate) fn ploop(path: &Path, seal: Option<Seal>) -> Delta {
    Delta {
        path: path.to_owned(),
        format: Some(Format::Ploop),
        seal,
    }
}

pub(crate) fn raw(path: &Path) -> Delta {
    Delta {
        path: path.to_owned(),
        format: Some(Format::Raw),
        seal: None,
    }
}

/// A disk that is asked one thing at a time.
pub(crate) struct TestDisk<'a> {
    pub(crate) handle: DiskHandle,
    engine: &'a Engine,
}

impl TestDisk<'_> {
    fn ask(
        &self,
        request: impl FnOnce(ploop_snapshotter::disk::Done) -> Request,
    ) -> Result<Piece, Errno> {
        let (answer, answered) = mpsc::channel();
        self.handle.submit(request(Box::new(move |result| {
            let _ = answer.send(result);
        })));
        answered
            .recv_timeout(LIMIT)
            .expect("every request is answered")
    }

    pub(crate) fn try_read(&self, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
        // What the buffer held before must never show.
        let piece = Piece::from_bytes(&vec![0xA5; len]);
        Ok(self.ask(|done| Request::read(at, piece, done))?.to_vec())
    }

    pub(crate) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        self.try_read(at, len).unwrap()
    }

    pub(crate) fn read_all(&self) -> Vec<u8> {
        self.read(0, usize::try_from(self.handle.size()).unwrap())
    }

    pub(crate) fn try_write(&self, at: u64, bytes: &[u8], fua: bool) -> Result<(), Errno> {
        self.ask(|done| Request::write(at, Piece::from_bytes(bytes), fua, done))
            .map(drop)
    }

    pub(crate) fn flush(&self) {
        self.ask(Request::flush).unwrap();
    }

    pub(crate) fn discard(&self, at: u64, len: u64) {
        self.ask(|done| Request::discard(ByteRange::new(at, len), done))
            .unwrap();
    }

    pub(crate) fn write_zeroes(&self, at: u64, len: u64) {
        self.ask(|done| Request::write_zeroes(ByteRange::new(at, len), done))
            .unwrap();
    }

    pub(crate) fn grow(&self, size: u64) -> Result<(), Error> {
        self.engine.runtime.block_on(self.handle.grow(size))
    }

    pub(crate) fn close(&self) {
        assert_eq!(self.try_close().unwrap(), None);
    }

    pub(crate) fn try_close(&self) -> Result<Option<Seal>, Error> {
        self.engine.runtime.block_on(self.handle.close(false))
    }

    pub(crate) fn seal(&self) -> Seal {
        self.engine
            .runtime
            .block_on(self.handle.close(true))
            .unwrap()
            .expect("a seal was asked for")
    }
}
