//! A block device read and written past the page cache.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use ploop_snapshotter::io::Piece;
use rustix::fs::OFlags;

/// Opened past the page cache.
pub(crate) fn open(device: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(device)
        .unwrap()
}

pub(crate) fn write(file: &File, at: u64, bytes: &[u8]) {
    Piece::from_bytes(bytes).with_bytes(|aligned| file.write_all_at(aligned, at).unwrap());
}

pub(crate) fn read(file: &File, at: u64, len: usize) -> Vec<u8> {
    let room = Piece::from_bytes(&vec![0xA5; len]);
    room.with_bytes_mut(|aligned| file.read_exact_at(aligned, at).unwrap());
    room.to_vec()
}
