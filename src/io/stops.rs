//! What two kinds of death leave of a simulated file.
//!
//! The process dies: the kernel keeps all that was answered; of what was under way any part may be done.
//! The power dies: the platter keeps what was synced, and of everything else any part, sector by sector.
//! All parts are tried where there are few of them; else every whole change with and without every
//! other where *these* are few, and torn ones by chance.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::crash::{Change, Contents, View};

/// Units of which all parts are tried: two to the power of this.
const FEW: usize = 7;

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// Seeded.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// One time in `times`?
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// What stays of a change: nothing, all, its first sectors, its last ones, or any.
    pub(crate) fn part(&mut self, change: &Change) -> Option<Change> {
        let sectors = change.sectors();
        let border = self.below(sectors + 1);
        match self.below(8) {
            0 | 1 => None,
            2..=4 => Some(change.clone()),
            5 => change.torn(|index| index < border),
            6 => change.torn(|index| index >= border),
            _ => {
                let bits: Vec<bool> = (0..sectors).map(|_| self.one_in(2)).collect();
                change.torn(|index| bits[index])
            }
        }
    }

    /// Parts of all of these, the last `loose` of them in any order.
    pub(crate) fn parts(&mut self, changes: &[Change], loose: usize) -> Vec<Change> {
        let mut changes = changes.to_vec();
        let first = changes.len() - loose;
        for index in (first + 1..changes.len()).rev() {
            changes.swap(index, first + self.below(index + 1 - first));
        }
        changes.iter().filter_map(|it| self.part(it)).collect()
    }
}

/// Shows each thing once.
#[derive(Default)]
pub(crate) struct Once(HashSet<u64>);

impl Once {
    /// Is it new?
    pub(crate) fn is_new(&mut self, thing: &impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        thing.hash(&mut hasher);
        self.0.insert(hasher.finish())
    }
}

/// What the power's end may leave; `samples` torn ones by chance.
pub(crate) fn power(view: &View, chance: &mut Chance, samples: usize) -> Vec<Contents> {
    let mut changes = view.unsynced.clone();
    changes.extend_from_slice(&view.under_way);
    parts(
        &view.platter,
        &changes,
        view.under_way.len(),
        chance,
        samples,
    )
}

/// What the process' end may leave in the kernel.
pub(crate) fn process(view: &View, chance: &mut Chance, samples: usize) -> Vec<Contents> {
    let loose = view.under_way.len();
    parts(&view.kernel, &view.under_way, loose, chance, samples)
}

fn parts(
    from: &Contents,
    changes: &[Change],
    loose: usize,
    chance: &mut Chance,
    samples: usize,
) -> Vec<Contents> {
    let mut once = Once::default();
    let mut found = Vec::new();
    let mut add = |changes: &[Change]| {
        let mut contents = from.clone();
        changes.iter().for_each(|it| it.apply(&mut contents));
        if once.is_new(&contents) {
            found.push(contents);
        }
    };
    let units = units(from, changes);
    if units.len() <= FEW {
        for set in 0..1_u32 << units.len() {
            let stays = |change: usize, index: usize| {
                let unit = units.iter().position(|unit| *unit == (change, index));
                unit.is_none_or(|unit| set >> unit & 1 == 1)
            };
            let torn: Vec<_> = changes
                .iter()
                .enumerate()
                .filter_map(|(number, change)| change.torn(|index| stays(number, index)))
                .collect();
            add(&torn);
        }
        return found;
    }
    let whole = |keep: &dyn Fn(usize) -> bool| -> Vec<Change> {
        let kept = changes.iter().enumerate().filter(|(index, _)| keep(*index));
        kept.map(|(_, change)| change.clone()).collect()
    };
    if changes.len() <= FEW {
        for set in 0..1_u32 << changes.len() {
            add(&whole(&|index| set >> index & 1 == 1));
        }
    } else {
        add(&[]);
        add(changes);
        for one in 0..changes.len() {
            add(&whole(&|index| index == one));
            add(&whole(&|index| index != one));
            add(&whole(&|index| index < one));
        }
    }
    for _ in 0..samples {
        let torn = chance.parts(changes, loose);
        add(&torn);
    }
    found
}

/// The sectors (change, index in it) that can make a difference; one more than [`FEW`] are enough.
fn units(from: &Contents, changes: &[Change]) -> Vec<(usize, usize)> {
    // A sector that several change matters if one of them would.
    let mut differ = HashSet::new();
    for change in changes {
        let differing = (0..change.sectors()).filter(|index| change.matters(*index, from));
        differ.extend(differing.map(|index| change.sector(index)));
    }
    let mut units = Vec::new();
    for (number, change) in changes.iter().enumerate() {
        for index in 0..change.sectors() {
            if differ.contains(&change.sector(index)) {
                units.push((number, index));
                if units.len() > FEW {
                    return units;
                }
            }
        }
    }
    units
}
