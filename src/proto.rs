//! The modules generated from `proto/`, and nothing else.

/// `ploop.v1`: `ploopd`'s door.
#[expect(
    missing_docs,
    unused_qualifications,
    reason = "generated; the words stand in the .proto file"
)]
pub mod v1 {
    tonic::include_proto!("ploop.v1");
}
