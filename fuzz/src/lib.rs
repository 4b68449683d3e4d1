//! What several targets share.

pub mod limit;
pub mod scratch;
