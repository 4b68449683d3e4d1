//! Says everything that is wrong with an image or a chain, and mends what can be mended.
//!
//! Mending clears the in-use mark of an image whose index is sound, and cuts off what no entry names at the end of
//! the file. Whatever else is wrong, the bytes are left alone. The caller sees to it that nobody else has the file
//! open, and that no disk server which died has entries for it elsewhere: then nothing is lost.

use super::Defect;
use super::Error;
use super::Seal;
use super::Severity;
use super::gaps;
use super::ploop::write_header;
use super::scan::{self, Scan};
use crate::format::ploop::{FLAG_EMPTY, Header, InUse};
use crate::io::File;
use crate::units::{Cluster, ClusterSize, Place};

/// What was found out about an image.
#[derive(Debug)]
pub struct Report {
    /// The file's length.
    pub length: u64,
    /// Its header, if it has a sound one.
    pub header: Option<Header>,
    /// Where each cluster is that it holds and that is sound, ascending by cluster.
    pub entries: Vec<(Cluster, Place)>,
    /// Its seal, if it could be opened for reading.
    pub seal: Option<Seal>,
    /// All that is wrong with it, or worth saying.
    pub defects: Vec<Defect>,
    /// The first place that nothing uses any more.
    end: Place,
}

impl Report {
    /// How bad it is; `None` is clean.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.defects.iter().map(Defect::severity).max()
    }

    /// The seal that [`repair`] would leave; none if it would leave the file alone.
    ///
    /// Whoever knows the seal that the image once had knows from it whether mending brings that very image
    /// back, before a byte is changed.
    #[must_use]
    pub fn mended(&self) -> Option<Seal> {
        let header = self.header?;
        let hopeless = |defect: &Defect| {
            defect.refuses() && !defect.mendable() || matches!(defect, Defect::Extension(_))
        };
        if self.defects.iter().any(hopeless) || !self.defects.iter().any(Defect::mendable) {
            return None;
        }
        let header = match header.in_use() {
            InUse::Yes => header.closed(self.entries.is_empty()),
            _ => header,
        };
        let length = header.cluster().start_of_place(self.end).min(self.length);
        Some(Seal::of(&header, &self.entries, length))
    }

    fn broken(length: u64, defect: Defect) -> Self {
        Self {
            length,
            header: None,
            entries: Vec::new(),
            seal: None,
            defects: vec![defect],
            end: Place(0),
        }
    }
}

/// Looks at everything in an image but its data.
///
/// # Errors
/// What the host says; what is wrong with the image is in the report.
pub async fn check<F: File>(file: &F) -> Result<Report, Error> {
    let length = file.len().map_err(Error::io("read the file's length"))?;
    let header = match scan::header(file, length).await {
        Ok(header) => header,
        Err(Error::Defect(defect)) => return Ok(Report::broken(length, defect)),
        Err(error) => return Err(error),
    };
    let mut defects = scan::state(&header);
    let mut scan = scan::index(file, &header, length).await?;
    defects.append(&mut scan.defects);
    let readable = defects.is_empty();
    oddities(&header, &scan, &mut defects);
    unused(file, &header, &scan, length, &mut defects)?;
    Ok(Report {
        length,
        header: Some(header),
        seal: readable.then(|| Seal::of(&header, &scan.entries, length)),
        end: scan.end(&header),
        entries: scan.entries,
        defects,
    })
}

/// Mends what loses nothing, durably; answers what was found and how much of it is mended.
///
/// # Errors
/// The first [`Error::Defect`] that cannot be mended, [`Error::Extension`] if mending would destroy a
/// valid extension, and what the host says. The first two leave the file as it was.
pub async fn repair<F: File>(file: &F) -> Result<Report, Error> {
    let report = check(file).await?;
    let hopeless = |defect: &&Defect| defect.refuses() && !defect.mendable();
    if let Some(defect) = report.defects.iter().find(hopeless) {
        return Err(Error::Defect(defect.clone()));
    }
    let (Some(header), true) = (report.header, report.defects.iter().any(Defect::mendable)) else {
        return Ok(report);
    };
    if report
        .defects
        .iter()
        .any(|defect| matches!(defect, Defect::Extension(_)))
    {
        return Err(Error::Extension);
    }
    // Never shorter than what the index names, so a stop between the two steps leaves a sound image.
    let len = header.cluster().start_of_place(report.end);
    if len < report.length {
        file.set_len(len).await.map_err(Error::io("cut the tail"))?;
        file.sync()
            .await
            .map_err(Error::io("make the repair durable"))?;
    }
    if header.in_use() == InUse::Yes {
        write_header(file, &header.closed(report.entries.is_empty())).await?;
        file.sync()
            .await
            .map_err(Error::io("make the repair durable"))?;
    }
    Ok(report)
}

