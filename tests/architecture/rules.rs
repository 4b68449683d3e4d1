//! Every rule of the house that a machine can hold: one test a rule, and tests that the rules can fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::scan::{self, Token};
use super::table::{BINARIES, FORBIDDEN_NAMES, LONGEST_FILE, ROOMS, Room, may_print};

/// One file of the house: its path below `src/`, and its words.
struct Source {
    path: String,
    lines: usize,
    tokens: Vec<Token>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            lines: text.lines().count(),
            tokens: scan::tokens(text),
        }
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("_tests.rs")
    }

    fn is_door(&self) -> bool {
        self.path.ends_with("/mod.rs") || self.path == "lib.rs"
    }

    /// The room (or binary) that this file belongs to; `None` for `lib.rs`.
    fn room(&self) -> Option<&str> {
        let first = self.path.strip_prefix("bin/").unwrap_or(&self.path);
        let first = first.split('/').next().unwrap_or(first);
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (name != "lib").then_some(name)
    }

    /// How many modules this file lies below the crate's root.
    fn depth(&self) -> usize {
        let steps = self.path.split('/').count();
        if self.is_door() { steps - 1 } else { steps }
    }

    /// Every room that the file names, with the line.
    fn rooms_named(&self) -> Vec<(usize, String)> {
        let mut named = scan::paths_from(&self.tokens, "crate");
        named.extend(scan::paths_from(&self.tokens, "ploop_snapshotter"));
        // A test file lies one module deeper than its path says, an inline module too: count both ways.
        for depth in [self.depth(), self.depth() + 1] {
            let climbed = scan::paths_climbing_out(&self.tokens, depth);
            named.extend(climbed.into_iter().filter(|(_, n)| is_room(n)));
        }
        named
    }
}

fn is_room(name: &str) -> bool {
    ROOMS.iter().any(|room| room.name == name)
}

fn read_all(below: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(below);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&root).expect("found below the root");
                let name = name.to_str().expect("sources have plain names");
                let text = fs::read_to_string(&path).expect("a source is text");
                found.push(Source::new(name, &text));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no source below {below}");
    found
}

fn wrong_arrows(file: &Source) -> Vec<String> {
    let Some(name) = file.room() else {
        return Vec::new();
    };
    let rows = if file.path.starts_with("bin/") {
        BINARIES
    } else {
        ROOMS
    };
    let Some(row) = rows.iter().find(|row| row.name == name) else {
        return vec![format!(
            "{}: room `{name}` is not in tests/architecture/table.rs",
            file.path
        )];
    };
    let allowed = |used: &String| *used == name || row.uses.contains(&used.as_str());
    let mut wrong: Vec<String> = file
        .rooms_named()
        .into_iter()
        .filter(|(_, used)| !allowed(used))
        .map(|(line, used)| format!("src/{}:{line}: `{name}` may not use `{used}`", file.path))
        .collect();
    wrong.dedup();
    wrong
}

fn wrong_globs(file: &Source) -> Vec<String> {
    if file.is_test() {
        return Vec::new();
    }
    scan::globs(&scan::without_tests(&file.tokens))
        .into_iter()
        .map(|line| format!("src/{}:{line}: name what you use", file.path))
        .collect()
}

fn wrong_doors(file: &Source) -> Vec<String> {
    if !file.is_door() {
        return Vec::new();
    }
    scan::definitions(&file.tokens)
        .into_iter()
        .map(|(line, word)| format!("src/{}:{line}: a door defines nothing: `{word}`", file.path))
        .collect()
}

fn wrong_prints(file: &Source) -> Vec<String> {
    if may_print(&file.path) || file.is_test() {
        return Vec::new();
    }
    scan::prints(&scan::without_tests(&file.tokens))
        .into_iter()
        .map(|line| format!("src/{}:{line}: only cli/output.rs prints", file.path))
        .collect()
}

fn wrong_names(file: &Source) -> Vec<String> {
    file.path
        .split('/')
        .map(|part| part.strip_suffix(".rs").unwrap_or(part))
        .filter(|part| FORBIDDEN_NAMES.contains(part))
        .map(|part| format!("src/{}: `{part}` says nothing", file.path))
        .collect()
}

