//! Which format do these first bytes say?
//!
//! A guess for people's tools only. Contents of a plain disk are the guest's to choose, so a chain
//! that says which format each file has is never second-guessed by its bytes.

use super::ploop;

/// What a file's first bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A ploop image, of either version.
    Ploop,
    /// A QCOW2 image.
    Qcow2,
    /// The XML that lists a bundle's deltas (`DiskDescriptor.xml`).
    Descriptor,
    /// None of these; plain disk contents look like this too.
    Unknown,
}

/// Looks at the first bytes of a file; 64 are enough.
#[must_use]
pub fn probe(bytes: &[u8]) -> Probe {
    if bytes.starts_with(ploop::SIGNATURE_V2) || bytes.starts_with(ploop::SIGNATURE_V1) {
        Probe::Ploop
    } else if bytes.starts_with(b"QFI\xfb") {
        Probe::Qcow2
    } else if bytes.starts_with(b"<?xml") || bytes.starts_with(b"<Parallels_disk_image") {
        Probe::Descriptor
    } else {
        Probe::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::{Probe, probe};

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        for (bytes, said) in [
            (&b"WithouFreSpacExt\x02\0\0\0"[..], Probe::Ploop),
            (b"WithoutFreeSpace\x02\0\0\0", Probe::Ploop),
            (b"QFI\xfb\0\0\0\x03", Probe::Qcow2),
            (b"<?xml version=\"1.0\"?>", Probe::Descriptor),
            (b"WithouFreSpacEx", Probe::Unknown),
            (b"", Probe::Unknown),
            (&[0; 64], Probe::Unknown),
        ] {
            assert_eq!(probe(bytes), said, "{bytes:?}");
        }
    }
}