/// What a chain needs to know of each of its deltas.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// The cluster size; a plain file has none.
    pub cluster: Option<ClusterSize>,
    /// Does its header say that it is in use?
    pub in_use: bool,
}

/// What is wrong with the order of a chain: the index of the delta, lowest first, and the defect.
#[must_use]
pub fn chain(levels: &[Level]) -> Vec<(usize, Defect)> {
    let mut defects = Vec::new();
    let chain = levels.iter().find_map(|level| level.cluster);
    for (index, level) in levels.iter().enumerate() {
        if let (Some(found), Some(chain)) = (level.cluster, chain)
            && found != chain
        {
            defects.push((index, Defect::OtherCluster { found, chain }));
        }
        if level.in_use && index + 1 < levels.len() {
            defects.push((index, Defect::LowerInUse));
        }
    }
    defects
}

/// What is legal in a header, and worth a word.
fn oddities(header: &Header, scan: &Scan, defects: &mut Vec<Defect>) {
    if header.flags() == FLAG_EMPTY && !scan.entries.is_empty() {
        defects.push(Defect::NotEmpty(scan.entries.len()));
    }
    let (sectors, covered) = (header.sectors(), header.covered_sectors());
    if sectors < covered {
        defects.push(Defect::SmallDisk { sectors, covered });
    }
    if header.extension() != 0 && header.in_use() != InUse::Extension {
        defects.push(Defect::StaleExtension(header.extension()));
    }
}

/// Space of the file that no entry names.
fn unused<F: File>(
    file: &F,
    header: &Header,
    scan: &Scan,
    length: u64,
    defects: &mut Vec<Defect>,
) -> Result<(), Error> {
    let cluster = header.cluster();
    if length < header.index_len() {
        return Ok(());
    }
    let mut places: Vec<_> = scan.entries.iter().map(|(_, place)| *place).collect();
    places.sort_unstable();
    places.dedup();
    if header.in_use() == InUse::Extension && header.extension() != 0 {
        if extension_is_there(header, &places, length) {
            // Its bitmap lies in clusters that no entry names: nothing can be said about those.
            defects.push(Defect::Extension(header.extension()));
            return Ok(());
        }
        defects.push(Defect::LostExtension(header.extension()));
    }
    let end = u64::from(scan.end(header).0);
    let whole = length / cluster.bytes();
    let rest = cluster.offset_in(length);
    let (holes, solid) = gaps::count(file, header, &places)?;
    if holes > 0 {
        defects.push(Defect::Holes {
            count: holes,
            bytes: holes * cluster.bytes(),
        });
    }
    if solid > 0 {
        defects.push(Defect::Unused {
            count: solid,
            bytes: solid * cluster.bytes(),
        });
    }
    if whole > end {
        let count = whole - end;
        defects.push(Defect::TailLeak {
            count,
            bytes: count * cluster.bytes(),
        });
    }
    if rest > 0
        && !defects
            .iter()
            .any(|defect| matches!(defect, Defect::CutOff { .. }))
    {
        defects.push(Defect::HalfTail { bytes: rest });
    }
    Ok(())
}

fn extension_is_there(header: &Header, places: &[Place], length: u64) -> bool {
    let sectors = header.cluster().sectors();
    let Ok(place) = u32::try_from(header.extension() / sectors).map(Place) else {
        return false;
    };
    header.extension().is_multiple_of(sectors)
        && place >= header.first_data()
        && header.cluster().start_of_place(place) + header.cluster().bytes() <= length
        && places.binary_search(&place).is_err()
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "repair_tests.rs"]
mod repair_tests;