fn nothing_wrong(rule: impl Fn(&Source) -> Vec<String>) {
    let wrong: Vec<String> = read_all("src").iter().flat_map(rule).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn arrows_run_down() {
    for (at, row) in ROOMS.iter().enumerate() {
        assert_names_only(row, &ROOMS[..at]);
    }
    for binary in BINARIES {
        assert_names_only(binary, ROOMS);
    }
}

fn assert_names_only(row: &Room, below: &[Room]) {
    for used in row.uses {
        let known = below.iter().any(|lower| lower.name == *used);
        assert!(known, "`{}` -> `{used}` does not run down", row.name);
    }
}

#[test]
fn rooms_use_only_what_their_row_names() {
    nothing_wrong(wrong_arrows);
}

#[test]
fn every_row_of_the_table_is_a_room() {
    let rooms: BTreeSet<_> = read_all("src")
        .iter()
        .filter(|file| !file.path.starts_with("bin/"))
        .filter_map(|file| file.room().map(str::to_owned))
        .collect();
    let table: BTreeSet<_> = ROOMS.iter().map(|room| room.name.to_owned()).collect();
    assert_eq!(rooms, table);
}

#[test]
fn doors_define_nothing() {
    nothing_wrong(wrong_doors);
}

#[test]
fn nothing_is_used_by_star() {
    nothing_wrong(wrong_globs);
}

#[test]
fn only_the_output_room_prints() {
    nothing_wrong(wrong_prints);
}

#[test]
fn names_say_something() {
    nothing_wrong(wrong_names);
}

#[test]
fn files_stay_short() {
    for below in ["src", "tests"] {
        let long: Vec<_> = read_all(below)
            .iter()
            .filter(|file| file.lines > LONGEST_FILE)
            .map(|file| format!("{below}/{}: {} lines", file.path, file.lines))
            .collect();
        assert!(long.is_empty(), "\n{}\n", long.join("\n"));
    }
}

#[test]
fn a_wrong_arrow_is_seen_however_it_is_written() {
    let wrong = |path: &str, text: &str| wrong_arrows(&Source::new(path, text)).len();
    // Allowed: what the row names, the room itself, and words that are no code.
    for fine in [
        "use crate::units::Bytes;",
        "use super::record::Record;",
        "use crate::store::Record;",
        "// crate::disk::Shards\n/* crate::disk /* crate::disk */ crate::disk */",
        "const TEXT: &str = \"crate::disk\";",
        "const TEXT: &str = r#\"\" crate::disk \"#;",
        "const A: char = '\"'; const B: &str = \"crate::disk\"; fn c<'a>(x: &'a str) {}",
        "const A: u8 = b'\\''; const B: &[u8] = b\"\\\" crate::disk\";",
    ] {
        assert_eq!(wrong("store/db.rs", fine), 0, "{fine}");
    }
    for bad in [
        "use crate::disk::Shards;",
        "use crate :: disk;",
        "fn f() -> crate::disk::Shards { todo() }",
        "fn f() { let c = '\\''; crate::disk::start(); }",
        "use super::super::disk::Shards;",
        "mod tests { use super::super::super::disk::Shards; }",
        "use crate::{disk, units};",
        "use crate::*;",
        "fn f<'a>(x: &'a str) { crate::disk::start(x, '\"') } // \"",
    ] {
        assert!(wrong("store/db.rs", bad) > 0, "{bad}");
    }
    assert_eq!(
        wrong("store/db.rs", "use crate::disk::A;\nuse crate::io;"),
        2
    );
    assert_eq!(wrong("units.rs", "use super::disk;"), 1);
    assert_eq!(wrong("disk/mod.rs", "pub use super::server::X;"), 1);
    assert_eq!(wrong("bin/ploop.rs", "use ploop_snapshotter::disk;"), 1);
    assert_eq!(wrong("bin/ploop.rs", "use ploop_snapshotter::cli;"), 0);
    assert_eq!(wrong("cellar/x.rs", "fn f() {}"), 1);
}

#[test]
fn a_door_that_defines_is_seen() {
    let wrong = |text: &str| wrong_doors(&Source::new("disk/mod.rs", text)).len();
    let fine = "//! Text.\n#![expect(x, reason = \"y\")]\nmod a;\npub mod b;\npub(crate) mod c;\n\
                pub use a::{X, Y};\n#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;\n";
    assert_eq!(wrong(fine), 0);
    for bad in [
        "pub struct X;",
        "use a::X;",
        "mod a { }",
        "const X: u8 = 1;",
        "pub fn f() {}",
        "mod a;\n#[derive(Debug)]\npub(crate) enum E { A }",
    ] {
        assert!(wrong(bad) > 0, "{bad}");
    }
}

#[test]
fn stars_prints_and_empty_names_are_seen() {
    let file = |text: &str| Source::new("disk/x.rs", text);
    assert_eq!(
        wrong_globs(&file("use a::b::*;\nfn f(x: *const u8) {}")).len(),
        1
    );
    assert_eq!(wrong_globs(&file("use a::{b::*, c};")).len(), 1);
    assert_eq!(
        wrong_globs(&file("#[cfg(test)]\nmod tests { use super::*; }")).len(),
        0
    );
    assert_eq!(
        wrong_globs(&file("mod tests { fn f() {} }\nuse super::*;")).len(),
        1
    );
    assert_eq!(wrong_prints(&file("fn f() { println!(\"x\"); }")).len(), 1);
    assert_eq!(
        wrong_prints(&file("fn f() { write(io::stdout()); }")).len(),
        1
    );
    assert_eq!(
        wrong_prints(&file("fn f() { log(std::io::stderr); }")).len(),
        0
    );
    assert_eq!(wrong_names(&Source::new("disk/util.rs", "")).len(), 1);
    assert_eq!(wrong_names(&Source::new("utility/disk.rs", "")).len(), 0);
}
