//! Make an image.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::output;
use super::verdict::Verdict;
use crate::image::ploop;
use crate::io::{Direct, now};
use crate::units::{Bytes, ClusterSize};

/// Makes a new, empty image, durably.
pub(super) fn init(size: Bytes, path: &Path, cluster: ClusterSize) -> Result<Verdict> {
    let cannot = || format!("cannot make {}", path.display());
    let mut options = fs::File::options();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let file = Direct::new(file.with_context(cannot)?)?;
    if let Err(error) = now(ploop::create(&file, size.0, cluster)) {
        // It is ours and nothing yet; that it stays would be a second failure, not worth a word.
        let _ = fs::remove_file(path);
        return Err(error).with_context(cannot);
    }
    // A new file survives the power once its name does.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::File::open(folder.unwrap_or(Path::new("."))).with_context(cannot)?;
    folder.sync_all().with_context(cannot)?;
    let size = Bytes(cluster.round_up(size.0));
    output::line(&format!(
        "{}: empty disk of {size}, clusters of {cluster}",
        path.display()
    ));
    Ok(Verdict::Clean)
}
