//! A seat belongs to whoever holds its lock. Who comes next waits for a server that is ending, but not
//! for a living one.

use super::error::{Error, host};
use crate::lock::{self, Answer, Failed, Lock};
use crate::seat::Seat;

/// Takes the lock of a seat whose folder exists, and writes our number into it. Blocks.
pub(super) fn take(seat: &Seat) -> Result<Lock, Error> {
    let path = seat.lock();
    match lock::patiently(|| lock::take(&path)) {
        Ok(Answer::Ours(lock)) => Ok(lock),
        Ok(Answer::Theirs(holder)) => Err(Error::SecondServer {
            folder: seat.folder(),
            who: holder.to_string(),
        }),
        Err(Failed { act, source }) => Err(host(act, &path)(source)),
    }
}
