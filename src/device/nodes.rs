//! Where the kernel shows a ublk device, by its number.

use std::io;
use std::path::PathBuf;

use rustix::fs::FileType;

use super::error::{Error, kernel};
use super::shape::Device;
use crate::node::{self, Number};

pub(super) fn block_path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/ublkb{number}"))
}

pub(super) fn character_path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/ublkc{number}"))
}

pub(super) fn sysfs(number: u32) -> PathBuf {
    PathBuf::from(format!("/sys/block/ublkb{number}"))
}

/// Bytes that the kernel shows of a device.
pub(super) fn announced(number: u32) -> Result<u64, Error> {
    let file = sysfs(number).join("size");
    let text = std::fs::read_to_string(&file).map_err(kernel("read", &file))?;
    let sectors: u64 = text.trim().parse().map_err(|error| {
        kernel("understand", &file)(io::Error::new(io::ErrorKind::InvalidData, error))
    })?;
    Ok(sectors.saturating_mul(512))
}

/// A started device's node and numbers; makes the node where no devtmpfs does. The kernel gives a minor out again, to
/// another number's device: there an old node would lead to a stranger's disk.
pub(super) fn device(number: u32) -> Result<Device, Error> {
    let path = block_path(number);
    let file = sysfs(number).join("dev");
    let numbers = Number::read(&file).map_err(kernel("read", &file))?;
    node::make(&path, FileType::BlockDevice, numbers).map_err(kernel("make", &path))?;
    Ok(Device {
        path,
        major: numbers.major,
        minor: numbers.minor,
        number: Some(number),
    })
}
