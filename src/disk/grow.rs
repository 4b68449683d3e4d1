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
                if error.amid {
                    self.shared
                        .fail(&format!("growing it was cut short: {}", error.source));
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
