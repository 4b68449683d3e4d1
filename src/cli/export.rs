//! Write the disk of a chain into a plain file.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::files;
use super::output;
use super::run::Chain;
use super::verdict::Verdict;
use crate::chain::Base;
use crate::image::{Error, Format, Image};
use crate::io::{Direct, File, Piece, now};
use crate::units::{ByteRange, Bytes, ClusterSize};

/// The unit in which zeros are left out.
const BLOCK: usize = 4096;

/// Writes the chain's disk into a new plain file, sparse and durable.
pub(super) fn export(chain: &Chain, out: &Path) -> Result<Verdict> {
    let base = open(chain)?;
    let cannot = || format!("cannot write {}", out.display());
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out);
    let file = Direct::new(file.with_context(cannot)?)?;
    if let Err(error) = copy(&base, &file) {
        // Half an export would be taken for a whole one.
        let _ = fs::remove_file(out);
        return Err(error).with_context(cannot);
    }
    output::line(&format!(
        "{}: disk of {}",
        out.display(),
        Bytes(base.size())
    ));
    Ok(Verdict::Clean)
}

fn open(chain: &Chain) -> Result<Base<Direct>> {
    let mut opened = Vec::new();
    for (path, format) in files::formats(chain) {
        opened.push((path, format, Arc::new(files::read(path)?)));
    }
    // A plain base takes its cluster size from the deltas above it.
    let cluster = opened
        .iter()
        .find(|(_, format, _)| *format == Format::Ploop);
    let cluster = cluster.map_or(Ok(ClusterSize::DEFAULT), |(path, _, file)| {
        cluster_of(path, file)
    })?;
    let mut base = Base::empty(cluster);
    for (path, format, file) in opened {
        let image = now(Image::open_sealed(&*file, Some(format), None, cluster))
            .with_context(|| path.display().to_string())?;
        base = base.with(&image, file, path)?;
    }
    Ok(base)
}

fn cluster_of(path: &Path, file: &Direct) -> Result<ClusterSize> {
    match now(Image::open_sealed(
        file,
        Some(Format::Ploop),
        None,
        ClusterSize::DEFAULT,
    )) {
        Ok(image) => Ok(image.cluster()),
        Err(Error::ClusterSize { found, .. }) => Ok(found),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn copy(base: &Base<Direct>, out: &Direct) -> Result<()> {
    let cluster = base.cluster();
    let bar = output::progress(base.size());
    let whole = Piece::zeroed(usize::try_from(cluster.bytes())?);
    now(out.set_len(base.size()))?;
    for range in cluster.split(ByteRange::new(0, base.size())) {
        let spot = cluster
            .cluster_of(range.start)
            .and_then(|index| base.map().find(index));
        if let Some(spot) = spot
            && let Some(file) = base.file(spot.level)
        {
            let piece = whole.slice(0, usize::try_from(range.len)?);
            now(file.read_at(cluster.start_of_place(spot.place), piece.clone()))?;
            for run in data(&piece) {
                now(out.write_at(
                    range.start + run.start,
                    piece.slice(usize::try_from(run.start)?, usize::try_from(run.len)?),
                ))?;
            }
        }
        bar.set_position(range.end());
    }
    now(out.sync())?;
    bar.finish_and_clear();
    Ok(())
}

/// The runs of blocks that are not all zeros.
fn data(piece: &Piece) -> Vec<ByteRange> {
    piece.with_bytes(|bytes| {
        let mut runs: Vec<ByteRange> = Vec::new();
        let mut at = 0;
        for block in bytes.chunks(BLOCK) {
            let len = block.len() as u64;
            if block.iter().any(|byte| *byte != 0) {
                match runs.last_mut() {
                    Some(run) if run.end() == at => run.len += len,
                    _ => runs.push(ByteRange::new(at, len)),
                }
            }
            at += len;
        }
        runs
    })
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, data};
    use crate::io::Piece;
    use crate::units::ByteRange;

    #[test]
    fn blocks_of_zeros_are_left_out() {
        let mut bytes = vec![0; 5 * BLOCK + 512];
        for at in [BLOCK, 3 * BLOCK - 1, 5 * BLOCK + 511] {
            bytes[at] = 1;
        }
        let runs = data(&Piece::from_bytes(&bytes));
        assert_eq!(
            runs,
            [ByteRange::new(4096, 8192), ByteRange::new(20_480, 512)]
        );
        assert_eq!(data(&Piece::zeroed(BLOCK)), []);
    }
}
