//! What several tests need: builders, fixtures, other people's tools.

pub(crate) mod engine;
