//! The end of a disk: everything into the image, the image closed cleanly, perhaps sealed for good.

use super::Error;
use super::place::Writable;
use super::serve::Disk;
use crate::failpoint::pass;
use crate::image::{Seal, ploop};
use crate::io::{Bug, File, sabotaged};

impl<F: File> Disk<F> {
    /// Flushes, cuts fresh space off, marks the image closed. When this returns the files are closed.
    ///
    /// A failed disk is left as it is: its image stays marked in use, its pending file stays, and the
    /// next one to open it finds what was answered for. So is one that is not to be sealed, on a full host.
    pub(super) async fn finish(self, seal: bool) -> Result<Option<Seal>, Error> {
        let id = self.shared.id.clone();
        let Some(writable) = &self.writable else {
            return if seal {
                Err(Error::ReadOnly { id })
            } else {
                Ok(None)
            };
        };
        if seal {
            // The requests that waited for space are answered; this last round may wait again.
            self.shared.reopen();
        }
        // Else nobody waits: the delta is deleted next, or opened again, and then its pending file has what a full host
        // did not take.
        let flushed = if sabotaged(Bug::SealWithoutFlush) {
            Ok(())
        } else {
            self.flush().await
        };
        if let Some(why) = self.shared.failed() {
            return Err(Error::Failed {
                id,
                why: why.to_owned(),
            });
        }
        flushed.map_err(|errno| Error::Io {
            id: id.clone(),
            source: errno.into(),
        })?;
        pass("close-flushed");
        let done = close_image(writable).await.map_err(|source| Error::Image {
            id: id.clone(),
            source,
        })?;
        pass("close-closed");
        if let Some(pending) = writable.pending.borrow_mut().take()
            && let Err(error) = pending.remove()
        {
            // Harmless: what it says is in the index.
            tracing::warn!(disk = id, %error, "cannot remove the pending file");
        }
        Ok(seal.then_some(done))
    }
}

async fn close_image<F: File>(writable: &Writable<F>) -> Result<Seal, crate::image::Error> {
    let end = writable.top.borrow().end();
    ploop::seal(&writable.file, &writable.header.get(), end).await
}
