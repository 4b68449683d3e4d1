//! containerd's filters: any text is read or refused at a place that it has; one that is made from its meaning
//! matches exactly what it should.
//!
//! ```text
//! input   "t" text, a filter a line
//!         "m" then selectors, 3 bytes each: field, operator (high bit: another filter begins), value
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use ploop_fuzz::limit::{Counting, within};
use ploop_snapshotter::service::fuzzing::matches;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A regular expression may take regex's own limit, 10 MiB, and more while it is made.
const FAIR: usize = 64 << 20;

const VALUES: [&str; 12] = [
    "active",
    "committed",
    "a",
    "",
    "k8s.io/12/sha256:ab",
    "a b",
    "a,b",
    "a\"b\\c",
    "é\u{1f4a9}",
    "\n\t\0",
    "/x/",
    "a.b",
];
const LABELS: [&str; 6] = ["a", "a.b", "containerd.io/gc.root", "", "é", "x\"y"];

/// What one snapshot says of itself.
struct Snapshot<'a> {
    name: &'a str,
    parent: &'a str,
    kind: &'a str,
    labels: Vec<(&'a str, &'a str)>,
}

impl Snapshot<'_> {
    fn matches(&self, filters: &[String]) -> Option<bool> {
        matches(filters, (self.name, self.parent, self.kind), &self.labels).ok()
    }

    /// The value of field `number`, and how the field is written.
    fn field(&self, number: u8) -> (Option<&str>, String) {
        match number % 10 {
            0 => (Some(self.name), "name".to_owned()),
            1 => (Some(self.parent), "parent".to_owned()),
            2 => (Some(self.kind), "kind".to_owned()),
            3 => (None, "nothing".to_owned()),
            label => {
                let key = LABELS[usize::from(label - 4)];
                let found = self.labels.iter().find(|(own, _)| *own == key);
                (found.map(|(_, value)| *value), format!("labels.{}", quoted(key)))
            }
        }
    }
}

/// A literal of Go: everything but plain ASCII is escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            ' '..='~' if c != '"' && c != '\\' => out.push(c),
            '"' | '\\' => out.extend(['\\', c]),
            c => out += &format!("\\U{:08x}", u32::from(c)),
        }
    }
    out + "\""
}

fn made(input: &[u8], snapshot: &Snapshot<'_>) {
    let (mut filters, mut meant): (Vec<String>, Vec<bool>) = (Vec::new(), Vec::new());
    for selector in input.chunks_exact(3) {
        let (value, field) = snapshot.field(selector[0]);
        let operand = VALUES[usize::from(selector[2]) % VALUES.len()];
        let (text, fits) = match selector[1] % 5 {
            0 => (field, value.is_some()),
            1 => (format!("{field}=={}", quoted(operand)), value == Some(operand)),
            2 => (
                format!("{field} != {}", quoted(operand)),
                value.unwrap_or("") != operand,
            ),
            // An expression without signs of its own is found wherever it stands.
            3 if operand.chars().all(|c| c.is_ascii_alphanumeric()) => {
                (format!("{field}~=|{operand}|"), value.unwrap_or("").contains(operand))
            }
            _ => (format!("{field}~={}", quoted("^$")), value.unwrap_or("").is_empty()),
        };
        match (filters.last_mut(), meant.last_mut()) {
            (Some(filter), Some(all)) if selector[1] & 0x80 == 0 => {
                *filter += &format!(",{text}");
                *all &= fits;
            }
            _ => {
                filters.push(text);
                meant.push(fits);
            }
        }
    }
    let expected = meant.is_empty() || meant.contains(&true);
    assert_eq!(snapshot.matches(&filters), Some(expected), "{filters:?}");
}

fuzz_target!(|input: &[u8]| {
    let snapshot = Snapshot {
        name: "k8s.io/12/sha256:ab",
        parent: "",
        kind: "active",
        labels: vec![
            ("a", "a b"),
            ("a.b", "a\"b\\c"),
            ("containerd.io/gc.root", "é\u{1f4a9}"),
            ("", "a"),
        ],
    };
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    if *mode == b'm' {
        return made(&rest[..rest.len().min(300)], &snapshot);
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let filters: Vec<String> = text.lines().take(8).map(str::to_owned).collect();
    let told = (snapshot.name, snapshot.parent, snapshot.kind);
    match within(FAIR, "reading", || matches(&filters, told, &snapshot.labels)) {
        Ok(found) => {
            let each = filters.iter().map(|one| snapshot.matches(std::slice::from_ref(one)));
            let any = filters.is_empty() || each.into_iter().any(|one| one == Some(true));
            assert_eq!(found, any, "several match if one of them does");
        }
        Err(error) => {
            assert!(filters.contains(&error.filter));
            assert!(
                error.filter.is_char_boundary(error.at),
                "byte {} of {:?}",
                error.at,
                error.filter
            );
        }
    }
});
