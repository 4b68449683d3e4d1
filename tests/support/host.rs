//! What the host of a test run offers, and what it has to.
//!
//! A test that needs what not every kernel has is an ignored one, with the reason in its name. One that
//! goes either way (a disk over ublk or over FUSE) takes what is there; `PLOOP_REQUIRE=ublk` says that
//! it must be that, so that a run which is meant to show ublk cannot pass without it.

/// Is it said that this must be there?
fn required(what: &str) -> bool {
    let words = std::env::var("PLOOP_REQUIRE").unwrap_or_default();
    words.split(',').any(|word| word == what)
}

/// A disk server that goes another way than is required fails the test.
pub(crate) fn meets(transport: &str) {
    assert!(
        transport == "ublk" || !required("ublk"),
        "PLOOP_REQUIRE says ublk, and the disks go over {transport}"
    );
}
