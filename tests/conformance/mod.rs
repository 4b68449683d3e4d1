//! One suite for a family, run over every member of it.

mod device;
mod disk;
