//! (under construction)
/// ring
pub struct Ring;
/// sleep
pub fn sleep() {}
