//! A disk becomes larger while it serves: its requests wait for some milliseconds.
//!
//! What was answered before is in the index first, so that the image can be changed as a whole; see
//! [`image::grow`](crate::image::grow()) for the order of its steps. A dead process leaves the old disk or
//! the new one, and in both cases its pending file is empty.

use super::Error;
use super::place::Writable;
use super::serve::Disk;
use crate::failpoint::pass;
use crate::image;
use crate::io::{Bug, File, sabotaged};

impl<F: File> Disk<F> {
    /// Makes the disk at least `size` bytes large. No request may be under way.
    ///
    /// # Errors
    /// If it is read-only, has failed, is larger already, or the host fails. The disk is then as it was, or
    /// answers errors from then on if nobody can say how it is.
    pub(super) async fn grow(&self, size: u64) -> Result<(), Error> {
        let id = || self.shared.id.clone();
        let Some(writable) = &self.writable else {
            return Err(Error::NotGrown {
                id: id(),
                why: "it is read-only".to_owned(),
            });
        };
        let refused = |why: String| Err(Error::NotGrown { id: id(), why });
        if let Some(why) = self.shared.failed() {
            return refused(format!("it answers errors: {why}"));
        }
        let rounded = self.base.cluster().round_up(size);
        if rounded == self.shared.size() {
            return Ok(());
        }
        if let Err(errno) = self.flush().await {
            return refused(format!("it cannot be flushed: {errno}"));
        }
        self.larger(writable, rounded).await
    }

    async fn larger(&self, writable: &Writable<F>, size: u64) -> Result<(), Error> {
        let id = || self.shared.id.clone();
        let io = |source| Error::Io { id: id(), source };
        pass("grow-flushed");
        if let Some(pending) = writable.pending.borrow_mut().as_mut() {
            let clusters = self.base.cluster().count(size);
            let clusters = u32::try_from(clusters).map_err(|_| Error::NotGrown {
                id: id(),
                why: "no index has so many clusters".to_owned(),
            })?;
            pending.grow(clusters).map_err(io)?;
        }
        let mut end = writable.top.borrow().end();
        let grown = image::grow(&writable.file, &writable.header.get(), &mut end, size).await;
        writable.top.borrow_mut().skip_to(end);
        // The file has grown with it; if it cannot be asked, `make_room` asks for more than it needs.
        if let Ok(length) = writable.file.len() {
            writable.length.set(length);
        }
        let grown = match grown {
            Ok(grown) => grown,
            Err(error) => {
                writable.top.borrow_mut().moved(&error.moved);
                if error.amid {
                    let why = format!("growing it was cut short: {}", error.source);
                    self.give_up_unsynced(&why);
                }
                return Err(Error::Image {
                    id: id(),
                    source: error.source,
                });
            }
        };
        pass("grow-written");
        if !sabotaged(Bug::MovedUnsaid) {
            writable.top.borrow_mut().moved(&grown.moved);
        }
        writable.header.set(grown.header);
        self.shared.grow(grown.header.size());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::disk::request::Errno;
    use crate::disk::watched::{Watched, disk, flush, read, write};
    use crate::io::now;

    const K: u64 = 64 << 10;
    /// So large that the index needs the place of the first cluster that was placed.
    const LARGER: u64 = 2 << 30;

    /// What a disk with one cluster of its own and three written ones answers.
    fn bytes(disk: &crate::disk::serve::Disk<std::sync::Arc<Watched>>) -> [u8; 3] {
        [8, 9, 0].map(|cluster| read(disk, cluster * K))
    }

    #[test]
    fn clusters_that_were_moved_are_found_whatever_became_of_the_rest() {
        let (disk, file) = disk();
        write(&disk, 8 * K, 65536).unwrap();
        write(&disk, 9 * K, 65536).unwrap();
        *file.fail_zeroes.lock().unwrap() = Some(Errno::NOSPC);
        now(disk.grow(LARGER)).unwrap_err();
        assert_eq!(disk.shared.failed(), None, "the old disk is whole");
        assert_eq!(bytes(&disk), [1, 1, 9]);
        *file.fail_zeroes.lock().unwrap() = None;
        write(&disk, 9 * K, 512).unwrap();
        flush(&disk).unwrap();
        now(disk.grow(LARGER)).unwrap();
        assert_eq!(disk.shared.size(), LARGER);
        assert_eq!(bytes(&disk), [1, 1, 9]);
    }

    /// Their old places are zeros by then; reads go on.
    #[test]
    fn a_sync_that_fails_when_they_were_moved_ends_the_disk_and_no_read_is_wrong() {
        let (disk, file) = disk();
        write(&disk, 8 * K, 65536).unwrap();
        write(&disk, 9 * K, 65536).unwrap();
        *file.then_fail_syncs.lock().unwrap() = Some(Errno::IO);
        now(disk.grow(LARGER)).unwrap_err();
        assert!(disk.shared.failed().unwrap().contains("cut short"));
        assert!(disk.shared.counters.lost_writes.get() > 0, "no layer");
        assert_eq!(bytes(&disk), [1, 1, 9]);
        assert_eq!(write(&disk, 8 * K, 512), Err(Errno::IO));
    }
}
