//! What this kernel's ublk driver can do: asked, never guessed from a version.

use super::control::Control;
use super::error::Error;
use super::uapi;

/// What the driver says it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// From the driver's own bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The driver's own bits (`UBLK_F_*`).
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    const fn has(self, bit: u64) -> bool {
        self.0 & bit == bit
    }

    /// Requests' pages can be read and written at offsets of the character device (Linux 6.5).
    #[must_use]
    pub const fn user_copy(self) -> bool {
        self.has(uapi::UBLK_F_USER_COPY as u64)
    }

    /// Devices outlive their server, and requests it had not answered come again (6.1).
    #[must_use]
    pub const fn recovery(self) -> bool {
        self.has((uapi::UBLK_F_USER_RECOVERY | uapi::UBLK_F_USER_RECOVERY_REISSUE) as u64)
    }

    /// Requests' pages become registered buffers of the server's ring by themselves (6.16).
    #[must_use]
    pub const fn zero_copy(self) -> bool {
        self.has((uapi::UBLK_F_SUPPORT_ZERO_COPY | uapi::UBLK_F_AUTO_BUF_REG) as u64)
    }

    /// A running device can change its size (6.16).
    #[must_use]
    pub const fn update_size(self) -> bool {
        self.has(uapi::UBLK_F_UPDATE_SIZE as u64)
    }

    /// A device that somebody has open can refuse to be stopped (7.0).
    #[must_use]
    pub const fn safe_stop(self) -> bool {
        self.has(uapi::UBLK_F_SAFE_STOP_DEV as u64)
    }

    /// A new device can be spared the search for partitions (7.0).
    #[must_use]
    pub const fn no_partition_scan(self) -> bool {
        self.has(uapi::UBLK_F_NO_AUTO_PART_SCAN as u64)
    }

    /// Is everything there without which we do not use it?
    ///
    /// # Errors
    /// [`Error::TooOld`], with what is missing.
    pub fn suffice(self) -> Result<(), Error> {
        if !self.user_copy() {
            return Err(Error::TooOld {
                missing: "user copy",
            });
        }
        if !self.recovery() {
            return Err(Error::TooOld {
                missing: "user recovery",
            });
        }
        Ok(())
    }
}

/// Asks this kernel's driver.
///
/// # Errors
/// If there is no driver, or no way to ask it.
pub fn probe() -> Result<Features, Error> {
    Control::open()?.features()
}

#[cfg(test)]
mod tests {
    use super::Features;

    /// The masks that kernels were seen to answer, by release.
    #[test]
    fn the_masks_of_known_kernels_are_understood() {
        for (bits, sufficient, zero_copy, no_scan) in [
            (0x7f, false, false, false),
            (0x1fe, true, false, false),
            (0x3ff, true, false, false),
            (0x3fff, true, true, false),
            (0x7_ffff, true, true, true),
            (0x1f_ffff, true, true, true),
        ] {
            let features = Features::from_bits(bits);
            assert_eq!(features.suffice().is_ok(), sufficient, "{bits:x}");
            assert_eq!(features.zero_copy(), zero_copy, "{bits:x}");
            assert_eq!(features.no_partition_scan(), no_scan, "{bits:x}");
        }
    }
}
