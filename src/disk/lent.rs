//! A buffer of a pool, for as long as one step of a request needs it.

use std::ops::Deref;

use crate::io::{Piece, Pool};

/// A buffer that goes back to its pool.
pub(super) struct Lent<'a> {
    pool: &'a Pool,
    piece: Piece,
}

impl<'a> Lent<'a> {
    pub(super) fn new(pool: &'a Pool) -> Self {
        Self {
            pool,
            piece: pool.take(),
        }
    }
}

impl Deref for Lent<'_> {
    type Target = Piece;

    fn deref(&self) -> &Piece {
        &self.piece
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.pool.give(self.piece.clone());
    }
}
