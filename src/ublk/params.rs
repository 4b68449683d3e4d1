//! What a device is like: its parameters, in the kernel's layout.
//!
//! The bindings end before the two youngest parts of the structure (DMA alignment, segments; Linux
//! 6.15), so the whole is laid out here. A driver takes as much of it as it knows.

use libublk_rs_sys::{ublk_param_basic, ublk_param_devt, ublk_param_discard, ublk_param_zoned};

use super::uapi;

/// Sectors in the parameters are always so long.
const SECTOR_SHIFT: u32 = 9;
/// The longest discard or write of zeros, in sectors: older drivers cut a longer one silently.
const LONGEST: u32 = u32::MAX >> SECTOR_SHIFT;

/// What a device is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Size in bytes, a multiple of `block`.
    pub size: u64,
    /// Bytes of a logical block: 512 or 4096.
    pub block: u32,
    /// The size that I/O is best aligned to, in bytes: a power of two.
    pub optimal: u32,
    /// Longest request in bytes.
    pub longest: u32,
    /// Is nothing written to it?
    pub read_only: bool,
    /// Must requests' memory be aligned to this (zero copy onto direct I/O)? A power of two.
    pub memory_alignment: Option<u32>,
}

/// `struct ublk_params`, whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Raw {
    len: u32,
    types: u32,
    basic: ublk_param_basic,
    discard: ublk_param_discard,
    devt: ublk_param_devt,
    zoned: ublk_param_zoned,
    alignment_mask: u32,
    _pad: u32,
    _segment: [u64; 2],
}
const _: () = assert!(size_of::<Raw>() == 136);
const _: () = assert!(std::mem::offset_of!(Raw, alignment_mask) == 108);

/// Bytes that the bindings know: what a driver before 6.15 has.
const _: () = assert!(size_of::<uapi::ublk_params>() == 112);

impl Params {
    pub(super) fn raw(self) -> Raw {
        let shift = |bytes: u32| u8::try_from(bytes.trailing_zeros()).unwrap_or(9);
        let mut attrs = uapi::UBLK_ATTR_VOLATILE_CACHE | uapi::UBLK_ATTR_FUA;
        if self.read_only {
            attrs |= uapi::UBLK_ATTR_READ_ONLY;
        }
        let mut raw = Raw {
            len: u32::try_from(size_of::<Raw>()).unwrap_or(0),
            types: uapi::UBLK_PARAM_TYPE_BASIC,
            basic: ublk_param_basic {
                attrs,
                logical_bs_shift: shift(self.block),
                physical_bs_shift: shift(self.block.max(4096)),
                io_opt_shift: shift(self.optimal),
                io_min_shift: shift(self.block.max(4096)),
                max_sectors: self.longest >> SECTOR_SHIFT,
                dev_sectors: self.size >> SECTOR_SHIFT,
                ..ublk_param_basic::default()
            },
            ..Raw::default()
        };
        if !self.read_only {
            raw.types |= uapi::UBLK_PARAM_TYPE_DISCARD;
            // Holes are punched in whole blocks of the host.
            let granularity = self.block.max(4096);
            // In whole blocks, or the block layer would cut the rest off crooked.
            let longest = LONGEST - LONGEST % (granularity >> SECTOR_SHIFT);
            raw.discard = ublk_param_discard {
                discard_granularity: granularity,
                max_discard_sectors: longest,
                max_write_zeroes_sectors: longest,
                max_discard_segments: 1,
                ..ublk_param_discard::default()
            };
        }
        if let Some(alignment) = self.memory_alignment {
            raw.types |= uapi::UBLK_PARAM_TYPE_DMA_ALIGN;
            raw.alignment_mask = alignment - 1;
        }
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::Params;

    #[test]
    fn sizes_become_shifts_and_sectors() {
        let params = Params {
            size: 10 << 30,
            block: 4096,
            optimal: 64 << 10,
            longest: 256 << 10,
            read_only: false,
            memory_alignment: Some(512),
        };
        let raw = params.raw();
        assert_eq!(raw.len, 136);
        assert_eq!(raw.basic.logical_bs_shift, 12);
        assert_eq!(raw.basic.io_opt_shift, 16);
        assert_eq!(raw.basic.max_sectors, 512);
        assert_eq!(raw.basic.dev_sectors, 10 << 21);
        assert_eq!(raw.basic.attrs & 1, 0);
        assert_eq!(raw.discard.max_discard_segments, 1);
        assert_eq!(raw.discard.max_discard_sectors % 8, 0);
        assert_eq!(raw.alignment_mask, 511);

        let view = Params {
            read_only: true,
            memory_alignment: None,
            ..params
        };
        let raw = view.raw();
        assert_eq!(raw.basic.attrs & 1, 1);
        assert_eq!(raw.types, 1, "no discard, no alignment");
    }
}
