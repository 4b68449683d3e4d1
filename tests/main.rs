//! Every integration test, in one binary: it links once and lists everything.

mod architecture;
