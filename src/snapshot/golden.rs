//! Golden file systems: what a chain without a parent stands on.
//!
//! Made once for each size and layout, under another name first. One that a snapshot stands on is
//! never made again: a new one would have the same size and other content, and everything above it
//! would be garbage.

use std::fs;
use std::io;
use std::path::Path;

use super::paths::{Paths, golden_name};
use super::root::sync_dir;
use super::{Error, NameOptions};
use crate::filesystem::{self, Kind, Layout, Superblock, Tools};
use crate::store::{Origin, Record};

/// The golden file for a snapshotter's options; makes it if it is not there.
pub(super) async fn ensure(
    paths: &Paths,
    options: &NameOptions,
    records: &[Record],
) -> Result<Origin, Error> {
    let layout =
        Layout::new(options.size, &options.file_system).map_err(Error::golden(&options.name))?;
    if !options.size.is_multiple_of(options.cluster.bytes()) {
        return Err(Error::UnevenSize {
            name: options.name.clone(),
            size: options.size,
            cluster: options.cluster,
        });
    }
    let golden = golden_name(layout.kind(), &layout.tag());
    let path = paths.golden(&golden);
    match fs::symlink_metadata(&path) {
        Ok(_) => check(&path, layout.kind(), options)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let standing = records.iter().filter(|record| stands_on(record, &golden));
            let standing = standing.count();
            if standing > 0 {
                return Err(Error::GoldenLost { path, standing });
            }
            make(paths, &golden, &layout, &options.name).await?;
        }
        Err(error) => return Err(Error::file("look at", &path)(error)),
    }
    Ok(Origin {
        golden,
        size: options.size,
        cluster: options.cluster.bytes(),
    })
}

/// What the golden file for a snapshotter's options is called.
pub(super) fn name_of(options: &NameOptions) -> Result<String, Error> {
    let layout =
        Layout::new(options.size, &options.file_system).map_err(Error::golden(&options.name))?;
    Ok(golden_name(layout.kind(), &layout.tag()))
}

fn stands_on(record: &Record, golden: &str) -> bool {
    record.visible() && record.golden.as_deref() == Some(golden)
}

/// Is a golden file from an earlier run still what it was, as far as its superblock tells?
fn check(path: &Path, kind: Kind, options: &NameOptions) -> Result<(), Error> {
    let superblock = Superblock::read(path).map_err(Error::golden(&options.name))?;
    let length = fs::metadata(path)
        .map_err(Error::file("look at", path))?
        .len();
    if superblock.kind == kind
        && superblock.clean
        && !superblock.needs_recovery
        && superblock.fills(options.size)
        && length == options.size
    {
        return Ok(());
    }
    Err(Error::GoldenChanged {
        path: path.to_owned(),
    })
}

async fn make(paths: &Paths, golden: &str, layout: &Layout, name: &str) -> Result<(), Error> {
    let unfinished = paths.unfinished_golden(golden);
    let path = paths.golden(golden);
    let made = filesystem::make(&unfinished, layout, &Tools::default()).await;
    if let Err(error) = made {
        let _ = fs::remove_file(&unfinished);
        return Err(Error::golden(name)(error));
    }
    fs::rename(&unfinished, &path).map_err(Error::file("rename", &unfinished))?;
    sync_dir(&paths.goldens())?;
    tracing::info!(file = %path.display(), "made a golden file system");
    Ok(())
}
