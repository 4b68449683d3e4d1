//! (under construction)
/// u
pub struct Uring;
