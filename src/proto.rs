//! The modules generated from `proto/`, and the number that says which contract they are.

/// Raised when an old peer would misread a message of `ploop.v1` (see the rules in `disks.proto`).
pub const PROTOCOL: u32 = 1;

/// Raised with every new call and field of `ploop.v1`; a peer of another revision is no stranger.
pub const REVISION: u32 = 3;

/// `ploop.v1`: `ploopd`'s door, and what the tool asks `ploop-snapshotter`.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::allow_attributes_without_reason,
    reason = "generated; the words stand in the .proto file"
)]
#[cfg_attr(
    not(test),
    expect(
        clippy::wildcard_imports,
        reason = "generated; clippy does not look in tests"
    )
)]
pub mod v1 {
    tonic::include_proto!("ploop.v1");
}

/// `nri.pkg.api.v1alpha1`: what containerd tells its plugins.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; the words stand in the .proto file"
)]
pub mod nri {
    tonic::include_proto!("nri.pkg.api.v1alpha1");
}

/// ttrpc's envelopes.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; the words stand in the .proto file"
)]
pub mod ttrpc {
    tonic::include_proto!("ttrpc");
}
