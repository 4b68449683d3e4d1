//! QEMU's `parallels` driver as a judge of our files: it checks them, and reads whole chains.
//!
//! Only ever reads: QEMU 10 silently repairs what it opens for writing, and loses data doing so. Needs
//! version 10 or later: version 7 misses most defects and sees leaks where none are. If it is not
//! there, tests fail and say so; they never pass unseen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Value, json};

/// The oldest version whose verdict is worth something.
const OLDEST: u32 = 10;

/// Panics with QEMU's words unless it finds nothing at all wrong with the image.
pub(crate) fn check(path: &Path) {
    let output = run(&["check", "-f", "parallels", &path.to_string_lossy()]);
    assert!(
        output.status.code() == Some(0),
        "qemu-img check {}: {}",
        path.display(),
        said(&output)
    );
}

/// What `qemu-img check` answers: 0 sound, 2 corrupt, 3 leaks, other codes or `None` (it crashed) for
/// what it could not even finish.
pub(crate) fn verdict(path: &Path) -> Option<i32> {
    run(&["check", "-f", "parallels", &path.to_string_lossy()])
        .status
        .code()
}

/// The contents of a chain's disk as QEMU reads them.
pub(crate) fn read_chain(lowest_first: &[PathBuf], base_is_raw: bool) -> Vec<u8> {
    let mut chain = Value::Null;
    for (index, path) in lowest_first.iter().enumerate() {
        let driver = if index == 0 && base_is_raw {
            "raw"
        } else {
            "parallels"
        };
        let file = json!({ "driver": "file", "filename": path, "locking": "off" });
        let mut node = json!({ "driver": driver, "file": file });
        if !chain.is_null() {
            node["backing"] = chain;
        }
        chain = node;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let raw = directory.path().join("disk.raw");
    let (from, to) = (format!("json:{chain}"), raw.to_string_lossy().into_owned());
    let output = run(&["convert", "-O", "raw", &from, &to]);
    assert!(
        output.status.success(),
        "qemu-img convert {chain}: {}",
        said(&output)
    );
    fs::read(raw).expect("qemu-img has written it")
}

fn run(arguments: &[&str]) -> Output {
    static PRESENT: OnceLock<()> = OnceLock::new();
    PRESENT.get_or_init(require);
    Command::new("qemu-img")
        .args(arguments)
        .output()
        .expect("qemu-img runs")
}

fn require() {
    let output = Command::new("qemu-img")
        .arg("--version")
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "qemu-img {OLDEST} or later is needed to judge our files ({error}): run `make deps`"
            )
        });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().nth(2).unwrap_or_default();
    let major = version
        .split('.')
        .next()
        .and_then(|number| number.parse::<u32>().ok());
    assert!(
        major.is_some_and(|major| major >= OLDEST),
        "qemu-img is version {version:?}, and {OLDEST} or later is needed: run `make deps`"
    );
}

fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
