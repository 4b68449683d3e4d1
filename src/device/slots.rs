//! Which slots of a thread's ring hold the pages of which device's requests.
//!
//! A device takes a run of slots, one for each request that it may have under way. When they run out
//! (sixteen thousand: 256 devices a thread), a device goes without and its bytes are copied.

use std::cell::RefCell;

/// Slots are given in runs of multiples of so many.
const UNIT: u16 = 32;

/// The slots of one thread's ring.
pub(super) struct Slots {
    /// Is this unit taken?
    units: RefCell<Vec<bool>>,
}

impl Slots {
    /// `count` slots.
    pub(super) fn new(count: u32) -> Self {
        let units = usize::try_from(count / u32::from(UNIT)).unwrap_or(0);
        // The last numbers stay free, so that one past the table exists.
        let units = units.min(usize::from(u16::MAX / UNIT));
        Self {
            units: RefCell::new(vec![false; units]),
        }
    }

    /// The first of `count` slots in a row, if there are so many.
    pub(super) fn take(&self, count: u16) -> Option<u16> {
        let wanted = usize::from(count.div_ceil(UNIT).max(1));
        let mut units = self.units.borrow_mut();
        let first = units
            .windows(wanted)
            .position(|run| run.iter().all(|taken| !taken))?;
        units[first..first + wanted].fill(true);
        u16::try_from(first).ok()?.checked_mul(UNIT)
    }

    /// Gives back what `take(count)` answered.
    pub(super) fn give(&self, first: u16, count: u16) {
        let wanted = usize::from(count.div_ceil(UNIT).max(1));
        let first = usize::from(first / UNIT);
        if let Some(run) = self.units.borrow_mut().get_mut(first..first + wanted) {
            run.fill(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn runs_are_given_once_and_come_back() {
        let slots = Slots::new(128);
        assert_eq!(slots.take(32), Some(0));
        assert_eq!(slots.take(33), Some(32));
        assert_eq!(slots.take(64), None);
        assert_eq!(slots.take(1), Some(96));
        assert_eq!(slots.take(1), None);
        slots.give(32, 33);
        assert_eq!(slots.take(64), Some(32));
        assert_eq!(Slots::new(0).take(1), None);
    }
}
